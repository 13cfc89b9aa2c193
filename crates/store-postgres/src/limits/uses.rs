//! The counters of limits: read under their locks, and written.

use std::collections::HashMap;

use deadpool_postgres::GenericClient;
use forebay_core::Pace;
use forebay_store::{
    Result,
    limits::{RESERVATION, Rules, UseState},
};
use futures::future::try_join;
use tokio_postgres::Row;

use crate::{
    hot::{Params, column, prepare, query},
    values::{count, duration_us, int},
};

/// A use as it is kept, and as the rules make it.
pub(super) struct Use {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) revision: i64,
    pub(super) released: i64,
    /// Whether workers have places of it in advance, which can be taken back.
    pub(super) is_allotted: bool,
    pub(super) state: UseState,
}

/// Names with keys, and ids.
pub(super) type Which<'a> = ((&'a [&'a str], &'a [&'a str]), &'a [i64]);

pub(super) const LOCK: &str = include_str!("../../queries/limit_uses_lock.sql");
pub(super) const LINES: &str = include_str!("../../queries/limit_uses_lines.sql");
pub(super) const WRITE: &str = include_str!("../../queries/limit_uses_write.sql");

/// Locks the uses with these names and keys, and those with these ids, and reads them. The lines are read by a statement of
/// their own, which sees what was committed before the locks were got; both are sent together.
pub(super) async fn lock(
    client: &impl GenericClient,
    doing: &'static str,
    rules: &Rules,
    which: Which<'_>,
) -> Result<Vec<Use>> {
    prepare(client, doing, &[LOCK, LINES]).await?;
    let (rows, lines) = lock_rows(client, doing, which).await?;
    read(rules, &rows, &lines)
}

/// As [`lock`]: the rows, and those of the lines. Both statements are to be prepared.
pub(super) async fn lock_rows(
    client: &impl GenericClient,
    doing: &'static str,
    ((names, keys), ids): Which<'_>,
) -> Result<(Vec<Row>, Vec<Row>)> {
    let reserved = duration_us(RESERVATION);
    let (which, of): (Params<'_>, Params<'_>) = (&[&names, &keys, &ids], &[&names, &keys, &ids, &reserved]);
    try_join(query(client, doing, LOCK, which), query(client, doing, LINES, of)).await
}

/// As [`lock`], by ids and without a lock.
pub(super) async fn look(
    client: &impl GenericClient,
    doing: &'static str,
    rules: &Rules,
    ids: &[i64],
) -> Result<Vec<Use>> {
    let sql = include_str!("../../queries/limit_uses_look.sql");
    let rows = query(client, doing, sql, &[&ids]).await?;
    let none: &[&str] = &[];
    let lines = query(
        client,
        doing,
        LINES,
        &[&none, &none, &ids, &duration_us(RESERVATION)],
    )
    .await?;
    read(rules, &rows, &lines)
}

/// What the rows say, by these rules.
pub(super) fn read(rules: &Rules, rows: &[Row], lines: &[Row]) -> Result<Vec<Use>> {
    let mut uses: Vec<Use> = rows
        .iter()
        .map(|row| read_one(row, rules))
        .collect::<Result<_>>()?;
    let mut of: HashMap<i64, &mut Use> = uses.iter_mut().map(|it| (it.state.id, it)).collect();
    for line in lines {
        if let Some(it) = of.get_mut(&column(line, "id")?) {
            it.state.reserved = count(column(line, "reserved")?)?;
            it.state.has_line = column(line, "has_line")?;
            it.is_allotted = column(line, "is_allotted")?;
        }
    }
    Ok(uses)
}

fn read_one(row: &Row, rules: &Rules) -> Result<Use> {
    let (name, key): (String, String) = (column(row, "name")?, column(row, "key")?);
    let rule = rules.of_use(&name, &key);
    let (kept, of_rule): (i64, i64) = (column(row, "revision")?, rule.map_or(0, |it| it.revision));
    // What was given out by an earlier revision, at another rate, does not count.
    let (turns, starts) = match of_rule > kept {
        true => Default::default(),
        false => (Pace(column(row, "turns")?), Pace(column(row, "starts")?)),
    };
    Ok(Use {
        revision: kept.max(of_rule),
        released: column(row, "released")?,
        is_allotted: false,
        state: UseState {
            id: column(row, "id")?,
            concurrency: rule.and_then(|it| it.rule.concurrency),
            rate: rule.and_then(|it| it.rule.rate),
            running: count(column(row, "running")?)?,
            reserved: 0,
            has_line: false,
            turns,
            starts,
        },
        name,
        key,
    })
}

/// Writes them, as they are locked.
pub(super) async fn write(client: &impl GenericClient, doing: &'static str, uses: &[Use]) -> Result<()> {
    if uses.is_empty() {
        return Ok(());
    }
    let id: Vec<i64> = uses.iter().map(|it| it.state.id).collect();
    let revision: Vec<i64> = uses.iter().map(|it| it.revision).collect();
    let running: Vec<i32> = uses.iter().map(|it| int(it.state.running)).collect();
    let released: Vec<i64> = uses.iter().map(|it| it.released).collect();
    let turns: Vec<i64> = uses.iter().map(|it| it.state.turns.0).collect();
    let starts: Vec<i64> = uses.iter().map(|it| it.state.starts.0).collect();
    let is_contended = |it: &Use| it.state.has_line || it.state.reserved > 0;
    let contended: Vec<bool> = uses.iter().map(is_contended).collect();
    let params: Params<'_> = &[&id, &revision, &running, &released, &turns, &starts, &contended];
    query(client, doing, WRITE, params).await?;
    Ok(())
}
