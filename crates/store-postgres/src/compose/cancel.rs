//! Cancelling a batch: at once for what is to come, and bit by bit for what is there.

use deadpool_postgres::{Client, Transaction};
use forebay_core::{BatchId, State, TaskId};
use forebay_store::{BATCH_CANCELLED, Batch, Result, Settled};
use uuid::Uuid;

use super::{
    held, run,
    settle::{self, DOING, part},
};
use crate::{
    PostgresStore, error,
    hot::{column, query},
    limits,
    terms::after,
    workers,
};

/// How many tasks of a batch are cancelled together.
const TOGETHER: usize = 200;

pub(super) async fn cancel(client: &mut Client, doing: &'static str, id: BatchId) -> Result<Option<Batch>> {
    let transaction = client.transaction().await.map_err(|e| error::hot(doing, e))?;
    let Some(batch) = held(&transaction, doing, id).await? else {
        return Ok(None);
    };
    let id = batch.id.as_uuid();
    run(
        &transaction,
        doing,
        include_str!("../../queries/batches_cancel.sql"),
        &[&id],
    )
    .await?;
    let cancelled = held(&transaction, doing, batch.id).await?;
    let completion = cancelled.as_ref().filter(|batch| batch.completed_at.is_none());
    if let Some(task) = completion.and_then(|batch| batch.completion) {
        let sql = include_str!("../../queries/batches_cancel_completion.sql");
        run(&transaction, doing, sql, &[&task.as_uuid(), &BATCH_CANCELLED]).await?;
    }
    transaction.commit().await.map_err(|e| error::hot(doing, e))?;
    Ok(cancelled)
}

/// Cancels the next tasks of a batch that is being cancelled. What was done is kept by how far it has come; two dispatchers
/// that do the same, or one that dies before it notes that, do no harm. It is noted in a transaction of its own: recorders
/// hold the batch and then tasks that theirs wait for, so that nobody may hold tasks and want the batch to himself. So what was
/// cancelled is told, whatever becomes of the note.
pub(super) async fn go_on(store: &PostgresStore) -> Vec<Result<Settled>> {
    let (settled, way) = match part(store, |client| Box::pin(cancel_next(client))).await {
        Ok(done) => done,
        Err(error) => return vec![Err(error)],
    };
    let mut parts = vec![Ok(settled)];
    if let Some(way) = way {
        parts.push(part(store, |client| Box::pin(move_on(client, way))).await);
    }
    parts
}

/// How far a batch has come.
struct Way {
    batch: Uuid,
    /// `None` at its end.
    next: Option<Uuid>,
}

async fn cancel_next(client: &mut Client) -> Result<(Settled, Option<Way>)> {
    let mut settled = Settled::default();
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let rows = query(
        &transaction,
        DOING,
        include_str!("../../queries/batches_cancelling.sql"),
        &[],
    )
    .await?;
    let Some(row) = rows.first() else {
        return Ok((settled, None));
    };
    let (batch, from): (Uuid, Uuid) = (column(row, "id")?, column(row, "cancel_from")?);
    let most = i64::try_from(TOGETHER).unwrap_or(i64::MAX);
    let sql = include_str!("../../queries/batches_cancel_next.sql");
    let rows = query(&transaction, DOING, sql, &[&batch, &from, &most]).await?;
    let mut living = Vec::new();
    for row in &rows {
        if column(row, "lives")? {
            living.push(TaskId::from(column::<Uuid>(row, "task_id")?));
        }
    }
    cancel_all(&transaction, &living, &mut settled).await?;
    let last = rows.last().filter(|_| rows.len() >= TOGETHER);
    let next: Option<Uuid> = last.map(|row| column(row, "task_id")).transpose()?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok((settled, Some(Way { batch, next })))
}

/// Notes how far it has come; at the end, the batch may be complete.
async fn move_on(client: &mut Client, way: Way) -> Result<Settled> {
    let Way { batch, next } = way;
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    // Whoever records tasks of it has done so by then, or counts them.
    held(&transaction, DOING, batch.into()).await?;
    let sql = include_str!("../../queries/batches_cancel_move.sql");
    run(&transaction, DOING, sql, &[&batch, &next]).await?;
    let events = settle::complete(&transaction, &[batch]).await?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(Settled {
        events,
        more: true,
        ..Settled::default()
    })
}

/// Each as an operator's command does it.
async fn cancel_all(transaction: &Transaction<'_>, tasks: &[TaskId], settled: &mut Settled) -> Result<()> {
    let ids = after::sorted(tasks.iter().copied());
    if ids.is_empty() {
        return Ok(());
    }
    let rows = query(
        transaction,
        DOING,
        include_str!("../../queries/due_hold_many.sql"),
        &[&ids],
    )
    .await?;
    let held: Vec<Uuid> = rows
        .iter()
        .map(|row| column(row, "task_id"))
        .collect::<Result<_>>()?;
    for id in &ids {
        run(
            transaction,
            DOING,
            include_str!("../../queries/tasks_cancel.sql"),
            &[id],
        )
        .await?;
    }
    run(
        transaction,
        DOING,
        include_str!("../../queries/due_drop.sql"),
        &[&held],
    )
    .await?;
    limits::leave(transaction, &ids).await?;
    let rows = query(
        transaction,
        DOING,
        include_str!("../../queries/tasks_events.sql"),
        &[&ids],
    )
    .await?;
    for row in &rows {
        let event = workers::event(row)?;
        match event.state {
            State::Running => settled.cancel.push(event.id),
            _ => settled.events.push(event),
        }
    }
    Ok(())
}
