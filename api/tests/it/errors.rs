//! Every error, as it is answered.

use std::fmt::Write;

use axum::body::Body;
use forebay_api::{Bounds, error::Code};
use forebay_core::State;

use crate::{
    door::{Answer, Door, quick, request},
    fake::Mood,
};

const UNKNOWN: &str = "/v1/tasks/01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d";
const ECHO: &str = r#"{"kind":"echo"}"#;

/// An answer for each code, in the order of the table.
async fn answers() -> Vec<Answer> {
    let door = Door::bounded(Bounds {
        body_bytes: 300 * 1024,
        body: std::time::Duration::from_millis(50),
        ..quick()
    });
    let post = |body: &'static str| door.post_json("/v1/tasks", body);
    let mut answers = vec![
        post("{\"kind\":").await,
        post(r#"{"kind":"echo","qeue":"images"}"#).await,
        door.get("/v1/tasks?state=sleeping&page=2&page_size=1&page_size=2")
            .await,
        door.get("/v1/tasks?page_token=AAAA").await,
        door.get("/v2/tasks").await,
        door.get(UNKNOWN).await,
        door.get("/v1/queues/unheard-of").await,
        door.get("/v1/schedules/unheard-of").await,
        door.get("/v1/kinds/unheard-of/schema").await,
        door.get("/v1/limits/unheard-of").await,
        door.get("/v1/webhooks/unheard-of").await,
        door.get("/v1/batches/01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d").await,
        door.get("/v1/operations/01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d")
            .await,
        door.call(request("DELETE", "/v1/tasks", &[], Body::empty()))
            .await,
        door.post_json(
            "/v1/tasks",
            Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>()),
        )
        .await,
    ];
    let key = [("idempotency-key", "k")];
    let succeeded = door.post_with("/v1/tasks", &key, ECHO).await.id();
    door.fake
        .change(succeeded, State::Succeeded, "2026-03-01T12:00:01Z");
    answers.push(door.post(&format!("/v1/tasks/{succeeded}/cancel")).await);
    let only = r#"{"kind":"echo","unique":{"on_conflict":"reject"}}"#;
    door.post_with("/v1/tasks", &[("idempotency-key", "only")], only)
        .await;
    answers.push(post(only).await);
    answers.push(webhook_disabled(&door).await);
    answers.push(batch_closed(&door).await);
    answers.push(too_many_limits(&door).await);
    answers.push(too_many_schemas(&door).await);
    answers.push(door.post_json("/v1/tasks", "x".repeat(301 * 1024)).await);
    let large = format!(r#"{{"kind":"echo","payload":"{}"}}"#, "x".repeat(257 * 1024));
    answers.push(door.post_json("/v1/tasks", large).await);
    let many = format!("[{}]", vec!["1"; 1_001].join(","));
    answers.push(door.post_json("/v1/tasks/batch", many).await);
    answers.push(
        door.call(request(
            "POST",
            "/v1/tasks",
            &[("content-type", "text/plain")],
            ECHO,
        ))
        .await,
    );
    answers.push(post(r#"{"kind":"two words","run_at":"tomorrow","tags":["ok",""],"max_attempts":0}"#).await);
    answers.push(door.post_with("/v1/tasks", &key, r#"{"kind":"other"}"#).await);
    door.fake.lock().broker = Mood::Full;
    answers.push(post(ECHO).await);
    answers.push(internal().await);
    answers.push(overloaded().await);
    door.fake.lock().broker = Mood::Down;
    answers.push(post(ECHO).await);
    door.fake.lock().store = Mood::Down;
    answers.push(door.get(UNKNOWN).await);
    answers.push(not_yet_recorded().await);
    door.app.stop.cancel();
    answers.push(post(ECHO).await);
    answers
}

async fn webhook_disabled(door: &Door) -> Answer {
    let resting = r#"{"url":"https://example.com/hook","disabled":true}"#;
    let headers = [("content-type", "application/json")];
    door.call(request("PUT", "/v1/webhooks/resting", &headers, resting))
        .await;
    door.post("/v1/webhooks/resting/test").await
}

async fn batch_closed(door: &Door) -> Answer {
    let opened = door.post_with("/v1/batches", &[("idempotency-key", "empty")], r#"{"tasks":[]}"#);
    let closed = opened.await.id();
    let path = format!("/v1/batches/{closed}/tasks");
    door.post_with(&path, &[("idempotency-key", "more")], r#"{"tasks":[]}"#)
        .await
}

async fn too_many_schemas(door: &Door) -> Answer {
    let anything = forebay_core::Json::parse(b"true").unwrap();
    for number in 0..forebay_core::KIND_SCHEMAS_MAX {
        let kind = format!("kind-{number}").parse().unwrap();
        let mode = forebay_core::SchemaMode::Warn;
        forebay_store::Kinds::put_schema(&door.fake, &kind, mode, &anything)
            .await
            .unwrap();
    }
    let headers = [("content-type", "application/json")];
    let put = request("PUT", "/v1/kinds/one-more/schema", &headers, r#"{"schema":true}"#);
    door.call(put).await
}

async fn too_many_limits(door: &Door) -> Answer {
    let asked = forebay_core::LimitRequest {
        concurrency: Some(1),
        ..Default::default()
    };
    for number in 0..forebay_core::LIMITS_MAX {
        let rule = asked.clone().accept(format!("limit-{number}").parse().unwrap());
        forebay_store::Limits::put_limit(&door.fake, &rule.unwrap())
            .await
            .unwrap();
    }
    let headers = [("content-type", "application/json")];
    door.call(request(
        "PUT",
        "/v1/limits/another",
        &headers,
        r#"{"concurrency":1}"#,
    ))
    .await
}

async fn internal() -> Answer {
    let door = Door::new();
    door.fake.lock().panics = true;
    door.get(UNKNOWN).await
}

async fn overloaded() -> Answer {
    let door = Door::bounded(Bounds { reads: 0, ..quick() });
    door.get("/v1/tasks").await
}

async fn not_yet_recorded() -> Answer {
    let door = Door::new();
    door.fake.lock().lagging = true;
    door.submit().await;
    door.get(UNKNOWN).await
}

#[tokio::test]
async fn each_is_a_problem_that_says_nothing_of_the_inside() {
    let answers = answers().await;
    let codes: Vec<String> = answers.iter().map(Answer::code).collect();
    let table: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(codes, table);
    let mut all = String::new();
    for (answer, code) in answers.iter().zip(Code::ALL) {
        assert_eq!(answer.status.as_u16(), code.row().status);
        assert_eq!(answer.header("x-request-id"), "test");
        assert!(
            !answer.text.contains("secret") && !answer.text.contains("10.0.0"),
            "{}",
            answer.text
        );
        let retry = code.row().retry_after_seconds.map(|seconds| seconds.to_string());
        assert_eq!(answer.header("retry-after"), retry.unwrap_or_default());
        let body = serde_json::to_string_pretty(&answer.json()).unwrap();
        writeln!(all, "{} {body}\n", answer.status.as_u16()).unwrap();
    }
    let id = regex_free_id(&all);
    insta::assert_snapshot!("problems", all.replace(&id, "[id]"));
}

/// The id that the reused key names, which has the day in it and is otherwise stable.
fn regex_free_id(text: &str) -> String {
    let after = text.split("names task ").nth(1).unwrap();
    after.split(',').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let door = Door::new();
    let answer = door
        .call(request("DELETE", "/v1/tasks", &[], Body::empty()))
        .await;
    let mut allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    let options = door
        .call(request("OPTIONS", "/v1/workers", &[], Body::empty()))
        .await;
    assert_eq!((options.status.as_u16(), options.text.as_str()), (204, ""));
    assert!(options.header("allow").contains("GET"), "{options:?}");
    let head = door.call(request("HEAD", "/v1/tasks", &[], Body::empty())).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    for method in ["TRACE", "PUT", "BREW"] {
        let answer = door
            .call(request(method, "/health/live", &[], Body::empty()))
            .await;
        assert_eq!(answer.code(), "method_not_allowed", "{method}");
    }
}

#[tokio::test]
async fn every_answer_has_the_headers_of_the_house() {
    let door = Door::new();
    for path in ["/v1/tasks", "/nowhere", "/health/live", "/openapi.json"] {
        let answer = door.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert!(
            answer
                .header("content-security-policy")
                .contains("frame-ancestors 'none'")
        );
        assert_eq!(answer.header("x-request-id"), "test");
    }
    let made = axum::http::Request::get("/v1/tasks")
        .header("x-request-id", "<script>")
        .body(Body::empty())
        .unwrap();
    let made = door.call(made).await;
    let id = made.header("x-request-id");
    assert!(
        id.len() == 20 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
}
