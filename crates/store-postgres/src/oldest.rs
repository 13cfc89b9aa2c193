//! How long the first ready task of a queue has been so. No index knows what is queued, since that changes: it is a walk
//! through the tasks in the order of their creation, which goes on where the last one stopped.

use std::time::Duration;

use deadpool_postgres::Client;
use forebay_core::{QueueName, Timestamp};
use forebay_store::{OldestReady, ReadyWalk, Result};

use crate::{
    dispatch::lowest_id,
    error,
    hot::{Params, column, query},
    values::Instant,
};

const DOING: &str = "look for the oldest ready task";

/// How many tasks are looked at in one statement, in this order, and so at most in one call. Mostly the first one that
/// waits is among the first.
const STRETCHES: [i64; 3] = [500, 5_000, 25_000];
/// How many rows of `due` are looked at.
const DUE_ROWS: i64 = 20_000;
/// How much later than its neighbours a task may be recorded: so far the next walk begins before the end of this one.
/// What is recorded much later has a note.
const DISORDER_MAX: Duration = Duration::from_secs(2);

pub(crate) async fn oldest_ready(client: &Client, queue: &QueueName, walk: ReadyWalk) -> Result<OldestReady> {
    let rows = query(
        client,
        DOING,
        include_str!("../queries/due_oldest.sql"),
        &[&queue.as_str(), &DUE_ROWS],
    )
    .await?;
    let row = rows
        .first()
        .ok_or_else(|| error::corrupt("a count without a row"))?;
    let dispatched = column::<Option<Instant>>(row, "since")?.map(|since| since.0);
    let all_seen = dispatched.is_some() || column::<bool>(row, "all_seen")?;
    let now = column::<Instant>(row, "now")?.0;
    let (accepted, mut walk) = first_accepted(client, queue, heed_late(client, walk).await?).await?;
    let walked = matches!(accepted, Walked::Found(_) | Walked::Nothing);
    let is_complete = walked && all_seen;
    let since = match accepted {
        Walked::Found(since) => Some(dispatched.map_or(since, |dispatched| dispatched.min(since))),
        Walked::Nothing | Walked::NotYet => dispatched,
    };
    walk.from = walk.from.map(|from| from.min(now));
    // What was found has waited so long at least, even if there may be something that has waited longer.
    let age = since.map(|since| Duration::try_from(now.duration_since(since)).unwrap_or_default());
    Ok(OldestReady {
        age,
        walk,
        is_complete,
    })
}

/// Goes back to what was recorded so late that the walk may have passed it.
async fn heed_late(client: &Client, walk: ReadyWalk) -> Result<ReadyWalk> {
    let rows = query(
        client,
        DOING,
        include_str!("../queries/late_since.sql"),
        &[&walk.noted],
    )
    .await?;
    let row = rows
        .first()
        .ok_or_else(|| error::corrupt("a note without a row"))?;
    let created_from = column::<Option<Instant>>(row, "created_from")?.map(|at| at.0);
    Ok(match (walk.from, created_from) {
        (Some(from), Some(late)) => ReadyWalk {
            from: Some(from.min(late)),
            noted: column::<Option<i64>>(row, "id")?.unwrap_or(walk.noted),
        },
        _ => walk,
    })
}

/// What a walk has come to.
enum Walked {
    /// A task that waits since it was accepted, and since when.
    Found(Timestamp),
    /// The present.
    Nothing,
    /// As far as one call goes.
    NotYet,
}

async fn first_accepted(
    client: &Client,
    queue: &QueueName,
    mut walk: ReadyWalk,
) -> Result<(Walked, ReadyWalk)> {
    for length in STRETCHES {
        let from = walk.from.unwrap_or(Timestamp::UNIX_EPOCH);
        let params: Params<'_> = &[&queue.as_str(), &Instant(from), &lowest_id(from), &length];
        let rows = query(client, DOING, include_str!("../queries/tasks_oldest.sql"), params).await?;
        let row = rows
            .first()
            .ok_or_else(|| error::corrupt("a walk without a result"))?;
        let time = |name| Ok(column::<Option<Instant>>(row, name)?.map(|at| at.0));
        if let (Some(waiting), Some(since)) = (time("waiting")?, time("since")?) {
            walk.from = Some(waiting);
            return Ok((Walked::Found(since), walk));
        }
        let last = time("last")?;
        if column::<i64>(row, "length")? < length {
            let end = last.and_then(|last| last.checked_sub(DISORDER_MAX).ok());
            walk.from = end.map_or(walk.from, |end| Some(end.max(from)));
            return Ok((Walked::Nothing, walk));
        }
        walk.from = last.map(|last| last.max(from)).or(walk.from);
    }
    Ok((Walked::NotYet, walk))
}
