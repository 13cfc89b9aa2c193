//! What running attempts say of how far they are, as their worker hands it on with its heartbeats.

use std::sync::Arc;

use forebay_core::{Decision, State, TaskId, TaskProgress, WorkerId};

use super::support::*;
use crate::{ClaimRequest, Claimed, Heartbeat, HeartbeatReply, ProgressNote, Store, StoreError, TaskFilter};

/// How far a start is.
fn note(claimed: &Claimed, fraction: f64, message: &str) -> ProgressNote {
    ProgressNote {
        id: claimed.id,
        fence: claimed.fence,
        fraction,
        message: message.to_owned(),
    }
}

/// A worker says it.
async fn try_say(
    store: &dyn Store,
    worker: WorkerId,
    progress: Vec<ProgressNote>,
) -> crate::Result<HeartbeatReply> {
    let says = Heartbeat {
        progress,
        ..beat(worker, now(store).await)
    };
    store.heartbeat(&says).await
}

async fn say(store: &dyn Store, worker: WorkerId, progress: Vec<ProgressNote>) {
    let reply = try_say(store, worker, progress).await.expect("heartbeat");
    assert_eq!(reply, HeartbeatReply::default());
}

/// What a task shows of it, without its time.
async fn shown(store: &dyn Store, id: TaskId) -> Option<(f64, String)> {
    let progress = get(store, id).await.progress?;
    Some((progress.fraction, progress.message))
}

fn is(fraction: f64, message: &str) -> Option<(f64, String)> {
    Some((fraction, message.to_owned()))
}

/// It is read with the task, alone and in lists, and its time is the store's. Nothing else of the task changes.
pub async fn is_kept_with_the_task_as_it_was_said(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    let other = recorded(&*store).await;
    let before = get(&*store, task.id).await;
    assert_eq!(before.progress, None);
    let from = now(&*store).await;
    say(&*store, worker, vec![note(&claimed, 0.375, "3 of 8")]).await;
    let until = now(&*store).await;
    let mut after = get(&*store, task.id).await;
    let listed = store.list(&TaskFilter::default(), 10, None).await.expect("list");
    assert_eq!(listed.tasks[1], after);
    assert_eq!((listed.tasks[0].id, &listed.tasks[0].progress), (other.id, &None));
    let TaskProgress {
        fraction,
        message,
        at,
    } = after.progress.take().expect("its progress");
    assert_eq!((fraction, message.as_str()), (0.375, "3 of 8"));
    assert!(from <= at && at <= until, "{from} {at} {until}");
    assert_eq!(after, before);
}

/// Said by one heartbeat after the other; one that says nothing of it changes nothing.
pub async fn the_latest_word_counts(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    for (fraction, message) in [(0.1, "a"), (0.9, ""), (0.2, "back")] {
        say(&*store, worker, vec![note(&claimed, fraction, message)]).await;
        assert_eq!(shown(&*store, task.id).await, is(fraction, message));
    }
    say(&*store, worker, Vec::new()).await;
    assert_eq!(shown(&*store, task.id).await, is(0.2, "back"));
}

/// Between two attempts the former one's is shown.
pub async fn the_next_start_begins_without(store: Arc<dyn Store>) {
    for decision in [RETRY_NOW, HAND_BACK] {
        let (task, worker, claimed) = running(&*store).await;
        say(&*store, worker, vec![note(&claimed, 0.5, "half")]).await;
        complete(&*store, worker, ended(&claimed, decision)).await;
        assert_eq!(shown(&*store, task.id).await, is(0.5, "half"));
        let again = claim_ready(&*store, worker, &task, 1).await.expect("granted");
        assert_eq!(shown(&*store, task.id).await, None);
        say(&*store, worker, vec![note(&again, 0.25, "a quarter")]).await;
        assert_eq!(shown(&*store, task.id).await, is(0.25, "a quarter"));
    }
}

/// However it has ended.
pub async fn it_stays_when_the_attempt_has_ended(store: Arc<dyn Store>) {
    for decision in [Decision::Succeed, Decision::Fail, Decision::Cancel] {
        let (task, worker, claimed) = running(&*store).await;
        say(&*store, worker, vec![note(&claimed, 0.75, "nearly")]).await;
        complete(&*store, worker, ended(&claimed, decision)).await;
        let found = get(&*store, task.id).await;
        assert!(found.state.is_final());
        assert_eq!(shown(&*store, task.id).await, is(0.75, "nearly"));
    }
}

/// A former start that went on, and one that never was.
pub async fn a_word_about_another_start_is_passed_over(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    complete(&*store, worker, ended(&claimed, RETRY_NOW)).await;
    let again = claim_ready(&*store, worker, &task, 1).await.expect("granted");
    let later = Claimed {
        fence: 3,
        ..again.clone()
    };
    say(
        &*store,
        worker,
        vec![note(&claimed, 0.1, "old"), note(&later, 0.2, "new")],
    )
    .await;
    assert_eq!(shown(&*store, task.id).await, None);
    let mixed = vec![
        note(&later, 0.2, "new"),
        note(&again, 0.3, "now"),
        note(&claimed, 0.1, "old"),
    ];
    say(&*store, worker, mixed).await;
    assert_eq!(shown(&*store, task.id).await, is(0.3, "now"));
}

/// What has ended, waits for another attempt, or is not known.
pub async fn a_word_about_what_does_not_run_is_passed_over(store: Arc<dyn Store>) {
    for decision in [Decision::Succeed, Decision::Fail, RETRY_LATER] {
        let (task, worker, claimed) = running(&*store).await;
        complete(&*store, worker, ended(&claimed, decision)).await;
        let before = get(&*store, task.id).await;
        let stranger = Claimed {
            id: task_at(task.created_at).id,
            ..claimed.clone()
        };
        say(
            &*store,
            worker,
            vec![note(&claimed, 0.5, "late"), note(&stranger, 0.5, "who")],
        )
        .await;
        assert_eq!(get(&*store, task.id).await, before);
    }
}

/// Only who runs it knows.
pub async fn another_workers_word_is_passed_over(store: Arc<dyn Store>) {
    let (task, _, claimed) = running(&*store).await;
    let (own, other, other_claimed) = running(&*store).await;
    let notes = vec![note(&claimed, 0.5, "not mine"), note(&other_claimed, 0.6, "mine")];
    say(&*store, other, notes).await;
    assert_eq!(shown(&*store, task.id).await, None);
    assert_eq!(shown(&*store, own.id).await, is(0.6, "mine"));
}

/// Its tasks are elsewhere.
pub async fn a_worker_that_was_declared_dead_says_nothing(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    bury_all(&*store, 5).await;
    let before = get(&*store, task.id).await;
    let said = try_say(&*store, worker, vec![note(&claimed, 0.5, "alive")]).await;
    assert!(matches!(said, Err(StoreError::WorkerGone)));
    assert_eq!(get(&*store, task.id).await, before);
}

/// More than fit a page, each its own.
pub async fn many_tasks_of_several_days_in_one_heartbeat(store: Arc<dyn Store>) {
    const DAY: i64 = 24 * 3_600;
    let (at, worker) = (now(&*store).await, worker(&*store).await);
    let tasks: Vec<_> = (0..300).map(|n| task_at(plus(at, -DAY * (n % 3)))).collect();
    store.record(&tasks).await.expect("record");
    let wanted: Vec<ClaimRequest> = tasks.iter().map(wants_new).collect();
    let claimed = store.claim(worker, claim_id(), &wanted).await.expect("claim");
    let notes = claimed.iter().enumerate().map(|(n, claimed)| {
        let claimed = claimed.as_ref().expect("granted");
        note(claimed, n as f64 / 1_000.0, &format!("task {n}"))
    });
    say(&*store, worker, notes.collect()).await;
    for (n, task) in tasks.iter().enumerate() {
        assert_eq!(
            shown(&*store, task.id).await,
            is(n as f64 / 1_000.0, &format!("task {n}"))
        );
        assert_eq!(get(&*store, task.id).await.state, State::Running);
    }
}

/// Any fraction, and any text that a [`TaskProgress::message`] may be.
pub async fn whatever_may_be_said_comes_back(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    let long = TaskProgress::message(&"\0x".repeat(1_000));
    let said = [
        (0.0, ""),
        (1.0, "\"quoted\", \\ and {\"json\": null}"),
        (1.0 / 3.0, "{a,b} NULL %s $1 'x'"),
        (1e-17, "ä\u{1f600}\r\n\t\u{1}\u{7f}\u{2028}"),
        (f64::MIN_POSITIVE, &long),
        (0.1 + 0.2, "z"),
    ];
    for (fraction, message) in said {
        say(&*store, worker, vec![note(&claimed, fraction, message)]).await;
        let (back, text) = shown(&*store, task.id).await.expect("its progress");
        assert!((back - fraction).abs() < 1e-15, "{fraction} became {back}");
        assert_eq!(text, message);
    }
}
