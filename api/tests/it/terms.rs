//! What a task may ask for beyond being run: one table of cases that drives both doors, and what each door does with it.

use axum::http::StatusCode;
use forebay_core::from_unix_micros;
use forebay_proto::v1::{
    self, submit_task_request::When, submit_tasks_response::Result as Outcome,
    task_service_client::TaskServiceClient,
};
use serde_json::{Value, json};
use tokio_stream::StreamExt;

use crate::{
    door::{Door, request},
    grpc::{code_of, fields_of, pointers_of, served},
};

const ONE: &str = "01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d";

/// An hour after the door's clock.
const LATER: &str = "2026-03-01T13:00:00Z";

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn span(seconds: f64) -> Option<prost_types::Duration> {
    let nanos = (seconds.fract() * 1e9) as i32;
    Some(prost_types::Duration {
        seconds: seconds.trunc() as i64,
        nanos,
    })
}

/// A submission in both languages, and the code that refuses it.
type Case = (Value, v1::SubmitTaskRequest, Option<&'static str>);

fn case(terms: Value, message: v1::SubmitTaskRequest, refused: Option<&'static str>) -> Case {
    let mut body = json!({"kind": "echo"});
    let Value::Object(members) = terms else {
        panic!("terms are members: {terms}");
    };
    body.as_object_mut().unwrap().extend(members);
    let message = v1::SubmitTaskRequest {
        kind: "echo".into(),
        ..message
    };
    (body, message, refused)
}

fn accepted([one, other]: &[String; 2]) -> Vec<Case> {
    let new = v1::SubmitTaskRequest::default;
    let retry = |delays: &[f64]| v1::TaskRetry {
        delays: delays.iter().filter_map(|delay| span(*delay)).collect(),
        ..Default::default()
    };
    let unique = |key: Option<&str>, window, on_conflict: &str| v1::Unique {
        key: key.map(str::to_owned),
        window,
        on_conflict: on_conflict.to_owned(),
    };
    let later = at(1_772_370_000);
    vec![
        case(
            json!({"expires_at": LATER}),
            v1::SubmitTaskRequest {
                expires_at: later,
                ..new()
            },
            None,
        ),
        case(
            json!({"delay_seconds": 60, "schedule_to_start_timeout_seconds": 1.5}),
            v1::SubmitTaskRequest {
                when: span(60.0).map(When::Delay),
                schedule_to_start_timeout: span(1.5),
                ..new()
            },
            None,
        ),
        case(
            json!({"heartbeat_timeout_seconds": 30, "limit_key": "customer 7", "notify": ["billing", "audit"]}),
            v1::SubmitTaskRequest {
                heartbeat_timeout: span(30.0),
                limit_key: "customer 7".into(),
                notify: vec!["billing".into(), "audit".into()],
                ..new()
            },
            None,
        ),
        case(
            json!({"retry": {"base_seconds": 0.5, "factor": 2.0, "cap_seconds": 60}}),
            v1::SubmitTaskRequest {
                retry: Some(v1::TaskRetry {
                    base: span(0.5),
                    factor: Some(2.0),
                    cap: span(60.0),
                    delays: vec![],
                }),
                ..new()
            },
            None,
        ),
        case(
            json!({"retry": {"delays_seconds": [0, 2.5]}}),
            v1::SubmitTaskRequest {
                retry: Some(retry(&[0.0, 2.5])),
                ..new()
            },
            None,
        ),
        case(
            json!({"unique": {"key": "k", "window_seconds": 10, "on_conflict": "replace"}}),
            v1::SubmitTaskRequest {
                unique: Some(unique(Some("k"), span(10.0), "replace")),
                ..new()
            },
            None,
        ),
        case(
            json!({"unique": {}}),
            v1::SubmitTaskRequest {
                unique: Some(unique(None, None, "")),
                ..new()
            },
            None,
        ),
        case(
            json!({"after": [other, one, other], "on_dependency_failure": "run"}),
            v1::SubmitTaskRequest {
                after: vec![other.clone(), one.clone(), other.clone()],
                on_dependency_failure: "run".into(),
                ..new()
            },
            None,
        ),
        // What is null is not said.
        case(
            json!({"expires_at": null, "schedule_to_start_timeout_seconds": null, "heartbeat_timeout_seconds": null,
                "retry": {"base_seconds": null, "factor": null, "cap_seconds": null, "delays_seconds": null},
                "limit_key": null, "unique": null, "after": null, "on_dependency_failure": null, "notify": null}),
            v1::SubmitTaskRequest {
                retry: Some(v1::TaskRetry::default()),
                ..new()
            },
            None,
        ),
    ]
}

fn refused() -> Vec<Case> {
    let new = v1::SubmitTaskRequest::default;
    let wrong = Some("invalid_request");
    let many = |count: usize, text: &str| vec![text.to_owned(); count];
    vec![
        case(
            json!({"expires_at": "2026-03-01T12:00:00Z", "schedule_to_start_timeout_seconds": 0,
                "heartbeat_timeout_seconds": -1, "limit_key": "\n", "notify": ["Billing"],
                "retry": {"base_seconds": -1, "factor": 0.5, "cap_seconds": -1, "delays_seconds": [1, -1]},
                "unique": {"key": "", "window_seconds": 0, "on_conflict": "ignore"},
                "after": ["nobody"], "on_dependency_failure": "explode"}),
            v1::SubmitTaskRequest {
                expires_at: at(1_772_366_400),
                schedule_to_start_timeout: span(0.0),
                heartbeat_timeout: span(-1.0),
                limit_key: "\n".into(),
                notify: vec!["Billing".into()],
                retry: Some(v1::TaskRetry {
                    base: span(-1.0),
                    factor: Some(0.5),
                    cap: span(-1.0),
                    delays: [1.0, -1.0].into_iter().filter_map(span).collect(),
                }),
                unique: Some(v1::Unique {
                    key: Some(String::new()),
                    window: span(0.0),
                    on_conflict: "ignore".into(),
                }),
                after: vec!["nobody".into()],
                on_dependency_failure: "explode".into(),
                ..new()
            },
            wrong,
        ),
        case(
            json!({"expires_at": "nonsense"}),
            v1::SubmitTaskRequest {
                expires_at: at(i64::MAX),
                ..new()
            },
            wrong,
        ),
        case(
            json!({"on_dependency_failure": "run"}),
            v1::SubmitTaskRequest {
                on_dependency_failure: "run".into(),
                ..new()
            },
            wrong,
        ),
        case(
            json!({"after": many(101, ONE)}),
            v1::SubmitTaskRequest {
                after: many(101, ONE),
                ..new()
            },
            wrong,
        ),
        case(
            json!({"notify": many(9, "a")}),
            v1::SubmitTaskRequest {
                notify: many(9, "a"),
                ..new()
            },
            wrong,
        ),
    ]
}

fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn time(at: Option<prost_types::Timestamp>) -> Value {
    at.map_or(Value::Null, |at| {
        json!(from_unix_micros(at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000).to_string())
    })
}

fn seconds(span: Option<prost_types::Duration>) -> Value {
    span.map_or(Value::Null, |span| {
        json!(span.seconds as f64 + f64::from(span.nanos) / 1e9)
    })
}

/// What a task asks for beyond being run, as HTTP shows it.
fn terms(task: v1::Task) -> Value {
    let retry = task.retry.map(|retry| {
        let delays: Vec<Value> = retry
            .delays
            .into_iter()
            .map(|delay| seconds(Some(delay)))
            .collect();
        json!({"base_seconds": seconds(retry.base), "factor": retry.factor, "cap_seconds": seconds(retry.cap),
            "delays_seconds": delays})
    });
    let unique = task.unique.map(
        |unique| json!({"mark": unique.mark, "until": time(unique.until), "on_conflict": unique.on_conflict}),
    );
    json!({
        "expires_at": time(task.expires_at), "heartbeat_timeout_seconds": seconds(task.heartbeat_timeout),
        "retry": retry, "limit_key": text(&task.limit_key), "unique": unique, "after": task.after,
        "on_dependency_failure": text(&task.on_dependency_failure), "notify": task.notify, "batch": text(&task.batch),
    })
}

/// These members of a task.
fn terms_of(task: &Value) -> Value {
    let members = terms(v1::Task::default());
    let names = members.as_object().unwrap().keys();
    names.map(|name| (name.clone(), task[name].clone())).collect()
}

#[tokio::test]
async fn the_same_terms_get_the_same_answer_over_both_doors() {
    let door = Door::new();
    let (channel, _server) = served(&door).await;
    let mut client = TaskServiceClient::new(channel);
    for name in ["billing", "audit"] {
        let headers = [("content-type", "application/json")];
        let body = r#"{"url":"https://example.com/hook"}"#;
        let put = request("PUT", &format!("/v1/webhooks/{name}"), &headers, body);
        assert_eq!(door.call(put).await.status, 201);
    }
    let known = [
        door.submit().await.id().to_string(),
        door.submit().await.id().to_string(),
    ];
    for (body, message, expected) in accepted(&known).into_iter().chain(refused()) {
        let shown: String = body.to_string().chars().take(120).collect();
        let http = door.post_json("/v1/tasks", body.to_string()).await;
        let grpc = client.submit_task(message).await;
        match (expected, grpc) {
            (None, Ok(answer)) => {
                let task = answer.into_inner().task.unwrap();
                assert_eq!(http.status, StatusCode::ACCEPTED, "{shown}: {http:?}");
                let state = format!("task_state_{}", http.json()["state"].as_str().unwrap());
                assert_eq!(task.state().as_str_name().to_lowercase(), state, "{shown}");
                let read = door.get(&format!("/v1/tasks/{}", http.id())).await;
                assert_eq!(read.json(), http.json(), "{shown}");
                assert_eq!(terms(task), terms_of(&http.json()), "{shown}");
            }
            (Some(code), Err(status)) => {
                assert_eq!((http.code().as_str(), code_of(&status)), (code, code), "{shown}");
                let in_grpc = |name: String| {
                    let name = name.replace("_seconds", "").replace('/', ".");
                    // An index is not a field.
                    name.rsplit_once('.')
                        .filter(|(_, last)| last.parse::<u32>().is_ok())
                        .map_or(name.clone(), |(before, last)| format!("{before}[{last}]"))
                };
                let mut fields: Vec<String> = pointers_of(&http.json()).into_iter().map(in_grpc).collect();
                fields.sort();
                assert_eq!(fields_of(&status), fields, "{shown}");
            }
            (expected, got) => panic!("{shown}: expected {expected:?}, got {got:?} and over HTTP {http:?}"),
        }
    }
}

#[tokio::test]
async fn all_that_is_wrong_with_the_terms_is_told_at_once() {
    let (body, ..) = refused().swap_remove(0);
    let answer = Door::new().post_json("/v1/tasks", body.to_string()).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        pointers_of(&answer.json()),
        [
            "after/0",
            "expires_at",
            "heartbeat_timeout_seconds",
            "limit_key",
            "notify/0",
            "on_dependency_failure",
            "retry/base_seconds",
            "retry/cap_seconds",
            "retry/delays_seconds",
            "retry/delays_seconds/1",
            "retry/factor",
            "schedule_to_start_timeout_seconds",
            "unique/key",
            "unique/on_conflict",
            "unique/window_seconds",
        ]
    );
}

#[tokio::test]
async fn what_is_no_member_or_of_another_type_is_named() {
    let door = Door::new();
    for (terms, pointer) in [
        (r#""batch":"01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d""#, "/batch"),
        (r#""retry":{"tries":3}"#, "/retry/tries"),
        (r#""retry":[1.0,2.0,3.0,[]]"#, "/retry"),
        (r#""retry":{"delays_seconds":[1,"2"]}"#, "/retry/delays_seconds/1"),
        (r#""unique":{"id":1}"#, "/unique/id"),
        (r#""unique":true"#, "/unique"),
        (r#""after":"01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d""#, "/after"),
        (r#""expires_at":12"#, "/expires_at"),
        (r#""notify":[null]"#, "/notify/0"),
    ] {
        let answer = door
            .post_json("/v1/tasks", format!(r#"{{"kind":"echo",{terms}}}"#))
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "invalid_body"),
            "{terms}"
        );
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{terms}");
    }
}

#[tokio::test]
async fn tasks_in_bulk_have_terms_too() {
    let door = Door::new();
    let known = door.submit().await.id().to_string();
    let items = format!(
        r#"[{{"kind":"echo","after":["{known}"]}},{{"kind":"echo","limit_key":""}},{{"kind":"echo","limit_key":"k"}}]"#
    );
    let check = async |results: Vec<Value>| {
        assert_eq!(results[0]["state"], "blocked");
        assert_eq!(results[1]["error"]["errors"][0]["pointer"], "/limit_key");
        let id = results[2]["id"].as_str().unwrap();
        assert_eq!(
            door.get(&format!("/v1/tasks/{id}")).await.json()["limit_key"],
            "k"
        );
    };
    let array = door.post_json("/v1/tasks/batch", items.clone()).await;
    check(array.json()["results"].as_array().unwrap().clone()).await;
    let lines: Vec<Value> = serde_json::from_str(&items).unwrap();
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let headers = [("content-type", "application/x-ndjson")];
    let stream = door
        .call(request("POST", "/v1/tasks/batch", &headers, lines))
        .await;
    check(
        stream
            .text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
    .await;
    let (channel, _server) = served(&door).await;
    let requests = [vec![known], vec!["nobody".to_owned()]].map(|after| v1::SubmitTaskRequest {
        kind: "echo".into(),
        after,
        ..Default::default()
    });
    let answers = TaskServiceClient::new(channel)
        .submit_tasks(tokio_stream::iter(requests))
        .await;
    let answers: Vec<v1::SubmitTasksResponse> =
        answers.unwrap().into_inner().map(Result::unwrap).collect().await;
    let brief: Vec<String> = answers
        .into_iter()
        .map(|answer| match answer.result.unwrap() {
            Outcome::Accepted(receipt) => receipt.state().as_str_name().to_owned(),
            Outcome::Problem(problem) => problem.violations[0].field.clone(),
        })
        .collect();
    assert_eq!(brief, ["TASK_STATE_BLOCKED", "after[0]"]);
}

#[tokio::test]
async fn another_term_is_another_request_under_an_idempotency_key() {
    let door = Door::new();
    let key = [("idempotency-key", "k")];
    let submit = async |body: &'static str| door.post_with("/v1/tasks", &key, body).await;
    let first = submit(r#"{"kind":"echo","limit_key":"a"}"#).await;
    assert_eq!(
        submit(r#"{"kind":"echo","limit_key":"a"}"#).await.json(),
        first.json()
    );
    assert_eq!(
        submit(r#"{"kind":"echo","limit_key":"b"}"#).await.code(),
        "idempotency_key_reused"
    );
    assert_eq!(
        submit(r#"{"kind":"echo"}"#).await.code(),
        "idempotency_key_reused"
    );
}
