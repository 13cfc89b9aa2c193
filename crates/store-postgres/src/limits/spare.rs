//! Claiming what counts to limits and has room, in one statement.

use std::collections::HashMap;

use deadpool_postgres::Client;
use forebay_core::{ClaimId, LimitKey, WorkerId};
use forebay_store::{Result, limits::Rules};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Known,
    allot::{Allotted, with_allotments},
    place::{Needs, Uses, is_beaten},
};
use crate::{
    claim::Wanted,
    day::Days,
    error,
    hot::{Params, nth_column},
    values::{duration_us, int},
};

const DOING: &str = "claim tasks that limits count";

/// What each of these needs of limits, by its key where there are limits by key, and by which revision its worker has places in
/// advance.
pub(crate) async fn needs(
    client: &mut Client,
    days: &Days,
    known: Known<'_>,
    worker: WorkerId,
    wanted: &[Wanted<'_>],
) -> Result<(Vec<Needs>, Option<i64>)> {
    if wanted.is_empty() {
        return Ok((Vec::new(), None));
    }
    let keys = match wanted.iter().any(|it| counts_by_key(known.rules, it)) {
        true => keys(client, days, wanted).await?,
        false => HashMap::new(),
    };
    let needs = |allotted: &Allotted| {
        let need = |(at, it): (usize, &Wanted<'_>)| {
            let ready = &it.1.ready;
            Needs::of(known, allotted, (&ready.lane.queue, &ready.kind), keys.get(&at))
        };
        wanted.iter().enumerate().map(need).collect()
    };
    with_allotments(client, known.allotments, worker, needs).await
}

fn counts_by_key(rules: &Rules, (_, request): &Wanted<'_>) -> bool {
    let (queue, kind) = (&request.ready.lane.queue, &request.ready.kind);
    rules
        .0
        .iter()
        .any(|it| it.rule.by_key && it.rule.concerns(queue, kind))
}

/// The keys of those that have one, by their places.
async fn keys(client: &Client, days: &Days, wanted: &[Wanted<'_>]) -> Result<HashMap<usize, LimitKey>> {
    let ids: Vec<Uuid> = wanted.iter().map(|(_, it)| it.ready.id.as_uuid()).collect();
    let sql = include_str!("../../queries/tasks_limit_keys.sql");
    let rows = days.query(client, sql, &ids, &[&ids]).await;
    let rows = rows.map_err(|e| error::hot(DOING, e))?;
    let mut keys = HashMap::with_capacity(rows.len());
    for row in &rows {
        let (number, key): (i64, &str) = (nth_column(row, 0)?, nth_column(row, 1)?);
        if let (Ok(at), Ok(key)) = (usize::try_from(number - 1), key.parse()) {
            keys.insert(at, key);
        }
    }
    Ok(keys)
}

/// Claims those for which there are places to spare; each row answers as one of `tasks_claim` does. There may be places for others
/// all the same, which only a closer look tells.
pub(crate) async fn claim_spare(
    client: &Client,
    days: &Days,
    (worker, claim): (WorkerId, ClaimId),
    wanted: &[(Wanted<'_>, Needs)],
) -> Result<Vec<Row>> {
    let requests = || wanted.iter().map(|((_, it), _)| it);
    let id: Vec<Uuid> = requests().map(|it| it.ready.id.as_uuid()).collect();
    let fence: Vec<i32> = requests().map(|it| int(it.ready.fence)).collect();
    let max_attempts: Vec<i32> = requests().map(|it| int(it.max_attempts)).collect();
    let timeout_us: Vec<i64> = requests().map(|it| duration_us(it.timeout)).collect();
    let places: Vec<Option<String>> = wanted.iter().map(|(_, needs)| needs.array()).collect();
    let uses = Uses::needed(wanted.iter().map(|(_, needs)| needs));
    let params: Params<'_> = &[
        &worker.as_uuid(),
        &claim.as_uuid(),
        &id,
        &fence,
        &max_attempts,
        &timeout_us,
        &places,
        &uses.ids,
        &uses.numbers,
        &uses.most,
    ];
    let sql = include_str!("../../queries/tasks_claim_spare.sql");
    match days.query(client, sql, &id, params).await {
        Err(error) if is_beaten(&error) => Ok(Vec::new()),
        rows => rows.map_err(|e| error::hot(DOING, e)),
    }
}
