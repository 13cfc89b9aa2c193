//! Operations on many tasks.

use std::{sync::Arc, time::Duration};

use forebay_core::{
    AttemptError, Decision, FilterRequest, Operation, OperationId, OperationPlan, OperationRequest,
    OperationState, State, Submission, TaskId, Timestamp, WEBHOOK_KIND, WEBHOOK_QUEUE,
};

use super::support::*;
use crate::{OPERATIONS_MAX, OperationPass, Store};

/// Faster than any of these cases needs.
const RATE: i64 = 1_000;

fn asked(action: &str, filter: FilterRequest) -> OperationRequest {
    OperationRequest {
        action: action.to_owned(),
        filter,
        rate_per_second: Some(RATE),
        max: None,
    }
}

fn plan(action: &str, filter: FilterRequest) -> OperationPlan {
    asked(action, filter).accept().expect("a sound plan")
}

fn in_state(state: &str) -> FilterRequest {
    FilterRequest {
        state: Some(state.to_owned()),
        ..FilterRequest::default()
    }
}

async fn begin(store: &dyn Store, plan: &OperationPlan) -> Operation {
    let matching = store.matching(plan, 0).await.expect("count");
    let id = operation_id(now(store).await);
    let begun = store.begin_operation(id, plan, &matching).await.expect("begin");
    begun.expect("there is room")
}

/// A new id, as unique as a task's.
fn operation_id(at: Timestamp) -> OperationId {
    OperationId::from(task_at(at).id.as_uuid())
}

/// Passes until none has anything to do for the present; all that was told.
async fn passes(store: &dyn Store) -> Vec<OperationPass> {
    let mut all = Vec::new();
    loop {
        let pass = store.pass_operation().await.expect("pass");
        match (&pass.operation, pass.next_in) {
            (None, None) => return all,
            (None, Some(wait)) => tokio::time::sleep(wait.min(Duration::from_millis(50))).await,
            (Some(_), _) => all.push(pass),
        }
    }
}

/// Begins it, goes through with it, and says how it ended.
async fn carried_out(store: &dyn Store, plan: &OperationPlan) -> Operation {
    let begun = begin(store, plan).await;
    passes(store).await;
    ended_operation(store, begun.id).await
}

async fn ended_operation(store: &dyn Store, id: OperationId) -> Operation {
    let operation = store.operation(id).await.expect("read").expect("it is kept");
    assert_ne!(operation.state, OperationState::Running);
    assert!(operation.finished_at.is_some());
    operation
}

/// Done, skipped, failed; what was matched is all of these.
fn figures(operation: &Operation) -> (u64, u64, u64) {
    let progress = operation.progress;
    assert_eq!(
        progress.matched,
        progress.done + progress.skipped + progress.failed
    );
    (progress.done, progress.skipped, progress.failed)
}

/// A task whose only attempt has failed, with this for an error.
async fn failed_with(store: &dyn Store, task: Submission, message: &str) -> TaskId {
    record(store, &task).await;
    let worker = worker(store).await;
    let claimed = claim(store, worker, wants_new(&task)).await.expect("granted");
    let mut completion = ended(&claimed, Decision::Fail);
    completion.error = Some(message.to_owned());
    complete(store, worker, completion).await;
    task.id
}

async fn failed(store: &dyn Store) -> TaskId {
    let task = task(store).await;
    failed_with(store, task, "no luck").await
}

async fn state(store: &dyn Store, id: TaskId) -> State {
    get(store, id).await.state
}

/// Counting changes nothing, and names the oldest first.
pub async fn what_is_meant_is_counted_first(store: Arc<dyn Store>) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(failed(&*store).await);
    }
    recorded(&*store).await;
    let matching = store
        .matching(&plan("retry", in_state("failed")), 3)
        .await
        .expect("count");
    assert_eq!((matching.count, matching.is_exact), (5, true));
    assert_eq!(matching.sample, sorted(ids.clone())[..3]);
    for id in ids {
        assert_eq!(state(&*store, id).await, State::Failed);
    }
    assert_eq!(store.operations(10, None).await.expect("list"), []);
    assert_eq!(
        store.pass_operation().await.expect("pass"),
        OperationPass::default()
    );
}

/// Each part of a filter, alone and with others.
pub async fn each_part_of_a_filter_counts(store: Arc<dyn Store>) {
    let base = task(&*store).await;
    let other = |seconds: i64| Submission {
        kind: "report".parse().expect("a kind"),
        lane: lane("slow.default"),
        project: "acme".parse().expect("a project"),
        tags: vec!["x".into(), "y".into()],
        ..task_at(plus(base.created_at, seconds))
    };
    failed_with(&*store, base.clone(), "connection refused").await;
    failed_with(&*store, other(-3_600), "100% timeout_").await;
    failed_with(&*store, other(-7_200), "connection reset").await;
    // One of Forebay's own, which is meant only by its name.
    let own = Submission {
        kind: WEBHOOK_KIND.parse().expect("a kind"),
        lane: lane(&format!("{WEBHOOK_QUEUE}.default")),
        ..other(-3_600)
    };
    failed_with(&*store, own, "connection refused").await;
    let said = |text: &str| Some(text.to_owned());
    let hours_ago = |hours: i64| Some(plus(base.created_at, -3_600 * hours));
    let half_hour = Some(plus(base.created_at, -1_800));
    let filters = [
        (
            FilterRequest {
                kind: said(WEBHOOK_KIND),
                ..FilterRequest::default()
            },
            1,
        ),
        (
            FilterRequest {
                queue: said(WEBHOOK_QUEUE),
                ..FilterRequest::default()
            },
            1,
        ),
        (
            FilterRequest {
                kind: said("report"),
                ..FilterRequest::default()
            },
            2,
        ),
        (
            FilterRequest {
                queue: said("slow"),
                ..FilterRequest::default()
            },
            2,
        ),
        (
            FilterRequest {
                queue: said("default"),
                ..FilterRequest::default()
            },
            1,
        ),
        (
            FilterRequest {
                project: said("acme"),
                ..FilterRequest::default()
            },
            2,
        ),
        (
            FilterRequest {
                tag: said("y"),
                ..FilterRequest::default()
            },
            2,
        ),
        (
            FilterRequest {
                tag: said("z"),
                ..FilterRequest::default()
            },
            0,
        ),
        (
            FilterRequest {
                error_contains: said("connection"),
                ..FilterRequest::default()
            },
            2,
        ),
        (
            FilterRequest {
                error_contains: said("Connection"),
                ..FilterRequest::default()
            },
            0,
        ),
        (
            FilterRequest {
                error_contains: said("% timeout_"),
                ..FilterRequest::default()
            },
            1,
        ),
        (
            FilterRequest {
                error_contains: said("%"),
                ..FilterRequest::default()
            },
            1,
        ),
        (
            FilterRequest {
                created_after: hours_ago(1),
                ..FilterRequest::default()
            },
            1,
        ),
        (
            FilterRequest {
                created_before: hours_ago(1),
                ..FilterRequest::default()
            },
            1,
        ),
        (
            FilterRequest {
                created_before: half_hour,
                created_after: hours_ago(3),
                ..FilterRequest::default()
            },
            2,
        ),
        (
            FilterRequest {
                batch: said("01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d"),
                ..FilterRequest::default()
            },
            0,
        ),
        (
            FilterRequest {
                kind: said("report"),
                error_contains: said("reset"),
                ..in_state("failed")
            },
            1,
        ),
        (in_state("cancelled"), 0),
    ];
    for (filter, count) in filters {
        // The one looks at the failed alone, the other at all.
        for action in ["retry", "delete"] {
            let plan = plan(action, filter.clone());
            let matching = store.matching(&plan, 10).await.expect("count");
            assert_eq!(
                (matching.count, matching.is_exact),
                (count, true),
                "{action} {filter:?}"
            );
        }
    }
}

/// Dead letters come back with all their attempts, and are told of.
pub async fn many_are_retried(store: Arc<dyn Store>) {
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(failed(&*store).await);
    }
    let succeeded = running(&*store).await;
    complete(&*store, succeeded.1, ended(&succeeded.2, Decision::Succeed)).await;
    let begun = begin(&*store, &plan("retry", in_state("failed"))).await;
    assert_eq!(
        (begun.state, begun.expected, begun.expected_is_exact),
        (OperationState::Running, 30, true)
    );
    let told: Vec<_> = passes(&*store)
        .await
        .into_iter()
        .flat_map(|pass| pass.events)
        .collect();
    assert_eq!(sorted(told.iter().map(|event| event.id)), sorted(ids.clone()));
    assert!(
        told.iter()
            .all(|event| (event.state, event.attempt) == (State::Retrying, 0))
    );
    let operation = ended_operation(&*store, begun.id).await;
    assert_eq!(
        (operation.state, figures(&operation)),
        (OperationState::Completed, (30, 0, 0))
    );
    let sink = Sink::open();
    store.dispatch_due(100, &sink).await.expect("dispatch");
    assert_eq!(sorted(sink.ids()), sorted(ids));
    assert_eq!(state(&*store, succeeded.0.id).await, State::Succeeded);
}

/// What waits is cancelled, what runs is marked, and what has ended is left alone.
pub async fn many_are_cancelled(store: Arc<dyn Store>) {
    let (runs, worker, claimed) = running(&*store).await;
    let queued = recorded(&*store).await;
    let scheduled = parked(&*store, 3_600).await;
    record(&*store, &scheduled).await;
    let due = parked(&*store, -5).await;
    record(&*store, &due).await;
    let failed = failed(&*store).await;
    let filter = FilterRequest {
        queue: Some("default".into()),
        ..FilterRequest::default()
    };
    let begun = begin(&*store, &plan("cancel", filter)).await;
    let passes = passes(&*store).await;
    let told = passes.iter().flat_map(|pass| &pass.events);
    assert_eq!(
        sorted(told.map(|event| event.id)),
        sorted([queued.id, scheduled.id, due.id])
    );
    let cancelling: Vec<TaskId> = passes.iter().flat_map(|pass| pass.cancelling.clone()).collect();
    assert_eq!(cancelling, [runs.id], "its worker is to be told");
    assert_eq!(figures(&ended_operation(&*store, begun.id).await), (4, 0, 0));
    for id in [queued.id, scheduled.id, due.id] {
        let task = get(&*store, id).await;
        assert_eq!((task.state, task.finished_at.is_some()), (State::Cancelled, true));
    }
    assert!(get(&*store, runs.id).await.cancel_requested);
    assert_eq!(state(&*store, failed).await, State::Failed);
    complete(&*store, worker, ended(&claimed, Decision::Cancel)).await;
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.ids(), [], "nothing cancelled is dispatched");
}

/// What is deleted is gone from every list, and what has not ended stays.
pub async fn many_are_deleted(store: Arc<dyn Store>) {
    let dead = failed(&*store).await;
    let (done, worker, claimed) = running(&*store).await;
    complete(&*store, worker, ended(&claimed, Decision::Succeed)).await;
    let waits = recorded(&*store).await;
    let before = FilterRequest {
        created_before: Some(plus(now(&*store).await, 3_600)),
        ..FilterRequest::default()
    };
    let operation = carried_out(&*store, &plan("delete", before)).await;
    assert_eq!(figures(&operation), (2, 0, 0));
    for id in [dead, done.id] {
        assert_eq!(store.get(id).await.expect("read"), None);
    }
    assert_eq!(state(&*store, waits.id).await, State::Queued);
    assert_eq!(count(&*store).await, 1);
    let again = store
        .matching(&plan("retry", in_state("failed")), 1)
        .await
        .expect("count");
    assert_eq!(again.count, 0, "no dead letter is left behind");
}

/// A key names its task for its day and the next, whatever is deleted.
pub async fn what_a_key_names_is_kept_for_its_time(store: Arc<dyn Store>) {
    let today = now(&*store).await;
    let young = keyed_at(today, "young", 1);
    let old = keyed_at(plus(today, -3 * 24 * 3_600), "old", 1);
    for task in [&young, &old] {
        failed_with(&*store, task.clone(), "no luck").await;
    }
    let operation = carried_out(&*store, &plan("delete", in_state("failed"))).await;
    assert_eq!(figures(&operation), (1, 1, 0));
    assert_eq!(state(&*store, young.id).await, State::Failed);
    assert_eq!(store.get(old.id).await.expect("read"), None);
}

/// A task is come to once: one that fails again is not tried again, and one that came later is left alone.
pub async fn each_task_is_come_to_once(store: Arc<dyn Store>) {
    let mut tasks = [task(&*store).await, task(&*store).await];
    tasks.sort_by_key(|task| task.id);
    for task in &tasks {
        failed_with(&*store, task.clone(), "no luck").await;
    }
    let slow = OperationRequest {
        rate_per_second: Some(4),
        ..asked("retry", in_state("failed"))
    };
    let begun = begin(&*store, &slow.accept().expect("a plan")).await;
    now_after(&*store, begun.created_at).await;
    let later = failed(&*store).await;
    let pass = store.pass_operation().await.expect("pass");
    let told: Vec<TaskId> = pass.events.iter().map(|event| event.id).collect();
    assert_eq!(told, [tasks[0].id]);
    // It fails again before the next pass.
    let worker = worker(&*store).await;
    let claimed = claim_ready(&*store, worker, &tasks[0], 1).await.expect("granted");
    complete(&*store, worker, ended(&claimed, Decision::Fail)).await;
    passes(&*store).await;
    assert_eq!(figures(&ended_operation(&*store, begun.id).await), (2, 0, 0));
    assert_eq!(state(&*store, tasks[0].id).await, State::Failed);
    assert_eq!(state(&*store, tasks[1].id).await, State::Retrying);
    assert_eq!(
        state(&*store, later).await,
        State::Failed,
        "it came after the operation began"
    );
}

/// No more a second than was asked for, by the store's clock.
pub async fn the_rate_is_a_cap(store: Arc<dyn Store>) {
    for _ in 0..6 {
        failed(&*store).await;
    }
    let slow = OperationRequest {
        rate_per_second: Some(10),
        ..asked("retry", in_state("failed"))
    };
    begin(&*store, &slow.accept().expect("a plan")).await;
    let began = now(&*store).await;
    let first = store.pass_operation().await.expect("pass");
    assert_eq!(first.events.len(), 3, "what is for a quarter of a second");
    let wait = first.next_in.expect("there is more");
    assert!(
        wait > Duration::from_millis(200) && wait <= Duration::from_millis(300),
        "{wait:?}"
    );
    let idle = store.pass_operation().await.expect("pass");
    assert_eq!(idle.operation, None, "not before its time");
    assert!(idle.next_in.is_some());
    passes(&*store).await;
    let took = Duration::try_from(now(&*store).await.duration_since(began)).expect("forward");
    assert!(took >= Duration::from_millis(300), "{took:?}");
}

/// It ends when it has come to as many as it may.
pub async fn max_is_a_bound(store: Arc<dyn Store>) {
    for _ in 0..5 {
        failed(&*store).await;
    }
    let few = OperationRequest {
        max: Some(3),
        ..asked("retry", in_state("failed"))
    };
    let operation = carried_out(&*store, &few.accept().expect("a plan")).await;
    assert_eq!(
        (operation.state, figures(&operation)),
        (OperationState::Completed, (3, 0, 0))
    );
    assert_eq!((operation.expected, operation.plan.max), (5, Some(3)));
}

/// What was done stays, and nothing more is done.
pub async fn an_aborted_operation_does_nothing_more(store: Arc<dyn Store>) {
    for _ in 0..5 {
        failed(&*store).await;
    }
    let slow = OperationRequest {
        rate_per_second: Some(8),
        ..asked("retry", in_state("failed"))
    };
    let begun = begin(&*store, &slow.accept().expect("a plan")).await;
    store.pass_operation().await.expect("pass");
    let aborted = store
        .abort_operation(begun.id)
        .await
        .expect("abort")
        .expect("it is kept");
    assert_eq!(
        (aborted.state, figures(&aborted)),
        (OperationState::Aborted, (2, 0, 0))
    );
    assert_eq!(passes(&*store).await, []);
    let again = store.abort_operation(begun.id).await.expect("abort");
    assert_eq!(again.as_ref(), Some(&aborted), "once is enough");
    let left = store
        .matching(&plan("retry", in_state("failed")), 0)
        .await
        .expect("count");
    assert_eq!(left.count, 3);
    let completed = carried_out(&*store, &plan("retry", in_state("failed"))).await;
    let refused = store.abort_operation(completed.id).await.expect("abort");
    assert_eq!(refused, Some(completed), "what is completed stays so");
    let unknown = operation_id(now(&*store).await);
    assert_eq!(store.abort_operation(unknown).await.expect("abort"), None);
    assert_eq!(store.operation(unknown).await.expect("read"), None);
}

/// A pass whose caller goes away has happened as a whole or not at all.
pub async fn what_is_cut_off_goes_on_where_it_was(store: Arc<dyn Store>) {
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(failed(&*store).await);
    }
    let begun = begin(&*store, &plan("retry", in_state("failed"))).await;
    for micros in (0..200).step_by(10) {
        let cut = Duration::from_micros(micros * 20);
        drop(tokio::time::timeout(cut, store.pass_operation()).await);
    }
    let told = async || {
        let found = store
            .operation(begun.id)
            .await
            .expect("read")
            .expect("it is kept");
        (found.state, found.progress.done)
    };
    wait_until("it is through", || async {
        store.pass_operation().await.expect("pass");
        told().await.0 == OperationState::Completed
    })
    .await;
    assert_eq!(told().await.1, 40, "each task was counted once");
    for id in ids {
        assert_eq!(state(&*store, id).await, State::Retrying);
    }
}

/// Several dispatchers share the work, and do nothing twice.
pub async fn several_dispatchers_come_to_each_task_once(store: Arc<dyn Store>) {
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(failed(&*store).await);
    }
    for kind in ["echo", "report"] {
        let filter = FilterRequest {
            kind: Some(kind.into()),
            ..in_state("failed")
        };
        begin(&*store, &plan("retry", filter)).await;
    }
    let dispatchers: Vec<_> = (0..3)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { passes(&*store).await })
        })
        .collect();
    let mut told = Vec::new();
    for dispatcher in dispatchers {
        let passes = dispatcher.await.expect("it goes on");
        told.extend(
            passes
                .into_iter()
                .flat_map(|pass| pass.events)
                .map(|event| event.id),
        );
    }
    assert_eq!(sorted(told), sorted(ids), "each once");
    for operation in store.operations(10, None).await.expect("list") {
        assert_eq!(operation.state, OperationState::Completed);
    }
}

/// The latest first, page by page; and no more at once than there is room for.
pub async fn operations_are_listed_and_bounded(store: Arc<dyn Store>) {
    let plan = plan("retry", in_state("failed"));
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(begin(&*store, &plan).await.id);
    }
    ids.sort_unstable();
    ids.reverse();
    let listed = async |size, after| {
        let page = store.operations(size, after).await.expect("list");
        page.into_iter().map(|operation| operation.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(10, None).await, ids);
    assert_eq!(listed(2, None).await, ids[..2]);
    assert_eq!(listed(2, Some(ids[1])).await, ids[2..]);
    let first = store.operation(ids[2]).await.expect("read").expect("it is kept");
    assert_eq!((&first.plan, first.state), (&plan, OperationState::Running));
    let matching = store.matching(&plan, 0).await.expect("count");
    let again = store
        .begin_operation(ids[2], &plan, &matching)
        .await
        .expect("begin");
    assert_eq!(again, Some(first), "to begin it again changes nothing");
    for _ in 3..OPERATIONS_MAX {
        begin(&*store, &plan).await;
    }
    let one_more = operation_id(now(&*store).await);
    let refused = store
        .begin_operation(one_more, &plan, &matching)
        .await
        .expect("begin");
    assert_eq!(refused, None);
    passes(&*store).await;
    let begun = store
        .begin_operation(one_more, &plan, &matching)
        .await
        .expect("begin");
    assert!(begun.is_some(), "there is room again");
}

/// The last error counts, not those before.
pub async fn the_latest_error_is_what_is_searched(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    let mut completion = ended(&claimed, RETRY_NOW);
    completion.error = Some("first".to_owned());
    complete(&*store, worker, completion).await;
    let claimed = claim_ready(&*store, worker, &task, 1).await.expect("granted");
    let mut completion = ended(&claimed, Decision::Fail);
    completion.error = Some("second".to_owned());
    complete(&*store, worker, completion).await;
    let errors: Vec<AttemptError> = get(&*store, task.id).await.errors;
    assert_eq!(errors.len(), 2);
    for (text, count) in [("first", 0), ("second", 1)] {
        let filter = FilterRequest {
            error_contains: Some(text.into()),
            ..in_state("failed")
        };
        let matching = store.matching(&plan("retry", filter), 0).await.expect("count");
        assert_eq!(matching.count, count, "{text}");
    }
}
