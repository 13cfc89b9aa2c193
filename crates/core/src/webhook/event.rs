//! What a webhook is told: a CloudEvent in its structured JSON form, and the task of ours that delivers it.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Webhook;
use crate::{
    AttemptError, BatchId, Json, Kind, Lane, Priority, Project, QueueName, State, Submission, TaskId,
    TaskRetry, Terms, Timestamp, TraceParent, WebhookName,
};

/// The kind of the tasks that deliver events. No user submits one.
pub const WEBHOOK_KIND: &str = "forebay.webhook";
/// The queue of these tasks. No user submits to it.
pub const WEBHOOK_QUEUE: &str = "forebay-webhooks";
/// How long an endpoint may take to answer.
pub const DELIVERY_ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long one attempt to deliver may take: the answer, waiting for a turn, and asking the store before and after. It is
/// over after the answer's time, so that who does not answer is told from what else may take long.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(25);
/// How long to wait after each attempt in vain: the schedule that Standard Webhooks proposes, some three days in all.
pub const DELIVERY_DELAYS: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3_600),
    Duration::from_secs(5 * 3_600),
    Duration::from_secs(10 * 3_600),
    Duration::from_secs(14 * 3_600),
    Duration::from_secs(20 * 3_600),
    Duration::from_secs(24 * 3_600),
];
/// How many attempts that makes.
pub const DELIVERY_ATTEMPTS_MAX: u32 = 10;

/// The part of a task that has ended of which its event tells.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedTask {
    /// See [`crate::Task::id`].
    pub id: TaskId,
    /// See [`crate::Task::project`].
    pub project: Project,
    /// See [`crate::Task::kind`].
    pub kind: Kind,
    /// See [`crate::Task::queue`].
    pub queue: QueueName,
    /// See [`crate::Task::tags`].
    pub tags: Vec<String>,
    /// See [`crate::Task::attempt`].
    pub attempt: u32,
    /// See [`crate::Task::created_at`].
    pub created_at: Timestamp,
    /// See [`crate::Task::started_at`].
    pub started_at: Option<Timestamp>,
    /// See [`crate::Task::errors`].
    pub errors: Vec<AttemptError>,
    /// See [`crate::Task::result`]; needed only for webhooks that include it.
    pub result: Option<Json>,
    /// See [`crate::Task::traceparent`].
    pub traceparent: Option<TraceParent>,
    /// See [`crate::Terms::notify`].
    pub notify: Vec<WebhookName>,
    /// See [`crate::Terms::batch`].
    pub batch: Option<BatchId>,
}

/// Something that a webhook is told.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookEvent {
    /// Tells it from all others, and a repetition of it from something new. That of a task's end is made of the task, the
    /// state and the time of the end: a task that is retried may end in one state several times, at the same count of
    /// starts.
    pub id: String,
    /// Its sort, such as `dev.forebay.task.succeeded`.
    pub kind: String,
    /// The task that it is about, the state that this ended in, and when; `None` for a trial.
    pub about: Option<(TaskId, State, Timestamp)>,
    project: Project,
    traceparent: Option<TraceParent>,
    /// The CloudEvent.
    body: Json,
}

#[derive(Serialize)]
struct CloudEvent<'a, T> {
    specversion: &'a str,
    id: &'a str,
    source: String,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    time: Timestamp,
    datacontenttype: &'a str,
    data: T,
}

#[derive(Serialize)]
struct TaskData<'a> {
    id: TaskId,
    kind: &'a str,
    queue: &'a str,
    project: &'a str,
    state: &'a str,
    attempt: u32,
    tags: &'a [String],
    batch: Option<BatchId>,
    error: Option<&'a AttemptError>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Option<&'a Json>>,
}

#[derive(Serialize)]
struct TrialData<'a> {
    webhook: &'a str,
}

#[derive(Serialize)]
struct Payload<'a> {
    webhook: &'a str,
    event: &'a Json,
}

impl WebhookEvent {
    /// That `task` ended in `state`, as `webhook` is told it. `id` is that of the event where it was told before.
    #[must_use]
    pub fn of_task(
        webhook: &Webhook,
        task: &EndedTask,
        (state, at): (State, Timestamp),
        id: Option<&str>,
    ) -> Self {
        let made = || format!("{}_{state}_{}", task.id, at.as_microsecond());
        let id = id.map_or_else(made, str::to_owned);
        let kind = format!("dev.forebay.task.{state}");
        let data = TaskData {
            id: task.id,
            kind: task.kind.as_str(),
            queue: task.queue.as_str(),
            project: task.project.as_str(),
            state: state.as_str(),
            attempt: task.attempt,
            tags: &task.tags,
            batch: task.batch,
            error: task.errors.last().filter(|_| state != State::Succeeded),
            created_at: task.created_at,
            started_at: task.started_at,
            finished_at: at,
            result: webhook.include_result.then_some(task.result.as_ref()),
        };
        let body = cloud_event(&id, &kind, &task.project, Some(task.id), at, data);
        Self {
            id,
            kind,
            about: Some((task.id, state, at)),
            project: task.project.clone(),
            traceparent: task.traceparent.clone(),
            body,
        }
    }

    /// That nothing happened: to try an endpoint out.
    #[must_use]
    pub fn trial(webhook: &Webhook, now: Timestamp) -> Self {
        let id = format!("test_{}_{}", webhook.name, now.as_microsecond()).replace('.', "-");
        let kind = "dev.forebay.webhook.test".to_owned();
        let project = Project::default();
        let name = webhook.name.as_str();
        let body = cloud_event(&id, &kind, &project, None, now, TrialData { webhook: name });
        Self {
            id,
            kind,
            about: None,
            project,
            traceparent: None,
            body,
        }
    }

    /// The task that delivers it to `webhook`, due at once. A trial has one attempt.
    #[must_use]
    pub fn delivery(&self, webhook: &WebhookName, now: Timestamp) -> Submission {
        let payload = Payload {
            webhook: webhook.as_str(),
            event: &self.body,
        };
        let payload = Json::of(&payload).expect("names and JSON have a JSON form");
        let task = delivery(
            webhook,
            &self.id,
            &self.project,
            self.traceparent.clone(),
            payload,
            now,
        );
        match self.about {
            Some(_) => task,
            None => Submission {
                max_attempts: Some(1),
                ..task
            },
        }
    }

    /// The task that delivers once more what an earlier one did, which had this payload.
    #[must_use]
    pub fn redelivery(
        webhook: &WebhookName,
        event_id: &str,
        project: &Project,
        payload: Json,
        now: Timestamp,
    ) -> Submission {
        delivery(webhook, event_id, project, None, payload, now)
    }
}

fn cloud_event<T: Serialize>(
    id: &str,
    kind: &str,
    project: &Project,
    subject: Option<TaskId>,
    time: Timestamp,
    data: T,
) -> Json {
    let event = CloudEvent {
        specversion: "1.0",
        id,
        source: format!("/forebay/projects/{project}"),
        kind,
        subject: subject.map(|task| task.to_string()),
        time,
        datacontenttype: "application/json",
        data,
    };
    Json::of(&event).expect("what has names, numbers, times and JSON has a JSON form")
}

fn delivery(
    webhook: &WebhookName,
    event_id: &str,
    project: &Project,
    traceparent: Option<TraceParent>,
    payload: Json,
    now: Timestamp,
) -> Submission {
    let queue = WEBHOOK_QUEUE.parse::<QueueName>().expect("it is a valid name");
    let retry = TaskRetry {
        delays: DELIVERY_DELAYS.to_vec(),
        ..TaskRetry::default()
    };
    let terms = Terms {
        retry: Some(retry),
        ..Terms::default()
    };
    Submission {
        id: delivery_id(webhook, event_id, now),
        project: project.clone(),
        kind: WEBHOOK_KIND.parse::<Kind>().expect("it is a valid name"),
        lane: Lane::new(queue, Priority::default()),
        payload,
        // None: who does something to all tasks of a label means tasks of theirs.
        tags: Vec::new(),
        run_at: Some(now),
        max_attempts: Some(DELIVERY_ATTEMPTS_MAX),
        timeout: Some(DELIVERY_TIMEOUT),
        created_at: now,
        fingerprint: None,
        traceparent,
        terms: Some(Box::new(terms)),
    }
}

/// One for each event, webhook and time.
fn delivery_id(webhook: &WebhookName, event_id: &str, now: Timestamp) -> TaskId {
    let mut hasher = Sha256::new();
    hasher.update(now.as_microsecond().to_be_bytes());
    hasher.update((webhook.as_str().len() as u64).to_be_bytes());
    hasher.update(webhook.as_str());
    hasher.update(event_id);
    let mut unique = [0; 10];
    unique.copy_from_slice(&hasher.finalize()[..10]);
    TaskId::new(now, &unique)
}
