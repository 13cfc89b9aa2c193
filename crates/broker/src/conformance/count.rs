use super::{Fixture, kit::*};
use crate::{Depth, Source};

/// Nothing is in a lane that nobody ever used, and asking does not hurt.
pub async fn a_lane_never_used_is_empty(fixture: impl Fixture) {
    let depth = fixture
        .broker()
        .depth(&lane("never"))
        .await
        .expect("a healthy broker");
    assert!(depth.is_empty(), "{depth:?}");
}

/// The depth of a lane is what waits, and what is delivered and not acknowledged.
pub async fn depth_counts_what_waits_and_what_is_delivered(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("deep"));
    let depth = || async { broker.depth(&lane).await.expect("a healthy broker") };
    publish(&*broker, &tasks(&lane, 5)).await;
    publish(&*broker, &[parked(&lane)]).await;
    eventually(
        "all wait",
        Depth {
            waiting: 5,
            delivered: 0,
        },
        depth,
    )
    .await;
    let mut subscription = consume(&*broker, &lane).await;
    let taken = take(&mut subscription, 2).await;
    eventually(
        "two are delivered",
        Depth {
            waiting: 3,
            delivered: 2,
        },
        depth,
    )
    .await;
    finish(&fixture, &subscription, taken).await;
    eventually(
        "two are done",
        Depth {
            waiting: 3,
            delivered: 0,
        },
        depth,
    )
    .await;
    let rest = take(&mut subscription, 3).await;
    finish(&fixture, &subscription, rest).await;
    eventually("all are done", Depth::default(), depth).await;
}

/// Submissions count as unrecorded until the recorder has acknowledged them.
pub async fn what_is_not_recorded_is_counted(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("recorded"));
    let unrecorded = || async { broker.unrecorded().await.expect("a healthy broker") };
    assert_eq!(unrecorded().await, 0);
    let submissions = tasks(&lane, 3).into_iter().chain([parked(&lane)]);
    for submission in submissions {
        publish(&*broker, &[submission]).await;
        // At once: the API tells a task that was just accepted from one that does not exist by this.
        assert_eq!(unrecorded().await == 0, fixture.records_by_itself());
    }
    if fixture.records_by_itself() {
        return;
    }
    eventually("none is recorded", 4, unrecorded).await;
    let mut recorder = broker.consume(Source::Submissions).await.expect("a recorder");
    let taken = take(&mut recorder, 4).await;
    assert_eq!(unrecorded().await, 4, "delivered is not recorded");
    finish(&fixture, &recorder, taken).await;
    eventually("all are recorded", 0, unrecorded).await;
}

/// Trimming at any moment loses nothing that somebody still has to read or to acknowledge.
pub async fn trim_keeps_what_is_needed(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("trimmed"));
    let trim = || async { broker.trim().await.expect("a healthy broker") };
    let published = tasks(&lane, 30);
    publish(&*broker, &published).await;
    trim().await;
    if !fixture.records_by_itself() {
        let mut recorder = broker.consume(Source::Submissions).await.expect("a recorder");
        assert_once(&drain(&fixture, &mut recorder, 30).await, &published);
    }
    trim().await;
    let mut subscription = consume(&*broker, &lane).await;
    let done = take(&mut subscription, 10).await;
    finish(&fixture, &subscription, done).await;
    let held = take(&mut subscription, 10).await;
    trim().await;
    let tokens = held.into_iter().map(|delivery| delivery.token).collect();
    subscription
        .acks
        .hand_back(tokens)
        .await
        .expect("a healthy subscription");
    trim().await;
    let seen = drain(&fixture, &mut subscription, 20).await;
    assert_once(&seen, &published[10..]);
    trim().await;
    assert_quiet(&mut subscription).await;
}

/// What a lane reads is published in several ways. That nothing of one is left must not hide what is left of
/// another.
pub async fn trim_keeps_what_a_lane_holds_beside_what_it_forgets(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("mixed"));
    let mut subscription = consume(&*broker, &lane).await;
    let mut recorder = broker.consume(Source::Submissions).await.expect("a recorder");
    for order in [[true, false], [false, true]] {
        for (round, new) in order.into_iter().enumerate() {
            let tasks = tasks(&lane, 6);
            if new || fixture.records_by_itself() {
                publish(&*broker, &tasks).await;
            }
            if !new {
                publish_messages(&*broker, tasks.iter().map(ready).collect()).await;
            }
            if new && !fixture.records_by_itself() {
                drain(&fixture, &mut recorder, 6).await;
            }
            if round == 0 {
                let taken = take(&mut subscription, 6).await;
                finish(&fixture, &subscription, taken).await;
                continue;
            }
            // Once the broker knows of the acknowledgements, there is something to trim.
            let held = || async { broker.depth(&lane).await.expect("a healthy broker").delivered };
            eventually("nothing is under way", 0, held).await;
            let unrecorded = || async { broker.unrecorded().await.expect("a healthy broker") };
            eventually("all is recorded", 0, unrecorded).await;
            // Twice: the second time knows what the first has done.
            broker.trim().await.expect("a healthy broker");
            broker.trim().await.expect("a healthy broker");
            assert_once(&drain(&fixture, &mut subscription, 6).await, &tasks);
        }
    }
}
