//! Schedules: kept as they are put, and each tick fired once, whatever goes on beside it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use forebay_core::{
    Json, Overlap, PAYLOAD_BYTES_MAX, QueueName, Schedule, ScheduleName, ScheduleRequest, State,
    SubmitRequest, Task, TaskId, TimeZone, Timestamp,
};
use tokio::task::JoinSet;

use super::support::*;
use crate::{Fired, LISTED_BYTES_MAX, Store, TaskFilter};

/// A time that is far ahead, so that what is fired by it is not due by the store's own clock.
fn later(seconds: i64) -> Timestamp {
    let base: Timestamp = "2040-06-01T12:00:00Z".parse().expect("a time");
    plus(base, seconds)
}

fn name(text: &str) -> ScheduleName {
    text.parse().expect("a valid name")
}

fn request(cron: &str) -> ScheduleRequest {
    ScheduleRequest {
        cron: cron.to_owned(),
        task: SubmitRequest {
            kind: "report".into(),
            queue: Some("reports".into()),
            ..SubmitRequest::default()
        },
        ..ScheduleRequest::default()
    }
}

fn schedule(text: &str, request: ScheduleRequest) -> Schedule {
    let accepted = request.accept(name(text), later(0));
    accepted.expect("a valid schedule")
}

/// One that fires each minute, seen up to `later(0)`: its next tick is a minute after that.
async fn minutely(store: &dyn Store, text: &str, overlap: Overlap) -> Schedule {
    let schedule = Schedule {
        overlap,
        ..schedule(text, request("* * * * *"))
    };
    let put = store.put_schedule(&schedule).await.expect("put");
    assert!(put.is_new);
    let mut seconds = 0;
    while !fire(store, seconds).await.events.is_empty() {
        forget(store).await;
        seconds += 1;
    }
    kept(store, text).await
}

async fn kept(store: &dyn Store, text: &str) -> Schedule {
    let found = store.schedule(&name(text)).await.expect("read");
    found.expect("it is there")
}

/// Fires what is due at `later(seconds)`, all of it.
async fn fire(store: &dyn Store, seconds: i64) -> Fired {
    let mut all = Fired::default();
    loop {
        let fired = store
            .fire_schedules(100, Some(later(seconds)))
            .await
            .expect("fire");
        all.events.extend(fired.events);
        all.skipped += fired.skipped;
        all.missed.extend(fired.missed);
        assert_eq!(fired.unreadable, Vec::<String>::new());
        all.next_in = fired.next_in;
        if fired.next_in != Some(Duration::ZERO) {
            return all;
        }
    }
}

/// Cancels all that is there, so that nothing of before is unfinished.
async fn forget(store: &dyn Store) {
    for task in reports(store).await {
        store.cancel(task.id).await.expect("cancel");
    }
}

async fn reports(store: &dyn Store) -> Vec<Task> {
    let filter = TaskFilter {
        kind: Some("report".parse().expect("a kind")),
        ..TaskFilter::default()
    };
    let (mut tasks, mut page) = (Vec::new(), None);
    loop {
        let found = store.list(&filter, 500, page).await.expect("list");
        tasks.extend(found.tasks);
        page = found.next;
        if page.is_none() {
            return tasks;
        }
    }
}

/// When the tasks are due that wait.
async fn waiting(store: &dyn Store) -> Vec<Timestamp> {
    let tasks = reports(store).await.into_iter();
    let mut due: Vec<Timestamp> = tasks
        .filter(|task| task.state == State::Scheduled)
        .filter_map(|task| task.run_at)
        .collect();
    due.sort_unstable();
    due
}

/// All that is said of it, and nothing of it changes.
pub async fn a_schedule_comes_back_as_it_was_put(store: Arc<dyn Store>) {
    assert_eq!(store.schedule(&name("nightly.report")).await.expect("read"), None);
    let request = ScheduleRequest {
        cron: "15,45  8-17 * * MON-FRI".into(),
        time_zone: Some("Europe/Berlin".into()),
        task: SubmitRequest {
            kind: "report".into(),
            queue: Some("reports".into()),
            project: Some("finance".into()),
            priority: Some("low".into()),
            payload: Some(json("{\"ä\": [1, 2.50, \"\\u0000\"]}")),
            tags: vec!["a,\"b\"".into(), "{}".into()],
            max_attempts: Some(7),
            timeout_seconds: Some(1.5),
            ..SubmitRequest::default()
        },
        overlap: Some("queue".into()),
        catch_up_seconds: Some(90.25),
        jitter_seconds: Some(30.0),
        paused: false,
    };
    let asked = schedule("nightly.report", request);
    let before = now(&*store).await;
    let put = store.put_schedule(&asked).await.expect("put");
    let after = now(&*store).await;
    assert!(put.is_new);
    assert!(
        (before..=after).contains(&put.schedule.created_at),
        "the store's clock counts"
    );
    assert_eq!(put.schedule.created_at, put.schedule.updated_at);
    assert_eq!(
        put.schedule.next_tick,
        Some(put.schedule.upcoming(put.schedule.created_at, 1)[0])
    );
    let same = Schedule {
        next_tick: put.schedule.next_tick,
        created_at: put.schedule.created_at,
        updated_at: put.schedule.updated_at,
        ..asked
    };
    assert_eq!(put.schedule, same);
    assert_eq!(kept(&*store, "nightly.report").await, same);
}

/// It is the same schedule, which does something else.
pub async fn putting_it_again_replaces_it(store: Arc<dyn Store>) {
    let first = minutely(&*store, "a", Overlap::Allow).await;
    let fired = fire(&*store, 60).await;
    assert_eq!(fired.events.len(), 1);
    let asked = Schedule {
        jitter: Duration::from_secs(5),
        ..first.clone()
    };
    let put = store.put_schedule(&asked).await.expect("put");
    assert!(!put.is_new);
    assert_eq!(put.schedule.created_at, first.created_at);
    assert!(put.schedule.updated_at > first.updated_at);
    assert_eq!(put.schedule.last_tick, Some((later(60), fired.events[0].id)));
    assert_eq!(put.schedule.next_tick, Some(later(120)), "the ticks are the same");
    assert_eq!(kept(&*store, "a").await, put.schedule);
    let again = store.put_schedule(&asked).await.expect("put");
    assert_eq!(
        (again.schedule, again.is_new),
        (put.schedule, false),
        "the same again changes nothing"
    );
    let other = schedule("a", request("30 * * * *"));
    let put = store.put_schedule(&other).await.expect("put");
    assert_eq!(
        put.schedule.next_tick,
        Some(later(1_800)),
        "after the last that was fired"
    );
}

/// A page follows another, and names are compared byte by byte.
pub async fn they_are_listed_by_name(store: Arc<dyn Store>) {
    let sorted = ["0", "a", "a-b", "a.b", "a_b", "aa", "b"];
    for text in ["b", "a_b", "0", "aa", "a.b", "a-b", "a"] {
        let schedule = schedule(text, request("0 3 * * *"));
        store.put_schedule(&schedule).await.expect("put");
    }
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = store.schedules(3, after.as_ref()).await.expect("list");
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        names.extend(page.into_iter().map(|schedule| schedule.name.to_string()));
    }
    assert_eq!(names, sorted);
}

/// A page ends with the schedule with which there is enough to carry.
pub async fn a_page_of_large_ones_is_short(store: Arc<dyn Store>) {
    let mut large = request("0 3 * * *");
    let payload = format!("\"{}\"", "é".repeat((PAYLOAD_BYTES_MAX - 2) / 2));
    large.task.payload = Json::parse(payload.as_bytes()).ok();
    for number in 10..30 {
        let schedule = schedule(&number.to_string(), large.clone());
        store.put_schedule(&schedule).await.expect("put");
    }
    let first = store.schedules(50, None).await.expect("list");
    assert_eq!(first.len(), LISTED_BYTES_MAX / PAYLOAD_BYTES_MAX);
    let after = first.last().map(|schedule| schedule.name.clone());
    let rest = store.schedules(50, after.as_ref()).await.expect("list");
    assert_eq!(first.len() + rest.len(), 20);
    assert_eq!(store.schedules(3, None).await.expect("list").len(), 3);
}

/// What it has submitted stays.
pub async fn a_deleted_schedule_is_gone_and_its_tasks_stay(store: Arc<dyn Store>) {
    minutely(&*store, "a", Overlap::Allow).await;
    fire(&*store, 60).await;
    assert!(store.delete_schedule(&name("a")).await.expect("delete"));
    assert!(!store.delete_schedule(&name("a")).await.expect("delete"));
    assert_eq!(store.schedule(&name("a")).await.expect("read"), None);
    let fired = fire(&*store, 120).await;
    assert_eq!((fired.events.len(), fired.next_in), (0, None));
    assert_eq!(waiting(&*store).await, [later(60)]);
}

/// The task is as the schedule says, and due at the tick.
pub async fn a_tick_becomes_a_task(store: Arc<dyn Store>) {
    let schedule = minutely(&*store, "a", Overlap::Allow).await;
    let early = fire(&*store, 59).await;
    assert_eq!(
        (early.events.len(), early.next_in),
        (0, Some(Duration::from_secs(1)))
    );
    let fired = fire(&*store, 61).await;
    assert_eq!(fired.events.len(), 1);
    assert_eq!(fired.next_in, Some(Duration::from_secs(59)));
    let event = &fired.events[0];
    assert_eq!(event.id, TaskId::of_tick(&schedule.name, later(60)));
    assert_eq!((event.state, event.attempt), (State::Scheduled, 0));
    assert_eq!((event.kind.as_str(), event.queue.as_str()), ("report", "reports"));
    let task = get(&*store, event.id).await;
    assert_eq!(
        (task.state, task.run_at, task.created_at),
        (State::Scheduled, Some(later(60)), later(61))
    );
    assert_eq!(
        (&task.kind, task.lane()),
        (&schedule.task.kind, schedule.task.lane.clone())
    );
    assert_eq!(task.payload, schedule.task.payload);
    let reports: QueueName = "reports".parse().expect("a queue");
    let queues = store.queues().await.expect("list the queues");
    assert!(
        queues.iter().any(|queue| queue.name == reports),
        "the queue is known"
    );
    let moved_on = kept(&*store, "a").await;
    assert_eq!(moved_on.last_tick, Some((later(60), event.id)));
    assert_eq!(moved_on.next_tick, Some(later(120)));
    assert_eq!(moved_on.updated_at, schedule.updated_at, "nobody has changed it");
    assert_eq!(fire(&*store, 61).await.events, [], "it is fired once");
}

/// By the store's own clock, up to a worker.
pub async fn a_tick_that_has_come_is_run(store: Arc<dyn Store>) {
    let schedule = schedule("a", request("* * * * * *"));
    let put = store.put_schedule(&schedule).await.expect("put").schedule;
    let fired = std::sync::Mutex::new(Vec::new());
    wait_until("a second has passed", || async {
        let found = store.fire_schedules(10, None).await.expect("fire");
        let next_in = found.next_in.expect("a tick comes each second");
        assert!(next_in <= Duration::from_secs(1));
        lock(&fired).extend(found.events);
        !lock(&fired).is_empty()
    })
    .await;
    let id = lock(&fired)[0].id;
    assert_eq!(id, TaskId::of_tick(&put.name, put.next_tick.expect("it has one")));
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.ids(), [id]);
    let worker = worker(&*store).await;
    let claimed = claim(&*store, worker, wants(sink.published().remove(0))).await;
    assert_eq!(claimed.expect("granted").payload, put.task.payload);
}

/// Its ticks go by, and are not made up for.
pub async fn a_paused_schedule_rests(store: Arc<dyn Store>) {
    let schedule = schedule("a", request("* * * * *"));
    store.put_schedule(&schedule).await.expect("put");
    let paused = Schedule {
        paused: true,
        ..schedule.clone()
    };
    let put = store.put_schedule(&paused).await.expect("put").schedule;
    assert_eq!((put.next_tick, put.paused), (None, true));
    let fired = fire(&*store, 600).await;
    assert_eq!((fired.events.len(), fired.next_in), (0, None));
    let resumed = store.put_schedule(&schedule).await.expect("put").schedule;
    let next = resumed.upcoming(resumed.updated_at, 1)[0];
    assert_eq!(resumed.next_tick, Some(next), "from now on");
    assert_eq!(fire(&*store, 0).await.events.len(), 1);
}

/// Nothing else of it changes, whatever is put meanwhile; and twice is as once.
pub async fn it_is_paused_and_resumed_and_stays_as_it_was(store: Arc<dyn Store>) {
    let pause = async |paused| store.pause_schedule(&name("a"), paused).await.expect("pause");
    assert_eq!(pause(true).await, None);
    let first = minutely(&*store, "a", Overlap::Queue).await;
    let paused = pause(true).await.expect("it is there");
    assert_eq!((paused.next_tick, paused.paused), (None, true));
    assert!(paused.updated_at > first.updated_at);
    let same = Schedule {
        paused: false,
        next_tick: first.next_tick,
        updated_at: first.updated_at,
        ..paused.clone()
    };
    assert_eq!(same, first);
    assert_eq!(
        pause(true).await,
        Some(paused.clone()),
        "the second time changes nothing"
    );
    assert_eq!(kept(&*store, "a").await, paused);
    assert_eq!(fire(&*store, 600).await.events.len(), 0);

    let other = Schedule {
        jitter: Duration::from_secs(5),
        paused: true,
        ..first.clone()
    };
    store.put_schedule(&other).await.expect("put");
    let resumed = pause(false).await.expect("it is there");
    assert_eq!((resumed.paused, resumed.jitter), (false, Duration::from_secs(5)));
    let next = resumed.upcoming(resumed.updated_at.max(later(0)), 1)[0];
    assert_eq!(resumed.next_tick, Some(next), "from now on");
    assert_eq!(kept(&*store, "a").await, resumed);
}

/// One whose next tick cannot be told here may rest, and stays at rest: no dispatcher would look at it.
pub async fn one_of_an_unknown_zone_is_not_resumed(store: Arc<dyn Store>) {
    let strange = Schedule {
        time_zone: TimeZone::kept("Mars/Olympus_Mons"),
        ..schedule("a", request("0 3 * * *"))
    };
    store.put_schedule(&strange).await.expect("put");
    let paused = store.pause_schedule(&name("a"), true).await.expect("pause");
    let refused = store.pause_schedule(&name("a"), false).await;
    let error = refused.expect_err("its zone is unknown");
    assert!(error.to_string().contains("Mars/Olympus_Mons"), "{error}");
    assert_eq!(Some(kept(&*store, "a").await), paused);
    assert!(paused.is_some_and(|paused| paused.paused));
}

/// What is put while it is paused and resumed again and again is not lost.
pub async fn what_is_put_while_it_is_paused_stays(store: Arc<dyn Store>) {
    let schedule = schedule("a", request("0 3 * * *"));
    store.put_schedule(&schedule).await.expect("put");
    let mut pausing = JoinSet::new();
    for paused in [true, false] {
        let store = Arc::clone(&store);
        pausing.spawn(async move {
            for _ in 0..40 {
                let changed = store.pause_schedule(&name("a"), paused).await.expect("pause");
                assert_eq!(changed.map(|schedule| schedule.paused), Some(paused));
            }
        });
    }
    for jitter in 1..=40 {
        let asked = Schedule {
            jitter: Duration::from_secs(jitter),
            ..schedule.clone()
        };
        store.put_schedule(&asked).await.expect("put");
        assert_eq!(kept(&*store, "a").await.jitter, asked.jitter);
    }
    pausing.join_all().await;
    assert_eq!(kept(&*store, "a").await.jitter, Duration::from_secs(40));
}

/// While a task is unfinished, a tick is left out.
pub async fn skip_leaves_a_tick_out(store: Arc<dyn Store>) {
    minutely(&*store, "a", Overlap::Skip).await;
    assert_eq!(fire(&*store, 60).await.events.len(), 1);
    let busy = fire(&*store, 120).await;
    assert_eq!((busy.events.len(), busy.skipped), (0, 1));
    forget(&*store).await;
    assert_eq!(
        fire(&*store, 130).await.events,
        [],
        "a tick that was left out is gone"
    );
    assert_eq!(fire(&*store, 180).await.events.len(), 1);
    assert_eq!(waiting(&*store).await, [later(180)]);
}

/// While a task is unfinished, the latest tick waits for it.
pub async fn queue_keeps_the_latest_tick(store: Arc<dyn Store>) {
    minutely(&*store, "a", Overlap::Queue).await;
    assert_eq!(fire(&*store, 60).await.events.len(), 1);
    assert_eq!(fire(&*store, 120).await.skipped, 0);
    assert_eq!(kept(&*store, "a").await.waiting, Some(later(120)));
    let busy = fire(&*store, 180).await;
    assert_eq!((busy.events.len(), busy.skipped), (0, 1));
    forget(&*store).await;
    let freed = fire(&*store, 200).await;
    assert_eq!(freed.events.len(), 1);
    assert_eq!(freed.events[0].id, TaskId::of_tick(&name("a"), later(180)));
    let moved_on = kept(&*store, "a").await;
    assert_eq!((moved_on.waiting, moved_on.next_tick), (None, Some(later(240))));
    assert_eq!(waiting(&*store).await, [later(180)]);
}

/// What is unfinished does not matter.
pub async fn allow_fires_all_the_same(store: Arc<dyn Store>) {
    minutely(&*store, "a", Overlap::Allow).await;
    for tick in 1..=4 {
        assert_eq!(fire(&*store, 60 * tick).await.events.len(), 1);
    }
    assert_eq!(
        waiting(&*store).await,
        [later(60), later(120), later(180), later(240)]
    );
}

/// After an outage, those within the window are fired, and the others are told of.
pub async fn what_is_in_time_is_made_up_for(store: Arc<dyn Store>) {
    let schedule = minutely(&*store, "a", Overlap::Allow).await;
    let patient = Schedule {
        catch_up: Duration::from_secs(150),
        ..schedule
    };
    store.put_schedule(&patient).await.expect("put");
    let fired = fire(&*store, 330).await;
    assert_eq!(waiting(&*store).await, [later(180), later(240), later(300)]);
    assert_eq!(fired.events.len(), 3);
    let (schedule, missed) = &fired.missed[0];
    assert_eq!((schedule, missed.first, missed.count), (&name("a"), later(60), 2));
    assert_eq!(fired.missed.len(), 1);
}

/// A tick whose task is known, from before a restore of the schedules say, is not fired again.
pub async fn a_tick_whose_task_is_known_is_passed(store: Arc<dyn Store>) {
    let schedule = minutely(&*store, "a", Overlap::Allow).await;
    let known = schedule.submission(schedule.tick(later(60)), later(60));
    record(&*store, &known).await;
    assert_eq!(fire(&*store, 60).await.events, []);
    let moved_on = kept(&*store, "a").await;
    assert_eq!(moved_on.next_tick, Some(later(120)));
    assert_eq!(waiting(&*store).await, [later(60)]);
}

/// More than fit into one pass.
pub async fn many_are_due_at_once(store: Arc<dyn Store>) {
    const COUNT: usize = 1_030;
    for number in 0..COUNT {
        let nightly = schedule(&format!("s{number}"), request("0 3 * * *"));
        store.put_schedule(&nightly).await.expect("put");
    }
    let at: Timestamp = "2040-06-02T03:00:05Z".parse().expect("a time");
    let mut fired = 0;
    for expected in [500, 500, 30, 0] {
        let pass = store.fire_schedules(500, Some(at)).await.expect("fire");
        assert_eq!(pass.events.len(), expected);
        fired += pass.events.len();
    }
    assert_eq!(fired, COUNT);
    assert_eq!(reports(&*store).await.len(), COUNT);
}

/// The ticks of a schedule on the days on which the clocks of Berlin change in 2040, in UTC.
const TO_SUMMER: &str = "2040-03-25";
const TO_WINTER: &str = "2040-10-28";

/// How many ticks each expression has on such a day, and where it matters the first of them.
const DAYS: [(&str, &str, usize, Option<&str>); 10] = [
    (TO_SUMMER, "30 2 * * *", 1, Some("T01:00:00Z")),
    (TO_SUMMER, "*/20 2 * * *", 1, Some("T01:00:00Z")),
    (TO_SUMMER, "0 * * * *", 23, None),
    (TO_SUMMER, "*/15 * * * *", 92, None),
    (TO_SUMMER, "0 12 * * *", 1, Some("T10:00:00Z")),
    (TO_WINTER, "30 2 * * *", 1, Some("T00:30:00Z")),
    (TO_WINTER, "*/20 2 * * *", 3, Some("T00:00:00Z")),
    (TO_WINTER, "0 * * * *", 25, None),
    (TO_WINTER, "*/15 * * * *", 100, None),
    (TO_WINTER, "0 12 * * *", 1, Some("T11:00:00Z")),
];

/// The instants at which it begins and ends in Berlin.
fn day(date: &str) -> (Timestamp, Timestamp) {
    let (begin, end) = match date {
        TO_SUMMER => ("2040-03-24T23:00:00Z", "2040-03-25T22:00:00Z"),
        _ => ("2040-10-27T22:00:00Z", "2040-10-28T23:00:00Z"),
    };
    (begin.parse().expect("a time"), end.parse().expect("a time"))
}

/// Two days on which the clock changes, by a clock that is ours, with three dispatchers that look at the same moments:
/// exactly the right ticks, each once.
pub async fn three_dispatchers_fire_exactly_the_right_ticks(store: Arc<dyn Store>) {
    let put = DAYS.map(|(date, cron, ..)| {
        let request = ScheduleRequest {
            time_zone: Some("Europe/Berlin".into()),
            overlap: Some("allow".into()),
            catch_up_seconds: Some(600.0),
            ..request(cron)
        };
        schedule(&format!("{date}.{}", cron.replace(['*', ' ', '/'], "-")), request)
    });
    for date in [TO_SUMMER, TO_WINTER] {
        let of_day: Vec<&Schedule> = put
            .iter()
            .filter(|one| one.name.as_str().starts_with(date))
            .collect();
        for schedule in &of_day {
            store.put_schedule(schedule).await.expect("put");
        }
        let (begin, end) = day(date);
        // What has passed until then is missed, but for ten minutes that belong to the day before.
        let mut fired = live(&store, plus(begin, -1), plus(begin, -1)).await;
        fired.clear();
        fired.extend(live(&store, begin, plus(end, -1)).await);
        for schedule in of_day {
            store.delete_schedule(&schedule.name).await.expect("delete");
        }
        let expected: usize = DAYS.iter().filter(|day| day.0 == date).map(|day| day.2).sum();
        assert_eq!(fired.len(), expected, "on {date}");
        assert_eq!(
            fired.iter().collect::<BTreeSet<_>>().len(),
            expected,
            "no task twice"
        );
    }
    for (schedule, (date, cron, count, first)) in put.iter().zip(DAYS) {
        let (begin, end) = day(date);
        let ticks = schedule.upcoming(plus(begin, -1), 200);
        let ticks: Vec<Timestamp> = ticks.into_iter().filter(|tick| *tick < end).collect();
        assert_eq!(ticks.len(), count, "{cron} on {date}");
        if let Some(first) = first {
            assert_eq!(ticks[0].to_string(), format!("{date}{first}"), "{cron}");
        }
        for tick in ticks {
            let task = get(&*store, TaskId::of_tick(&schedule.name, tick)).await;
            assert_eq!(task.run_at, Some(tick), "{cron}");
        }
    }
}

/// Three dispatchers live through this time, in steps of a few minutes; the tasks that they fired.
async fn live(store: &Arc<dyn Store>, begin: Timestamp, end: Timestamp) -> Vec<TaskId> {
    let mut fired = Vec::new();
    let (mut at, mut step) = (begin, 0);
    loop {
        let mut dispatchers = JoinSet::new();
        for _ in 0..3 {
            let store = Arc::clone(store);
            dispatchers.spawn(async move {
                let mut ids = Vec::new();
                loop {
                    // One schedule at a time, so that they get into each other's way.
                    let pass = store.fire_schedules(1, Some(at)).await.expect("fire");
                    ids.extend(pass.events.into_iter().map(|event| event.id));
                    if pass.next_in != Some(Duration::ZERO) {
                        return ids;
                    }
                }
            });
        }
        fired.extend(dispatchers.join_all().await.into_iter().flatten());
        // What somebody held while they looked is done now: this time goes by in leaps.
        loop {
            let rest = store.fire_schedules(1_000, Some(at)).await.expect("fire");
            fired.extend(rest.events.into_iter().map(|event| event.id));
            if rest.next_in.is_some_and(|next_in| next_in > Duration::ZERO) {
                break;
            }
        }
        if at >= end {
            return fired;
        }
        step += 1;
        at = plus(at, [60, 300, 540, 120][step % 4]).min(end);
    }
}

/// With three at once, one task is submitted and no more, whose end is waited for.
pub async fn dispatchers_agree_on_what_overlaps(store: Arc<dyn Store>) {
    for (text, overlap) in [("skipping", Overlap::Skip), ("queueing", Overlap::Queue)] {
        minutely(&*store, text, overlap).await;
        for round in 1..=10 {
            // Two ticks are due, and one of them may have its task.
            let fired = live(&store, later(120 * round), later(120 * round)).await;
            assert_eq!(fired.len(), 1, "{text}, round {round}");
            assert_eq!(waiting(&*store).await.len(), 1, "{text}, round {round}");
            forget(&*store).await;
        }
        store.delete_schedule(&name(text)).await.expect("delete");
    }
}

/// Whoever has been told that it is deleted sees no more of it.
pub async fn nothing_is_fired_once_it_is_deleted(store: Arc<dyn Store>) {
    for round in 0..10 {
        let text = format!("s{round}");
        minutely(&*store, &text, Overlap::Allow).await;
        let mut firing = JoinSet::new();
        for dispatcher in 0..3 {
            let store = Arc::clone(&store);
            firing.spawn(async move {
                for minute in 1..20 {
                    let now = later(60 * minute + dispatcher);
                    store.fire_schedules(10, Some(now)).await.expect("fire");
                }
            });
        }
        tokio::task::yield_now().await;
        assert!(store.delete_schedule(&name(&text)).await.expect("delete"));
        let then = waiting(&*store).await.len();
        firing.join_all().await;
        assert_eq!(waiting(&*store).await.len(), then);
        assert_eq!(store.schedule(&name(&text)).await.expect("read"), None);
        forget(&*store).await;
    }
}

/// It is put again and again while it is fired: no tick is lost, and none is fired twice.
pub async fn putting_it_while_it_fires_costs_no_tick(store: Arc<dyn Store>) {
    let schedule = Schedule {
        catch_up: Duration::from_secs(600),
        ..minutely(&*store, "a", Overlap::Allow).await
    };
    store.put_schedule(&schedule).await.expect("put");
    let mut putting = JoinSet::new();
    for _ in 0..2 {
        let (store, schedule) = (Arc::clone(&store), schedule.clone());
        putting.spawn(async move {
            for _ in 0..40 {
                let put = store.put_schedule(&schedule).await.expect("put");
                assert!(!put.is_new);
            }
        });
    }
    let fired = live(&store, later(0), later(3_600)).await;
    putting.join_all().await;
    assert_eq!(fired.len(), 60);
    assert_eq!(
        waiting(&*store).await,
        (1..=60).map(|minute| later(60 * minute)).collect::<Vec<_>>()
    );
}

/// Those who make it at the same moment agree on who did.
pub async fn one_of_several_makes_it(store: Arc<dyn Store>) {
    let mut putting = JoinSet::new();
    for jitter in 0..8 {
        let store = Arc::clone(&store);
        putting.spawn(async move {
            let schedule = Schedule {
                jitter: Duration::from_secs(jitter),
                ..schedule("a", request("0 3 * * *"))
            };
            store.put_schedule(&schedule).await.expect("put")
        });
    }
    let put = putting.join_all().await;
    assert_eq!(put.iter().filter(|put| put.is_new).count(), 1);
    let kept = kept(&*store, "a").await;
    assert!(put.iter().all(|put| put.schedule.created_at == kept.created_at));
    assert!(put.iter().any(|put| put.schedule == kept));
}
