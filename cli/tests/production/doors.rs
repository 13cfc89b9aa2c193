//! The scaling signal has four doors: metrics, HTTP, the external scaler, and the broker's own count. They agree, and
//! where the broker is away none of them says zero.

use std::{collections::VecDeque, time::Duration};

use forebay_testkit::{broker::BrokerKind, wait};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    external::Trigger,
    stack::{Forebay, PATIENCE, Stack, User, on_every_broker},
};

on_every_broker! {
    the_four_doors_agree_under_load_and_say_unknown_without_the_broker
}

/// How old a figure may be: a sample, and what it takes to take one.
const SAMPLE: Duration = Duration::from_secs(3);
/// A page of metrics that is older says nothing; its time is in whole seconds.
const PAGE_AGE_MAX: f64 = 2.0;
/// Tasks that run for longer than the test.
const LONG: u64 = 5;
/// How long the figures are compared while tasks come in.
const LOAD: Duration = Duration::from_secs(10);

/// What tasks wait, by the broker's own count, asked as KEDA's native scalers ask.
enum Native {
    Nats(async_nats::jetstream::Context),
    RabbitMq(lapin::Connection),
}

impl Native {
    async fn of(stack: &Stack, kind: BrokerKind) -> Self {
        let url = stack.broker.url();
        match kind {
            BrokerKind::Nats => Self::Nats(async_nats::jetstream::new(
                async_nats::connect(url).await.unwrap(),
            )),
            BrokerKind::RabbitMq => {
                let properties = lapin::ConnectionProperties::default();
                Self::RabbitMq(lapin::Connection::connect(&url, properties).await.unwrap())
            }
        }
    }

    async fn ready(&self) -> Option<u64> {
        match self {
            Self::Nats(context) => {
                let stream = context.get_stream("FOREBAY_READY").await.ok()?;
                let info = stream.consumer_info("lane_default_default").await.ok()?;
                Some(info.num_pending + info.num_ack_pending as u64)
            }
            Self::RabbitMq(connection) => {
                let channel = connection.create_channel().await.ok()?;
                let passive = lapin::options::QueueDeclareOptions {
                    passive: true,
                    ..Default::default()
                };
                let name = "forebay.lane.default.default".into();
                let queue = channel.queue_declare(name, passive, lapin::types::FieldTable::default());
                Some(u64::from(queue.await.ok()?.message_count()))
            }
        }
    }
}

/// What waits and runs by HTTP and by the metrics of the api and of the scaler, their sum by gRPC, and what waits by the
/// broker.
type Said = (
    Option<(u64, u64)>,
    Option<(u64, u64)>,
    Option<(u64, u64)>,
    Option<u64>,
    Option<u64>,
);

/// The doors that give all figures.
struct Doors<'a> {
    api: &'a Forebay,
    scaler: &'a Forebay,
    trigger: Trigger,
}

impl Doors<'_> {
    async fn http(&self) -> Option<(u64, u64)> {
        let answer = reqwest::get(format!("{}/v1/queues/default/autoscale", self.api.http));
        let answer = answer.await.unwrap();
        if answer.status() != 200 {
            assert_eq!(answer.status(), 503);
            return None;
        }
        let figures: Value = answer.json().await.unwrap();
        Some((figures["ready"].as_u64()?, figures["running"].as_u64()?))
    }

    /// What a scrape of `process` shows, where it is not too old.
    async fn metrics(process: &Forebay) -> Option<(u64, u64)> {
        let page = process.metrics().await;
        let value = |name: &str| {
            let mut lines = page.lines().filter_map(|line| line.strip_prefix(name));
            let after = lines.find_map(|rest| rest.strip_prefix("{}").unwrap_or(rest).strip_prefix(' '))?;
            after.parse::<f64>().ok()
        };
        let age = unix_seconds() - value("forebay_queue_stats_timestamp_seconds")?;
        if age > PAGE_AGE_MAX {
            return None;
        }
        let of = |figure: &str| value(&format!("forebay_queue_{figure}{{queue=\"default\"}}"));
        Some((of("ready")? as u64, of("running")? as u64))
    }

    /// What each says, and the broker's own count.
    async fn all(&self, native: &Native) -> Said {
        (
            self.http().await,
            Self::metrics(self.api).await,
            Self::metrics(self.scaler).await,
            self.grpc().await,
            native.ready().await,
        )
    }

    /// The sum, as KEDA gets it.
    async fn grpc(&self) -> Option<u64> {
        match self.trigger.value().await {
            Ok(value) => Some(value as u64),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                None
            }
        }
    }
}

fn unix_seconds() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

async fn the_four_doors_agree_under_load_and_say_unknown_without_the_broker(kind: BrokerKind) {
    let mut stack = Stack::on(kind).await;
    let (api, scaler) = (stack.api().await, stack.forebay(&["scaler"]).await);
    let recorder = stack.worker(&["--roles", "recorder,dispatcher"]).await;
    User::default()
        .accepted(&api.http, &json!({"kind": "echo"}), None)
        .await;
    let native = Native::of(&stack, kind).await;
    wait::until("the first task's message", PATIENCE, || async {
        native.ready().await == Some(1)
    })
    .await;
    let doors = Doors {
        api: &api,
        scaler: &scaler,
        trigger: Trigger::new(&scaler.grpc, &[("queue", "default")]),
    };
    {
        let load = tokio::spawn(submit_for(api.http.clone(), LOAD));
        agree_within_a_sample(&doors, &native).await;
        let accepted = 1 + load.await.unwrap();
        all_say(&doors, &native, |ready, running| {
            ready >= accepted && running == 0
        })
        .await;

        // What waits is worked off while some run for longer than this test.
        let _worker = stack
            .worker(&["--roles", "executor", "--builtin-handlers", "--concurrency", "10"])
            .await;
        let sleeping = json!({"kind": "sleep", "payload": {"seconds": 3_600}});
        for _ in 0..LONG {
            User::default().accepted(&api.http, &sleeping, None).await;
        }
        all_say(&doors, &native, |ready, running| (ready, running) == (0, LONG)).await;
    }
    drop(recorder);
    stack.broker.kill().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = doors.all(&native).await;
        if said == (None, None, None, None, None) {
            break;
        }
        assert_ne!(said.0, Some((0, 0)), "zero where nothing is known");
        assert_ne!(said.3, Some(0), "zero where nothing is known");
        assert!(Instant::now() < deadline, "still said: {said:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Submits steadily, and returns how many were accepted. What a busy machine is too slow to take is not.
async fn submit_for(api: String, time: Duration) -> u64 {
    let (began, user, task) = (Instant::now(), User::default(), json!({"kind": "echo"}));
    let mut accepted = 0;
    while began.elapsed() < time {
        accepted += u64::from(user.submit(&api, &task, None).await.is_some());
    }
    accepted
}

/// With tasks only coming in, what a door says must lie between what the broker held a sample ago and what it holds.
async fn agree_within_a_sample(doors: &Doors<'_>, native: &Native) {
    let mut held = VecDeque::new();
    let (began, mut compared) = (Instant::now(), 0);
    while began.elapsed() < LOAD {
        let Some(before) = native.ready().await else {
            continue;
        };
        held.push_back((Instant::now(), before));
        let said = (
            doors.http().await,
            Doors::metrics(doors.api).await,
            Doors::metrics(doors.scaler).await,
            doors.grpc().await,
        );
        let Some(now) = native.ready().await else { continue };
        // The newest reading that is older than a sample.
        while held.len() > 1 && held[1].0.elapsed() > SAMPLE {
            held.pop_front();
        }
        let (at, least) = held[0];
        // A door that says for a moment that it does not know is as it should be on a machine that stalls.
        if let (Some((http, _)), Some((api, _)), Some((scaler, _)), Some(grpc)) = said
            && at.elapsed() > SAMPLE
        {
            for (door, said) in [
                ("HTTP", http),
                ("the api's metrics", api),
                ("the scaler's metrics", scaler),
                ("gRPC", grpc),
            ] {
                assert!(
                    (least..=now).contains(&said),
                    "{door} says {said}, the broker {least} to {now}"
                );
            }
            compared += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(compared > 5, "only {compared} comparisons");
}

/// At rest all say the same, in the end what is expected.
async fn all_say(doors: &Doors<'_>, native: &Native, expected: impl Fn(u64, u64) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = doors.all(native).await;
        if let (Some((ready, running)), api, scaler, grpc, counted) = said
            && [api, scaler] == [Some((ready, running)); 2]
            && (grpc, counted) == (Some(ready + running), Some(ready))
            && expected(ready, running)
        {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not the same, or not as expected: {said:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
