use super::{Fixture, kit::*};
use crate::Depth;

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
    make_ready(&fixture, &tasks(&lane, 5)).await;
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
    for batch in [tasks(&lane, 3), tasks(&lane, 1), vec![parked(&lane)]] {
        publish(&*broker, &batch).await;
        // At once: the API tells a task that was just accepted from one that does not exist by this.
        assert_eq!(unrecorded().await == 0, fixture.records_by_itself());
    }
    if fixture.records_by_itself() {
        return;
    }
    // What is ready is recorded.
    make_ready(&fixture, &tasks(&lane, 3)).await;
    let mut recorder = record(&*broker).await;
    let mut taken = take(&mut recorder, 5).await;
    assert!(unrecorded().await > 0, "delivered is not recorded");
    let last = taken.split_off(4);
    finish(&fixture, &recorder, taken).await;
    assert!(unrecorded().await > 0, "one is not recorded");
    finish(&fixture, &recorder, last).await;
    eventually("all are recorded", 0, unrecorded).await;
}

/// Trimming at any moment loses nothing that somebody still has to read or to acknowledge.
pub async fn trim_keeps_what_is_needed(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("trimmed"));
    let trim = || async { broker.trim().await.expect("a healthy broker") };
    let published = tasks(&lane, 30);
    if !fixture.records_by_itself() {
        let mut recorder = record(&*broker).await;
        for part in published.chunks(10) {
            publish(&*broker, part).await;
        }
        let done = take(&mut recorder, 12).await;
        finish(&fixture, &recorder, done).await;
        trim().await;
        // A part of a message is done, the rest is not: it counts as not done.
        let rest = drain(&fixture, &mut recorder, 18).await;
        assert_once(&rest, &published[12..]);
    }
    make_ready(&fixture, &published).await;
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

/// Lanes and the recorder are trimmed beside each other. That nothing of one is left must not hide what is left of
/// another.
pub async fn trim_keeps_what_one_reader_holds_beside_what_another_forgets(fixture: impl Fixture) {
    let broker = fixture.broker();
    let (one, other) = (lane("mixed"), lane("mixed_high"));
    let mut recorder = record(&*broker).await;
    let mut readers = [consume(&*broker, &one).await, consume(&*broker, &other).await];
    for round in 0..4 {
        let [done, kept] = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let tasks = [tasks(&one, 6), tasks(&other, 6)];
        make_ready(&fixture, &tasks[0]).await;
        make_ready(&fixture, &tasks[1]).await;
        let taken = take(&mut readers[done], 6).await;
        finish(&fixture, &readers[done], taken).await;
        let submitted = parked(&one);
        publish(&*broker, std::slice::from_ref(&submitted)).await;
        // Once the broker knows of the acknowledgements, there is something to trim.
        let lane = [&one, &other][done];
        let held = || async { broker.depth(lane).await.expect("a healthy broker").delivered };
        eventually("nothing is under way", 0, held).await;
        // Twice: the second time knows what the first has done.
        broker.trim().await.expect("a healthy broker");
        broker.trim().await.expect("a healthy broker");
        assert_once(&drain(&fixture, &mut readers[kept], 6).await, &tasks[kept]);
        if !fixture.records_by_itself() {
            assert_once(&drain(&fixture, &mut recorder, 1).await, &[submitted]);
        }
    }
}
