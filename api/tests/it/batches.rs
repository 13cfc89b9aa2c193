//! Batches and tasks that wait for others, over HTTP: against a real store, and with the store or the broker away.

use std::{collections::BTreeSet, time::Duration};

use forebay_broker::Broker;
use forebay_core::{Signal, State, SystemClock, TaskId};
use futures::{StreamExt, future::join_all};
use serde_json::{Value, json};

use crate::{
    door::{Answer, Door, call, eventually, request},
    fake::Mood,
    real::House,
};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn post(house: &House, path: &str, key: Option<&str>, body: &Value) -> Answer {
    let mut headers = vec![JSON];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    call(&house.router, request("POST", path, &headers, body.to_string())).await
}

async fn opened(house: &House, body: Value) -> Value {
    let answer = post(house, "/v1/batches", None, &body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()
}

fn pointers(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let errors = body["errors"].as_array().unwrap();
    errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_batch_is_opened_read_and_listed() {
    let house = House::new().await;
    let body = json!({"name": "import", "tasks": [{"kind": "echo"}, {"kind": "echo", "queue": "slow"}], "on_complete": {"kind": "report"}});
    let answer = post(&house, "/v1/batches", None, &body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let batch = answer.json();
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    assert_eq!(answer.header("location"), path);
    assert_eq!(
        (&batch["name"], &batch["state"], &batch["total"]),
        (&json!("import"), &json!("running"), &json!(2))
    );
    let read = house.get(&path).await.json();
    assert_eq!(
        (&read["counts"]["queued"], &read["counts"]["accepted"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(
        (&read["progress"], &read["completed_at"]),
        (&json!(0.0), &Value::Null)
    );
    let tasks = house.get(&format!("{path}/tasks?page_size=1")).await;
    assert_eq!(tasks.json()["tasks"][0]["id"], batch["task_ids"][0]);
    let next = tasks.json()["next_page_token"].as_str().unwrap().to_owned();
    assert!(tasks.header("link").contains(&next), "{tasks:?}");
    let rest = house.get(&format!("{path}/tasks?page_token={next}")).await.json();
    assert_eq!(
        (&rest["tasks"][0]["id"], &rest["next_page_token"]),
        (&batch["task_ids"][1], &Value::Null)
    );
    assert_eq!(rest["tasks"][0]["batch"], batch["id"]);
    let last = house
        .get(&format!(
            "/v1/tasks/{}",
            batch["completion_task_id"].as_str().unwrap()
        ))
        .await
        .json();
    assert_eq!(
        (&last["state"], &last["payload"]),
        (&json!("blocked"), &json!({"batch_id": batch["id"]}))
    );
    let other = opened(&house, json!({"tasks": [], "project": "other"})).await;
    assert_eq!(other["state"], "completed", "there is nothing to wait for");
    let listed = house.get("/v1/batches?page_size=1").await;
    let page = listed.json();
    assert_eq!(
        (&page["batches"][0]["id"], &page["batches"][0]["counts"]),
        (&other["id"], &Value::Null)
    );
    let next = page["next_page_token"].as_str().unwrap();
    assert!(
        listed
            .header("link")
            .starts_with("</v1/batches?page_size=1&page_token="),
        "{listed:?}"
    );
    let rest = house
        .get(&format!("/v1/batches?page_size=1&page_token={next}"))
        .await
        .json();
    assert_eq!(
        (&rest["batches"][0]["id"], &rest["next_page_token"]),
        (&batch["id"], &Value::Null)
    );
    let of_other = house.get("/v1/batches?project=other").await.json();
    assert_eq!(of_other["batches"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_chain_is_blocked_but_for_its_first() {
    let house = House::new().await;
    let tasks = json!([{"kind": "a"}, {"kind": "b"}, {"kind": "c", "on_dependency_failure": "run"}]);
    let batch = opened(&house, json!({"tasks": tasks, "chain": true})).await;
    let path = format!("/v1/batches/{}/tasks", batch["id"].as_str().unwrap());
    let tasks = house.get(&path).await.json();
    let told: Vec<(&Value, &Value, &Value)> = (0..3)
        .map(|place| &tasks["tasks"][place])
        .map(|task| (&task["state"], &task["after"], &task["on_dependency_failure"]))
        .collect();
    let ids = &batch["task_ids"];
    assert_eq!(told[0].0, "queued");
    assert_eq!(told[1], (&json!("blocked"), &json!([ids[0]]), &json!("cancel")));
    assert_eq!(told[2], (&json!("blocked"), &json!([ids[1]]), &json!("run")));
}

#[tokio::test]
async fn the_same_key_opens_it_once_and_completes_what_was_cut_off() {
    let house = House::new().await;
    let body = json!({"tasks": [{"kind": "echo"}, {"kind": "echo"}]});
    let first = post(&house, "/v1/batches", Some("import-1"), &body).await;
    let again = post(&house, "/v1/batches", Some("import-1"), &body).await;
    assert_eq!(
        (first.status.as_u16(), again.status.as_u16()),
        (202, 202),
        "{first:?} {again:?}"
    );
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(first.json()["task_ids"], again.json()["task_ids"]);
    let listed = house.get("/v1/tasks").await.json();
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 2);
    let other = post(
        &house,
        "/v1/batches",
        Some("import-1"),
        &json!({"tasks": [{"kind": "echo"}]}),
    )
    .await;
    assert_eq!(
        (other.status.as_u16(), &other.json()["code"]),
        (422, &json!("idempotency_key_reused"))
    );
}

#[tokio::test]
async fn it_grows_while_it_is_open() {
    let house = House::new().await;
    let batch = opened(&house, json!({"open": true})).await;
    assert_eq!((&batch["state"], &batch["total"]), (&json!("open"), &json!(0)));
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    let tasks = format!("{path}/tasks");
    let more = json!({"tasks": [{"kind": "echo"}, {"kind": "echo"}], "chain": true});
    for _ in 0..2 {
        let grown = post(&house, &tasks, Some("part 1"), &more).await;
        assert_eq!(
            (grown.status.as_u16(), &grown.json()["total"]),
            (202, &json!(2)),
            "{grown:?}"
        );
    }
    assert_eq!(house.get(&path).await.json()["counts"]["blocked"], 1);
    let without = post(&house, &tasks, None, &more).await;
    assert_eq!(
        (without.status.as_u16(), pointers(&without)),
        (400, vec!["/Idempotency-Key".to_owned()])
    );
    let other = post(&house, &tasks, Some("part 1"), &json!({"tasks": []})).await;
    assert_eq!(other.json()["code"], "idempotency_key_reused");
    let closed = post(&house, &format!("{path}/close"), None, &json!(null)).await;
    assert_eq!(
        (closed.status.as_u16(), &closed.json()["state"]),
        (200, &json!("running"))
    );
    let late = post(&house, &tasks, Some("part 2"), &more).await;
    assert_eq!(
        (late.status.as_u16(), &late.json()["code"]),
        (409, &json!("batch_closed"))
    );
    let cancelled = post(&house, &format!("{path}/cancel"), None, &json!(null)).await;
    assert_eq!(
        (cancelled.status.as_u16(), &cancelled.json()["state"]),
        (202, &json!("cancelled"))
    );
    let complete = opened(&house, json!({"tasks": []})).await;
    let refused = post(
        &house,
        &format!("/v1/batches/{}/cancel", complete["id"].as_str().unwrap()),
        None,
        &json!(null),
    )
    .await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["code"]),
        (409, &json!("batch_closed"))
    );
}

#[tokio::test]
async fn all_mistakes_are_told_at_once_and_nothing_is_submitted() {
    let house = House::new().await;
    let body = json!({
        "name": "", "project": "No",
        "tasks": [
            {"kind": "Bad", "run_at": "soon"},
            {"kind": "echo", "idempotency_key": "k", "after": ["x"]},
            {"kind": "echo", "on_dependency_failure": "run"},
        ],
        "on_complete": {"kind": "echo", "after": ["01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d"], "unique": {}, "max_attempts": 0},
    });
    let refused = post(&house, "/v1/batches", None, &body).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    let mut found = pointers(&refused);
    found.sort_unstable();
    let expected = [
        "/name",
        "/on_complete/after",
        "/on_complete/max_attempts",
        "/on_complete/unique",
        "/project",
        "/tasks/0/kind",
        "/tasks/0/run_at",
        "/tasks/1/after/0",
        "/tasks/1/idempotency_key",
        "/tasks/2/on_dependency_failure",
    ];
    assert_eq!(found, expected);
    let many = vec![json!({"kind": "echo"}); 1_001];
    let refused = post(&house, "/v1/batches", None, &json!({"tasks": many})).await;
    assert_eq!(
        (refused.status.as_u16(), pointers(&refused)),
        (422, vec!["/tasks".to_owned()])
    );
    let refused = post(&house, "/v1/batches", None, &json!({"tasks": [[]]})).await;
    assert_eq!(
        (refused.status.as_u16(), pointers(&refused)),
        (400, vec!["/tasks/0".to_owned()])
    );
    assert_eq!(house.get("/v1/tasks").await.json()["tasks"], json!([]));
    assert_eq!(house.get("/v1/batches").await.json()["batches"], json!([]));
}

#[tokio::test]
async fn what_is_waited_for_must_exist_as_far_as_that_is_known() {
    let house = House::new().await;
    let first = post(&house, "/v1/tasks", None, &json!({"kind": "echo"}))
        .await
        .json();
    let second = post(
        &house,
        "/v1/tasks",
        None,
        &json!({"kind": "echo", "after": [first["id"]]}),
    )
    .await;
    assert_eq!(
        (second.status.as_u16(), &second.json()["state"]),
        (202, &json!("blocked")),
        "{second:?}"
    );
    let now = forebay_core::Clock::now(&SystemClock);
    let unknown = TaskId::new(now, &[7; 10]).to_string();
    let refused = post(
        &house,
        "/v1/tasks",
        None,
        &json!({"kind": "echo", "after": [first["id"], unknown], "max_attempts": 0}),
    )
    .await;
    assert_eq!(refused.status, 422, "{refused:?}");
    let mut found = pointers(&refused);
    found.sort_unstable();
    assert_eq!(found, ["/after/1", "/max_attempts"]);
    let many = json!([{"kind": "echo"}, {"kind": "echo", "after": [unknown]}]);
    let answer = post(&house, "/v1/tasks/batch", None, &many).await.json();
    assert_eq!(answer["results"][0]["state"], "queued");
    assert_eq!(answer["results"][1]["error"]["errors"][0]["pointer"], "/after/0");
    let refused = post(&house, "/v1/batches", None, &json!({"tasks": many})).await;
    assert_eq!(pointers(&refused), ["/tasks/1/after/0"]);
}

#[tokio::test]
async fn while_the_store_is_away_single_tasks_are_accepted_and_batches_are_not() {
    let door = Door::new();
    door.fake.lock().store = Mood::Down;
    let waits = json!({"kind": "echo", "after": ["01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d"]}).to_string();
    assert_eq!(door.post_json("/v1/tasks", waits).await.status, 202);
    let body = json!({"tasks": [{"kind": "echo"}]}).to_string();
    let refused = door.post_json("/v1/batches", body).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["code"]),
        (503, &json!("store_unavailable"))
    );
    assert_eq!(door.fake.lock().published, 1, "nothing of it was submitted");
}

/// What may be on its way is not refused.
#[tokio::test]
async fn what_is_not_recorded_yet_can_be_waited_for() {
    let door = Door::new();
    door.fake.lock().lagging = true;
    let first = door.post_json("/v1/tasks", r#"{"kind":"echo"}"#).await.json();
    let waits = json!({"kind": "echo", "after": [first["id"]]}).to_string();
    assert_eq!(door.post_json("/v1/tasks", waits.clone()).await.status, 202);
    door.fake.catch_up();
    assert_eq!(door.post_json("/v1/tasks", waits).await.status, 202);
    let unknown = json!({"kind": "echo", "after": ["01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d"]}).to_string();
    assert_eq!(door.post_json("/v1/tasks", unknown).await.status, 422);
}

/// An id of some time ago that names nothing is refused although others are not recorded yet, unless recorders may not have come
/// to it.
#[tokio::test]
async fn only_what_recorders_have_come_to_is_known_to_be_missing() {
    let door = Door::new();
    let unknown = |at: &str| {
        let id = TaskId::new(at.parse().unwrap(), &[7; 10]);
        json!({"kind": "echo", "after": [id]}).to_string()
    };
    let (long_ago, just_now) = (unknown("2026-03-01T11:40:00Z"), unknown("2026-03-01T11:50:00Z"));
    door.submit().await;
    door.fake.lock().lagging = true;
    door.submit().await;
    assert_eq!(door.post_json("/v1/tasks", long_ago.clone()).await.status, 422);
    assert_eq!(door.post_json("/v1/tasks", just_now).await.status, 202);
    // What is recorded is of yesterday, or says nothing about recorders: they may be behind by hours.
    door.clock.set("2026-03-02T12:00:00Z");
    assert_eq!(
        door.post_json("/v1/tasks", unknown("2026-03-02T01:00:00Z"))
            .await
            .status,
        202
    );
    door.fake.lock().tasks.clear();
    assert_eq!(door.post_json("/v1/tasks", long_ago.clone()).await.status, 202);
    door.fake.lock().unrecorded.clear();
    assert_eq!(
        door.post_json("/v1/tasks", long_ago).await.status,
        422,
        "all is recorded"
    );
}

/// Counting reads each task: it is done for who asks, and of a large batch not for each of many who ask.
#[tokio::test]
async fn tasks_are_counted_for_who_asks() {
    let door = Door::new();
    let body = json!({"tasks": [{"kind": "echo"}]}).to_string();
    let batch = door.post_json("/v1/batches", body).await.json();
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    let counted = || door.fake.lock().batches_counted;
    assert_eq!(door.get(&format!("{path}/tasks")).await.status, 200);
    assert_eq!(counted(), 0, "nobody has asked");
    for times in 1..=2 {
        assert_eq!(door.get(&path).await.status, 200);
        assert_eq!(counted(), times);
    }
    for batch in door.fake.lock().kept_batches.values_mut() {
        batch.total = 100_000;
    }
    let answers = join_all((0..50).map(|_| door.get(&path))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(counted(), 3, "one counts for all who ask");
    assert_eq!(door.get(&path).await.status, 200);
    assert_eq!(counted(), 3, "the counts are kept for a moment");
}

/// Who waits for a task that others bring to its end hears of that.
#[tokio::test]
async fn what_others_bring_to_an_end_is_told() {
    let house = House::new().await;
    let mut signals = house.broker.signals().await.unwrap();
    let mut is_told = async |id: &Value| {
        let told = async {
            while let Some(signal) = signals.next().await {
                let Signal::Events(events) = signal else { continue };
                let mut ended = events.iter().filter(|event| event.state.is_final());
                if let Some(event) = ended.next() {
                    return (event.id.to_string(), event.state);
                }
            }
            panic!("the broker ended");
        };
        let told = tokio::time::timeout(Duration::from_secs(20), told).await;
        let expected = (id.as_str().unwrap().to_owned(), State::Cancelled);
        assert_eq!(told.expect("it is told"), expected);
    };
    let unique = |how: &str| json!({"kind": "echo", "unique": {"key": "one", "on_conflict": how}});
    let first = post(&house, "/v1/tasks", None, &unique("replace")).await.json();
    post(&house, "/v1/tasks", None, &unique("replace")).await;
    is_told(&first["id"]).await;
    let body = json!({"tasks": [{"kind": "echo"}], "on_complete": {"kind": "report"}});
    let batch = opened(&house, body).await;
    let path = format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap());
    post(&house, &path, None, &json!({})).await;
    is_told(&batch["completion_task_id"]).await;
    let after = json!({"kind": "echo", "after": [first["id"]]});
    let dropped = post(&house, "/v1/tasks", None, &after).await.json();
    is_told(&dropped["id"]).await;
}

/// What is shown and what is taken must be what the description says.
#[tokio::test]
async fn the_description_has_the_members_of_a_batch() {
    let document: Value = serde_json::from_str(forebay_api::OPENAPI).unwrap();
    let names =
        |members: &Value| -> BTreeSet<String> { members.as_object().unwrap().keys().cloned().collect() };
    let described = |schema: &str| names(&document["components"]["schemas"][schema]["properties"]);
    let house = House::new().await;
    let example = document["components"]["schemas"]["NewBatch"]["example"].clone();
    let batch = opened(&house, example).await;
    assert_eq!(names(&batch), described("AcceptedBatch"));
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    let read = house.get(&path).await.json();
    assert_eq!(names(&read), described("Batch"));
    for (path, schema) in [
        ("/v1/batches".to_owned(), "NewBatch"),
        (format!("{path}/tasks"), "MoreTasks"),
    ] {
        let refused = post(&house, &path, None, &json!({"unknown": 1})).await.json();
        let detail = refused["errors"][0]["detail"].as_str().unwrap();
        let taken: BTreeSet<String> = detail.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        assert_eq!(taken, described(schema), "{detail}");
    }
}

/// Once the batch is announced its tasks must come, or it never completes.
#[tokio::test]
async fn it_is_submitted_when_its_client_has_hung_up() {
    let door = Door::new();
    door.fake.lock().slow_batches = true;
    let body = json!({"tasks": [{"kind": "echo"}, {"kind": "echo"}]}).to_string();
    let path = "/v1/batches";
    let router = door.router.clone();
    let asking = tokio::spawn(async move { call(&router, request("POST", path, &[JSON], body)).await });
    eventually("it is announced", async || {
        !door.fake.lock().kept_batches.is_empty()
    })
    .await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    door.fake.lock().slow_batches = false;
    eventually("its tasks come", async || door.fake.lock().published == 2).await;
}

#[tokio::test]
async fn what_could_not_be_given_up_is_not_called_cancelled() {
    let door = Door::new();
    let body = || json!({"tasks": [{"kind": "echo"}]}).to_string();
    door.fake.lock().broker = Mood::Down;
    let detail = door.post_json("/v1/batches", body()).await.json()["detail"].clone();
    assert!(
        detail.as_str().unwrap().contains("so it was cancelled"),
        "{detail}"
    );
    door.fake.lock().slow_batches = true;
    let asking = door.post_json("/v1/batches", body());
    let failing = async {
        eventually("it is announced", async || {
            door.fake.lock().kept_batches.len() == 2
        })
        .await;
        let mut inner = door.fake.lock();
        (inner.store, inner.slow_batches) = (Mood::Down, false);
    };
    let (refused, ()) = tokio::join!(asking, failing);
    assert_eq!(refused.status, 503, "{refused:?}");
    let detail = refused.json()["detail"].clone();
    let detail = detail.as_str().unwrap();
    assert!(
        detail.contains("may be partly accepted: cancel it before you send it again"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_member_that_would_be_refused_refuses_the_batch() {
    let door = Door::new();
    let unique =
        |on_conflict: &str| json!({"kind": "echo", "unique": {"key": "a", "on_conflict": on_conflict}});
    let first = door.post_json("/v1/tasks", unique("reject").to_string()).await;
    let post = async |on_conflict: &str| {
        let body = json!({"tasks": [{"kind": "echo"}, unique(on_conflict)]}).to_string();
        door.post_json("/v1/batches", body).await
    };
    let refused = post("reject").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (409, "unique_conflict")
    );
    assert_eq!(pointers(&refused), ["/tasks/1/unique"]);
    assert!(refused.text.contains(&first.id().to_string()), "{refused:?}");
    assert!(door.fake.lock().kept_batches.is_empty());
    assert_eq!(door.fake.lock().published, 1);
    let accepted = post("return").await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
}

#[tokio::test]
async fn the_webhooks_of_what_completes_it_must_exist() {
    let door = Door::new();
    let body = json!({"tasks": [{"kind": "echo"}], "on_complete": {"kind": "echo", "notify": ["nobody"]}});
    let refused = door.post_json("/v1/batches", body.to_string()).await;
    assert_eq!(
        (refused.status.as_u16(), pointers(&refused)),
        (422, vec!["/on_complete/notify/0".to_owned()])
    );
}

#[tokio::test]
async fn a_member_does_not_wait_for_what_waits_for_it() {
    let house = House::new().await;
    let batch = opened(&house, json!({"open": true, "on_complete": {"kind": "echo"}})).await;
    let path = format!("/v1/batches/{}/tasks", batch["id"].as_str().unwrap());
    let more = json!({"tasks": [{"kind": "echo", "after": [batch["completion_task_id"]]}]});
    let refused = post(&house, &path, Some("part"), &more).await;
    assert_eq!(
        (refused.status.as_u16(), pointers(&refused)),
        (422, vec!["/tasks/0/after/0".to_owned()]),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_chain_takes_one_of_the_places() {
    let house = House::new().await;
    let first = post(&house, "/v1/tasks", None, &json!({"kind": "echo"})).await;
    let body = |count: usize| {
        let after = vec![first.id().to_string(); count];
        json!({"chain": true, "tasks": [{"kind": "echo", "after": after}, {"kind": "echo", "after": after}]})
    };
    let refused = post(&house, "/v1/batches", None, &body(100)).await;
    assert_eq!(pointers(&refused), ["/tasks/1/after"], "{refused:?}");
    let told = refused.json()["errors"][0]["detail"].clone();
    assert!(
        told.as_str().unwrap().contains("at most 99 items in a chain"),
        "{told}"
    );
    assert_eq!(post(&house, "/v1/batches", None, &body(99)).await.status, 202);
}
