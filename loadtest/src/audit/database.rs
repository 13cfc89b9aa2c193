//! By the database itself: one query over the range of ids, held against the ledger row by row.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use uuid::Uuid;

use super::Scope;
use crate::{
    database,
    ledger::{Ledger, Row, State},
    live::Live,
};

const TASKS: &str = "
    SELECT id, state::text, fence, jsonb_array_length(errors), created_at, started_at, finished_at,
           $3::text IS NULL OR $3 = ANY (tags)
    FROM tasks WHERE id >= $1 AND id <= $2 AND queue = $4";

/// How often progress is told.
const ROWS_AT_ONCE: usize = 10_000;

/// Looks once at all tasks of the run.
pub(super) async fn pass(scope: &Scope<'_>, ledger: &mut Ledger, live: &Live) -> Result<()> {
    let (Some(first), Some(last)) = (ledger.ids().first(), ledger.ids().last()) else {
        return Ok(());
    };
    let (first, last) = (Uuid::from_bytes(*first), Uuid::from_bytes(*last));
    let url = scope.database_url.context("no --database-url")?;
    let client = database::connect(url).await?;
    let query = client
        .prepare(TASKS)
        .await
        .context("ask the database for tasks")?;
    let tag = scope.tag;
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] = [&first, &last, &tag, &scope.queue];
    let rows = client.query_raw(&query, parameters).await?;
    let mut rows = std::pin::pin!(rows);
    let mut count = 0;
    while let Some(row) = rows.try_next().await? {
        let ours: bool = row.try_get(7)?;
        ledger.note(&read(&row)?, ours && tag.is_some());
        count += 1;
        if count % ROWS_AT_ONCE == 0 {
            live.progress((ledger.ids().len() - ledger.open()) as u64);
        }
    }
    live.progress((ledger.ids().len() - ledger.open()) as u64);
    Ok(())
}

fn read(row: &tokio_postgres::Row) -> Result<Row> {
    let whole = |number: i32| u64::try_from(number).unwrap_or_default();
    Ok(Row {
        id: row.try_get::<_, Uuid>(0)?.into_bytes(),
        state: State::parse(row.try_get(1)?),
        starts: whole(row.try_get(2)?),
        errors: whole(row.try_get(3)?),
        created_us: micros(row.try_get(4)?),
        started_us: row.try_get::<_, Option<SystemTime>>(5)?.map(micros),
        finished_us: row.try_get::<_, Option<SystemTime>>(6)?.map(micros),
    })
}

fn micros(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
