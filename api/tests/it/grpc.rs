//! The gRPC door: the same operations, the same answers.

use std::time::Duration;

use bytes::BufMut;
use forebay_api::{Bounds, error::Code, serve_grpc};
use forebay_core::State;
use forebay_proto::v1::{
    self, submit_task_request::When, submit_tasks_response::Result as Outcome,
    task_service_client::TaskServiceClient,
};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_stream::StreamExt;
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt;

use crate::{
    door::{Door, eventually, quick},
    fake::Mood,
};

const UNKNOWN: &str = "01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d";
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn served(door: &Door) -> (Channel, JoinHandle<anyhow::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(serve_grpc(door.app.clone(), listener));
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    (channel, server)
}

fn echo() -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest {
        kind: "echo".into(),
        ..Default::default()
    }
}

fn get(id: &impl ToString) -> v1::GetTaskRequest {
    v1::GetTaskRequest { id: id.to_string() }
}

/// What both doors must agree on.
pub(crate) fn code_of(status: &Status) -> &'static str {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "forebay");
    let code = Code::parse(&info.reason).unwrap();
    assert_eq!(status.code(), code.row().grpc, "{status:?}");
    let retry = details
        .retry_info()
        .and_then(|retry| retry.retry_delay)
        .map(|delay| delay.as_secs());
    assert_eq!(retry, code.row().retry_after_seconds.map(u64::from));
    code.as_str()
}

pub(crate) fn fields_of(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let fields = details
        .bad_request()
        .map(|bad| bad.field_violations.clone())
        .unwrap_or_default();
    let mut names: Vec<String> = fields.into_iter().map(|field| field.field).collect();
    names.sort();
    names
}

/// What a problem says over HTTP, with the name that the field at fault has over gRPC.
pub(crate) fn renamed(detail: &str) -> String {
    match detail.split_once(": ") {
        Some((field, rest)) if !field.contains(' ') => {
            format!("{}: {rest}", field.replace('/', ".").replace("_seconds", ""))
        }
        _ => detail.to_owned(),
    }
}

pub(crate) fn pointers_of(problem: &serde_json::Value) -> Vec<String> {
    let errors = problem["errors"].as_array().unwrap();
    let mut names: Vec<String> = errors
        .iter()
        .map(|error| {
            error["pointer"]
                .as_str()
                .unwrap()
                .trim_start_matches('/')
                .to_owned()
        })
        .collect();
    names.sort();
    names
}

/// A submission in both languages, the code that refuses it, and how the fields at fault are called over gRPC.
fn submissions() -> Vec<(String, v1::SubmitTaskRequest, Option<&'static str>)> {
    let timestamp = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
    let span = |seconds| prost_types::Duration { seconds, nanos: 0 };
    let large = format!("\"{}\"", "x".repeat(300_000));
    let deep = "[".repeat(200) + &"]".repeat(200);
    vec![
        (r#"{"kind":"echo"}"#.into(), echo(), None),
        (
            r#"{"kind":"echo","queue":"q","project":"p","priority":"low","payload":{"a":1},"tags":["t"],"delay_seconds":60,
                "max_attempts":2,"timeout_seconds":5}"#
                .into(),
            v1::SubmitTaskRequest {
                queue: "q".into(),
                project: "p".into(),
                priority: "low".into(),
                payload: r#"{"a":1}"#.into(),
                tags: vec!["t".into()],
                when: Some(When::Delay(span(60))),
                max_attempts: Some(2),
                timeout: Some(span(5)),
                idempotency_key: "k".into(),
                ..echo()
            },
            None,
        ),
        (
            r#"{"kind":"echo","payload":2,"project":"p"}"#.into(),
            v1::SubmitTaskRequest {
                payload: "2".into(),
                project: "p".into(),
                idempotency_key: "k".into(),
                ..echo()
            },
            Some("idempotency_key_reused"),
        ),
        (r#"{"kind":""}"#.into(), v1::SubmitTaskRequest::default(), Some("invalid_request")),
        (
            r#"{"kind":"A B","queue":"a.b","project":"P","priority":"urgent","max_attempts":0,"timeout_seconds":-1,
                "delay_seconds":-1}"#
                .into(),
            v1::SubmitTaskRequest {
                kind: "A B".into(),
                queue: "a.b".into(),
                project: "P".into(),
                priority: "urgent".into(),
                max_attempts: Some(0),
                timeout: Some(span(-1)),
                when: Some(When::Delay(span(-1))),
                ..Default::default()
            },
            Some("invalid_request"),
        ),
        (
            r#"{"kind":"echo","run_at":"2099-01-01T00:00:00Z"}"#.into(),
            v1::SubmitTaskRequest {
                when: Some(When::RunAt(timestamp(4_070_908_800))),
                ..echo()
            },
            Some("invalid_request"),
        ),
        (
            r#"{"kind":"echo","run_at":"nonsense"}"#.into(),
            v1::SubmitTaskRequest {
                when: Some(When::RunAt(timestamp(i64::MAX))),
                ..echo()
            },
            Some("invalid_request"),
        ),
        (
            format!(r#"{{"kind":"echo","payload":{large}}}"#),
            v1::SubmitTaskRequest {
                payload: large.into(),
                ..echo()
            },
            Some("payload_too_large"),
        ),
        (
            format!(r#"{{"kind":"echo","payload":{deep}}}"#),
            v1::SubmitTaskRequest {
                payload: deep.into(),
                ..echo()
            },
            Some("invalid_request"),
        ),
    ]
}

#[tokio::test]
async fn the_same_submission_gets_the_same_answer_over_both_doors() {
    let door = Door::new();
    let (channel, _server) = served(&door).await;
    let mut client = TaskServiceClient::new(channel);
    for (json, message, refused) in submissions() {
        let shown = json.chars().take(80).collect::<String>();
        let key = message.idempotency_key.clone();
        let headers: Vec<(&str, &str)> = if key.is_empty() {
            vec![]
        } else {
            vec![("idempotency-key", &key)]
        };
        let http = door.post_with("/v1/tasks", &headers, json).await;
        let grpc = client.submit_task(message).await;
        match (refused, grpc) {
            (None, Ok(answer)) => {
                let task = answer.into_inner().task.unwrap();
                let body = http.json();
                let brief =
                    serde_json::json!([task.kind, task.queue, task.priority, task.project, task.tags]);
                assert_eq!(
                    brief,
                    serde_json::json!([
                        body["kind"],
                        body["queue"],
                        body["priority"],
                        body["project"],
                        body["tags"]
                    ])
                );
                assert_eq!(task.payload, serde_json::to_vec(&body["payload"]).unwrap());
                let state = v1::TaskState::try_from(task.state)
                    .unwrap()
                    .as_str_name()
                    .to_lowercase();
                assert_eq!(state, format!("task_state_{}", body["state"].as_str().unwrap()));
            }
            (Some(code), Err(status)) => {
                assert_eq!((http.code().as_str(), code_of(&status)), (code, code), "{shown}");
                let pointers = pointers_of(&http.json()).into_iter();
                let pointers: Vec<String> = pointers.map(|name| name.replace("_seconds", "")).collect();
                assert_eq!(fields_of(&status), pointers, "{shown}");
                // Each door speaks of its own way to write a time.
                let detail = http.json()["detail"].as_str().unwrap().replace(
                    "an RFC 3339 time, such as 2026-03-01T12:00:00Z",
                    "a valid Timestamp",
                );
                assert_eq!(status.message(), renamed(&detail));
            }
            (expected, got) => panic!("{shown}: expected {expected:?}, got {got:?} and over HTTP {http:?}"),
        }
    }
}

#[tokio::test]
async fn the_same_fault_gets_the_same_answer_over_both_doors() {
    let door = Door::new();
    let (channel, _server) = served(&door).await;
    let mut client = TaskServiceClient::new(channel);
    let id = door.submit().await.id();
    let read = format!("/v1/tasks/{id}");
    let unknown = format!("/v1/tasks/{UNKNOWN}");
    let set = |broker, store| {
        let mut inner = door.fake.lock();
        (inner.broker, inner.store) = (broker, store);
    };
    for (broker, store, submit, known, stranger) in [
        (Mood::Up, Mood::Up, "ok", "ok", "task_not_found"),
        (
            Mood::Down,
            Mood::Up,
            "broker_unavailable",
            "ok",
            "broker_unavailable",
        ),
        (
            Mood::Hangs,
            Mood::Up,
            "broker_unavailable",
            "ok",
            "broker_unavailable",
        ),
        (Mood::Full, Mood::Up, "backlog_full", "ok", "task_not_found"),
        (
            Mood::Conflicts,
            Mood::Up,
            "idempotency_key_reused",
            "ok",
            "task_not_found",
        ),
        (
            Mood::Up,
            Mood::Down,
            "ok",
            "store_unavailable",
            "store_unavailable",
        ),
        (
            Mood::Up,
            Mood::Hangs,
            "ok",
            "store_unavailable",
            "store_unavailable",
        ),
    ] {
        set(broker, store);
        let http = [
            door.post_json("/v1/tasks", r#"{"kind":"echo"}"#).await,
            door.get(&read).await,
            door.get(&unknown).await,
        ];
        let http = http.map(|answer| {
            if answer.status.is_success() {
                "ok".to_owned()
            } else {
                answer.code()
            }
        });
        let grpc = [
            client.submit_task(echo()).await.map(drop),
            client.get_task(get(&id)).await.map(drop),
            client.get_task(get(&UNKNOWN)).await.map(drop),
        ];
        let grpc = grpc.map(|answer| answer.map_or_else(|status| code_of(&status), |()| "ok"));
        assert_eq!(http, [submit, known, stranger], "{broker:?} {store:?}");
        assert_eq!(grpc, [submit, known, stranger], "{broker:?} {store:?}");
    }
    set(Mood::Up, Mood::Up);
    let wrong = client.get_task(get(&"x")).await.unwrap_err();
    assert_eq!(
        (code_of(&wrong), fields_of(&wrong)),
        ("invalid_parameter", vec!["id".to_owned()])
    );
    door.fake.lock().lagging = true;
    let late = client
        .submit_task(echo())
        .await
        .unwrap()
        .into_inner()
        .task
        .unwrap();
    assert_eq!(
        code_of(&client.get_task(get(&late.id)).await.unwrap_err()),
        "not_yet_recorded"
    );
}

#[tokio::test]
async fn lists_cancels_and_retries() {
    let door = Door::new();
    let (channel, _server) = served(&door).await;
    let mut client = TaskServiceClient::new(channel);
    let ids = [
        door.submit().await.id().to_string(),
        door.submit().await.id().to_string(),
    ];
    let list = |page_token: String, page_size| v1::ListTasksRequest {
        state: v1::TaskState::Queued.into(),
        page_size,
        page_token,
        ..Default::default()
    };
    let first = client
        .list_tasks(list(String::new(), 1))
        .await
        .unwrap()
        .into_inner();
    let second = client
        .list_tasks(list(first.next_page_token, 1))
        .await
        .unwrap()
        .into_inner();
    let mut listed = [first.tasks[0].id.clone(), second.tasks[0].id.clone()];
    listed.sort();
    let mut expected = ids.clone();
    expected.sort();
    assert_eq!((listed, second.next_page_token.as_str()), (expected, ""));
    let wrong = client.list_tasks(list(String::new(), 500)).await.unwrap_err();
    assert_eq!(
        (code_of(&wrong), fields_of(&wrong)),
        ("invalid_parameter", vec!["page_size".to_owned()])
    );
    let id = ids[0].clone();
    let cancelled = client
        .cancel_task(v1::CancelTaskRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(cancelled.task.unwrap().state(), v1::TaskState::Cancelled);
    let again = client
        .cancel_task(v1::CancelTaskRequest { id: id.clone() })
        .await
        .unwrap_err();
    assert_eq!(code_of(&again), "state_conflict");
    assert_eq!(
        again.get_error_details().error_info().unwrap().metadata["state"],
        "cancelled"
    );
    let retried = client
        .retry_task(v1::RetryTaskRequest { id })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(retried.task.unwrap().state(), v1::TaskState::Retrying);
}

#[tokio::test]
async fn streams_submissions_and_watches() {
    let door = Door::with_background().await;
    let (channel, _server) = served(&door).await;
    let mut client = TaskServiceClient::new(channel);
    let requests = vec![echo(), v1::SubmitTaskRequest::default(), echo()];
    let answers = client
        .submit_tasks(tokio_stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let answers: Vec<v1::SubmitTasksResponse> = answers.map(Result::unwrap).collect().await;
    let brief: Vec<(u64, String)> = answers
        .iter()
        .map(|answer| match answer.result.as_ref().unwrap() {
            Outcome::Accepted(receipt) => (answer.index, receipt.state().as_str_name().to_owned()),
            Outcome::Problem(problem) => (answer.index, problem.code.clone()),
        })
        .collect();
    assert_eq!(
        brief,
        [
            (0, "TASK_STATE_QUEUED".into()),
            (1, "invalid_request".into()),
            (2, "TASK_STATE_QUEUED".into())
        ]
    );
    let id = *door.fake.lock().tasks.keys().next().unwrap();
    let watch = |after: String| v1::WatchTaskRequest {
        id: id.to_string(),
        after,
    };
    let mut steps = client
        .watch_task(watch(String::new()))
        .await
        .unwrap()
        .into_inner();
    let first = steps.next().await.unwrap().unwrap();
    assert_eq!(first.state(), v1::TaskState::Queued);
    door.fake.change(id, State::Running, "2026-03-01T12:00:01Z");
    assert_eq!(
        steps.next().await.unwrap().unwrap().state(),
        v1::TaskState::Running
    );
    door.fake.progress(id, 0.5, "half", "2026-03-01T12:00:01.5Z");
    let halfway = steps.next().await.unwrap().unwrap();
    assert_eq!(
        (halfway.state(), halfway.task.is_some()),
        (v1::TaskState::Running, false)
    );
    let progress = halfway.progress.unwrap();
    assert_eq!((progress.fraction, progress.message.as_str()), (0.5, "half"));
    door.fake.change(id, State::Succeeded, "2026-03-01T12:00:02Z");
    let last = steps.next().await.unwrap().unwrap();
    assert_eq!(
        (last.progress, last.task.as_ref().unwrap().progress.as_ref()),
        (None, Some(&progress))
    );
    assert_eq!(last.task.unwrap().result, r#"{"done":true}"#);
    assert!(steps.next().await.is_none());
    let mut after = client.watch_task(watch(last.cursor)).await.unwrap().into_inner();
    assert!(after.next().await.is_none());
    assert_eq!(
        code_of(&client.watch_task(watch("x".into())).await.unwrap_err()),
        "invalid_parameter"
    );
}

#[tokio::test]
async fn a_stream_answers_all_in_order_however_little_room_there_is() {
    const LARGE: usize = 250_000;
    let door = Door::bounded(Bounds {
        lines: 7,
        lines_bytes: 1,
        ..quick()
    });
    let (channel, _server) = served(&door).await;
    let mut client = TaskServiceClient::new(channel);
    let numbered = |number: usize| v1::SubmitTaskRequest {
        tags: vec![number.to_string()],
        payload: match number % 50 {
            0 => format!("\"{}\"", "x".repeat(LARGE)).into(),
            _ => number.to_string().into(),
        },
        ..echo()
    };
    let requests = tokio_stream::iter((0..1_200).map(numbered));
    let mut answers = client.submit_tasks(requests).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.index, count);
        let Some(Outcome::Accepted(receipt)) = answer.result else {
            panic!("not accepted: {:?}", answer.result);
        };
        let accepted = door.fake.lock().tasks[&receipt.id.parse().unwrap()].clone();
        let sent = numbered(count as usize);
        assert_eq!(accepted.tags, sent.tags);
        assert_eq!(accepted.payload.as_bytes(), &sent.payload[..]);
        count += 1;
    }
    assert_eq!(count, 1_200);
}

/// Clients send again what was refused for this and all after it, keys or no keys.
#[tokio::test]
async fn what_a_stream_refuses_for_its_end_is_followed_by_nothing_that_it_accepts() {
    let door = Door::bounded(Bounds {
        lookup: Duration::from_secs(1),
        ..quick()
    });
    let (channel, _server) = served(&door).await;
    let mut client = TaskServiceClient::new(channel);
    let (send, requests) = futures::channel::mpsc::unbounded();
    let sent = |request: v1::SubmitTaskRequest| send.unbounded_send(request).unwrap();
    // The first waits for its key to be looked up. The second overtakes it, and then the process is told to stop.
    door.fake.lock().store = Mood::Hangs;
    sent(v1::SubmitTaskRequest {
        idempotency_key: "late".into(),
        ..echo()
    });
    let mut answers = client.submit_tasks(requests).await.unwrap().into_inner();
    eventually("its key is looked up", async || door.fake.lock().store_asked > 0).await;
    sent(echo());
    eventually("the second is accepted", async || door.fake.lock().batches == 1).await;
    door.app.stop.cancel();
    for index in 0..2 {
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!(answer.index, index);
        assert!(
            matches!(answer.result, Some(Outcome::Accepted(_))),
            "{:?}",
            answer.result
        );
    }
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_stream_says_of_a_task_what_reading_it_does() {
    let door = Door::new();
    let (channel, _server) = served(&door).await;
    let mut client = TaskServiceClient::new(channel);
    let accepted = submissions()
        .into_iter()
        .filter(|(_, _, refused)| refused.is_none());
    let requests: Vec<_> = accepted.map(|(_, request, _)| request).collect();
    // The second time those with a key are known.
    for _ in 0..2 {
        let streamed = client.submit_tasks(tokio_stream::iter(requests.clone())).await;
        let mut streamed = streamed.unwrap().into_inner();
        for _ in &requests {
            let Some(Outcome::Accepted(receipt)) = streamed.next().await.unwrap().unwrap().result else {
                panic!("a valid task was refused");
            };
            let read = client.get_task(get(&receipt.id)).await.unwrap().into_inner();
            let read = read.task.unwrap();
            assert_eq!((&read.id, read.state()), (&receipt.id, receipt.state()));
        }
        assert!(streamed.next().await.is_none());
    }
}

/// Sends bytes as they are, as if they were messages.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = v1::SubmitTasksResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = v1::SubmitTasksResponse;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        Ok(Some(Message::decode(buffer).unwrap()))
    }
}

#[tokio::test]
async fn what_is_no_message_breaks_a_stream_after_the_answers_before_it() {
    let door = Door::new();
    let (channel, _server) = served(&door).await;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let good = echo().encode_to_vec();
    // A kind that is not UTF-8.
    let bad = vec![0x0a, 0x01, 0xff];
    let requests = tokio_stream::iter([good.clone(), good.clone(), bad, good]);
    let path = PathAndQuery::from_static("/forebay.v1.TaskService/SubmitTasks");
    let answers = client.streaming(Request::new(requests), path, Raw).await;
    let mut answers = answers.unwrap().into_inner();
    for index in 0..2 {
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!(answer.index, index);
        assert!(matches!(answer.result, Some(Outcome::Accepted(_))));
    }
    let broken = answers.next().await.unwrap().unwrap_err();
    assert_eq!(code_of(&broken), "invalid_body");
    assert_eq!(door.fake.lock().tasks.len(), 2);
}

#[tokio::test]
async fn health_follows_the_drain_and_the_door_closes() {
    let door = Door::new();
    let (channel, server) = served(&door).await;
    let mut health = HealthClient::new(channel.clone());
    let named = |service: &str| HealthCheckRequest {
        service: service.into(),
    };
    for service in ["", "forebay.v1.QueueService", "forebay.v1.ScheduleService"] {
        let now = health.check(named(service)).await.unwrap().into_inner();
        assert_eq!(now.status(), ServingStatus::Serving, "{service}");
    }
    let request = named("forebay.v1.TaskService");
    let now = health.check(request.clone()).await.unwrap().into_inner();
    assert_eq!(now.status(), ServingStatus::Serving);
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(
        watch.next().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    door.app.stop.cancel();
    let told = timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
    drop((watch, health, channel));
    timeout(PATIENCE, server)
        .await
        .expect("the server ends")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn calls_that_read_and_calls_that_submit_do_not_starve_each_other() {
    let door = Door::bounded(Bounds {
        submissions: 5,
        reads: 5,
        submit: Duration::from_secs(60),
        read: Duration::from_secs(60),
        ..quick()
    });
    let (channel, _server) = served(&door).await;
    let mut client = TaskServiceClient::new(channel.clone());
    let known = client
        .submit_task(echo())
        .await
        .unwrap()
        .into_inner()
        .task
        .unwrap()
        .id;
    let known_too = known.clone();
    let hang = move |submits: bool| {
        let (mut client, known) = (TaskServiceClient::new(channel.clone()), known_too.clone());
        async move {
            let status = if submits {
                client.submit_task(echo()).await.map(drop)
            } else {
                client.get_task(get(&known)).await.map(drop)
            };
            code_of(&status.unwrap_err()) == "overloaded"
        }
    };
    // What finds out whether all hang may have had a place itself, so who is refused calls again.
    let hang_on = |submits| {
        let hang = hang.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            while hang(submits).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }))
    };
    let refused = async |submits| {
        let refused = timeout(Duration::from_millis(100), hang(submits)).await;
        matches!(refused, Ok(true))
    };

    door.fake.lock().store = Mood::Hangs;
    let reads: Vec<_> = (0..5).map(|_| hang_on(false)).collect();
    eventually("all places for reads are taken", async || refused(false).await).await;
    for _ in 0..20 {
        let submitted = timeout(PATIENCE, client.submit_task(echo())).await;
        submitted.expect("at once").unwrap();
    }
    door.fake.lock().store = Mood::Up;
    drop(reads);

    door.fake.lock().broker = Mood::Hangs;
    let _submissions: Vec<_> = (0..5).map(|_| hang_on(true)).collect();
    eventually("all places for submissions are taken", async || {
        refused(true).await
    })
    .await;
    let read = async || client.clone().get_task(get(&known)).await.is_ok();
    eventually("reads are answered", read).await;
}

#[tokio::test]
async fn tells_what_services_there_are() {
    let door = Door::new();
    let (channel, _server) = served(&door).await;
    let mut client = ServerReflectionClient::new(channel);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "forebay.v1.LimitService",
            "forebay.v1.QueueService",
            "forebay.v1.ScheduleService",
            "forebay.v1.TaskService",
            "forebay.v1.WorkerService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection"
        ]
    );
}

#[tokio::test]
async fn calls_are_counted_and_panics_say_nothing() {
    let door = Door::new();
    let (channel, _server) = served(&door).await;
    let mut client = TaskServiceClient::new(channel);
    client.submit_task(echo()).await.unwrap();
    door.fake.lock().panics = true;
    let failed = client.get_task(get(&UNKNOWN)).await.unwrap_err();
    assert_eq!(code_of(&failed), "internal");
    assert!(!failed.message().contains("secret"));
    let metrics = door.app.metrics.encode();
    assert!(
        metrics.contains("rpc_server_call_duration_seconds_count{method=\"SubmitTask\",code=\"0\"} 1"),
        "{metrics}"
    );
}
