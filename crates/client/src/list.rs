//! Lists, page by page.

use futures::{Stream, StreamExt, TryStreamExt, stream};
use reqwest::Method;
use serde::Deserialize;

use crate::{Client, Queue, Result, Task, Worker};

/// How many tasks are fetched at once.
const PAGE_SIZE: usize = 100;

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Only in this state.
    pub state: Option<String>,
    /// Only of this queue.
    pub queue: Option<String>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only with this label.
    pub tag: Option<String>,
    /// Only created after this time.
    pub created_after: Option<String>,
    /// Only created before this time.
    pub created_before: Option<String>,
    /// How many at the most; the page is no larger than that.
    pub limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Page {
    tasks: Vec<Task>,
    #[serde(default)]
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Queues {
    pub(crate) queues: Vec<Queue>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Workers {
    pub(crate) workers: Vec<Worker>,
}

/// Where a list is.
enum Next {
    First,
    After(String),
    End,
}

pub(crate) fn all_pages(
    client: Client,
    filter: TaskFilter,
) -> impl Stream<Item = Result<Task>> + Send + 'static {
    let limit = filter.limit.unwrap_or(usize::MAX);
    let pages = stream::try_unfold(
        (client, filter, Next::First),
        |(client, filter, next)| async move {
            let token = match &next {
                Next::First => None,
                Next::After(token) => Some(token.as_str()),
                Next::End => return Ok(None),
            };
            let page = one_page(&client, &filter, token).await?;
            let next = page
                .next_page_token
                .filter(|token| !token.is_empty())
                .map_or(Next::End, Next::After);
            Ok(Some((
                stream::iter(page.tasks.into_iter().map(Ok)),
                (client, filter, next),
            )))
        },
    );
    pages.try_flatten().take(limit)
}

async fn one_page(client: &Client, filter: &TaskFilter, token: Option<&str>) -> Result<Page> {
    let mut url = client.path(&["tasks"]);
    let size = filter.limit.unwrap_or(PAGE_SIZE).clamp(1, PAGE_SIZE).to_string();
    let parameters = [
        ("state", filter.state.as_deref()),
        ("queue", filter.queue.as_deref()),
        ("kind", filter.kind.as_deref()),
        ("tag", filter.tag.as_deref()),
        ("created_after", filter.created_after.as_deref()),
        ("created_before", filter.created_before.as_deref()),
        ("page_size", Some(size.as_str())),
        ("page_token", token),
    ];
    for (name, value) in parameters {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    client.json_again(client.at(Method::GET, url)).await
}
