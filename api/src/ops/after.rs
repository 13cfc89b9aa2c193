//! Looks whether the tasks that a submission waits for exist, as far as that is known.

use std::collections::HashSet;

use forebay_core::{Task, TaskId, Timestamp, Violation, WEBHOOK_KIND};
use forebay_store::TaskFilter;
use tokio::time::timeout;

use crate::{App, ops::submit::Asked};

/// How many ids are looked up for one request. What is past that is accepted, and the recorder looks for it.
const LOOKED_UP_MAX: usize = 5_000;
/// How long after another an accepted task may be recorded that was accepted before it, in milliseconds: bundles are recorded in
/// any order, and again where a recorder dies.
const DISORDER_MAX_MS: u64 = 15 * 60 * 1_000;
/// Among how many of the newest tasks one is looked for that says how far recorders have come.
const NEWEST_LOOKED_AT: usize = 10;
/// By how much another replica's clock may be ahead, in milliseconds.
const AHEAD_MAX_MS: u64 = 60 * 1_000;

/// Notes which of the ids that these wait for name no task. What perhaps is not recorded yet is let through, and so is all
/// while the store does not answer: acceptance depends on the broker alone, and the recorder looks again.
pub(crate) async fn check(app: &App, asked: &mut [&mut Asked]) {
    let ids: Vec<TaskId> = asked
        .iter()
        .flat_map(|asked| ids_of(asked))
        .take(LOOKED_UP_MAX)
        .collect();
    if ids.is_empty() {
        return;
    }
    let missing = missing(app, &ids).await.unwrap_or_default();
    if missing.is_empty() {
        return;
    }
    for asked in asked {
        // Refused for that, which is said first and once.
        if asked.request.terms.after.len() > forebay_core::AFTER_MAX {
            continue;
        }
        let named = asked.request.terms.after.iter().enumerate();
        let wrong = named.filter(|(_, id)| id.parse().is_ok_and(|id| missing.contains(&id)));
        let violations = wrong.map(|(index, id)| {
            Violation::invalid(format!("/after/{index}"), format!("there is no task {id}"))
        });
        asked.violations.extend(violations.collect::<Vec<_>>());
    }
}

/// What is no id is found by the check of the rest.
fn ids_of(asked: &Asked) -> Vec<TaskId> {
    let named = asked.request.terms.after.iter();
    named
        .filter_map(|id| id.parse().ok())
        .take(forebay_core::AFTER_MAX)
        .collect()
}

fn is_ahead(id: TaskId, now: Timestamp) -> bool {
    let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
    id.unix_millis() > now.saturating_add(AHEAD_MAX_MS)
}

/// Whether a task that is not recorded may have been accepted under this id, where recorders have come to what was accepted at
/// `recorded`, in milliseconds, as far as that is known. Ids of keys and of batches say no more than when the day began, or the
/// batch.
fn may_be_on_its_way(id: TaskId, now: Timestamp, recorded: Option<u64>) -> bool {
    let is_past = |recorded: u64| id.unix_millis() < recorded.saturating_sub(DISORDER_MAX_MS);
    match id.as_uuid().get_version_num() {
        7 => !is_ahead(id, now) && !recorded.is_some_and(is_past),
        8 => !is_ahead(id, now),
        _ => false,
    }
}

/// Up to when what was accepted is recorded, more or less, in milliseconds: the time of the newest task that only a recorder can have
/// written. `None` where that can't be told: then recorders may be far behind.
async fn recorded_until(app: &App) -> Option<u64> {
    let all = TaskFilter::default();
    let newest = app.store.list(&all, NEWEST_LOOKED_AT, None).await.ok()?.tasks;
    let now = app.clock.now();
    // Schedules, batches and webhooks submit past the recorder, and so do replicas whose clock is wrong, as it were.
    let by_recorder = |task: &&Task| {
        task.id.as_uuid().get_version_num() == 7
            && task.kind.as_str() != WEBHOOK_KIND
            && !is_ahead(task.id, now)
    };
    newest
        .iter()
        .filter(by_recorder)
        .map(|task| task.id.unix_millis())
        .max()
}

/// Those that certainly do not exist; `None` where that is not known in time.
async fn missing(app: &App, ids: &[TaskId]) -> Option<HashSet<TaskId>> {
    let look = async {
        let _place = app.places.lookups.acquire().await.ok()?;
        let unknown = app.store.unknown(ids).await.ok()?;
        if unknown.is_empty() {
            return Some(HashSet::new());
        }
        // Asked before the store is asked again: if nothing was unrecorded then, the store knows all that was accepted.
        let is_all = app.broker.unrecorded().await.ok()? == 0;
        let recorded = match is_all {
            true => None,
            false => recorded_until(app).await,
        };
        let unknown = app.store.unknown(&unknown).await.ok()?;
        let now = app.clock.now();
        let missing = unknown
            .into_iter()
            .filter(|&id| is_all || !may_be_on_its_way(id, now, recorded));
        Some(missing.collect())
    };
    timeout(app.bounds.lookup, look).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_recorders_have_not_come_to_may_be_on_its_way() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let made = |at: &str| TaskId::new(at.parse().unwrap(), &[7; 10]);
        // What is the newest that is recorded, and what is asked for.
        for (recorded, at, may_be) in [
            (Some("2026-03-01T12:00:00Z"), "2026-03-01T12:00:59Z", true),
            (Some("2026-03-01T12:00:00Z"), "2026-03-01T11:50:00Z", true),
            (Some("2026-03-01T12:00:00Z"), "2026-03-01T12:02:00Z", false),
            (Some("2026-03-01T12:00:00Z"), "2026-03-01T11:40:00Z", false),
            (Some("2026-03-01T10:00:00Z"), "2026-03-01T11:40:00Z", true),
            (Some("2026-03-01T10:00:00Z"), "2026-03-01T09:40:00Z", false),
            (None, "2026-02-01T12:00:00Z", true),
            (None, "2026-03-01T12:02:00Z", false),
        ] {
            let recorded_ms = recorded.map(|at| made(at).unix_millis());
            let may = may_be_on_its_way(made(at), now, recorded_ms);
            assert_eq!(may, may_be, "{at}, recorded until {recorded:?}");
        }
        let key = forebay_core::IdempotencyKey::parse("k").unwrap();
        let keyed = |at: &str| TaskId::keyed(at.parse().unwrap(), &forebay_core::Project::default(), &key);
        let recorded = Some(made("2026-03-01T12:00:00Z").unix_millis());
        assert!(may_be_on_its_way(keyed("2026-03-01T12:00:00Z"), now, recorded));
        assert!(!may_be_on_its_way(keyed("2026-03-02T12:00:00Z"), now, recorded));
        assert!(!may_be_on_its_way(TaskId::from_bytes([7; 16]), now, None));
    }
}
