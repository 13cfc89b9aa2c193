//! Writing outcomes.

use std::sync::Arc;

use forebay_core::{Decision, Outcome, State};

use super::support::*;
use crate::{Changed, Completed, Completion, Store};

/// Success is final, with what the handler returned.
pub async fn success_keeps_result_and_log(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    let completion = Completion {
        result: Some(json(r#"{"b": 1, "a": 2}"#)),
        log: Some("done\n".into()),
        ..ended(&claimed, Decision::Succeed)
    };
    let answer = complete(&*store, worker, completion).await;
    assert_eq!(answer, Completed::Applied(State::Succeeded));
    let found = get(&*store, task.id).await;
    assert_eq!((found.state, found.attempt), (State::Succeeded, 1));
    assert_eq!(found.result, Some(json(r#"{"b": 1, "a": 2}"#)));
    assert_eq!(found.log.as_deref(), Some("done\n"));
    assert!(found.errors.is_empty());
    assert!(found.finished_at >= found.started_at && found.started_at.is_some());
    assert_eq!(found.worker, Some(worker));
}

/// Failure is final, with what went wrong.
pub async fn failure_keeps_its_error(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    let completion = Completion {
        outcome: Outcome::TimedOut,
        error: Some("took \"too\" long: ü".into()),
        log: Some("…".into()),
        ..ended(&claimed, Decision::Fail)
    };
    let answer = complete(&*store, worker, completion).await;
    assert_eq!(answer, Completed::Applied(State::Failed));
    let found = get(&*store, task.id).await;
    assert_eq!((found.state, found.attempt), (State::Failed, 1));
    assert_eq!((found.result, found.log.as_deref()), (None, Some("…")));
    assert!(found.finished_at.is_some());
    let [error] = &found.errors[..] else {
        panic!("one attempt, one error: {:?}", found.errors);
    };
    assert_eq!((error.attempt, error.outcome.as_str()), (1, "timed_out"));
    assert_eq!(error.message, "took \"too\" long: ü");
    assert!(Some(error.at) >= found.started_at);
}

/// A worker that obeyed a cancellation.
pub async fn cancellation_ends_it(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    store.cancel(task.id).await.expect("cancel");
    let answer = complete(&*store, worker, ended(&claimed, Decision::Cancel)).await;
    assert_eq!(answer, Completed::Applied(State::Cancelled));
    let found = get(&*store, task.id).await;
    assert_eq!(found.state, State::Cancelled);
    assert!(found.finished_at.is_some());
}

/// A retry waits for its time, and its attempt is charged.
pub async fn retry_waits_and_is_charged(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    let earliest = plus(now(&*store).await, 3_600);
    let answer = complete(&*store, worker, ended(&claimed, RETRY_LATER)).await;
    assert_eq!(answer, Completed::Applied(State::Retrying));
    let found = get(&*store, task.id).await;
    assert_eq!((found.state, found.attempt, found.fence), (State::Retrying, 1, 1));
    let latest = plus(now(&*store).await, 3_600);
    assert!(
        (Some(earliest)..=Some(latest)).contains(&found.run_at),
        "{:?}",
        found.run_at
    );
    assert_eq!(found.finished_at, None);
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.ids(), []);
    assert_eq!(claim_ready(&*store, worker, &task, 1).await, None, "not due");
}

/// Being interrupted costs no attempt, and still moves the fence.
pub async fn hand_back_costs_no_attempt(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    let answer = complete(&*store, worker, ended(&claimed, HAND_BACK)).await;
    assert_eq!(answer, Completed::Applied(State::Retrying));
    let found = get(&*store, task.id).await;
    assert_eq!((found.state, found.attempt, found.fence), (State::Retrying, 0, 1));
    let claimed = claim_ready(&*store, worker, &task, 1).await.expect("granted");
    assert_eq!((claimed.attempt, claimed.fence), (1, 2));
}

/// Errors don't grow for ever.
pub async fn the_last_ten_errors_are_kept(store: Arc<dyn Store>) {
    let (task, worker, mut claimed) = running(&*store).await;
    for number in 1..=12 {
        let completion = Completion {
            error: Some(format!("error {number}")),
            ..ended(&claimed, RETRY_NOW)
        };
        complete(&*store, worker, completion).await;
        claimed = claim_ready(&*store, worker, &task, number)
            .await
            .expect("granted");
    }
    let errors = get(&*store, task.id).await.errors;
    let messages: Vec<String> = errors.iter().map(|error| error.message.clone()).collect();
    let expected: Vec<String> = (3..=12).map(|number| format!("error {number}")).collect();
    assert_eq!(messages, expected);
    assert_eq!((errors[0].attempt, errors[9].attempt), (3, 12));
}

/// The promise of exactly one outcome: a worker that was thought dead wakes up and is late.
pub async fn a_stale_attempt_cannot_overwrite(store: Arc<dyn Store>) {
    let (task, worker, first) = running(&*store).await;
    complete(&*store, worker, ended(&first, RETRY_NOW)).await;
    let second = claim_ready(&*store, worker, &task, 1).await.expect("granted");
    let late = Completion {
        result: Some(json("\"late\"")),
        error: Some("late".into()),
        log: Some("late".into()),
        ..ended(&first, Decision::Succeed)
    };
    let before = get(&*store, task.id).await;
    assert_eq!(complete(&*store, worker, late.clone()).await, Completed::Fenced);
    assert_eq!(get(&*store, task.id).await, before);
    complete(&*store, worker, ended(&second, Decision::Fail)).await;
    let before = get(&*store, task.id).await;
    assert_eq!(complete(&*store, worker, late.clone()).await, Completed::Fenced);
    let early = Completion { fence: 3, ..late };
    assert_eq!(complete(&*store, worker, early).await, Completed::Fenced);
    assert_eq!(get(&*store, task.id).await, before);
}

/// A fence alone is not enough: it must be the holder's.
pub async fn another_worker_cannot_overwrite(store: Arc<dyn Store>) {
    let (task, _, claimed) = running(&*store).await;
    let other = worker(&*store).await;
    let before = get(&*store, task.id).await;
    assert_eq!(
        complete(&*store, other, ended(&claimed, Decision::Succeed)).await,
        Completed::Fenced
    );
    assert_eq!(
        complete(&*store, stranger(), ended(&claimed, RETRY_NOW)).await,
        Completed::Fenced
    );
    assert_eq!(get(&*store, task.id).await, before);
}

/// The answer was lost, so the worker says it again and learns that it was written; once.
pub async fn a_repeated_completion_says_applied(store: Arc<dyn Store>) {
    for (decision, state) in [
        (Decision::Succeed, State::Succeeded),
        (Decision::Fail, State::Failed),
        (Decision::Cancel, State::Cancelled),
        (RETRY_LATER, State::Retrying),
        (HAND_BACK, State::Retrying),
    ] {
        let (task, worker, claimed) = running(&*store).await;
        let completion = Completion {
            error: Some("e".into()),
            ..ended(&claimed, decision)
        };
        assert_eq!(
            complete(&*store, worker, completion.clone()).await,
            Completed::Applied(state)
        );
        let before = get(&*store, task.id).await;
        assert_eq!(
            complete(&*store, worker, completion).await,
            Completed::Applied(state)
        );
        assert_eq!(get(&*store, task.id).await, before);
    }
}

/// Nothing that is to be cancelled is started again; what succeeded in spite of it has succeeded.
pub async fn a_requested_cancellation_turns_retry_into_cancelled(store: Arc<dyn Store>) {
    for (decision, state) in [
        (RETRY_NOW, State::Cancelled),
        (RETRY_LATER, State::Cancelled),
        (HAND_BACK, State::Cancelled),
        (Decision::Fail, State::Failed),
        (Decision::Succeed, State::Succeeded),
    ] {
        let (task, worker, claimed) = running(&*store).await;
        let answer = store.cancel(task.id).await.expect("cancel");
        assert!(matches!(answer, Changed::Done(_)), "{answer:?}");
        let answer = complete(&*store, worker, ended(&claimed, decision)).await;
        assert_eq!(answer, Completed::Applied(state));
        let found = get(&*store, task.id).await;
        assert_eq!(found.state, state);
        assert!(found.finished_at.is_some());
    }
}

/// A handler may print anything; it must not hold up the completions beside it.
pub async fn text_with_nul_is_made_fit(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    let text = format!("{}\0\u{1}", "ä".repeat(10_000));
    let completion = Completion {
        error: Some(text.clone()),
        log: Some(text.clone()),
        ..ended(&claimed, Decision::Fail)
    };
    complete(&*store, worker, completion).await;
    let found = get(&*store, task.id).await;
    let fit = forebay_core::sanitize_text(&text);
    assert_eq!(found.log.as_deref(), Some(fit.as_str()));
    assert_eq!(found.errors[0].message, fit);
}

/// There is nothing to write to.
pub async fn an_unknown_task_is_fenced(store: Arc<dyn Store>) {
    let (_, worker, claimed) = running(&*store).await;
    let unknown = Completion {
        id: task(&*store).await.id,
        ..ended(&claimed, Decision::Succeed)
    };
    assert_eq!(complete(&*store, worker, unknown).await, Completed::Fenced);
}

/// One batch, many decisions, and the notes of their claims released.
pub async fn answers_come_in_order(store: Arc<dyn Store>) {
    let worker = worker(&*store).await;
    let mut requests = Vec::new();
    for _ in 0..4 {
        requests.push(wants_new(&recorded(&*store).await));
    }
    let id = claim_id();
    let claimed = store.claim(worker, id, &requests).await.expect("claim");
    let claimed: Vec<_> = claimed.into_iter().map(|it| it.expect("granted")).collect();
    let stale = Completion {
        fence: 0,
        ..ended(&claimed[1], Decision::Succeed)
    };
    let batch = [
        ended(&claimed[3], Decision::Succeed),
        stale,
        ended(&claimed[0], Decision::Fail),
        ended(&claimed[2], RETRY_LATER),
    ];
    let answers = store.complete(worker, &batch, &[]).await.expect("complete");
    assert_eq!(
        answers,
        [
            Completed::Applied(State::Succeeded),
            Completed::Fenced,
            Completed::Applied(State::Failed),
            Completed::Applied(State::Retrying)
        ]
    );
    let last = [ended(&claimed[1], Decision::Succeed)];
    let answers = store
        .complete(worker, &last, &[id])
        .await
        .expect("complete the last");
    assert_eq!(answers, [Completed::Applied(State::Succeeded)]);
    let answers = store
        .complete(worker, &last, &[id])
        .await
        .expect("complete it again");
    assert_eq!(answers, [Completed::Applied(State::Succeeded)]);
}
