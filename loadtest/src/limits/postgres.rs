//! Raw PostgreSQL: batches of rows inserted and updated in place, and commits of single rows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::Result;
use futures::future::try_join_all;
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

use super::{Gauge, SECTION, name};
use crate::bench::{
    http::{histogram, micros},
    meter::Meter,
};

/// Rows of one statement.
const BATCH: usize = 1_000;

/// The most rows that are inserted, and then updated, a connection.
const ROWS_MAX: usize = 500_000;

const PAYLOAD_BYTES: usize = 256;

/// A table much like Forebay's. Its pages have room for a row's next version.
const TABLE: &str = "
    DROP TABLE IF EXISTS limit_rows;
    CREATE TABLE limit_rows (
        id uuid PRIMARY KEY, queue text NOT NULL, kind text NOT NULL, priority smallint NOT NULL,
        state text NOT NULL, fence int NOT NULL, attempt int NOT NULL, max_attempts int NOT NULL,
        payload text NOT NULL, result text, errors jsonb, tags text[], worker uuid,
        run_at timestamptz, created_at timestamptz NOT NULL, queued_at timestamptz NOT NULL,
        started_at timestamptz, finished_at timestamptz
    ) WITH (fillfactor = 60)";

const INSERT: &str = "
    INSERT INTO limit_rows (id, queue, kind, priority, state, fence, attempt, max_attempts, payload, created_at, queued_at)
    SELECT id, 'default', 'noop', 1, 'queued', 0, 0, 3, payload, now(), now()
    FROM unnest($1::uuid[], $2::text[]) AS new (id, payload)";

const UPDATE: &str = "
    UPDATE limit_rows SET state = 'succeeded', result = new.result, finished_at = now()
    FROM unnest($1::uuid[], $2::text[]) AS new (id, result) WHERE limit_rows.id = new.id";

const SINGLE: &str = "
    INSERT INTO limit_rows (id, queue, kind, priority, state, fence, attempt, max_attempts, payload, created_at, queued_at)
    VALUES ($1, 'default', 'noop', 1, 'queued', 0, 0, 3, $2, now(), now())";

/// Measures everything in a database of one's own.
pub(crate) async fn measure(gauge: &mut Gauge<'_>, url: &str) -> Result<()> {
    for (connections, insert, update) in [
        (1, name::INSERT_1, name::UPDATE_1),
        (2, name::INSERT_2, name::UPDATE_2),
    ] {
        batches(gauge, url, connections, insert, update).await?;
    }
    commits(gauge, url).await
}

/// A connection; its driver ends with it.
pub(super) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Makes the table anew, with nothing of the last left to write.
pub(super) async fn make_table(client: &Client) -> Result<()> {
    client.batch_execute(TABLE).await?;
    client.batch_execute("CHECKPOINT").await?;
    Ok(())
}

async fn batches(
    gauge: &mut Gauge<'_>,
    url: &str,
    connections: usize,
    insert: &str,
    update: &str,
) -> Result<()> {
    let clients = try_join_all((0..connections).map(|_| connect(url))).await?;
    make_table(&clients[0]).await?;
    let meter = Meter::start()?;
    let until = Instant::now() + gauge.window;
    let inserting = clients.iter().map(|client| async move {
        let statement = client.prepare(INSERT).await?;
        let payloads = vec!["x".repeat(PAYLOAD_BYTES); BATCH];
        let mut all = Vec::new();
        while Instant::now() < until && all.len() < ROWS_MAX {
            let ids: Vec<Uuid> = (0..BATCH).map(|_| Uuid::now_v7()).collect();
            client.execute(&statement, &[&ids, &payloads]).await?;
            all.extend(ids);
        }
        anyhow::Ok(all)
    });
    let rows = try_join_all(inserting).await?;
    let count = rows.iter().map(|ids| ids.len() as u64).sum();
    gauge.figures.note_work(SECTION, insert, count, &meter.stop()?);

    clients[0].batch_execute("VACUUM ANALYZE limit_rows").await?;
    let meter = Meter::start()?;
    let updating = clients.iter().zip(&rows).map(|(client, ids)| async move {
        let statement = client.prepare(UPDATE).await?;
        let results = vec!["null"; BATCH];
        for ids in ids.chunks(BATCH) {
            let ids = ids.to_vec();
            client
                .execute(&statement, &[&ids, &&results[..ids.len()]])
                .await?;
        }
        anyhow::Ok(())
    });
    try_join_all(updating).await?;
    gauge.figures.note_work(SECTION, update, count, &meter.stop()?);
    Ok(())
}

async fn commits(gauge: &mut Gauge<'_>, url: &str) -> Result<()> {
    let clients = try_join_all((0..32).map(|_| connect(url))).await?;
    make_table(&clients[0]).await?;
    let prepared = try_join_all(clients.iter().map(single)).await?;
    let (count, meter) = (Arc::new(AtomicU64::new(0)), Meter::start()?);
    let until = Instant::now() + gauge.window;
    let running: Vec<_> = clients
        .into_iter()
        .zip(prepared)
        .map(|(client, statement)| {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let (payload, mut took) = ("x".repeat(PAYLOAD_BYTES), histogram()?);
                while Instant::now() < until {
                    let sent = Instant::now();
                    insert_one(&client, &statement, &payload).await?;
                    took.saturating_record(micros(sent.elapsed()));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(took)
            })
        })
        .collect();
    let mut took = histogram()?;
    for one in running {
        took.add(one.await??)?;
    }
    let spent = meter.stop()?;
    gauge
        .figures
        .note_work(SECTION, name::COMMITS, count.load(Ordering::Relaxed), &spent);
    for (column, quantile) in [("p50 ms", 0.5), ("p99 ms", 0.99)] {
        let wait = took.value_at_quantile(quantile) as f64 / 1e3;
        gauge.figures.note(SECTION, name::COMMITS, column, wait);
    }
    Ok(())
}

/// The statement that inserts one row.
pub(super) async fn single(client: &Client) -> Result<Statement> {
    Ok(client.prepare(SINGLE).await?)
}

/// Inserts and commits one row.
pub(super) async fn insert_one(client: &Client, statement: &Statement, payload: &str) -> Result<()> {
    client.execute(statement, &[&Uuid::now_v7(), &payload]).await?;
    Ok(())
}
