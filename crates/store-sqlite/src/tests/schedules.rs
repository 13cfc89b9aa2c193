//! What SQLite can get wrong about schedules.

use forebay_core::{Schedule, ScheduleRequest, SubmitRequest};
use forebay_store::Schedules;

use super::*;

async fn run(store: &SqliteStore, statement: &'static str) {
    sqlx::query(statement)
        .execute(&store.writer)
        .await
        .expect(statement);
}

async fn put(store: &SqliteStore, name: &str) -> Schedule {
    let request = ScheduleRequest {
        cron: "0 3 * * *".into(),
        time_zone: Some("Europe/Berlin".into()),
        task: SubmitRequest {
            kind: "report".into(),
            ..SubmitRequest::default()
        },
        ..ScheduleRequest::default()
    };
    let schedule = request.accept(name.parse().unwrap(), SystemClock.now()).unwrap();
    store.put_schedule(&schedule).await.unwrap().schedule
}

async fn tasks(store: &SqliteStore) -> usize {
    let page = store.list(&TaskFilter::default(), 100, None).await;
    page.unwrap().tasks.len()
}

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

/// As if the process had died between the two.
#[tokio::test]
async fn what_cannot_move_on_has_submitted_nothing() {
    let (store, _folder) = store().await;
    let before = put(&store, "a").await;
    run(
        &store,
        "CREATE TRIGGER fail BEFORE UPDATE ON schedules BEGIN SELECT RAISE(ABORT, 'the test says so'); END",
    )
    .await;
    let now = at("2040-06-01T01:00:01Z");
    store
        .fire_schedules(10, now)
        .await
        .expect_err("it cannot move on");
    assert_eq!(tasks(&store).await, 0);
    assert_eq!(store.schedule(&before.name).await.unwrap(), Some(before));
    run(&store, "DROP TRIGGER fail").await;
    let fired = store.fire_schedules(10, now).await.unwrap();
    assert_eq!((fired.events.len(), tasks(&store).await), (1, 1));
}

#[tokio::test]
async fn one_that_cannot_be_read_keeps_no_other() {
    let (store, _folder) = store().await;
    let (strange, other) = (put(&store, "a").await, put(&store, "b").await);
    run(
        &store,
        "UPDATE schedules SET time_zone = 'Mars/Olympus_Mons' WHERE name = 'a'",
    )
    .await;
    let fired = store
        .fire_schedules(10, at("2040-06-01T01:00:01Z"))
        .await
        .unwrap();
    let tick = at("2040-06-01T01:00:00Z").unwrap();
    let ids: Vec<TaskId> = fired.events.iter().map(|event| event.id).collect();
    assert_eq!(ids, [TaskId::of_tick(&other.name, tick)]);
    let said = &fired.unreadable[0];
    assert!(said.starts_with("a: ") && said.contains("Mars"), "{said}");
    let soon = store
        .fire_schedules(10, at("2040-06-01T01:00:05Z"))
        .await
        .unwrap();
    assert_eq!(
        (soon.unreadable.len(), soon.next_in),
        (0, Some(Duration::from_secs(1)))
    );
    let again = store
        .fire_schedules(10, at("2040-06-01T01:00:06Z"))
        .await
        .unwrap();
    assert_eq!((again.unreadable.len(), again.next_in), (1, None));
    let kept = store.schedule(&strange.name).await.unwrap().expect("it is there");
    assert_eq!(
        (kept.time_zone.as_str(), kept.time_zone.is_known()),
        ("Mars/Olympus_Mons", false)
    );
    assert_eq!(
        (kept.upcoming(kept.created_at, 5), kept.next_tick),
        (Vec::new(), strange.next_tick)
    );
    assert_eq!(
        store.schedules(10, None).await.unwrap().len(),
        2,
        "it keeps no other from being listed"
    );
    let put = store.put_schedule(&strange).await.unwrap();
    assert!(!put.is_new);
    assert_eq!(store.schedule(&strange.name).await.unwrap(), Some(put.schedule));
}
