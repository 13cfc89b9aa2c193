//! Lists tasks, page by page. A page token says where the next page begins, and for which filter.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use forebay_core::{Task, TaskId, Timestamp, from_unix_micros};
use forebay_store::{PageToken, TaskFilter};
use sha2::{Digest, Sha256};

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::read,
};

/// The tasks of a page: at most, and unless said.
pub(crate) const PAGE_SIZE_MAX: i64 = 200;
const PAGE_SIZE_DEFAULT: i64 = 50;
/// The longest tag, as submissions may have them.
const TAG_BYTES_MAX: usize = 64;
/// Of a token: the time, the id, and what binds it to the filter.
const TOKEN_BYTES: usize = 8 + 16 + 8;

/// Which page of which list.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) filter: TaskFilter,
    pub(crate) page_size: Option<i64>,
    pub(crate) page_token: Option<String>,
}

/// A page, and the token of the next one.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) tasks: Vec<Task>,
    pub(crate) next: Option<String>,
}

/// Lists a page of tasks, newest first.
pub(crate) async fn list(app: &App, wanted: Wanted) -> Result<Listed> {
    let Wanted {
        mut filter,
        page_size,
        page_token,
    } = wanted;
    let page_size = check_page_size(page_size)?;
    check_tag(filter.tag.as_deref())?;
    let binding = binding(&filter);
    let page = page_token.map(|token| parse_token(&token, binding)).transpose()?;
    // No task is older, and no store need know dates that are.
    let known = |at: Timestamp| at.max(Timestamp::UNIX_EPOCH);
    filter.created_after = filter.created_after.map(known);
    filter.created_before = filter.created_before.map(known);
    let found = read(app, || app.store.list(&filter, page_size, page)).await?;
    Ok(Listed {
        tasks: found.tasks,
        next: found.next.map(|next| write_token(next, binding)),
    })
}

/// How many a page may hold, of any list.
pub(crate) fn check_page_size(asked: Option<i64>) -> Result<usize> {
    let asked = asked.unwrap_or(PAGE_SIZE_DEFAULT);
    let wrong = || {
        ApiError::at(
            Code::InvalidParameter,
            "/page_size",
            format!("must be from 1 to {PAGE_SIZE_MAX}"),
        )
    };
    if !(1..=PAGE_SIZE_MAX).contains(&asked) {
        return Err(wrong());
    }
    usize::try_from(asked).map_err(|_| wrong())
}

fn check_tag(tag: Option<&str>) -> Result<()> {
    let wrong = |tag: &str| tag.is_empty() || tag.len() > TAG_BYTES_MAX || tag.chars().any(char::is_control);
    if tag.is_some_and(wrong) {
        let detail = format!("must have 1 to {TAG_BYTES_MAX} bytes and no control characters");
        return Err(ApiError::at(Code::InvalidParameter, "/tag", detail));
    }
    Ok(())
}

/// Tells filters apart. A token of another filter would silently skip tasks.
fn binding(filter: &TaskFilter) -> [u8; 8] {
    let fields = [
        filter.project.as_ref().map(ToString::to_string),
        filter.state.map(|state| state.to_string()),
        filter.queue.as_ref().map(ToString::to_string),
        filter.kind.as_ref().map(ToString::to_string),
        filter.tag.clone(),
        filter.created_after.map(|at| at.to_string()),
        filter.created_before.map(|at| at.to_string()),
    ];
    let mut hasher = Sha256::new();
    for field in fields {
        let text = field.as_deref().unwrap_or("\0");
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize()[..8]);
    bytes
}

fn write_token(next: PageToken, binding: [u8; 8]) -> String {
    let mut bytes = Vec::with_capacity(TOKEN_BYTES);
    bytes.extend(next.created_at.as_microsecond().to_be_bytes());
    bytes.extend(next.id.as_uuid().as_bytes());
    bytes.extend(binding);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn parse_token(token: &str, binding: [u8; 8]) -> Result<PageToken> {
    let wrong = |detail: &str| ApiError::at(Code::InvalidPageToken, "/page_token", detail);
    let bytes = URL_SAFE_NO_PAD
        .decode(token)
        .map_err(|_| wrong("must be a next_page_token as it was given"))?;
    let (Some((at, rest)), TOKEN_BYTES) = (bytes.split_first_chunk::<8>(), bytes.len()) else {
        return Err(wrong("must be a next_page_token as it was given"));
    };
    let mut id = [0; 16];
    id.copy_from_slice(&rest[..16]);
    if rest[16..] != binding {
        return Err(wrong("was given for a list with another filter"));
    }
    Ok(PageToken {
        created_at: from_unix_micros(i64::from_be_bytes(*at)).max(Timestamp::UNIX_EPOCH),
        id: TaskId::from_bytes(id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_its_filter() {
        let filter = TaskFilter::default();
        let next = PageToken {
            created_at: "2026-03-01T12:00:00.000001Z".parse().unwrap(),
            id: TaskId::from_bytes([7; 16]),
        };
        let token = write_token(next, binding(&filter));
        assert_eq!(parse_token(&token, binding(&filter)), Ok(next));
        let other = TaskFilter {
            tag: Some("x".into()),
            ..TaskFilter::default()
        };
        assert!(parse_token(&token, binding(&other)).is_err());
        for bad in ["", "A", "!!!!", &token[1..], &format!("{token}AAAA")] {
            assert!(parse_token(bad, binding(&filter)).is_err(), "{bad:?}");
        }
    }
}
