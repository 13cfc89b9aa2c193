//! What only this store can get wrong about schedules.

use std::time::Instant;

use forebay_core::{ScheduleRequest, SubmitRequest};
use forebay_store::{Read, TaskFilter};

use super::*;
use crate::plans::{migrated, plan};

async fn run(store: &PostgresStore, sql: &'static str) {
    let mut connection = store.hot.get("test").await.expect("connect");
    connection.client().batch_execute(sql).await.expect(sql);
    connection.settle(Ok(())).expect("settle");
}

async fn put(store: &PostgresStore, name: &str) -> Schedule {
    let request = ScheduleRequest {
        cron: "0 3 * * *".into(),
        time_zone: Some("Europe/Berlin".into()),
        task: SubmitRequest {
            kind: "report".into(),
            ..SubmitRequest::default()
        },
        ..ScheduleRequest::default()
    };
    let schedule = request.accept(name.parse().expect("a name"), Timestamp::UNIX_EPOCH);
    let put = store.put_schedule(&schedule.expect("a schedule")).await;
    put.expect("put").schedule
}

async fn tasks(store: &PostgresStore) -> usize {
    let page = store.list(&TaskFilter::default(), 100, None).await;
    page.expect("list").tasks.len()
}

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().expect("a time"))
}

/// As if the process had died between the two.
#[tokio::test]
async fn what_cannot_move_on_has_submitted_nothing() {
    let store = migrated().await;
    let before = put(&store, "a").await;
    run(
        &store,
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the test says so'; END $$;
         CREATE TRIGGER fail BEFORE UPDATE ON schedules FOR EACH ROW EXECUTE FUNCTION fail()",
    )
    .await;
    let now = at("2040-06-01T01:00:01Z");
    store
        .fire_schedules(10, now)
        .await
        .expect_err("it cannot move on");
    assert_eq!(tasks(&store).await, 0);
    assert_eq!(store.schedule(&before.name).await.expect("read"), Some(before));
    run(&store, "DROP TRIGGER fail ON schedules").await;
    let fired = store.fire_schedules(10, now).await.expect("fire");
    assert_eq!((fired.events.len(), tasks(&store).await), (1, 1));
}

#[tokio::test]
async fn one_that_cannot_be_read_keeps_no_other() {
    let store = migrated().await;
    let (strange, other) = (put(&store, "a").await, put(&store, "b").await);
    run(
        &store,
        "UPDATE schedules SET time_zone = 'Mars/Olympus_Mons' WHERE name = 'a'",
    )
    .await;
    let fired = store
        .fire_schedules(10, at("2040-06-01T01:00:01Z"))
        .await
        .expect("fire");
    let last =
        |schedule: &Schedule| TaskId::of_tick(&schedule.name, at("2040-06-01T01:00:00Z").expect("a time"));
    assert_eq!(
        fired.events.iter().map(|event| event.id).collect::<Vec<_>>(),
        [last(&other)]
    );
    assert!(
        fired.unreadable[0].starts_with("a: ") && fired.unreadable[0].contains("Mars"),
        "{:?}",
        fired.unreadable
    );
    let soon = store
        .fire_schedules(10, at("2040-06-01T01:00:05Z"))
        .await
        .expect("fire");
    assert_eq!(
        (soon.unreadable.len(), soon.next_in),
        (0, Some(Duration::from_secs(1)))
    );
    let again = store
        .fire_schedules(10, at("2040-06-01T01:00:06Z"))
        .await
        .expect("fire");
    assert_eq!((again.unreadable.len(), again.next_in), (1, None));
    let kept = store
        .schedule(&strange.name)
        .await
        .expect("read")
        .expect("it is there");
    assert_eq!(
        (kept.time_zone.as_str(), kept.time_zone.is_known()),
        ("Mars/Olympus_Mons", false)
    );
    assert_eq!(
        (kept.upcoming(kept.created_at, 5), kept.next_tick),
        (Vec::new(), strange.next_tick)
    );
    assert_eq!(
        store.schedules(10, None).await.expect("read").len(),
        2,
        "it keeps no other from being listed"
    );
    let put = store.put_schedule(&strange).await.expect("put");
    assert!(!put.is_new);
    let repaired = store.schedule(&strange.name).await.expect("read");
    assert_eq!(repaired, Some(put.schedule));
}

/// Ten thousand schedules of the same minute, whose last tasks have to be looked at, and as many that are not due.
const FILL_SCHEDULES: &str = "
    INSERT INTO schedules (name, look_at, next_tick, last_tick, last_task, created_at, updated_at, catch_up_us, jitter_us,
                           paused, cron, time_zone, overlap, priority, project, kind, queue, tags, payload)
    SELECT 's' || n, at.tick, at.tick, at.tick - interval '1 day', gen_random_uuid(), now(), now(), 60000000, 0, false,
           '0 3 * * *', 'Europe/Berlin', 'skip', 'default', 'default', 'report', 'reports', '{}', 'null'
    FROM generate_series(1, 20000) AS n
    CROSS JOIN LATERAL (SELECT timestamptz '2040-06-01T01:00:00Z' + (n % 2) * interval '1 day' AS tick) AS at;
    ANALYZE schedules";

#[tokio::test]
async fn ten_thousand_schedules_of_one_minute_are_cheap() {
    let store = migrated().await;
    run(&store, FILL_SCHEDULES).await;
    for sql in [
        include_str!("../../queries/schedules_next.sql"),
        include_str!("../../queries/schedules_lock.sql"),
    ] {
        let plan = plan(&store, sql).await.expect("explain");
        assert!(
            plan.contains("schedules_look_at") && !plan.contains("->  Sort"),
            "{plan}"
        );
    }
    let at = Some("2040-06-01T01:00:01Z".parse().expect("a time"));
    let (began, mut fired) = (Instant::now(), 0);
    while fired < 10_000 {
        let pass = store.fire_schedules(500, at).await.expect("fire");
        assert_eq!(pass.events.len(), 500);
        fired += pass.events.len();
    }
    let took = began.elapsed();
    let rest = store.fire_schedules(500, at).await.expect("fire");
    assert_eq!((rest.events.len(), rest.skipped), (0, 0));
    assert!(took < Duration::from_secs(30), "{took:?}");
}
