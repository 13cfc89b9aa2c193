//! Recording: submissions become rows, each once.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use async_trait::async_trait;
use deadpool_postgres::Client;
use forebay_core::{Fingerprint, QueueName, Submission, TaskId, sanitize_text};
use forebay_store::{Record, Recorded, Reject, Result, queues_of};
use uuid::Uuid;

use crate::{
    PostgresStore,
    hot::{bounded, column, query},
    values::{Instant, array_literal, duration_us, int},
};

const DOING: &str = "record tasks";

/// How long after its acceptance a task is recorded late. That is to be well within the distance that the floor of the
/// walk for lost messages keeps from the present.
pub(crate) const LATE: Duration = Duration::from_secs(30);

/// How many queue names are remembered as known; past that they are inserted again and again, which is harmless.
const SEEN_QUEUES_MAX: usize = 10_000;

/// Submissions, sorted by id, as the arrays that a statement takes.
#[derive(Default)]
pub(crate) struct Columns<'a> {
    pub(crate) id: Vec<Uuid>,
    pub(crate) previous: Vec<Option<Uuid>>,
    pub(crate) project: Vec<&'a str>,
    pub(crate) kind: Vec<&'a str>,
    pub(crate) queue: Vec<&'a str>,
    pub(crate) priority: Vec<&'a str>,
    pub(crate) payload: Vec<&'a str>,
    pub(crate) tags: Vec<String>,
    pub(crate) run_at: Vec<Option<Instant>>,
    pub(crate) max_attempts: Vec<Option<i32>>,
    pub(crate) timeout_us: Vec<Option<i64>>,
    pub(crate) created_at: Vec<Instant>,
    pub(crate) fingerprint: Vec<Option<Uuid>>,
    pub(crate) traceparent: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    pub(crate) fn push(&mut self, task: &'a Submission) {
        self.id.push(task.id.as_uuid());
        self.previous.push(task.id.previous_window().map(TaskId::as_uuid));
        self.project.push(task.project.as_str());
        self.kind.push(task.kind.as_str());
        self.queue.push(task.lane.queue.as_str());
        self.priority.push(task.lane.priority.as_str());
        self.payload.push(task.payload.as_str());
        self.tags.push(array_literal(&task.tags));
        self.run_at.push(task.run_at.map(Instant));
        self.max_attempts.push(task.max_attempts.map(int));
        self.timeout_us.push(task.timeout.map(duration_us));
        self.created_at.push(Instant(task.created_at));
        self.fingerprint.push(task.fingerprint.map(uuid_of));
        self.traceparent
            .push(task.traceparent.as_ref().map(|trace| trace.as_str()));
    }
}

fn uuid_of(fingerprint: Fingerprint) -> Uuid {
    Uuid::from_bytes(fingerprint.0)
}

#[async_trait]
impl Record for PostgresStore {
    async fn record(&self, batch: &[Submission]) -> Result<Vec<Recorded>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let unseen = self.unseen_queues(batch);
        let mut connection = self.hot.get(DOING).await?;
        let work = async {
            if !unseen.is_empty() {
                let names: Vec<&str> = unseen.iter().map(QueueName::as_str).collect();
                query(
                    connection.client(),
                    DOING,
                    include_str!("../queries/queues_add.sql"),
                    &[&names],
                )
                .await?;
            }
            record(connection.client(), batch).await
        };
        let outcome = bounded(DOING, work).await;
        if outcome.is_ok() {
            self.saw_queues(unseen);
        }
        connection.settle(outcome)
    }

    async fn set_aside(&self, rejects: &[Reject]) -> Result<()> {
        const DOING: &str = "set messages aside";
        let subjects: Vec<String> = rejects.iter().map(|r| sanitize_text(&r.subject)).collect();
        let reasons: Vec<String> = rejects.iter().map(|r| sanitize_text(&r.reason)).collect();
        let bodies: Vec<&[u8]> = rejects.iter().map(|r| &r.body[..]).collect();
        let mut connection = self.hot.get(DOING).await?;
        let sql = include_str!("../queries/rejects_add.sql");
        let outcome = bounded(
            DOING,
            query(connection.client(), DOING, sql, &[&subjects, &reasons, &bodies]),
        )
        .await;
        connection.settle(outcome.map(|_| ()))
    }
}

impl PostgresStore {
    fn unseen_queues(&self, batch: &[Submission]) -> Vec<QueueName> {
        let seen = self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut queues = queues_of(batch);
        queues.retain(|queue| !seen.contains(queue));
        queues
    }

    fn saw_queues(&self, queues: Vec<QueueName>) {
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.len() + queues.len() <= SEEN_QUEUES_MAX {
            seen.extend(queues);
        }
    }
}

/// Inserts a batch and says of each what became of it.
pub(crate) async fn record(client: &Client, batch: &[Submission]) -> Result<Vec<Recorded>> {
    let mut new = HashSet::new();
    for part in apart_from_their_windows(batch, |task| task.id) {
        new.extend(insert(client, part).await?);
    }
    // The first of an id is the one that was inserted.
    let is_new: Vec<bool> = batch.iter().map(|task| new.remove(&task.id)).collect();
    let known_keys: Vec<&Submission> = batch
        .iter()
        .zip(&is_new)
        .filter(|(task, is_new)| !**is_new && task.fingerprint.is_some())
        .map(|(task, _)| task)
        .collect();
    let recorded = fingerprints(client, &known_keys).await?;
    Ok(batch
        .iter()
        .zip(is_new)
        .map(|(task, is_new)| match is_new {
            true => Recorded::New,
            false => known(task, &recorded),
        })
        .collect())
}

/// Where a batch holds both a key's task of one day and that of the next, the later must come after the earlier, which
/// it does not see in its own statement. Each part is sorted by id.
pub(crate) fn apart_from_their_windows<T>(batch: &[T], id: impl Fn(&T) -> TaskId) -> Vec<Vec<&T>> {
    let ids: HashSet<TaskId> = batch.iter().map(&id).collect();
    let follows = |item: &&T| id(item).previous_window().is_some_and(|id| ids.contains(&id));
    let (mut later, mut first): (Vec<&T>, Vec<&T>) = batch.iter().partition(follows);
    first.sort_by_key(|item| id(item));
    // One at a time, oldest first: each may be the window before of another.
    later.sort_by_key(|item| id(item));
    std::iter::once(first)
        .chain(later.into_iter().map(|item| vec![item]))
        .filter(|part| !part.is_empty())
        .collect()
}

async fn insert(client: &Client, tasks: Vec<&Submission>) -> Result<Vec<TaskId>> {
    let mut c = Columns::default();
    for task in tasks {
        c.push(task);
    }
    let rows = query(
        client,
        DOING,
        include_str!("../queries/tasks_record.sql"),
        &[
            &c.id,
            &c.previous,
            &c.project,
            &c.kind,
            &c.queue,
            &c.priority,
            &c.payload,
            &c.tags,
            &c.run_at,
            &c.max_attempts,
            &c.timeout_us,
            &c.created_at,
            &c.fingerprint,
            &c.traceparent,
            &duration_us(LATE),
        ],
    )
    .await?;
    rows.iter()
        .map(|row| column::<Uuid>(row, "id").map(TaskId::from))
        .collect()
}

/// The fingerprints recorded under the ids of `tasks`, and under those of the window before.
async fn fingerprints(client: &Client, tasks: &[&Submission]) -> Result<HashMap<TaskId, Option<Uuid>>> {
    if tasks.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = tasks
        .iter()
        .flat_map(|task| std::iter::once(task.id).chain(task.id.previous_window()))
        .map(TaskId::as_uuid)
        .collect();
    let rows = query(
        client,
        DOING,
        include_str!("../queries/tasks_fingerprints.sql"),
        &[&ids],
    )
    .await?;
    rows.iter()
        .map(|row| {
            Ok((
                TaskId::from(column::<Uuid>(row, "id")?),
                column(row, "fingerprint")?,
            ))
        })
        .collect()
}

fn known(task: &Submission, recorded: &HashMap<TaskId, Option<Uuid>>) -> Recorded {
    let found = recorded
        .get(&task.id)
        .or_else(|| task.id.previous_window().and_then(|id| recorded.get(&id)));
    match (found, task.fingerprint) {
        (Some(Some(recorded)), Some(asked)) if *recorded != uuid_of(asked) => Recorded::Conflict,
        _ => Recorded::Duplicate,
    }
}
