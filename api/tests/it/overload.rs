//! Past a bound the answer is to come again, at once.

use std::time::Duration;

use axum::body::Body;
use forebay_api::Bounds;
use futures::stream;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::{
    door::{Door, call, eventually, quick, request},
    fake::Mood,
};

#[tokio::test]
async fn health_is_answered_under_any_load() {
    let door = Door::bounded(Bounds {
        submissions: 0,
        reads: 0,
        changes: 0,
        ..quick()
    });
    assert_eq!(door.get("/v1/tasks").await.code(), "overloaded");
    assert_eq!(door.post_json("/v1/tasks", "{}").await.code(), "overloaded");
    let id = "00000000-0000-7000-8000-000000000000";
    assert_eq!(
        door.post(&format!("/v1/tasks/{id}/cancel")).await.code(),
        "overloaded"
    );
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
    assert_eq!(
        door.call(lines()).await.status,
        202,
        "those of submissions are others"
    );
    drop(first);
    let again = request("GET", "/v1/events", &[], Body::empty());
    assert_eq!(door.router.clone().oneshot(again).await.unwrap().status(), 200);
}

fn lines() -> axum::http::Request<Body> {
    let ndjson = [("content-type", "application/x-ndjson")];
    request("POST", "/v1/tasks/batch", &ndjson, "{\"kind\":\"echo\"}")
}

#[tokio::test]
async fn streams_of_submissions_have_places() {
    let door = Door::bounded(Bounds {
        uploads: 0,
        ..quick()
    });
    assert_eq!(door.call(lines()).await.code(), "overloaded");
    let events = request("GET", "/v1/events", &[], Body::empty());
    assert_eq!(door.router.clone().oneshot(events).await.unwrap().status(), 200);
}

/// Takes all places by requests that hang. What knocks to find that out may itself have had one, so who is refused
/// knocks again.
async fn fill(
    door: &Door,
    one: impl Fn() -> axum::http::Request<Body> + Clone + Send + 'static,
) -> JoinSet<()> {
    let mut hanging = JoinSet::new();
    for _ in 0..PLACES {
        let (router, one) = (door.router.clone(), one.clone());
        hanging.spawn(async move {
            loop {
                assert_eq!(call(&router, one()).await.code(), "overloaded");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    eventually("all places are taken", async || {
        let refused = tokio::time::timeout(AT_ONCE / 10, door.call(one())).await;
        refused.is_ok_and(|answer| answer.code() == "overloaded" && answer.header("retry-after") == "1")
    })
    .await;
    hanging
}

/// How many places there are in the tests of starvation.
const PLACES: usize = 20;
/// Nothing waits for what hangs.
const AT_ONCE: Duration = Duration::from_secs(1);

fn patient() -> Bounds {
    Bounds {
        submissions: PLACES,
        reads: PLACES,
        changes: PLACES,
        submit: Duration::from_secs(60),
        read: Duration::from_secs(60),
        ..quick()
    }
}

#[tokio::test]
async fn reads_that_hang_leave_the_submissions_alone() {
    let door = Door::bounded(patient());
    door.fake.lock().store = Mood::Hangs;
    let mut hanging = fill(&door, || request("GET", "/v1/tasks", &[], Body::empty())).await;
    let cancel = "/v1/tasks/00000000-0000-7000-8000-000000000000/cancel";
    let mut changing = fill(&door, || request("POST", cancel, &[], Body::empty())).await;
    for _ in 0..3 * PLACES {
        let submitted = tokio::time::timeout(AT_ONCE, door.submit()).await;
        submitted.expect("it is accepted at once");
    }
    assert!(
        hanging.try_join_next().is_none() && changing.try_join_next().is_none(),
        "they still hang"
    );
}

#[tokio::test]
async fn submissions_that_hang_leave_the_reads_alone() {
    let door = Door::bounded(patient());
    let known = door.submit().await.id();
    door.fake.lock().broker = Mood::Hangs;
    let submit = || {
        request(
            "POST",
            "/v1/tasks",
            &[("content-type", "application/json")],
            "{\"kind\":\"echo\"}",
        )
    };
    let mut hanging = fill(&door, submit).await;
    for path in [
        "/v1/tasks".to_owned(),
        format!("/v1/tasks/{known}"),
        "/v1/workers".to_owned(),
    ] {
        let read = tokio::time::timeout(AT_ONCE, door.get(&path)).await;
        assert_eq!(read.expect("it is answered at once").status, 200, "{path}");
    }
    assert!(hanging.try_join_next().is_none(), "they still hang");
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
