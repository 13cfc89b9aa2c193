//! Places: as many run as may, and whatever takes a place is counted once.

use std::sync::Arc;

use forebay_core::{Decision, LimitRequest, State, Submission};

use super::super::support::{
    claim_id, claim_ready, complete, ended, get, lane, record, task, wait_until, wants_new, worker,
};
use super::kit::{
    a_second, at_a_time, claim_all, dispatch, granted, keyed, nothing_to_mend, of_each_key, put, release,
    rule, state, succeed, usage,
};
use crate::{Completed, LimitUse, PutLimit, Store};

/// Rules are kept, replaced, listed and deleted.
pub async fn a_rule_is_kept_as_it_was_put(store: Arc<dyn Store>) {
    let full = LimitRequest {
        queue: Some("mail".into()),
        kind: Some("mail.send".into()),
        by_key: true,
        concurrency: Some(3),
        ..a_second(10, 5)
    };
    let first = rule("b", full);
    let PutLimit::New(kept) = store.put_limit(&first).await.expect("put") else {
        panic!("there was none");
    };
    assert_eq!(kept.rule, first);
    put(&*store, "a", at_a_time(1)).await;
    let name = first.name.clone();
    assert_eq!(store.limit(&name).await.expect("read"), Some(kept.clone()));
    let second = rule("b", at_a_time(7));
    let PutLimit::Replaced(replaced) = store.put_limit(&second).await.expect("put") else {
        panic!("there was one");
    };
    assert_eq!((&replaced.rule, replaced.created_at), (&second, kept.created_at));
    assert!(replaced.updated_at >= kept.updated_at);
    let list = store.limits(10, None).await.expect("list");
    let names: Vec<&str> = list.iter().map(|it| it.rule.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let rest = store.limits(1, Some(&list[0].rule.name)).await.expect("list");
    assert_eq!(rest, [replaced]);
    assert!(store.delete_limit(&name).await.expect("delete"));
    assert!(!store.delete_limit(&name).await.expect("delete"));
    assert_eq!(store.limit(&name).await.expect("read"), None);
}

/// The rest is throttled, and says by what.
pub async fn as_many_run_as_may(store: Arc<dyn Store>) {
    put(&*store, "two", at_a_time(2)).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 4).await;
    let answers = claim_all(&*store, worker, &tasks).await;
    assert_eq!(granted(&answers), [0, 1]);
    assert!(answers.iter().flatten().all(|claimed| claimed.limited));
    assert_eq!(state(&*store, &tasks[2]).await, State::Throttled);
    let found = get(&*store, tasks[2].id).await;
    assert_eq!((found.fence, found.attempt, found.run_at), (0, 0, None));
    let hold = store
        .held_by(tasks[3].id)
        .await
        .expect("read")
        .expect("it is held");
    assert_eq!(
        (
            hold.limit.as_str(),
            hold.key,
            hold.running,
            hold.concurrency,
            hold.ahead
        ),
        ("two", None, 2, Some(2), 1)
    );
    assert_eq!(store.held_by(tasks[0].id).await.expect("read"), None);
    let expected = LimitUse {
        running: 2,
        waiting: 2,
    };
    assert_eq!(usage(&*store, "two").await, expected);
    assert_eq!(
        claim_ready(&*store, worker, &tasks[2], 0).await,
        None,
        "asked again"
    );
    nothing_to_mend(&*store).await;
}

/// Keys do not wait for each other, and what has none is not counted.
pub async fn each_key_counts_by_itself(store: Arc<dyn Store>) {
    put(&*store, "each", of_each_key(1)).await;
    let worker = worker(&*store).await;
    let mut tasks = keyed(&*store, "customer 1", 2).await;
    tasks.extend(keyed(&*store, "customer 2", 2).await);
    tasks.extend(keyed(&*store, "", 2).await);
    let answers = claim_all(&*store, worker, &tasks).await;
    assert_eq!(granted(&answers), [0, 2, 4, 5]);
    let limited: Vec<bool> = answers.iter().flatten().map(|it| it.limited).collect();
    assert_eq!(limited, [true, true, false, false]);
    let hold = store
        .held_by(tasks[3].id)
        .await
        .expect("read")
        .expect("it is held");
    assert_eq!(hold.key.as_deref(), Some("customer 2"));
    succeed(&*store, worker, answers[2].as_ref().expect("granted")).await;
    assert_eq!(dispatch(&*store).await, [tasks[3].id]);
}

/// Other queues and kinds are not counted.
pub async fn a_rule_is_for_its_queue_and_kind(store: Arc<dyn Store>) {
    let mail = LimitRequest {
        queue: Some("mail".into()),
        kind: Some("mail.send".into()),
        ..at_a_time(1)
    };
    put(&*store, "mail", mail).await;
    let worker = worker(&*store).await;
    let mut tasks = Vec::new();
    for (queue, kind) in [
        ("mail", "mail.send"),
        ("mail", "mail.send"),
        ("mail", "echo"),
        ("other", "mail.send"),
    ] {
        let task = Submission {
            lane: lane(&format!("{queue}.default")),
            kind: kind.parse().expect("a kind"),
            ..task(&*store).await
        };
        record(&*store, &task).await;
        tasks.push(task);
    }
    assert_eq!(granted(&claim_all(&*store, worker, &tasks).await), [0, 2, 3]);
}

/// An answer that was lost is asked for again.
pub async fn a_repeated_claim_counts_once(store: Arc<dyn Store>) {
    put(&*store, "two", at_a_time(2)).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 3).await;
    let requests: Vec<_> = tasks.iter().map(wants_new).collect();
    let claim = claim_id();
    let first = store.claim(worker, claim, &requests).await.expect("claim");
    let again = store.claim(worker, claim, &requests).await.expect("claim again");
    assert_eq!(first, again);
    assert_eq!(usage(&*store, "two").await.running, 2);
    let done = ended(first[0].as_ref().expect("granted"), Decision::Succeed);
    for _ in 0..2 {
        let answer = complete(&*store, worker, done.clone()).await;
        assert_eq!(answer, Completed::Applied(State::Succeeded));
    }
    assert_eq!(usage(&*store, "two").await.running, 1, "given back once");
    nothing_to_mend(&*store).await;
}

/// More may run at once, or all.
pub async fn a_limit_is_raised_lowered_and_deleted(store: Arc<dyn Store>) {
    put(&*store, "some", at_a_time(1)).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 8).await;
    let first = claim_all(&*store, worker, &tasks).await[0]
        .clone()
        .expect("granted");
    put(&*store, "some", at_a_time(3)).await;
    assert_eq!(release(&*store).await, 2);
    assert_eq!(dispatch(&*store).await, [tasks[1].id, tasks[2].id]);
    let second = claim_ready(&*store, worker, &tasks[1], 0).await.expect("granted");
    let third = claim_ready(&*store, worker, &tasks[2], 0).await.expect("granted");
    put(&*store, "some", at_a_time(1)).await;
    succeed(&*store, worker, &first).await;
    succeed(&*store, worker, &second).await;
    assert_eq!(dispatch(&*store).await, [], "one still runs");
    succeed(&*store, worker, &third).await;
    assert_eq!(dispatch(&*store).await, [tasks[3].id]);
    assert!(
        store
            .delete_limit(&"some".parse().expect("a name"))
            .await
            .expect("delete")
    );
    wait_until("all go on", || async {
        release(&*store).await;
        dispatch(&*store).await;
        let mut all = true;
        for task in &tasks[3..] {
            all &= state(&*store, task).await == State::Queued;
        }
        all
    })
    .await;
    let answers = claim_all(&*store, worker, &tasks[3..]).await;
    assert_eq!(granted(&answers).len(), 5);
    assert!(answers.iter().flatten().all(|it| !it.limited));
}

/// What should never be is put right: `corrupt` makes the counters say something else than what runs, by means of the store's
/// own. Not a case of the suite, which knows no such means.
pub async fn a_wrong_counter_is_mended(store: Arc<dyn Store>, corrupt: impl AsyncFn(&'static str)) {
    put(&*store, "each", of_each_key(1)).await;
    let worker = worker(&*store).await;
    let mut tasks = keyed(&*store, "a", 2).await;
    tasks.extend(keyed(&*store, "b", 2).await);
    let answers = claim_all(&*store, worker, &tasks).await;
    assert_eq!(granted(&answers), [0, 2]);
    succeed(&*store, worker, answers[2].as_ref().expect("granted")).await;
    assert_eq!(dispatch(&*store).await, [tasks[3].id]);
    // Of a, who runs is not counted; of b, somebody is who does not run.
    corrupt("UPDATE limit_uses SET running = 1 - running").await;
    let mended = store.mend_limits().await.expect("mend");
    assert_eq!(mended.counters, 2);
    assert_eq!(usage(&*store, "each").await.running, 1);
    nothing_to_mend(&*store).await;
    assert_eq!(
        dispatch(&*store).await,
        [],
        "who waits for the place that is taken waits on"
    );
    assert!(claim_ready(&*store, worker, &tasks[3], 0).await.is_some());
    // Counters that say nothing are forgotten, and made anew.
    for task in [&tasks[0], &tasks[3]] {
        let running = claim_ready(&*store, worker, task, 0)
            .await
            .expect("its answer again");
        succeed(&*store, worker, &running).await;
    }
    let last = keyed(&*store, "b", 1).await;
    let mended = store.mend_limits().await.expect("mend");
    assert_eq!(
        (mended.counters, mended.forgotten),
        (0, 1),
        "somebody has been let go on of a"
    );
    assert!(claim_ready(&*store, worker, &last[0], 0).await.is_some());
}

/// Counters that nobody uses are forgotten, however many came since the last time. `corrupt` runs a statement, and `stray` is
/// one that adds 12,000 rows to `throttled` for the use with the least id, of tasks that do not exist.
pub async fn what_nobody_uses_is_forgotten(
    store: Arc<dyn Store>,
    corrupt: impl AsyncFn(&'static str),
    stray: &'static str,
) {
    put(&*store, "each", of_each_key(1)).await;
    corrupt(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2500)
        INSERT INTO limit_uses (name, key, revision) SELECT 'each', 'key-' || n, 0 FROM n",
    )
    .await;
    corrupt(stray).await;
    let mended = store.mend_limits().await.expect("mend");
    assert_eq!((mended.counters, mended.forgotten), (0, 2_499));
    let mended = store.mend_limits().await.expect("mend");
    assert_eq!(mended.forgotten, 1, "the rest of what waits in vain is found");
    corrupt("INSERT INTO limit_uses (name, key, revision) VALUES ('each', 'again', 0)").await;
    corrupt(stray).await;
    for forgotten in [0, 1] {
        let mended = store.mend_limits().await.expect("mend");
        assert_eq!(mended.forgotten, forgotten, "the walk begins anew");
    }
}
