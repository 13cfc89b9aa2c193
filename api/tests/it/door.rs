//! A door to knock at.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use forebay_api::{App, Bounds, Parts, background, router};
use forebay_broker::GroupCommit;
use forebay_core::{Clock, TaskId, Timestamp};
use forebay_runtime::{health::Health, metrics::Metrics};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::fake::Fake;

/// A clock that stands still until it is set.
#[derive(Debug, Clone)]
pub(crate) struct TestClock(Arc<Mutex<Timestamp>>);

impl TestClock {
    pub(crate) fn set(&self, now: &str) {
        *self.0.lock().unwrap() = now.parse().unwrap();
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

pub(crate) struct Door {
    pub(crate) app: App,
    pub(crate) fake: Fake,
    pub(crate) clock: TestClock,
    pub(crate) router: Router,
}

/// The bounds of the doors, with shorter waits.
pub(crate) fn quick() -> Bounds {
    Bounds {
        submit: Duration::from_millis(500),
        lookup: Duration::from_millis(100),
        read: Duration::from_millis(500),
        ask: Duration::from_millis(500),
        recording: Duration::from_millis(500),
        fresh: Duration::ZERO,
        drain: Duration::from_secs(5),
        ..Bounds::default()
    }
}

/// What an answer was.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The code of the problem that it is.
    pub(crate) fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        self.json()["code"].as_str().unwrap().to_owned()
    }

    /// The id of the task that it shows.
    pub(crate) fn id(&self) -> TaskId {
        self.json()["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{self:?}"))
            .parse()
            .unwrap()
    }
}

impl Door {
    pub(crate) fn new() -> Self {
        Self::bounded(quick())
    }

    pub(crate) fn bounded(bounds: Bounds) -> Self {
        let fake = Fake::new();
        let clock = TestClock(Arc::new(Mutex::new("2026-03-01T12:00:00Z".parse().unwrap())));
        let (submitter, group) = GroupCommit::new(Arc::new(fake.clone()));
        tokio::spawn(group.run());
        let parts = Parts {
            store: Arc::new(fake.clone()),
            broker: Arc::new(fake.clone()),
            submitter,
            clock: Arc::new(clock.clone()),
            metrics: Arc::new(Metrics::new()),
            health: Health::default(),
            stop: CancellationToken::new(),
        };
        let app = App::bounded(parts, bounds);
        let router = router(app.clone());
        Self {
            app,
            fake,
            clock,
            router,
        }
    }

    /// A door that hears and tells events.
    pub(crate) async fn with_background() -> Self {
        let door = Self::new();
        tokio::spawn(background(door.app.clone()));
        eventually("the door listens", async || door.fake.listeners() > 0).await;
        door
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        call(&self.router, request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(request("GET", path, &[], Body::empty())).await
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.call(request("POST", path, &[], Body::empty())).await
    }

    pub(crate) async fn post_json(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.post_with(path, &[], body).await
    }

    pub(crate) async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.call(request("POST", path, &all, body)).await
    }

    /// Submits an echo task.
    pub(crate) async fn submit(&self) -> Answer {
        let answer = self.post_json("/v1/tasks", r#"{"kind":"echo"}"#).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer
    }
}

/// Sends a request, and reads the whole answer.
pub(crate) async fn call(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8(bytes.to_vec()).unwrap(),
    }
}

pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("x-request-id", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

/// Waits until `condition` holds, for ten seconds at most.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .is_err()
    {
        panic!("in vain: {what}");
    }
}
