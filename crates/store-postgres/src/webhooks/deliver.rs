//! What webhooks are told: deliveries are tasks of ours, and are recorded here with a note for the list.

use std::collections::{BTreeSet, HashMap};

use deadpool_postgres::{Client, GenericClient};
use forebay_core::{State, TaskEvent, TaskId, Timestamp, WEBHOOK_QUEUE, Webhook, WebhookEvent, WebhookName};
use forebay_store::{
    Ended, NewDelivery, REPLAYED_AT_ONCE, Replay, Replayed, Result, is_told, new_deliveries,
};
use uuid::Uuid;

use super::rows::{self, Found, Missed};
use crate::{
    dispatch, error,
    hot::{Params, query},
    record,
    values::Instant,
};

const DOING: &str = "tell webhooks";
/// How many tasks that ended are looked at together: their results are in memory.
const ENDED_AT_ONCE: usize = 50;

/// Notes for the webhooks that tasks name that these have ended, and records the tasks that deliver it. Part of the
/// transaction that consumes the notes of their ends.
pub(crate) async fn enqueue(client: &impl GenericClient, ended: &[Ended]) -> Result<Vec<TaskEvent>> {
    let mut events = Vec::new();
    for ended in ended.chunks(ENDED_AT_ONCE) {
        let ids: Vec<TaskId> = ended.iter().map(|ended| ended.id).collect();
        let found = rows::ended(client, DOING, &ids, false).await?;
        if found.is_empty() {
            continue;
        }
        let tasks: Vec<_> = found.into_iter().map(|found| found.task).collect();
        let names: BTreeSet<&WebhookName> = tasks.iter().flat_map(|task| &task.notify).collect();
        let names: Vec<&WebhookName> = names.into_iter().collect();
        let webhooks = rows::get(client, DOING, &names).await?;
        if webhooks.is_empty() {
            continue;
        }
        let now = dispatch::now(client).await?;
        let new = new_deliveries(&webhooks, ended, &tasks, now);
        events.extend(write(client, &new, now).await?);
    }
    Ok(events)
}

/// Records the tasks that deliver, and the notes for the list.
async fn write(client: &impl GenericClient, new: &[NewDelivery], now: Timestamp) -> Result<Vec<TaskEvent>> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let mut tasks: Vec<_> = new.iter().filter_map(|new| new.submission.as_ref()).collect();
    if !tasks.is_empty() {
        let queues = vec![WEBHOOK_QUEUE];
        query(
            client,
            DOING,
            include_str!("../../queries/queues_add.sql"),
            &[&queues],
        )
        .await?;
        tasks.sort_by_key(|task| task.id);
        record::insert_unknown(client, &tasks, record::Windows::Own).await?;
    }
    note(client, new, now).await?;
    Ok(new.iter().filter_map(|new| new.event(now)).collect())
}

async fn note(client: &impl GenericClient, new: &[NewDelivery], now: Timestamp) -> Result<()> {
    let webhook: Vec<&str> = new.iter().map(|new| new.webhook.as_str()).collect();
    let event_id: Vec<&str> = new.iter().map(|new| new.event_id.as_str()).collect();
    let event_kind: Vec<&str> = new.iter().map(|new| new.event_kind.as_str()).collect();
    let about = || new.iter().map(|new| new.about);
    let task: Vec<Option<Uuid>> = about()
        .map(|about| about.map(|(task, ..)| task.as_uuid()))
        .collect();
    let state: Vec<Option<&str>> = about()
        .map(|about| about.map(|(_, state, _)| state.as_str()))
        .collect();
    let ended_at: Vec<Option<Instant>> = about().map(|about| about.map(|(.., at)| Instant(at))).collect();
    let delivered_by: Vec<Option<Uuid>> = new
        .iter()
        .map(|new| new.submission.as_ref().map(|task| task.id.as_uuid()))
        .collect();
    let params: Params<'_> = &[
        &webhook,
        &event_id,
        &event_kind,
        &task,
        &state,
        &ended_at,
        &delivered_by,
        &Instant(now),
    ];
    let sql = include_str!("../../queries/webhook_deliveries_add.sql");
    query(client, DOING, sql, params).await.map(|_| ())
}

/// See [`forebay_store::Webhooks::replay`].
pub(super) async fn replay(client: &mut Client, name: &WebhookName, what: Replay) -> Result<Replayed> {
    const DOING: &str = "replay deliveries";
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let replayed = replay_in(&transaction, name, what).await?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(replayed)
}

async fn replay_in(client: &impl GenericClient, name: &WebhookName, what: Replay) -> Result<Replayed> {
    // Held, so that two replays at once do not both find the same.
    let held = include_str!("../../queries/webhooks_hold.sql");
    let held = query(client, DOING, held, &[&name.as_str()]).await?;
    let Some(webhook) = held.first().map(rows::webhook).transpose()? else {
        return Ok(Replayed::NoWebhook);
    };
    if webhook.disabled {
        return Ok(Replayed::Disabled);
    }
    let now = dispatch::now(client).await?;
    match what {
        Replay::Trial => {
            let event = WebhookEvent::trial(&webhook, now);
            done(client, &[NewDelivery::new(&webhook, event, now)], now, false).await
        }
        Replay::Task(id) => replay_task(client, &webhook, id, now).await,
        Replay::Since(since, until) => replay_since(client, &webhook, (since, until), now).await,
    }
}

async fn done(
    client: &impl GenericClient,
    new: &[NewDelivery],
    now: Timestamp,
    more: bool,
) -> Result<Replayed> {
    let events = write(client, new, now).await?;
    Ok(Replayed::Done { events, more })
}

async fn replay_task(
    client: &impl GenericClient,
    webhook: &Webhook,
    id: TaskId,
    now: Timestamp,
) -> Result<Replayed> {
    let found = rows::ended(client, DOING, &[id], true).await?;
    let Some(Found {
        task,
        state,
        finished_at,
    }) = found.into_iter().next()
    else {
        return Ok(Replayed::NoTask);
    };
    if !state.is_final() {
        return Ok(Replayed::NotFinal(state));
    }
    if !is_told(webhook, &task, state) {
        return Ok(Replayed::NotItsTask);
    }
    let end = (state, finished_at.unwrap_or(now));
    let event = WebhookEvent::of_task(webhook, &task, end, None);
    done(client, &[NewDelivery::new(webhook, event, now)], now, false).await
}

async fn replay_since(
    client: &impl GenericClient,
    webhook: &Webhook,
    (since, until): (Timestamp, Option<Timestamp>),
    now: Timestamp,
) -> Result<Replayed> {
    let limit = i64::try_from(REPLAYED_AT_ONCE + 1).unwrap_or(i64::MAX);
    let sql = include_str!("../../queries/webhook_deliveries_missed.sql");
    let params: Params<'_> = &[
        &webhook.name.as_str(),
        &Instant(since),
        &limit,
        &until.map(Instant),
    ];
    let found = query(client, DOING, sql, params).await?;
    let more = found.len() > REPLAYED_AT_ONCE;
    let found = found.iter().take(REPLAYED_AT_ONCE).map(rows::missed);
    let missed: Vec<Missed> = found.collect::<Result<_>>()?;
    let new = again(client, webhook, missed, now).await?;
    done(client, &new, now, more).await
}

/// What was given up is delivered as it was; what was never tried is made of its task.
async fn again(
    client: &impl GenericClient,
    webhook: &Webhook,
    missed: Vec<Missed>,
    now: Timestamp,
) -> Result<Vec<NewDelivery>> {
    let untried = missed.iter().filter(|missed| missed.delivery.is_none());
    let untried: Vec<TaskId> = untried.map(|missed| missed.about.0).collect();
    let mut tasks = HashMap::new();
    for ids in untried.chunks(ENDED_AT_ONCE) {
        let found = rows::ended(client, DOING, ids, true).await?;
        tasks.extend(found.into_iter().map(|found| (found.task.id, found.task)));
    }
    let new = missed.into_iter().filter_map(|missed| {
        let (id, state, at): (TaskId, State, Timestamp) = missed.about;
        if let Some((payload, project)) = missed.delivery {
            let task = WebhookEvent::redelivery(&webhook.name, &missed.event_id, &project, payload, now);
            return Some(NewDelivery {
                webhook: webhook.name.clone(),
                event_id: missed.event_id,
                event_kind: missed.event_kind,
                about: Some(missed.about),
                submission: Some(task),
            });
        }
        let event = WebhookEvent::of_task(webhook, tasks.get(&id)?, (state, at), Some(&missed.event_id));
        Some(NewDelivery::new(webhook, event, now))
    });
    Ok(new.collect())
}
