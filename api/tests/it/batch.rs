//! `POST /v1/tasks/batch`.

use std::convert::Infallible;

use axum::{body::Body, http::StatusCode};
use bytes::Bytes;
use forebay_api::Bounds;
use futures::{SinkExt, StreamExt, channel::mpsc};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    door::{Door, quick, request},
    fake::Mood,
};

const BATCH: &str = "/v1/tasks/batch";

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

impl Door {
    async fn ndjson(&self, body: impl Into<Body>) -> Vec<Value> {
        let answer = self
            .call(request(
                "POST",
                BATCH,
                &[("content-type", "application/x-ndjson")],
                body,
            ))
            .await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (StatusCode::ACCEPTED, "application/x-ndjson")
        );
        lines(&answer.text)
    }
}

#[tokio::test]
async fn answers_for_each_item_in_order() {
    let door = Door::new();
    let answer = door
        .post_json(
            BATCH,
            r#"[{"kind":"a"},{"kind":"B"},7,{"kind":"c","delay_seconds":60},{"knd":"d"}]"#,
        )
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let body = answer.json();
    let results = body["results"].as_array().unwrap();
    let brief: Vec<Value> = results
        .iter()
        .map(|result| json!([result["index"], result["state"], result["error"]["code"]]))
        .collect();
    assert_eq!(
        brief,
        [
            json!([0, "queued", null]),
            json!([1, null, "invalid_request"]),
            json!([2, null, "invalid_body"]),
            json!([3, "scheduled", null]),
            json!([4, null, "invalid_body"]),
        ]
    );
    assert_eq!(results[4]["error"]["errors"][0]["pointer"], "/knd");
    assert_eq!(door.fake.lock().tasks.len(), 2);
    assert_eq!(door.post_json(BATCH, "[]").await.json(), json!({"results": []}));
}

#[tokio::test]
async fn takes_a_thousand_and_no_more() {
    let door = Door::new();
    let array = |count: usize| format!("[{}]", vec![r#"{"kind":"echo"}"#; count].join(","));
    let full = door.post_json(BATCH, array(1_000)).await;
    assert_eq!(full.json()["results"].as_array().unwrap().len(), 1_000);
    assert_eq!(door.fake.lock().tasks.len(), 1_000);
    for count in [1_001, 100_000] {
        let answer = door.post_json(BATCH, array(count)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (413, "batch_too_large")
        );
        assert!(
            answer.text.contains(&format!("this one has {count}")),
            "{}",
            answer.text
        );
    }
    assert_eq!(door.fake.lock().tasks.len(), 1_000);
}

#[tokio::test]
async fn is_refused_whole_where_nothing_could_be_accepted_for_now() {
    let door = Door::new();
    for (mood, status, code) in [
        (Mood::Down, 503, "broker_unavailable"),
        (Mood::Full, 429, "backlog_full"),
    ] {
        door.fake.lock().broker = mood;
        let answer = door.post_json(BATCH, r#"[{"kind":"a"},{"kind":"b"}]"#).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        assert_eq!(answer.header("retry-after"), "2");
        let mixed = door.post_json(BATCH, r#"[{"kind":"a"},{"kind":"B"}]"#).await;
        assert_eq!(mixed.status, StatusCode::ACCEPTED);
        assert_eq!(mixed.json()["results"][0]["error"]["code"], code);
    }
}

#[tokio::test]
async fn items_have_keys_of_their_own() {
    let door = Door::new();
    let body = r#"[{"kind":"a","idempotency_key":"k"},{"kind":"a","idempotency_key":"k"},{"kind":"b","idempotency_key":"k"}]"#;
    let results = door.post_json(BATCH, body).await.json()["results"].clone();
    assert_eq!(results[0]["id"], results[1]["id"]);
    assert_eq!(results[2]["error"]["code"], "idempotency_key_reused");
    let header = door.post_with(BATCH, &[("idempotency-key", "k")], "[]").await;
    assert_eq!(header.code(), "invalid_parameter");
}

#[tokio::test]
async fn a_batch_that_is_no_array_is_refused() {
    let door = Door::new();
    for (body, code) in [
        ("{}", "invalid_body"),
        ("7", "invalid_body"),
        ("[1,", "malformed_json"),
        ("", "malformed_json"),
    ] {
        assert_eq!(door.post_json(BATCH, body).await.code(), code, "{body:?}");
    }
}

#[tokio::test]
async fn lines_are_answered_by_lines() {
    let door = Door::bounded(Bounds {
        line_bytes: 100,
        ..quick()
    });
    let long = "x".repeat(200);
    let body = format!(
        "{}\n\n{}\n{}\n{{\"kind\":\"{long}\"}}\r\n{}",
        r#"{"kind":"a"}"#, "not json", r#"{"kind":"b","payload":[1,2]}"#, r#"{"kind":"c"}"#
    );
    let results = door.ndjson(body).await;
    let brief: Vec<Value> = results
        .iter()
        .map(|result| json!([result["index"], result["state"], result["error"]["code"]]))
        .collect();
    assert_eq!(
        brief,
        [
            json!([0, "queued", null]),
            json!([2, null, "malformed_json"]),
            json!([3, "queued", null]),
            json!([4, null, "body_too_large"]),
            json!([5, "queued", null]),
        ]
    );
    let kinds: Vec<String> = door
        .fake
        .lock()
        .tasks
        .values()
        .map(|task| task.kind.to_string())
        .collect();
    assert_eq!(kinds.len(), 3);
    assert!(door.ndjson("").await.is_empty());
    assert!(door.ndjson("\n\n").await.is_empty());
}

#[tokio::test]
async fn a_stream_has_no_limit() {
    let door = Door::new();
    let chunk = Bytes::from("{\"kind\":\"echo\"}\n".repeat(100));
    let body = Body::from_stream(futures::stream::iter(
        (0..200).map(move |_| Ok::<_, Infallible>(chunk.clone())),
    ));
    let results = door.ndjson(body).await;
    assert_eq!(results.len(), 20_000);
    assert!(
        (0..)
            .zip(&results)
            .all(|(index, result)| result["index"] == json!(index) && result["id"].is_string())
    );
    assert_eq!(door.fake.lock().tasks.len(), 20_000);
}

#[tokio::test]
async fn results_come_while_the_client_still_sends() {
    let door = Door::new();
    let (mut client, body) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    let request = request(
        "POST",
        BATCH,
        &[("content-type", "application/x-ndjson")],
        Body::from_stream(body),
    );
    let response = door.router.clone().oneshot(request).await.unwrap();
    let mut results = response.into_body().into_data_stream();
    for index in 0..3 {
        client
            .send(Ok(Bytes::from_static(b"{\"kind\":\"echo\"}\n")))
            .await
            .unwrap();
        let line = results.next().await.unwrap().unwrap();
        assert_eq!(
            lines(std::str::from_utf8(&line).unwrap())[0]["index"],
            json!(index)
        );
    }
    drop(client);
    assert!(results.next().await.is_none());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from() {
    let door = Door::bounded(Bounds { lines: 4, ..quick() });
    let line = Bytes::from_static(b"{\"kind\":\"echo\"}\n");
    let body = Body::from_stream(futures::stream::repeat_with(move || {
        Ok::<_, Infallible>(line.clone())
    }));
    let request = request("POST", BATCH, &[("content-type", "application/x-ndjson")], body);
    let response = door.router.clone().oneshot(request).await.unwrap();
    let mut body = response.into_body();
    for _ in 0..20 {
        body.frame().await.unwrap().unwrap();
    }
    let taken = door.fake.lock().tasks.len();
    // Twenty chunks of at most 64 results, and what is under way; not the endless stream.
    assert!(taken <= 20 * 64 + 64 + 4, "{taken} tasks were taken");
}

#[tokio::test]
async fn a_broken_broker_fails_lines_and_not_the_stream() {
    let door = Door::new();
    door.fake.lock().broker = Mood::Down;
    let results = door.ndjson("{\"kind\":\"a\"}\n{\"kind\":\"b\"}\n").await;
    let codes: Vec<&str> = results
        .iter()
        .map(|result| result["error"]["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["broker_unavailable", "broker_unavailable"]);
}

#[tokio::test]
async fn a_stream_ends_with_a_word_when_the_process_stops() {
    let door = Door::new();
    let (mut client, body) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    let request = request(
        "POST",
        BATCH,
        &[("content-type", "application/x-ndjson")],
        Body::from_stream(body),
    );
    let response = door.router.clone().oneshot(request).await.unwrap();
    let mut results = response.into_body().into_data_stream();
    client
        .send(Ok(Bytes::from_static(b"{\"kind\":\"echo\"}\n")))
        .await
        .unwrap();
    results.next().await.unwrap().unwrap();
    door.app.stop.cancel();
    let last = results.next().await.unwrap().unwrap();
    let last = &lines(std::str::from_utf8(&last).unwrap())[0];
    assert_eq!(
        (&last["index"], &last["error"]["code"]),
        (&json!(1), &json!("shutting_down"))
    );
    assert!(results.next().await.is_none());
}
