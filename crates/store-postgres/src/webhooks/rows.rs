//! Between rows and what they say of webhooks.

use deadpool_postgres::GenericClient;
use forebay_core::{
    AttemptError, EndedTask, Json, State, TaskId, Timestamp, TraceParent, Webhook, WebhookName, WebhookSecret,
};
use forebay_store::{Delivery, DeliveryStanding, Result};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    error,
    hot::{column, query},
    values::{Instant, count, terms, word},
};

fn time(row: &Row, name: &str) -> Result<Option<Timestamp>> {
    Ok(column::<Option<Instant>>(row, name)?.map(|at| at.0))
}

fn task_id(row: &Row, name: &str) -> Result<Option<TaskId>> {
    Ok(column::<Option<Uuid>>(row, name)?.map(TaskId::from))
}

/// Reads the webhooks of these names.
pub(super) async fn get(
    client: &impl GenericClient,
    doing: &'static str,
    names: &[&WebhookName],
) -> Result<Vec<Webhook>> {
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let sql = include_str!("../../queries/webhooks_get.sql");
    let found = query(client, doing, sql, &[&names]).await?;
    found.iter().map(webhook).collect()
}

pub(super) fn webhook(row: &Row) -> Result<Webhook> {
    let previous = column::<Option<&str>>(row, "previous_secret")?;
    let previous = previous.map(word::<WebhookSecret>).transpose();
    let states: Vec<&str> = column(row, "states")?;
    Ok(Webhook {
        name: word(column(row, "name")?)?,
        url: column(row, "url")?,
        // What it is stays out of messages.
        secret: secret(column(row, "secret")?)?,
        previous_secret: previous
            .map_err(|_| unreadable_secret())?
            .zip(time(row, "previous_until")?),
        states: states.into_iter().map(word).collect::<Result<_>>()?,
        include_result: column(row, "include_result")?,
        disabled: column(row, "disabled")?,
        disabled_reason: column(row, "disabled_reason")?,
        failing_since: time(row, "failing_since")?,
        created_at: column::<Instant>(row, "created_at")?.0,
        updated_at: column::<Instant>(row, "updated_at")?.0,
    })
}

fn secret(text: &str) -> Result<WebhookSecret> {
    text.parse().map_err(|_| unreadable_secret())
}

fn unreadable_secret() -> forebay_store::StoreError {
    error::corrupt("a webhook's secret is none")
}

pub(super) fn delivery(row: &Row) -> Result<Delivery> {
    let state = column::<Option<&str>>(row, "state")?;
    Ok(Delivery {
        place: column(row, "place")?,
        event_id: column(row, "event_id")?,
        event_kind: column(row, "event_kind")?,
        task: task_id(row, "task_id")?,
        created_at: column::<Instant>(row, "created_at")?.0,
        delivered_by: task_id(row, "delivered_by")?,
        standing: state.map(|state| standing(row, state)).transpose()?,
    })
}

fn standing(row: &Row, state: &str) -> Result<DeliveryStanding> {
    let last_error = column::<Option<&str>>(row, "error")?;
    Ok(DeliveryStanding {
        state: word(state)?,
        attempt: count(column(row, "attempt")?)?,
        run_at: time(row, "run_at")?,
        finished_at: time(row, "finished_at")?,
        error: last_error
            .map(serde_json::from_str)
            .transpose()
            .map_err(error::corrupt)?,
    })
}

/// A task that may have ended, as events tell of it.
pub(super) struct Found {
    pub(super) task: EndedTask,
    pub(super) state: State,
    pub(super) finished_at: Option<Timestamp>,
}

/// Reads tasks, `all` of these or those that name a webhook.
pub(super) async fn ended(
    client: &impl GenericClient,
    doing: &'static str,
    ids: &[TaskId],
    all: bool,
) -> Result<Vec<Found>> {
    let ids: Vec<Uuid> = ids.iter().copied().map(TaskId::as_uuid).collect();
    let sql = include_str!("../../queries/webhooks_ended.sql");
    let rows = query(client, doing, sql, &[&ids, &all]).await?;
    rows.iter().map(found).collect()
}

fn found(row: &Row) -> Result<Found> {
    let terms = terms(column(row, "terms")?)?.unwrap_or_default();
    let result = column::<Option<String>>(row, "result")?;
    let result = result.map(|text| Json::from_trusted(text.into_bytes().into()));
    let task = EndedTask {
        id: column::<Uuid>(row, "id")?.into(),
        project: word(column(row, "project")?)?,
        kind: word(column(row, "kind")?)?,
        queue: word(column(row, "queue")?)?,
        tags: column(row, "tags")?,
        attempt: count(column(row, "attempt")?)?,
        created_at: column::<Instant>(row, "created_at")?.0,
        started_at: time(row, "started_at")?,
        errors: serde_json::from_str::<Vec<AttemptError>>(column(row, "errors")?).map_err(error::corrupt)?,
        result: result.transpose().map_err(error::corrupt)?,
        traceparent: column::<Option<&str>>(row, "traceparent")?.and_then(TraceParent::parse),
        notify: terms.notify,
        batch: terms.batch,
    };
    Ok(Found {
        task,
        state: word(column(row, "state")?)?,
        finished_at: time(row, "finished_at")?,
    })
}

/// An event that has not arrived.
pub(super) struct Missed {
    pub(super) event_id: String,
    pub(super) event_kind: String,
    pub(super) about: (TaskId, State, Timestamp),
    /// The payload and the project of the task that gave up; `None` where there was none.
    pub(super) delivery: Option<(Json, forebay_core::Project)>,
}

pub(super) fn missed(row: &Row) -> Result<Missed> {
    let payload = column::<Option<String>>(row, "payload")?;
    let payload = payload.map(|text| Json::from_trusted(text.into_bytes().into()));
    let project = column::<Option<&str>>(row, "project")?.map(word).transpose()?;
    Ok(Missed {
        event_id: column(row, "event_id")?,
        event_kind: column(row, "event_kind")?,
        about: (
            column::<Uuid>(row, "task_id")?.into(),
            word(column(row, "task_state")?)?,
            column::<Instant>(row, "ended_at")?.0,
        ),
        delivery: payload.transpose().map_err(error::corrupt)?.zip(project),
    })
}
