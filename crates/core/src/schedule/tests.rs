use std::{collections::BTreeSet, time::Duration};

use jiff::tz::TimeZone as Zone;
use proptest::prelude::*;

use super::*;
use crate::{SubmitRequest, Violation};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(text: &str) -> Cron {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn zone(name: &str) -> TimeZone {
    name.parse().unwrap()
}

fn request(text: &str) -> ScheduleRequest {
    ScheduleRequest {
        cron: text.to_owned(),
        task: SubmitRequest {
            kind: "report".into(),
            ..SubmitRequest::default()
        },
        ..ScheduleRequest::default()
    }
}

fn accepted(request: ScheduleRequest) -> Schedule {
    let now = at("2026-03-01T12:00:00Z");
    request.accept("nightly".parse().unwrap(), now).unwrap()
}

fn schedule(text: &str, overlap: Overlap) -> Schedule {
    Schedule {
        overlap,
        ..accepted(request(text))
    }
}

/// The ticks of a time, with both ends.
fn ticks(text: &str, zone_name: &str, from: &str, to: &str) -> Vec<String> {
    let (cron, zone, to) = (cron(text), zone(zone_name), at(to));
    let mut after = at(from) - Duration::from_secs(1);
    let mut found = Vec::new();
    while let Some(tick) = cron.next(&zone, after).filter(|&tick| tick <= to) {
        assert!(tick > after, "{tick} follows {after}");
        found.push(tick.to_string());
        after = tick;
    }
    found
}

#[test]
fn what_is_no_cron_expression_is_refused() {
    for text in [
        "",
        "* * * *",
        "* * * * * * *",
        "0 0 0 * * * 2030",
        "60 * * * *",
        "* 24 * * *",
        "0 0 32 * *",
        "0 0 * 13 *",
        "0 0 * * 8",
        "@daily",
        "a b c d e",
        "0 0 30 2 *",
        "0 0 31 2,4,6,9,11 *",
        "ä * * * *",
        ", * * * *",
        ", * * * * *",
        "0 , * * *",
        "0 0 1,,2 * *",
        "0 0 * * ,",
        "0 0 1 * L",
        "0 0 30 2 +mon",
    ] {
        let error = text.parse::<Cron>().expect_err(text).to_string();
        assert!(error.starts_with("must be a cron expression"), "{error}");
    }
    let long = format!("{} * * * *", vec!["1"; 200].join(","));
    assert!(long.parse::<Cron>().is_err());
}

#[test]
fn the_usual_expressions_are_understood() {
    let day = ("2026-03-02T00:00:00Z", "2026-03-02T23:59:59Z");
    let count = |text| ticks(text, "UTC", day.0, day.1).len();
    assert_eq!(count("* * * * *"), 1_440);
    assert_eq!(count("*/15 8-17 * * MON-FRI"), 40);
    assert_eq!(count("*/10 * * * * *"), 8_640);
    assert_eq!(count("0 0 * * SUN"), 0);
    assert_eq!(
        ticks(
            "30 4 1,15 * *",
            "UTC",
            "2026-03-01T00:00:00Z",
            "2026-04-01T12:00:00Z"
        ),
        [
            "2026-03-01T04:30:00Z",
            "2026-03-15T04:30:00Z",
            "2026-04-01T04:30:00Z"
        ]
    );
    assert_eq!(
        ticks(
            "0 0 29 2 *",
            "UTC",
            "2026-01-01T00:00:00Z",
            "2033-01-01T00:00:00Z"
        ),
        ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]
    );
    // The last day of a month, and its second Friday.
    assert_eq!(
        ticks("0 0 L * *", "UTC", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
        ["2026-02-28T00:00:00Z"]
    );
    assert_eq!(
        ticks(
            "0 0 * * FRI#2",
            "UTC",
            "2026-03-01T00:00:00Z",
            "2026-03-31T00:00:00Z"
        ),
        ["2026-03-13T00:00:00Z"]
    );
}

/// In Berlin the clock goes from 2:00 to 3:00 on 29 March 2026.
#[test]
fn a_clock_that_is_set_forward() {
    let night = ("2026-03-28T23:00:00Z", "2026-03-29T02:59:59Z");
    let berlin = |text| ticks(text, "Europe/Berlin", night.0, night.1);
    // Named hours: at the first instant after the gap, and once.
    assert_eq!(berlin("30 2 * * *"), ["2026-03-29T01:00:00Z"]);
    assert_eq!(berlin("*/15 2 * * *"), ["2026-03-29T01:00:00Z"]);
    assert_eq!(berlin("0 2,3 * * *"), ["2026-03-29T01:00:00Z"]);
    assert_eq!(
        berlin("30 1,2,3 * * *"),
        [
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:30:00Z"
        ]
    );
    // Any hour: as the clock shows it.
    assert_eq!(
        berlin("30 * * * *"),
        [
            "2026-03-28T23:30:00Z",
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:30:00Z",
            "2026-03-29T02:30:00Z"
        ]
    );
    assert_eq!(berlin("* * * * *").len(), 240);
    assert_eq!(
        berlin("0 */2 * * *"),
        ["2026-03-28T23:00:00Z", "2026-03-29T02:00:00Z"]
    );
}

/// And from 3:00 to 2:00 on 25 October.
#[test]
fn a_clock_that_is_set_back() {
    let night = ("2026-10-24T22:00:00Z", "2026-10-25T02:59:59Z");
    let berlin = |text| ticks(text, "Europe/Berlin", night.0, night.1);
    // Named hours: the first time.
    assert_eq!(berlin("30 2 * * *"), ["2026-10-25T00:30:00Z"]);
    assert_eq!(
        berlin("*/30 1-3 * * *"),
        [
            "2026-10-24T23:00:00Z",
            "2026-10-24T23:30:00Z",
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T02:00:00Z",
            "2026-10-25T02:30:00Z"
        ]
    );
    // Any hour: both times.
    assert_eq!(
        berlin("30 * * * *"),
        [
            "2026-10-24T22:30:00Z",
            "2026-10-24T23:30:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:30:00Z",
            "2026-10-25T02:30:00Z"
        ]
    );
    assert_eq!(berlin("* * * * *").len(), 300);
    assert_eq!(berlin("0 0-23 * * *").len(), 5, "all hours are any hour");
}

/// What other zones do: at midnight, by half an hour, by two hours, by a whole day, over the end of a day.
#[test]
fn clocks_elsewhere() {
    assert_eq!(
        ticks(
            "30 0 * * *",
            "America/Havana",
            "2026-03-08T04:00:00Z",
            "2026-03-09T03:00:00Z"
        ),
        ["2026-03-08T05:00:00Z"]
    );
    assert_eq!(
        ticks(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T14:00:00Z",
            "2026-10-04T12:00:00Z"
        ),
        ["2026-10-03T15:30:00Z"]
    );
    assert_eq!(
        ticks(
            "59 2 * * *",
            "Antarctica/Troll",
            "2026-03-28T23:00:00Z",
            "2026-03-29T12:00:00Z"
        ),
        ["2026-03-29T01:00:00Z"]
    );
    // The clock showed no 30 December 2011 at all.
    assert_eq!(
        ticks(
            "0 12 30 12 *",
            "Pacific/Apia",
            "2011-12-29T00:00:00Z",
            "2012-01-02T00:00:00Z"
        ),
        ["2011-12-30T10:00:00Z"]
    );
    // From Saturday 23:00 to Sunday: still Saturday's tick.
    assert_eq!(
        ticks(
            "30 23 * * SAT",
            "America/Nuuk",
            "2026-03-28T12:00:00Z",
            "2026-03-29T12:00:00Z"
        ),
        ["2026-03-29T01:00:00Z"]
    );
}

#[test]
fn a_zone_is_known_by_its_name() {
    assert_eq!(zone("Europe/Berlin").as_str(), "Europe/Berlin");
    assert_eq!(zone("europe/berlin").as_str(), "Europe/Berlin");
    assert_eq!(zone("UTC"), TimeZone::default());
    for name in [
        "",
        "Berlin",
        "+02:00",
        "CET-1CEST",
        "Etc/Unknown",
        "Europe/Berlin ",
        "../../etc/passwd",
    ] {
        assert!(name.parse::<TimeZone>().is_err(), "{name}");
    }
}

#[test]
fn what_is_not_said_has_a_value() {
    let schedule = accepted(request("0 3 * * *"));
    assert_eq!(schedule.time_zone.as_str(), "UTC");
    assert_eq!((schedule.overlap, schedule.paused), (Overlap::Skip, false));
    assert_eq!(
        (schedule.catch_up, schedule.jitter),
        (Duration::from_secs(60), Duration::ZERO)
    );
    assert_eq!(schedule.next_tick, Some(at("2026-03-02T03:00:00Z")));
    assert_eq!(schedule.task.lane.to_string(), "default.default");
    assert_eq!(
        schedule.upcoming(at("2026-03-02T03:00:00Z"), 2),
        [at("2026-03-03T03:00:00Z"), at("2026-03-04T03:00:00Z")]
    );
    let paused = ScheduleRequest {
        paused: true,
        ..request("0 3 * * *")
    };
    let paused = accepted(paused);
    assert_eq!(
        (paused.next_tick, paused.upcoming(at("2026-03-02T03:00:00Z"), 2)),
        (None, vec![])
    );
}

#[test]
fn all_mistakes_are_named_at_once() {
    let wrong = ScheduleRequest {
        cron: "every day".into(),
        time_zone: Some("Mars/Olympus".into()),
        overlap: Some("both".into()),
        catch_up_seconds: Some(0.5),
        jitter_seconds: Some(f64::NAN),
        paused: false,
        task: SubmitRequest {
            kind: "two words".into(),
            run_at: Some(at("2026-03-01T12:00:00Z")),
            delay_seconds: Some(1.0),
            idempotency_key: Some("k".into()),
            max_attempts: Some(0),
            ..SubmitRequest::default()
        },
    };
    let wrong = wrong
        .accept("x".parse().unwrap(), at("2026-03-01T12:00:00Z"))
        .unwrap_err();
    let mut pointers: Vec<&str> = wrong
        .iter()
        .map(|Violation { pointer, .. }| pointer.as_str())
        .collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/catch_up_seconds",
            "/cron",
            "/jitter_seconds",
            "/overlap",
            "/task/delay_seconds",
            "/task/idempotency_key",
            "/task/kind",
            "/task/max_attempts",
            "/task/run_at",
            "/time_zone"
        ]
    );
    for (catch_up, jitter) in [
        (86_400.5, 0.0),
        (60.0, 3_600.5),
        (60.0, -1.0),
        (f64::INFINITY, 0.0),
    ] {
        let request = ScheduleRequest {
            catch_up_seconds: Some(catch_up),
            jitter_seconds: Some(jitter),
            ..request("0 3 * * *")
        };
        let wrong = request.accept("x".parse().unwrap(), at("2026-03-01T12:00:00Z"));
        assert_eq!(wrong.unwrap_err().len(), 1, "{catch_up} {jitter}");
    }
}

#[test]
fn a_tick_that_is_not_due_is_left() {
    let nightly = schedule("0 3 * * *", Overlap::Skip);
    let plan = plan(&nightly, at("2026-03-02T02:59:59.999999Z"), false);
    assert_eq!(
        plan,
        Plan {
            next_tick: nightly.next_tick,
            ..Plan::default()
        }
    );
}

#[test]
fn a_tick_is_fired_and_followed_by_the_next() {
    let nightly = schedule("0 3 * * *", Overlap::Skip);
    let tick = at("2026-03-02T03:00:00Z");
    let planned = plan(&nightly, tick, false);
    assert_eq!(
        planned.fire,
        [Tick {
            at: tick,
            run_at: tick
        }]
    );
    assert_eq!(planned.next_tick, Some(at("2026-03-03T03:00:00Z")));
    let task = nightly.submission(planned.fire[0], tick);
    assert_eq!(
        (task.id, task.run_at),
        (TaskId::of_tick(&nightly.name, tick), Some(tick))
    );
    let after = nightly.after(&planned);
    assert_eq!(after.last_tick, Some((tick, task.id)));
    assert_eq!(plan(&after, tick, true).fire, [], "it is fired once");
}

/// Five minutes of an outage, of which the last two are in time.
#[test]
fn after_an_outage_what_is_in_time_is_made_up_for() {
    let now = at("2026-03-01T12:05:30Z");
    let ticks = |fire: &[Tick]| -> Vec<String> { fire.iter().map(|tick| tick.at.to_string()).collect() };
    let missed = |overlap, busy| {
        let schedule = Schedule {
            catch_up: Duration::from_secs(120),
            ..schedule("* * * * *", overlap)
        };
        let plan = plan(&schedule, now, busy);
        assert_eq!(
            plan.missed,
            Some(Missed {
                first: at("2026-03-01T12:01:00Z"),
                count: 3
            })
        );
        assert_eq!(plan.next_tick, Some(at("2026-03-01T12:06:00Z")));
        plan
    };
    let both = ["2026-03-01T12:04:00Z", "2026-03-01T12:05:00Z"];
    for busy in [false, true] {
        let plan = missed(Overlap::Allow, busy);
        assert_eq!(
            (ticks(&plan.fire), plan.skipped, plan.waiting),
            (both.map(String::from).to_vec(), 0, None)
        );
    }
    let first = missed(Overlap::Skip, false);
    assert_eq!((ticks(&first.fire), first.skipped), (vec![both[0].into()], 1));
    let none = missed(Overlap::Skip, true);
    assert_eq!((none.fire.len(), none.skipped), (0, 2));
    let one = missed(Overlap::Queue, false);
    assert_eq!(
        (ticks(&one.fire), one.skipped, one.waiting),
        (vec![both[0].into()], 0, Some(at(both[1])))
    );
    let latest = missed(Overlap::Queue, true);
    assert_eq!(
        (latest.fire.len(), latest.skipped, latest.waiting),
        (0, 1, Some(at(both[1])))
    );
}

#[test]
fn what_waits_is_fired_when_its_turn_comes() {
    let waiting = Schedule {
        waiting: Some(at("2026-03-01T11:00:00Z")),
        ..schedule("0 * * * *", Overlap::Queue)
    };
    let now = at("2026-03-01T12:30:00Z");
    let still = plan(&waiting, now, true);
    assert_eq!((still.fire.len(), still.waiting), (0, waiting.waiting));
    let fired = plan(&waiting, now, false);
    assert_eq!(
        fired.fire,
        [waiting.tick(at("2026-03-01T11:00:00Z"))],
        "however long it took"
    );
    assert_eq!((fired.waiting, fired.next_tick), (None, waiting.next_tick));
    // It is the task of the tick before the one that comes now.
    let both = plan(&waiting, at("2026-03-01T13:00:00Z"), false);
    assert_eq!(
        (both.fire.len(), both.waiting),
        (1, Some(at("2026-03-01T13:00:00Z")))
    );
}

#[test]
fn what_waits_is_looked_at_ever_more_seldom() {
    let now = at("2026-03-01T12:00:00Z");
    let look_in = |waited: u64| {
        let schedule = Schedule {
            waiting: Some(now - Duration::from_secs(waited)),
            ..schedule("0 3 * * *", Overlap::Queue)
        };
        schedule.look_at(now).unwrap().duration_since(now).as_millis()
    };
    assert_eq!([look_in(0), look_in(4), look_in(3_600)], [200, 1_000, 5_000]);
    let nightly = schedule("0 3 * * *", Overlap::Queue);
    assert_eq!(nightly.look_at(now), nightly.next_tick);
}

#[test]
fn a_long_backlog_is_worked_off_in_parts() {
    let mut seconds = Schedule {
        catch_up: CATCH_UP_MAX,
        ..schedule("* * * * * *", Overlap::Allow)
    };
    let start = seconds.next_tick.unwrap();
    let now = at("2026-03-01T12:10:00Z");
    let mut fired = BTreeSet::new();
    let mut passes = 0;
    while seconds.look_at(now).unwrap() <= now {
        let planned = plan(&seconds, now, true);
        assert!(planned.fire.len() <= 100);
        for tick in &planned.fire {
            assert!(fired.insert(tick.at), "{} is fired twice", tick.at);
        }
        seconds = seconds.after(&planned);
        passes += 1;
    }
    assert_eq!((fired.len(), passes), (600, 6));
    assert_eq!((fired.first(), fired.last()), (Some(&start), Some(&now)));
}

#[test]
fn an_outage_of_years_costs_no_more_than_one_of_a_day() {
    let seconds = schedule("* * * * * *", Overlap::Allow);
    let began = std::time::Instant::now();
    let planned = plan(&seconds, at("2036-03-01T12:00:00Z"), false);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(planned.missed.map(|missed| missed.count), Some(100));
    assert_eq!(
        planned.fire.first().map(|tick| tick.at),
        Some(at("2036-03-01T11:59:00Z"))
    );
}

#[test]
fn a_schedule_that_is_put_again_forgets_nothing() {
    let old = Schedule {
        last_tick: Some((
            at("2026-03-01T03:00:00Z"),
            TaskId::new(at("2026-03-01T03:00:00Z"), &[1; 10]),
        )),
        waiting: Some(at("2026-03-01T03:00:00Z")),
        ..schedule("0 3 * * *", Overlap::Queue)
    };
    // Its tick has come and was not fired yet.
    let now = at("2026-03-02T03:00:00.05Z");
    let put = |text, overlap, paused| {
        let new = Schedule {
            paused,
            ..schedule(text, overlap)
        };
        new.replacing(Some(&old), now)
    };
    let same = put("0 3 * * *", Overlap::Queue, false);
    assert_eq!(same, old, "nothing has changed");
    let moved = Schedule {
        jitter: Duration::from_secs(5),
        ..old.clone()
    };
    let moved = moved.replacing(Some(&old), now);
    assert_eq!((moved.next_tick, moved.waiting), (old.next_tick, old.waiting));
    assert_eq!(
        (moved.created_at, moved.updated_at, moved.last_tick),
        (old.created_at, now, old.last_tick)
    );
    let other = put("30 3 * * *", Overlap::Skip, false);
    assert_eq!(
        (other.next_tick, other.waiting),
        (Some(at("2026-03-02T03:30:00Z")), None)
    );
    let earlier = put("0 2 * * *", Overlap::Skip, false);
    assert_eq!(
        earlier.next_tick,
        Some(at("2026-03-03T02:00:00Z")),
        "what has passed is not fired"
    );
    let paused = put("0 3 * * *", Overlap::Queue, true);
    assert_eq!(
        (paused.next_tick, paused.waiting, paused.look_at(now)),
        (None, None, None)
    );
    assert_eq!(plan(&paused, now, false), Plan::default());
    let resumed = schedule("0 3 * * *", Overlap::Queue).replacing(Some(&paused), now);
    assert_eq!(
        resumed.next_tick,
        Some(at("2026-03-03T03:00:00Z")),
        "a pause is not made up for"
    );
}

#[test]
fn a_clock_that_was_set_back_fires_nothing_again() {
    let tick = at("2026-03-02T03:00:00Z");
    let old = Schedule {
        last_tick: Some((tick, TaskId::of_tick(&"nightly".parse().unwrap(), tick))),
        ..schedule("0 3 * * *", Overlap::Skip)
    };
    let put = schedule("0 * * * *", Overlap::Skip).replacing(Some(&old), at("2026-03-02T01:30:00Z"));
    assert_eq!(put.next_tick, Some(at("2026-03-02T04:00:00Z")));
}

#[test]
fn jitter_moves_a_task_and_not_its_tick() {
    let jitter = Duration::from_secs(600);
    let moving = Schedule {
        jitter,
        ..schedule("0 * * * *", Overlap::Allow)
    };
    let start = at("2026-03-01T12:00:00Z");
    let moved: Vec<Duration> = moving
        .upcoming(start, 500)
        .into_iter()
        .map(|tick| {
            assert_eq!(moving.tick(tick), moving.tick(tick));
            Duration::try_from(moving.tick(tick).run_at.duration_since(tick)).unwrap()
        })
        .collect();
    assert!(moved.iter().all(|by| *by <= jitter));
    let early = moved.iter().filter(|by| **by < jitter / 2).count();
    assert!((150..350).contains(&early), "{early} of 500 in the first half");
    let other = Schedule {
        name: "other".parse().unwrap(),
        ..moving.clone()
    };
    assert_ne!(
        other.tick(start).run_at,
        moving.tick(start).run_at,
        "schedules are spread"
    );
    // It is too late for a task by its own time.
    let tick = moving.next_tick.unwrap();
    let late = moving.tick(tick).run_at + moving.catch_up;
    assert_eq!(plan(&moving, late, false).fire.len(), 1);
    assert_eq!(
        plan(&moving, late + Duration::from_millis(1), false).fire.len(),
        0
    );
}

/// Zones of every sort of change.
const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Havana",
    "America/Nuuk",
    "America/Santiago",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
];

fn fields() -> impl Strategy<Value = (u8, Option<u8>, Option<u8>)> {
    // Minute, hour or any, day of week or any.
    (
        0..60_u8,
        proptest::option::of(0..24_u8),
        proptest::option::of(0..7_u8),
    )
}

fn text((minute, hour, weekday): (u8, Option<u8>, Option<u8>)) -> String {
    let or_any = |field: Option<u8>| field.map_or("*".to_owned(), |field| field.to_string());
    format!("{minute} {} * * {}", or_any(hour), or_any(weekday))
}

/// The ticks of a time by looking at each minute of it: where the clock shows it, for the first time or any; and where
/// it would have shown it, had it not just been set forward.
fn looked_up(
    fields: (u8, Option<u8>, Option<u8>),
    zone: &Zone,
    from: Timestamp,
    minutes: i64,
) -> Vec<Timestamp> {
    let (minute, hour, weekday) = fields;
    let minute_of = |at: Timestamp| {
        let shown = zone.to_datetime(at);
        (shown.date(), shown.hour(), shown.minute())
    };
    let matches = |shown: jiff::civil::DateTime| {
        let day = u8::try_from(shown.date().weekday().to_sunday_zero_offset()).unwrap();
        u8::try_from(shown.minute()).unwrap() == minute
            && hour.is_none_or(|hour| u8::try_from(shown.hour()).unwrap() == hour)
            && weekday.is_none_or(|weekday| day == weekday)
    };
    // A day more, to know what has been shown before.
    let begin = from - Duration::from_secs(86_400);
    let mut shown_before = BTreeSet::new();
    let mut found = Vec::new();
    for number in 0..minutes + 1_440 {
        let at = begin + Duration::from_secs(60 * u64::try_from(number).unwrap());
        let shown = zone.to_datetime(at);
        let before = zone.to_datetime(at - Duration::from_secs(60));
        let is_first = shown_before.insert(minute_of(at));
        let mut is_tick = matches(shown) && (hour.is_none() || is_first);
        if hour.is_some() {
            let mut left_out = before + Duration::from_secs(60);
            while left_out < shown {
                is_tick |= matches(left_out);
                left_out += Duration::from_secs(60);
            }
        }
        if is_tick && at >= from {
            found.push(at);
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Two days around a change of the clock, of a zone of each sort, by an independent look at each minute.
    #[test]
    fn ticks_are_what_the_wall_clock_says(
        fields in fields(), zone_index in 0..ZONES.len(), change in 0..20_usize, ahead in 0..2_880_i64,
    ) {
        let zone = zone(ZONES[zone_index]);
        let year = at("2024-01-01T00:00:00Z");
        let change = zone.rules().following(year).nth(change).map_or(year, |change| change.timestamp());
        // Where 32 bits of seconds end, some have a change in the middle of a minute.
        let change = Timestamp::from_second(change.as_second().div_euclid(60) * 60).unwrap();
        let from = change - Duration::from_secs(60 * u64::try_from(ahead).unwrap());
        let cron = cron(&text(fields));
        let mut after = from - Duration::from_micros(1);
        let mut found = Vec::new();
        while let Some(tick) = cron.next(&zone, after).filter(|&tick| tick < from + Duration::from_secs(2_880 * 60)) {
            found.push(tick);
            after = tick;
        }
        prop_assert_eq!(found, looked_up(fields, zone.rules(), from, 2_880));
    }

    /// Whatever the dispatchers do, and whenever: each tick is fired, left out or missed once, in order, and never before
    /// its time; with `skip` and `queue`, no task is submitted while the one before is unfinished.
    #[test]
    fn each_tick_is_decided_once(
        period in 3..40_u32, overlap_index in 0..3_usize, catch_up in 1..300_u64, jitter in 0..120_u64,
        looks in proptest::collection::vec((1..200_u64, any::<bool>()), 1..60),
    ) {
        let overlap = [Overlap::Skip, Overlap::Queue, Overlap::Allow][overlap_index];
        let mut schedule = Schedule {
            catch_up: Duration::from_secs(catch_up),
            jitter: Duration::from_secs(jitter),
            ..schedule(&format!("*/{period} * * * * *"), overlap)
        };
        let start = at("2026-03-01T12:00:00Z");
        let (mut now, mut fired, mut decided) = (start, Vec::new(), 0);
        let mut unfinished = false;
        for (pause, finished) in looks {
            now += Duration::from_secs(pause);
            unfinished &= !finished;
            // As a dispatcher does: until there is nothing more to be done.
            loop {
                let planned = plan(&schedule, now, unfinished);
                if overlap != Overlap::Allow {
                    prop_assert!(planned.fire.len() <= usize::from(!unfinished));
                }
                for tick in &planned.fire {
                    prop_assert!(tick.at <= now && tick.run_at >= tick.at);
                    prop_assert!(tick.run_at <= tick.at + schedule.jitter);
                }
                decided += planned.fire.len() + planned.skipped as usize
                    + planned.missed.map_or(0, |missed| missed.count as usize);
                unfinished |= !planned.fire.is_empty();
                fired.extend(planned.fire.iter().map(|tick| tick.at));
                schedule = schedule.after(&planned);
                if schedule.next_tick.is_none_or(|next| next > now) {
                    break;
                }
            }
        }
        prop_assert!(fired.is_sorted_by(|one, next| one < next), "{:?}", fired);
        let passed = schedule_ticks(&schedule, start, now);
        prop_assert_eq!(decided + usize::from(schedule.waiting.is_some()), passed);
        prop_assert_eq!(schedule.last_tick.map(|(tick, _)| tick), fired.last().copied());
    }
}

fn schedule_ticks(schedule: &Schedule, after: Timestamp, until: Timestamp) -> usize {
    let next = |&tick: &Timestamp| schedule.cron.next(&schedule.time_zone, tick);
    std::iter::successors(next(&after), next)
        .take_while(|tick| *tick <= until)
        .count()
}
