//! Webhooks: who hears of the ends of tasks. What one may say is checked in `forebay_core`; the dispatchers deliver.

use forebay_core::{TaskEvent, TaskId, Timestamp, Webhook, WebhookName, WebhookRequest, WebhookSecret};
use forebay_runtime::supervise::secret_bytes;
use forebay_store::{Delivery, Replay, Replayed};

use crate::{
    App,
    error::{ApiError, Code, FieldError, Result},
    ops::{
        once,
        page::{self, Page},
        read,
    },
};

/// A webhook that was put.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) webhook: Webhook,
    pub(crate) is_new: bool,
    /// The secret that was made for it, which is shown this once.
    pub(crate) made_secret: Option<WebhookSecret>,
}

/// What was told once more.
#[derive(Debug)]
pub(crate) struct Told {
    /// The tasks that deliver.
    pub(crate) deliveries: Vec<TaskId>,
    /// Whether there is more to be told.
    pub(crate) more: bool,
}

/// Makes a webhook, or replaces the one of that name. To put the same twice changes nothing, so it may be tried again.
pub(crate) async fn put(app: &App, name: WebhookName, request: WebhookRequest) -> Result<Put> {
    let asked = request
        .accept(name, &secret_bytes())
        .map_err(ApiError::violations)?;
    let put = read(app, || app.store.put_webhook(&asked)).await?;
    if put.is_new {
        tracing::info!(webhook = %asked.name, "a webhook was made");
    }
    let is_made = asked.has_made_secret_of(&put.webhook);
    Ok(Put {
        made_secret: is_made.then(|| asked.fresh_secret.clone()),
        webhook: put.webhook,
        is_new: put.is_new,
    })
}

/// Reads a webhook.
pub(crate) async fn get(app: &App, name: &WebhookName) -> Result<Webhook> {
    let found = read(app, || app.store.webhook(name)).await?;
    found.ok_or_else(|| unknown(name))
}

/// Lists a page of webhooks, by name.
pub(crate) async fn list(app: &App, asked: page::Asked) -> Result<Page<Webhook>> {
    let wanted = asked.check::<WebhookName>()?;
    let found = read(app, || app.store.webhooks(wanted.count(), wanted.after.as_ref())).await?;
    Ok(wanted.page(found, |last| last.name.to_string()))
}

/// Lists a page of deliveries, the latest first.
pub(crate) async fn deliveries(app: &App, name: &WebhookName, asked: page::Asked) -> Result<Page<Delivery>> {
    let wanted = asked.check::<i64>()?;
    let found = read(app, || app.store.deliveries(name, wanted.count(), wanted.after)).await?;
    if found.is_empty() {
        get(app, name).await?;
    }
    Ok(wanted.page(found, |last| last.place.to_string()))
}

/// Deletes a webhook. What is under way to it fails with its next attempt.
pub(crate) async fn delete(app: &App, name: &WebhookName) -> Result<()> {
    // Once: where only the answer was lost, a second try would find nothing.
    match once(app, app.store.delete_webhook(name)).await? {
        true => {
            tracing::info!(webhook = %name, "a webhook was deleted");
            Ok(())
        }
        false => Err(unknown(name)),
    }
}

/// Sends a trial event.
pub(crate) async fn test(app: &App, name: &WebhookName) -> Result<Told> {
    tell(app, name, Replay::Trial).await
}

/// Tells the end of a task again, or all that has not arrived since a time (and was noted before another): one of these is
/// to be given.
pub(crate) async fn replay(
    app: &App,
    name: &WebhookName,
    task: Option<&str>,
    (since, until): (Option<&str>, Option<&str>),
) -> Result<Told> {
    let wrong = |pointer, detail| ApiError::at(Code::InvalidRequest, pointer, detail);
    let time = |pointer, text: &str| {
        let time = text.parse::<Timestamp>();
        time.map_err(|_| wrong(pointer, "must be an RFC 3339 time such as 2026-03-01T12:00:00Z"))
    };
    let what = match (task, since) {
        (Some(_), None) | (None, None) if until.is_some() => {
            return Err(wrong("/until", "must be given together with since"));
        }
        (Some(task), None) => {
            let task = task.parse::<TaskId>();
            Replay::Task(task.map_err(|_| wrong("/task", "must be the id of a task"))?)
        }
        (None, Some(since)) => {
            let until = until.map(|until| time("/until", until)).transpose()?;
            Replay::Since(time("/since", since)?, until)
        }
        (None, None) => return Err(wrong("", "must have task or since")),
        (Some(_), Some(_)) => return Err(wrong("/since", "must not be given together with task")),
    };
    tell(app, name, what).await
}

async fn tell(app: &App, name: &WebhookName, what: Replay) -> Result<Told> {
    let wrong = |detail: String| {
        let pointer = "/task".to_owned();
        ApiError::fields(Code::InvalidRequest, vec![FieldError { pointer, detail }])
    };
    // Once: what was told twice is recognised, but a trial of which only the answer was lost is not worth another.
    match once(app, app.store.replay(name, what)).await? {
        Replayed::NoWebhook => Err(unknown(name)),
        Replayed::Disabled => Err(ApiError::new(
            Code::WebhookDisabled,
            format!("the webhook {name} is disabled; to put it again enables it"),
        )),
        Replayed::NoTask => Err(ApiError::of(Code::TaskNotFound)),
        Replayed::NotFinal(state) => Err(ApiError {
            state: Some(state),
            ..ApiError::new(
                Code::StateConflict,
                format!("the task is {state}: it has not ended"),
            )
        }),
        Replayed::NotItsTask => Err(wrong(
            "must name this webhook in its notify, and have ended in a state that this hears of".to_owned(),
        )),
        Replayed::Done { events, more } => Ok(announce(app, events, more)),
    }
}

fn announce(app: &App, events: Vec<TaskEvent>, more: bool) -> Told {
    let deliveries = events.iter().map(|event| event.id).collect();
    for event in events {
        app.announcer.announce(|| event);
    }
    Told { deliveries, more }
}

fn unknown(name: &WebhookName) -> ApiError {
    ApiError::new(Code::WebhookNotFound, format!("there is no webhook {name}"))
}
