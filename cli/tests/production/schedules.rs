//! A schedule with several dispatchers, one of which dies: every tick is one task.

use std::collections::BTreeSet;

use forebay_core::{TaskId, Timestamp};
use forebay_proto::v1::{
    DeleteScheduleRequest, Overlap, PutScheduleRequest, ScheduleSpec, SubmitTaskRequest,
    schedule_service_client::ScheduleServiceClient,
};
use forebay_testkit::{broker::BrokerKind, wait};
use serde_json::{Value, json};

use crate::stack::{PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    every_tick_is_one_task_whichever_dispatcher_fires_it_and_dies
}

fn every_second() -> PutScheduleRequest {
    PutScheduleRequest {
        name: "beat".into(),
        spec: Some(ScheduleSpec {
            cron: "* * * * * *".into(),
            time_zone: "Europe/Berlin".into(),
            task: Some(SubmitTaskRequest {
                kind: "echo".into(),
                payload: "[1]".into(),
                tags: vec!["beat".into()],
                ..SubmitTaskRequest::default()
            }),
            overlap: Overlap::Allow.into(),
            ..ScheduleSpec::default()
        }),
    }
}

async fn put(api: &str, paused: bool) -> Value {
    let body = json!({"cron": "* * * * * *", "time_zone": "Europe/Berlin", "overlap": "allow", "paused": paused,
        "task": {"kind": "echo", "payload": [1], "tags": ["beat"]}});
    let put = reqwest::Client::new()
        .put(format!("{api}/v1/schedules/beat"))
        .json(&body);
    let answer = put.timeout(PATIENCE).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

fn time(of: &Value) -> Timestamp {
    of.as_str().unwrap().parse().unwrap()
}

/// The tasks of all ticks from the making of a schedule to the last that was fired.
fn expected(schedule: &Value) -> BTreeSet<TaskId> {
    let (made, last) = (time(&schedule["created_at"]), time(&schedule["last_tick"]));
    let name = "beat".parse().unwrap();
    let ticks = made.as_second() + 1..=last.as_second();
    let tick = |second| Timestamp::from_second(second).unwrap();
    ticks.map(|second| TaskId::of_tick(&name, tick(second))).collect()
}

async fn every_tick_is_one_task_whichever_dispatcher_fires_it_and_dies(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let (one, other) = (stack.api().await, stack.api().await);
    let args = ["--builtin-handlers", "--lease", "5s"];
    let mut workers = [
        stack.worker(&args).await,
        stack.worker(&args).await,
        stack.worker(&args).await,
    ];
    let mut schedules = ScheduleServiceClient::connect(one.grpc.clone()).await.unwrap();
    let made = schedules.put_schedule(every_second()).await.unwrap().into_inner();
    assert!(made.created);
    let same = put(&other.http, false).await;
    assert_eq!(same["updated_at"], same["created_at"], "both doors say the same");

    let user = User::default();
    let ticked = async |count: usize| {
        wait::until("the schedule to tick", PATIENCE, || async {
            let fired = user.count(&other.http, "beat").await;
            if fired >= count { Ok(true) } else { Err(fired) }
        })
        .await;
    };
    ticked(3).await;
    workers[0].kill();
    ticked(8).await;

    // What has been fired by now is all.
    let paused = put(&other.http, true).await;
    assert_eq!(paused["next"], json!([]));
    let expected = expected(&paused);
    assert!(expected.len() >= 8, "{paused}");
    for id in &expected {
        let task = user.finished(&one.http, &id.to_string()).await;
        assert_eq!(
            json!([task["state"], task["result"]]),
            json!(["succeeded", [1]]),
            "{task}"
        );
    }
    assert_eq!(user.count(&one.http, "beat").await, expected.len());

    let name = "beat".to_owned();
    schedules
        .delete_schedule(DeleteScheduleRequest { name })
        .await
        .unwrap();
    let gone = reqwest::get(format!("{}/v1/schedules/beat", other.http))
        .await
        .unwrap();
    assert_eq!(gone.status(), 404);
}
