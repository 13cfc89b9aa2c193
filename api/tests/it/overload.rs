//! Past a bound the answer is to come again, at once.

use axum::body::Body;
use forebay_api::Bounds;
use futures::stream;
use tower::ServiceExt;

use crate::door::{Door, quick, request};

#[tokio::test]
async fn health_is_answered_under_any_load() {
    let door = Door::bounded(Bounds {
        requests: 0,
        ..quick()
    });
    assert_eq!(door.get("/v1/tasks").await.code(), "overloaded");
    assert_eq!(door.get("/v1/queues").await.header("retry-after"), "1");
    assert_eq!(door.get("/health/live").await.status, 200);
}

#[tokio::test]
async fn streams_have_places() {
    let door = Door::bounded(Bounds {
        streams: 1,
        ..quick()
    });
    let first = request("GET", "/v1/events", &[], Body::empty());
    let first = door.router.clone().oneshot(first).await.unwrap();
    assert_eq!(first.status(), 200);
    assert_eq!(door.get("/v1/events").await.code(), "overloaded");
    let lines = request(
        "POST",
        "/v1/tasks/batch",
        &[("content-type", "application/x-ndjson")],
        "{}",
    );
    assert_eq!(door.call(lines).await.code(), "overloaded");
    drop(first);
    let again = request("GET", "/v1/events", &[], Body::empty());
    assert_eq!(door.router.clone().oneshot(again).await.unwrap().status(), 200);
}

#[tokio::test]
async fn without_a_place_to_wait_the_answer_comes_at_once() {
    let door = Door::bounded(Bounds { waits: 0, ..quick() });
    let answer = door
        .post_with("/v1/tasks", &[("prefer", "wait=60")], r#"{"kind":"echo"}"#)
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("preference-applied")),
        (202, "")
    );
}

#[tokio::test]
async fn batches_have_places() {
    let door = Door::bounded(Bounds {
        batches: 1,
        body: std::time::Duration::from_secs(60),
        ..quick()
    });
    let endless = Body::from_stream(stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let slow = door.post_json("/v1/tasks/batch", endless);
    let second = async {
        crate::door::eventually("the place is taken", async || {
            door.post_json("/v1/tasks/batch", "[]").await.status == 503
        })
        .await;
    };
    tokio::select! {
        answer = slow => panic!("answered {answer:?}"),
        () = second => {}
    }
}
