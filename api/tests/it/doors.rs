//! One table of cases that drives both doors: the same input gives the same answer. Submissions and their faults have
//! tables of their own in `grpc`.

use axum::body::Body;
use forebay_api::Bounds;
use forebay_core::from_unix_micros;
use forebay_proto::v1::{
    self, queue_service_client::QueueServiceClient, schedule_service_client::ScheduleServiceClient,
    task_service_client::TaskServiceClient,
};
use serde_json::{Value, json};
use tonic::{Response, Status, transport::Channel};

use crate::{
    door::{Answer, Door, quick, request},
    fake::Mood,
    grpc::{code_of, fields_of, renamed, served},
};

const UNKNOWN: &str = "01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d";

/// A call of the gRPC door.
#[derive(Clone)]
enum Call {
    GetTask(&'static str),
    CancelTask(&'static str),
    RetryTask(&'static str),
    ListTasks(v1::ListTasksRequest),
    ListQueues,
    GetQueue(&'static str),
    PauseQueue(&'static str),
    ResumeQueue(&'static str),
    GetAutoscale(&'static str),
    PutSchedule(Box<v1::PutScheduleRequest>),
    GetSchedule(&'static str, Option<u32>),
    ListSchedules(i32, &'static str),
    DeleteSchedule(&'static str),
}

/// A request in both languages, and the code that refuses it, or `ok`.
struct Case {
    http: (&'static str, String, String),
    grpc: Call,
    expected: &'static str,
}

fn case(method: &'static str, path: &str, grpc: Call, expected: &'static str) -> Case {
    Case {
        http: (method, path.to_owned(), String::new()),
        grpc,
        expected,
    }
}

fn put(name: &str, body: &str, spec: Option<v1::ScheduleSpec>, expected: &'static str) -> Case {
    let name_too = name.to_owned();
    Case {
        http: ("PUT", format!("/v1/schedules/{name}"), body.to_owned()),
        grpc: Call::PutSchedule(Box::new(v1::PutScheduleRequest { name: name_too, spec })),
        expected,
    }
}

/// An answer, whichever door gave it.
#[derive(Debug, PartialEq)]
enum Outcome {
    Shown(Value),
    Refused {
        code: String,
        fields: Vec<String>,
        detail: String,
    },
}

impl Outcome {
    fn code(&self) -> &str {
        match self {
            Self::Shown(_) => "ok",
            Self::Refused { code, .. } => code,
        }
    }
}

async fn over_http(door: &Door, (method, path, body): &(&'static str, String, String)) -> Outcome {
    let headers = [("content-type", "application/json")];
    let answer = door
        .call(request(method, path, &headers, Body::from(body.clone())))
        .await;
    if !answer.status.is_success() {
        return refusal(&answer);
    }
    Outcome::Shown(match (*method, answer.status.as_u16()) {
        ("PUT", status) => json!({"schedule": answer.json(), "created": status == 201}),
        ("DELETE", 204) => json!({}),
        (_, 200) => answer.json(),
        (_, other) => panic!("{method} {path}: {other}"),
    })
}

fn refusal(answer: &Answer) -> Outcome {
    let problem = answer.json();
    let errors = problem["errors"].as_array().unwrap();
    let field = |error: &Value| {
        let pointer = error["pointer"].as_str().unwrap().trim_start_matches('/');
        // What each door calls the same thing.
        match pointer {
            "queue" => "name".to_owned(),
            pointer => pointer.replace('/', ".").replace("_seconds", ""),
        }
    };
    let mut fields: Vec<String> = errors.iter().map(field).collect();
    fields.sort();
    let detail = problem["detail"].as_str().unwrap();
    Outcome::Refused {
        code: answer.code(),
        fields,
        detail: renamed(&detail.replacen("queue:", "name:", 1)),
    }
}

async fn over_grpc(channel: &Channel, call: &Call) -> Outcome {
    let mut tasks = TaskServiceClient::new(channel.clone());
    let mut queues = QueueServiceClient::new(channel.clone());
    let mut schedules = ScheduleServiceClient::new(channel.clone());
    match call.clone() {
        Call::GetTask(id) => shown(tasks.get_task(v1::GetTaskRequest { id: id.into() }).await, |_| {
            json!(null)
        }),
        Call::CancelTask(id) => {
            let request = v1::CancelTaskRequest { id: id.into() };
            shown(tasks.cancel_task(request).await, |_| json!(null))
        }
        Call::RetryTask(id) => {
            let request = v1::RetryTaskRequest { id: id.into() };
            shown(tasks.retry_task(request).await, |_| json!(null))
        }
        Call::ListTasks(request) => shown(tasks.list_tasks(request).await, |page| {
            assert!(page.tasks.is_empty());
            json!({"tasks": [], "next_page_token": text(&page.next_page_token)})
        }),
        Call::ListQueues => shown(queues.list_queues(v1::ListQueuesRequest {}).await, |list| {
            let all: Vec<Value> = list.queues.iter().map(queue).collect();
            json!({"queues": all, "observed_at": time(list.at), "stale": list.stale, "problem": text(&list.problem)})
        }),
        Call::GetQueue(name) => {
            let request = v1::GetQueueRequest { name: name.into() };
            shown(queues.get_queue(request).await, |answer| {
                queue(&answer.queue.unwrap())
            })
        }
        Call::PauseQueue(name) => {
            let request = v1::PauseQueueRequest { name: name.into() };
            shown(queues.pause_queue(request).await, |answer| {
                queue(&answer.queue.unwrap())
            })
        }
        Call::ResumeQueue(name) => {
            let request = v1::ResumeQueueRequest { name: name.into() };
            shown(queues.resume_queue(request).await, |answer| {
                queue(&answer.queue.unwrap())
            })
        }
        Call::GetAutoscale(name) => {
            let request = v1::GetAutoscaleRequest { name: name.into() };
            shown(queues.get_autoscale(request).await, |sample| autoscale(&sample))
        }
        Call::PutSchedule(request) => shown(
            schedules.put_schedule(*request).await,
            |answer| json!({"schedule": schedule(answer.schedule.unwrap()), "created": answer.created}),
        ),
        Call::GetSchedule(name, upcoming) => {
            let name = name.into();
            let request = v1::GetScheduleRequest { name, upcoming };
            shown(schedules.get_schedule(request).await, |answer| {
                schedule(answer.schedule.unwrap())
            })
        }
        Call::ListSchedules(page_size, page_token) => {
            let page_token = page_token.into();
            let request = v1::ListSchedulesRequest {
                page_size,
                page_token,
            };
            shown(schedules.list_schedules(request).await, |page| {
                let all: Vec<Value> = page.schedules.into_iter().map(schedule).collect();
                json!({"schedules": all, "next_page_token": text(&page.next_page_token)})
            })
        }
        Call::DeleteSchedule(name) => {
            let request = v1::DeleteScheduleRequest { name: name.into() };
            shown(
                schedules.delete_schedule(request).await,
                |v1::DeleteScheduleResponse {}| json!({}),
            )
        }
    }
}

fn shown<T>(answer: Result<Response<T>, Status>, show: impl FnOnce(T) -> Value) -> Outcome {
    match answer {
        Ok(answer) => Outcome::Shown(show(answer.into_inner())),
        Err(status) => Outcome::Refused {
            code: code_of(&status).to_owned(),
            fields: fields_of(&status)
                .into_iter()
                .map(|field| field.trim_start_matches("spec.").to_owned())
                .collect(),
            detail: status.message().trim_start_matches("spec.").to_owned(),
        },
    }
}

fn time(at: Option<prost_types::Timestamp>) -> Value {
    at.map_or(Value::Null, |at| {
        let at = from_unix_micros(at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000);
        json!(at.to_string())
    })
}

fn span(span: Option<prost_types::Duration>) -> Value {
    span.map_or(Value::Null, |span| {
        json!(span.seconds as f64 + f64::from(span.nanos) / 1e9)
    })
}

fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn queue(queue: &v1::Queue) -> Value {
    json!({
        "name": queue.name, "ready": queue.ready, "running": queue.running, "scheduled": queue.scheduled,
        "paused": queue.paused, "observed_at": time(queue.at), "stale": queue.stale, "problem": text(&queue.problem),
    })
}

fn autoscale(sample: &v1::GetAutoscaleResponse) -> Value {
    json!({
        "queue": sample.queue, "ready": sample.ready, "running": sample.running, "gated": sample.gated,
        "scheduled": sample.scheduled, "oldest_ready_age_seconds": sample.oldest_ready_age_seconds,
        "desired_workers": sample.desired_workers, "at": time(sample.at),
    })
}

fn schedule(schedule: v1::Schedule) -> Value {
    let spec = schedule.spec.unwrap();
    let overlap = spec
        .overlap()
        .as_str_name()
        .trim_start_matches("OVERLAP_")
        .to_lowercase();
    let task = spec.task.unwrap();
    let payload: Value = serde_json::from_slice(&task.payload).unwrap();
    let next: Vec<Value> = schedule.next.into_iter().map(|at| time(Some(at))).collect();
    json!({
        "name": schedule.name, "cron": spec.cron, "time_zone": spec.time_zone, "overlap": overlap,
        "task": {
            "kind": task.kind, "queue": task.queue, "project": task.project, "priority": task.priority,
            "payload": payload, "tags": task.tags, "max_attempts": task.max_attempts,
            "timeout_seconds": span(task.timeout),
            "heartbeat_timeout_seconds": span(task.heartbeat_timeout), "limit_key": text(&task.limit_key),
            "notify": task.notify,
            "retry": task.retry.map(|retry| json!({
                "base_seconds": span(retry.base), "factor": retry.factor, "cap_seconds": span(retry.cap),
                "delays_seconds": retry.delays.into_iter().map(|delay| span(Some(delay))).collect::<Vec<_>>(),
            })),
        },
        "catch_up_seconds": span(spec.catch_up), "jitter_seconds": span(spec.jitter), "paused": spec.paused,
        "next": next, "last_tick": time(schedule.last_tick), "last_task_id": text(&schedule.last_task_id),
        "created_at": time(schedule.created_at), "updated_at": time(schedule.updated_at),
    })
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// A report at three in the morning.
fn report() -> v1::ScheduleSpec {
    v1::ScheduleSpec {
        cron: "0 3 * * *".into(),
        task: Some(v1::SubmitTaskRequest {
            kind: "report".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

const REPORT: &str = r#"{"cron":"0 3 * * *","task":{"kind":"report"}}"#;

fn tasks() -> Vec<Case> {
    let list = |page_size, page_token: &str, queue: &str| {
        Call::ListTasks(v1::ListTasksRequest {
            page_size,
            page_token: page_token.into(),
            queue: queue.into(),
            ..Default::default()
        })
    };
    let unknown = |after: &str| format!("/v1/tasks/{UNKNOWN}{after}");
    vec![
        case("GET", "/v1/tasks/x", Call::GetTask("x"), "invalid_parameter"),
        case("GET", &unknown(""), Call::GetTask(UNKNOWN), "task_not_found"),
        case(
            "POST",
            &unknown("/cancel"),
            Call::CancelTask(UNKNOWN),
            "task_not_found",
        ),
        case(
            "POST",
            &unknown("/retry"),
            Call::RetryTask(UNKNOWN),
            "task_not_found",
        ),
        case("GET", "/v1/tasks?queue=none", list(0, "", "none"), "ok"),
        case(
            "GET",
            "/v1/tasks?page_size=201",
            list(201, "", ""),
            "invalid_parameter",
        ),
        case(
            "GET",
            "/v1/tasks?page_token=x",
            list(0, "x", ""),
            "invalid_page_token",
        ),
    ]
}

fn queues() -> Vec<Case> {
    let of = |queue: &str, what: &str| format!("/v1/queues/{queue}{what}");
    vec![
        case("GET", "/v1/queues", Call::ListQueues, "ok"),
        case("GET", &of("images", ""), Call::GetQueue("images"), "ok"),
        case("GET", &of("none", ""), Call::GetQueue("none"), "queue_not_found"),
        case("GET", &of("No!", ""), Call::GetQueue("No!"), "invalid_parameter"),
        case(
            "GET",
            &of("images", "/autoscale"),
            Call::GetAutoscale("images"),
            "ok",
        ),
        case("GET", &of("none", "/autoscale"), Call::GetAutoscale("none"), "ok"),
        case(
            "GET",
            &of("No!", "/autoscale"),
            Call::GetAutoscale("No!"),
            "invalid_parameter",
        ),
        case("POST", &of("images", "/pause"), Call::PauseQueue("images"), "ok"),
        case("POST", &of("images", "/pause"), Call::PauseQueue("images"), "ok"),
        case("GET", &of("images", ""), Call::GetQueue("images"), "ok"),
        case(
            "GET",
            &of("images", "/autoscale"),
            Call::GetAutoscale("images"),
            "ok",
        ),
        case(
            "POST",
            &of("reports", "/resume"),
            Call::ResumeQueue("reports"),
            "queue_not_found",
        ),
        case(
            "POST",
            &of("reports", "/pause"),
            Call::PauseQueue("reports"),
            "ok",
        ),
        case("GET", "/v1/queues", Call::ListQueues, "ok"),
        case(
            "POST",
            &of("images", "/resume"),
            Call::ResumeQueue("images"),
            "ok",
        ),
        case(
            "POST",
            &of("No!", "/pause"),
            Call::PauseQueue("No!"),
            "invalid_parameter",
        ),
        case(
            "POST",
            &of("No!", "/resume"),
            Call::ResumeQueue("No!"),
            "invalid_parameter",
        ),
    ]
}

fn schedules() -> Vec<Case> {
    let get = |name: &'static str, expected| {
        case(
            "GET",
            &format!("/v1/schedules/{name}"),
            Call::GetSchedule(name, None),
            expected,
        )
    };
    let delete = |name: &'static str, expected| {
        case(
            "DELETE",
            &format!("/v1/schedules/{name}"),
            Call::DeleteSchedule(name),
            expected,
        )
    };
    let upcoming = |count: u32, expected| {
        let path = format!("/v1/schedules/full?upcoming={count}");
        case("GET", &path, Call::GetSchedule("full", Some(count)), expected)
    };
    let list = |page_size: i32, page_token: &'static str, expected| {
        let path = match (page_size, page_token) {
            (0, "") => "/v1/schedules".to_owned(),
            (0, token) => format!("/v1/schedules?page_token={token}"),
            (size, "") => format!("/v1/schedules?page_size={size}"),
            (size, token) => format!("/v1/schedules?page_size={size}&page_token={token}"),
        };
        case("GET", &path, Call::ListSchedules(page_size, page_token), expected)
    };
    let mut cases = vec![list(0, "", "ok"), get("least", "schedule_not_found")];
    cases.extend(puts());
    cases.extend([
        get("least", "ok"),
        upcoming(0, "ok"),
        upcoming(2, "ok"),
        upcoming(100, "ok"),
        upcoming(101, "invalid_parameter"),
        get("No!", "invalid_parameter"),
        list(0, "", "ok"),
        list(2, "", "ok"),
        // The token that follows `full`.
        list(1, "ZnVsbA", "ok"),
        list(201, "", "invalid_parameter"),
        list(0, "x", "invalid_page_token"),
        delete("least", "ok"),
        delete("least", "schedule_not_found"),
        delete("No!", "invalid_parameter"),
        get("least", "schedule_not_found"),
    ]);
    cases
}

fn puts() -> Vec<Case> {
    let large = format!("\"{}\"", "x".repeat(300_000));
    let full = v1::ScheduleSpec {
        cron: "*/30 8-17 * * mon-fri".into(),
        time_zone: "Europe/Berlin".into(),
        task: Some(v1::SubmitTaskRequest {
            kind: "report".into(),
            queue: "slow".into(),
            project: "shop".into(),
            priority: "low".into(),
            payload: r#"{"days":1}"#.into(),
            tags: vec!["a".into()],
            max_attempts: Some(2),
            timeout: seconds(5),
            heartbeat_timeout: seconds(6),
            retry: Some(v1::TaskRetry {
                base: seconds(7),
                ..Default::default()
            }),
            limit_key: "k".into(),
            notify: vec!["hook".into()],
            ..Default::default()
        }),
        overlap: v1::Overlap::Queue.into(),
        catch_up: seconds(3_600),
        jitter: seconds(30),
        paused: false,
    };
    let full_body = r#"{"cron":"*/30 8-17 * * mon-fri","time_zone":"Europe/Berlin","overlap":"queue",
        "catch_up_seconds":3600,"jitter_seconds":30,"paused":false,
        "task":{"kind":"report","queue":"slow","project":"shop","priority":"low","payload":{"days":1},"tags":["a"],
        "max_attempts":2,"timeout_seconds":5,"heartbeat_timeout_seconds":6,"retry":{"base_seconds":7},
        "limit_key":"k","notify":["hook"]}}"#;
    let paused = v1::ScheduleSpec {
        paused: true,
        overlap: v1::Overlap::Allow.into(),
        ..report()
    };
    let wrong = v1::ScheduleSpec {
        cron: "nonsense".into(),
        time_zone: "Mars/Olympus".into(),
        task: Some(v1::SubmitTaskRequest {
            kind: "A B".into(),
            queue: "a.b".into(),
            idempotency_key: "k".into(),
            max_attempts: Some(0),
            when: Some(v1::submit_task_request::When::Delay(prost_types::Duration {
                seconds: 5,
                nanos: 0,
            })),
            unique: Some(v1::Unique::default()),
            after: vec![UNKNOWN.into()],
            ..Default::default()
        }),
        overlap: 9,
        catch_up: seconds(0),
        jitter: seconds(-1),
        paused: false,
    };
    let wrong_body = r#"{"cron":"nonsense","time_zone":"Mars/Olympus","overlap":"never","catch_up_seconds":0,
        "jitter_seconds":-1,"task":{"kind":"A B","queue":"a.b","idempotency_key":"k","max_attempts":0,
        "delay_seconds":5,"unique":{},"after":["01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d"]}}"#;
    let mut heavy = report();
    heavy.task.as_mut().unwrap().payload = large.clone().into();
    let heavy_body = format!(r#"{{"cron":"0 3 * * *","task":{{"kind":"report","payload":{large}}}}}"#);
    vec![
        put("least", REPORT, Some(report()), "ok"),
        // The same again changes nothing.
        put("least", REPORT, Some(report()), "ok"),
        put("full", full_body, Some(full), "ok"),
        put(
            "paused",
            r#"{"cron":"0 3 * * *","overlap":"allow","paused":true,"task":{"kind":"report"}}"#,
            Some(paused),
            "ok",
        ),
        put("wrong", wrong_body, Some(wrong), "invalid_request"),
        put("wrong", "{}", None, "invalid_request"),
        put("wrong", &heavy_body, Some(heavy), "payload_too_large"),
        put("No!", REPORT, Some(report()), "invalid_parameter"),
    ]
}

/// Two doors in front of the same things, one for each language.
struct Pair {
    http: Door,
    grpc: Door,
    channel: Channel,
}

impl Pair {
    async fn new(bounds: Bounds) -> Self {
        let (http, grpc) = (Door::bounded(bounds.clone()), Door::bounded(bounds));
        let (channel, _server) = served(&grpc).await;
        Self { http, grpc, channel }
    }

    async fn with_tasks(bounds: Bounds) -> Self {
        let pair = Self::new(bounds).await;
        for door in [&pair.http, &pair.grpc] {
            for body in [
                r#"{"kind":"a","queue":"images"}"#,
                r#"{"kind":"a","queue":"images","priority":"low"}"#,
                r#"{"kind":"a","queue":"images","delay_seconds":9}"#,
                r#"{"kind":"a","queue":"mail"}"#,
            ] {
                assert_eq!(door.post_json("/v1/tasks", body).await.status, 202);
            }
            let webhook = r#"{"url":"https://example.com/hook"}"#;
            let headers = [("content-type", "application/json")];
            let put = door.call(request("PUT", "/v1/webhooks/hook", &headers, webhook));
            assert_eq!(put.await.status, 201);
        }
        pair
    }

    fn set(&self, broker: Mood, store: Mood) {
        for door in [&self.http, &self.grpc] {
            let mut inner = door.fake.lock();
            (inner.broker, inner.store) = (broker, store);
        }
    }

    async fn answers(&self, case: &Case) -> (Outcome, Outcome) {
        let http = over_http(&self.http, &case.http).await;
        (http, over_grpc(&self.channel, &case.grpc).await)
    }
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_over_both_doors() {
    let fresh = Bounds {
        fresh: Bounds::default().fresh,
        ..quick()
    };
    for cases in [tasks(), queues(), schedules()] {
        let pair = Pair::with_tasks(fresh.clone()).await;
        for (number, case) in cases.iter().enumerate() {
            let (method, path, body) = &case.http;
            let shown = format!(
                "{number}: {method} {path} {}",
                body.chars().take(80).collect::<String>()
            );
            let (http, grpc) = pair.answers(case).await;
            assert_eq!(http.code(), case.expected, "{shown}: {http:?}");
            assert_eq!(grpc, http, "{shown}");
        }
    }
}

#[tokio::test]
async fn all_that_is_wrong_with_a_schedule_is_told_at_once() {
    let pair = Pair::new(quick()).await;
    let wrong = puts().remove(4);
    let (Outcome::Refused { fields, .. }, _) = pair.answers(&wrong).await else {
        panic!("it was accepted")
    };
    assert_eq!(
        fields,
        [
            "catch_up",
            "cron",
            "jitter",
            "overlap",
            "task.after",
            "task.delay",
            "task.idempotency_key",
            "task.kind",
            "task.max_attempts",
            "task.queue",
            "task.unique",
            "time_zone"
        ]
    );
}

#[tokio::test]
async fn a_fault_behind_the_doors_shows_in_the_same_way_at_both() {
    let store_away = |case: &Case| match case.http.1.as_str() {
        path if path.starts_with("/v1/schedules") => "store_unavailable",
        "/v1/queues" | "/v1/queues/images" | "/v1/queues/images/pause" => "store_unavailable",
        "/v1/queues/images/autoscale" => "store_unavailable",
        other => panic!("{other}"),
    };
    let broker_away = |case: &Case| match case.http.1.as_str() {
        "/v1/queues/images/autoscale" => "broker_unavailable",
        _ => "ok",
    };
    let cases = || {
        vec![
            case(
                "GET",
                "/v1/queues/images/autoscale",
                Call::GetAutoscale("images"),
                "",
            ),
            case("POST", "/v1/queues/images/pause", Call::PauseQueue("images"), ""),
            case("GET", "/v1/queues", Call::ListQueues, ""),
            case("GET", "/v1/queues/images", Call::GetQueue("images"), ""),
            put("nightly", REPORT, Some(report()), ""),
            case(
                "GET",
                "/v1/schedules/nightly",
                Call::GetSchedule("nightly", None),
                "",
            ),
            case("GET", "/v1/schedules", Call::ListSchedules(0, ""), ""),
            case(
                "DELETE",
                "/v1/schedules/nightly",
                Call::DeleteSchedule("nightly"),
                "",
            ),
        ]
    };
    for (broker, store) in [
        (Mood::Down, Mood::Up),
        (Mood::Hangs, Mood::Up),
        (Mood::Up, Mood::Down),
        (Mood::Up, Mood::Hangs),
    ] {
        let pair = Pair::with_tasks(quick()).await;
        pair.set(broker, store);
        for case in cases() {
            let (http, grpc) = pair.answers(&case).await;
            let expected = match store {
                Mood::Up => broker_away(&case),
                _ => store_away(&case),
            };
            let shown = format!("{} {} {broker:?} {store:?}", case.http.0, case.http.1);
            assert_eq!(
                (http.code(), grpc.code()),
                (expected, expected),
                "{shown}: {http:?}"
            );
        }
    }
    let full = Pair::new(Bounds {
        reads: 0,
        changes: 0,
        ..quick()
    })
    .await;
    for case in cases() {
        let (http, grpc) = full.answers(&case).await;
        assert_eq!(
            (http.code(), grpc.code()),
            ("overloaded", "overloaded"),
            "{}",
            case.http.1
        );
    }
}
