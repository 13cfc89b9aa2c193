//! Tasks of batches.

use std::collections::{BTreeMap, HashMap, HashSet};

use deadpool_postgres::Transaction;
use forebay_core::{BatchId, Submission, TaskId};
use forebay_store::{BATCH_CANCELLED, Result};
use uuid::Uuid;

use super::Standing;
use crate::hot::{column, query};

const DOING: &str = "record tasks of batches";

fn batch_of(task: &Submission) -> Option<BatchId> {
    task.terms.as_ref().and_then(|terms| terms.batch)
}

/// The batches of tasks that are recorded, as far as these have to know.
#[derive(Default)]
pub(super) struct Batches {
    /// Those of the tasks whose batch is cancelled: so are they.
    pub(super) over: HashMap<TaskId, Standing>,
    /// Batches that wait for no tasks any more: what comes all the same is counted as it comes.
    late: HashSet<Uuid>,
}

/// Looks at the batches, and holds them, so that none is cancelled unseen.
pub(super) async fn decide(transaction: &Transaction<'_>, tasks: &[&Submission]) -> Result<Batches> {
    let mut batches: Vec<Uuid> = tasks
        .iter()
        .filter_map(|task| batch_of(task))
        .map(BatchId::as_uuid)
        .collect();
    batches.sort_unstable();
    batches.dedup();
    if batches.is_empty() {
        return Ok(Batches::default());
    }
    let sql = include_str!("../../queries/batches_cancelled.sql");
    let (mut cancelled, mut late) = (HashSet::new(), HashSet::new());
    for row in query(transaction, DOING, sql, &[&batches]).await? {
        if column(&row, "cancelled")? {
            cancelled.insert(BatchId::from(column::<Uuid>(&row, "id")?));
        }
        if column(&row, "late")? {
            late.insert(column(&row, "id")?);
        }
    }
    let over = tasks
        .iter()
        .filter(|task| batch_of(task).is_some_and(|batch| cancelled.contains(&batch)));
    let over = over.map(|task| (task.id, Standing::cancelled(BATCH_CANCELLED.to_owned())));
    Ok(Batches {
        over: over.collect(),
        late,
    })
}

/// Notes which batch new tasks belong to.
pub(super) async fn note(
    transaction: &Transaction<'_>,
    recorded: &[&Submission],
    known: &Batches,
) -> Result<()> {
    let of_batches = recorded
        .iter()
        .filter_map(|task| Some((batch_of(task)?.as_uuid(), task.id.as_uuid())));
    let (batches, tasks): (Vec<Uuid>, Vec<Uuid>) = of_batches.unzip();
    if tasks.is_empty() {
        return Ok(());
    }
    let sql = include_str!("../../queries/batch_members_add.sql");
    let mut late: BTreeMap<Uuid, i64> = BTreeMap::new();
    for row in query(transaction, DOING, sql, &[&batches, &tasks]).await? {
        let batch = column(&row, "batch_id")?;
        if known.late.contains(&batch) {
            *late.entry(batch).or_default() += 1;
        }
    }
    if late.is_empty() {
        return Ok(());
    }
    let (batches, counts): (Vec<Uuid>, Vec<i64>) = late.into_iter().unzip();
    let sql = include_str!("../../queries/batches_late.sql");
    query(transaction, DOING, sql, &[&batches, &counts])
        .await
        .map(|_| ())
}
