//! Claiming what counts to limits: some of it is granted, the rest held back, in one transaction in which the tasks and the
//! counters are locked.

use std::collections::{BTreeMap, HashMap, HashSet};

use deadpool_postgres::{Client, Transaction};
use forebay_core::{ClaimId, LimitKey, TaskId, Timestamp, WorkerId};
use forebay_store::{
    Result, StoreError,
    limits::{Candidate, Held, RESERVATION, Rules, UseState, Verdict, decide},
};
use futures::future::{try_join, try_join4};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Known,
    allot::take_back_scarce,
    place::array,
    uses::{self, Use},
};
use crate::{
    claim::Wanted,
    day::Days,
    error,
    hot::{Params, column, prepare, query},
    values::{Instant, duration_us, int},
};

const DOING: &str = "claim tasks that count to limits";

/// As `throttled.phase` says it.
const LINE: i16 = 0;
const TURN: i16 = 2;

/// What was decided, and written but for the counters.
#[derive(Default)]
struct HeldBack {
    /// The tasks that are held back.
    tasks: HashSet<TaskId>,
    /// The places that the others hold.
    places: HashMap<TaskId, Vec<i64>>,
    /// To be written.
    uses: Vec<Use>,
    /// Where room is to be taken back before anything is written.
    lacking: Vec<i64>,
}

/// A task that could be claimed.
struct Asked<'a> {
    wanted: Wanted<'a>,
    key: Option<LimitKey>,
    /// The places that it holds, although it does not run.
    places: Vec<i64>,
    held: Option<(Held, Timestamp)>,
}

impl Asked<'_> {
    fn id(&self) -> TaskId {
        self.wanted.1.ready.id
    }
}

const ALIVE: &str = include_str!("../../queries/workers_hold.sql");
const HOLD_DUE: &str = include_str!("../../queries/due_hold_many.sql");
const LOCK: &str = include_str!("../../queries/tasks_lock_claimable.sql");
const NOTED: &str = include_str!("../../queries/throttled_get.sql");
const ADD_USES: &str = include_str!("../../queries/limit_uses_add.sql");
const GRANT: &str = include_str!("../../queries/tasks_claim_limited.sql");

/// What was granted, with the requests to which the rows answer.
type Granted<'a> = (Vec<Row>, Vec<Wanted<'a>>);

/// How an attempt has ended.
enum Tried<'a> {
    Granted(Granted<'a>),
    /// Nothing was done: there would be room in these uses, if it were taken back from workers that have it in advance.
    Lacks(Vec<i64>),
}

/// Claims what no limit holds back, and throttles the rest. Each row answers as one of `tasks_claim` does, with its number
/// in the list that is returned with them. While this is open others wait for the counters, so what need not wait for an
/// answer is sent together.
pub(crate) async fn claim<'a>(
    client: &mut Client,
    days: &Days,
    known: Known<'_>,
    by: (WorkerId, ClaimId),
    wanted: &[Wanted<'a>],
) -> Result<Granted<'a>> {
    let mut may_take_back = true;
    loop {
        match try_claim(client, days, known, by, (wanted, may_take_back)).await? {
            Tried::Granted(granted) => return Ok(granted),
            // Where that fails, they wait in line, and a dispatcher takes it back.
            Tried::Lacks(uses) => _ = take_back_scarce(client, &uses).await,
        }
        may_take_back = false;
    }
}

async fn try_claim<'a>(
    client: &mut Client,
    days: &Days,
    known: Known<'_>,
    (worker, claim): (WorkerId, ClaimId),
    (wanted, may_take_back): (&[Wanted<'a>], bool),
) -> Result<Tried<'a>> {
    let ids: Vec<Uuid> = wanted.iter().map(|it| it.1.ready.id.as_uuid()).collect();
    prepare_all(client, days, &ids).await?;
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let (asked, now) = lock(&transaction, days, worker, (&ids, wanted)).await?;
    let held = match now {
        Some(now) => hold(&transaction, known.rules, (asked, may_take_back), now).await?,
        None => HeldBack::default(),
    };
    if !held.lacking.is_empty() {
        transaction.rollback().await.map_err(|e| error::hot(DOING, e))?;
        return Ok(Tried::Lacks(held.lacking));
    }
    let granted: Vec<Wanted<'a>> = wanted
        .iter()
        .copied()
        .filter(|it| !held.tasks.contains(&it.1.ready.id))
        .collect();
    let (rows, ()) = try_join(
        grant(&transaction, days, (worker, claim), &granted, &held.places),
        uses::write(&transaction, DOING, &held.uses),
    )
    .await?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    known.ids.learn(
        held.uses
            .iter()
            .map(|it| (it.name.as_str(), it.key.as_str(), it.state.id)),
    );
    Ok(Tried::Granted((rows, granted)))
}

async fn prepare_all(client: &Client, days: &Days, ids: &[Uuid]) -> Result<()> {
    for sql in [LOCK, GRANT] {
        let prepared = days.prepare(client, sql, ids).await;
        prepared.map_err(|e| error::hot(DOING, e))?;
    }
    let all = [
        ALIVE,
        HOLD_DUE,
        NOTED,
        ADD_USES,
        uses::LOCK,
        uses::LINES,
        uses::WRITE,
    ];
    prepare(client, DOING, &all).await
}

/// Locks what is to be claimed, and reads how it stands with limits. The time is that of the transaction; there is none where
/// nothing can be claimed.
async fn lock<'a>(
    transaction: &Transaction<'_>,
    days: &Days,
    worker: WorkerId,
    (ids, wanted): (&[Uuid], &[Wanted<'a>]),
) -> Result<(Vec<Asked<'a>>, Option<Timestamp>)> {
    let fences: Vec<i32> = wanted.iter().map(|it| int(it.1.ready.fence)).collect();
    let (worker, reserved) = (worker.as_uuid(), duration_us(RESERVATION));
    let (alive, due): (Params<'_>, Params<'_>) = (&[&worker], &[&ids]);
    let (tasks, noted): (Params<'_>, Params<'_>) = (&[&ids, &fences], &[&ids, &reserved]);
    let lock = async {
        let rows = days.query(transaction, LOCK, ids, tasks).await;
        rows.map_err(|e| error::hot(DOING, e))
    };
    let (alive, _, rows, noted) = try_join4(
        query(transaction, DOING, ALIVE, alive),
        query(transaction, DOING, HOLD_DUE, due),
        lock,
        query(transaction, DOING, NOTED, noted),
    )
    .await?;
    if alive.is_empty() {
        return Err(StoreError::WorkerGone);
    }
    let noted: HashMap<Uuid, &Row> = noted
        .iter()
        .map(|row| Ok((column::<Uuid>(row, "task_id")?, row)))
        .collect::<Result<_>>()?;
    let (mut asked, mut now) = (Vec::with_capacity(rows.len()), None);
    for row in &rows {
        if !column::<bool>(row, "is_claimable")? {
            continue;
        }
        now = Some(column::<Instant>(row, "now")?.0);
        let number: i64 = column(row, "number")?;
        let it = usize::try_from(number - 1)
            .ok()
            .and_then(|number| wanted.get(number));
        let it = it.ok_or_else(|| error::corrupt("a task that nobody asked for"))?;
        let places: Vec<i64> = column::<Option<Vec<i64>>>(row, "holds")?.unwrap_or_default();
        let held = noted.get(&it.1.ready.id.as_uuid()).map(|row| held(row, &places));
        asked.push(Asked {
            wanted: *it,
            key: column::<Option<&str>>(row, "key")?.and_then(|key| key.parse().ok()),
            held: held.transpose()?,
            places,
        });
    }
    Ok((asked, now))
}

fn held(row: &Row, places: &[i64]) -> Result<(Held, Timestamp)> {
    let held = match column::<i16>(row, "phase")? {
        TURN => Held::Turn {
            places: places.to_vec(),
        },
        _ => Held::Line {
            of: column(row, "use_id")?,
            is_reserved: column::<Option<bool>>(row, "is_reserved")?.unwrap_or(false),
        },
    };
    Ok((held, column::<Instant>(row, "since")?.0))
}

/// Decides, and writes what is held back.
async fn hold(
    transaction: &Transaction<'_>,
    rules: &Rules,
    (mut asked, may_take_back): (Vec<Asked<'_>>, bool),
    now: Timestamp,
) -> Result<HeldBack> {
    let mut needed: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let mut counted: Vec<Vec<(&str, &str)>> = Vec::with_capacity(asked.len());
    // What counts to nothing now, and was not held back, is claimed as if there were no limits.
    asked.retain(|it| it.held.is_some() || !it.places.is_empty() || counting(rules, it).next().is_some());
    if asked.is_empty() {
        return Ok(HeldBack::default());
    }
    for it in &asked {
        let mut names = Vec::new();
        for (rule, key) in counting(rules, it) {
            needed.insert((rule.rule.name.as_str(), key), rule.revision);
            names.push((rule.rule.name.as_str(), key));
        }
        counted.push(names);
    }
    let mut uses = lock_uses(transaction, rules, &needed, &asked).await?;
    let verdicts = decided(&mut uses, &asked, &counted, now);
    let lacking = match may_take_back {
        true => lacking(&uses, &verdicts, &counted),
        false => Vec::new(),
    };
    if !lacking.is_empty() {
        return Ok(HeldBack {
            lacking,
            ..HeldBack::default()
        });
    }
    let (tasks, places) = write(transaction, &asked, &verdicts, &uses, now).await?;
    Ok(HeldBack {
        tasks,
        places,
        uses,
        lacking,
    })
}

/// The uses that count who is to wait in line although workers have places there in advance: all that count it, since in which of
/// them there is no room is known of the first only.
fn lacking(uses: &[Use], verdicts: &[Verdict], counted: &[Vec<(&str, &str)>]) -> Vec<i64> {
    let waits = |it: &Verdict| matches!(it, Verdict::Line { .. });
    let wanted: HashSet<(&str, &str)> = verdicts
        .iter()
        .zip(counted)
        .filter(|(verdict, _)| waits(verdict))
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    let is_lacking = |it: &&Use| it.is_allotted && wanted.contains(&(it.name.as_str(), it.key.as_str()));
    uses.iter().filter(is_lacking).map(|it| it.state.id).collect()
}

fn counting<'a>(
    rules: &'a Rules,
    it: &'a Asked<'_>,
) -> impl Iterator<Item = (&'a forebay_store::limits::Rule, &'a str)> {
    let ready = &it.wanted.1.ready;
    rules.counting(&ready.lane.queue, &ready.kind, it.key.as_ref())
}

async fn lock_uses(
    transaction: &Transaction<'_>,
    rules: &Rules,
    needed: &BTreeMap<(&str, &str), i64>,
    asked: &[Asked<'_>],
) -> Result<Vec<Use>> {
    let names: Vec<&str> = needed.keys().map(|(name, _)| *name).collect();
    let keys: Vec<&str> = needed.keys().map(|(_, key)| *key).collect();
    let revisions: Vec<i64> = needed.values().copied().collect();
    let mut touched: Vec<i64> = asked.iter().flat_map(|it| it.places.iter().copied()).collect();
    touched.extend(asked.iter().filter_map(|it| match &it.held {
        Some((Held::Line { of, .. }, _)) => Some(*of),
        _ => None,
    }));
    let add: Params<'_> = &[&names, &keys, &revisions];
    // What is forgotten as unused between the two statements is added again.
    for _ in 0..2 {
        let (_, (rows, lines)) = try_join(
            query(transaction, DOING, ADD_USES, add),
            uses::lock_rows(transaction, DOING, ((&names, &keys), &touched)),
        )
        .await?;
        let uses = uses::read(rules, &rows, &lines)?;
        let found = uses
            .iter()
            .filter(|it| needed.contains_key(&(it.name.as_str(), it.key.as_str())));
        if found.count() == needed.len() {
            return Ok(uses);
        }
    }
    Err(error::unavailable(DOING, "a counter was forgotten meanwhile"))
}

/// The verdicts. Where a place stays free since who was released waits for another limit now, nobody is released here: the
/// whole line would follow it there, task by task. A dispatcher does so, one in a while.
fn decided(
    uses: &mut [Use],
    asked: &[Asked<'_>],
    counted: &[Vec<(&str, &str)>],
    now: Timestamp,
) -> Vec<Verdict> {
    let place: HashMap<(&str, &str), usize> = uses
        .iter()
        .enumerate()
        .map(|(at, it)| ((it.name.as_str(), it.key.as_str()), at))
        .collect();
    let candidates: Vec<Candidate> = asked
        .iter()
        .zip(counted)
        .map(|(it, names)| Candidate {
            id: it.id(),
            priority: it.wanted.1.ready.lane.priority,
            uses: names.iter().filter_map(|name| place.get(name).copied()).collect(),
            held: it.held.clone(),
        })
        .collect();
    let mut states: Vec<UseState> = uses.iter().map(|it| it.state.clone()).collect();
    let verdicts = decide(&mut states, &candidates, now);
    for (it, state) in uses.iter_mut().zip(states) {
        it.state = state;
    }
    verdicts
}

/// Writes what is held back, and forgets how the others were.
async fn write(
    transaction: &Transaction<'_>,
    asked: &[Asked<'_>],
    verdicts: &[Verdict],
    uses: &[Use],
    now: Timestamp,
) -> Result<(HashSet<TaskId>, HashMap<TaskId, Vec<i64>>)> {
    let (mut throttled, mut granted, mut dropped) = (Throttled::default(), HashMap::new(), Vec::new());
    for (it, verdict) in asked.iter().zip(verdicts) {
        match verdict {
            Verdict::Granted { places } => {
                if it.held.is_some() {
                    dropped.push(it.id().as_uuid());
                }
                granted.insert(it.id(), places.clone());
            }
            Verdict::Line { of } => throttled.push(it, uses, (*of, LINE), None, &[], now),
            Verdict::Turn { of, at, places } => {
                throttled.push(it, uses, (*of, TURN), Some(*at), places, now);
            }
        }
    }
    if !dropped.is_empty() {
        let sql = include_str!("../../queries/throttled_drop.sql");
        query(transaction, DOING, sql, &[&dropped]).await?;
    }
    throttled.write(transaction).await?;
    let held_back = throttled.id.iter().map(|id| TaskId::from(*id)).collect();
    Ok((held_back, granted))
}

/// What is held back, as the statements take it.
#[derive(Default)]
struct Throttled<'a> {
    id: Vec<Uuid>,
    run_at: Vec<Option<Instant>>,
    holds: Vec<Option<String>>,
    of: Vec<i64>,
    phase: Vec<i16>,
    priority: Vec<&'static str>,
    queue: Vec<&'a str>,
    since: Vec<Instant>,
    revision: Vec<i64>,
}

impl<'a> Throttled<'a> {
    fn push(
        &mut self,
        it: &Asked<'a>,
        uses: &[Use],
        (of, phase): (i64, i16),
        at: Option<Timestamp>,
        places: &[i64],
        now: Timestamp,
    ) {
        let revision = uses
            .iter()
            .find(|it| it.state.id == of)
            .map_or(0, |it| it.revision);
        self.id.push(it.id().as_uuid());
        self.run_at.push(at.map(Instant));
        self.holds.push(array(places.iter().copied()));
        self.of.push(of);
        self.phase.push(phase);
        self.priority.push(it.wanted.1.ready.lane.priority.as_str());
        self.queue.push(it.wanted.1.ready.lane.queue.as_str());
        self.since
            .push(Instant(it.held.as_ref().map_or(now, |(_, since)| *since)));
        self.revision.push(revision);
    }

    async fn write(&self, transaction: &Transaction<'_>) -> Result<()> {
        if self.id.is_empty() {
            return Ok(());
        }
        let sql = include_str!("../../queries/tasks_throttle.sql");
        query(transaction, DOING, sql, &[&self.id, &self.run_at, &self.holds]).await?;
        let params: Params<'_> = &[
            &self.id,
            &self.of,
            &self.phase,
            &self.priority,
            &self.queue,
            &self.since,
            &self.run_at,
            &self.revision,
        ];
        query(
            transaction,
            DOING,
            include_str!("../../queries/throttled_put.sql"),
            params,
        )
        .await?;
        Ok(())
    }
}

async fn grant(
    transaction: &Transaction<'_>,
    days: &Days,
    (worker, claim): (WorkerId, ClaimId),
    granted: &[Wanted<'_>],
    places: &HashMap<TaskId, Vec<i64>>,
) -> Result<Vec<Row>> {
    if granted.is_empty() {
        return Ok(Vec::new());
    }
    let id: Vec<Uuid> = granted.iter().map(|it| it.1.ready.id.as_uuid()).collect();
    let fence: Vec<i32> = granted.iter().map(|it| int(it.1.ready.fence)).collect();
    let max_attempts: Vec<i32> = granted.iter().map(|it| int(it.1.max_attempts)).collect();
    let timeout_us: Vec<i64> = granted.iter().map(|it| duration_us(it.1.timeout)).collect();
    let holds = |it: &Wanted<'_>| {
        places
            .get(&it.1.ready.id)
            .and_then(|places| array(places.iter().copied()))
    };
    let holds: Vec<Option<String>> = granted.iter().map(holds).collect();
    let params: Params<'_> = &[
        &worker.as_uuid(),
        &claim.as_uuid(),
        &id,
        &fence,
        &max_attempts,
        &timeout_us,
        &holds,
    ];
    let rows = days.query(transaction, GRANT, &id, params).await;
    rows.map_err(|e| error::hot(DOING, e))
}
