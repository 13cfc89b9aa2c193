//! The server dies, hangs, fills up, or loses everything, while one and the same broker object goes on.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use forebay_broker::{Broker, PublishError, Source};
use forebay_broker_rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use forebay_core::{Json, Lane, Signal, SubmitRequest, TaskId};
use forebay_testkit::wait;
use futures::{FutureExt, StreamExt};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::support::*;

/// As in production: who waits longer was not answered in time.
const PUBLISH_TIMEOUT: Duration = Duration::from_millis(1_500);

fn in_a_hurry(options: &mut RabbitMqOptions) {
    options.publish_timeout = PUBLISH_TIMEOUT;
}

type Ids = Arc<Mutex<BTreeSet<TaskId>>>;

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nobody panics with it")
}

/// Why publishing failed last.
type Trouble = Arc<Mutex<String>>;

/// Waits until there are that many more.
async fn more(ids: &Ids, count: usize, trouble: &Trouble) {
    let enough = locked(ids).len() + count;
    wait::until("confirmations", PATIENCE, async || {
        let known = locked(ids).len();
        if known >= enough {
            return Ok(true);
        }
        Err(format!("{known} of {enough} came, {:?}", locked(trouble)))
    })
    .await;
}

/// Publishes batches, of tasks that are submitted and ready, until told to stop, and keeps the ids of those that were
/// confirmed as both.
fn publish_on(
    broker: Arc<RabbitMqBroker>,
    lane: Lane,
    confirmed: Ids,
    trouble: Trouble,
    stop: Arc<AtomicBool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            let batch = tasks(&lane, 20);
            let mut messages = submissions(&batch);
            messages.extend(batch.iter().map(ready));
            let outcomes = broker.publish(messages).await;
            if let Some(error) = outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
                *locked(&trouble) = error.to_string();
                sleep(Duration::from_millis(20)).await;
            }
            let (submitted, ready) = outcomes.split_at(batch.len());
            let ids = batch
                .iter()
                .zip(submitted.iter().zip(ready))
                .filter(|(_, both)| both.0.is_ok() && both.1.is_ok())
                .map(|(task, _)| task.id);
            locked(&confirmed).extend(ids);
        }
    })
}

/// Consumes and acknowledges until told to stop, and keeps the ids of what came.
fn consume_on(
    broker: Arc<RabbitMqBroker>,
    source: Source,
    came: Ids,
    stop: Arc<AtomicBool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut subscription) = broker.consume(source.clone()).await else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            while let Ok(deliveries) = subscription.consumer.next(50, Duration::from_millis(100)).await {
                locked(&came).extend(deliveries.iter().map(id));
                let tokens = deliveries.into_iter().map(|delivery| delivery.token).collect();
                // What can't be acknowledged comes again.
                let _ = subscription.acks.ack(tokens).await;
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_confirmed_is_lost_when_the_server_is_killed() {
    let mut served = alone_with(in_a_hurry).await;
    let lane = lane("crash");
    let (confirmed, executed, recorded) = (Ids::default(), Ids::default(), Ids::default());
    let (trouble, stop) = (Trouble::default(), Arc::new(AtomicBool::new(false)));
    served.ready_at_last(&tasks(&lane, 1)).await;
    // RabbitMQ 3.10 writes down half a second later where on its disk a new queue is, and forgets what is in it if it
    // is killed before. Here, it does so at once.
    let written = served
        .server()
        .eval("[ok = dets:sync(Table) || Table <- dets:all()]")
        .await;
    assert!(written.unwrap().contains("ok"));
    let publishing = publish_on(
        Arc::clone(&served.broker),
        lane.clone(),
        Arc::clone(&confirmed),
        Arc::clone(&trouble),
        Arc::clone(&stop),
    );
    let consuming = [
        (Source::Lane(lane), Arc::clone(&executed)),
        (Source::Submissions, Arc::clone(&recorded)),
    ]
    .map(|(source, came)| consume_on(Arc::clone(&served.broker), source, came, Arc::clone(&stop)));
    for _ in 0..2 {
        more(&confirmed, 200, &trouble).await;
        served.server().kill().unwrap();
        served.server().restart().await.unwrap();
    }
    more(&confirmed, 200, &trouble).await;
    stop.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
    for consuming in consuming {
        consuming.await.unwrap();
    }
    stop.store(false, Ordering::Relaxed);
    let confirmed = locked(&confirmed).clone();
    for (source, came) in [
        (Source::Lane(self::lane("crash")), executed),
        (Source::Submissions, recorded),
    ] {
        let _rest = consume_on(
            Arc::clone(&served.broker),
            source.clone(),
            Arc::clone(&came),
            Arc::clone(&stop),
        );
        wait::until("all that was confirmed", PATIENCE, async || {
            let missing = confirmed.difference(&locked(&came)).count();
            if missing == 0 {
                Ok(true)
            } else {
                Err(format!("{missing} missing in {source:?}"))
            }
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
}

#[tokio::test]
async fn while_the_server_is_down_everything_fails_fast_and_heals_by_itself() {
    let mut served = alone_with(in_a_hurry).await;
    let lane = lane("down");
    let early = tasks(&lane, 1);
    served.submit_at_last(&early).await;
    served.ready_at_last(&early).await;
    let mut signals = served.broker.signals().await.unwrap();
    let mut idle = served.consume(&self::lane("idle")).await;
    let mut recorder = served.broker.consume(Source::Submissions).await.unwrap();
    hold(&mut recorder, 1).await;
    let mut waiting = Box::pin(async {
        let wait = Duration::from_secs(30);
        tokio::join!(idle.consumer.next(10, wait), recorder.consumer.next(10, wait))
    });
    assert!((&mut waiting).now_or_never().is_none());
    served.own.as_mut().unwrap().kill().unwrap();
    let answers = timeout(Duration::from_secs(5), waiting)
        .await
        .expect("an answer in time");
    assert!(
        answers.0.is_err() && answers.1.is_err(),
        "{answers:?} from a server that died"
    );
    let end = timeout(Duration::from_secs(5), signals.next())
        .await
        .expect("an end in time");
    assert_eq!(end, None, "who listens must know that something was missed");
    for batch in [tasks(&lane, 1), tasks(&lane, 5)] {
        let since = Instant::now();
        let outcome = served.try_submit(&batch).await;
        assert!(
            matches!(outcome, Err(PublishError::Unavailable(_))),
            "{outcome:?}"
        );
        assert!(
            since.elapsed() < Duration::from_millis(500),
            "it took {:?}",
            since.elapsed()
        );
    }
    assert!(served.broker.check().await.is_err());
    assert!(
        served.broker.depth(&lane).await.is_err(),
        "an unknown depth is not zero"
    );
    assert!(
        served.broker.unrecorded().await.is_err(),
        "what is not known is not zero"
    );
    assert!(served.broker.signals().await.is_err());
    assert!(served.broker.signal(Signal::Cancel(Vec::new())).await.is_err());
    let since = Instant::now();
    RabbitMqBroker::connect(&served.options).await.unwrap_err();
    assert!(
        since.elapsed() < Duration::from_secs(2),
        "a refused connection is known at once"
    );
    served.server().restart().await.unwrap();
    let late = tasks(&lane, 3);
    for task in &late {
        served.submit_at_last(std::slice::from_ref(task)).await;
    }
    served.ready_at_last(&late).await;
    let mut subscription = served.consume_at_last(&Source::Lane(lane)).await;
    assert_eq!(take(&mut subscription, 4).await[1..], ids(&late));
    let unrecorded = async || served.broker.unrecorded().await.map(|count| count == 4);
    wait::until("all to be unrecorded", PATIENCE, unrecorded).await;
    let mut signals = served.broker.signals().await.unwrap();
    let signal = Signal::Cancel(ids(&late));
    served.broker.signal(signal.clone()).await.unwrap();
    assert_eq!(timeout(PATIENCE, signals.next()).await.unwrap(), Some(signal));
}

#[tokio::test]
async fn a_server_that_hangs_holds_nobody_up() {
    let served = alone_with(in_a_hurry).await;
    let lane = lane("hang");
    let early = tasks(&lane, 1);
    served.submit_at_last(&early).await;
    served.ready_at_last(&early).await;
    let mut subscription = served.consume(&lane).await;
    take(&mut subscription, 1).await;
    let mut patient = served.consume(&lane).await;
    let mut recorder = served.broker.consume(Source::Submissions).await.unwrap();
    take(&mut recorder, 1).await;
    served.own.as_ref().unwrap().pause().unwrap();
    // The last is far more than fits into the buffers on the way.
    let [one, some] = [1, 50].map(|count| tasks(&lane, count));
    let payload = format!("\"{}\"", "x".repeat(200_000));
    let large = || SubmitRequest {
        payload: Json::parse(payload.as_bytes()).ok(),
        ..SubmitRequest::default()
    };
    let many: Vec<_> = (0..100).map(|_| task(&lane, large())).collect();
    let many_ready = tasks(&lane, 5_000);
    let since = Instant::now();
    let publishing = async {
        let outcomes = tokio::join!(
            served.try_submit(&one),
            served.try_ready(&some),
            served.try_submit(&many),
            served.try_ready(&many_ready),
        );
        for outcome in [outcomes.0, outcomes.1, outcomes.2, outcomes.3] {
            assert!(
                matches!(outcome, Err(PublishError::Unavailable(_))),
                "{outcome:?}"
            );
        }
        let took = since.elapsed();
        assert!(
            took < PUBLISH_TIMEOUT + Duration::from_millis(500),
            "publishing took {took:?}"
        );
    };
    let looking = async {
        assert!(served.broker.check().await.is_err());
        assert!(served.broker.depth(&lane).await.is_err());
        assert!(served.broker.unrecorded().await.is_err());
        let took = since.elapsed();
        assert!(took < Duration::from_secs(5), "looking took {took:?}");
    };
    let short = Duration::from_millis(500);
    let waiting = async {
        let answer = subscription.consumer.next(10, short).await;
        assert!(answer.is_err(), "{answer:?} from a server that hangs");
        let took = since.elapsed();
        assert!(
            took < short + Duration::from_secs(1),
            "a short wait took {took:?}"
        );
    };
    let long = Duration::from_secs(20);
    let waiting_long = async {
        let answers = tokio::join!(patient.consumer.next(10, long), recorder.consumer.next(10, long));
        assert!(
            answers.0.is_err() && answers.1.is_err(),
            "{answers:?} from a server that hangs"
        );
        let took = since.elapsed();
        assert!(took < Duration::from_secs(4), "a long wait took {took:?}");
    };
    tokio::join!(publishing, looking, waiting, waiting_long);
    let since = Instant::now();
    let error = RabbitMqBroker::connect(&served.options).await.unwrap_err();
    assert!(error.to_string().contains("connect to RabbitMQ"), "{error}");
    assert!(
        since.elapsed() < Duration::from_secs(6),
        "connecting took {:?}",
        since.elapsed()
    );
    served.own.as_ref().unwrap().resume().unwrap();
    let task = tasks(&lane, 1);
    served.ready_at_last(&task).await;
    let mut subscription = served.consume_at_last(&Source::Lane(lane)).await;
    // What was written before the pause and never confirmed may be there too.
    wait::until("the task", PATIENCE, async || {
        let deliveries = subscription
            .consumer
            .next(500, Duration::from_secs(1))
            .await
            .unwrap();
        deliveries.iter().any(|delivery| id(delivery) == task[0].id)
    })
    .await;
}

#[tokio::test]
async fn a_server_that_lost_everything_is_set_up_again() {
    let mut served = alone().await;
    for publish_first in [true, false] {
        let lane = lane("wiped");
        let old = tasks(&lane, 10);
        served.submit_at_last(&old).await;
        served.ready_at_last(&old).await;
        let mut before = served.consume_at_last(&Source::Submissions).await;
        let old = hold(&mut before, 5).await;
        served.server().kill().unwrap();
        served.server().wipe().unwrap();
        served.server().restart().await.unwrap();
        let broker = &served.broker;
        wait::until("a depth of zero", PATIENCE, async || {
            broker.depth(&lane).await.map(|depth| depth.is_empty())
        })
        .await;
        // The other connection may take longer to come back. Until then it is not known.
        let unrecorded = async || broker.unrecorded().await.map(Some);
        assert_eq!(wait::until("a count", PATIENCE, unrecorded).await, 0);
        wait::until("health", PATIENCE, async || broker.check().await.map(|()| true)).await;
        let new = tasks(&lane, 4);
        if publish_first {
            served.submit_at_last(&new).await;
            served.ready_at_last(&new).await;
        }
        let mut subscription = served.consume_at_last(&Source::Lane(lane.clone())).await;
        if !publish_first {
            served.ready_at_last(&new).await;
            served.submit_at_last(&new).await;
        }
        assert_eq!(take(&mut subscription, 4).await, ids(&new));
        // Deliveries are numbered anew: a late acknowledgement would name another message than it means.
        let mut recorder = served.consume_at_last(&Source::Submissions).await;
        let again = hold(&mut recorder, 4).await;
        let late = before
            .acks
            .ack(old.into_iter().map(|delivery| delivery.token).collect())
            .await;
        assert!(late.is_err());
        let tokens = again.into_iter().map(|delivery| delivery.token).collect();
        recorder.acks.hand_back(tokens).await.unwrap();
        let mut taken = take(&mut recorder, 4).await;
        taken.sort_unstable();
        assert_eq!(taken, ids(&new));
    }
}

#[tokio::test]
async fn a_server_short_of_disk_refuses_at_once_and_goes_on_delivering() {
    let served = alone_with(in_a_hurry).await;
    let lane = lane("disk");
    let before = tasks(&lane, 20);
    served.ready_at_last(&before).await;
    let mut subscription = served.consume(&lane).await;
    served.own.as_ref().unwrap().raise_disk_alarm().await.unwrap();
    // The server says that it is blocked once it is given something.
    let since = Instant::now();
    let _ = served.try_ready(&tasks(&lane, 300)).await;
    let took = since.elapsed();
    assert!(
        took < PUBLISH_TIMEOUT + Duration::from_millis(300),
        "the first took {took:?}"
    );
    for _ in 0..20 {
        let since = Instant::now();
        let Err(PublishError::Unavailable(why)) = served.try_submit(&tasks(&lane, 1)).await else {
            panic!("published to a server that is short of disk");
        };
        assert!(
            why.contains("blocked publishers") && why.contains("disk"),
            "{why}"
        );
        let took = since.elapsed();
        assert!(took < Duration::from_millis(100), "refusing took {took:?}");
    }
    let error = served.broker.check().await.unwrap_err();
    assert!(
        error.source.to_string().contains("blocked publishers"),
        "{}",
        error.source
    );
    assert_eq!(take(&mut subscription, 20).await, ids(&before));
    served.broker.depth(&lane).await.unwrap();
    let mut other = served.consume(&self::lane("new")).await;
    assert_eq!(other.consumer.next(1, Duration::ZERO).await.unwrap(), []);
    served.own.as_ref().unwrap().clear_disk_alarm().await.unwrap();
    let after = tasks(&lane, 1);
    served.submit_at_last(&after).await;
    served.broker.check().await.unwrap();
    // Health asks as well, and so a server that nobody publishes to is found to be blocked.
    served.own.as_ref().unwrap().raise_disk_alarm().await.unwrap();
    wait::until("failing health", PATIENCE, async || {
        served.broker.check().await.is_err()
    })
    .await;
    served.own.as_ref().unwrap().clear_disk_alarm().await.unwrap();
    wait::until("health", PATIENCE, async || {
        served.broker.check().await.map(|()| true)
    })
    .await;
}

/// The server closes the channel of one who does not acknowledge for half an hour.
#[tokio::test]
async fn a_channel_that_the_server_closes_is_noticed_and_made_again() {
    let mut served = alone().await;
    let lane = lane("slow");
    let published = tasks(&lane, 3);
    served.submit_at_last(&published).await;
    served.ready_at_last(&published).await;
    let impatience = "application:set_env(rabbit, consumer_timeout, 100)";
    served.server().eval(impatience).await.unwrap();
    let mut slow = served.consume(&lane).await;
    let mut recorder = served.broker.consume(Source::Submissions).await.unwrap();
    let (held, _unrecorded) = (hold(&mut slow, 3).await, hold(&mut recorder, 3).await);
    served
        .server()
        .eval("application:set_env(rabbit, consumer_timeout, 1800000)")
        .await
        .unwrap();
    for (name, subscription) in [("lane", &mut slow), ("recorder", &mut recorder)] {
        wait::until(name, PATIENCE, async || {
            // What the server does every minute.
            let tick = "[Channel ! tick || Channel <- rabbit_channel:list_local()]";
            served.own.as_ref().unwrap().eval(tick).await.unwrap();
            subscription
                .consumer
                .next(1, Duration::from_millis(50))
                .await
                .is_err()
        })
        .await;
    }
    let tokens = held.into_iter().map(|delivery| delivery.token).collect();
    assert!(slow.acks.ack(tokens).await.is_err());
    for source in [Source::Lane(lane), Source::Submissions] {
        let mut again = served.consume_at_last(&source).await;
        let mut taken = take(&mut again, 3).await;
        taken.sort_unstable();
        assert_eq!(taken, ids(&published));
    }
}
