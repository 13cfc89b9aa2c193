//! `/v1/rejects`: messages that nobody could decode, for a person to look at.

use axum::{extract::State, http::StatusCode, response::Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use forebay_core::Timestamp;
use forebay_store::SetAside;
use serde::Serialize;

use crate::{
    App,
    error::{ApiError, Code, Result},
    http::{json, params::Query},
    ops,
};

/// How many are shown, where it is not said, and at most.
const LIMIT: usize = 20;
const LIMIT_MAX: usize = 100;

#[derive(Debug, Serialize)]
struct RejectBody<'a> {
    subject: &'a str,
    reason: &'a str,
    rejected_at: Timestamp,
    /// Of the whole body.
    bytes: u64,
    excerpt: String,
    /// How the excerpt is to be read.
    encoding: &'static str,
}

impl<'a> From<&'a SetAside> for RejectBody<'a> {
    fn from(reject: &'a SetAside) -> Self {
        let cut = reject.bytes > reject.excerpt.len() as u64;
        let (excerpt, encoding) = match text(&reject.excerpt, cut) {
            Some(text) => (text.to_owned(), "text"),
            None => (BASE64_STANDARD.encode(&reject.excerpt), "base64"),
        };
        Self {
            subject: &reject.subject,
            reason: &reject.reason,
            rejected_at: reject.rejected_at,
            bytes: reject.bytes,
            excerpt,
            encoding,
        }
    }
}

/// The bytes, where they are text that a person can read. Where they were cut, that may have been within a character.
fn text(bytes: &[u8], cut: bool) -> Option<&str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if cut && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let readable = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    text.chars().all(readable).then_some(text)
}

#[derive(Debug, Serialize)]
struct RejectsBody<'a> {
    /// How many are kept.
    count: u64,
    rejects: Vec<RejectBody<'a>>,
}

/// `GET /v1/rejects`
pub(crate) async fn list(State(app): State<App>, mut query: Query) -> Result<Response> {
    let limit: Option<usize> = query.parsed("limit");
    query.done()?;
    let limit = limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let detail = format!("must be from 1 to {LIMIT_MAX}");
        return Err(ApiError::at(Code::InvalidParameter, "/limit", detail));
    }
    let rejects = ops::rejects::rejects(&app, limit).await?;
    let body = RejectsBody {
        count: rejects.count,
        rejects: rejects.latest.iter().map(RejectBody::from).collect(),
    };
    Ok(json(StatusCode::OK, &body))
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn text_is_shown_as_text_even_where_it_was_cut_within_a_character() {
        let bytes = "line\nä".as_bytes();
        assert_eq!(text(bytes, false), Some("line\nä"));
        let within = &bytes[..bytes.len() - 1];
        assert_eq!(text(within, true), Some("line\n"));
        assert_eq!(text(within, false), None);
        for binary in [&b"\xff\xfe"[..], b"a\0b", b"\x1b[31m"] {
            assert_eq!(text(binary, true), None, "{binary:?}");
        }
    }
}
