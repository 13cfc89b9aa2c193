//! Between rows and what they say of webhooks.

use forebay_core::{EndedTask, Json, Project, State, TaskId, Timestamp, Webhook, WebhookName, WebhookSecret};
use forebay_store::{Delivery, DeliveryStanding, Result, StoreError};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use crate::{error::failed, row::Fields};

const ONE: &str = include_str!("../../queries/webhook.sql");
const ENDED: &str = include_str!("../../queries/webhook_ended.sql");

fn task_id(fields: &Fields<'_>, column: &str) -> Result<Option<TaskId>> {
    Ok(fields.get::<Option<Uuid>>(column)?.map(TaskId::from))
}

pub(super) async fn get(
    connection: &mut SqliteConnection,
    doing: &'static str,
    name: &WebhookName,
) -> Result<Option<Webhook>> {
    let row = sqlx::query(ONE)
        .bind(name.as_str())
        .fetch_optional(connection)
        .await
        .map_err(failed(doing))?;
    row.as_ref().map(webhook).transpose()
}

pub(super) fn webhook(row: &SqliteRow) -> Result<Webhook> {
    let fields = Fields(row);
    let previous = fields.get::<Option<&str>>("previous_secret")?;
    let states: Vec<String> = fields.list("states")?;
    let states = states.iter().map(|state| state.parse::<State>());
    Ok(Webhook {
        name: fields.text("name")?,
        url: fields.get("url")?,
        secret: secret(fields.get("secret")?)?,
        previous_secret: previous
            .map(secret)
            .transpose()?
            .zip(fields.maybe_time("previous_until")?),
        states: states
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| StoreError::Corrupt(format!("in column states: {e}")))?,
        include_result: fields.get("include_result")?,
        disabled: fields.get("disabled")?,
        disabled_reason: fields.get("disabled_reason")?,
        failing_since: fields.maybe_time("failing_since")?,
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
    })
}

/// What it is stays out of messages.
fn secret(text: &str) -> Result<WebhookSecret> {
    text.parse()
        .map_err(|_| StoreError::Corrupt("a webhook's secret is none".to_owned()))
}

pub(super) fn delivery(row: &SqliteRow) -> Result<Delivery> {
    let fields = Fields(row);
    let has_standing = fields.get::<Option<&str>>("state")?.is_some();
    Ok(Delivery {
        place: fields.get("place")?,
        event_id: fields.get("event_id")?,
        event_kind: fields.get("event_kind")?,
        task: task_id(&fields, "task_id")?,
        created_at: fields.time("created_at")?,
        delivered_by: task_id(&fields, "delivered_by")?,
        standing: has_standing.then(|| standing(&fields)).transpose()?,
    })
}

fn standing(fields: &Fields<'_>) -> Result<DeliveryStanding> {
    let has_error = fields.get::<Option<&str>>("error")?.is_some();
    Ok(DeliveryStanding {
        state: fields.text("state")?,
        attempt: fields.get("attempt")?,
        run_at: fields.maybe_time("run_at")?,
        finished_at: fields.maybe_time("finished_at")?,
        error: has_error.then(|| fields.list("error")).transpose()?,
    })
}

/// A task that may have ended, as events tell of it.
pub(super) struct Found {
    pub(super) task: EndedTask,
    pub(super) state: State,
    pub(super) finished_at: Option<Timestamp>,
}

/// Reads a task, `any` or one that names a webhook.
pub(super) async fn ended(
    connection: &mut SqliteConnection,
    doing: &'static str,
    id: TaskId,
    any: bool,
) -> Result<Option<Found>> {
    let row = sqlx::query(ENDED)
        .bind(id.as_uuid())
        .bind(any)
        .fetch_optional(connection)
        .await
        .map_err(failed(doing))?;
    row.as_ref().map(found).transpose()
}

fn found(row: &SqliteRow) -> Result<Found> {
    let fields = Fields(row);
    let terms = fields.terms()?.unwrap_or_default();
    let task = EndedTask {
        id: fields.task_id()?,
        project: fields.text("project")?,
        kind: fields.text("kind")?,
        queue: fields.text("queue")?,
        tags: fields.list("tags")?,
        attempt: fields.get("attempt")?,
        created_at: fields.time("created_at")?,
        started_at: fields.maybe_time("started_at")?,
        errors: fields.list("errors")?,
        result: fields.json("result")?,
        traceparent: fields.traceparent()?,
        notify: terms.notify,
        batch: terms.batch,
    };
    Ok(Found {
        task,
        state: fields.text("state")?,
        finished_at: fields.maybe_time("finished_at")?,
    })
}

/// An event that has not arrived.
pub(super) struct Missed {
    pub(super) event_id: String,
    pub(super) event_kind: String,
    pub(super) about: (TaskId, State, Timestamp),
    /// The payload and the project of the task that gave up; `None` where there was none.
    pub(super) delivery: Option<(Json, Project)>,
}

pub(super) fn missed(row: &SqliteRow) -> Result<Missed> {
    let fields = Fields(row);
    let payload = fields.json("payload")?;
    Ok(Missed {
        event_id: fields.get("event_id")?,
        event_kind: fields.get("event_kind")?,
        about: (
            fields.get::<Uuid>("task_id")?.into(),
            fields.text("task_state")?,
            fields.time("ended_at")?,
        ),
        delivery: payload
            .map(|payload| Ok((payload, fields.text("project")?)))
            .transpose()?,
    })
}
