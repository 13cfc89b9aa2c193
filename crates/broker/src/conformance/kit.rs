//! What the cases have in common.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use forebay_core::{
    Clock, Json, Lane, Priority, Ready, Submission, SubmitRequest, SystemClock, TaskId, from_unix_micros,
};
use tokio::time::{Instant, timeout};

use super::Fixture;
use crate::{Broker, Delivery, Message, Source, Subscription};

/// How long something that must happen may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long something that must not happen is waited for.
pub(super) const QUIET: Duration = Duration::from_millis(300);

/// The lane of `queue` at the default priority.
pub(super) fn lane(queue: &str) -> Lane {
    Lane::new(queue.parse().expect("a valid name"), Priority::Default)
}

/// A new task. Later ones have larger ids.
pub(super) fn task(lane: &Lane) -> Submission {
    task_with(lane, SubmitRequest::default())
}

/// A new task that is not yet due.
pub(super) fn parked(lane: &Lane) -> Submission {
    task_with(
        lane,
        SubmitRequest {
            delay_seconds: Some(3_600.0),
            ..SubmitRequest::default()
        },
    )
}

/// A new task with a payload of that many bytes.
pub(super) fn large(lane: &Lane, bytes: usize) -> Submission {
    let text = format!("\"{}\"", "x".repeat(bytes - 2));
    let payload = Json::parse(text.as_bytes()).ok();
    task_with(
        lane,
        SubmitRequest {
            payload,
            ..SubmitRequest::default()
        },
    )
}

/// A new task as the request says; kind and lane are filled in.
pub(super) fn task_with(lane: &Lane, request: SubmitRequest) -> Submission {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut random = [0; 10];
    random[6..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let request = SubmitRequest {
        kind: "echo".to_owned(),
        queue: Some(lane.queue.to_string()),
        priority: Some(lane.priority.to_string()),
        ..request
    };
    // Not before the task made last, even if the clock stands still, so that ids are in order.
    static LATEST: std::sync::Mutex<i64> = std::sync::Mutex::new(0);
    let mut latest = LATEST.lock().expect("nobody panics here");
    *latest = SystemClock.now().as_microsecond().max(*latest + 1);
    request
        .accept(from_unix_micros(*latest), &random)
        .expect("a valid request")
}

/// Many new tasks.
pub(super) fn tasks(lane: &Lane, count: usize) -> Vec<Submission> {
    (0..count).map(|_| task(lane)).collect()
}

/// A recorded task as it is published when it became ready.
pub(super) fn ready(task: &Submission) -> Message {
    Message::Ready(Ready {
        id: task.id,
        kind: task.kind.clone(),
        lane: task.lane.clone(),
        fence: 0,
        lost: 0,
    })
}

pub(super) fn ids(tasks: &[Submission]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

/// Publishes, and sees to it that all is confirmed.
pub(super) async fn publish(broker: &dyn Broker, tasks: &[Submission]) {
    publish_messages(broker, tasks.iter().cloned().map(Message::Submission).collect()).await;
}

/// Makes these tasks ready in their lanes, as the recorder does once they are in the store: where the store is the
/// broker's log, they are put there first.
pub(super) async fn make_ready(fixture: &impl Fixture, tasks: &[Submission]) {
    make_ready_by(fixture, &*fixture.broker(), tasks).await;
}

/// The same, by that one of the fixture's brokers.
pub(super) async fn make_ready_by(fixture: &impl Fixture, broker: &dyn Broker, tasks: &[Submission]) {
    if fixture.records_by_itself() {
        publish(broker, tasks).await;
    }
    publish_messages(broker, tasks.iter().map(ready).collect()).await;
}

pub(super) async fn publish_messages(broker: &dyn Broker, messages: Vec<Message>) {
    let count = messages.len();
    let outcomes = broker.publish(messages).await;
    assert_eq!(outcomes.len(), count, "one outcome for each message");
    for outcome in outcomes {
        outcome.expect("a healthy broker confirms");
    }
}

pub(super) async fn consume(broker: &dyn Broker, lane: &Lane) -> Subscription {
    broker
        .consume(Source::Lane(lane.clone()))
        .await
        .expect("a healthy broker lets one consume")
}

/// The task that a delivery is about.
pub(super) fn id(delivery: &Delivery) -> TaskId {
    match &delivery.message {
        Ok(Message::Submission(task)) => task.id,
        Ok(Message::Ready(task)) => task.id,
        Err(undecodable) => panic!("cannot be decoded: {undecodable:?}"),
    }
}

pub(super) fn ids_of(deliveries: &[Delivery]) -> Vec<TaskId> {
    deliveries.iter().map(id).collect()
}

/// Consumes what the recorder reads.
pub(super) async fn record(broker: &dyn Broker) -> Subscription {
    broker
        .consume(Source::Submissions)
        .await
        .expect("a healthy broker lets one record")
}

/// Takes `count` deliveries, and acknowledges none.
pub(super) async fn take(subscription: &mut Subscription, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while taken.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} deliveries came",
            taken.len()
        );
        let more = subscription
            .consumer
            .next(count - taken.len(), Duration::from_secs(1))
            .await;
        taken.extend(more.expect("a healthy subscription delivers"));
    }
    taken
}

/// Says that these are done, as a worker does once its claim is committed.
pub(super) async fn finish(fixture: &impl Fixture, subscription: &Subscription, deliveries: Vec<Delivery>) {
    fixture.settle(&ids_of(&deliveries)).await;
    let tokens = deliveries.into_iter().map(|delivery| delivery.token).collect();
    subscription
        .acks
        .ack(tokens)
        .await
        .expect("a healthy subscription acknowledges");
}

/// Takes and finishes what comes until there were `count` different tasks and then nothing more. Says how often
/// each came.
pub(super) async fn drain(
    fixture: &impl Fixture,
    subscription: &mut Subscription,
    count: usize,
) -> BTreeMap<TaskId, usize> {
    let mut seen = BTreeMap::new();
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "{} of {count} tasks came", seen.len());
        let wait = if seen.len() < count {
            Duration::from_secs(1)
        } else {
            QUIET
        };
        let more = subscription
            .consumer
            .next(500, wait)
            .await
            .expect("a healthy subscription delivers");
        if more.is_empty() && seen.len() >= count {
            return seen;
        }
        for delivery in &more {
            *seen.entry(id(delivery)).or_insert(0) += 1;
        }
        finish(fixture, subscription, more).await;
    }
}

/// Sees to it that exactly these came, each once.
pub(super) fn assert_once(seen: &BTreeMap<TaskId, usize>, tasks: &[Submission]) {
    let expected: BTreeMap<TaskId, usize> = tasks.iter().map(|task| (task.id, 1)).collect();
    assert_eq!(seen.len(), expected.len(), "as many tasks as were published");
    assert_eq!(seen, &expected);
}

/// Sees to it that nothing comes for a while.
pub(super) async fn assert_quiet(subscription: &mut Subscription) {
    let came = subscription
        .consumer
        .next(10, QUIET)
        .await
        .expect("a healthy subscription answers");
    assert_eq!(ids_of(&came), [], "nothing was to come");
}

/// Asks again until the answer is the expected one: counts follow what happened, if soon.
pub(super) async fn eventually<T, F, A>(what: &str, expected: T, mut ask: F)
where
    T: PartialEq + std::fmt::Debug,
    F: FnMut() -> A,
    A: Future<Output = T>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = timeout(PATIENCE, ask()).await.expect("an answer");
        if answer == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: {answer:?} instead of {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
