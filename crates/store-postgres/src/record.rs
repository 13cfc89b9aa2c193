//! Recording: submissions become rows, each once.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::PoisonError,
    time::Duration,
};

use async_trait::async_trait;
use deadpool_postgres::{Client, GenericClient};
use forebay_core::{Fingerprint, QueueName, Submission, TaskId, sanitize_text};
use forebay_store::{Record, Recorded, Recording, Reject, Result, queues_of};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::{
    PostgresStore,
    day::Days,
    dispatch, error,
    hot::{Params, bounded, column, query},
    terms::{self, Standing},
    values::{Instant, array_literal, duration_us, int},
};

const DOING: &str = "record tasks";

/// How long after its acceptance a task is recorded late. That is to be well within the distance that the floor of the
/// walk for lost messages keeps from the present.
pub(crate) const LATE: Duration = Duration::from_secs(30);

/// How far the time in an id may lie before the task's acceptance; that of a key is the beginning of its day. It is to be
/// well within the slack with which the walk for lost messages goes by ids.
const ID_AGE_MAX_MS: u64 = dispatch::ID_SLACK_MS / 2;

/// How many queue names are remembered as known; past that they are inserted again and again, which is harmless.
const SEEN_QUEUES_MAX: usize = 10_000;

/// Submissions, sorted by id, as the arrays that the statements take.
#[derive(Default)]
pub(crate) struct Columns<'a> {
    pub(crate) id: Vec<Uuid>,
    pub(crate) project: Vec<&'a str>,
    pub(crate) kind: Vec<&'a str>,
    pub(crate) queue: Vec<&'a str>,
    pub(crate) priority: Vec<&'a str>,
    pub(crate) payload: Vec<&'a str>,
    pub(crate) tags: Vec<Cow<'static, str>>,
    pub(crate) max_attempts: Vec<Option<i32>>,
    pub(crate) timeout_us: Vec<Option<i64>>,
    pub(crate) created_at: Vec<Instant>,
    pub(crate) traceparent: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(tasks: &[&'a Submission]) -> Self {
        Self {
            id: tasks.iter().map(|task| task.id.as_uuid()).collect(),
            project: tasks.iter().map(|task| task.project.as_str()).collect(),
            kind: tasks.iter().map(|task| task.kind.as_str()).collect(),
            queue: tasks.iter().map(|task| task.lane.queue.as_str()).collect(),
            priority: tasks.iter().map(|task| task.lane.priority.as_str()).collect(),
            payload: tasks.iter().map(|task| task.payload.as_str()).collect(),
            tags: tasks.iter().map(|task| array_literal(&task.tags)).collect(),
            max_attempts: tasks.iter().map(|task| task.max_attempts.map(int)).collect(),
            timeout_us: tasks.iter().map(|task| task.timeout.map(duration_us)).collect(),
            created_at: tasks.iter().map(|task| Instant(task.created_at)).collect(),
            traceparent: tasks.iter().map(|task| traceparent(task)).collect(),
        }
    }
}

fn traceparent(task: &Submission) -> Option<&str> {
    task.traceparent.as_ref().map(|trace| trace.as_str())
}

/// What a task asks for beyond being run, as it is kept.
pub(crate) fn terms_json(task: &Submission) -> Option<String> {
    task.terms.as_ref().map(|terms| terms.to_json())
}

fn uuid_of(fingerprint: Fingerprint) -> Uuid {
    Uuid::from_bytes(fingerprint.0)
}

#[async_trait]
impl Record for PostgresStore {
    async fn record_and_tell(&self, batch: &[Submission]) -> Result<Recording> {
        if batch.is_empty() {
            return Ok(Recording::default());
        }
        let mut connection = self.hot.get(DOING).await?;
        let work = async {
            self.note_queues(connection.client(), batch).await?;
            record(connection.client(), &self.days, batch).await
        };
        let outcome = bounded(DOING, work).await;
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
    /// Makes the queues of a batch known, unless they are.
    pub(crate) async fn note_queues(
        &self,
        client: &Client,
        batch: impl IntoIterator<Item = &Submission>,
    ) -> Result<()> {
        let mut unseen = queues_of(batch);
        {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            unseen.retain(|queue| !seen.contains(queue));
        }
        if unseen.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = unseen.iter().map(QueueName::as_str).collect();
        query(
            client,
            DOING,
            include_str!("../queries/queues_add.sql"),
            &[&names],
        )
        .await?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() + unseen.len() <= SEEN_QUEUES_MAX {
            seen.extend(unseen);
        }
        Ok(())
    }
}

/// Inserts a batch and says of each what became of it.
async fn record(client: &mut Client, days: &Days, batch: &[Submission]) -> Result<Recording> {
    if batch.iter().all(looks_new) && insert_new(client, days, batch).await? {
        return Ok(Recording::of(vec![Recorded::New; batch.len()]));
    }
    let mut new = HashSet::new();
    let (on_terms, plain): (Vec<&Submission>, Vec<&Submission>) =
        batch.iter().partition(|task| task.terms.is_some());
    for part in apart_from_their_windows(&plain) {
        new.extend(insert_unknown(client, &part, Windows::Adjacent).await?);
    }
    // After the others, which they may have to do with.
    let mut ended = Vec::new();
    if !on_terms.is_empty() {
        let on_terms = terms::record(client, &on_terms).await?;
        new.extend(on_terms.new);
        ended = on_terms.ended;
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
    let answer = |(task, is_new): (&Submission, bool)| match is_new {
        true => Recorded::New,
        false => known(task, &recorded),
    };
    Ok(Recording {
        answers: batch.iter().zip(is_new).map(answer).collect(),
        ended,
    })
}

/// Whether the submission is ready, and known only if it was delivered before, which is rare.
fn looks_new(task: &Submission) -> bool {
    is_ready(task) && task.terms.is_none()
}

/// As [`looks_new`], and it may be started as it is recorded: what terms it has have to do with no other rows.
pub(crate) fn may_start(task: &Submission) -> bool {
    is_ready(task) && task.terms.as_ref().is_none_or(|terms| terms.stand_alone())
}

fn is_ready(task: &Submission) -> bool {
    task.run_at.is_none() && task.fingerprint.is_none() && task.id.previous_window().is_none()
}

/// Inserts submissions that look new; says whether they all were. Where one is known, nothing is inserted: a repeated
/// delivery costs this statement, and the usual batch is spared what is done for it.
async fn insert_new(client: &Client, days: &Days, batch: &[Submission]) -> Result<bool> {
    let mut sorted: Vec<&Submission> = batch.iter().collect();
    sorted.sort_by_key(|task| task.id);
    let c = Columns::of(&sorted);
    let (first, last) = (c.created_at.iter().min(), c.created_at.iter().max());
    let params: Params<'_> = &[
        &c.id,
        &c.project,
        &c.kind,
        &c.queue,
        &c.priority,
        &c.payload,
        &c.tags,
        &c.max_attempts,
        &c.timeout_us,
        &c.created_at,
        &c.traceparent,
        &first,
        &last,
        &duration_us(LATE),
    ];
    let sql = include_str!("../queries/tasks_insert.sql");
    match days.execute(client, sql, &c.id, params).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(false),
        Err(error) => Err(error::hot(DOING, error)),
    }
}

/// Whether the time in its id is so long before its acceptance that the walk for lost messages, which begins at an id,
/// may pass it by: so it is with what comes late to a batch.
fn is_of_long_ago(task: &Submission) -> bool {
    let accepted = u64::try_from(task.created_at.as_millisecond()).unwrap_or(0);
    accepted.saturating_sub(task.id.unix_millis()) > ID_AGE_MAX_MS
}

/// Where a batch holds both a key's task of one day and that of the next, the later must come after the earlier, which
/// it does not see in its own statement. Each part is sorted by id.
pub(crate) fn apart_from_their_windows<'a>(batch: &[&'a Submission]) -> Vec<Vec<&'a Submission>> {
    let ids: HashSet<TaskId> = batch.iter().map(|task| task.id).collect();
    let follows = |task: &&Submission| task.id.previous_window().is_some_and(|id| ids.contains(&id));
    let (mut later, mut first): (Vec<&Submission>, Vec<&Submission>) =
        batch.iter().copied().partition(follows);
    first.sort_by_key(|task| task.id);
    // One at a time, oldest first: each may be the window before of another.
    later.sort_by_key(|task| task.id);
    std::iter::once(first)
        .chain(later.into_iter().map(|task| vec![task]))
        .filter(|part| !part.is_empty())
        .collect()
}

/// Where a task is looked for before it is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Windows {
    /// Under its own id.
    Own,
    /// Under the ids of its key's windows before and after, too.
    Adjacent,
}

/// Inserts those submissions that are not known, which are sorted by id, and answers with their ids.
pub(crate) async fn insert_unknown(
    client: &impl GenericClient,
    tasks: &[&Submission],
    windows: Windows,
) -> Result<Vec<TaskId>> {
    let standings: Vec<Standing> = tasks.iter().map(|task| Standing::by_time(task)).collect();
    insert_standing(client, tasks, &standings, windows).await
}

/// As [`insert_unknown`], each where it stands.
pub(crate) async fn insert_standing(
    client: &impl GenericClient,
    tasks: &[&Submission],
    standings: &[Standing],
    windows: Windows,
) -> Result<Vec<TaskId>> {
    let c = Columns::of(tasks);
    let adjacent = |of: usize| -> Vec<Option<Uuid>> {
        let ids = tasks.iter().map(|task| task.id.adjacent_windows().nth(of));
        ids.map(|id| id.filter(|_| windows == Windows::Adjacent).map(TaskId::as_uuid))
            .collect()
    };
    let (previous, next) = (adjacent(0), adjacent(1));
    let run_at: Vec<Option<Instant>> = standings.iter().map(|it| it.run_at.map(Instant)).collect();
    let state: Vec<&str> = standings.iter().map(|it| it.state.as_str()).collect();
    let error: Vec<Option<&str>> = standings.iter().map(|it| it.error.as_deref()).collect();
    let terms: Vec<Option<String>> = tasks.iter().map(|task| terms_json(task)).collect();
    let is_watched = |task: &&Submission| task.terms.as_ref().is_some_and(|terms| terms.is_watched());
    let watched: Vec<bool> = tasks.iter().map(is_watched).collect();
    let of_long_ago = tasks.iter().filter(|task| is_of_long_ago(task));
    let of_long_ago: Vec<Uuid> = of_long_ago.map(|task| task.id.as_uuid()).collect();
    let fingerprint: Vec<Option<Uuid>> = tasks.iter().map(|task| task.fingerprint.map(uuid_of)).collect();
    let params: Params<'_> = &[
        &c.id,
        &previous,
        &next,
        &c.project,
        &c.kind,
        &c.queue,
        &c.priority,
        &c.payload,
        &c.tags,
        &run_at,
        &c.max_attempts,
        &c.timeout_us,
        &c.created_at,
        &fingerprint,
        &c.traceparent,
        &duration_us(LATE),
        &terms,
        &state,
        &error,
        &watched,
        &of_long_ago,
    ];
    let rows = query(client, DOING, include_str!("../queries/tasks_record.sql"), params).await?;
    rows.iter()
        .map(|row| column::<Uuid>(row, "id").map(TaskId::from))
        .collect()
}

/// The fingerprints recorded under the ids of `tasks`, and under those of the windows before and after.
async fn fingerprints(client: &Client, tasks: &[&Submission]) -> Result<HashMap<TaskId, Option<Uuid>>> {
    if tasks.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = tasks
        .iter()
        .flat_map(|task| std::iter::once(task.id).chain(task.id.adjacent_windows()))
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
        .or_else(|| task.id.adjacent_windows().find_map(|id| recorded.get(&id)));
    match (found, task.fingerprint) {
        (Some(Some(recorded)), Some(asked)) if *recorded != uuid_of(asked) => Recorded::Conflict,
        _ => Recorded::Duplicate,
    }
}
