//! Schemas of kinds: what is put, and what is held against it.

use std::time::Duration;

use forebay_api::{Bounds, background};
use forebay_proto::v1::{self, task_service_client::TaskServiceClient};
use serde_json::{Value, json};

use crate::{
    door::{Answer, Door, eventually, quick, request},
    fake::Mood,
    grpc::{code_of, fields_of, served},
};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const THUMBNAIL: &str = r#"{"schema":{"type":"object","required":["image"],
    "properties":{"image":{"type":"string"},"wait_seconds":{"type":"number"},"sizes":{"items":{"minimum":1}}}}}"#;

async fn put(door: &Door, kind: &str, body: &str) -> Answer {
    door.call(request(
        "PUT",
        &format!("/v1/kinds/{kind}/schema"),
        &JSON,
        body.to_owned(),
    ))
    .await
}

async fn submit(door: &Door, payload: &str) -> Answer {
    door.post_json(
        "/v1/tasks",
        format!(r#"{{"kind":"thumbnail","payload":{payload}}}"#),
    )
    .await
}

fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().unwrap().iter();
    let mut pointers: Vec<&str> = errors.map(|error| error["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    pointers
}

#[tokio::test]
async fn each_put_is_a_version_and_the_same_again_is_none() {
    let door = Door::new();
    let first = put(&door, "thumbnail", r#"{"schema": {"type": "object", "x": 1.0} }"#).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert!(
        first.text.contains(r#""schema":{"type": "object", "x": 1.0}"#),
        "as it came: {}",
        first.text
    );
    assert_eq!(
        (
            &first.json()["version"],
            &first.json()["mode"],
            &first.json()["kind"]
        ),
        (&json!(1), &json!("enforce"), &json!("thumbnail"))
    );
    let again = put(
        &door,
        "thumbnail",
        r#"{"schema":{"type": "object", "x": 1.0},"mode":null}"#,
    )
    .await;
    assert_eq!((again.status.as_u16(), again.json()), (200, first.json()));
    let other = put(
        &door,
        "thumbnail",
        r#"{"schema":{"type": "object", "x": 1.0},"mode":"warn"}"#,
    )
    .await;
    assert_eq!(
        (other.status.as_u16(), &other.json()["version"]),
        (201, &json!(2))
    );
    let path = "/v1/kinds/thumbnail/schema";
    assert_eq!(door.get(path).await.json(), other.json());
    assert_eq!(door.get(&format!("{path}?version=1")).await.json(), first.json());
    assert_eq!(
        door.get(&format!("{path}?version=3")).await.code(),
        "schema_not_found"
    );
    assert_eq!(door.call(request("DELETE", path, &[], "")).await.status, 204);
    assert_eq!(
        door.call(request("DELETE", path, &[], "")).await.code(),
        "schema_not_found"
    );
    assert_eq!(door.get(path).await.code(), "schema_not_found");
    assert_eq!(door.get(&format!("{path}?version=2")).await.json(), other.json());
    let back = put(&door, "thumbnail", r#"{"schema":true}"#).await;
    assert_eq!((back.status.as_u16(), &back.json()["version"]), (201, &json!(3)));
}

#[tokio::test]
async fn kinds_are_listed_page_by_page_without_their_schemas() {
    let door = Door::new();
    for kind in ["c", "a", "b"] {
        assert_eq!(put(&door, kind, r#"{"schema":true}"#).await.status, 201);
    }
    let first = door.get("/v1/kinds?page_size=2").await;
    assert_eq!(first.json()["kinds"][1]["kind"], "b");
    assert_eq!(first.json()["kinds"][1].get("schema"), None);
    let token = first.json()["next_page_token"].as_str().unwrap().to_owned();
    assert!(first.header("link").contains(&token));
    let second = door.get(&format!("/v1/kinds?page_token={token}")).await.json();
    assert_eq!(
        (&second["kinds"][0]["kind"], &second["next_page_token"]),
        (&json!("c"), &Value::Null)
    );
    assert_eq!(
        door.get("/v1/kinds?page_token=x").await.code(),
        "invalid_page_token"
    );
    assert_eq!(door.get("/v1/kinds/No!/schema").await.code(), "invalid_parameter");
}

#[tokio::test]
async fn all_that_is_wrong_with_a_schema_is_told_and_it_is_not_kept() {
    let door = Door::new();
    for (body, at) in [
        (
            r#"{"schema":{"type":"text","properties":{"a":{"minimum":"1"}}},"mode":"maybe"}"#.to_owned(),
            vec!["/mode", "/schema/properties/a/minimum", "/schema/type"],
        ),
        ("{}".to_owned(), vec!["/schema"]),
        (
            r#"{"schema":{"$ref":"https://example.com/s.json"}}"#.to_owned(),
            vec!["/schema/$ref"],
        ),
        (
            format!(r#"{{"schema":{{"title":"{}"}}}}"#, "x".repeat(70_000)),
            vec!["/schema"],
        ),
    ] {
        let answer = put(&door, "thumbnail", &body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (422, "invalid_request"),
            "{answer:?}"
        );
        assert_eq!(pointers(&answer.json()), at);
    }
    assert_eq!(put(&door, "thumbnail", "[]").await.code(), "invalid_body");
    assert_eq!(door.get("/v1/kinds").await.json()["kinds"], json!([]));
}

#[tokio::test]
async fn a_payload_that_does_not_fit_is_refused_at_every_door() {
    let door = Door::new();
    assert_eq!(put(&door, "thumbnail", THUMBNAIL).await.status, 201);
    assert_eq!(submit(&door, r#"{"image":"a"}"#).await.status, 202);
    let wrong = r#"{"image":7,"wait_seconds":"long","sizes":[1,0]}"#;
    let refused = submit(&door, wrong).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (422, "invalid_request")
    );
    let at = ["/payload/image", "/payload/sizes/1", "/payload/wait_seconds"];
    assert_eq!(pointers(&refused.json()), at);
    assert_eq!(pointers(&submit(&door, "null").await.json()), ["/payload"]);
    let other = door
        .post_json("/v1/tasks", format!(r#"{{"kind":"other","payload":{wrong}}}"#))
        .await;
    assert_eq!(other.status, 202, "it is of another kind");

    let (channel, _server) = served(&door).await;
    let message = v1::SubmitTaskRequest {
        kind: "thumbnail".into(),
        payload: wrong.into(),
        ..Default::default()
    };
    let status = TaskServiceClient::new(channel)
        .submit_task(message)
        .await
        .unwrap_err();
    assert_eq!(code_of(&status), "invalid_request");
    assert_eq!(
        fields_of(&status),
        ["payload.image", "payload.sizes[1]", "payload.wait_seconds"]
    );

    let items = format!(
        r#"[{{"kind":"thumbnail","payload":{{"image":"a"}}}},{{"kind":"thumbnail","payload":{wrong}}},{{"kind":"other"}},
            {{"kind":"thumbnail","payload":1,"idempotency_key":"k"}}]"#
    );
    let results = door.post_json("/v1/tasks/batch", items).await.json();
    let results = results["results"].as_array().unwrap();
    assert_eq!(
        (&results[0]["state"], &results[2]["state"]),
        (&json!("queued"), &json!("queued"))
    );
    assert_eq!(pointers(&results[1]["error"]), at);
    assert_eq!(pointers(&results[3]["error"]), ["/payload"]);

    let batch = format!(
        r#"{{"tasks":[{{"kind":"other"}},{{"kind":"thumbnail","payload":{wrong}}}],"on_complete":{{"kind":"thumbnail"}}}}"#
    );
    let batch = door.post_json("/v1/batches", batch).await;
    assert_eq!(batch.status, 422, "{batch:?}");
    let at = [
        "/on_complete/payload",
        "/tasks/1/payload/image",
        "/tasks/1/payload/sizes/1",
        "/tasks/1/payload/wait_seconds",
    ];
    assert_eq!(pointers(&batch.json())[1..], at[1..]);
}

#[tokio::test]
async fn a_payload_may_only_be_told_of() {
    let door = Door::new();
    put(&door, "thumbnail", r#"{"schema":false,"mode":"warn"}"#).await;
    for _ in 0..2 {
        assert_eq!(submit(&door, "1").await.status, 202);
    }
    let counted = r#"forebay_schema_warnings_total{kind="thumbnail",reason="misfit"} 2"#;
    assert!(door.app.metrics.encode().contains(counted));
    put(&door, "thumbnail", r#"{"schema":false,"mode":"enforce"}"#).await;
    assert_eq!(submit(&door, "1").await.status, 422);
    door.call(request("DELETE", "/v1/kinds/thumbnail/schema", &[], ""))
        .await;
    assert_eq!(submit(&door, "1").await.status, 202);
}

/// What another replica puts, this one learns; and keeps while it can't ask.
#[tokio::test]
async fn schemas_are_learned_and_kept_while_the_store_is_away() {
    let door = Door::with_background().await;
    assert_eq!(submit(&door, "1").await.status, 202);
    let kind = "thumbnail".parse().unwrap();
    let nothing = forebay_core::Json::parse(b"false").unwrap();
    let enforce = forebay_core::SchemaMode::Enforce;
    forebay_store::Kinds::put_schema(&door.fake, &kind, enforce, &nothing)
        .await
        .unwrap();
    eventually("it is learned", async || submit(&door, "1").await.status == 422).await;
    for mood in [Mood::Down, Mood::Hangs] {
        door.fake.lock().store = mood;
        let asked = door.fake.lock().store_asked;
        eventually("it is asked for in vain", async || {
            door.fake.lock().store_asked > asked
        })
        .await;
        assert_eq!(submit(&door, "1").await.status, 422, "{mood:?}");
    }
    door.fake.lock().store = Mood::Up;
    forebay_store::Kinds::delete_schema(&door.fake, &kind)
        .await
        .unwrap();
    eventually("it is forgotten", async || submit(&door, "1").await.status == 202).await;
}

/// The schemas of all kinds share a bound, by the memory that they take.
#[tokio::test]
async fn the_schemas_of_all_kinds_fit_into_memory() {
    // Such patterns take a while to compile, and longer than a submission may.
    let door = Door::bounded(Bounds {
        submit_patient: Duration::from_secs(60),
        ..quick()
    });
    let large =
        |mode: &str| format!(r#"{{"schema":{{"pattern":"^[\\p{{L}} ]{{1,100}}$"}},"mode":"{mode}"}}"#);
    let mut kinds = 0;
    let refused = loop {
        let answer = put(&door, &format!("kind{kinds}"), &large("enforce")).await;
        if answer.status != 201 {
            break answer;
        }
        kinds += 1;
    };
    assert_eq!((refused.code().as_str(), kinds), ("too_many_schemas", 2));
    assert!(refused.text.contains("64 MiB"), "{refused:?}");
    assert_eq!(put(&door, "small", THUMBNAIL).await.status, 201);
    assert_eq!(
        put(&door, "kind0", &large("warn")).await.status,
        201,
        "in the place of another"
    );
    door.call(request("DELETE", "/v1/kinds/kind1/schema", &[], ""))
        .await;
    assert_eq!(put(&door, "kind2", &large("enforce")).await.status, 201);
}

/// A replica that can't read the schemas says so, and checks nothing until it can.
#[tokio::test]
async fn a_replica_is_not_ready_before_it_knows_the_schemas() {
    let door = Door::new();
    let kind = "thumbnail".parse().unwrap();
    let nothing = forebay_core::Json::parse(b"false").unwrap();
    let enforce = forebay_core::SchemaMode::Enforce;
    let put = forebay_store::Kinds::put_schema(&door.fake, &kind, enforce, &nothing);
    put.await.unwrap();
    door.fake.lock().store = Mood::Down;
    tokio::spawn(background(door.app.clone()));
    let problems = async || door.get("/health/ready").await.json()["problems"].clone();
    let unread = json!([{"component": "schemas", "problem": "were not read yet"}]);
    eventually("all else is well", async || problems().await == unread).await;
    assert_eq!(submit(&door, "1").await.status, 202, "nobody knows better");
    door.fake.lock().store = Mood::Up;
    eventually("it is ready", async || problems().await == json!([])).await;
    assert_eq!(submit(&door, "1").await.status, 422);
    door.fake.lock().store = Mood::Down;
    let asked = door.fake.lock().store_asked;
    eventually("it asks in vain", async || door.fake.lock().store_asked > asked).await;
    assert_eq!(problems().await, json!([]), "it knows them");
}

#[tokio::test]
async fn a_schema_that_is_not_compiled_in_time_keeps_nobody_waiting() {
    let door = Door::bounded(Bounds {
        submit_patient: Duration::ZERO,
        ..quick()
    });
    let kind = "thumbnail".parse().unwrap();
    let nothing = forebay_core::Json::parse(b"false").unwrap();
    let enforce = forebay_core::SchemaMode::Enforce;
    let put = forebay_store::Kinds::put_schema(&door.fake, &kind, enforce, &nothing);
    put.await.unwrap();
    tokio::spawn(background(door.app.clone()));
    let problems = async || door.get("/health/ready").await.json()["problems"].clone();
    eventually("it is ready", async || problems().await == json!([])).await;
}
