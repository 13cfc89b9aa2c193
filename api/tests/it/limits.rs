//! Limits over both doors. That they are enforced is the stores' conformance, and `cli/tests/production/limits.rs`.

use axum::body::Body;
use forebay_core::{LIMITS_MAX, LimitRequest};
use forebay_proto::v1::{self, limit_service_client::LimitServiceClient};
use forebay_store::{Limits, PutLimit};
use serde_json::{Value, json};
use tonic_types::StatusExt;

use crate::{
    door::{Answer, Door, request},
    grpc::served,
};

const MAIL: &str = "/v1/limits/mail";

async fn put(door: &Door, path: &str, body: &str) -> Answer {
    let headers = [("content-type", "application/json")];
    door.call(request("PUT", path, &headers, body.to_owned())).await
}

async fn delete(door: &Door, path: &str) -> Answer {
    door.call(request("DELETE", path, &[], Body::empty())).await
}

#[tokio::test]
async fn what_nobody_said_is_filled_in() {
    let door = Door::new();
    let made = put(
        &door,
        MAIL,
        r#"{"kind":"mail.send","rate":{"count":100,"per_seconds":60}}"#,
    )
    .await;
    assert_eq!(made.status, 201, "{made:?}");
    let mut shown = json!({
        "name": "mail", "queue": null, "kind": "mail.send", "by_key": false, "concurrency": null,
        "rate": {"count": 100, "per_seconds": 60.0, "burst": 100}, "running": null, "waiting": null,
        "created_at": "2026-03-01T12:00:00Z", "updated_at": "2026-03-01T12:00:00Z",
    });
    assert_eq!(made.json(), shown);
    let listed = door.get("/v1/limits").await.json();
    assert_eq!(listed, json!({"limits": [shown], "next_page_token": null}));
    (shown["running"], shown["waiting"]) = (json!(2), json!(5));
    assert_eq!(
        door.get(MAIL).await.json(),
        shown,
        "how much it is used is counted"
    );

    let again = put(
        &door,
        MAIL,
        r#"{"by_key":true,"queue":"slow","concurrency":1.0,"rate":null}"#,
    )
    .await;
    assert_eq!(again.status, 200, "{again:?}");
    let again = again.json();
    assert_eq!(
        (
            &again["kind"],
            &again["queue"],
            &again["by_key"],
            &again["concurrency"],
            &again["rate"]
        ),
        (
            &json!(null),
            &json!("slow"),
            &json!(true),
            &json!(1),
            &json!(null)
        ),
        "it is replaced as a whole"
    );
    let deleted = delete(&door, MAIL).await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    assert_eq!(door.get(MAIL).await.code(), "limit_not_found");
    assert_eq!(delete(&door, MAIL).await.code(), "limit_not_found");
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_told_where() {
    let door = Door::new();
    for (body, code, pointer) in [
        ("", "malformed_json", None),
        ("[]", "invalid_body", Some("")),
        (r#"{"concurrency":"5"}"#, "invalid_body", Some("/concurrency")),
        (r#"{"concurrency":1.5}"#, "invalid_body", Some("/concurrency")),
        (r#"{"concurency":5}"#, "invalid_body", Some("/concurency")),
        (r#"{"rate":[1,1]}"#, "invalid_body", Some("/rate")),
        (
            r#"{"rate":{"count":1,"per":1}}"#,
            "invalid_body",
            Some("/rate/per"),
        ),
        (
            r#"{"waiting":0,"concurrency":1}"#,
            "invalid_body",
            Some("/waiting"),
        ),
        ("{}", "invalid_request", Some("")),
        (r#"{"concurrency":0}"#, "invalid_request", Some("/concurrency")),
        (r#"{"rate":{}}"#, "invalid_request", Some("/rate/count")),
    ] {
        let refused = put(&door, MAIL, body).await;
        assert_eq!(refused.code(), code, "{body}");
        let found = refused.json();
        assert_eq!(found["errors"][0]["pointer"].as_str(), pointer, "{body}: {found}");
    }
    let all =
        r#"{"queue":"No!","kind":"No!","concurrency":-1,"rate":{"count":1,"per_seconds":-1,"burst":0}}"#;
    let refused = put(&door, MAIL, all).await.json();
    let at: Vec<&Value> = refused["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["pointer"])
        .collect();
    assert_eq!(
        at,
        [
            "/queue",
            "/kind",
            "/concurrency",
            "/rate/burst",
            "/rate/per_seconds"
        ]
    );
    let plain = request("PUT", MAIL, &[("content-type", "text/plain")], "{}");
    assert_eq!(door.call(plain).await.code(), "unsupported_media_type");
    for path in [
        "/v1/limits/No!",
        "/v1/limits?page=1",
        "/v1/limits?page_size=0",
        "/v1/limits/mail?all=1",
    ] {
        assert_eq!(door.get(path).await.code(), "invalid_parameter", "{path}");
    }
    assert_eq!(
        door.get("/v1/limits?page_token=!").await.code(),
        "invalid_page_token"
    );
    assert!(door.fake.lock().limits.is_empty());
}

#[tokio::test]
async fn a_page_leads_to_the_next_and_there_are_only_so_many() {
    let door = Door::new();
    for number in 0..LIMITS_MAX {
        let request = LimitRequest {
            concurrency: Some(1),
            ..LimitRequest::default()
        };
        let rule = request.accept(format!("l{number:04}").parse().unwrap()).unwrap();
        assert!(matches!(door.fake.put_limit(&rule).await, Ok(PutLimit::New(_))));
    }
    assert_eq!(
        put(&door, MAIL, r#"{"concurrency":1}"#).await.code(),
        "too_many_limits"
    );
    assert_eq!(
        put(&door, "/v1/limits/l0000", r#"{"concurrency":2}"#)
            .await
            .status,
        200
    );
    let (mut path, mut names) = ("/v1/limits?page_size=200".to_owned(), Vec::new());
    loop {
        let page = door.get(&path).await;
        let body = page.json();
        names.extend(
            body["limits"]
                .as_array()
                .unwrap()
                .iter()
                .map(|limit| limit["name"].clone()),
        );
        if body["next_page_token"].is_null() {
            break;
        }
        let link = page.header("link");
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    assert_eq!(names.len(), LIMITS_MAX);
    assert!(names.is_sorted_by_key(|name| name.as_str().unwrap().to_owned()));
}

#[tokio::test]
async fn both_doors_say_the_same() {
    let door = Door::new();
    let (channel, _server) = served(&door).await;
    let mut client = LimitServiceClient::new(channel);
    let spec = v1::LimitSpec {
        queue: "slow".into(),
        kind: "mail.send".into(),
        by_key: true,
        concurrency: Some(3),
        rate: Some(v1::Rate {
            count: 10,
            per: Some(prost_types::Duration {
                seconds: 1,
                nanos: 500_000_000,
            }),
            burst: Some(5),
        }),
    };
    let asked = v1::PutLimitRequest {
        name: "mail".into(),
        spec: Some(spec.clone()),
    };
    let made = client.put_limit(asked.clone()).await.unwrap().into_inner();
    assert!(made.created);
    assert_eq!(made.limit.unwrap().spec, Some(spec.clone()));
    assert!(!client.put_limit(asked).await.unwrap().into_inner().created);
    let over_http = door.get(MAIL).await.json();
    assert_eq!(
        over_http["rate"],
        json!({"count": 10, "per_seconds": 1.5, "burst": 5})
    );
    let name = || "mail".to_owned();
    let got = client
        .get_limit(v1::GetLimitRequest { name: name() })
        .await
        .unwrap();
    let got = got.into_inner().limit.unwrap();
    assert_eq!((got.running, got.waiting), (Some(2), Some(5)));
    let listed = client
        .list_limits(v1::ListLimitsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!((listed.limits.len(), listed.limits[0].waiting), (1, None));
    client
        .delete_limit(v1::DeleteLimitRequest { name: name() })
        .await
        .unwrap();
    for (answer, code, fields) in [
        (
            client
                .get_limit(v1::GetLimitRequest { name: name() })
                .await
                .map(drop),
            "limit_not_found",
            vec![],
        ),
        (
            client
                .delete_limit(v1::DeleteLimitRequest { name: name() })
                .await
                .map(drop),
            "limit_not_found",
            vec![],
        ),
        (
            client
                .put_limit(v1::PutLimitRequest {
                    name: "No!".into(),
                    spec: None,
                })
                .await
                .map(drop),
            "invalid_parameter",
            vec!["name"],
        ),
        (
            client
                .put_limit(v1::PutLimitRequest {
                    name: name(),
                    spec: Some(v1::LimitSpec {
                        rate: Some(v1::Rate::default()),
                        ..spec
                    }),
                })
                .await
                .map(drop),
            "invalid_request",
            vec!["spec.rate.count", "spec.rate.per"],
        ),
    ] {
        let status = answer.unwrap_err();
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, code);
        let found: Vec<&str> = details
            .bad_request()
            .map(|wrong| {
                wrong
                    .field_violations
                    .iter()
                    .map(|field| field.field.as_str())
                    .collect()
            })
            .unwrap_or_default();
        assert_eq!(found, fields, "{code}");
    }
}
