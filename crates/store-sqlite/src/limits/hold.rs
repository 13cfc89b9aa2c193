//! Holding back: of what is to be claimed and counts to limits, some waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use forebay_core::{Kind, LimitKey, Pace, Priority, QueueName, TaskId, Timestamp};
use forebay_store::{
    ClaimRequest, Result,
    limits::{Candidate, Held, RESERVATION, Rules, UseState, Verdict, decide},
};
use serde_json::{Value, json};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use crate::{
    error::failed,
    row::{Fields, hex, micros_of, micros_of_duration, to_json},
};

const CANDIDATES: &str = include_str!("../../queries/limit_candidates.sql");
const ADD_USES: &str = include_str!("../../queries/limit_uses_add.sql");
const READ_USES: &str = include_str!("../../queries/limit_uses_read.sql");
const WRITE_USES: &str = include_str!("../../queries/limit_uses_write.sql");
const THROTTLE: &str = include_str!("../../queries/throttle.sql");
const PUT: &str = include_str!("../../queries/throttled_put.sql");
const DROP: &str = include_str!("../../queries/throttled_drop.sql");
const GRANT: &str = include_str!("../../queries/grant.sql");
const DOING: &str = "hold tasks back";

/// In line, released out of it, or with a turn: as `throttled.phase` says it.
pub(super) mod phase {
    pub(in super::super) const LINE: i64 = 0;
    pub(in super::super) const RELEASED: i64 = 1;
    pub(in super::super) const TURN: i64 = 2;
}

/// A use as it is kept, and as the rules make it.
pub(super) struct Use {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) revision: i64,
    pub(super) released: i64,
    pub(super) state: UseState,
}

/// The uses with these names and keys, and those with these ids.
pub(super) async fn read_uses(
    tx: &mut SqliteConnection,
    rules: &Rules,
    named: &[Value],
    ids: &[i64],
    now: Timestamp,
) -> Result<Vec<Use>> {
    let reserved_since = micros_of(now).saturating_sub(micros_of_duration(RESERVATION));
    let rows = sqlx::query(READ_USES)
        .bind(to_json(&named)?)
        .bind(to_json(&ids)?)
        .bind(reserved_since)
        .fetch_all(tx)
        .await
        .map_err(failed(DOING))?;
    rows.iter().map(|row| read_use(row, rules)).collect()
}

fn read_use(row: &SqliteRow, rules: &Rules) -> Result<Use> {
    let fields = Fields(row);
    let (name, key): (String, String) = (fields.get("name")?, fields.get("key")?);
    let rule = rules.of_use(&name, &key);
    let (kept, of_rule): (i64, i64) = (fields.get("revision")?, rule.map_or(0, |it| it.revision));
    // What was given out by an earlier revision, at another rate, does not count.
    let (turns, starts) = match of_rule > kept {
        true => Default::default(),
        false => (Pace(fields.get("turns")?), Pace(fields.get("starts")?)),
    };
    Ok(Use {
        revision: kept.max(of_rule),
        released: fields.get("released")?,
        state: UseState {
            id: fields.get("id")?,
            concurrency: rule.and_then(|it| it.rule.concurrency),
            rate: rule.and_then(|it| it.rule.rate),
            running: fields.get("running")?,
            reserved: fields.get("reserved")?,
            has_line: fields.get("has_line")?,
            turns,
            starts,
        },
        name,
        key,
    })
}

/// A task that could be claimed, and what counts it: names and keys of uses.
struct Asked {
    id: TaskId,
    priority: Priority,
    queue: QueueName,
    counted: Vec<(String, String)>,
    held: Option<(Held, Timestamp)>,
    /// What it may hold a place in, or wait for.
    touched: Vec<i64>,
    is_noted: bool,
}

fn read_asked(
    row: &SqliteRow,
    rules: &Rules,
    needed: &mut BTreeMap<(String, String), i64>,
    now: Timestamp,
) -> Result<Asked> {
    let fields = Fields(row);
    let key = fields.get::<Option<&str>>("key")?.map(str::parse::<LimitKey>);
    let key = key.and_then(std::result::Result::ok);
    let (queue, kind): (QueueName, Kind) = (fields.text("queue")?, fields.text("kind")?);
    let mut counted = Vec::new();
    for (rule, key) in rules.counting(&queue, &kind, key.as_ref()) {
        let name = (rule.rule.name.to_string(), key.to_owned());
        needed.insert(name.clone(), rule.revision);
        counted.push(name);
    }
    let mut touched: Vec<i64> = match fields.get::<Option<&str>>("holds")? {
        Some(_) => fields.list("holds")?,
        None => Vec::new(),
    };
    let noted: Option<i64> = fields.get("phase")?;
    let held = match (noted, fields.get::<Option<i64>>("use_id")?) {
        (Some(phase::TURN), _) => Some(Held::Turn {
            places: touched.clone(),
        }),
        (Some(noted), Some(of)) => {
            let at = fields.maybe_time("at")?.filter(|_| noted == phase::RELEASED);
            let kept_until = at.and_then(|at| at.saturating_add(RESERVATION).ok());
            touched.push(of);
            Some(Held::Line {
                of,
                is_reserved: kept_until.is_some_and(|until| until > now),
            })
        }
        _ => None,
    };
    let since = fields.maybe_time("since")?.unwrap_or(now);
    Ok(Asked {
        id: fields.task_id()?,
        priority: fields.text("priority")?,
        queue,
        counted,
        held: held.map(|held| (held, since)),
        touched,
        is_noted: noted.is_some(),
    })
}

/// Of what is to be claimed and may count to limits: holds back what has to wait, and returns the rest, which is to be
/// claimed in this transaction. Where a place stays free since who was released waits for another limit now, nobody is released
/// here: the whole line would follow it there, task by task. A dispatcher does so, one in a while.
pub(crate) async fn claimable<'a>(
    tx: &mut SqliteConnection,
    rules: &Rules,
    batch: &[&'a ClaimRequest],
    now: Timestamp,
) -> Result<Vec<&'a ClaimRequest>> {
    let (mut asked, needed) = read_candidates(tx, rules, batch, now).await?;
    // What counts to nothing now, and holds nothing, is claimed as if there were no limits.
    asked.retain(|it| !it.counted.is_empty() || it.is_noted || !it.touched.is_empty());
    if asked.is_empty() {
        return Ok(batch.to_vec());
    }
    let uses = add_uses(tx, rules, &needed, &asked, now).await?;
    let place: HashMap<(&str, &str), usize> = uses
        .iter()
        .enumerate()
        .map(|(at, it)| ((it.name.as_str(), it.key.as_str()), at))
        .collect();
    let at = |(name, key): &(String, String)| place.get(&(name.as_str(), key.as_str())).copied();
    let candidates: Vec<Candidate> = asked
        .iter()
        .map(|it| Candidate {
            id: it.id,
            priority: it.priority,
            uses: it.counted.iter().filter_map(at).collect(),
            held: it.held.clone(),
        })
        .collect();
    let mut states: Vec<UseState> = uses.iter().map(|it| it.state.clone()).collect();
    let verdicts = decide(&mut states, &candidates, now);
    let held_back = write(tx, &asked, &verdicts, &uses, now).await?;
    write_uses(tx, &uses, &states).await?;
    Ok(batch
        .iter()
        .copied()
        .filter(|request| !held_back.contains(&request.ready.id))
        .collect())
}

async fn read_candidates(
    tx: &mut SqliteConnection,
    rules: &Rules,
    batch: &[&ClaimRequest],
    now: Timestamp,
) -> Result<(Vec<Asked>, BTreeMap<(String, String), i64>)> {
    let starts: BTreeSet<(TaskId, u32)> = batch.iter().map(|it| (it.ready.id, it.ready.fence)).collect();
    let starts: Vec<Value> = starts
        .into_iter()
        .map(|(id, fence)| json!([hex(id), fence]))
        .collect();
    let rows = sqlx::query(CANDIDATES)
        .bind(to_json(&starts)?)
        .bind(micros_of(now))
        .fetch_all(tx)
        .await
        .map_err(failed(DOING))?;
    let mut needed = BTreeMap::new();
    let asked = rows
        .iter()
        .map(|row| read_asked(row, rules, &mut needed, now))
        .collect::<Result<_>>()?;
    Ok((asked, needed))
}

async fn add_uses(
    tx: &mut SqliteConnection,
    rules: &Rules,
    needed: &BTreeMap<(String, String), i64>,
    asked: &[Asked],
    now: Timestamp,
) -> Result<Vec<Use>> {
    let named: Vec<Value> = needed
        .iter()
        .map(|((name, key), revision)| json!([name, key, revision]))
        .collect();
    sqlx::query(ADD_USES)
        .bind(to_json(&named)?)
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let touched: Vec<i64> = asked.iter().flat_map(|it| it.touched.iter().copied()).collect();
    read_uses(tx, rules, &named, &touched, now).await
}

/// Writes what became of the tasks, and returns those that were held back.
async fn write(
    tx: &mut SqliteConnection,
    asked: &[Asked],
    verdicts: &[Verdict],
    uses: &[Use],
    now: Timestamp,
) -> Result<BTreeSet<TaskId>> {
    let revision = |of: i64| {
        uses.iter()
            .find(|it| it.state.id == of)
            .map_or(0, |it| it.revision)
    };
    let (mut throttled, mut rows, mut granted, mut dropped) = (vec![], vec![], vec![], vec![]);
    let mut held_back = BTreeSet::new();
    for (it, verdict) in asked.iter().zip(verdicts) {
        let id = hex(it.id);
        let since = micros_of(it.held.as_ref().map_or(now, |(_, since)| *since));
        let mut note = |of: i64, phase: i64, at: Option<i64>, places: &[i64]| -> Result<()> {
            throttled.push(json!([id, at, holds(places)?]));
            rows.push(json!([
                id,
                of,
                phase,
                it.priority as u8,
                since,
                at,
                revision(of),
                it.queue.as_str()
            ]));
            held_back.insert(it.id);
            Ok(())
        };
        match verdict {
            Verdict::Granted { places } => {
                granted.push(json!([id, holds(places)?]));
                if it.is_noted {
                    dropped.push(id);
                }
            }
            Verdict::Line { of } => note(*of, phase::LINE, None, &[])?,
            Verdict::Turn { of, at, places } => note(*of, phase::TURN, Some(micros_of(*at)), places)?,
        }
    }
    run(tx, THROTTLE, &throttled).await?;
    run(tx, PUT, &rows).await?;
    run(tx, GRANT, &granted).await?;
    run(tx, DROP, &dropped).await?;
    Ok(held_back)
}

/// As the column has it: null where there are none.
fn holds(places: &[i64]) -> Result<Option<String>> {
    match places {
        [] => Ok(None),
        places => to_json(&places).map(Some),
    }
}

async fn run<T: serde::Serialize>(
    tx: &mut SqliteConnection,
    statement: &'static str,
    batch: &[T],
) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    sqlx::query(statement)
        .bind(to_json(&batch)?)
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(())
}

async fn write_uses(tx: &mut SqliteConnection, uses: &[Use], states: &[UseState]) -> Result<()> {
    let changed: Vec<Value> = uses
        .iter()
        .zip(states)
        .filter(|(before, after)| {
            let before = &before.state;
            (before.running, before.turns, before.starts) != (after.running, after.turns, after.starts)
        })
        .map(|(it, after)| {
            json!([
                after.id,
                it.revision,
                after.running,
                after.turns.0,
                after.starts.0
            ])
        })
        .collect();
    run(tx, WRITE_USES, &changed).await
}
