//! Tasks that must be the only one of something.

use std::{sync::Arc, time::Duration};

use forebay_core::{
    Decision, Json, LimitRequest, OnConflict, State, Submission, SubmitRequest, Task, Timestamp,
    UniqueRequest,
};

use super::support::*;
use crate::{Recorded, Store};

/// A task that must be the only one with this key.
async fn unique(store: &dyn Store, key: &str, on_conflict: OnConflict) -> Submission {
    let mut request = request(key, on_conflict);
    request.run_at = None;
    accepted(request, now(store).await)
}

fn request(key: &str, on_conflict: OnConflict) -> SubmitRequest {
    let mut request = SubmitRequest {
        kind: "echo".to_owned(),
        payload: Some(Json::null()),
        ..SubmitRequest::default()
    };
    request.terms.unique = Some(UniqueRequest {
        key: Some(key.to_owned()),
        window_seconds: None,
        on_conflict: Some(on_conflict.as_str().to_owned()),
    });
    request
}

fn accepted(request: SubmitRequest, at: Timestamp) -> Submission {
    let fresh = task_at(at);
    let accepted = request.accept(at, &[0; 10]).expect("it is valid");
    Submission {
        id: fresh.id,
        ..accepted
    }
}

/// As [`unique`], in conflict with others for so long after it was accepted.
async fn windowed(store: &dyn Store, key: &str, on_conflict: OnConflict, seconds: f64) -> Submission {
    let mut request = request(key, on_conflict);
    if let Some(unique) = &mut request.terms.unique {
        unique.window_seconds = Some(seconds);
    }
    accepted(request, now(store).await)
}

/// Runs a task to its end.
async fn finish(store: &dyn Store, task: &Submission, decision: Decision) {
    let worker = worker(store).await;
    let claimed = claim(store, worker, wants_new(task)).await.expect("granted");
    complete(store, worker, ended(&claimed, decision)).await;
}

/// It was turned away on account of `holder`.
fn assert_turned_away(task: &Task, holder: &Submission) {
    assert_eq!(task.state, State::Cancelled);
    assert!(task.finished_at.is_some());
    let error = task.errors.last().expect("it says why");
    assert!(error.message.contains(&holder.id.to_string()), "{error:?}");
}

async fn state(store: &dyn Store, task: &Submission) -> State {
    get(store, task.id).await.state
}

async fn in_the_way(store: &dyn Store, task: &Submission) -> Option<forebay_core::TaskId> {
    let terms = task.terms.as_ref().expect("it has terms");
    let unique = terms.unique.as_ref().expect("it is unique");
    let holder = store.unique_holder(&task.project, unique.mark).await;
    holder.expect("look").map(|task| task.id)
}

/// As long as one is unfinished, others are recorded as cancelled, with an error that names it.
pub async fn one_at_most_is_unfinished(store: Arc<dyn Store>) {
    let first = unique(&*store, "a", OnConflict::Return).await;
    assert_eq!(in_the_way(&*store, &first).await, None);
    record(&*store, &first).await;
    assert_eq!(in_the_way(&*store, &first).await, Some(first.id));
    for on_conflict in [OnConflict::Return, OnConflict::Reject] {
        let other = unique(&*store, "a", on_conflict).await;
        record(&*store, &other).await;
        assert_turned_away(&get(&*store, other.id).await, &first);
    }
    let elsewhere = unique(&*store, "b", OnConflict::Reject).await;
    record(&*store, &elsewhere).await;
    assert_eq!(state(&*store, &elsewhere).await, State::Queued);
    assert_eq!(state(&*store, &first).await, State::Queued);
    let stranger = Submission {
        project: "another".parse().expect("a valid project"),
        ..unique(&*store, "a", OnConflict::Reject).await
    };
    record(&*store, &stranger).await;
    assert_eq!(state(&*store, &stranger).await, State::Queued);
}

/// The mark is free again when its task has ended, however that was.
pub async fn a_finished_one_is_not_in_the_way(store: Arc<dyn Store>) {
    for decision in [Decision::Succeed, Decision::Fail, Decision::Cancel] {
        let task = unique(&*store, "a", OnConflict::Reject).await;
        record(&*store, &task).await;
        assert_eq!(in_the_way(&*store, &task).await, Some(task.id));
        finish(&*store, &task, decision).await;
        assert_eq!(in_the_way(&*store, &task).await, None);
    }
    let waiting = unique(&*store, "a", OnConflict::Reject).await;
    record(&*store, &waiting).await;
    store.cancel(waiting.id).await.expect("cancel");
    let next = unique(&*store, "a", OnConflict::Reject).await;
    record(&*store, &next).await;
    assert_eq!(state(&*store, &next).await, State::Queued);
}

/// A window keeps others away although the task is finished.
pub async fn a_window_outlasts_its_task(store: Arc<dyn Store>) {
    let first = windowed(&*store, "a", OnConflict::Return, 3_600.0).await;
    record(&*store, &first).await;
    finish(&*store, &first, Decision::Succeed).await;
    let other = unique(&*store, "a", OnConflict::Return).await;
    record(&*store, &other).await;
    assert_turned_away(&get(&*store, other.id).await, &first);
    assert_eq!(in_the_way(&*store, &first).await, Some(first.id));
    // One that replaces takes the mark, and what is finished stays as it is.
    let next = unique(&*store, "a", OnConflict::Replace).await;
    record(&*store, &next).await;
    assert_eq!(state(&*store, &next).await, State::Queued);
    assert_eq!(state(&*store, &first).await, State::Succeeded);
}

/// A window that is over keeps nobody away.
pub async fn a_window_ends(store: Arc<dyn Store>) {
    let first = windowed(&*store, "a", OnConflict::Return, 0.2).await;
    record(&*store, &first).await;
    finish(&*store, &first, Decision::Succeed).await;
    let over = first.created_at.saturating_add(Duration::from_millis(200));
    now_after(&*store, over.expect("a time")).await;
    assert_eq!(in_the_way(&*store, &first).await, None);
    let next = unique(&*store, "a", OnConflict::Return).await;
    record(&*store, &next).await;
    assert_eq!(state(&*store, &next).await, State::Queued);
}

/// What waits is replaced, whatever it waits for; its place is taken at once.
pub async fn what_waits_is_replaced(store: Arc<dyn Store>) {
    let scheduled = Submission {
        run_at: Some(plus(now(&*store).await, 3_600)),
        ..unique(&*store, "a", OnConflict::Replace).await
    };
    record(&*store, &scheduled).await;
    let queued = unique(&*store, "a", OnConflict::Replace).await;
    record(&*store, &queued).await;
    assert_turned_away(&get(&*store, scheduled.id).await, &queued);
    let last = Submission {
        run_at: Some(plus(now(&*store).await, -1)),
        ..unique(&*store, "a", OnConflict::Replace).await
    };
    record(&*store, &last).await;
    assert_turned_away(&get(&*store, queued.id).await, &last);
    assert_eq!(in_the_way(&*store, &last).await, Some(last.id));
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.ids(), [last.id]);
    let worker = worker(&*store).await;
    assert_eq!(claim(&*store, worker, wants_new(&queued)).await, None);
    assert_eq!(claim(&*store, worker, wants_new(&scheduled)).await, None);
    assert!(claim(&*store, worker, wants_new(&last)).await.is_some());
}

/// What runs is not replaced.
pub async fn what_runs_is_not_replaced(store: Arc<dyn Store>) {
    let (first, worker) = (
        unique(&*store, "a", OnConflict::Return).await,
        worker(&*store).await,
    );
    record(&*store, &first).await;
    let claimed = claim(&*store, worker, wants_new(&first)).await.expect("granted");
    let other = unique(&*store, "a", OnConflict::Replace).await;
    record(&*store, &other).await;
    assert_turned_away(&get(&*store, other.id).await, &first);
    complete(&*store, worker, ended(&claimed, RETRY_LATER)).await;
    let next = unique(&*store, "a", OnConflict::Replace).await;
    record(&*store, &next).await;
    assert_turned_away(&get(&*store, first.id).await, &next);
    assert_eq!(state(&*store, &next).await, State::Queued);
}

/// Recorders run side by side, and the later one may come first: then it is the later one that is left.
pub async fn what_was_submitted_first_replaces_nothing(store: Arc<dyn Store>) {
    let first = unique(&*store, "a", OnConflict::Replace).await;
    now_after(&*store, first.created_at).await;
    let later = unique(&*store, "a", OnConflict::Replace).await;
    record(&*store, &later).await;
    record(&*store, &first).await;
    assert_turned_away(&get(&*store, first.id).await, &later);
    assert_eq!(state(&*store, &later).await, State::Queued);
    assert_eq!(in_the_way(&*store, &later).await, Some(later.id));
}

/// What comes again, after another took its place, changes nothing.
pub async fn a_repeated_delivery_changes_nothing(store: Arc<dyn Store>) {
    let first = unique(&*store, "a", OnConflict::Replace).await;
    record(&*store, &first).await;
    let second = unique(&*store, "a", OnConflict::Replace).await;
    for _ in 0..2 {
        let answers = store.record(&[first.clone(), second.clone()]).await;
        assert_eq!(answers.expect("record")[0], Recorded::Duplicate);
        assert_turned_away(&get(&*store, first.id).await, &second);
        assert_eq!(state(&*store, &second).await, State::Queued);
        assert_eq!(in_the_way(&*store, &first).await, Some(second.id));
    }
}

/// In one batch they are decided in their order.
pub async fn a_batch_is_decided_in_its_order(store: Arc<dyn Store>) {
    let (a, b, c) = (OnConflict::Return, OnConflict::Reject, OnConflict::Replace);
    let mut batch = Vec::new();
    for how in [a, b, c, c, a] {
        batch.push(unique(&*store, "a", how).await);
    }
    batch.push(batch[3].clone());
    batch.push(unique(&*store, "b", b).await);
    let answers = store.record(&batch).await.expect("record");
    assert_eq!(answers[..5], [Recorded::New; 5]);
    assert_eq!(answers[5], Recorded::Duplicate);
    let mut states = Vec::new();
    for task in &batch {
        states.push(state(&*store, task).await);
    }
    let (over, queued) = (State::Cancelled, State::Queued);
    assert_eq!(states, [over, over, over, queued, over, queued, queued]);
    assert_turned_away(&get(&*store, batch[1].id).await, &batch[0]);
    assert_turned_away(&get(&*store, batch[2].id).await, &batch[3]);
    assert_turned_away(&get(&*store, batch[4].id).await, &batch[3]);
    assert_eq!(in_the_way(&*store, &batch[0]).await, Some(batch[3].id));
}

/// Recorders that run side by side agree on one.
pub async fn several_recorders_agree_on_one(store: Arc<dyn Store>) {
    for how in [OnConflict::Return, OnConflict::Replace] {
        let mut recorders = Vec::new();
        let mut tasks = Vec::new();
        for _ in 0..6 {
            let mut batch = Vec::new();
            for key in 0..8 {
                batch.push(unique(&*store, &format!("{}-{key}", how.as_str()), how).await);
            }
            tasks.extend(batch.iter().cloned());
            let store = Arc::clone(&store);
            recorders.push(tokio::spawn(async move {
                let mut answer = store.record(&batch).await;
                while answer.as_ref().is_err_and(crate::StoreError::is_unavailable) {
                    answer = store.record(&batch).await;
                }
                answer.expect("record")
            }));
        }
        for recorder in recorders {
            recorder.await.expect("a recorder");
        }
        let mut open = 0;
        for task in &tasks {
            match state(&*store, task).await {
                State::Queued => {
                    assert_eq!(in_the_way(&*store, task).await, Some(task.id));
                    open += 1;
                }
                state => assert_eq!(state, State::Cancelled),
            }
        }
        assert_eq!(open, 8, "{how:?}");
    }
}

/// A claim and a replacement at the same time: one of the two tasks is left, and it runs or waits.
pub async fn a_claim_and_a_replacement_agree(store: Arc<dyn Store>) {
    let worker = worker(&*store).await;
    for round in 0..20 {
        let key = format!("k{round}");
        let first = unique(&*store, &key, OnConflict::Reject).await;
        record(&*store, &first).await;
        let second = unique(&*store, &key, OnConflict::Replace).await;
        let replacing = {
            let (store, second) = (Arc::clone(&store), second.clone());
            tokio::spawn(async move { record(&*store, &second).await })
        };
        let claimed = claim(&*store, worker, wants_new(&first)).await;
        replacing.await.expect("a recorder");
        let states = (state(&*store, &first).await, state(&*store, &second).await);
        let expected = match claimed {
            Some(_) => (State::Running, State::Cancelled),
            None => (State::Cancelled, State::Queued),
        };
        assert_eq!(states, expected);
    }
}

/// Maintenance forgets what is finished and nothing else.
pub async fn maintenance_keeps_what_is_in_the_way(store: Arc<dyn Store>) {
    let open = unique(&*store, "open", OnConflict::Reject).await;
    let done = unique(&*store, "done", OnConflict::Reject).await;
    let window = windowed(&*store, "window", OnConflict::Reject, 3_600.0).await;
    for task in [&open, &done, &window] {
        record(&*store, task).await;
    }
    finish(&*store, &done, Decision::Succeed).await;
    finish(&*store, &window, Decision::Succeed).await;
    store.maintain(None).await.expect("maintain");
    assert_eq!(in_the_way(&*store, &open).await, Some(open.id));
    assert_eq!(in_the_way(&*store, &window).await, Some(window.id));
    assert_eq!(in_the_way(&*store, &done).await, None);
    let next = unique(&*store, "done", OnConflict::Reject).await;
    record(&*store, &next).await;
    assert_eq!(state(&*store, &next).await, State::Queued);
}

/// What a limit holds back is replaced as all that waits, and leaves its line.
pub async fn what_a_limit_holds_back_is_replaced(store: Arc<dyn Store>) {
    let rule = LimitRequest {
        concurrency: Some(1),
        ..LimitRequest::default()
    };
    let rule = rule.accept("one".parse().expect("a name")).expect("a limit");
    store.put_limit(&rule).await.expect("put a limit");
    let worker = worker(&*store).await;
    let holder = recorded(&*store).await;
    let holder = claim(&*store, worker, wants_new(&holder)).await.expect("granted");
    let held_back = unique(&*store, "a", OnConflict::Return).await;
    record(&*store, &held_back).await;
    assert_eq!(claim(&*store, worker, wants_new(&held_back)).await, None);
    assert_eq!(state(&*store, &held_back).await, State::Throttled);
    let next = unique(&*store, "a", OnConflict::Replace).await;
    record(&*store, &next).await;
    assert_turned_away(&get(&*store, held_back.id).await, &next);
    complete(&*store, worker, ended(&holder, Decision::Succeed)).await;
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.ids(), []);
    assert!(claim(&*store, worker, wants_new(&next)).await.is_some());
}
