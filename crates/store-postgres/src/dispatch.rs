//! Dispatching: what became ready is published while its row is held, then made queued. A crash between the two
//! repeats a message and never loses one.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use deadpool_postgres::{Client, GenericClient};
use forebay_core::{Lane, Ready, TaskEvent, TaskId, Timestamp};
use forebay_store::{Dispatch, Expired, ReadySink, Republished, Result};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    PostgresStore, error,
    hot::{Params, bounded, bounded_by, column, query},
    terms,
    values::{Instant, count, int, word},
    workers,
};

/// How far behind the present the floor stays: the recorder may be so late with a task that was accepted before. Of what
/// comes later than [`crate::record::LATE`], which is less, there is a note that takes the walk back to it: one row for
/// a batch, so that a burst which the recorder works off for minutes costs a task nothing.
const RECORDER_LAG_MAX: Duration = Duration::from_secs(60);

/// How many tasks a stretch of the walk for the floor has: few enough for one statement, should all of them have to be
/// read from a slow disk. And how long one pass walks: what it did is lost where the caller gives up waiting for it.
const STRETCH_TASKS: i64 = 20_000;
const WALK_PASS_MAX: Duration = Duration::from_secs(5);

/// How long the walk for lost messages may take: past everything that was created since the oldest task that waits.
const WALK_TIME_MAX: Duration = Duration::from_secs(31);
const WALK_TIME_MAX_SQL: &str = "SET LOCAL statement_timeout = '30s'";

const REPUBLISHING: &str = "publish lost messages again";

/// Ids of a task created at some time begin at its day, and a clock may be off; two days are on the safe side. What has an
/// older one is recorded with a `due` row.
pub(crate) const ID_SLACK_MS: u64 = 2 * 24 * 60 * 60 * 1_000;

/// A way for rows into the broker.
struct Passage<'a> {
    doing: &'static str,
    /// Selects and locks what is to be published.
    lock: &'static str,
    params: Params<'a>,
    /// Notes that it was.
    confirm: &'static str,
    /// Whether the locked rows are those of `due`.
    from_due: bool,
}

#[async_trait]
impl Dispatch for PostgresStore {
    async fn dispatch_due(&self, limit: usize, sink: &dyn ReadySink) -> Result<Vec<TaskEvent>> {
        const DOING: &str = "dispatch tasks that are due";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let passage = Passage {
            doing: DOING,
            lock: include_str!("../queries/due_lock.sql"),
            params: &[&limit],
            confirm: include_str!("../queries/due_dispatch.sql"),
            from_due: true,
        };
        let mut connection = self.hot.get(DOING).await?;
        let outcome = pass(connection.client(), &passage, sink).await;
        connection.settle(outcome.map(|(events, _)| events))
    }

    async fn take_back(&self, lease: Duration, lost_max: u32) -> Result<Vec<TaskEvent>> {
        const DOING: &str = "take tasks back";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, workers::take_back(connection.client(), lease, lost_max)).await;
        connection.settle(outcome)
    }

    async fn republish_lost(
        &self,
        horizons: &[(Lane, Timestamp)],
        floor: Timestamp,
        limit: usize,
        sink: &dyn ReadySink,
    ) -> Result<Republished> {
        let mut connection = self.hot.get(REPUBLISHING).await?;
        let outcome = republish(connection.client(), horizons, floor, limit, sink, &self.walked).await;
        connection.settle(outcome)
    }

    async fn expire_due(&self, limit: usize) -> Result<Expired> {
        const DOING: &str = "end what was not started in time";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, terms::expiry::expire(connection.client(), limit)).await;
        connection.settle(outcome)
    }

    async fn watermarks(&self) -> Result<Vec<(Lane, Timestamp)>> {
        const DOING: &str = "read the watermarks";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, workers::watermarks(connection.client())).await;
        connection.settle(outcome)
    }

    async fn now(&self) -> Result<Timestamp> {
        const DOING: &str = "read the clock";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, now(connection.client())).await;
        connection.settle(outcome)
    }

    async fn maintain(&self, retention: Option<Duration>) -> Result<()> {
        self.maintain_partitions(retention).await
    }
}

pub(crate) async fn now(client: &impl GenericClient) -> Result<Timestamp> {
    let rows = query(
        client,
        "read the clock",
        include_str!("../queries/clock_read.sql"),
        &[],
    )
    .await?;
    let row = rows
        .first()
        .ok_or_else(|| error::corrupt("a clock without a time"))?;
    Ok(column::<Instant>(row, "now")?.0)
}

/// Publishes what the passage selects, and confirms what the broker confirmed. Returns what it made queued, and how
/// many rows it selected.
async fn pass(
    client: &mut Client,
    passage: &Passage<'_>,
    sink: &dyn ReadySink,
) -> Result<(Vec<TaskEvent>, usize)> {
    let doing = passage.doing;
    let begin = async { client.transaction().await.map_err(|e| error::hot(doing, e)) };
    let transaction = bounded(doing, begin).await?;
    let select = async {
        if !passage.from_due {
            transaction
                .batch_execute(WALK_TIME_MAX_SQL)
                .await
                .map_err(|e| error::hot(doing, e))?;
        }
        query(&transaction, doing, passage.lock, passage.params).await
    };
    let rows = bounded_by(WALK_TIME_MAX, doing, select).await?;
    let batch: Vec<Ready> = rows.iter().map(ready).collect::<Result<_>>()?;
    if batch.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let confirmed = sink.publish(&batch).await;
    let mut sent: Vec<&Ready> = batch
        .iter()
        .zip(confirmed)
        .filter(|(_, confirmed)| *confirmed)
        .map(|(ready, _)| ready)
        .collect();
    sent.sort_by_key(|ready| ready.id);
    let commit = async {
        let events = confirm(&transaction, passage, &sent).await?;
        transaction.commit().await.map_err(|e| error::hot(doing, e))?;
        Ok(events)
    };
    Ok((bounded(doing, commit).await?, batch.len()))
}

async fn confirm(
    client: &impl GenericClient,
    passage: &Passage<'_>,
    sent: &[&Ready],
) -> Result<Vec<TaskEvent>> {
    let ids: Vec<Uuid> = sent.iter().map(|ready| ready.id.as_uuid()).collect();
    let fences: Vec<i32> = sent.iter().map(|ready| int(ready.fence)).collect();
    let rows = query(client, passage.doing, passage.confirm, &[&ids, &fences]).await?;
    let events: Vec<TaskEvent> = rows.iter().map(workers::event).collect::<Result<_>>()?;
    if passage.from_due && events.len() < ids.len() {
        let queued: HashSet<TaskId> = events.iter().map(|event| event.id).collect();
        let stale: Vec<Uuid> = ids
            .into_iter()
            .filter(|&id| !queued.contains(&TaskId::from(id)))
            .collect();
        query(
            client,
            passage.doing,
            include_str!("../queries/due_drop.sql"),
            &[&stale],
        )
        .await?;
    }
    Ok(events)
}

fn ready(row: &Row) -> Result<Ready> {
    Ok(Ready {
        id: TaskId::from(column::<Uuid>(row, "id")?),
        kind: word(column(row, "kind")?)?,
        lane: Lane::new(word(column(row, "queue")?)?, word(column(row, "priority")?)?),
        fence: count(column(row, "fence")?)?,
        lost: count(column(row, "lost")?)?,
    })
}

/// Looks first among what was dispatched from `due`, then among what was queued when it was accepted. There it goes on
/// from `walked`, where an earlier pass stopped for want of time.
async fn republish(
    client: &mut Client,
    horizons: &[(Lane, Timestamp)],
    floor: Timestamp,
    limit: usize,
    sink: &dyn ReadySink,
    walked: &Mutex<Option<Timestamp>>,
) -> Result<Republished> {
    let Some(latest) = horizons.iter().map(|(_, horizon)| *horizon).max() else {
        return Ok(Republished { count: 0, floor });
    };
    let lanes = Lanes::of(horizons);
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let dispatched = Passage {
        doing: REPUBLISHING,
        lock: include_str!("../queries/due_lock_lost.sql"),
        params: &[
            &lanes.queues,
            &lanes.priorities,
            &lanes.horizons,
            &Instant(latest),
            &most,
        ],
        confirm: include_str!("../queries/due_requeue.sql"),
        from_due: true,
    };
    let (events, found) = pass(client, &dispatched, sink).await?;
    let mut count = events.len();
    let late = LateRecords::read(client).await?;
    let (bottom, reached) = raise_floor(client, late.bottom(floor), latest).await?;
    late.pass(client, bottom).await?;
    let floor = floor.max(bottom);
    if found < limit && reached {
        let from = walked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let from = from.map_or(bottom, |from| from.max(bottom));
        let (more, stopped) = walk(client, &lanes, (from, latest), limit - found, sink).await?;
        *walked.lock().unwrap_or_else(PoisonError::into_inner) = stopped;
        count += more;
    }
    Ok(Republished { count, floor })
}

/// Lanes and their horizons, as the statements take them.
struct Lanes<'a> {
    queues: Vec<&'a str>,
    priorities: Vec<&'a str>,
    horizons: Vec<Instant>,
}

impl<'a> Lanes<'a> {
    fn of(horizons: &'a [(Lane, Timestamp)]) -> Self {
        Self {
            queues: horizons.iter().map(|(lane, _)| lane.queue.as_str()).collect(),
            priorities: horizons.iter().map(|(lane, _)| lane.priority.as_str()).collect(),
            horizons: horizons.iter().map(|(_, horizon)| Instant(*horizon)).collect(),
        }
    }
}

/// Publishes again what was lost of the tasks created in this time, up to `limit`. One task that waits for long in a
/// queue that nobody serves makes this way long, so it is gone in stretches, and for a bounded time. Says how many were
/// published, and from where to go on, if not from the floor.
async fn walk(
    client: &mut Client,
    lanes: &Lanes<'_>,
    (mut from, latest): (Timestamp, Timestamp),
    limit: usize,
    sink: &dyn ReadySink,
) -> Result<(usize, Option<Timestamp>)> {
    let began = tokio::time::Instant::now();
    let (mut count, mut left) = (0, limit);
    loop {
        let stretch = stretch(client, from, latest).await?;
        if let Some(waiting) = stretch.waiting {
            let end = Instant(stretch.next.unwrap_or(latest));
            let most = i64::try_from(left).unwrap_or(i64::MAX);
            let accepted = Passage {
                doing: REPUBLISHING,
                lock: include_str!("../queries/tasks_lock_lost.sql"),
                params: &[
                    &lanes.queues,
                    &lanes.priorities,
                    &lanes.horizons,
                    &end,
                    &Instant(waiting),
                    &lowest_id(waiting),
                    &most,
                ],
                confirm: include_str!("../queries/tasks_requeue.sql"),
                from_due: false,
            };
            let (events, found) = pass(client, &accepted, sink).await?;
            count += events.len();
            left = left.saturating_sub(found);
        }
        if left == 0 {
            return Ok((count, Some(from)));
        }
        match stretch.next {
            None => return Ok((count, None)),
            Some(next) => from = next,
        }
        if began.elapsed() >= WALK_PASS_MAX {
            return Ok((count, Some(from)));
        }
    }
}

/// The notes of batches that were recorded late, read before the walk: it sees the tasks of these.
struct LateRecords {
    ids: Vec<i64>,
    oldest: Option<Timestamp>,
}

impl LateRecords {
    async fn read(client: &Client) -> Result<Self> {
        let sql = include_str!("../queries/late_list.sql");
        let rows = bounded(REPUBLISHING, query(client, REPUBLISHING, sql, &[])).await?;
        let (mut ids, mut oldest) = (Vec::with_capacity(rows.len()), None);
        for row in &rows {
            ids.push(column(row, "id")?);
            let from = column::<Instant>(row, "created_from")?.0;
            oldest = Some(oldest.map_or(from, |oldest: Timestamp| oldest.min(from)));
        }
        Ok(Self { ids, oldest })
    }

    /// Where the walk begins: at the floor, or below it where something was recorded late.
    fn bottom(&self, floor: Timestamp) -> Timestamp {
        self.oldest.map_or(floor, |oldest| oldest.min(floor))
    }

    /// Nothing waits that was created before `bottom`. Independent of the caller's floor, since each dispatcher has its
    /// own.
    async fn pass(&self, client: &Client, bottom: Timestamp) -> Result<()> {
        if self.oldest.is_none_or(|oldest| oldest >= bottom) {
            return Ok(());
        }
        let sql = include_str!("../queries/late_pass.sql");
        let params: Params<'_> = &[&self.ids, &Instant(bottom)];
        let passed = query(client, REPUBLISHING, sql, params);
        bounded(REPUBLISHING, passed).await.map(|_| ())
    }
}

/// A part of the way through the tasks, in the order of their creation.
struct Stretch {
    /// When the first of them was created that waits since it was accepted.
    waiting: Option<Timestamp>,
    /// Where the next begins; `None` at the end.
    next: Option<Timestamp>,
}

async fn stretch(client: &Client, from: Timestamp, end: Timestamp) -> Result<Stretch> {
    let sql = include_str!("../queries/tasks_floor.sql");
    let params: Params<'_> = &[&Instant(from), &Instant(end), &lowest_id(from), &STRETCH_TASKS];
    let rows = bounded(REPUBLISHING, query(client, REPUBLISHING, sql, params)).await?;
    let row = rows
        .first()
        .ok_or_else(|| error::corrupt("a walk without a result"))?;
    let last = column::<Option<Instant>>(row, "last")?.map(|last| last.0);
    let is_full = column::<i64>(row, "length")? == STRETCH_TASKS;
    Ok(Stretch {
        waiting: column::<Option<Instant>>(row, "waiting")?.map(|waiting| waiting.0),
        next: last.filter(|&last| is_full && last > from),
    })
}

/// Raises the floor to the oldest task that waits since it was accepted: its message, published again or not, may be
/// lost later. With none, the floor follows the present at a distance. The second answer is `false` where the way
/// there is too long for one pass: after a start, it is the whole history.
async fn raise_floor(client: &Client, floor: Timestamp, latest: Timestamp) -> Result<(Timestamp, bool)> {
    let present = bounded(REPUBLISHING, now(client)).await?;
    let present = present.saturating_sub(RECORDER_LAG_MAX).unwrap_or(Timestamp::MIN);
    let end = present.min(latest);
    let began = tokio::time::Instant::now();
    let mut floor = floor;
    while began.elapsed() < WALK_PASS_MAX {
        let stretch = stretch(client, floor, end).await?;
        match (stretch.waiting, stretch.next) {
            (Some(waiting), _) => return Ok((waiting, true)),
            (None, Some(next)) => floor = next,
            (None, None) => return Ok((end.max(floor), true)),
        }
    }
    Ok((floor, false))
}

pub(crate) fn lowest_id(floor: Timestamp) -> Uuid {
    let millis = u64::try_from(floor.as_millisecond()).unwrap_or(0);
    TaskId::lower_bound(millis.saturating_sub(ID_SLACK_MS))
}
