use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use forebay_core::{Clock, Timestamp};
use forebay_worker::handlers::{
    Handler, HandlerError, HandlerResult, RESULT_BYTES_MAX, StopReason, http::HttpHandler,
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::time::timeout;

use super::{
    TRACE, WITHIN, execution,
    server::{Server, response},
    wait_for,
};

#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        "1994-11-06T08:49:00Z".parse().unwrap()
    }
}

fn handler(url: &str, secret: Option<&str>) -> HttpHandler {
    let allowed = ["127.0.0.1".to_owned(), "::1".to_owned()];
    HttpHandler::new(url, secret, &allowed)
        .unwrap()
        .clock(Arc::new(StoppedClock))
}

/// What becomes of a task whose endpoint answers this.
async fn outcome(answer: Vec<u8>) -> HandlerResult {
    let server = Server::answering(answer).await;
    timeout(WITHIN, handler(&server.url(), None).run(execution(r#"{"a":1}"#)))
        .await
        .unwrap()
}

fn problems(url: &str, secret: Option<&str>, allow_private: &[&str]) -> Vec<String> {
    let allowed: Vec<String> = allow_private.iter().map(ToString::to_string).collect();
    let problems = HttpHandler::new(url, secret, &allowed).err().unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn posts_the_payload_with_all_its_headers() {
    let server = Server::answering(response(
        "200 OK",
        "content-type: application/json\r\n",
        r#"{"paid": 1.50}"#,
    ))
    .await;
    let mut attempt = execution(r#"{"order": 17, "x":1.0}"#);
    attempt.attempt = 2;
    attempt.fence = 4;
    let id = attempt.id.to_string();
    let result = handler(&server.url(), Some("whsec_c2VjcmV0"))
        .run(attempt)
        .await
        .unwrap();
    assert_eq!(result.as_str(), r#"{"paid": 1.50}"#);

    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(request.line, "POST /hooks/secret-path HTTP/1.1");
    assert_eq!(request.body, br#"{"order": 17, "x":1.0}"#);
    for (name, value) in [
        ("content-type", "application/json"),
        ("webhook-id", &id),
        ("webhook-timestamp", "784111740"),
        ("forebay-attempt", "2"),
        ("forebay-fence", "4"),
        ("forebay-kind", "thumbnail"),
        ("forebay-queue", "images"),
        ("traceparent", TRACE),
    ] {
        assert_eq!(request.headers[name], value, "{name}");
    }

    let mut mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
    mac.update(format!("{id}.784111740.{{\"order\": 17, \"x\":1.0}}").as_bytes());
    let expected = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(request.headers["webhook-signature"], expected);
}

#[tokio::test]
async fn without_a_secret_there_is_no_signature() {
    let server = Server::answering(response("204 No Content", "", "")).await;
    let mut attempt = execution("1");
    attempt.traceparent = None;
    assert_eq!(
        handler(&server.url(), None).run(attempt).await.unwrap().as_str(),
        "null"
    );
    let headers = &server.requests()[0].headers;
    assert!(!headers.contains_key("webhook-signature") && !headers.contains_key("traceparent"));
}

#[tokio::test]
async fn the_body_is_the_result_whatever_it_is() {
    for (body, result) in [
        ("", "null"),
        (" \r\n", "null"),
        (" [1, 2.0]\n", "[1, 2.0]"),
        ("\"text\"", "\"text\""),
        ("OK, thanks", "\"OK, thanks\""),
        ("<a href=\"x\">", "\"<a href=\\\"x\\\">\""),
    ] {
        assert_eq!(
            outcome(response("201 Created", "", body)).await.unwrap().as_str(),
            result
        );
    }
    let binary = outcome(response("200 OK", "", b"\xff\x00")).await.unwrap();
    assert_eq!(
        serde_json::from_str::<String>(binary.as_str()).unwrap(),
        "\u{fffd}\0"
    );
}

#[tokio::test]
async fn a_result_has_a_bound() {
    let most = format!("\"{}\"", "x".repeat(RESULT_BYTES_MAX - 2));
    assert_eq!(
        outcome(response("200 OK", "", &most))
            .await
            .unwrap()
            .as_bytes()
            .len(),
        RESULT_BYTES_MAX
    );
    for body in [
        "x".repeat(RESULT_BYTES_MAX + 1),
        "\n\"".repeat(RESULT_BYTES_MAX / 2),
    ] {
        let error = outcome(response("200 OK", "", body)).await.unwrap_err();
        assert!(
            matches!(&error, HandlerError::Permanent { message } if message.contains("262144")),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn an_endless_error_is_not_read_to_its_end() {
    let error = outcome(response("500 Oops", "", "no ".repeat(1_000_000)))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, HandlerError::Retryable { message } if message.len() < 300),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_status_says_whether_to_try_again() {
    for status in [408, 425, 429, 500, 501, 502, 503, 504, 599] {
        let error = outcome(response(&format!("{status} X"), "", "try\r\nlater"))
            .await
            .unwrap_err();
        let HandlerError::Retryable { message } = &error else {
            panic!("{status}: {error:?}")
        };
        assert!(
            message.contains(&status.to_string()) && message.ends_with(": try  later"),
            "{message}"
        );
    }
    for status in [400, 401, 403, 404, 405, 409, 410, 413, 418, 422, 451, 499] {
        let error = outcome(response(&format!("{status} X"), "retry-after: 5\r\n", "gone"))
            .await
            .unwrap_err();
        let HandlerError::Permanent { message } = &error else {
            panic!("{status}: {error:?}")
        };
        assert!(
            message.contains(&status.to_string()) && message.ends_with(": gone"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_retry_after_is_honoured_up_to_an_hour() {
    for (value, seconds) in [
        ("7", 7),
        ("86400", 3_600),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
    ] {
        for status in ["429 Too Many Requests", "503 Service Unavailable"] {
            let error = outcome(response(status, &format!("Retry-After: {value}\r\n"), ""))
                .await
                .unwrap_err();
            let HandlerError::RetryAfter { delay, .. } = error else {
                panic!("{value}: {error:?}")
            };
            assert_eq!(delay, Duration::from_secs(seconds), "{value}");
        }
    }
    let error = outcome(response("503 X", "retry-after: soon\r\n", ""))
        .await
        .unwrap_err();
    assert!(matches!(error, HandlerError::Retryable { .. }), "{error:?}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let target = Server::answering(response("200 OK", "", "1")).await;
    for status in ["301 X", "302 X", "303 X", "307 X", "308 X"] {
        let location = format!("location: {}\r\n", target.url());
        let error = outcome(response(status, &location, "")).await.unwrap_err();
        assert!(
            matches!(&error, HandlerError::Permanent { message } if message.contains("redirects are not followed")),
            "{error:?}"
        );
    }
    assert!(target.requests().is_empty());
}

#[tokio::test]
async fn no_answer_in_time_is_tried_again() {
    let server = Server::answering("").await;
    let mut attempt = execution("1");
    attempt.timeout = Duration::from_millis(200);
    let error = timeout(WITHIN, handler(&server.url(), None).run(attempt))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(&error, HandlerError::Retryable { message } if message.contains("in time")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_broken_connection_is_tried_again_and_names_no_path() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"a\":".to_vec();
    for answer in [b"nonsense\r\n\r\n".to_vec(), half] {
        let error = outcome(answer).await.unwrap_err();
        assert!(matches!(&error, HandlerError::Retryable { .. }), "{error:?}");
        assert!(!error.to_string().contains("secret-path"), "{error}");
    }
    let gone = Server::answering("").await.url();
    // Dropping the server closed its port.
    let refused = handler(&gone, None);
    let error = wait_for("a refused connection", || async {
        let mut attempt = execution("1");
        attempt.timeout = Duration::from_millis(500);
        let error = refused.run(attempt).await.unwrap_err();
        error.to_string().contains("refused").then_some(error)
    })
    .await;
    assert!(matches!(&error, HandlerError::Retryable { .. }), "{error:?}");
    assert!(!error.to_string().contains("secret-path"), "{error}");
}

#[tokio::test]
async fn a_stop_breaks_the_call_off() {
    let server = Server::answering("").await;
    let attempt = execution("1");
    let stop = attempt.stop.clone();
    let handler = handler(&server.url(), None);
    let asks = async {
        wait_for("the request", || async {
            (!server.requests().is_empty()).then_some(())
        })
        .await;
        stop.ask(StopReason::Cancelled);
    };
    let (result, ()) = timeout(WITHIN, async { tokio::join!(handler.run(attempt), asks) })
        .await
        .unwrap();
    assert!(result.unwrap_err().to_string().contains("broken off"));
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_when_connecting() {
    let server = Server::answering(response("200 OK", "", "1")).await;
    let url = format!("http://localhost:{}/hooks/secret-path", server.address.port());
    let refusing = HttpHandler::new(&url, None, &[]).unwrap();
    let error = refusing.run(execution("1")).await.unwrap_err();
    let HandlerError::Permanent { message } = &error else {
        panic!("{error:?}")
    };
    assert!(
        message.contains("not public (loopback)") && message.contains("allow_private"),
        "{message}"
    );
    assert!(server.requests().is_empty());
    assert_eq!(
        handler(&url, None).run(execution("1")).await.unwrap().as_str(),
        "1"
    );
}

#[test]
fn addresses_in_urls_are_checked_in_every_spelling() {
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "169.254.169.254",
        "0.0.0.0",
        "10.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00::1]",
        "１２７.0.0.1",
    ] {
        let problems = problems(&format!("https://{host}/x"), None, &[]);
        assert!(
            problems.len() == 1 && problems[0].contains("is not public"),
            "{host}: {problems:?}"
        );
    }
    assert_eq!(problems("https://8.8.8.8/x", None, &[]), [""; 0]);
    assert_eq!(problems("https://10.1.2.3/x", None, &["10.0.0.0/8"]), [""; 0]);
}

#[test]
fn all_that_is_wrong_with_the_settings_is_said_at_once() {
    let all = problems(
        "ftp://u:hush@example.com/",
        Some("whsec_###"),
        &["localhost", "10.0.0.0/40"],
    );
    assert_eq!(all.len(), 4, "{all:#?}");
    assert!(!format!("{all:?}").contains("hush") && !format!("{all:?}").contains("###"));
    for url in [
        "",
        "example.com/x",
        "https://",
        "file:///etc/passwd",
        "gopher://x/",
        "https://u:hush@example.com/",
    ] {
        let problems = problems(url, None, &[]);
        assert!(
            problems.len() == 1 && problems[0].starts_with("url "),
            "{url}: {problems:?}"
        );
    }
}

#[tokio::test]
async fn secrets_are_in_no_debug_output() {
    let handler = handler("https://example.com/hooks/secret-path", Some("hush-hush"));
    let debug = format!("{handler:?}");
    assert!(
        debug.contains("example.com") && !debug.contains("hush") && !debug.contains("secret-path"),
        "{debug}"
    );
}
