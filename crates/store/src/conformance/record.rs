//! Recording accepted tasks.

use std::{sync::Arc, time::Duration};

use forebay_core::{State, Submission, TraceParent};

use super::support::*;
use crate::{Recorded, Reject, Rejects, Store};

/// All that a submission says is found in its task.
pub async fn a_new_submission_is_inserted(store: Arc<dyn Store>) {
    let said = Submission {
        project: "shop".parse().expect("a valid project"),
        kind: "invoice.created".parse().expect("a valid kind"),
        lane: lane("billing.high"),
        payload: json(r#"{"n": 1}"#),
        tags: vec!["a".into(), "ä b".into()],
        max_attempts: Some(3),
        timeout: Some(Duration::from_millis(1_500)),
        traceparent: TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ..keyed_at(now(&*store).await, "order-17", 9)
    };
    record(&*store, &said).await;
    let task = get(&*store, said.id).await;
    assert_eq!(task.id, said.id);
    assert_eq!((&task.project, &task.kind), (&said.project, &said.kind));
    assert_eq!(task.lane(), said.lane);
    assert_eq!(task.payload, said.payload);
    assert_eq!(task.tags, said.tags);
    assert_eq!(
        (task.max_attempts, task.timeout),
        (said.max_attempts, said.timeout)
    );
    assert_eq!(task.created_at, said.created_at);
    assert_eq!(task.fingerprint, said.fingerprint);
    assert_eq!(task.traceparent, said.traceparent);
    assert_eq!((task.state, task.attempt, task.fence), (State::Queued, 0, 0));
    assert_eq!(
        (task.started_at, task.finished_at, task.worker),
        (None, None, None)
    );
    assert_eq!((task.result, task.log, task.run_at), (None, None, None));
    assert!(task.errors.is_empty() && !task.cancel_requested);
}

/// The same submission again changes nothing, whatever the task has become.
pub async fn a_repeated_submission_is_a_duplicate(store: Arc<dyn Store>) {
    let task = recorded(&*store).await;
    let before = get(&*store, task.id).await;
    let again = store.record(std::slice::from_ref(&task)).await;
    assert_eq!(again.expect("record again"), [Recorded::Duplicate]);
    assert_eq!(get(&*store, task.id).await, before);
    store.cancel(task.id).await.expect("cancel");
    let again = store.record(std::slice::from_ref(&task)).await;
    assert_eq!(again.expect("record again"), [Recorded::Duplicate]);
    assert_eq!(get(&*store, task.id).await.state, State::Cancelled);
}

/// One key, two bodies: the first counts.
pub async fn a_key_with_another_body_is_a_conflict(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    record(&*store, &keyed_at(at, "k", 1)).await;
    let again = store
        .record(&[keyed_at(at, "k", 1), keyed_at(at, "k", 2)])
        .await
        .expect("record again");
    assert_eq!(again, [Recorded::Duplicate, Recorded::Conflict]);
    assert_eq!(get(&*store, keyed_at(at, "k", 1).id).await.payload, json("1"));
}

/// A key that was used yesterday still names that task today, for whoever records, reads or claims.
pub async fn a_key_is_known_from_the_window_before(store: Arc<dyn Store>) {
    let today = now(&*store).await;
    let old = keyed_at(plus(today, -24 * 3_600), "k", 1);
    record(&*store, &old).await;
    let new = keyed_at(today, "k", 1);
    assert_ne!(old.id, new.id);
    let answers = store
        .record(&[new.clone(), keyed_at(today, "k", 2), keyed_at(today, "other", 1)])
        .await
        .expect("record the next day");
    assert_eq!(answers, [Recorded::Duplicate, Recorded::Conflict, Recorded::New]);
    assert_eq!(get(&*store, new.id).await.id, old.id);
    assert_eq!(count(&*store).await, 2);
}

/// At midnight a request may be repeated by way of a process for which it is still yesterday.
pub async fn a_key_is_known_from_the_window_after(store: Arc<dyn Store>) {
    let today = now(&*store).await;
    let first = keyed_at(today, "k", 1);
    record(&*store, &first).await;
    let yesterday = plus(today, -24 * 3_600);
    let again = keyed_at(yesterday, "k", 1);
    assert_ne!(first.id, again.id);
    let answers = store
        .record(&[
            again.clone(),
            keyed_at(yesterday, "k", 2),
            keyed_at(yesterday, "other", 1),
        ])
        .await
        .expect("record for yesterday");
    assert_eq!(answers, [Recorded::Duplicate, Recorded::Conflict, Recorded::New]);
    assert_eq!(get(&*store, again.id).await.id, first.id);
    assert_eq!(count(&*store).await, 2);
}

/// The second of two in one batch is judged by the first.
pub async fn a_batch_may_hold_an_id_twice(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let plain = task_at(at);
    let batch = [
        plain.clone(),
        keyed_at(at, "k", 1),
        plain,
        keyed_at(at, "k", 2),
        keyed_at(at, "k", 1),
    ];
    let answers = store.record(&batch).await.expect("record");
    assert_eq!(
        answers,
        [
            Recorded::New,
            Recorded::New,
            Recorded::Duplicate,
            Recorded::Conflict,
            Recorded::Duplicate
        ]
    );
    assert_eq!(get(&*store, batch[1].id).await.payload, json("1"));
}

/// What has a time waits for it.
pub async fn a_parked_submission_is_scheduled(store: Arc<dyn Store>) {
    let task = parked(&*store, 3_600).await;
    record(&*store, &task).await;
    let found = get(&*store, task.id).await;
    assert_eq!((found.state, found.run_at), (State::Scheduled, task.run_at));
}

/// What has a time that is past when it is recorded is scheduled as well: the dispatcher finds it at once.
pub async fn a_parked_submission_that_came_late_is_scheduled_too(store: Arc<dyn Store>) {
    let task = parked(&*store, -5).await;
    record(&*store, &task).await;
    assert_eq!(get(&*store, task.id).await.state, State::Scheduled);
}

/// A thousand at once, every third of them known.
pub async fn a_large_batch_is_answered_in_order(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let batch: Vec<Submission> = (0..1_000).map(|_| task_at(at)).collect();
    let known: Vec<Submission> = batch.iter().step_by(3).cloned().collect();
    store.record(&known).await.expect("record a third");
    let answers = store.record(&batch).await.expect("record all");
    assert_eq!(answers.len(), batch.len());
    for (index, answer) in answers.into_iter().enumerate() {
        let expected = if index % 3 == 0 {
            Recorded::Duplicate
        } else {
            Recorded::New
        };
        assert_eq!(answer, expected, "at {index}");
    }
}

/// A queue is listed from its first task on, by name.
pub async fn queues_become_known(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let batch = ["b.high", "a.low", "b.low"].map(|name| Submission {
        lane: lane(name),
        ..task_at(at)
    });
    store.record(&batch).await.expect("record");
    store.record(&batch).await.expect("record again");
    let queues = store.queues().await.expect("list the queues");
    let names: Vec<&str> = queues.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

/// Nothing about a message that is set aside can make that fail.
pub async fn rejects_are_kept_whatever_they_are(store: Arc<dyn Store>) {
    let reject = |body: Vec<u8>| Reject {
        subject: "submit.default.\0default".to_owned(),
        body: body.into(),
        reason: "field id: \0 is not \u{fffd}".to_owned(),
    };
    let batch = [
        reject(Vec::new()),
        reject(vec![0, 255, 254]),
        reject(vec![7; 300_000]),
    ];
    store.set_aside(&batch).await.expect("set aside");
    store.set_aside(&batch[..1]).await.expect("set the same aside");
    assert_eq!(store.rejects(100, 10).await.expect("list them").count, 4);
}

/// What was set aside can be looked at, newest first, and not more of it than is asked for.
pub async fn rejects_are_listed_newest_first(store: Arc<dyn Store>) {
    assert_eq!(
        store.rejects(10, 10).await.expect("list none"),
        Rejects::default()
    );
    let earliest = now(&*store).await;
    for number in 0..5_u8 {
        let reject = Reject {
            subject: format!("ready.default.{number}"),
            body: vec![255, number, 0, 3, 4, 5].into(),
            reason: format!("reason {number}"),
        };
        store.set_aside(&[reject]).await.expect("set aside");
    }
    let latest = now(&*store).await;
    let listed = store.rejects(2, 3).await.expect("list some");
    assert_eq!(listed.count, 5);
    let shown: Vec<_> = listed
        .latest
        .iter()
        .map(|it| (it.subject.as_str(), it.reason.as_str(), it.bytes, &it.excerpt[..]))
        .collect();
    assert_eq!(
        shown,
        [
            ("ready.default.4", "reason 4", 6, &[255, 4, 0][..]),
            ("ready.default.3", "reason 3", 6, &[255, 3, 0][..]),
        ]
    );
    for reject in &listed.latest {
        assert!((earliest..=latest).contains(&reject.rejected_at), "{reject:?}");
    }
    assert_eq!(store.rejects(100, 100).await.expect("list all").latest.len(), 5);
}
