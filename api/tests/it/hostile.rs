//! Input that nobody means well with: never a 5xx, never a panic.

use axum::body::Body;

use crate::door::{Door, request};

#[tokio::test]
async fn bodies() {
    let door = Door::new();
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let bodies: Vec<(Vec<u8>, u16)> = vec![
        (b"".to_vec(), 400),
        (b"\xff\xfe".to_vec(), 400),
        (b"{\"kind\":\"\xff\"}".to_vec(), 400),
        (b"{\"kind\":\"echo\",\"payload\":\"\xff\"}".to_vec(), 400),
        (b"null".to_vec(), 400),
        (b"[]".to_vec(), 400),
        (b"\"x\"".to_vec(), 400),
        (br#"{"kind":"echo"} trailing"#.to_vec(), 400),
        (br#"{"kind":"echo","kind":"echo"}"#.to_vec(), 400),
        (br#"{"kind":null}"#.to_vec(), 400),
        (br#"{"kind":["echo"]}"#.to_vec(), 400),
        (br#"{}"#.to_vec(), 422),
        (br#"{"kind":""}"#.to_vec(), 422),
        (br#"{"kind":"echo","payload":1e99999}"#.to_vec(), 202),
        (br#"{"kind":"echo","payload":"\ud800"}"#.to_vec(), 202),
        (br#"{"kind":"echo","delay_seconds":1e308}"#.to_vec(), 422),
        (br#"{"kind":"echo","delay_seconds":1e999}"#.to_vec(), 400),
        (br#"{"kind":"echo","delay_seconds":-0.0}"#.to_vec(), 202),
        (
            br#"{"kind":"echo","max_attempts":99999999999999999999}"#.to_vec(),
            422,
        ),
        (br#"{"kind":"echo","max_attempts":1.5}"#.to_vec(), 400),
        (br#"{"kind":"echo","timeout_seconds":1e-320}"#.to_vec(), 422),
        (br#"{"kind":"echo","tags":["\u0000"]}"#.to_vec(), 422),
        (
            br#"{"kind":"echo","run_at":"-009998-01-01T00:00:00Z"}"#.to_vec(),
            202,
        ),
        (
            br#"{"kind":"echo","run_at":"-009999-01-01T00:00:00Z"}"#.to_vec(),
            422,
        ),
        (
            br#"{"kind":"echo","run_at":"9999-12-31T23:59:59Z"}"#.to_vec(),
            422,
        ),
        (
            br#"{"kind":"echo","run_at":"99999-12-31T23:59:59Z"}"#.to_vec(),
            422,
        ),
        (
            format!(r#"{{"kind":"echo","payload":{}}}"#, deep(10_000)).into_bytes(),
            422,
        ),
        (format!(r#"{{"kind":{}}}"#, deep(10_000)).into_bytes(), 400),
        (
            format!(r#"{{"kind":"echo","x":{}}}"#, deep(10_000)).into_bytes(),
            400,
        ),
        (deep(10_000).into_bytes(), 400),
        (b"{\"kind\":\"echo\",\"payload\":".repeat(10_000), 400),
        (format!(r#"{{"{}":1}}"#, "x".repeat(500_000)).into_bytes(), 400),
    ];
    for (body, status) in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = door.post_json("/v1/tasks", body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{shown}: {}", answer.text);
        assert!(answer.text.len() < 2_000, "repeats what it was sent: {shown}");
        for kind in ["application/json", "application/x-ndjson"] {
            let batch = request("POST", "/v1/tasks/batch", &[("content-type", kind)], body.clone());
            let answer = door.call(batch).await;
            assert!(answer.status.as_u16() < 500, "{shown}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn paths_and_queries() {
    let door = Door::new();
    let id = "01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d";
    for path in [
        "/%00",
        "/%ff%fe",
        "//",
        "/v1//tasks",
        "/v1/tasks/",
        "/v1/tasks/%2e%2e",
        "/v1/queues/%ff",
        "/v1/queues/A",
        "/v1/queues/a%2fb",
        "/docs/errors/%ff",
        "/docs/errors/..%2f..%2fCargo.toml",
        "/v1/tasks?state=%ff",
        "/v1/tasks?tag=%00",
        "/v1/tasks?tag=",
        "/v1/tasks?%00=%00",
        "/v1/tasks?=",
        "/v1/tasks?page_size=99999999999999999999",
        "/v1/tasks?page_size=-1",
        "/v1/tasks?page_size=201",
        "/v1/tasks?page_token=%ff",
        "/v1/tasks?created_after=now",
        "/v1/tasks?queue=a.b",
        "/v1/events?state=none",
        "/v1/workers?x",
    ] {
        let answer = door.get(path).await;
        assert!(
            answer.status.is_client_error(),
            "{path}: {} {}",
            answer.status,
            answer.text
        );
        answer.code();
    }
    for fine in [
        "/v1/tasks?created_after=-009998-01-02T00:00:00Z&created_before=9999-12-30T00:00:00Z",
        "/v1/tasks?tag=%F0%9F%90%88",
        "/v1/tasks?",
    ] {
        assert_eq!(door.get(fine).await.status, 200, "{fine}");
    }
    let long = format!("/v1/tasks/{id}?{}", "x=1&".repeat(5_000));
    let answer = door.get(&long).await;
    assert_eq!(answer.code(), "invalid_parameter");
    assert!(answer.text.len() < 5_000);
}

#[tokio::test]
async fn headers() {
    let door = Door::new();
    let long = "k".repeat(256);
    for (name, value, status) in [
        ("idempotency-key", "", 422),
        ("idempotency-key", long.as_str(), 422),
        ("idempotency-key", "\"\"", 202),
        ("prefer", "wait=99999999999999999999", 202),
        ("prefer", "wait=0", 202),
        (
            "traceparent",
            "00-00000000000000000000000000000000-0000000000000000-00",
            202,
        ),
        ("content-length", "99999999999999999999999", 202),
        ("content-length", "9999999999", 413),
    ] {
        let answer = door
            .post_with("/v1/tasks", &[(name, value)], r#"{"kind":"echo"}"#)
            .await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {value}: {}", answer.text);
    }
    let latin = axum::http::Request::post("/v1/tasks")
        .header("content-type", "application/json")
        .header(
            "idempotency-key",
            axum::http::HeaderValue::from_bytes(b"\xe4").unwrap(),
        )
        .body(Body::from(r#"{"kind":"echo"}"#))
        .unwrap();
    assert_eq!(door.call(latin).await.code(), "invalid_request");
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(
        door.post_with("/v1/tasks", &twice, r#"{"kind":"echo"}"#)
            .await
            .code(),
        "invalid_request"
    );
    for kind in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/json;charset=\"UTF-8\"",
    ] {
        let answer = door
            .call(request(
                "POST",
                "/v1/tasks",
                &[("content-type", kind)],
                r#"{"kind":"echo"}"#,
            ))
            .await;
        assert_eq!(answer.status, 202, "{kind}");
    }
    for kind in [
        "application/json; charset=latin1",
        "application/xml",
        "",
        "application/x-ndjson",
        "text/json",
    ] {
        let answer = door
            .call(request(
                "POST",
                "/v1/tasks",
                &[("content-type", kind)],
                r#"{"kind":"echo"}"#,
            ))
            .await;
        assert_eq!(answer.code(), "unsupported_media_type", "{kind}");
    }
    let none = door
        .call(request("POST", "/v1/tasks", &[], r#"{"kind":"echo"}"#))
        .await;
    assert_eq!(none.code(), "unsupported_media_type");
}
