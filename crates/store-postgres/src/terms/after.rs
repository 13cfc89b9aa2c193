//! Tasks that wait for others.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::{GenericClient, Transaction};
use forebay_core::{State, Submission, TaskId, Timestamp};
use forebay_store::{Blocker, Result, StandsAfter};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Standing;
use crate::{
    dispatch,
    hot::{column, query},
    values::word,
};

const DOING: &str = "record tasks that wait for others";

/// Those of the tasks that must be the only ones of something and are over before they begin, by the ends of tasks that they
/// wait for: they are not to take the place of others. `over` are over already. Nothing is held: this is before the locks of
/// what they are unique in.
pub(super) async fn decide(
    transaction: &Transaction<'_>,
    tasks: &[&Submission],
    over: &HashMap<TaskId, Standing>,
) -> Result<HashMap<TaskId, Standing>> {
    let is_unique = |task: &&Submission| task.terms.as_ref().is_some_and(|terms| terms.unique.is_some());
    let mut decided = HashMap::new();
    if !tasks.iter().any(|task| is_unique(task) && asks(task).is_some()) {
        return Ok(decided);
    }
    let asked = tasks.iter().filter_map(|task| asks(task));
    let asked = asked.flat_map(|after| after.tasks.iter().copied());
    let ids = sorted(asked.flat_map(|id| std::iter::once(id).chain(id.adjacent_windows())));
    let sql = include_str!("../../queries/tasks_events.sql");
    let mut found = states(&query(transaction, DOING, sql, &[&ids]).await?)?;
    found.extend(over.iter().map(|(id, standing)| (*id, standing.state)));
    for task in tasks.iter().filter(|task| !over.contains_key(&task.id)) {
        let judged = asks(task).map(|after| StandsAfter::judge(after, |id| find(&found, id)));
        if let Some(StandsAfter::Cancelled(error)) = judged {
            found.entry(task.id).or_insert(State::Cancelled);
            decided.insert(task.id, Standing::cancelled(error));
        }
    }
    Ok(decided)
}

fn asks(task: &Submission) -> Option<&forebay_core::After> {
    task.terms.as_ref()?.after.as_ref()
}

/// What is known of the tasks that others wait for. They are held until the end of the transaction, so that none of them
/// ends unseen.
pub(super) struct After {
    found: HashMap<TaskId, State>,
    now: Option<Timestamp>,
    blockers: Vec<(TaskId, Blocker)>,
}

impl After {
    /// Looks at all that these wait for, and holds it.
    pub(super) async fn hold(transaction: &Transaction<'_>, waiting: &[&Submission]) -> Result<Self> {
        let mut after = Self {
            found: HashMap::new(),
            now: None,
            blockers: Vec::new(),
        };
        if waiting.is_empty() {
            return Ok(after);
        }
        let asked = waiting
            .iter()
            .filter_map(|task| task.terms.as_ref()?.after.as_ref());
        let asked = asked.flat_map(|after| after.tasks.iter().copied());
        after.found = found(transaction, asked).await?;
        after.now = Some(dispatch::now(transaction).await?);
        Ok(after)
    }

    /// Where a task stands. To be asked in the order of submission: each may wait for the one before.
    pub(super) fn standing(&mut self, task: &Submission) -> Standing {
        let Some(asked) = task.terms.as_ref().and_then(|terms| terms.after.as_ref()) else {
            return Standing::by_time(task);
        };
        let standing = match StandsAfter::judge(asked, |id| find(&self.found, id)) {
            // Nobody publishes what says that it is ready, so it is left to the dispatcher.
            StandsAfter::Free => Standing {
                state: State::Scheduled,
                run_at: task.run_at.or(self.now),
                error: None,
            },
            StandsAfter::Waits(blockers) => {
                let blockers = blockers.into_iter().map(|blocker| (task.id, blocker));
                self.blockers.extend(blockers);
                Standing {
                    state: State::Blocked,
                    run_at: task.run_at,
                    error: None,
                }
            }
            StandsAfter::Cancelled(error) => Standing::cancelled(error),
        };
        // One that was known before stands where it stands.
        self.found.entry(task.id).or_insert(standing.state);
        standing
    }

    /// Notes what those wait for that are new.
    pub(super) async fn note(&self, transaction: &Transaction<'_>, new: &HashSet<TaskId>) -> Result<()> {
        let noted: Vec<&(TaskId, Blocker)> = self
            .blockers
            .iter()
            .filter(|(task, _)| new.contains(task))
            .collect();
        if noted.is_empty() {
            return Ok(());
        }
        let known = noted.iter().filter(|(_, blocker)| blocker.known);
        watch(transaction, known.map(|(_, blocker)| blocker.on)).await?;
        let on: Vec<Uuid> = noted.iter().map(|(_, blocker)| blocker.on.as_uuid()).collect();
        let tasks: Vec<Uuid> = noted.iter().map(|(task, _)| task.as_uuid()).collect();
        let known: Vec<bool> = noted.iter().map(|(_, blocker)| blocker.known).collect();
        let sql = include_str!("../../queries/blockers_add.sql");
        query(transaction, DOING, sql, &[&on, &tasks, &known]).await?;
        Ok(())
    }
}

/// How these tasks stand, each under the id that it was found by, and holds them.
pub(crate) async fn found(
    client: &impl GenericClient,
    asked: impl Iterator<Item = TaskId>,
) -> Result<HashMap<TaskId, State>> {
    let ids = sorted(asked.flat_map(|id| std::iter::once(id).chain(id.adjacent_windows())));
    let sql = include_str!("../../queries/blockers_hold.sql");
    states(&query(client, DOING, sql, &[&ids]).await?)
}

fn states(rows: &[Row]) -> Result<HashMap<TaskId, State>> {
    let state = |row| {
        Ok((
            TaskId::from(column::<Uuid>(row, "id")?),
            word(column(row, "state")?)?,
        ))
    };
    rows.iter().map(state).collect()
}

/// A task by its id, or by that of its key in the window before or after.
pub(crate) fn find(found: &HashMap<TaskId, State>, id: TaskId) -> Option<(TaskId, State)> {
    let mut ids = std::iter::once(id).chain(id.adjacent_windows());
    ids.find_map(|id| found.get(&id).map(|state| (id, *state)))
}

/// From now on the ends of these are told of. They are held.
pub(crate) async fn watch(client: &impl GenericClient, tasks: impl Iterator<Item = TaskId>) -> Result<()> {
    let ids = sorted(tasks);
    let sql = include_str!("../../queries/blockers_watch.sql");
    query(client, DOING, sql, &[&ids]).await.map(|_| ())
}

/// Each once, in the order in which rows are locked everywhere.
pub(crate) fn sorted(ids: impl Iterator<Item = TaskId>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = ids.map(TaskId::as_uuid).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
