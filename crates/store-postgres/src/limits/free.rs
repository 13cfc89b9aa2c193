//! Giving places back, and letting the next go on.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::{Client, GenericClient, Transaction};
use forebay_core::TaskId;
use forebay_store::{
    Result,
    limits::{Head, next_in_line},
};
use futures::future::try_join;
use uuid::Uuid;

use super::{
    READ_RULES, current_rules,
    uses::{self, Use},
};
use crate::{
    error,
    hot::{column, prepare, query},
    values::{Instant, word},
};

const DOING: &str = "let the next task of a limit go on";

/// How many of one line are released together; the next pass takes the rest.
const RELEASED_AT_ONCE: u32 = 100;
/// How often another is looked for where one of those in front does not wait any more.
const TRIES: usize = 3;

/// Gives places back, once for each time that they are named, and lets the next go on. Says how many these are.
pub(crate) async fn free(transaction: &Transaction<'_>, places: &[i64]) -> Result<u64> {
    free_with(transaction, places, BTreeMap::new()).await
}

/// As [`free`], and so many more in these uses.
pub(crate) async fn free_with(
    transaction: &Transaction<'_>,
    places: &[i64],
    mut counted: BTreeMap<i64, i64>,
) -> Result<u64> {
    for place in places {
        *counted.entry(*place).or_default() += 1;
    }
    if counted.is_empty() {
        return Ok(0);
    }
    free_counted(transaction, &counted).await
}

/// Lets the next go on for places that were given back already. Says how many these are.
pub(crate) async fn pass_on(client: &mut Client, uses: &[i64]) -> Result<u64> {
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let counted = uses.iter().map(|of| (*of, 0)).collect();
    let released = free_counted(&transaction, &counted).await?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(released)
}

/// Gives so many places back in each use, takes them where that is less than none, and lets the next go on.
pub(super) async fn free_counted(transaction: &Transaction<'_>, counted: &BTreeMap<i64, i64>) -> Result<u64> {
    let ids: Vec<i64> = counted.keys().copied().collect();
    prepare(
        transaction,
        DOING,
        &[READ_RULES, uses::LOCK, uses::LINES, uses::WRITE],
    )
    .await?;
    let (rules, (rows, lines)) = try_join(
        current_rules(transaction),
        uses::lock_rows(transaction, DOING, ((&[], &[]), &ids)),
    )
    .await?;
    let mut freed = uses::read(&rules, &rows, &lines)?;
    for it in &mut freed {
        let count = counted.get(&it.state.id).copied().unwrap_or(0);
        let running = i64::from(it.state.running).saturating_sub(count);
        it.state.running = u32::try_from(running.max(0)).unwrap_or(u32::MAX);
    }
    let released = release(transaction, &mut freed).await?;
    uses::write(transaction, DOING, &freed).await?;
    Ok(released)
}

/// Lets the next of these lines go on for whom there is room, and counts it in `uses`, which are locked and are to be
/// written. Says how many these are.
pub(super) async fn release(client: &impl GenericClient, uses: &mut [Use]) -> Result<u64> {
    let mut all = 0;
    for _ in 0..TRIES {
        let next = next(client, uses).await?;
        if next.is_empty() {
            break;
        }
        let ids: Vec<Uuid> = next.iter().map(|(id, _)| id.as_uuid()).collect();
        let sql = include_str!("../../queries/throttled_release.sql");
        let rows = query(client, DOING, sql, &[&ids]).await?;
        let of: HashMap<TaskId, usize> = next.into_iter().collect();
        for row in &rows {
            let id = TaskId::from(column::<Uuid>(row, "id")?);
            if let Some(&at) = of.get(&id) {
                uses[at].released += 1;
                uses[at].state.reserved += 1;
                all += 1;
            }
        }
        if rows.len() == ids.len() {
            break;
        }
        let sql = include_str!("../../queries/throttled_forget.sql");
        query(client, DOING, sql, &[&ids]).await?;
    }
    Ok(all)
}

/// Who is next, each with the place of its use; sorted, as all batches are.
async fn next(client: &impl GenericClient, uses: &[Use]) -> Result<Vec<(TaskId, usize)>> {
    let room = |it: &Use| it.state.room().min(RELEASED_AT_ONCE);
    let with_room: Vec<usize> = (0..uses.len())
        .filter(|&at| uses[at].state.has_line && room(&uses[at]) > 0)
        .collect();
    if with_room.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<i64> = with_room.iter().map(|&at| uses[at].state.id).collect();
    let rooms: Vec<i64> = with_room.iter().map(|&at| i64::from(room(&uses[at]))).collect();
    let sql = include_str!("../../queries/throttled_heads.sql");
    let rows = query(client, DOING, sql, &[&ids, &rooms]).await?;
    let mut heads: HashMap<i64, Vec<Head>> = HashMap::new();
    for row in &rows {
        heads.entry(column(row, "use_id")?).or_default().push(Head {
            id: TaskId::from(column::<Uuid>(row, "task_id")?),
            priority: word(column(row, "priority")?)?,
            since: column::<Instant>(row, "since")?.0,
        });
    }
    let mut next = Vec::new();
    for at in with_room {
        let heads = heads.remove(&uses[at].state.id).unwrap_or_default();
        let room = usize::try_from(room(&uses[at])).unwrap_or(usize::MAX);
        let ids = next_in_line(heads, room, uses[at].released);
        next.extend(ids.into_iter().map(|id| (id, at)));
    }
    next.sort_unstable();
    Ok(next)
}

/// Takes tasks that were cancelled, or have expired, out of their lines.
pub(crate) async fn leave(client: &impl GenericClient, tasks: &[Uuid]) -> Result<()> {
    if !tasks.is_empty() {
        let sql = include_str!("../../queries/throttled_leave.sql");
        query(client, "leave the lines of limits", sql, &[&tasks]).await?;
    }
    Ok(())
}
