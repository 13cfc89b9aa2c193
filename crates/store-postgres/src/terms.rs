//! Recording tasks on terms: where one stands may go by other tasks, and others may hear of its end. All of it is in
//! one transaction with the rows themselves.

pub(crate) mod after;
mod batch;
pub(crate) mod expiry;
pub(crate) mod unique;

use std::collections::{HashMap, HashSet};

use deadpool_postgres::{Client, Transaction};
use forebay_core::{State, Submission, TaskEvent, TaskId, Timestamp};
use forebay_store::Result;

use self::{after::After, batch::Batches};
use crate::{
    error,
    hot::query,
    record::{Windows, apart_from_their_windows, insert_standing},
    workers,
};

const DOING: &str = "record tasks on terms";

/// Where a task stands when it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) state: State,
    /// When it is due: now or later where it is scheduled; when it may be where it is blocked.
    pub(crate) run_at: Option<Timestamp>,
    /// Why it has ended before it began.
    pub(crate) error: Option<String>,
}

impl Standing {
    /// Ready, or waiting for its time.
    pub(crate) fn by_time(task: &Submission) -> Self {
        Self {
            state: match task.run_at {
                Some(_) => State::Scheduled,
                None => State::Queued,
            },
            run_at: task.run_at,
            error: None,
        }
    }

    /// Over before it began.
    pub(crate) fn cancelled(error: String) -> Self {
        Self {
            state: State::Cancelled,
            run_at: None,
            error: Some(error),
        }
    }
}

/// What became of tasks that have terms.
pub(crate) struct OnTerms {
    /// Those that are new.
    pub(crate) new: Vec<TaskId>,
    /// What ended by it.
    pub(crate) ended: Vec<TaskEvent>,
}

/// Records tasks that have terms.
pub(crate) async fn record(client: &mut Client, tasks: &[&Submission]) -> Result<OnTerms> {
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let batches = batch::decide(&transaction, tasks).await?;
    let mut over = batches.over.clone();
    over.extend(after::decide(&transaction, tasks, &over).await?);
    // What is over takes nobody's place.
    let others: Vec<&Submission> = tasks
        .iter()
        .copied()
        .filter(|task| !over.contains_key(&task.id))
        .collect();
    let unique = unique::decide(&transaction, &others).await?;
    let (mut decided, mut ended) = (unique.standings, unique.replaced);
    decided.extend(over);
    let (waiting, others): (Vec<&Submission>, Vec<&Submission>) =
        tasks.iter().copied().partition(|task| waits_for_others(task));
    let mut new = insert(&transaction, &others, &decided).await?;
    let mut after = After::hold(&transaction, &waiting).await?;
    // In the order of their submission: each may wait for the one before.
    for task in &waiting {
        let stands = decided.entry(task.id);
        stands.or_insert_with(|| after.standing(task));
    }
    new.extend(insert(&transaction, &waiting, &decided).await?);
    let is_new: HashSet<TaskId> = new.iter().copied().collect();
    let recorded: Vec<&Submission> = tasks
        .iter()
        .copied()
        .filter(|task| is_new.contains(&task.id))
        .collect();
    note(&transaction, &recorded, &batches).await?;
    after.note(&transaction, &is_new).await?;
    let is_over = |id: &TaskId| decided.get(id).is_some_and(|it| it.state.is_final());
    ended.extend(new.iter().copied().filter(is_over));
    let ended = events(&transaction, ended).await?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(OnTerms { new, ended })
}

/// How these stand, to be told.
async fn events(transaction: &Transaction<'_>, tasks: Vec<TaskId>) -> Result<Vec<TaskEvent>> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let ids = after::sorted(tasks.into_iter());
    let sql = include_str!("../queries/tasks_events.sql");
    let rows = query(transaction, DOING, sql, &[&ids]).await?;
    rows.iter().map(workers::event).collect()
}

/// Inserts tasks where it is decided that they stand; else where they stand by their time.
async fn insert(
    transaction: &Transaction<'_>,
    tasks: &[&Submission],
    decided: &HashMap<TaskId, Standing>,
) -> Result<Vec<TaskId>> {
    let mut new = Vec::new();
    for part in apart_from_their_windows(tasks) {
        let stands = |task: &&Submission| {
            let decided = decided.get(&task.id).cloned();
            decided.unwrap_or_else(|| Standing::by_time(task))
        };
        let standings: Vec<Standing> = part.iter().map(stands).collect();
        new.extend(insert_standing(transaction, &part, &standings, Windows::Adjacent).await?);
    }
    Ok(new)
}

fn waits_for_others(task: &Submission) -> bool {
    task.terms.as_ref().is_some_and(|terms| terms.after.is_some())
}

/// Records a task that waits for what is not a task; unless it is known.
pub(crate) async fn record_blocked(transaction: &Transaction<'_>, task: &Submission) -> Result<()> {
    let standing = Standing {
        state: State::Blocked,
        run_at: task.run_at,
        error: None,
    };
    let new = insert_standing(transaction, &[task], &[standing], Windows::Own).await?;
    match new.is_empty() {
        true => Ok(()),
        false => note(transaction, &[task], &Batches::default()).await,
    }
}

/// What is kept beside the rows of tasks that are new.
async fn note(transaction: &Transaction<'_>, recorded: &[&Submission], batches: &Batches) -> Result<()> {
    batch::note(transaction, recorded, batches).await?;
    expiry::note(transaction, recorded).await
}
