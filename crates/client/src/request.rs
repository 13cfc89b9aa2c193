//! Single requests.

use std::{future::Future, sync::Arc, time::Duration};

use futures::Stream;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::{
    io::AsyncRead,
    time::{Instant, sleep},
};
use tower::retry::budget::TpsBudget;
use url::Url;

use crate::{
    Error, EventFilter, Heard, ItemResult, NewTask, Problem, Queue, Rejects, Result, Task, TaskFilter,
    Worker, error::shown, events, lines, list, retry,
};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take that waits for nothing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a read goes on while the server says that the task is not recorded yet.
const RECORDED_WITHIN: Duration = Duration::from_secs(10);
/// How long between two looks at a task that is waited for: at first, and at the most.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(2);
/// The longest answer that is read as an error.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;

/// A client of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    retries: Arc<TpsBudget>,
}

/// How to submit.
#[derive(Debug, Clone, Default)]
pub struct SubmitOptions {
    /// The submitter's own name for the task: sending the same again names the same task.
    pub idempotency_key: Option<String>,
    /// How long the server may hold the answer back until the task has ended.
    pub wait: Option<Duration>,
}

impl Client {
    /// A client of the server at `base`. Nothing is connected yet.
    ///
    /// # Errors
    /// Where the system has no usable TLS.
    pub fn new(mut base: Url) -> Result<Self> {
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::unreachable(&error, &base))?;
        let retries = Arc::new(retry::budget());
        Ok(Self { http, base, retries })
    }

    /// Submits a task. It is durable once this returns. With `wait`, the task may have ended already. With an
    /// idempotency key, it is tried a few times where the server can't be reached or has no room; without one it is
    /// sent once, since it may be accepted although the answer is lost.
    ///
    /// # Errors
    /// Where the server refused it or can't be reached.
    pub async fn submit(&self, task: &NewTask, options: &SubmitOptions) -> Result<Task> {
        let wait = options.wait.unwrap_or_default();
        let mut request = self
            .request(Method::POST, &["tasks"])
            .json(task)
            .timeout(ANSWER_TIMEOUT + wait);
        if let Some(key) = &options.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if wait > Duration::ZERO {
            request = request.header("Prefer", format!("wait={}", wait.as_secs().max(1)));
        }
        match options.idempotency_key {
            Some(_) => self.json_again(request).await,
            None => self.json(request).await,
        }
    }

    /// Submits one task for each line that `lines` has, and returns what becomes of each as it is known. Reads no
    /// faster than the server accepts.
    ///
    /// # Errors
    /// Where the upload as a whole was refused, or the server can't be reached.
    pub async fn submit_ndjson(
        &self,
        lines: impl AsyncRead + Send + 'static,
    ) -> Result<impl Stream<Item = Result<ItemResult>> + Send + 'static> {
        let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(lines, 64 * 1024));
        let request = self
            .request(Method::POST, &["tasks", "batch"])
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .header(header::ACCEPT, "application/x-ndjson")
            .body(body);
        let answer = self.answer(request).await?;
        Ok(lines::json_lines(answer, self.base.clone()))
    }

    /// Reads a task. Waits a little where it is accepted but not recorded yet, and tries a few times where the server
    /// can't be reached.
    ///
    /// # Errors
    /// Where there is none of this id, or the server can't be reached.
    pub async fn get(&self, id: &str) -> Result<Task> {
        let give_up = Instant::now() + RECORDED_WITHIN;
        loop {
            let request = self.request(Method::GET, &["tasks", id]).timeout(ANSWER_TIMEOUT);
            match self.json_again(request).await {
                Err(Error::Refused(problem))
                    if problem.code == "not_yet_recorded" && Instant::now() < give_up =>
                {
                    sleep(LOOK_FIRST).await;
                }
                other => return other,
            }
        }
    }

    /// Reads a task until it is final or `within` is over, and returns it as it is then.
    ///
    /// # Errors
    /// As [`Self::get`]; a server that can't be reached for a moment is asked again.
    pub async fn wait(&self, id: &str, within: Duration) -> Result<Task> {
        let give_up = Instant::now() + within;
        let mut pause = LOOK_FIRST;
        loop {
            match self.get(id).await {
                Ok(task) if task.is_final() || Instant::now() >= give_up => return Ok(task),
                Err(error) if !error.is_unavailable() || Instant::now() >= give_up => return Err(error),
                Ok(_) | Err(_) => {}
            }
            sleep(pause.min(give_up.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    /// All tasks that `filter` lets through, newest first; further pages are fetched as they are needed, and each a few
    /// times where the server can't be reached.
    pub fn list(&self, filter: TaskFilter) -> impl Stream<Item = Result<Task>> + Send + 'static {
        list::all_pages(self.clone(), filter)
    }

    /// Cancels a task.
    ///
    /// # Errors
    /// Where its state forbids it, there is none, or the server can't be reached.
    pub async fn cancel(&self, id: &str) -> Result<Task> {
        self.json(
            self.request(Method::POST, &["tasks", id, "cancel"])
                .timeout(ANSWER_TIMEOUT),
        )
        .await
    }

    /// Brings a task back.
    ///
    /// # Errors
    /// Where its state forbids it, there is none, or the server can't be reached.
    pub async fn retry(&self, id: &str) -> Result<Task> {
        self.json(
            self.request(Method::POST, &["tasks", id, "retry"])
                .timeout(ANSWER_TIMEOUT),
        )
        .await
    }

    /// All queues.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn queues(&self) -> Result<Vec<Queue>> {
        let list: list::Queues = self
            .json(self.request(Method::GET, &["queues"]).timeout(ANSWER_TIMEOUT))
            .await?;
        Ok(list.queues)
    }

    /// Pauses a queue: its tasks are accepted and recorded, and none is started. Workers know of it within about a
    /// second. Returns the queue as it is now.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn pause_queue(&self, queue: &str) -> Result<Queue> {
        self.json(
            self.request(Method::POST, &["queues", queue, "pause"])
                .timeout(ANSWER_TIMEOUT),
        )
        .await
    }

    /// Resumes a queue. Returns it as it is now.
    ///
    /// # Errors
    /// Where there is no such queue, or the server can't be reached.
    pub async fn resume_queue(&self, queue: &str) -> Result<Queue> {
        self.json(
            self.request(Method::POST, &["queues", queue, "resume"])
                .timeout(ANSWER_TIMEOUT),
        )
        .await
    }

    /// All workers that are alive.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn workers(&self) -> Result<Vec<Worker>> {
        let list: list::Workers = self
            .json(self.request(Method::GET, &["workers"]).timeout(ANSWER_TIMEOUT))
            .await?;
        Ok(list.workers)
    }

    /// The latest messages that were set aside, up to `limit`.
    ///
    /// # Errors
    /// Where the server can't be reached, or refuses the limit.
    pub async fn rejects(&self, limit: usize) -> Result<Rejects> {
        let mut url = self.path(&["rejects"]);
        url.query_pairs_mut().append_pair("limit", &limit.to_string());
        self.json(self.at(Method::GET, url).timeout(ANSWER_TIMEOUT)).await
    }

    /// What happens from now on: a connection that is lost is made again, and goes on where it was. Never ends,
    /// unless one task is listened to: its present state comes first then, and its final one last.
    ///
    /// # Errors
    /// Where the first connection is refused or can't be made.
    pub async fn events(
        &self,
        filter: EventFilter,
    ) -> Result<impl Stream<Item = Result<Heard>> + Send + 'static> {
        events::listen(self.clone(), filter).await
    }

    pub(crate) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.http.request(method, self.path(path))
    }

    /// A request to an address, which answers at once.
    pub(crate) fn at(&self, method: Method, url: Url) -> RequestBuilder {
        self.at_open(method, url).timeout(ANSWER_TIMEOUT)
    }

    /// A request to an address, whose answer may stay open.
    pub(crate) fn at_open(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// The address of a path below `/v1`. Its parts may hold any character.
    pub(crate) fn path(&self, parts: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(parts);
        }
        url
    }

    /// As [`Self::json`], and again where the server can't be reached or can't serve now. Only for requests that have
    /// the same effect twice as once.
    pub(crate) async fn json_again<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        retry::again(&self.retries, || async {
            match request.try_clone() {
                Some(request) => self.json(request).await,
                // Only a body that is a stream can't be repeated.
                None => Err(Error::Unexpected {
                    url: shown(&self.base),
                    answer: "nothing, since the request could not be repeated".to_owned(),
                }),
            }
        })
        .await
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let answer = self.answer(request).await?;
        let body = self.reached(answer.bytes()).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Unexpected {
            url: shown(&self.base),
            answer: format!("something else than was asked for ({error})"),
        })
    }

    /// Sends a request, and turns every answer but success into an error.
    pub(crate) async fn answer(&self, request: RequestBuilder) -> Result<Response> {
        let answer = self.reached(request.send()).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        Err(self.refusal(status, answer).await)
    }

    async fn refusal(&self, status: StatusCode, mut answer: Response) -> Error {
        let retry_after = answer.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok());
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > PROBLEM_BYTES_MAX {
                break;
            }
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Error::Refused(Box::new(Problem {
                retry_after_seconds: retry_after,
                ..problem
            })),
            // What stands in front of a server answers in its own words.
            Err(_) if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::BAD_GATEWAY => {
                Error::Unreachable {
                    url: shown(&self.base),
                    reason: format!("answered {status}"),
                }
            }
            Err(_) => Error::Unexpected {
                url: shown(&self.base),
                answer: status.to_string(),
            },
        }
    }

    async fn reached<T>(&self, call: impl Future<Output = reqwest::Result<T>>) -> Result<T> {
        call.await.map_err(|error| Error::unreachable(&error, &self.base))
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_is_kept_and_an_id_cannot_leave_it() {
        let client = Client::new("http://h/forebay".parse().unwrap()).unwrap();
        assert_eq!(
            client.path(&["tasks", "a/../b?x"]).as_str(),
            "http://h/forebay/v1/tasks/a%2F..%2Fb%3Fx"
        );
        let client = Client::new("http://h".parse().unwrap()).unwrap();
        assert_eq!(client.path(&["tasks"]).as_str(), "http://h/v1/tasks");
    }
}
