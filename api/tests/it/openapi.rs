//! The description against the doors.

use std::collections::BTreeSet;

use axum::body::Body;
use forebay_api::{OPENAPI, error::Code, routes};
use serde_json::Value;

use crate::door::{Answer, Door, request};

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push((method.clone(), path.clone(), operation.clone()));
        }
    }
    all
}

#[test]
fn has_every_route_and_no_other() {
    let document = document();
    let described: BTreeSet<(String, String)> = operations(&document)
        .into_iter()
        .map(|(method, path, _)| (method, path))
        .collect();
    let served: BTreeSet<(String, String)> = routes()
        .into_iter()
        .map(|(method, path)| (method.to_owned(), path.to_owned()))
        .collect();
    assert_eq!(described, served);
}

#[tokio::test]
async fn is_served_as_it_is_kept() {
    let answer = Door::new().get("/openapi.json").await;
    assert_eq!(
        (answer.header("content-type"), answer.text.as_str()),
        ("application/json", OPENAPI)
    );
    assert_eq!(document()["openapi"], "3.1.0");
}

#[test]
fn every_reference_leads_somewhere() {
    fn visit(document: &Value, at: &Value) {
        match at {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let pointer = reference
                        .strip_prefix('#')
                        .expect("a reference within the document");
                    assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                }
                members.values().for_each(|value| visit(document, value));
            }
            Value::Array(items) => items.iter().for_each(|value| visit(document, value)),
            _ => {}
        }
    }
    let document = document();
    visit(&document, &document);
}

#[test]
fn knows_every_code_and_names_each_operation_once() {
    let document = document();
    let codes: Vec<&str> = document
        .pointer("/components/schemas/Problem/properties/code/enum")
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|code| code.as_str().unwrap())
        .collect();
    let table: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(codes, table);
    let names: Vec<String> = operations(&document)
        .iter()
        .map(|(.., operation)| operation["operationId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    for (method, path, operation) in operations(&document) {
        let answers = operation["responses"].as_object().unwrap();
        assert!(
            answers.contains_key("default") && answers.contains_key("500"),
            "{method} {path}"
        );
        assert!(
            operation["summary"].is_string() && operation["description"].is_string(),
            "{method} {path}"
        );
        let in_path: Vec<&str> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        for name in in_path {
            let found = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|parameter| {
                    let parameter = parameter["$ref"]
                        .as_str()
                        .map_or(parameter, |reference| document.pointer(&reference[1..]).unwrap());
                    parameter["name"] == name && parameter["required"] == true
                });
            assert!(found, "{path} does not describe {name}");
        }
    }
}

/// What a task shows and what a submission takes must be what the description says.
#[tokio::test]
async fn has_the_members_of_a_task_and_of_a_submission() {
    let door = Door::new();
    let document = document();
    let members = |schema: &str| -> BTreeSet<String> {
        let at = format!("/components/schemas/{schema}/properties");
        document
            .pointer(&at)
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    };
    let task = door.submit().await.json();
    let shown: BTreeSet<String> = task.as_object().unwrap().keys().cloned().collect();
    assert_eq!(shown, members("Task"));
    let required = document
        .pointer("/components/schemas/Task/required")
        .unwrap()
        .as_array()
        .unwrap()
        .len();
    assert_eq!(required, shown.len());
    let unknown = door.post_json("/v1/tasks", r#"{"unknown":1}"#).await.json();
    let detail = unknown["errors"][0]["detail"].as_str().unwrap();
    let taken: BTreeSet<String> = detail.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert_eq!(taken, members("BatchTask"), "{detail}");
    let mut single = members("NewTask");
    single.insert("idempotency_key".to_owned());
    assert_eq!(taken, single);
    let example = document
        .pointer("/components/schemas/NewTask/example")
        .unwrap()
        .to_string();
    assert_eq!(door.post_json("/v1/tasks", example).await.status, 202);
}

/// The example of a schema.
fn example(schema: &str) -> String {
    let at = format!("/components/schemas/{schema}/example");
    document().pointer(&at).unwrap().to_string()
}

/// The same for an operation and an explanation.
#[tokio::test]
async fn has_the_members_of_an_operation_and_of_an_explanation() {
    let door = Door::new();
    let document = document();
    let members = |schema: &str| -> BTreeSet<String> {
        let schema = document
            .pointer(&format!("/components/schemas/{schema}"))
            .unwrap();
        let members = schema["properties"].as_object().unwrap();
        let members: BTreeSet<String> = members.keys().cloned().collect();
        if let Some(required) = schema["required"].as_array().filter(|all| all.len() > 2) {
            assert_eq!(required.len(), members.len());
        }
        members
    };
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let begun = door.post_json("/v1/operations", example("NewOperation")).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let shown = begun.json();
    assert_eq!(keys(&shown), members("Operation"));
    assert_eq!(keys(&shown["filter"]), members("OperationFilter"));
    assert_eq!(keys(&shown["progress"]), members("OperationProgress"));
    let list = door.get("/v1/operations").await.json();
    assert_eq!(keys(&list), members("OperationList"));
    let counted = r#"{"action":"retry","filter":{"state":"failed"},"dry_run":true}"#;
    let counted = door.post_json("/v1/operations", counted).await.json();
    assert_eq!(keys(&counted), members("OperationCount"));
    let taken = async |body: &'static str| -> BTreeSet<String> {
        let refused = door.post_json("/v1/operations", body).await.json();
        let detail = refused["errors"][0]["detail"].as_str().unwrap();
        detail.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    };
    assert_eq!(taken(r#"{"unknown":1}"#).await, members("NewOperation"));
    assert_eq!(
        taken(r#"{"filter":{"unknown":1}}"#).await,
        members("NewOperationFilter")
    );
    let id = door.submit().await.id();
    let explained = door.get(&format!("/v1/tasks/{id}/explain")).await.json();
    assert_eq!(keys(&explained), members("TaskExplanation"));
}

/// Puts the schedule that the description has as an example.
async fn put_example(door: &Door) -> Answer {
    let example = document()
        .pointer("/components/schemas/NewSchedule/example")
        .unwrap()
        .to_string();
    let headers = [("content-type", "application/json")];
    let put = door.call(request("PUT", "/v1/schedules/example", &headers, example));
    let answer = put.await;
    assert!(answer.status.is_success(), "{answer:?}");
    answer
}

/// Puts the limit that the description has as an example.
async fn put_limit_example(door: &Door) -> Answer {
    let example = document()
        .pointer("/components/schemas/NewLimit/example")
        .unwrap()
        .to_string();
    let headers = [("content-type", "application/json")];
    let put = door.call(request("PUT", "/v1/limits/example", &headers, example));
    let answer = put.await;
    assert!(answer.status.is_success(), "{answer:?}");
    answer
}

/// And for a limit.
#[tokio::test]
async fn has_the_members_of_a_limit() {
    let door = Door::new();
    let document = document();
    let members = |at: &str| -> BTreeSet<String> {
        let schema = document.pointer(&format!("/components/schemas/{at}")).unwrap();
        schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    };
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let limit = put_limit_example(&door).await.json();
    assert_eq!(keys(&limit), members("Limit"));
    assert_eq!(keys(&limit["rate"]), members("Rate"));
    let unknown = async |body: &'static str| -> BTreeSet<String> {
        let headers = [("content-type", "application/json")];
        let put = door.call(request("PUT", "/v1/limits/x", &headers, body));
        let refused = put.await.json();
        let detail = refused["errors"][0]["detail"].as_str().unwrap();
        detail.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    };
    assert_eq!(unknown(r#"{"unknown":1}"#).await, members("NewLimit"));
    assert_eq!(unknown(r#"{"rate":{"unknown":1}}"#).await, members("NewRate"));
}

/// The same for a schedule.
#[tokio::test]
async fn has_the_members_of_a_schedule() {
    let door = Door::new();
    let document = document();
    let members = |at: &str| -> BTreeSet<String> {
        let schema = document.pointer(&format!("/components/schemas/{at}")).unwrap();
        let members = schema["properties"].as_object().unwrap();
        members.keys().cloned().collect()
    };
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let schedule = put_example(&door).await.json();
    assert_eq!(keys(&schedule), members("Schedule"));
    assert_eq!(keys(&schedule["task"]), members("ScheduledTask"));
    for schema in ["Schedule", "ScheduledTask"] {
        let required = document
            .pointer(&format!("/components/schemas/{schema}/required"))
            .unwrap();
        assert_eq!(
            required.as_array().unwrap().len(),
            members(schema).len(),
            "{schema}"
        );
    }
    let unknown = async |body: &'static str| -> BTreeSet<String> {
        let headers = [("content-type", "application/json")];
        let put = door.call(request("PUT", "/v1/schedules/x", &headers, body));
        let refused = put.await.json();
        let detail = refused["errors"][0]["detail"].as_str().unwrap();
        detail.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    };
    assert_eq!(unknown(r#"{"unknown":1}"#).await, members("NewSchedule"));
    let mut taken = unknown(r#"{"task":{"unknown":1}}"#).await;
    // What the tick gives is known, so that it can be refused in words; and what is for a single task only.
    for given in [
        "run_at",
        "delay_seconds",
        "idempotency_key",
        "expires_at",
        "schedule_to_start_timeout_seconds",
        "unique",
        "after",
        "on_dependency_failure",
    ] {
        assert!(taken.remove(given), "{given}");
    }
    assert_eq!(taken, members("NewScheduledTask"));
}

/// Puts the schema that the description has as an example.
async fn put_schema_example(door: &Door) -> Answer {
    let headers = [("content-type", "application/json")];
    let put = door.call(request(
        "PUT",
        "/v1/kinds/example/schema",
        &headers,
        example("NewKindSchema"),
    ));
    let answer = put.await;
    assert!(answer.status.is_success(), "{answer:?}");
    answer
}

/// And for a schema.
#[tokio::test]
async fn has_the_members_of_a_schema() {
    let door = Door::new();
    let document = document();
    let members = |at: &str| -> BTreeSet<String> {
        let schema = document.pointer(&format!("/components/schemas/{at}")).unwrap();
        let required = schema["required"].as_array().unwrap().iter();
        let required: BTreeSet<&str> = required.map(|name| name.as_str().unwrap()).collect();
        let members: BTreeSet<String> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert!(
            at.starts_with("New") || members.iter().eq(required.iter()),
            "{at}"
        );
        members
    };
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(
        keys(&put_schema_example(&door).await.json()),
        members("KindSchema")
    );
    let listed = door.get("/v1/kinds").await.json();
    assert_eq!(
        (keys(&listed), keys(&listed["kinds"][0])),
        (members("KindList"), members("KindWithSchema"))
    );
    let headers = [("content-type", "application/json")];
    let refused = door
        .call(request("PUT", "/v1/kinds/x/schema", &headers, r#"{"unknown":1}"#))
        .await
        .json();
    let detail = refused["errors"][0]["detail"].as_str().unwrap();
    let taken: BTreeSet<String> = detail.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert_eq!(taken, members("NewKindSchema"));
}

async fn put_webhook_example(door: &Door) {
    let headers = [("content-type", "application/json")];
    let body = example("NewWebhook");
    let put = request("PUT", "/v1/webhooks/example", &headers, body);
    assert!(door.call(put).await.status.is_success());
}

#[tokio::test]
async fn every_described_path_answers() {
    let door = Door::new();
    let id = door.submit().await.id().to_string();
    let begun = door.post_json("/v1/operations", example("NewOperation")).await;
    let operation = begun.id().to_string();
    let opened = door.post_json("/v1/batches", r#"{"open":true}"#).await;
    let batch = opened.id().to_string();
    for (method, path, _) in operations(&document()) {
        let id = if path.starts_with("/v1/batches") {
            &batch
        } else {
            &id
        };
        if path == "/v1/events" || path.ends_with("/events") {
            continue;
        }
        // There again, where it was deleted.
        put_example(&door).await;
        put_limit_example(&door).await;
        put_schema_example(&door).await;
        put_webhook_example(&door).await;
        let concrete = path
            .replace("{operation}", &operation)
            .replace("{id}", id)
            .replace("{queue}", "default")
            .replace("{name}", "example")
            .replace("{kind}", "example")
            .replace("{code}", "internal");
        let answer = door
            .call(request(&method.to_uppercase(), &concrete, &[], Body::empty()))
            .await;
        let absent = matches!(answer.status.as_u16(), 404 | 405) || answer.status.is_server_error();
        assert!(!absent, "{method} {path}: {answer:?}");
    }
}
