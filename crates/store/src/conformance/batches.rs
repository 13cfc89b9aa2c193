//! Batches: counts that are exact, and one completion.

use std::sync::Mutex;

use forebay_core::{BatchId, Decision, Fingerprint, State, Submission, TaskId, Terms, Timestamp};

use super::{
    compose::{run, settle},
    support::{claim_ready, complete, ended, get, lock, now, task_at, wait_until, worker},
};
use crate::{BATCH_TASKS_MAX, Batch, BatchPage, BatchPart, Grown, NewBatch, Opened, Store};

fn batch_at(at: Timestamp, number: u8, total: u64) -> NewBatch {
    NewBatch {
        id: BatchId::new(at, &[number; 10]),
        project: forebay_core::Project::default(),
        name: Some(format!("batch {number}")),
        fingerprint: None,
        total,
        is_open: false,
        created_at: at,
        completion: None,
    }
}

/// The tasks of a batch, not recorded.
fn members(batch: BatchId, part: &str, at: Timestamp, count: u16) -> Vec<Submission> {
    let member = |index| Submission {
        id: TaskId::of_batch(batch, part, index),
        terms: Some(Box::new(Terms {
            batch: Some(batch),
            ..Terms::default()
        })),
        ..task_at(at)
    };
    (0..count).map(member).collect()
}

async fn open(store: &dyn Store, batch: &NewBatch) -> Batch {
    match store.open_batch(batch).await.expect("open a batch") {
        Opened::New(opened) => opened,
        other => panic!("it is new: {other:?}"),
    }
}

async fn read(store: &dyn Store, id: BatchId) -> (Batch, Vec<(State, u64)>) {
    let batch = store.batch(id).await.expect("read a batch").expect("it exists");
    let counts = store.batch_counts(id).await.expect("count its tasks");
    (batch, counts.of.into_iter().collect())
}

/// Counts follow its tasks, and the last end completes it.
pub async fn counts_follow_its_tasks(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let at = now(store).await;
    let new = batch_at(at, 1, 3);
    let opened = open(store, &new).await;
    assert_eq!(
        (opened.total, opened.ended, opened.name.as_deref()),
        (3, 0, Some("batch 1"))
    );
    assert!(opened.closed_at.is_some() && opened.completed_at.is_none());
    assert_eq!(read(store, new.id).await.1, []);
    let tasks = members(new.id, "", at, 3);
    store.record(&tasks).await.expect("record");
    assert_eq!(read(store, new.id).await.1, [(State::Queued, 3)]);
    run(store, &tasks[0], Decision::Succeed).await;
    run(store, &tasks[1], Decision::Fail).await;
    settle(store).await;
    let (batch, counts) = read(store, new.id).await;
    assert_eq!((batch.ended, batch.completed_at), (2, None));
    assert_eq!(
        counts,
        [(State::Queued, 1), (State::Succeeded, 1), (State::Failed, 1)]
    );
    run(store, &tasks[2], Decision::Succeed).await;
    settle(store).await;
    let (batch, _) = read(store, new.id).await;
    assert_eq!(batch.ended, 3);
    assert!(batch.completed_at.is_some());
    let page = store.batch_tasks(new.id, 2, None).await.expect("list");
    assert_eq!(
        page.iter().map(|task| task.id).collect::<Vec<_>>(),
        [tasks[0].id, tasks[1].id]
    );
    let page = store
        .batch_tasks(new.id, 2, Some(tasks[1].id))
        .await
        .expect("list");
    assert_eq!(page.iter().map(|task| task.id).collect::<Vec<_>>(), [tasks[2].id]);
}

/// What completes it runs once, when all have ended.
pub async fn its_completion_runs_once(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let at = now(store).await;
    let completion = task_at(at);
    let new = NewBatch {
        completion: Some(completion.clone()),
        ..batch_at(at, 1, 2)
    };
    open(store, &new).await;
    assert_eq!(get(store, completion.id).await.state, State::Blocked);
    let blocked = store.blocked_on(completion.id).await.expect("ask");
    assert_eq!((blocked.tasks.len(), blocked.batch), (0, Some(new.id)));
    let tasks = members(new.id, "", at, 2);
    store.record(&tasks).await.expect("record");
    run(store, &tasks[0], Decision::Fail).await;
    assert_eq!(settle(store).await, []);
    // Brought back, and ended once more: counted once.
    store.retry(tasks[0].id).await.expect("retry");
    let own = worker(store).await;
    let claimed = claim_ready(store, own, &tasks[0], 1).await.expect("it is due");
    complete(store, own, ended(&claimed, Decision::Succeed)).await;
    assert_eq!(settle(store).await, []);
    assert_eq!(read(store, new.id).await.0.ended, 1);
    run(store, &tasks[1], Decision::Succeed).await;
    let events = settle(store).await;
    assert_eq!(
        events
            .iter()
            .map(|event| (event.id, event.state))
            .collect::<Vec<_>>(),
        [(completion.id, State::Scheduled)]
    );
    run(store, &completion, Decision::Succeed).await;
    assert_eq!(settle(store).await, []);
    assert_eq!(read(store, new.id).await.1, [(State::Succeeded, 2)]);
}

/// The same key opens it once, also across midnight, and not for another request.
pub async fn a_key_opens_it_once(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let at = now(store).await;
    let key = forebay_core::IdempotencyKey::parse("import").expect("a key");
    let keyed = |at, print| NewBatch {
        id: BatchId::keyed(at, &forebay_core::Project::default(), &key),
        fingerprint: Some(Fingerprint([print; 16])),
        completion: Some(task_at(at)),
        ..batch_at(at, 1, 2)
    };
    let first = keyed(at, 1);
    open(store, &first).await;
    let again = store.open_batch(&first).await.expect("open");
    assert!(
        matches!(&again, Opened::Known(batch) if batch.id == first.id),
        "{again:?}"
    );
    let tomorrow = keyed(super::support::plus(at, 24 * 3_600), 1);
    assert_ne!(tomorrow.id, first.id);
    let again = store.open_batch(&tomorrow).await.expect("open");
    assert!(
        matches!(&again, Opened::Known(batch) if batch.id == first.id),
        "{again:?}"
    );
    assert_eq!(
        store.open_batch(&keyed(at, 2)).await.expect("open"),
        Opened::Conflict(first.id)
    );
    let unknown = tomorrow.completion.as_ref().map(|task| task.id);
    assert_eq!(store.get(unknown.expect("it has one")).await.expect("read"), None);
}

/// More can be added while it is open, each addition once.
pub async fn it_grows_until_it_is_closed(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let at = now(store).await;
    let new = NewBatch {
        is_open: true,
        ..batch_at(at, 1, 0)
    };
    assert_eq!(open(store, &new).await.completed_at, None, "more may come");
    let part = |key, print, count| BatchPart {
        part: Fingerprint([key; 16]),
        fingerprint: Fingerprint([print; 16]),
        count,
    };
    for times in 0..2 {
        let known = store.knows_part(new.id, Fingerprint([1; 16])).await;
        assert_eq!(known.expect("ask"), times > 0);
        let grown = store.grow_batch(new.id, &part(1, 1, 2)).await.expect("grow");
        assert!(
            matches!(&grown, Grown::Done(batch) if batch.total == 2),
            "{grown:?}"
        );
    }
    assert_eq!(
        store.grow_batch(new.id, &part(1, 2, 2)).await.expect("grow"),
        Grown::Conflict
    );
    let full = store
        .grow_batch(new.id, &part(3, 3, BATCH_TASKS_MAX))
        .await
        .expect("grow");
    assert!(matches!(full, Grown::Full(_)), "{full:?}");
    let tasks = members(new.id, "1", at, 2);
    store.record(&tasks).await.expect("record");
    for task in &tasks {
        run(store, task, Decision::Succeed).await;
    }
    settle(store).await;
    assert_eq!(read(store, new.id).await.0.completed_at, None, "more may come");
    let closed = store
        .close_batch(new.id)
        .await
        .expect("close")
        .expect("it exists");
    assert!(closed.closed_at.is_some() && closed.completed_at.is_some());
    assert_eq!(
        store
            .close_batch(new.id)
            .await
            .expect("close")
            .expect("it exists"),
        closed
    );
    let late = store.grow_batch(new.id, &part(2, 2, 1)).await.expect("grow");
    assert!(matches!(late, Grown::Closed(_)), "{late:?}");
    let again = store.grow_batch(new.id, &part(1, 1, 2)).await.expect("grow");
    assert!(
        matches!(again, Grown::Done(_)),
        "a repeated addition is known: {again:?}"
    );
    let stranger = BatchId::new(at, &[9; 10]);
    for (batch, key) in [(new.id, 2), (new.id, 3), (stranger, 1)] {
        let known = store.knows_part(batch, Fingerprint([key; 16])).await;
        assert!(
            !known.expect("ask"),
            "what was refused is not known: {batch}, {key}"
        );
    }
    assert_eq!(
        store.grow_batch(stranger, &part(1, 1, 1)).await.expect("grow"),
        Grown::NotFound
    );
    assert_eq!(store.close_batch(stranger).await.expect("close"), None);
    assert_eq!(store.cancel_batch(stranger).await.expect("cancel"), None);
    assert_eq!(store.batch(stranger).await.expect("read"), None);
}

/// One without tasks is complete at once.
pub async fn an_empty_one_is_complete_at_once(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let at = now(store).await;
    let completion = task_at(at);
    let new = NewBatch {
        completion: Some(completion.clone()),
        ..batch_at(at, 1, 0)
    };
    assert!(open(store, &new).await.completed_at.is_some());
    assert_eq!(get(store, completion.id).await.state, State::Scheduled);
}

/// All of it ends: what waits, what runs, what comes later, and what was to complete it.
pub async fn cancelling_ends_all_of_it(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let at = now(store).await;
    let completion = task_at(at);
    let new = NewBatch {
        completion: Some(completion.clone()),
        ..batch_at(at, 1, 305)
    };
    open(store, &new).await;
    let mut tasks = members(new.id, "", at, 304);
    let late = tasks.split_off(302);
    store.record(&tasks).await.expect("record");
    run(store, &tasks[0], Decision::Succeed).await;
    let own = worker(store).await;
    let claimed = claim_ready(store, own, &tasks[1], 0).await.expect("it is ready");
    let cancelled = store
        .cancel_batch(new.id)
        .await
        .expect("cancel")
        .expect("it exists");
    assert!(cancelled.cancelled_at.is_some() && cancelled.closed_at.is_some());
    store.record(&late).await.expect("record");
    assert_eq!(get(store, late[0].id).await.state, State::Cancelled);
    let told = Mutex::new(Vec::new());
    wait_until("all of it is told to end", || async {
        let settled = store.settle(100).await.expect("settle");
        lock(&told).extend(settled.cancel);
        !settled.more && settled.seen == 0
    })
    .await;
    assert_eq!(*lock(&told), [claimed.id], "what runs is told");
    assert!(get(store, claimed.id).await.cancel_requested);
    let (batch, counts) = read(store, new.id).await;
    assert_eq!(
        counts,
        [
            (State::Running, 1),
            (State::Succeeded, 1),
            (State::Cancelled, 302)
        ]
    );
    assert_eq!(
        (batch.total, batch.completed_at),
        (304, None),
        "what never came is not waited for"
    );
    let mut last = members(new.id, "", at, 305);
    store.record(&last.split_off(304)).await.expect("record");
    settle(store).await;
    let (batch, _) = read(store, new.id).await;
    assert_eq!(
        (batch.total, batch.ended),
        (305, 304),
        "what comes all the same counts"
    );
    complete(store, own, ended(&claimed, Decision::Cancel)).await;
    settle(store).await;
    let (batch, _) = read(store, new.id).await;
    assert_eq!(batch.ended, 305);
    assert!(batch.completed_at.is_some());
    assert_eq!(get(store, completion.id).await.state, State::Cancelled);
    assert_eq!(
        store
            .cancel_batch(new.id)
            .await
            .expect("cancel")
            .expect("it exists"),
        batch
    );
}

/// A batch that is complete stays as it is.
pub async fn what_is_complete_is_not_cancelled(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let at = now(store).await;
    let new = batch_at(at, 1, 0);
    let opened = open(store, &new).await;
    assert_eq!(store.cancel_batch(new.id).await.expect("cancel"), Some(opened));
}

/// Newest first, page by page, and by project.
pub async fn they_are_listed_newest_first(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let at = now(store).await;
    let other: forebay_core::Project = "other".parse().expect("a project");
    for number in 1..=4 {
        let mut new = batch_at(super::support::plus(at, i64::from(number / 2)), number, 0);
        if number == 4 {
            new.project = other.clone();
        }
        open(store, &new).await;
    }
    let names = |batches: Vec<Batch>| {
        batches
            .into_iter()
            .filter_map(|batch| batch.name)
            .collect::<Vec<_>>()
    };
    let first = store.batches(None, 3, None).await.expect("list");
    let last = first.last().expect("three");
    let page = BatchPage {
        created_at: last.created_at,
        id: last.id,
    };
    let rest = store.batches(None, 3, Some(page)).await.expect("list");
    assert_eq!(names(first), ["batch 4", "batch 3", "batch 2"]);
    assert_eq!(names(rest), ["batch 1"]);
    assert_eq!(
        names(store.batches(Some(&other), 3, None).await.expect("list")),
        ["batch 4"]
    );
}

/// Four workers end its tasks while three dispatchers count: the counts are exact, and it is completed once.
pub async fn many_hands_complete_it_once(store: std::sync::Arc<dyn Store>) {
    let at = now(&*store).await;
    let completion = task_at(at);
    let new = NewBatch {
        completion: Some(completion.clone()),
        ..batch_at(at, 1, 120)
    };
    open(&*store, &new).await;
    let tasks = members(new.id, "", at, 120);
    store.record(&tasks).await.expect("record");
    let workers: Vec<_> = tasks
        .chunks(30)
        .map(|part| {
            let (store, part) = (std::sync::Arc::clone(&store), part.to_vec());
            tokio::spawn(async move {
                for task in &part {
                    run(&*store, task, Decision::Succeed).await;
                }
            })
        })
        .collect();
    let dispatchers: Vec<_> = (0..3)
        .map(|_| {
            let (store, id) = (std::sync::Arc::clone(&store), new.id);
            tokio::spawn(async move {
                let events = Mutex::new(Vec::new());
                wait_until("it is complete", || async {
                    // Two that want the same rows may be told to try again.
                    if let Ok(settled) = store.settle(7).await {
                        lock(&events).extend(settled.events);
                    }
                    let batch = store.batch(id).await.expect("read").expect("it exists");
                    batch.completed_at.is_some()
                })
                .await;
                events.into_inner().unwrap_or_default()
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("run");
    }
    let mut events = Vec::new();
    for dispatcher in dispatchers {
        events.extend(dispatcher.await.expect("settle"));
    }
    assert_eq!(
        events.iter().map(|event| event.id).collect::<Vec<_>>(),
        [completion.id]
    );
    let (batch, counts) = read(&*store, new.id).await;
    assert_eq!((batch.ended, counts), (120, vec![(State::Succeeded, 120)]));
}

/// What is completed is forgotten after the retention, and nothing else.
pub async fn old_ones_are_forgotten(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let at = now(store).await;
    open(store, &batch_at(at, 1, 0)).await;
    open(store, &batch_at(at, 2, 1)).await;
    let day = std::time::Duration::from_secs(24 * 3_600);
    store.maintain(Some(day)).await.expect("maintain");
    assert_eq!(store.batches(None, 9, None).await.expect("list").len(), 2);
    wait_until("the completed one is forgotten", || async {
        store
            .maintain(Some(std::time::Duration::from_millis(1)))
            .await
            .expect("maintain");
        let left = store.batches(None, 9, None).await.expect("list");
        assert!(left.iter().any(|batch| batch.completed_at.is_none()), "{left:?}");
        left.len() == 1
    })
    .await;
}

/// One that was brought back is unfinished, although it has been counted.
pub async fn it_waits_for_what_was_brought_back(store: std::sync::Arc<dyn Store>) {
    let store = &*store;
    let at = now(store).await;
    let completion = task_at(at);
    let new = NewBatch {
        completion: Some(completion.clone()),
        ..batch_at(at, 1, 2)
    };
    open(store, &new).await;
    let tasks = members(new.id, "", at, 2);
    store.record(&tasks).await.expect("record");
    run(store, &tasks[0], Decision::Fail).await;
    settle(store).await;
    store.retry(tasks[0].id).await.expect("retry");
    run(store, &tasks[1], Decision::Succeed).await;
    assert_eq!(settle(store).await, [], "one of them is to run again");
    assert_eq!(read(store, new.id).await.0.completed_at, None);
    let own = worker(store).await;
    let claimed = claim_ready(store, own, &tasks[0], 1).await.expect("it is due");
    // As it ended before.
    complete(store, own, ended(&claimed, Decision::Fail)).await;
    let events = settle(store).await;
    assert_eq!(
        events.iter().map(|event| event.id).collect::<Vec<_>>(),
        [completion.id]
    );
    let (batch, _) = read(store, new.id).await;
    assert_eq!((batch.ended, batch.completed_at.is_some()), (2, true));
}

/// What never came is not waited for for ever, and pages are full although tasks of it are no longer kept. Tasks are deleted by
/// `corrupt`, and time passes by it, by a statement in the store's own words, since no method of a store can bring that about.
pub async fn a_day_later_it_makes_do_with_what_there_is(
    store: std::sync::Arc<dyn Store>,
    corrupt: impl AsyncFn(&'static str),
    pass_a_day: &'static str,
) {
    const DELETE: &str =
        "DELETE FROM tasks WHERE id IN (SELECT task_id FROM batch_members ORDER BY task_id LIMIT 2)";
    let store = &*store;
    let at = now(store).await;
    let completion = task_at(at);
    let new = NewBatch {
        completion: Some(completion.clone()),
        ..batch_at(at, 1, 5)
    };
    open(store, &new).await;
    let mut tasks = members(new.id, "", at, 5);
    let late = tasks.split_off(4);
    store.record(&tasks).await.expect("record");
    for task in &tasks {
        run(store, task, Decision::Succeed).await;
    }
    assert_eq!(settle(store).await, [], "one of them has not come");
    corrupt(pass_a_day).await;
    let events = settle(store).await;
    assert_eq!(
        events.iter().map(|event| event.id).collect::<Vec<_>>(),
        [completion.id]
    );
    let (batch, _) = read(store, new.id).await;
    assert_eq!(
        (batch.total, batch.ended, batch.completed_at.is_some()),
        (4, 4, true)
    );
    store.record(&late).await.expect("record");
    run(store, &late[0], Decision::Succeed).await;
    settle(store).await;
    let (batch, _) = read(store, new.id).await;
    assert_eq!(
        (batch.total, batch.ended),
        (5, 5),
        "what comes all the same counts"
    );
    corrupt(DELETE).await;
    let page = store.batch_tasks(new.id, 2, None).await.expect("list");
    let left: Vec<TaskId> = page.iter().map(|task| task.id).collect();
    assert_eq!(
        left,
        [tasks[2].id, tasks[3].id],
        "a page is full unless it is the last"
    );
}
