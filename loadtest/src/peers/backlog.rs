//! Watching a peer's tables until every task has its outcome, without getting in its way.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio_postgres::{Client, NoTls};

use super::{Peer, list::Counts, peak};
use crate::bench::meter::{Meter, micros_each};

/// How long a backlog may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may stand still.
const STILL_MAX: Duration = Duration::from_secs(10);

/// How much of a core the watching may take, as its inverse.
const THRIFT: u32 = 25;

/// What a drain gave.
pub(super) struct Drained {
    /// Tasks a second from the first outcome that was seen to the last.
    pub(super) steady: f64,
    /// The same from the start of the processes.
    pub(super) with_start: f64,
    /// Processor time of the machine for each task, the start included.
    pub(super) cpu_micros: f64,
    /// The highest memory of the workers.
    pub(super) memory_mib: f64,
}

async fn connect(database: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(database, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn count(client: &Client, peer: &Peer) -> Result<u64> {
    let (Counts::Left(sql) | Counts::Done(sql)) = peer.counts;
    let count: i64 = client.query_one(sql, &[]).await?.get(0);
    Ok(u64::try_from(count)?)
}

/// Vacuums and analyzes everything, as the peers' own documents advise after a large load.
pub(super) async fn vacuum(database: &str) -> Result<()> {
    let client = connect(database).await?;
    client.batch_execute("VACUUM ANALYZE").await?;
    client.batch_execute("CHECKPOINT").await?;
    Ok(())
}

/// How many tasks have an outcome; 0 where they are deleted with it.
pub(super) async fn done(database: &str, peer: &Peer) -> Result<u64> {
    match peer.counts {
        Counts::Left(_) => Ok(0),
        Counts::Done(_) => count(&connect(database).await?, peer).await,
    }
}

/// Waits until all of them have their outcome.
pub(super) async fn wait_until_done(database: &str, peer: &Peer, total: u64, group: u32) -> Result<Drained> {
    let client = connect(database).await?;
    let (meter, began) = (Meter::start()?, Instant::now());
    let mut watch = Watch::new(total);
    let (mut memory, mut looked) = (0.0, Instant::now());
    let mut first = None;
    loop {
        let done = watch.look(&client, peer, 0).await?;
        if done > 0 {
            first.get_or_insert((done, Instant::now()));
        }
        if done >= total {
            break;
        }
        if looked.elapsed() > Duration::from_millis(300) {
            peak(group, &mut memory);
            looked = Instant::now();
        }
        watch.pause().await;
    }
    let (before, since) = first.context("no first outcome")?;
    peak(group, &mut memory);
    let spent = meter.stop()?;
    let with_start = total as f64 / began.elapsed().as_secs_f64();
    let steady = (total - before) as f64 / since.elapsed().as_secs_f64();
    Ok(Drained {
        steady: if before < total / 2 { steady } else { with_start },
        with_start,
        cpu_micros: micros_each(spent.machine, total),
        memory_mib: memory,
    })
}

/// Waits until `count` more tasks than before have their outcome; returns how long after `since` that was.
pub(super) async fn wait_for_rest(
    database: &str,
    peer: &Peer,
    before: u64,
    count: u64,
    since: Instant,
) -> Result<Duration> {
    let client = connect(database).await?;
    let mut watch = Watch::new(count);
    while watch.look(&client, peer, before).await? < count {
        watch.pause().await;
    }
    Ok(since.elapsed())
}

/// Looks at a count: seldom while much is left, often near the end.
struct Watch {
    total: u64,
    began: Instant,
    took: Duration,
    done: u64,
    first: Option<(u64, Instant)>,
    moved: Instant,
}

impl Watch {
    fn new(total: u64) -> Self {
        Self {
            total,
            began: Instant::now(),
            took: Duration::ZERO,
            done: 0,
            first: None,
            moved: Instant::now(),
        }
    }

    async fn look(&mut self, client: &Client, peer: &Peer, before: u64) -> Result<u64> {
        let asked = Instant::now();
        let count = count(client, peer).await?;
        self.took = asked.elapsed();
        let done = match peer.counts {
            Counts::Left(_) => self.total.saturating_sub(count),
            Counts::Done(_) => count.saturating_sub(before),
        };
        if done != self.done {
            (self.done, self.moved) = (done, Instant::now());
            self.first.get_or_insert((done, self.moved));
        }
        let total = self.total;
        ensure!(
            done >= total || (self.began.elapsed() < PATIENCE && self.moved.elapsed() < STILL_MAX),
            "stalled: {done} of {total} have their outcome after {:.0} s",
            self.began.elapsed().as_secs_f64()
        );
        Ok(done)
    }

    async fn pause(&self) {
        let thrifty = self.took * THRIFT;
        let near_the_end = self.first.map(|(done, at)| {
            let rate = (self.done - done) as f64 / at.elapsed().as_secs_f64().max(1e-3);
            let left = self.total.saturating_sub(self.done) as f64 / rate.max(1.0);
            Duration::from_secs_f64((left / 2.0).min(10.0))
        });
        let pause = near_the_end.map_or(thrifty, |end| end.min(thrifty));
        tokio::time::sleep(pause.clamp(Duration::from_millis(5), Duration::from_secs(1))).await;
    }
}
