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
    // What the tick gives is known, so that it can be refused in words.
    for given in ["run_at", "delay_seconds", "idempotency_key"] {
        assert!(taken.remove(given), "{given}");
    }
    assert_eq!(taken, members("NewScheduledTask"));
}

#[tokio::test]
async fn every_described_path_answers() {
    let door = Door::new();
    let id = door.submit().await.id().to_string();
    for (method, path, _) in operations(&document()) {
        if path == "/v1/events" || path.ends_with("/events") {
            continue;
        }
        // There again, where it was deleted.
        put_example(&door).await;
        let concrete = path
            .replace("{id}", &id)
            .replace("{queue}", "default")
            .replace("{name}", "example")
            .replace("{code}", "internal");
        let answer = door
            .call(request(&method.to_uppercase(), &concrete, &[], Body::empty()))
            .await;
        let absent = matches!(answer.status.as_u16(), 404 | 405) || answer.status.is_server_error();
        assert!(!absent, "{method} {path}: {answer:?}");
    }
}
