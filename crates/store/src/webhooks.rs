use std::time::Duration;

use async_trait::async_trait;
use forebay_core::{
    AttemptError, EndedTask, NewWebhook, State, Submission, TaskEvent, TaskId, Timestamp, Webhook,
    WebhookEvent, WebhookName,
};

use crate::Result;

/// How many events are replayed by one call at most.
pub const REPLAYED_AT_ONCE: usize = 100;

/// A watched task that has ended: what the outbox says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which task.
    pub id: TaskId,
    /// The state that it ended in, whatever has become of it since.
    pub state: State,
    /// When.
    pub at: Timestamp,
}

/// A webhook that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutWebhook {
    /// As it is kept.
    pub webhook: Webhook,
    /// Whether there was none of that name.
    pub is_new: bool,
}

/// An event that a webhook was told, is being told, or would have been told had it not been disabled.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Where it stands in the list.
    pub place: i64,
    /// See [`WebhookEvent::id`].
    pub event_id: String,
    /// See [`WebhookEvent::kind`].
    pub event_kind: String,
    /// The task that the event is about; `None` for a trial.
    pub task: Option<TaskId>,
    /// When it was noted.
    pub created_at: Timestamp,
    /// The task that delivers it; `None` where the webhook was disabled.
    pub delivered_by: Option<TaskId>,
    /// How that stands; `None` where there is none, or it is past its retention.
    pub standing: Option<DeliveryStanding>,
}

/// How the task stands that delivers an event.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryStanding {
    /// Its state; `succeeded` is delivered.
    pub state: State,
    /// How often it was tried.
    pub attempt: u32,
    /// When it is tried again.
    pub run_at: Option<Timestamp>,
    /// When it was delivered, or given up.
    pub finished_at: Option<Timestamp>,
    /// What was wrong with the latest attempt in vain.
    pub error: Option<AttemptError>,
}

/// What a webhook is to be told without anything having happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// A trial.
    Trial,
    /// The end of this task, whether it was told before or not.
    Task(TaskId),
    /// All that has not arrived since the one time, and was noted before the other, up to [`REPLAYED_AT_ONCE`]: what came
    /// while the webhook was disabled, and what was given up. What is under way is left alone. With the second time,
    /// what is told again and fails again is not found once more.
    Since(Timestamp, Option<Timestamp>),
}

/// What became of a [`Replay`].
#[derive(Debug, Clone, PartialEq)]
pub enum Replayed {
    /// There is no such webhook.
    NoWebhook,
    /// The webhook is disabled.
    Disabled,
    /// There is no such task.
    NoTask,
    /// The task is in this state, which is not final.
    NotFinal(State),
    /// The task does not name this webhook, or the webhook does not hear of such an end.
    NotItsTask,
    /// Deliveries were made.
    Done {
        /// The tasks that deliver. All of them are scheduled, and due.
        events: Vec<TaskEvent>,
        /// Whether there is more to be replayed.
        more: bool,
    },
}

/// An event for one webhook, as a store is to write it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDelivery {
    /// The webhook.
    pub webhook: WebhookName,
    /// See [`Delivery::event_id`].
    pub event_id: String,
    /// See [`Delivery::event_kind`].
    pub event_kind: String,
    /// See [`WebhookEvent::about`].
    pub about: Option<(TaskId, State, Timestamp)>,
    /// The task that delivers it, to be recorded as any that has a `run_at`; `None` where the webhook is disabled.
    pub submission: Option<Submission>,
}

impl NewDelivery {
    /// What is written of `event` for `webhook`, if that is enabled or not.
    #[must_use]
    pub fn new(webhook: &Webhook, event: WebhookEvent, now: Timestamp) -> Self {
        let submission = (!webhook.disabled).then(|| event.delivery(&webhook.name, now));
        Self {
            webhook: webhook.name.clone(),
            event_id: event.id,
            event_kind: event.kind,
            about: event.about,
            submission,
        }
    }

    /// What says that the delivery is scheduled.
    #[must_use]
    pub fn event(&self, now: Timestamp) -> Option<TaskEvent> {
        self.submission.as_ref().map(|task| TaskEvent {
            id: task.id,
            kind: task.kind.clone(),
            queue: task.lane.queue.clone(),
            state: State::Scheduled,
            attempt: 0,
            at: now,
        })
    }
}

/// What is to be written for tasks that have ended: one event for each of the webhooks that a task names and that hears
/// of such an end. All stores ask here, so that they do the same.
#[must_use]
pub fn new_deliveries(
    webhooks: &[Webhook],
    ended: &[Ended],
    tasks: &[EndedTask],
    now: Timestamp,
) -> Vec<NewDelivery> {
    let mut deliveries = Vec::new();
    for end in ended {
        let Some(task) = tasks.iter().find(|task| task.id == end.id) else {
            continue;
        };
        let named = webhooks
            .iter()
            .filter(|webhook| is_told(webhook, task, end.state));
        deliveries.extend(named.map(|webhook| {
            let event = WebhookEvent::of_task(webhook, task, (end.state, end.at), None);
            NewDelivery::new(webhook, event, now)
        }));
    }
    deliveries
}

/// Whether `webhook` hears that `task` ended so.
#[must_use]
pub fn is_told(webhook: &Webhook, task: &EndedTask, state: State) -> bool {
    task.notify.contains(&webhook.name) && webhook.hears_of(state)
}

/// Webhooks, and what they are told. Events of tasks that end are written by the store itself, in the transaction that
/// consumes the note of their end; so each is written once.
#[async_trait]
pub trait Webhooks: Send + Sync + 'static {
    /// Makes a webhook, or replaces the one of its name as [`NewWebhook::replacing`] says.
    async fn put_webhook(&self, webhook: &NewWebhook) -> Result<PutWebhook>;

    /// Reads a webhook.
    async fn webhook(&self, name: &WebhookName) -> Result<Option<Webhook>>;

    /// Lists up to `page_size` webhooks by name, those that come after `after`.
    async fn webhooks(&self, page_size: usize, after: Option<&WebhookName>) -> Result<Vec<Webhook>>;

    /// Deletes a webhook and the list of its deliveries; says whether there was one. Deliveries that are under way fail
    /// with their next attempt.
    async fn delete_webhook(&self, name: &WebhookName) -> Result<bool>;

    /// Disables a webhook whose endpoint asks for it, unless it was given another `url` meanwhile; says whether it did.
    async fn disable_webhook(&self, name: &WebhookName, url: &str, reason: &str) -> Result<bool>;

    /// Notes that a webhook's endpoint has taken nothing since now, unless that is noted; and disables the webhook for
    /// `reason` where that was noted at least `patience` ago. Nothing changes where it was given another `url` meanwhile,
    /// or is disabled. Says whether this has disabled it.
    async fn note_failing(
        &self,
        name: &WebhookName,
        url: &str,
        patience: Duration,
        reason: &str,
    ) -> Result<bool>;

    /// Notes that a webhook's endpoint takes what it is told, unless it was given another `url` meanwhile.
    async fn note_working(&self, name: &WebhookName, url: &str) -> Result<()>;

    /// Lists up to `page_size` deliveries to a webhook, the latest first, those that stand before `before`.
    async fn deliveries(
        &self,
        name: &WebhookName,
        page_size: usize,
        before: Option<i64>,
    ) -> Result<Vec<Delivery>>;

    /// Has a webhook told something once more, by new deliveries with the ids of the events as they were.
    async fn replay(&self, name: &WebhookName, what: Replay) -> Result<Replayed>;
}
