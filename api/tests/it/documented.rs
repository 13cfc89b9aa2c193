//! Nothing is left out: every endpoint and every rpc has its example in docs/, and refuses something here, in the way that the
//! description says.

use std::collections::BTreeSet;

use axum::body::Body;
use forebay_api::OPENAPI;
use forebay_proto::{DESCRIPTORS, v1};
use prost::Message;
use prost_types::FileDescriptorSet;
use serde_json::Value;

use crate::{
    door::{Door, request},
    grpc::code_of,
    grpc_stranger::{Sent, Stranger, framed, serve},
};

const HTTP_PAGE: &str = include_str!("../../../docs/http.md");
const GRPC_PAGE: &str = include_str!("../../../docs/grpc.md");
const UNKNOWN: &str = "01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d";

/// The parts of a page that begin with a heading of the third rank, with that heading.
fn sections(page: &str) -> Vec<(&str, &str)> {
    let parts = page.split("\n### ").skip(1);
    parts
        .map(|part| {
            let own = part.split("\n## ").next().unwrap_or_default();
            own.split_once('\n').unwrap_or((own, ""))
        })
        .collect()
}

/// The blocks of code in one language.
fn blocks<'a>(section: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("\n```{language}\n");
    let found = section.split(begin.as_str()).skip(1);
    found
        .map(|block| block.split("\n```").next().unwrap_or_default())
        .collect()
}

/// `METHOD /path/{name}` of all endpoints.
fn endpoints() -> BTreeSet<String> {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let named = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    named.collect()
}

/// `Service/Method` of all rpcs.
fn rpcs() -> BTreeSet<String> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let ours = files.into_iter().filter(|file| file.package() == "forebay.v1");
    let services = ours.flat_map(|file| file.service);
    let named = services.flat_map(|service| {
        let name = service.name().to_owned();
        let methods = service.method.into_iter();
        methods.map(move |method| format!("{name}/{}", method.name()))
    });
    named.collect()
}

/// Whether a command of curl calls an endpoint.
fn calls(command: &str, endpoint: &str) -> bool {
    let (method, path) = endpoint.split_once(' ').unwrap();
    let Some((_, called)) = command.split_once("http://127.0.0.1:8080") else {
        return false;
    };
    let called = called
        .split(|end: char| end.is_whitespace() || "?'".contains(end))
        .next();
    let called: Vec<&str> = called.unwrap_or_default().split('/').collect();
    let wanted: Vec<&str> = path.split('/').collect();
    let fits = |(wanted, called): (&&str, &&str)| {
        wanted == called || (wanted.starts_with('{') && !called.is_empty())
    };
    let is_path = wanted.len() == called.len() && wanted.iter().zip(&called).all(fits);
    let has_body = command.contains(" -d ") || command.contains("--data-binary");
    let said = command.split_once("-X ").map(|(_, rest)| rest.split(' ').next());
    is_path && said.flatten().unwrap_or(if has_body { "POST" } else { "GET" }) == method
}

#[test]
fn every_endpoint_has_an_example() {
    let sections = sections(HTTP_PAGE);
    let shown: BTreeSet<String> = sections.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        shown,
        endpoints(),
        "left: docs/http.md, right: the OpenAPI document"
    );
    for (endpoint, text) in sections {
        let examples = blocks(text, "sh");
        assert!(
            examples.iter().any(|command| calls(command, endpoint)),
            "docs/http.md has no example of {endpoint}: {examples:?}"
        );
    }
}

#[test]
fn every_rpc_has_an_example() {
    let sections = sections(GRPC_PAGE);
    let shown: BTreeSet<String> = sections.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(shown, rpcs(), "left: docs/grpc.md, right: the .proto files");
    for (rpc, text) in sections {
        let examples = blocks(text, "console");
        let call = format!("127.0.0.1:50051 forebay.v1.{rpc}");
        assert!(
            examples.iter().any(|command| command.contains(&call)),
            "docs/grpc.md has no example of {rpc}"
        );
    }
}

/// Something that an endpoint refuses.
struct Refusal {
    endpoint: &'static str,
    method: &'static str,
    path: String,
    body: &'static str,
    code: &'static str,
}

/// A request with what is in the path filled in, and perhaps a query.
fn refused(endpoint: &'static str, filled: &str, body: &'static str, code: &'static str) -> Refusal {
    let (method, path) = endpoint.split_once(' ').unwrap();
    let (name, query) = filled.split_once('?').unwrap_or((filled, ""));
    let mut path: String = match (path.find('{'), path.find('}')) {
        (Some(begin), Some(end)) => format!("{}{name}{}", &path[..begin], &path[end + 1..]),
        _ => path.to_owned(),
    };
    if !query.is_empty() {
        path = format!("{path}?{query}");
    }
    Refusal {
        endpoint,
        method,
        path,
        body,
        code,
    }
}

/// What refuses nothing but a method that it does not have.
fn only_read(endpoint: &'static str) -> Refusal {
    let refusal = refused(endpoint, "internal", "", "method_not_allowed");
    Refusal {
        method: "POST",
        ..refusal
    }
}

fn refusals() -> Vec<Refusal> {
    let mut all = tasks_refused();
    all.extend(batches_refused());
    all.extend(others_refused());
    all
}

fn tasks_refused() -> Vec<Refusal> {
    vec![
        refused("POST /v1/tasks", "", r#"{"kind":"No"}"#, "invalid_request"),
        refused("POST /v1/tasks", "", r#"{"kin":"echo"}"#, "invalid_body"),
        refused("POST /v1/tasks/batch", "", "[1", "malformed_json"),
        refused("GET /v1/tasks", "?state=sleeping", "", "invalid_parameter"),
        refused("GET /v1/tasks", "?page_token=x", "", "invalid_page_token"),
        refused("GET /v1/tasks/{id}", "x", "", "invalid_parameter"),
        refused("GET /v1/tasks/{id}", UNKNOWN, "", "task_not_found"),
        refused("POST /v1/tasks/{id}/cancel", UNKNOWN, "", "task_not_found"),
        refused("POST /v1/tasks/{id}/retry", UNKNOWN, "", "task_not_found"),
        refused("GET /v1/tasks/{id}/explain", UNKNOWN, "", "task_not_found"),
        refused("GET /v1/tasks/{id}/events", UNKNOWN, "", "task_not_found"),
        refused("GET /v1/events", "?state=sleeping", "", "invalid_parameter"),
    ]
}

fn batches_refused() -> Vec<Refusal> {
    vec![
        refused(
            "POST /v1/batches",
            "",
            r#"{"tasks":[{"kind":"No"}]}"#,
            "invalid_request",
        ),
        refused("POST /v1/batches", "", r#"{"task":[]}"#, "invalid_body"),
        refused("GET /v1/batches", "?page_token=x", "", "invalid_page_token"),
        refused("GET /v1/batches/{id}", "x", "", "invalid_parameter"),
        refused("GET /v1/batches/{id}", UNKNOWN, "", "batch_not_found"),
        refused(
            "POST /v1/batches/{id}/tasks",
            UNKNOWN,
            r#"{"tasks":[]}"#,
            "invalid_parameter",
        ),
        refused("GET /v1/batches/{id}/tasks", UNKNOWN, "", "batch_not_found"),
        refused("POST /v1/batches/{id}/close", UNKNOWN, "", "batch_not_found"),
        refused("POST /v1/batches/{id}/cancel", UNKNOWN, "", "batch_not_found"),
    ]
}

fn others_refused() -> Vec<Refusal> {
    vec![
        refused("GET /v1/queues", "?page=2", "", "invalid_parameter"),
        refused("GET /v1/queues/{queue}", "none", "", "queue_not_found"),
        refused("GET /v1/queues/{queue}/autoscale", "No!", "", "invalid_parameter"),
        refused("POST /v1/queues/{queue}/pause", "No!", "", "invalid_parameter"),
        refused("POST /v1/queues/{queue}/resume", "none", "", "queue_not_found"),
        refused("GET /v1/schedules", "?page_size=0", "", "invalid_parameter"),
        refused("GET /v1/schedules/{name}", "none", "", "schedule_not_found"),
        refused("PUT /v1/schedules/{name}", "nightly", "{}", "invalid_request"),
        refused(
            "POST /v1/schedules/{name}/pause",
            "none",
            "",
            "schedule_not_found",
        ),
        refused(
            "POST /v1/schedules/{name}/resume",
            "none",
            "",
            "schedule_not_found",
        ),
        refused("DELETE /v1/schedules/{name}", "none", "", "schedule_not_found"),
        refused("GET /v1/kinds", "?page_size=0", "", "invalid_parameter"),
        refused("GET /v1/kinds/{kind}/schema", "none", "", "schema_not_found"),
        refused("PUT /v1/kinds/{kind}/schema", "mail", "{}", "invalid_request"),
        refused("DELETE /v1/kinds/{kind}/schema", "none", "", "schema_not_found"),
        refused("GET /v1/limits", "?page_size=0", "", "invalid_parameter"),
        refused("GET /v1/limits/{name}", "none", "", "limit_not_found"),
        refused("PUT /v1/limits/{name}", "mail", "{}", "invalid_request"),
        refused("DELETE /v1/limits/{name}", "none", "", "limit_not_found"),
        refused("GET /v1/webhooks", "?page_size=0", "", "invalid_parameter"),
        refused("GET /v1/webhooks/{name}", "none", "", "webhook_not_found"),
        refused("PUT /v1/webhooks/{name}", "billing", "{}", "invalid_request"),
        refused("DELETE /v1/webhooks/{name}", "none", "", "webhook_not_found"),
        refused("POST /v1/webhooks/{name}/test", "none", "", "webhook_not_found"),
        refused(
            "GET /v1/webhooks/{name}/deliveries",
            "none",
            "",
            "webhook_not_found",
        ),
        refused(
            "POST /v1/webhooks/{name}/replay",
            "billing",
            "{}",
            "invalid_request",
        ),
        refused(
            "POST /v1/operations",
            "",
            r#"{"action":"retry","filter":{}}"#,
            "invalid_request",
        ),
        refused("GET /v1/operations", "?page_size=0", "", "invalid_parameter"),
        refused(
            "GET /v1/operations/{operation}",
            UNKNOWN,
            "",
            "operation_not_found",
        ),
        refused(
            "POST /v1/operations/{operation}/abort",
            UNKNOWN,
            "",
            "operation_not_found",
        ),
        refused("GET /v1/workers", "?page=2", "", "invalid_parameter"),
        refused("GET /v1/rejects", "?limit=0", "", "invalid_parameter"),
        refused("GET /docs/errors/{code}", "none", "", "unknown_path"),
        only_read("GET /openapi.json"),
        only_read("GET /docs"),
        only_read("GET /health/live"),
        only_read("GET /health/ready"),
    ]
}

#[tokio::test]
async fn every_endpoint_refuses_as_it_is_described() {
    let door = Door::new();
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let refusals = refusals();
    let tried: BTreeSet<String> = refusals
        .iter()
        .map(|refusal| refusal.endpoint.to_owned())
        .collect();
    assert_eq!(
        tried,
        endpoints(),
        "left: refused here, right: the OpenAPI document"
    );
    for refusal in refusals {
        let Refusal {
            endpoint,
            method,
            path,
            body,
            code,
        } = refusal;
        let headers = [("content-type", "application/json")];
        let answer = door
            .call(request(method, &path, &headers, Body::from(body)))
            .await;
        assert_eq!(answer.code(), code, "{endpoint}: {answer:?}");
        let (own_method, own_path) = endpoint.split_once(' ').unwrap();
        let described = &document["paths"][own_path][own_method.to_lowercase()]["responses"];
        let status = answer.status.as_str();
        assert!(
            method != own_method || described.get(status).is_some(),
            "{endpoint} does not describe {status}"
        );
    }
}

fn rpcs_refused() -> Vec<(&'static str, Sent, &'static str)> {
    let id = || UNKNOWN.to_owned();
    let name = || "none".to_owned();
    // No message at all begins with this byte.
    let nonsense = || Sent::bytes(framed(&[0x0f]));
    let submission = v1::SubmitTaskRequest::default();
    let page = v1::ListTasksRequest {
        page_size: 201,
        ..Default::default()
    };
    let watched = v1::WatchTaskRequest {
        id: id(),
        ..Default::default()
    };
    let schedule = v1::PutScheduleRequest {
        name: "No!".into(),
        spec: None,
    };
    let schedules = v1::ListSchedulesRequest {
        page_size: -1,
        ..Default::default()
    };
    let upcoming = v1::GetScheduleRequest {
        name: name(),
        upcoming: Some(101),
    };
    vec![
        (
            "TaskService/SubmitTask",
            Sent::message(&submission),
            "invalid_request",
        ),
        ("TaskService/SubmitTasks", nonsense(), "invalid_body"),
        (
            "TaskService/GetTask",
            Sent::message(&v1::GetTaskRequest { id: id() }),
            "task_not_found",
        ),
        (
            "TaskService/ExplainTask",
            Sent::message(&v1::ExplainTaskRequest { id: id() }),
            "task_not_found",
        ),
        (
            "TaskService/CancelTask",
            Sent::message(&v1::CancelTaskRequest { id: id() }),
            "task_not_found",
        ),
        (
            "TaskService/RetryTask",
            Sent::message(&v1::RetryTaskRequest { id: id() }),
            "task_not_found",
        ),
        ("TaskService/ListTasks", Sent::message(&page), "invalid_parameter"),
        ("TaskService/WatchTask", Sent::message(&watched), "task_not_found"),
        ("QueueService/ListQueues", nonsense(), "invalid_body"),
        (
            "QueueService/GetQueue",
            Sent::message(&v1::GetQueueRequest { name: name() }),
            "queue_not_found",
        ),
        (
            "QueueService/PauseQueue",
            Sent::message(&v1::PauseQueueRequest { name: "No!".into() }),
            "invalid_parameter",
        ),
        (
            "QueueService/ResumeQueue",
            Sent::message(&v1::ResumeQueueRequest { name: name() }),
            "queue_not_found",
        ),
        (
            "QueueService/GetAutoscale",
            Sent::message(&v1::GetAutoscaleRequest { name: "No!".into() }),
            "invalid_parameter",
        ),
        (
            "ScheduleService/PutSchedule",
            Sent::message(&schedule),
            "invalid_parameter",
        ),
        (
            "ScheduleService/GetSchedule",
            Sent::message(&upcoming),
            "invalid_parameter",
        ),
        (
            "ScheduleService/ListSchedules",
            Sent::message(&schedules),
            "invalid_parameter",
        ),
        (
            "ScheduleService/PauseSchedule",
            Sent::message(&v1::PauseScheduleRequest { name: "No!".into() }),
            "invalid_parameter",
        ),
        (
            "ScheduleService/ResumeSchedule",
            Sent::message(&v1::ResumeScheduleRequest { name: name() }),
            "schedule_not_found",
        ),
        (
            "ScheduleService/DeleteSchedule",
            Sent::message(&v1::DeleteScheduleRequest { name: name() }),
            "schedule_not_found",
        ),
        (
            "LimitService/PutLimit",
            Sent::message(&v1::PutLimitRequest {
                name: "No!".into(),
                spec: None,
            }),
            "invalid_parameter",
        ),
        (
            "LimitService/GetLimit",
            Sent::message(&v1::GetLimitRequest { name: name() }),
            "limit_not_found",
        ),
        (
            "LimitService/ListLimits",
            Sent::message(&v1::ListLimitsRequest {
                page_size: -1,
                ..Default::default()
            }),
            "invalid_parameter",
        ),
        (
            "LimitService/DeleteLimit",
            Sent::message(&v1::DeleteLimitRequest { name: name() }),
            "limit_not_found",
        ),
        // A server that takes no workers. What else is refused there is tested where streams are (worker/tests).
        (
            "WorkerService/Work",
            Sent::message(&v1::WorkRequest::default()),
            "unknown_path",
        ),
    ]
}

#[tokio::test]
async fn every_rpc_refuses() {
    let door = Door::new();
    let (address, _server) = serve(&door).await;
    let client = Stranger::connect(&address).await;
    let refusals = rpcs_refused();
    let tried: BTreeSet<String> = refusals.iter().map(|(rpc, ..)| (*rpc).to_owned()).collect();
    assert_eq!(tried, rpcs(), "left: refused here, right: the .proto files");
    for (rpc, sent, code) in refusals {
        let path = format!("/forebay.v1.{rpc}");
        let answered = client.call(&path, &[("grpc-timeout", "10S")], sent).await;
        assert_eq!(code_of(&answered.status), code, "{rpc}: {answered:?}");
    }
}
