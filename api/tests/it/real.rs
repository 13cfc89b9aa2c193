//! The doors in front of a real store and a real broker: SQLite, and the embedded broker on it.

use std::sync::Arc;

use axum::Router;
use forebay_api::{App, Parts, background, router};
use forebay_broker::GroupCommit;
use forebay_broker_embedded::EmbeddedBroker;
use forebay_core::SystemClock;
use forebay_runtime::{health::Health, metrics::Metrics};
use forebay_store::Admin;
use forebay_store_sqlite::SqliteStore;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::door::{Answer, call, eventually, request};

pub(crate) struct House {
    pub(crate) router: Router,
    pub(crate) broker: Arc<EmbeddedBroker>,
    stop: CancellationToken,
    _data: TempDir,
}

impl House {
    pub(crate) async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&data.path().join("forebay.db")).await.unwrap());
        store.migrate().await.unwrap();
        let broker = Arc::new(EmbeddedBroker::new(Arc::clone(&store) as _));
        let (submitter, group) = GroupCommit::new(Arc::clone(&broker) as _);
        tokio::spawn(group.run());
        let stop = CancellationToken::new();
        let app = App::new(Parts {
            store,
            broker: Arc::clone(&broker) as _,
            submitter,
            clock: Arc::new(SystemClock),
            metrics: Arc::new(Metrics::new()),
            health: Health::default(),
            stop: stop.clone(),
        });
        tokio::spawn(background(app.clone()));
        Self {
            router: router(app),
            broker,
            stop,
            _data: data,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        call(&self.router, request("GET", path, &[], "")).await
    }

    async fn post(&self, path: &str, body: impl Into<axum::body::Body>) -> Answer {
        call(
            &self.router,
            request("POST", path, &[("content-type", "application/json")], body),
        )
        .await
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_task_is_there_as_soon_as_it_is_accepted() {
    let house = House::new().await;
    let body = r#"{"kind":"echo","queue":"images","payload":{"z":1,"a":"\u0000"},"tags":["x"],"timeout_seconds":2.5}"#;
    let accepted = house.post("/v1/tasks", body).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let id = accepted.id();
    assert_eq!(house.get(&format!("/v1/tasks/{id}")).await.text, accepted.text);
    let listed = house
        .get("/v1/tasks?queue=images&tag=x&state=queued")
        .await
        .json();
    assert_eq!(listed["tasks"], json!([accepted.json()]));
    let ready = async || house.get("/v1/queues/images").await.json()["ready"] == json!(1);
    eventually("the queue is counted", ready).await;
    let cancelled = house.post(&format!("/v1/tasks/{id}/cancel"), "").await;
    assert_eq!(cancelled.json()["state"], "cancelled", "{cancelled:?}");
    assert_eq!(
        house.post(&format!("/v1/tasks/{id}/cancel"), "").await.code(),
        "state_conflict"
    );
    let retried = house.post(&format!("/v1/tasks/{id}/retry"), "").await;
    assert_eq!(retried.json()["state"], "retrying", "{retried:?}");
    let path = format!("/v1/tasks/{id}/events");
    let events = house.get(&path);
    let stop = async {
        house.post(&format!("/v1/tasks/{id}/cancel"), "").await;
    };
    let (events, ()) = tokio::join!(events, stop);
    assert!(events.text.contains(r#""state":"cancelled""#), "{events:?}");
    let stranger = house.get("/v1/tasks/01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d").await;
    assert_eq!(stranger.code(), "task_not_found");
}

#[tokio::test]
async fn batches_and_pages_hold_a_thousand() {
    let house = House::new().await;
    let items: Vec<String> = (0..1_000)
        .map(|n| format!(r#"{{"kind":"echo","payload":{n}}}"#))
        .collect();
    let accepted = house
        .post("/v1/tasks/batch", format!("[{}]", items.join(",")))
        .await
        .json();
    let mut ids: Vec<&str> = accepted["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["id"].as_str().unwrap())
        .collect();
    let mut path = "/v1/tasks?page_size=200".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = house.get(&path).await.json();
        seen.extend(
            page["tasks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|task| task["id"].as_str().unwrap().to_owned()),
        );
        let Some(token) = page["next_page_token"].as_str() else {
            break;
        };
        path = format!("/v1/tasks?page_size=200&page_token={token}");
    }
    ids.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn a_key_names_one_task() {
    let house = House::new().await;
    let submit = async |payload: u32| {
        let body = format!(r#"{{"kind":"echo","payload":{payload}}}"#);
        let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
        call(&house.router, request("POST", "/v1/tasks", &headers, body)).await
    };
    let first = submit(1).await;
    assert_eq!(submit(1).await.id(), first.id());
    assert_eq!(submit(2).await.code(), "idempotency_key_reused");
    assert_eq!(
        house.get("/v1/tasks").await.json()["tasks"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_schedule_is_kept_as_it_was_put_and_the_same_again_changes_nothing() {
    let house = House::new().await;
    let ask = async |method: &str, path: &str, body: &str| {
        let headers = [("content-type", "application/json")];
        call(&house.router, request(method, path, &headers, body.to_owned())).await
    };
    let nightly = "/v1/schedules/nightly";
    let body = r#"{"cron":"0 3 * * *","time_zone":"Europe/Berlin","overlap":"queue","jitter_seconds":1.5,
        "task":{"kind":"report","payload":{ "b": 1.0e2, "a": "\u0000" },"tags":["x"],"timeout_seconds":2.5}}"#;
    let made = ask("PUT", nightly, body).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(made.text.contains(r#"{ "b": 1.0e2, "a": "\u0000" }"#), "{made:?}");
    let again = ask("PUT", nightly, body).await;
    assert_eq!((again.status.as_u16(), &again.text), (200, &made.text));
    assert_eq!(house.get(nightly).await.text, made.text);
    let listed = house.get("/v1/schedules").await.json();
    assert_eq!(
        listed,
        json!({"schedules": [made.json()], "next_page_token": null})
    );
    let changed = ask("PUT", nightly, &body.replace("0 3", "0 4")).await.json();
    assert_eq!(changed["created_at"], made.json()["created_at"]);
    assert_ne!(changed["updated_at"], made.json()["updated_at"]);
    assert_eq!(ask("DELETE", nightly, "").await.status, 204);
    assert_eq!(ask("DELETE", nightly, "").await.code(), "schedule_not_found");
}
