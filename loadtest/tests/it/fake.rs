//! A server that looks like Forebay and misbehaves as a test asks it to. A task that it accepts has succeeded.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

/// What it does to the submissions with these numbers, counted from 1.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mischief {
    /// Accepts and forgets it.
    pub(crate) lose: Option<u64>,
    /// Accepts it under the id of the one before.
    pub(crate) double: Option<u64>,
    /// Executes it twice.
    pub(crate) execute_twice: Option<u64>,
    /// Executes it twice, for a reason that it tells.
    pub(crate) retry: Option<u64>,
    /// Never ends it.
    pub(crate) never_end: Option<u64>,
    /// Answers up to this one with 429.
    pub(crate) refuse_up_to: u64,
    /// Ends the connection instead of an answer, and keeps the task.
    pub(crate) hang_up: Option<u64>,
    /// Answers nothing from this long after the first submission, for a second.
    pub(crate) stall_after: Option<Duration>,
}

/// The server; it ends when this is dropped.
pub(crate) struct Fake {
    /// Where it listens.
    pub(crate) url: String,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Served {
    mischief: Mischief,
    submissions: AtomicU64,
    tasks: Mutex<Vec<Value>>,
    first: Mutex<Option<Instant>>,
}

impl Served {
    fn tasks(&self) -> MutexGuard<'_, Vec<Value>> {
        self.tasks.lock().unwrap()
    }

    async fn stall(&self) {
        let first = *self.first.lock().unwrap().get_or_insert_with(Instant::now);
        if let Some(after) = self.mischief.stall_after {
            let (begins, ends) = (first + after, first + after + Duration::from_secs(1));
            if (begins..ends).contains(&Instant::now()) {
                tokio::time::sleep_until(ends.into()).await;
            }
        }
    }

    /// Accepts a task; `None` where it is refused.
    fn accept(&self, submitted: &Value) -> Option<(u64, Value)> {
        let number = self.submissions.fetch_add(1, Ordering::Relaxed) + 1;
        let is = |which: Option<u64>| which == Some(number);
        if number <= self.mischief.refuse_up_to {
            return None;
        }
        let now = Timestamp::now();
        let twice = is(self.mischief.execute_twice) || is(self.mischief.retry);
        let errors = if is(self.mischief.retry) {
            json!([{"outcome": "failed"}])
        } else {
            json!([])
        };
        let mut task = json!({
            "id": Uuid::now_v7(), "kind": submitted["kind"], "queue": submitted["queue"], "tags": submitted["tags"],
            "state": if is(self.mischief.never_end) { "running" } else { "succeeded" },
            "attempt": if twice { 2 } else { 1 }, "errors": errors,
            "created_at": now, "started_at": now, "finished_at": now,
        });
        let mut tasks = self.tasks();
        if is(self.mischief.double) {
            task["id"] = tasks.last().unwrap()["id"].clone();
        } else if !is(self.mischief.lose) {
            tasks.push(task.clone());
        }
        Some((number, task))
    }
}

impl Fake {
    /// Starts one.
    pub(crate) async fn start(mischief: Mischief) -> Self {
        let served = Arc::new(Served {
            mischief,
            submissions: AtomicU64::new(0),
            tasks: Mutex::default(),
            first: Mutex::default(),
        });
        let routes = Router::new()
            .route(
                "/openapi.json",
                get(|| async { Json(json!({"info": {"version": "0.0.0-fake"}})) }),
            )
            .route("/v1/workers", get(|| async { Json(json!({"workers": []})) }))
            .route("/v1/queues", get(queues))
            .route("/v1/queues/{queue}", get(queue))
            .route("/v1/tasks", post(submit).get(list))
            .route("/v1/tasks/batch", post(stream))
            .route("/v1/tasks/{id}", get(task))
            .with_state(served);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, serving }
    }
}

async fn queues() -> Json<Value> {
    Json(json!({"queues": [{"name": "default", "ready": 0, "running": 0, "scheduled": 0}]}))
}

async fn queue() -> Json<Value> {
    Json(json!({"name": "default", "ready": 0, "running": 0, "scheduled": 0}))
}

async fn submit(State(served): State<Arc<Served>>, Json(submitted): Json<Value>) -> Response {
    served.stall().await;
    let Some((number, task)) = served.accept(&submitted) else {
        let problem = Json(json!({"status": 429, "code": "overloaded"}));
        return (
            StatusCode::TOO_MANY_REQUESTS,
            [(header::RETRY_AFTER, "1")],
            problem,
        )
            .into_response();
    };
    if served.mischief.hang_up == Some(number) {
        // A body that breaks off takes the connection with it.
        let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("hangs up"))]);
        return (StatusCode::ACCEPTED, Body::from_stream(broken)).into_response();
    }
    (StatusCode::ACCEPTED, Json(task)).into_response()
}

/// One answer for each line, as they come.
async fn stream(State(served): State<Arc<Served>>, body: Body) -> Response {
    let lines = futures::stream::unfold(
        (body.into_data_stream(), Vec::new(), 0_u64),
        move |(mut body, mut partial, mut index)| {
            let served = Arc::clone(&served);
            async move {
                let chunk = body.next().await?.ok()?;
                partial.extend_from_slice(&chunk);
                let mut answers = Vec::new();
                while let Some(end) = partial.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = partial.drain(..=end).collect();
                    let submitted: Value = serde_json::from_slice(&line).unwrap();
                    served.stall().await;
                    let answer = match served.accept(&submitted) {
                        Some((_, task)) => json!({"index": index, "id": task["id"], "state": "queued"}),
                        None => json!({"index": index, "error": {"status": 429, "code": "overloaded"}}),
                    };
                    answers.extend_from_slice(answer.to_string().as_bytes());
                    answers.push(b'\n');
                    index += 1;
                }
                Some((
                    Ok::<_, std::io::Error>(Bytes::from(answers)),
                    (body, partial, index),
                ))
            }
        },
    );
    (StatusCode::ACCEPTED, Body::from_stream(lines)).into_response()
}

async fn task(State(served): State<Arc<Served>>, Path(id): Path<Uuid>) -> Response {
    let id = id.to_string();
    match served.tasks().iter().find(|task| task["id"] == id.as_str()) {
        Some(task) => Json(task.clone()).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({"code": "task_not_found"}))).into_response(),
    }
}

async fn list(
    State(served): State<Arc<Served>>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    let time = |name: &str| query.get(name).map(|text| text.parse::<Timestamp>().unwrap());
    let (after, before) = (time("created_after"), time("created_before"));
    let skip: usize = query.get("page_token").map_or(0, |token| token.parse().unwrap());
    let size: usize = query.get("page_size").map_or(50, |size| size.parse().unwrap());
    assert!((1..=200).contains(&size), "no page is larger");
    let tasks = served.tasks();
    let wanted = tasks.iter().filter(|task| {
        let created: Timestamp = task["created_at"].as_str().unwrap().parse().unwrap();
        let tagged = query.get("tag").is_none_or(|tag| task["tags"][0] == tag.as_str());
        tagged && after.is_none_or(|after| created > after) && before.is_none_or(|before| created < before)
    });
    let wanted: Vec<&Value> = wanted.skip(skip).take(size + 1).collect();
    let next = (wanted.len() > size).then(|| (skip + size).to_string());
    Json(json!({"tasks": wanted.into_iter().take(size).collect::<Vec<_>>(), "next_page_token": next}))
}
