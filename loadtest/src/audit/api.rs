//! By the public API: pages of lists. The ids say when their tasks were accepted, by the server's own clock; so the
//! run is cut into windows of time with about as many tasks each, which are read side by side.

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::Scope;
use crate::{
    ledger::{Ledger, Row, State},
    live::Live,
    server::{Found, Server},
    tally::Id,
};

/// The tasks of a page, the most that the server allows.
const PAGE_SIZE: usize = 200;
/// The tasks of a window.
const WINDOW: usize = 4_000;
/// How many windows are read at once.
const WINDOWS_AT_ONCE: usize = 4;
/// So few tasks of a window are asked for one by one.
const SINGLY_MAX: usize = 100;

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    tasks: Vec<Task<'a>>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Task<'a> {
    id: Uuid,
    state: &'a str,
    attempt: u64,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    errors: Vec<serde::de::IgnoredAny>,
}

impl From<Task<'_>> for Row {
    fn from(task: Task<'_>) -> Self {
        Self {
            id: task.id.into_bytes(),
            state: State::parse(task.state),
            created_us: task.created_at.as_microsecond(),
            started_us: task.started_at.map(Timestamp::as_microsecond),
            finished_us: task.finished_at.map(Timestamp::as_microsecond),
            starts: task.attempt,
            errors: task.errors.len() as u64,
        }
    }
}

/// Looks once at all tasks that are not known to be final.
pub(super) async fn pass(scope: &Scope<'_>, ledger: &mut Ledger, live: &Live) -> Result<()> {
    let total = ledger.ids().len();
    let windows = (0..total)
        .step_by(WINDOW)
        .map(|first| first..total.min(first + WINDOW));
    let wanted: Vec<Vec<Id>> = windows
        .map(|window| {
            let open: Vec<Id> = ledger.open_in(window.clone()).collect();
            // The window's ends are what matters where all of it is to be read.
            if open.len() <= SINGLY_MAX {
                open
            } else {
                ledger.ids()[window].to_vec()
            }
        })
        .filter(|window| !window.is_empty())
        .collect();
    let mut reading = stream::iter(wanted)
        .map(|window| async move {
            if window.len() <= SINGLY_MAX {
                singly(scope.server, &window).await
            } else {
                list(scope, &window).await
            }
        })
        .buffer_unordered(WINDOWS_AT_ONCE);
    while let Some(rows) = reading.try_next().await? {
        for row in &rows {
            ledger.note(row, scope.tag.is_some());
        }
        live.progress((total - ledger.open()) as u64);
    }
    Ok(())
}

async fn singly(server: &Server, ids: &[Id]) -> Result<Vec<Row>> {
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        let path = format!("/v1/tasks/{}", Uuid::from_bytes(*id));
        // Not found, or not now: asked again in the next pass, where there is one.
        if let Found::Body(body) = server.get(&path).await? {
            let task: Task<'_> = serde_json::from_slice(&body).context("read a task")?;
            rows.push(task.into());
        }
    }
    Ok(rows)
}

async fn list(scope: &Scope<'_>, window: &[Id]) -> Result<Vec<Row>> {
    let path = first_page(scope, window)?;
    let (mut rows, mut token) = (Vec::with_capacity(window.len()), None::<String>);
    loop {
        let page = match &token {
            Some(token) => scope.server.get(&format!("{path}&page_token={token}")).await?,
            None => scope.server.get(&path).await?,
        };
        // A server that has no time for us is asked again in the next pass.
        let Found::Body(body) = page else {
            return Ok(rows);
        };
        let page: Page<'_> = serde_json::from_slice(&body).context("read a page of tasks")?;
        rows.extend(page.tasks.into_iter().map(Row::from));
        token = page.next_page_token;
        if token.is_none() {
            return Ok(rows);
        }
    }
}

/// The list of all tasks accepted in the milliseconds from the first to the last id.
fn first_page(scope: &Scope<'_>, window: &[Id]) -> Result<String> {
    let at = |id: Option<&Id>, add: i64| -> Result<String> {
        let millis = id.map_or(0, |id| forebay_core::TaskId::from_bytes(*id).unix_millis());
        let at = Timestamp::from_millisecond(i64::try_from(millis)? + add)?;
        Ok(at.to_string())
    };
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("queue", scope.queue)
        .append_pair("created_after", &at(window.first(), -1)?)
        .append_pair("created_before", &at(window.last(), 1)?)
        .append_pair("page_size", &PAGE_SIZE.to_string());
    if let Some(tag) = scope.tag {
        query.append_pair("tag", tag);
    }
    Ok(format!("/v1/tasks?{}", query.finish()))
}
