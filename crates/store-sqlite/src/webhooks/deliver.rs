//! What webhooks are told: deliveries are tasks of ours, and are recorded here with a note for the list.

use std::{collections::BTreeSet, slice};

use forebay_core::{TaskEvent, TaskId, Timestamp, Webhook, WebhookEvent, WebhookName};
use forebay_store::{
    Ended, NewDelivery, REPLAYED_AT_ONCE, Replay, Replayed, Result, is_told, new_deliveries, queues_of,
};
use sqlx::SqliteConnection;

use super::rows::{self, Missed};
use crate::{dispatch::bounded, error::failed, record, row::micros_of};

const DOING: &str = "tell webhooks";
const NOTE: &str = include_str!("../../queries/webhook_delivery_add.sql");
const MISSED: &str = include_str!("../../queries/webhook_deliveries_missed.sql");

/// Notes for the webhooks that tasks name that these have ended, and records the tasks that deliver it. Part of the
/// transaction that consumes the notes of their ends.
pub(crate) async fn enqueue(
    tx: &mut SqliteConnection,
    ended: &[Ended],
    now: Timestamp,
) -> Result<Vec<TaskEvent>> {
    let mut events = Vec::new();
    for end in ended {
        let Some(found) = rows::ended(tx, DOING, end.id, false).await? else {
            continue;
        };
        let names: BTreeSet<&WebhookName> = found.task.notify.iter().collect();
        let mut webhooks = Vec::with_capacity(names.len());
        for name in names {
            webhooks.extend(rows::get(tx, DOING, name).await?);
        }
        let new = new_deliveries(&webhooks, slice::from_ref(end), slice::from_ref(&found.task), now);
        events.extend(write(tx, &new, now).await?);
    }
    Ok(events)
}

/// Records the tasks that deliver, and the notes for the list.
async fn write(tx: &mut SqliteConnection, new: &[NewDelivery], now: Timestamp) -> Result<Vec<TaskEvent>> {
    let tasks: Vec<_> = new.iter().filter_map(|new| new.submission.clone()).collect();
    if !tasks.is_empty() {
        record::insert_unkeyed(tx, &tasks, now).await?;
        record::note_queues(tx, &queues_of(&tasks), now).await?;
    }
    for new in new {
        note(tx, new, now).await?;
    }
    Ok(new.iter().filter_map(|new| new.event(now)).collect())
}

async fn note(tx: &mut SqliteConnection, new: &NewDelivery, now: Timestamp) -> Result<()> {
    sqlx::query(NOTE)
        .bind(new.webhook.as_str())
        .bind(&new.event_id)
        .bind(&new.event_kind)
        .bind(new.about.map(|(task, ..)| task.as_uuid()))
        .bind(new.about.map(|(_, state, _)| state.as_str()))
        .bind(new.about.map(|(.., at)| micros_of(at)))
        .bind(new.submission.as_ref().map(|task| task.id.as_uuid()))
        .bind(micros_of(now))
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(())
}

/// See [`forebay_store::Webhooks::replay`].
pub(super) async fn replay(
    tx: &mut SqliteConnection,
    name: &WebhookName,
    what: Replay,
    now: Timestamp,
) -> Result<Replayed> {
    let Some(webhook) = rows::get(tx, DOING, name).await? else {
        return Ok(Replayed::NoWebhook);
    };
    if webhook.disabled {
        return Ok(Replayed::Disabled);
    }
    match what {
        Replay::Trial => {
            let event = WebhookEvent::trial(&webhook, now);
            done(tx, &[NewDelivery::new(&webhook, event, now)], now, false).await
        }
        Replay::Task(id) => replay_task(tx, &webhook, id, now).await,
        Replay::Since(since, until) => replay_since(tx, &webhook, (since, until), now).await,
    }
}

async fn done(
    tx: &mut SqliteConnection,
    new: &[NewDelivery],
    now: Timestamp,
    more: bool,
) -> Result<Replayed> {
    let events = write(tx, new, now).await?;
    Ok(Replayed::Done { events, more })
}

async fn replay_task(
    tx: &mut SqliteConnection,
    webhook: &Webhook,
    id: TaskId,
    now: Timestamp,
) -> Result<Replayed> {
    let Some(found) = rows::ended(tx, DOING, id, true).await? else {
        return Ok(Replayed::NoTask);
    };
    let (task, state) = (found.task, found.state);
    if !state.is_final() {
        return Ok(Replayed::NotFinal(state));
    }
    if !is_told(webhook, &task, state) {
        return Ok(Replayed::NotItsTask);
    }
    let end = (state, found.finished_at.unwrap_or(now));
    let event = WebhookEvent::of_task(webhook, &task, end, None);
    done(tx, &[NewDelivery::new(webhook, event, now)], now, false).await
}

async fn replay_since(
    tx: &mut SqliteConnection,
    webhook: &Webhook,
    (since, until): (Timestamp, Option<Timestamp>),
    now: Timestamp,
) -> Result<Replayed> {
    let found = sqlx::query(MISSED)
        .bind(webhook.name.as_str())
        .bind(micros_of(since))
        .bind(bounded(REPLAYED_AT_ONCE + 1))
        .bind(until.map(micros_of))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let more = found.len() > REPLAYED_AT_ONCE;
    let mut new = Vec::with_capacity(found.len());
    for row in found.iter().take(REPLAYED_AT_ONCE) {
        new.extend(again(tx, webhook, rows::missed(row)?, now).await?);
    }
    done(tx, &new, now, more).await
}

/// What was given up is delivered as it was; what was never tried is made of its task.
async fn again(
    tx: &mut SqliteConnection,
    webhook: &Webhook,
    missed: Missed,
    now: Timestamp,
) -> Result<Option<NewDelivery>> {
    if let Some((payload, project)) = missed.delivery {
        let task = WebhookEvent::redelivery(&webhook.name, &missed.event_id, &project, payload, now);
        return Ok(Some(NewDelivery {
            webhook: webhook.name.clone(),
            event_id: missed.event_id,
            event_kind: missed.event_kind,
            about: Some(missed.about),
            submission: Some(task),
        }));
    }
    let (id, state, at) = missed.about;
    let found = rows::ended(tx, DOING, id, true).await?;
    Ok(found.map(|found| {
        let event = WebhookEvent::of_task(webhook, &found.task, (state, at), Some(&missed.event_id));
        NewDelivery::new(webhook, event, now)
    }))
}
