//! Each reason, from what is known.

use forebay_broker::Depth;
use forebay_core::{
    AttemptError, Json, Outcome, State, Task, TaskId, TaskProgress, Timestamp, WorkerId, WorkerInfo,
};
use forebay_store::{Hold, Place};

use super::reason::{Explanation, Facts, InLane, Reason, explain};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOW: &str = "2026-03-01T12:00:00Z";

fn task(state: State) -> Task {
    let created_at = at("2026-03-01T11:00:00Z");
    Task {
        id: TaskId::new(created_at, &[7; 10]),
        project: "default".parse().unwrap(),
        kind: "resize".parse().unwrap(),
        queue: "images".parse().unwrap(),
        priority: "default".parse().unwrap(),
        state,
        payload: Json::null(),
        result: None,
        attempt: 2,
        fence: 2,
        max_attempts: Some(5),
        timeout: None,
        tags: Vec::new(),
        run_at: None,
        created_at,
        started_at: None,
        finished_at: None,
        worker: None,
        cancel_requested: false,
        errors: Vec::new(),
        log: None,
        progress: None,
        traceparent: None,
        fingerprint: None,
        terms: None,
    }
}

fn worker(busy: u32, draining: bool) -> WorkerInfo {
    let started_at = at("2026-03-01T10:00:00Z");
    WorkerInfo {
        id: WorkerId::new(started_at, &[9; 10]),
        name: "host-1".into(),
        queues: vec!["images".parse().unwrap()],
        slots: 8,
        busy: vec![("images".parse().unwrap(), busy)],
        finished: Vec::new(),
        draining,
        started_at,
        heartbeat_at: started_at,
    }
}

/// In its lane since the given second before now.
fn lane(ahead: u64, seconds: i64) -> InLane {
    let since = at(NOW).as_second() - seconds;
    InLane {
        place: Place {
            queued_at: Timestamp::from_second(since).unwrap(),
            ahead,
            is_exact: true,
        },
        is_paused: false,
        workers: vec![worker(3, false)],
        depth: Some(Depth {
            waiting: ahead + 1,
            delivered: 0,
        }),
    }
}

fn explained(task: &Task, facts: &Facts) -> Explanation {
    let explained = explain(task, facts, at(NOW));
    assert_eq!(
        (explained.id, explained.state, explained.at),
        (task.id, task.state, at(NOW))
    );
    assert!(
        explained.detail.ends_with(['.', '?']),
        "no sentence: {:?}",
        explained.detail
    );
    explained
}

#[test]
fn what_waits_for_a_time_says_when() {
    let run_at = Some(at("2026-03-01T12:05:00Z"));
    let mut waits = Task {
        run_at,
        attempt: 0,
        ..task(State::Scheduled)
    };
    let it = explained(&waits, &Facts::Task);
    assert_eq!(
        (it.reason, it.run_at, it.next_attempt),
        (Reason::WaitsForTime, run_at, Some(1))
    );
    assert_eq!(
        it.detail,
        "It waits for its time: it is due in 5 min, at 2026-03-01T12:05:00Z."
    );
    // A moment late is as it should be; long past, somebody is missing.
    waits.run_at = Some(at("2026-03-01T11:59:59Z"));
    let it = explained(&waits, &Facts::Task);
    assert_eq!(it.reason, Reason::WaitsForDispatcher);
    assert_eq!(it.detail, "It is due, and is made ready in a moment.");
    waits.run_at = Some(at("2026-03-01T11:50:00Z"));
    let it = explained(&waits, &Facts::Task);
    assert_eq!(it.reason, Reason::WaitsForDispatcher);
    assert!(it.detail.contains("due for 10 min") && it.detail.contains("role dispatcher"));
}

#[test]
fn what_is_tried_again_says_why_and_which_attempt_is_next() {
    let run_at = Some(at("2026-03-01T12:00:30Z"));
    let failed = AttemptError::new(2, Outcome::TimedOut, "took\ntoo long", at("2026-03-01T11:59:00Z"));
    let waits = Task {
        run_at,
        errors: vec![failed],
        ..task(State::Retrying)
    };
    let it = explained(&waits, &Facts::Task);
    assert_eq!(
        (it.reason, it.run_at, it.next_attempt),
        (Reason::WaitsForRetry, run_at, Some(3))
    );
    assert_eq!(
        it.detail,
        "Attempt 2 of 5 timed out (took too long); attempt 3 is due in 30 s, at 2026-03-01T12:00:30Z."
    );
}

#[test]
fn what_is_ready_names_the_first_thing_in_its_way() {
    let waits = task(State::Queued);
    let in_lane = |lane: InLane| explained(&waits, &Facts::Lane(lane));
    let it = in_lane(lane(12, 60));
    assert_eq!(
        (it.reason, it.ahead, it.ahead_is_exact),
        (Reason::InLine, Some(12), Some(true))
    );
    assert_eq!(
        it.detail,
        "12 tasks are before it. 3 of the 8 slots of the queue's workers are busy."
    );
    assert!(in_lane(lane(0, 1)).detail.starts_with("It is the next in line."));
    assert!(in_lane(lane(1, 1)).detail.starts_with("1 task is before it."));
    let mut many = lane(10_000, 1);
    many.place.is_exact = false;
    assert!(
        in_lane(many)
            .detail
            .starts_with("At least 10000 tasks are before it.")
    );

    let nobody = || InLane {
        workers: Vec::new(),
        ..lane(3, 60)
    };
    let it = in_lane(nobody());
    assert_eq!(
        (it.reason, it.detail.as_str()),
        (Reason::NoWorker, "No worker reads the queue images.")
    );
    let leaving = InLane {
        workers: vec![worker(1, true)],
        ..lane(3, 60)
    };
    let it = in_lane(leaving);
    assert_eq!(it.reason, Reason::NoWorker);
    assert!(it.detail.contains("about to stop"));
    let paused = InLane {
        is_paused: true,
        ..nobody()
    };
    assert_eq!(in_lane(paused).reason, Reason::QueuePaused);
}

#[test]
fn what_has_lost_its_message_says_so_and_not_too_soon() {
    let waits = task(State::Queued);
    let empty = |seconds| InLane {
        depth: Some(Depth {
            waiting: 0,
            delivered: 0,
        }),
        ..lane(0, seconds)
    };
    let it = explained(&waits, &Facts::Lane(empty(60)));
    assert_eq!(it.reason, Reason::WaitsForDispatcher);
    assert!(it.detail.contains("no message of it"));
    assert_eq!(explained(&waits, &Facts::Lane(empty(1))).reason, Reason::InLine);
    // Where the broker does not answer, nothing is said of it.
    let unknown = InLane {
        depth: None,
        ..lane(0, 60)
    };
    assert_eq!(explained(&waits, &Facts::Lane(unknown)).reason, Reason::InLine);
}

#[test]
fn what_is_held_back_names_the_limit() {
    let held = Hold {
        limit: "per-customer".parse().unwrap(),
        key: Some("acme".into()),
        running: 2,
        concurrency: Some(2),
        next_at: None,
        ahead: 4,
    };
    let it = explained(&task(State::Throttled), &Facts::Limit(Some(held.clone())));
    assert_eq!(
        (it.reason, it.ahead, it.limit),
        (Reason::HeldByLimit, Some(4), Some(held.clone()))
    );
    assert_eq!(
        it.detail,
        "The limit per-customer (key acme) holds it back: 2 of 2 run that count to it. 4 tasks are before it."
    );
    let next_at = Some(at("2026-03-01T12:00:03Z"));
    let by_rate = Hold {
        key: None,
        next_at,
        ..held
    };
    let it = explained(&task(State::Throttled), &Facts::Limit(Some(by_rate)));
    assert_eq!((it.reason, it.run_at), (Reason::HeldByLimit, next_at));
    assert_eq!(
        it.detail,
        "The limit per-customer holds it back: its rate lets it go in 3 s, at 2026-03-01T12:00:03Z."
    );
    // The limit may just have been deleted.
    let it = explained(&task(State::Throttled), &Facts::Limit(None));
    assert_eq!((it.reason, it.limit), (Reason::HeldByLimit, None));
    let released = Task {
        run_at: Some(at(NOW)),
        ..task(State::Throttled)
    };
    assert_eq!(
        explained(&released, &Facts::Limit(None)).reason,
        Reason::WaitsForDispatcher
    );
}

#[test]
fn what_waits_for_others_names_them() {
    let ids: Vec<TaskId> = (0..5).map(|n| TaskId::new(at(NOW), &[n; 10])).collect();
    let waits = |tasks: &[TaskId], batch| {
        let facts = Facts::Blocked {
            tasks: tasks.to_vec(),
            unknown: Vec::new(),
            batch,
        };
        explained(&task(State::Blocked), &facts)
    };
    let it = waits(&ids, None);
    assert_eq!((it.reason, &it.blocked_on), (Reason::WaitsForTasks, &ids));
    assert_eq!(
        it.detail,
        format!(
            "It waits for {}, {}, {} and 2 more to end.",
            ids[0], ids[1], ids[2]
        )
    );
    assert_eq!(
        waits(&ids[..1], None).detail,
        format!("It waits for {} to end.", ids[0])
    );
    let unknown = |unknown: &[TaskId]| {
        let facts = Facts::Blocked {
            tasks: ids[..2].to_vec(),
            unknown: unknown
                .iter()
                .map(|id| (*id, at("2026-03-02T11:00:00Z")))
                .collect(),
            batch: None,
        };
        explained(&task(State::Blocked), &facts).detail
    };
    assert_eq!(
        unknown(&ids[1..2]),
        format!(
            "It waits for {}, {} to end. Task {} is not recorded yet: perhaps it does not exist. If it has not come by \
             2026-03-02T11:00:00Z, it counts as one that has failed.",
            ids[0], ids[1], ids[1]
        )
    );
    assert!(unknown(&ids[..2]).contains("not recorded yet (nor are others of these, 1 in all): perhaps"));
    assert!(waits(&[], None).detail.contains("released in a moment"));
    let batch = "01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d".parse().ok();
    let it = waits(&[], batch);
    assert_eq!((it.reason, it.batch), (Reason::WaitsForBatch, batch));
}

#[test]
fn what_runs_names_its_worker_and_how_far_it_is() {
    let id = WorkerId::new(at(NOW), &[9; 10]);
    let mut runs = Task {
        worker: Some(id),
        started_at: Some(at("2026-03-01T11:59:00Z")),
        ..task(State::Running)
    };
    let named = Facts::Worker(Some("host-1".into()));
    let it = explained(&runs, &named);
    assert_eq!(
        (it.reason, it.worker, it.worker_name.as_deref()),
        (Reason::Running, Some(id), Some("host-1"))
    );
    assert_eq!(
        it.detail,
        "Attempt 2 runs on the worker host-1 since 2026-03-01T11:59:00Z."
    );
    runs.progress = Some(TaskProgress {
        fraction: 0.999,
        message: "page 3".into(),
        at: at(NOW),
    });
    assert!(
        explained(&runs, &named)
            .detail
            .ends_with("It said last that 99 % is done (page 3).")
    );
    runs.cancel_requested = true;
    let it = explained(&runs, &Facts::Worker(None));
    assert_eq!(it.reason, Reason::Cancelling);
    assert!(it.detail.contains(&format!("the worker {id} was told")));
}

#[test]
fn what_has_ended_says_how() {
    let finished_at = Some(at("2026-03-01T11:30:00Z"));
    let ended = |state, errors| {
        let task = Task {
            finished_at,
            errors,
            ..task(state)
        };
        explained(&task, &Facts::Task)
    };
    let it = ended(State::Succeeded, Vec::new());
    assert_eq!(
        (it.reason, it.detail.as_str()),
        (Reason::Finished, "It succeeded at 2026-03-01T11:30:00Z.")
    );
    let failure = AttemptError::new(5, Outcome::Failed, &"x".repeat(500), at(NOW));
    let it = ended(State::Failed, vec![failure]);
    assert_eq!(it.reason, Reason::Finished);
    assert!(
        it.detail
            .starts_with("It has failed for good at 2026-03-01T11:30:00Z: attempt 5 of 5 failed (xxx")
    );
    assert!(it.detail.len() < 400, "an error is cut");
    assert_eq!(ended(State::Cancelled, Vec::new()).reason, Reason::Finished);
    assert_eq!(ended(State::Expired, Vec::new()).reason, Reason::Expired);
}
