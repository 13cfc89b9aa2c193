//! The client against a server that answers as the API does, or worse.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use forebay_client::{
    Client, Error, EventFilter, Heard, NewSchedule, NewTask, NewUnique, Retry, ScheduledTask, SubmitOptions,
    TaskFilter,
};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

async fn serve(routes: Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Client::new(url.parse().unwrap()).unwrap()
}

fn task(id: &str, state: &str) -> Value {
    json!({
        "id": id, "project": "default", "kind": "echo", "queue": "default", "state": state, "priority": "default",
        "payload": 12345678901234567890123456789_u128.to_string(), "result": null, "error": null, "attempt": 0,
        "max_attempts": null, "progress": null, "tags": [], "run_at": null, "created_at": "2026-03-01T12:00:00Z",
        "started_at": null, "finished_at": null, "timeout_seconds": null, "worker": null, "errors": [], "log": null,
        "cancel_requested": false,
    })
}

fn problem(status: StatusCode, code: &str) -> Response {
    let body = json!({"status": status.as_u16(), "code": code, "title": "No", "detail": "No", "errors": []});
    let mut answer = (status, Json(body)).into_response();
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, "application/problem+json".parse().unwrap());
    answer
}

#[tokio::test]
async fn a_submission_says_only_what_was_given() {
    async fn submit(request: Request) -> Response {
        assert_eq!(request.headers()["idempotency-key"], "k");
        assert_eq!(request.headers()["prefer"], "wait=3");
        let body = axum::body::to_bytes(request.into_body(), 4096).await.unwrap();
        assert_eq!(body, r#"{"kind":"echo","payload":1.0e2}"#);
        (StatusCode::ACCEPTED, Json(task("a", "queued"))).into_response()
    }
    let client = serve(Router::new().route("/v1/tasks", post(submit))).await;
    let new = NewTask {
        kind: "echo".into(),
        payload: serde_json::from_str("1.0e2").ok(),
        ..NewTask::default()
    };
    let options = SubmitOptions {
        idempotency_key: Some("k".into()),
        wait: Some(Duration::from_secs(3)),
    };
    assert_eq!(client.submit(&new, &options).await.unwrap().id, "a");
}

#[tokio::test]
async fn what_is_asked_of_a_task_is_sent_and_what_it_has_is_read() {
    async fn submit(request: Request) -> Response {
        let body = axum::body::to_bytes(request.into_body(), 4096).await.unwrap();
        let asked: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            asked,
            json!({"kind": "echo", "schedule_to_start_timeout_seconds": 60.0, "retry": {"delays_seconds": [1.0]},
                "unique": {"key": "k"}, "after": ["a"], "notify": ["billing"]})
        );
        let mut task = task("b", "blocked");
        task["retry"] =
            json!({"base_seconds": null, "factor": null, "cap_seconds": null, "delays_seconds": [1.0]});
        task["after"] = json!(["a"]);
        (StatusCode::ACCEPTED, Json(task)).into_response()
    }
    let client = serve(Router::new().route("/v1/tasks", post(submit))).await;
    let retry = Retry {
        delays_seconds: vec![1.0],
        ..Retry::default()
    };
    let new = NewTask {
        kind: "echo".into(),
        schedule_to_start_timeout_seconds: Some(60.0),
        retry: Some(retry.clone()),
        unique: Some(NewUnique {
            key: Some("k".into()),
            ..NewUnique::default()
        }),
        after: vec!["a".into()],
        notify: vec!["billing".into()],
        ..NewTask::default()
    };
    let task = client.submit(&new, &SubmitOptions::default()).await.unwrap();
    assert_eq!((task.retry, task.after), (Some(retry), vec!["a".to_owned()]));
    assert_eq!(
        (task.unique, task.limit_key),
        (None, None),
        "what a server does not say is not there"
    );
}

#[tokio::test]
async fn a_list_goes_on_through_its_pages_and_no_further_than_asked() {
    async fn list(Query(query): Query<Vec<(String, String)>>) -> Json<Value> {
        let value = |name: &str| {
            query
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(value("tag"), Some("a&b"));
        match value("page_token") {
            None => {
                Json(json!({"tasks": [task("1", "queued"), task("2", "queued")], "next_page_token": "t&1"}))
            }
            Some("t&1") => Json(json!({"tasks": [task("3", "queued")], "next_page_token": null})),
            Some(other) => panic!("{other}"),
        }
    }
    let client = serve(Router::new().route("/v1/tasks", get(list))).await;
    let ids = async |limit| {
        let filter = TaskFilter {
            tag: Some("a&b".into()),
            limit,
            ..TaskFilter::default()
        };
        let tasks: Vec<_> = client.list(filter).try_collect().await.unwrap();
        tasks
            .into_iter()
            .map(|task: forebay_client::Task| task.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(None).await, ["1", "2", "3"]);
    assert_eq!(ids(Some(1)).await, ["1"]);
}

#[tokio::test]
async fn a_queue_is_paused_and_resumed() {
    let queue = |paused: Value| {
        let body = json!({"name": "mail", "ready": 3, "running": null, "scheduled": 0, "paused": paused,
            "observed_at": "2026-03-01T12:00:00Z", "stale": false, "problem": null});
        move || async move { Json(body) }
    };
    let older = json!({"queues": [{"name": "mail", "ready": 1, "running": 1, "scheduled": 1}]});
    let routes = Router::new()
        .route("/v1/queues/mail/pause", post(queue(json!(true))))
        .route("/v1/queues/mail/resume", post(queue(json!(false))))
        .route("/v1/queues", get(|| async move { Json(older) }));
    let client = serve(routes).await;
    assert_eq!(client.pause_queue("mail").await.unwrap().paused, Some(true));
    assert_eq!(client.resume_queue("mail").await.unwrap().paused, Some(false));
    assert_eq!(client.queues().await.unwrap()[0].paused, None);
}

fn schedule(name: &str, paused: bool) -> Value {
    json!({
        "name": name, "cron": "0 3 * * *", "time_zone": "Europe/Berlin",
        "task": {"kind": "report", "queue": "slow", "project": "shop", "priority": "default", "payload": {"z": 1, "a": 2},
            "tags": [], "max_attempts": null, "timeout_seconds": 2.5},
        "overlap": "skip", "catch_up_seconds": 60.0, "jitter_seconds": 0.0, "paused": paused,
        "next": ["2026-03-02T02:00:00Z"], "last_tick": null, "last_task_id": null,
        "created_at": "2026-03-01T12:00:00Z", "updated_at": "2026-03-01T12:00:00Z",
    })
}

#[tokio::test]
async fn a_schedule_that_is_put_back_says_all_that_was_said() {
    async fn put(request: Request) -> Json<Value> {
        let body = axum::body::to_bytes(request.into_body(), 4096).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            json!({"cron": "0 3 * * *", "time_zone": "Europe/Berlin", "overlap": "skip", "catch_up_seconds": 60.0,
                "jitter_seconds": 0.0, "paused": true, "task": {"kind": "report", "queue": "slow", "project": "shop",
                "priority": "default", "payload": {"z": 1, "a": 2}, "timeout_seconds": 2.5}})
        );
        Json(schedule("nightly", true))
    }
    async fn read(request: Request) -> Json<Value> {
        assert_eq!(request.uri().query(), Some("upcoming=1"));
        Json(schedule("nightly", false))
    }
    let routes = Router::new().route("/v1/schedules/nightly", get(read).put(put));
    let client = serve(routes).await;
    let kept = client.schedule("nightly", Some(1)).await.unwrap();
    assert_eq!(kept.next, ["2026-03-02T02:00:00Z"]);
    let mut again = NewSchedule::from(kept);
    again.paused = true;
    assert!(client.put_schedule("nightly", &again).await.unwrap().paused);
}

#[tokio::test]
async fn a_new_schedule_says_only_what_was_given() {
    async fn put(request: Request) -> Response {
        let body = axum::body::to_bytes(request.into_body(), 4096).await.unwrap();
        assert_eq!(
            body,
            r#"{"cron":"* * * * *","task":{"kind":"echo"},"paused":false}"#
        );
        (StatusCode::CREATED, Json(schedule("every", false))).into_response()
    }
    let client = serve(Router::new().route("/v1/schedules/every", axum::routing::put(put))).await;
    let new = NewSchedule {
        cron: "* * * * *".into(),
        task: ScheduledTask {
            kind: "echo".into(),
            ..ScheduledTask::default()
        },
        ..NewSchedule::default()
    };
    assert_eq!(client.put_schedule("every", &new).await.unwrap().name, "every");
}

#[tokio::test]
async fn all_schedules_are_listed_and_one_is_deleted_once() {
    async fn list(Query(query): Query<Vec<(String, String)>>) -> Json<Value> {
        match query.iter().find(|(name, _)| name == "page_token") {
            None => Json(json!({"schedules": [schedule("a", false)], "next_page_token": "YQ"})),
            Some((_, token)) => {
                assert_eq!(token, "YQ");
                Json(json!({"schedules": [schedule("b", false)], "next_page_token": null}))
            }
        }
    }
    let deleted = Arc::new(AtomicUsize::new(0));
    let delete = move || async move {
        match deleted.fetch_add(1, Ordering::Relaxed) {
            0 => StatusCode::NO_CONTENT.into_response(),
            _ => problem(StatusCode::NOT_FOUND, "schedule_not_found"),
        }
    };
    let routes = Router::new()
        .route("/v1/schedules", get(list))
        .route("/v1/schedules/a", axum::routing::delete(delete));
    let client = serve(routes).await;
    let all = client.schedules().await.unwrap();
    let names: Vec<&str> = all.iter().map(|schedule| schedule.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    client.delete_schedule("a").await.unwrap();
    assert!(matches!(
        client.delete_schedule("a").await,
        Err(Error::Refused(problem)) if problem.code == "schedule_not_found"
    ));
}

#[tokio::test]
async fn refusals_and_silence_are_told_apart() {
    let routes = Router::new()
        .route(
            "/v1/tasks/gone",
            get(async || problem(StatusCode::NOT_FOUND, "task_not_found")),
        )
        .route(
            "/v1/tasks/later",
            get(async || problem(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")),
        )
        .route(
            "/v1/tasks/proxy",
            get(async || (StatusCode::BAD_GATEWAY, "<html>")),
        )
        .route("/v1/tasks/other", get(async || "hello"));
    let client = serve(routes).await;
    match client.get("gone").await.unwrap_err() {
        Error::Refused(problem) => assert_eq!(problem.code, "task_not_found"),
        other => panic!("{other}"),
    }
    assert!(client.get("later").await.unwrap_err().is_unavailable());
    assert!(client.get("proxy").await.unwrap_err().is_unavailable());
    let strange = client.get("other").await.unwrap_err();
    assert!(
        !strange.is_unavailable() && strange.to_string().contains("is it a Forebay server?"),
        "{strange}"
    );

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let nobody = Client::new(url.parse().unwrap()).unwrap();
    let error = nobody.get("x").await.unwrap_err();
    assert!(error.is_unavailable());
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot reach {url}: Connection refused")),
        "{error}"
    );
}

#[tokio::test]
async fn a_task_that_is_not_recorded_yet_is_asked_for_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let routes = Router::new().route(
        "/v1/tasks/a",
        get(async move || match counted.fetch_add(1, Ordering::SeqCst) {
            0 => problem(StatusCode::SERVICE_UNAVAILABLE, "not_yet_recorded"),
            1 => Json(task("a", "running")).into_response(),
            _ => Json(task("a", "succeeded")).into_response(),
        }),
    );
    let client = serve(routes).await;
    assert_eq!(client.get("a").await.unwrap().state, "running");
    let ended = client.wait("a", Duration::from_secs(10)).await.unwrap();
    assert!(ended.has_succeeded());
}

#[tokio::test]
async fn results_come_while_lines_still_go() {
    /// Answers each line as it comes.
    async fn batch(request: Request) -> Response {
        assert_eq!(request.headers()["content-type"], "application/x-ndjson");
        let lines = request
            .into_body()
            .into_data_stream()
            .enumerate()
            .map(|(index, chunk)| {
                let id = String::from_utf8(chunk.unwrap().to_vec()).unwrap();
                Ok::<_, std::io::Error>(format!(
                    "{}\n",
                    json!({"index": index, "id": id.trim(), "state": "queued"})
                ))
            });
        (StatusCode::ACCEPTED, Body::from_stream(lines)).into_response()
    }
    let client = serve(Router::new().route("/v1/tasks/batch", post(batch))).await;
    let (mut lines, upload) = tokio::io::duplex(64);
    tokio::io::AsyncWriteExt::write_all(&mut lines, b"one\n")
        .await
        .unwrap();
    let results = client.submit_ndjson(upload).await.unwrap();
    futures::pin_mut!(results);
    let first = results.next().await.unwrap().unwrap();
    assert_eq!((first.index, first.id.as_deref()), (0, Some("one")));
    tokio::io::AsyncWriteExt::write_all(&mut lines, b"two\n")
        .await
        .unwrap();
    let second = results.next().await.unwrap().unwrap();
    assert_eq!(second.id.as_deref(), Some("two"));
    drop(lines);
    assert!(results.next().await.is_none());
}

fn sse(text: &'static str) -> Response {
    let body = Body::from_stream(stream::iter([Ok::<_, std::io::Error>(text)]));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

#[tokio::test]
async fn a_lost_stream_goes_on_where_it_was() {
    async fn events(request: Request) -> Response {
        assert_eq!(request.uri().query(), Some("queue=q"));
        match request
            .headers()
            .get("last-event-id")
            .map(|id| id.to_str().unwrap())
        {
            None => sse(concat!(
                ": hello\n\n",
                "event: state\r\nid: 1\r\ndata: {\"id\":\"a\",\"kind\":\"k\",\"queue\":\"q\",\r\n",
                "data: \"state\":\"running\",\"attempt\":1,\"at\":\"t\"}\r\n\r\n",
                "event: state\nid: 2\ndata: {\"cut of"
            )),
            Some("1") => sse(concat!(
                "event: missed\ndata: {\"missed\":3}\n\n",
                "event: state\nid: 3\ndata: {\"id\":\"b\",\"state\":\"failed\",\"attempt\":1,\"at\":\"t\"}\n\n"
            )),
            Some(other) => panic!("{other}"),
        }
    }
    let client = serve(Router::new().route("/v1/events", get(events))).await;
    let filter = EventFilter {
        queue: Some("q".into()),
        ..EventFilter::default()
    };
    let heard: Vec<Heard> = client
        .events(filter)
        .await
        .unwrap()
        .take(4)
        .try_collect()
        .await
        .unwrap();
    let Heard::Event(first) = &heard[0] else {
        panic!("{heard:?}")
    };
    assert_eq!((first.id.as_str(), first.queue.as_deref()), ("a", Some("q")));
    assert!(matches!(heard[1], Heard::Lost(_)), "{heard:?}");
    assert_eq!(heard[2], Heard::Gap);
    assert!(
        matches!(&heard[3], Heard::Event(event) if event.id == "b" && event.is_final()),
        "{heard:?}"
    );
}

#[tokio::test]
async fn the_stream_of_one_task_ends_with_it() {
    let routes = Router::new()
        .route(
            "/v1/tasks/a/events",
            get(async || sse("data: {\"id\":\"a\",\"state\":\"succeeded\",\"attempt\":1,\"at\":\"t\"}\n\n")),
        )
        .route("/v1/tasks/over/events", get(async || StatusCode::NO_CONTENT));
    let client = serve(routes).await;
    for (id, count) in [("a", 1), ("over", 0)] {
        let filter = EventFilter {
            task: Some(id.into()),
            ..EventFilter::default()
        };
        let heard: Vec<Heard> = client.events(filter).await.unwrap().try_collect().await.unwrap();
        assert_eq!(heard.len(), count, "{heard:?}");
    }
}

/// Refuses the first requests, then answers with a task, and counts.
fn refusing(times: usize, retry_after: &'static str) -> (Router, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let answer = move || async move {
        if counted.fetch_add(1, Ordering::Relaxed) < times {
            let mut refusal = problem(StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable");
            if !retry_after.is_empty() {
                let value = retry_after.parse().unwrap();
                refusal.headers_mut().insert(header::RETRY_AFTER, value);
            }
            return refusal;
        }
        (StatusCode::ACCEPTED, Json(task("a", "queued"))).into_response()
    };
    let routes = Router::new()
        .route("/v1/tasks", post(answer.clone()))
        .route("/v1/tasks/{id}", get(answer));
    (routes, count)
}

#[tokio::test]
async fn a_submission_is_tried_again_under_its_key_and_never_without_one() {
    let (routes, count) = refusing(2, "");
    let client = serve(routes).await;
    let new = NewTask {
        kind: "echo".into(),
        ..NewTask::default()
    };
    let plain = client.submit(&new, &SubmitOptions::default()).await.unwrap_err();
    assert!(plain.is_unavailable(), "{plain}");
    assert_eq!(count.load(Ordering::Relaxed), 1);
    let keyed = SubmitOptions {
        idempotency_key: Some("k".into()),
        ..SubmitOptions::default()
    };
    assert_eq!(client.submit(&new, &keyed).await.unwrap().id, "a");
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_read_is_tried_again_when_the_server_says_and_not_for_ever() {
    let (routes, count) = refusing(1, "1");
    let client = serve(routes).await;
    let began = std::time::Instant::now();
    assert_eq!(client.get("a").await.unwrap().id, "a");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(count.load(Ordering::Relaxed), 2);
    let (routes, count) = refusing(usize::MAX, "");
    let error = serve(routes).await.get("a").await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(count.load(Ordering::Relaxed), 4);
}
