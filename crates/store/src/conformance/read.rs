//! Reading tasks, lists and queues.

use std::sync::Arc;

use forebay_core::{Decision, LimitRequest, RateRequest, State, Submission, TaskId, Timestamp};

use super::support::*;
use crate::{Heartbeat, PageToken, Store, TaskFilter};

/// Lists all pages, and checks that each has the right size.
async fn walk(store: &dyn Store, filter: &TaskFilter, page_size: usize) -> Vec<TaskId> {
    let (mut seen, mut from) = (Vec::new(), None);
    loop {
        let page = store.list(filter, page_size, from).await.expect("list a page");
        assert!(page.tasks.len() <= page_size, "a page of {}", page.tasks.len());
        seen.extend(page.tasks.iter().map(|task| task.id));
        assert!(seen.len() < 10_000, "the pages go round in a circle");
        from = match (page.next, page.tasks.last()) {
            (Some(next), Some(last)) => {
                let shown = PageToken {
                    created_at: last.created_at,
                    id: last.id,
                };
                assert_eq!(next, shown, "the next page begins after the last task shown");
                Some(next)
            }
            (Some(_), None) => panic!("an empty page has no next"),
            (None, _) => return seen,
        };
    }
}

async fn listed(store: &dyn Store, filter: TaskFilter) -> Vec<TaskId> {
    walk(store, &filter, 100).await
}

/// There is no such task.
pub async fn an_unknown_task_is_none(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    assert_eq!(store.get(task_at(at).id).await.expect("read"), None);
    assert_eq!(store.get(keyed_at(at, "k", 1).id).await.expect("read"), None);
    assert_eq!(walk(&*store, &TaskFilter::default(), 10).await, []);
}

/// By the time of acceptance, not by id and not by the time of recording.
pub async fn newest_first(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let key = |ago: i64, name: &str| keyed_at(plus(at, -ago), name, 1);
    let tasks = [
        task_at(plus(at, -2)),
        key(1, "x"),
        task_at(plus(at, -4)),
        key(3, "y"),
    ];
    store.record(&tasks).await.expect("record");
    let page = store.list(&TaskFilter::default(), 10, None).await.expect("list");
    let expected = [1, 0, 3, 2].map(|index: usize| tasks[index].id);
    assert_eq!(
        page.tasks.iter().map(|task| task.id).collect::<Vec<_>>(),
        expected
    );
    assert_eq!(page.next, None);
    assert_eq!(
        page.tasks[0],
        get(&*store, tasks[1].id).await,
        "lists show tasks as reads do"
    );
}

/// Many tasks of one microsecond, and pages that end among them.
pub async fn pages_of_equal_times_show_each_task_once(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let tasks: Vec<Submission> = (0..25).map(|number| task_at(plus(at, number / 10))).collect();
    store.record(&tasks).await.expect("record");
    for page_size in [1, 2, 3, 7, 10, 24] {
        let seen = walk(&*store, &TaskFilter::default(), page_size).await;
        assert_eq!(seen.len(), 25, "pages of {page_size}");
        assert_eq!(sorted(seen), sorted(tasks.iter().map(|task| task.id)));
    }
}

/// A page that shows the last task says so, even if it is full.
pub async fn a_full_last_page_is_the_last(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let tasks: Vec<Submission> = (0..6).map(|number| task_at(plus(at, number))).collect();
    store.record(&tasks).await.expect("record");
    let first = store.list(&TaskFilter::default(), 3, None).await.expect("list");
    assert!(first.next.is_some());
    let last = store
        .list(&TaskFilter::default(), 3, first.next)
        .await
        .expect("list");
    assert_eq!((last.tasks.len(), last.next), (3, None));
    let all = store.list(&TaskFilter::default(), 6, None).await.expect("list");
    assert_eq!((all.tasks.len(), all.next), (6, None));
}

/// Thousands of tasks, and new ones that arrive while somebody leafs through the old ones.
pub async fn deep_paging_meets_each_task_once(store: Arc<dyn Store>) {
    let at = plus(now(&*store).await, -10);
    let tasks: Vec<Submission> = (0..2_000).map(|number| task_at(plus(at, -number / 40))).collect();
    store.record(&tasks).await.expect("record");
    let (mut seen, mut from) = (Vec::new(), None);
    loop {
        let page = store.list(&TaskFilter::default(), 90, from).await.expect("list");
        seen.extend(page.tasks.iter().map(|task| (task.created_at, task.id)));
        assert!(seen.len() <= tasks.len(), "a task was shown twice");
        record(&*store, &task_at(plus(at, 5))).await;
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), tasks.len());
    assert!(seen.is_sorted_by(|a, b| a.0 >= b.0), "newest first");
    assert_eq!(
        sorted(seen.into_iter().map(|it| it.1)),
        sorted(tasks.iter().map(|task| task.id))
    );
}

/// Three tasks that differ in everything a filter can name, the oldest first.
async fn three(store: &dyn Store) -> ([TaskId; 3], Timestamp) {
    let at = now(store).await;
    let make = |number: i64, name: &str, tags: &[&str]| Submission {
        project: name.parse().expect("a valid project"),
        kind: format!("{name}.k").parse().expect("a valid kind"),
        lane: lane(&format!("{name}.default")),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        ..task_at(plus(at, number))
    };
    let tasks = [
        make(0, "a", &["x"]),
        make(10, "b", &["x", "y%"]),
        make(20, "c", &["z\"'", "yy"]),
    ];
    store.record(&tasks).await.expect("record");
    let worker = worker(store).await;
    let claimed = claim(store, worker, wants_new(&tasks[0])).await.expect("granted");
    complete(store, worker, ended(&claimed, Decision::Fail)).await;
    assert!(claim(store, worker, wants_new(&tasks[1])).await.is_some());
    (tasks.map(|task| task.id), at)
}

/// Each filter alone, and what matches nothing.
pub async fn every_filter_alone(store: Arc<dyn Store>) {
    let ([a, b, c], at) = three(&*store).await;
    let none = TaskFilter::default;
    let with = |tag: &str| TaskFilter {
        tag: Some(tag.into()),
        ..none()
    };
    let in_state = |state| TaskFilter {
        state: Some(state),
        ..none()
    };
    let after = |seconds| TaskFilter {
        created_after: Some(plus(at, seconds)),
        ..none()
    };
    let before = |seconds| TaskFilter {
        created_before: Some(plus(at, seconds)),
        ..none()
    };
    let cases: Vec<(TaskFilter, Vec<TaskId>)> = vec![
        (none(), vec![c, b, a]),
        (
            TaskFilter {
                project: "b".parse().ok(),
                ..none()
            },
            vec![b],
        ),
        (
            TaskFilter {
                queue: "c".parse().ok(),
                ..none()
            },
            vec![c],
        ),
        (
            TaskFilter {
                kind: "a.k".parse().ok(),
                ..none()
            },
            vec![a],
        ),
        (
            TaskFilter {
                kind: "a".parse().ok(),
                ..none()
            },
            vec![],
        ),
        (in_state(State::Failed), vec![a]),
        (in_state(State::Running), vec![b]),
        (in_state(State::Queued), vec![c]),
        (in_state(State::Expired), vec![]),
        (with("x"), vec![b, a]),
        (with("y%"), vec![b]),
        (with("y"), vec![]),
        (with("z\"'"), vec![c]),
        (after(0), vec![c, b]),
        (after(9), vec![c, b]),
        (after(20), vec![]),
        (before(10), vec![a]),
        (before(21), vec![c, b, a]),
        (before(0), vec![]),
    ];
    for (filter, expected) in cases {
        assert_eq!(listed(&*store, filter.clone()).await, expected, "{filter:?}");
    }
}

/// All filters hold at once.
pub async fn filters_together(store: Arc<dyn Store>) {
    let ([_, b, _], at) = three(&*store).await;
    let all = TaskFilter {
        project: "b".parse().ok(),
        state: Some(State::Running),
        queue: "b".parse().ok(),
        kind: "b.k".parse().ok(),
        tag: Some("x".into()),
        created_after: Some(plus(at, 5)),
        created_before: Some(plus(at, 15)),
    };
    assert_eq!(listed(&*store, all.clone()).await, [b]);
    let other = TaskFilter {
        state: Some(State::Queued),
        ..all.clone()
    };
    assert_eq!(listed(&*store, other).await, []);
    let other = TaskFilter {
        tag: Some("z\"'".into()),
        ..all
    };
    assert_eq!(listed(&*store, other).await, []);
}

/// Few matches among many tasks, over several pages.
pub async fn a_filter_goes_on_over_pages(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let tasks: Vec<Submission> = (0..300)
        .map(|number| Submission {
            tags: if number % 30 == 0 {
                vec!["rare".into()]
            } else {
                vec!["common".into()]
            },
            ..task_at(plus(at, number / 7))
        })
        .collect();
    store.record(&tasks).await.expect("record");
    let filter = TaskFilter {
        tag: Some("rare".into()),
        state: Some(State::Queued),
        ..TaskFilter::default()
    };
    let seen = walk(&*store, &filter, 3).await;
    assert_eq!(seen.len(), 10);
    assert_eq!(sorted(seen), sorted(tasks.iter().step_by(30).map(|task| task.id)));
}

/// Waiting is counted by the tasks, running by what the workers say. What a limit holds back is neither scheduled nor
/// ready, whether it waits for room or for its turn.
pub async fn queues_count_what_waits_and_what_runs(store: Arc<dyn Store>) {
    let in_queue = |task: Submission, name: &str| Submission {
        lane: lane(name),
        ..task
    };
    // Before anything is claimed: a store may go by the rules that it has read for a while.
    let at_a_time = LimitRequest {
        queue: Some("c".to_owned()),
        concurrency: Some(1),
        ..LimitRequest::default()
    };
    let hourly = LimitRequest {
        queue: Some("d".to_owned()),
        rate: Some(RateRequest {
            count: 1,
            per_seconds: 3_600.0,
            burst: None,
        }),
        ..LimitRequest::default()
    };
    for (name, limit) in [("c", at_a_time), ("d", hourly)] {
        let rule = limit.accept(name.parse().expect("a name")).expect("a limit");
        store.put_limit(&rule).await.expect("put a limit");
    }
    let limited = worker(&*store).await;
    for (name, count) in [("c.default", 3), ("d.low", 2)] {
        for _ in 0..count {
            let task = in_queue(task(&*store).await, name);
            record(&*store, &task).await;
            let asked = store.claim(limited, claim_id(), &[wants_new(&task)]).await;
            asked.expect("claim");
        }
    }
    for name in ["b.high", "b.low"] {
        record(&*store, &in_queue(parked(&*store, 3_600).await, name)).await;
    }
    record(&*store, &in_queue(task(&*store).await, "a.default")).await;
    let (_, id, claimed) = running(&*store).await;
    complete(&*store, id, ended(&claimed, RETRY_LATER)).await;
    let (other, at) = (worker(&*store).await, now(&*store).await);
    for (id, busy) in [(id, 2), (other, 3)] {
        let mut says: Heartbeat = beat(id, at);
        says.worker.busy = vec![("b".parse().expect("a valid queue"), busy)];
        store.heartbeat(&says).await.expect("heartbeat");
    }
    let queues = store.queues().await.expect("list the queues");
    let counts: Vec<_> = queues
        .iter()
        .map(|it| (it.name.as_str(), it.running, it.scheduled, it.throttled))
        .collect();
    assert_eq!(
        counts,
        [
            ("a", 0, 0, 0),
            ("b", 5, 2, 0),
            ("c", 0, 0, 2),
            ("d", 0, 0, 1),
            ("default", 0, 1, 0)
        ]
    );
}

/// The clock that everything is counted by.
pub async fn the_clock_goes_forward(store: Arc<dyn Store>) {
    let first = now(&*store).await;
    assert!(now_after(&*store, first).await > first);
    assert_eq!(first, forebay_core::micros(first), "whole microseconds");
}
