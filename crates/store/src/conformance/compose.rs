//! Tasks that wait for others.

use std::collections::BTreeSet;

use forebay_core::{
    After, Decision, OnFailure, State, Submission, SubmitRequest, TaskEvent, TaskId, Terms, UniqueRequest,
    WebhookName, WebhookRequest,
};

use super::support::{
    Sink, claim_ready, complete, ended, get, now, now_after, plus, record, recorded, running, task, task_at,
    wait_until, worker,
};
use crate::Store;

/// Of a task that waits for `on`.
fn waits(on: &[TaskId], on_failure: OnFailure) -> Option<Box<Terms>> {
    let mut tasks = on.to_vec();
    tasks.sort_unstable();
    Some(Box::new(Terms {
        after: Some(After { tasks, on_failure }),
        ..Terms::default()
    }))
}

/// A task that is to run after `on`, not recorded.
pub(super) async fn after(store: &dyn Store, on: &[&Submission], on_failure: OnFailure) -> Submission {
    let on: Vec<TaskId> = on.iter().map(|task| task.id).collect();
    Submission {
        terms: waits(&on, on_failure),
        ..task(store).await
    }
}

/// Sees to all ends that there are.
pub(super) async fn settle(store: &dyn Store) -> Vec<TaskEvent> {
    let mut events = Vec::new();
    loop {
        let settled = store.settle(100).await.expect("see to the ends of tasks");
        let found = settled.more || settled.seen > 0 || !settled.events.is_empty();
        events.extend(settled.events);
        if !found {
            return events;
        }
    }
}

/// Runs a recorded task that is ready or due to its end.
pub(super) async fn run(store: &dyn Store, task: &Submission, decision: Decision) {
    let worker = worker(store).await;
    let claimed = claim_ready(store, worker, task, 0).await.expect("it may run");
    complete(store, worker, ended(&claimed, decision)).await;
}

async fn state(store: &dyn Store, task: &Submission) -> State {
    get(store, task.id).await.state
}

/// Waits for one, runs when it has succeeded.
pub async fn a_task_runs_after_another(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let first = recorded(store).await;
    let second = after(store, &[&first], OnFailure::Cancel).await;
    record(store, &second).await;
    assert_eq!(state(store, &second).await, State::Blocked);
    let own = worker(store).await;
    assert_eq!(claim_ready(store, own, &second, 0).await, None, "it is blocked");
    assert_eq!(store.blocked_on(second.id).await.expect("ask").tasks, [first.id]);
    assert_eq!(settle(store).await, []);
    run(store, &first, Decision::Succeed).await;
    let events = settle(store).await;
    let told: Vec<_> = events.iter().map(|event| (event.id, event.state)).collect();
    assert_eq!(told, [(second.id, State::Scheduled)]);
    assert_eq!(settle(store).await, [], "an end is seen to once");
    assert_eq!(store.blocked_on(second.id).await.expect("ask").tasks, []);
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.ids(), [second.id], "it is due at once");
    run(store, &second, Decision::Succeed).await;
    assert_eq!(state(store, &second).await, State::Succeeded);
}

/// All must have ended, in whatever order and however far apart.
pub async fn a_task_waits_for_the_last_of_several(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let mut several = Vec::new();
    for _ in 0..3 {
        several.push(recorded(store).await);
    }
    let last = after(store, &several.iter().collect::<Vec<_>>(), OnFailure::Cancel).await;
    record(store, &last).await;
    for (place, task) in several.iter().rev().enumerate() {
        assert_eq!(state(store, &last).await, State::Blocked);
        run(store, task, Decision::Succeed).await;
        assert_eq!(settle(store).await.len(), usize::from(place == 2));
    }
    assert_eq!(state(store, &last).await, State::Scheduled);
}

/// What has ended by then is not waited for.
pub async fn what_has_ended_is_not_waited_for(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let first = recorded(store).await;
    run(store, &first, Decision::Succeed).await;
    let second = after(store, &[&first], OnFailure::Cancel).await;
    record(store, &second).await;
    assert_eq!(state(store, &second).await, State::Scheduled);
    let failed = recorded(store).await;
    run(store, &failed, Decision::Fail).await;
    let dropped = after(store, &[&first, &failed], OnFailure::Cancel).await;
    record(store, &dropped).await;
    let dropped = get(store, dropped.id).await;
    assert_eq!(dropped.state, State::Cancelled);
    assert!(
        dropped.errors[0].message.contains(&failed.id.to_string()),
        "{:?}",
        dropped.errors
    );
    let gentle = after(store, &[&first, &failed], OnFailure::Run).await;
    record(store, &gentle).await;
    assert_eq!(state(store, &gentle).await, State::Scheduled);
}

/// Each end that is no success, with both policies.
pub async fn a_failure_cancels_those_who_wait_unless_they_run_all_the_same(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let (failing, cancelled) = (recorded(store).await, recorded(store).await);
    let mut pairs = Vec::new();
    for on in [&failing, &cancelled] {
        let strict = after(store, &[on], OnFailure::Cancel).await;
        let gentle = after(store, &[on], OnFailure::Run).await;
        record(store, &strict).await;
        record(store, &gentle).await;
        pairs.push((on.id, strict, gentle));
    }
    run(store, &failing, Decision::Fail).await;
    store.cancel(cancelled.id).await.expect("cancel");
    assert_eq!(settle(store).await.len(), 4);
    for (on, strict, gentle) in pairs {
        let strict = get(store, strict.id).await;
        assert_eq!(strict.state, State::Cancelled);
        assert!(strict.finished_at.is_some());
        assert!(
            strict.errors[0].message.contains(&on.to_string()),
            "{:?}",
            strict.errors
        );
        assert_eq!(state(store, &gentle).await, State::Scheduled);
    }
}

/// A cancelled link cancels the next.
pub async fn a_chain_breaks_to_its_end(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let at = now(store).await;
    let mut chain = vec![task_at(at)];
    for place in 1..6 {
        let on = [chain[place - 1].id];
        chain.push(Submission {
            terms: waits(&on, OnFailure::Cancel),
            ..task_at(at)
        });
    }
    let answers = store.record(&chain).await.expect("record a chain");
    assert!(answers.iter().all(|answer| *answer == crate::Recorded::New));
    run(store, &chain[0], Decision::Succeed).await;
    settle(store).await;
    assert_eq!(state(store, &chain[1]).await, State::Scheduled);
    run(store, &chain[1], Decision::Fail).await;
    assert_eq!(settle(store).await.len(), 4);
    for task in &chain[2..] {
        assert_eq!(state(store, task).await, State::Cancelled);
    }
}

/// What is recorded later than those who wait for it: it is looked for, and counts whatever has become of it.
pub async fn what_is_not_recorded_yet_is_waited_for(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let (late, over) = (task(store).await, task(store).await);
    let second = after(store, &[&late, &over], OnFailure::Cancel).await;
    record(store, &second).await;
    assert_eq!(state(store, &second).await, State::Blocked);
    assert_eq!(settle(store).await, []);
    let unknown = store.unknown(&[late.id, second.id]).await.expect("ask");
    assert_eq!(unknown, [late.id]);
    let blocked = store.blocked_on(second.id).await.expect("ask");
    let unknown: Vec<TaskId> = blocked.unknown.iter().map(|(id, _)| *id).collect();
    assert_eq!((blocked.tasks.len(), unknown), (2, blocked.tasks));
    let day = crate::UNKNOWN_WAIT_MAX.as_secs().cast_signed();
    let until = plus(now(store).await, day);
    assert!(blocked.unknown[0].1 <= until && blocked.unknown[0].1 > plus(until, -60));
    record(store, &late).await;
    record(store, &over).await;
    run(store, &over, Decision::Succeed).await;
    wait_until("the end of what came late and is over is seen to", || async {
        settle(store).await;
        store.blocked_on(second.id).await.expect("ask").tasks == [late.id]
    })
    .await;
    let blocked = store.blocked_on(second.id).await.expect("ask");
    assert_eq!(blocked.unknown, [], "it has come");
    run(store, &late, Decision::Succeed).await;
    wait_until("the last end is seen to", || async {
        settle(store).await;
        state(store, &second).await == State::Scheduled
    })
    .await;
}

/// It waits for its time as well.
pub async fn a_released_task_waits_for_its_time(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let first = recorded(store).await;
    let due = plus(now(store).await, 3_600);
    let second = Submission {
        run_at: Some(due),
        ..after(store, &[&first], OnFailure::Cancel).await
    };
    record(store, &second).await;
    assert_eq!(state(store, &second).await, State::Blocked);
    run(store, &first, Decision::Succeed).await;
    settle(store).await;
    let second = get(store, second.id).await;
    assert_eq!((second.state, second.run_at), (State::Scheduled, Some(due)));
}

/// An operator's word counts: what was cancelled is not released, and what is brought back waits for nothing.
pub async fn an_operator_may_end_the_wait(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let first = recorded(store).await;
    let (left, brought_back) = (
        after(store, &[&first], OnFailure::Cancel).await,
        after(store, &[&first], OnFailure::Cancel).await,
    );
    record(store, &left).await;
    record(store, &brought_back).await;
    store.cancel(left.id).await.expect("cancel");
    store.cancel(brought_back.id).await.expect("cancel");
    store.retry(brought_back.id).await.expect("retry");
    run(store, &brought_back, Decision::Succeed).await;
    run(store, &first, Decision::Succeed).await;
    settle(store).await;
    assert_eq!(state(store, &left).await, State::Cancelled);
    assert_eq!(state(store, &brought_back).await, State::Succeeded);
}

/// A repeated delivery changes nothing, whatever has happened since.
pub async fn recording_again_changes_nothing(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let first = recorded(store).await;
    let second = after(store, &[&first], OnFailure::Cancel).await;
    record(store, &second).await;
    let again = std::slice::from_ref(&second);
    assert_eq!(
        store.record(again).await.expect("record"),
        [crate::Recorded::Duplicate]
    );
    assert_eq!(state(store, &second).await, State::Blocked);
    run(store, &first, Decision::Succeed).await;
    settle(store).await;
    run(store, &second, Decision::Succeed).await;
    assert_eq!(
        store.record(again).await.expect("record"),
        [crate::Recorded::Duplicate]
    );
    settle(store).await;
    assert_eq!(state(store, &second).await, State::Succeeded);
}

/// Whoever comes to wait while it ends: nobody waits for ever.
pub async fn an_end_and_a_wait_at_once_miss_each_other_never(store: std::sync::Arc<dyn Store>) {
    for _ in 0..20 {
        let (first, own, claimed) = running(&*store).await;
        let second = after(&*store, &[&first], OnFailure::Cancel).await;
        let (recorder, completer) = (std::sync::Arc::clone(&store), std::sync::Arc::clone(&store));
        let waits = second.clone();
        let recording = tokio::spawn(async move { record(&*recorder, &waits).await });
        let completing =
            tokio::spawn(async move { complete(&*completer, own, ended(&claimed, Decision::Succeed)).await });
        recording.await.expect("record");
        completing.await.expect("complete");
        settle(&*store).await;
        assert_eq!(state(&*store, &second).await, State::Scheduled);
    }
}

/// Several dispatchers see to the ends of what one waits for: it is released once, by whoever saw to the last.
pub async fn several_dispatchers_release_once(store: std::sync::Arc<dyn Store>) {
    let at = now(&*store).await;
    let several: Vec<Submission> = (0..40).map(|_| task_at(at)).collect();
    store.record(&several).await.expect("record");
    let mut fans = Vec::new();
    for part in several.chunks(4) {
        let fan = after(&*store, &part.iter().collect::<Vec<_>>(), OnFailure::Cancel).await;
        record(&*store, &fan).await;
        fans.push(fan);
    }
    let joint = after(&*store, &several.iter().collect::<Vec<_>>(), OnFailure::Cancel).await;
    record(&*store, &joint).await;
    for task in &several {
        run(&*store, task, Decision::Succeed).await;
    }
    let dispatchers = (0..4).map(|_| {
        let store = std::sync::Arc::clone(&store);
        tokio::spawn(async move {
            let mut events = Vec::new();
            for _ in 0..40 {
                // Two that want the same rows may be told to try again.
                if let Ok(settled) = store.settle(3).await {
                    events.extend(settled.events);
                }
            }
            events
        })
    });
    let mut released = Vec::new();
    for dispatcher in dispatchers.collect::<Vec<_>>() {
        released.extend(dispatcher.await.expect("settle"));
    }
    released.extend(settle(&*store).await);
    let mut released: Vec<TaskId> = released.into_iter().map(|event| event.id).collect();
    released.sort_unstable();
    let mut expected: Vec<TaskId> = fans.iter().map(|fan| fan.id).chain([joint.id]).collect();
    expected.sort_unstable();
    assert_eq!(released, expected);
}

/// More than are seen to together wait for one.
pub async fn a_crowd_waits_for_one(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let first = recorded(store).await;
    let at = now_after(store, first.created_at).await;
    let crowd: Vec<Submission> = (0..2_300)
        .map(|_| Submission {
            terms: waits(&[first.id], OnFailure::Cancel),
            ..task_at(at)
        })
        .collect();
    for part in crowd.chunks(500) {
        store.record(part).await.expect("record a crowd");
    }
    run(store, &first, Decision::Succeed).await;
    assert_eq!(settle(store).await.len(), crowd.len());
    assert_eq!(state(store, &crowd[0]).await, State::Scheduled);
    assert_eq!(state(store, &crowd[2_299]).await, State::Scheduled);
}

/// A task that is to be the only one of its kind with the key `one`, on these terms beside.
fn unique(terms: Option<Box<Terms>>, task: Submission, on_conflict: &str) -> Submission {
    let mut request = SubmitRequest {
        kind: "echo".to_owned(),
        payload: Some(task.payload.clone()),
        ..SubmitRequest::default()
    };
    request.terms.unique = Some(UniqueRequest {
        key: Some("one".to_owned()),
        window_seconds: None,
        on_conflict: Some(on_conflict.to_owned()),
    });
    let accepted = request.accept(task.created_at, &[0; 10]).expect("it is valid");
    let unique = accepted.terms.and_then(|terms| terms.unique);
    let terms = terms.map_or_else(Terms::default, |terms| *terms);
    Submission {
        terms: Some(Box::new(Terms { unique, ..terms })),
        ..task
    }
}

/// What ends by being recorded is told, once: whoever records is the only one who knows at that moment.
pub async fn what_ends_as_it_is_recorded_is_told(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let failed = recorded(store).await;
    run(store, &failed, Decision::Fail).await;
    let plain = task(store).await;
    let not_run = after(store, &[&failed], OnFailure::Cancel).await;
    // It cancels one of the same batch in its turn.
    let follows = after(store, &[&not_run], OnFailure::Cancel).await;
    let holder = unique(None, task(store).await, "reject");
    let batch = [plain, not_run.clone(), follows.clone(), holder.clone()];
    assert_eq!(told(store, &batch).await, set([not_run.id, follows.id]));
    assert_eq!(told(store, &batch).await, set([]), "it was told");
    let refused = unique(None, task(store).await, "reject");
    assert_eq!(
        told(store, std::slice::from_ref(&refused)).await,
        set([refused.id])
    );
    let heir = unique(None, task(store).await, "replace");
    assert_eq!(told(store, std::slice::from_ref(&heir)).await, set([holder.id]));
    assert_eq!(
        told(store, std::slice::from_ref(&heir)).await,
        set([]),
        "it was told"
    );
    assert_eq!(state(store, &heir).await, State::Queued);
    // Each takes the place of the one before, in one batch.
    let last = [
        unique(None, task(store).await, "replace"),
        unique(None, task(store).await, "replace"),
    ];
    assert_eq!(told(store, &last).await, set([heir.id, last[0].id]));
    assert_eq!(state(store, &last[1]).await, State::Queued);
}

fn set<const N: usize>(ids: [TaskId; N]) -> BTreeSet<TaskId> {
    ids.into()
}

/// Records a batch; which tasks ended by it, each told once.
async fn told(store: &dyn Store, batch: &[Submission]) -> BTreeSet<TaskId> {
    let recording = store.record_and_tell(batch).await.expect("record");
    assert_eq!(recording.answers.len(), batch.len());
    let mut ended = BTreeSet::new();
    for event in recording.ended {
        let task = get(store, event.id).await;
        assert_eq!((event.state, task.state), (State::Cancelled, State::Cancelled));
        assert_eq!(
            (event.kind, event.queue, event.attempt),
            (task.kind, task.queue, task.attempt)
        );
        assert!(ended.insert(event.id), "it is told once");
    }
    ended
}

/// What it waits for is over already when it is recorded, and so it is over, too: it takes nobody's place.
pub async fn what_is_over_before_it_began_replaces_nothing(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let failed = recorded(store).await;
    run(store, &failed, Decision::Fail).await;
    let unique = |terms, task| unique(terms, task, "replace");
    let holder = unique(None, task(store).await);
    record(store, &holder).await;
    let over = unique(waits(&[failed.id], OnFailure::Cancel), task(store).await);
    record(store, &over).await;
    assert_eq!(state(store, &over).await, State::Cancelled);
    assert_eq!(state(store, &holder).await, State::Queued, "it keeps its place");
    let newcomer = unique(waits(&[failed.id], OnFailure::Run), task(store).await);
    record(store, &newcomer).await;
    assert_eq!(state(store, &newcomer).await, State::Scheduled);
    assert_eq!(
        state(store, &holder).await,
        State::Cancelled,
        "and loses it to another"
    );
}

/// What ended before it was waited for told of that once, and it is not told again.
pub async fn what_was_recorded_later_tells_of_its_end_once(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let request = WebhookRequest {
        url: "https://example.com/hook".to_owned(),
        ..WebhookRequest::default()
    };
    let name: WebhookName = "ends".parse().expect("a name");
    let hook = request.accept(name.clone(), &[7; 32]).expect("a valid webhook");
    store.put_webhook(&hook).await.expect("put");
    let late = Submission {
        terms: Some(Box::new(Terms {
            notify: vec![name.clone()],
            ..Terms::default()
        })),
        ..task(store).await
    };
    let second = after(store, &[&late], OnFailure::Cancel).await;
    record(store, &second).await;
    record(store, &late).await;
    run(store, &late, Decision::Succeed).await;
    wait_until("the end of what came late is seen to", || async {
        settle(store).await;
        state(store, &second).await == State::Scheduled
    })
    .await;
    settle(store).await;
    assert_eq!(store.blocked_on(second.id).await.expect("ask").tasks, []);
    assert_eq!(store.deliveries(&name, 10, None).await.expect("list").len(), 1);
}

/// Breaks what is kept of a task that has ended, by `corrupt`: what follows from its end can't be done, and what follows from
/// others is done all the same. Kept beside the other cases, since no method of a store can bring it about.
pub async fn an_end_that_fails_for_ever_is_set_aside(
    store: std::sync::Arc<dyn Store>,
    corrupt: impl AsyncFnOnce(&'static str),
) {
    let store = &*store;
    let broken = Submission {
        terms: Some(Box::new(Terms {
            notify: vec!["ends".parse().expect("a name")],
            ..Terms::default()
        })),
        ..task(store).await
    };
    record(store, &broken).await;
    run(store, &broken, Decision::Succeed).await;
    let first = recorded(store).await;
    let second = after(store, &[&first], OnFailure::Cancel).await;
    record(store, &second).await;
    run(store, &first, Decision::Succeed).await;
    corrupt(BREAK_NOTIFY).await;
    assert!(
        store.settle(2).await.is_err(),
        "all that there is to do has failed"
    );
    let alone = store.settle(1).await.expect("it is not in the way");
    let given_up: Vec<TaskId> = alone.given_up.iter().map(|each| each.task).collect();
    assert_eq!((given_up, alone.seen, alone.more), (vec![broken.id], 1, true));
    assert_eq!(settle(store).await.len(), 1);
    assert_eq!(state(store, &second).await, State::Scheduled);
}

/// What never comes to be is waited for a day and no longer; then it counts as what has failed. Time passes by `pass`, hour by hour,
/// since no method of a store can bring that about.
pub async fn what_never_comes_is_given_up_after_a_day(
    store: std::sync::Arc<dyn Store>,
    pass: impl AsyncFn(u32),
) {
    let store = &*store;
    let invented = task(store).await;
    let living = recorded(store).await;
    let strict = after(store, &[&invented, &living], OnFailure::Cancel).await;
    let next = after(store, &[&strict], OnFailure::Cancel).await;
    let gentle = after(store, &[&invented], OnFailure::Run).await;
    let patient = after(store, &[&invented, &living], OnFailure::Run).await;
    let all = [&strict, &next, &gentle, &patient];
    for task in all {
        record(store, task).await;
    }
    pass(23).await;
    assert_eq!(settle(store).await, []);
    for task in all {
        assert_eq!(state(store, task).await, State::Blocked);
    }
    pass(2).await;
    let mut events: Vec<(TaskId, State)> = Vec::new();
    for event in settle(store).await {
        events.push((event.id, event.state));
    }
    events.sort_unstable();
    let mut expected = [
        (strict.id, State::Cancelled),
        (next.id, State::Cancelled),
        (gentle.id, State::Scheduled),
    ];
    expected.sort_unstable();
    assert_eq!(events, expected);
    let strict = get(store, strict.id).await;
    let why = format!("it was to run after task {}, which does not exist", invented.id);
    assert_eq!(strict.errors[0].message, why);
    let blocked = store.blocked_on(patient.id).await.expect("ask");
    assert_eq!((blocked.tasks, blocked.unknown), (vec![living.id], Vec::new()));
    // Should it come after all, it runs, and nobody hears of it.
    record(store, &invented).await;
    run(store, &invented, Decision::Succeed).await;
    run(store, &living, Decision::Fail).await;
    settle(store).await;
    assert_eq!(state(store, &patient).await, State::Scheduled);
}

/// A name that no webhook can have, in all tasks that name one.
const BREAK_NOTIFY: &str =
    r#"UPDATE tasks SET terms = '{"notify": ["no name!"]}' WHERE terms ->> 'notify' IS NOT NULL"#;
