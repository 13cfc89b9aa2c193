//! Places that a worker has in advance: as many in a use as it has slots, and it never runs more. While it has them, what counts to
//! that use starts and ends as if there were no limit, and the counter, which all would wait for, is left alone. Whoever lacks
//! room takes them back: then what runs is counted, and the rest is free again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool_postgres::{Client, Transaction};
use forebay_core::WorkerId;
use forebay_store::{Result, StoreError};
use uuid::Uuid;

use super::{
    free::free_counted,
    place::{Needs, Place, Uses},
};
use crate::{
    error,
    hot::{column, query},
    values::{count, duration_us},
};

const DOING: &str = "allot places of limits";

/// How many tasks of a worker are counted one by one in a use before it is worth while to have places there in advance.
const WORTH: u32 = 4;
/// In how many uses a worker has places in advance.
const ALLOTTED_MAX: usize = 250;
/// How many uses are kept in mind of which a worker has needed places.
const NEEDED_MAX: usize = 1_000;
/// How many workers are kept in mind. Past that all are forgotten, and ask anew.
const WORKERS_MAX: usize = 1_000;
/// How long a worker does not ask again for what it did not get.
const REFUSED: Duration = Duration::from_secs(5);
/// For how long nobody is given places in advance where there was no room.
const SCARCE: Duration = Duration::from_secs(10);
/// How old allotments get: who still needs them asks anew.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Of how many uses allotments are taken back together.
const TAKEN_AT_ONCE: i64 = 1_000;
/// From how many workers they are taken back in one transaction.
const WORKERS_AT_ONCE: usize = 10;
/// How often a pass over what is old goes on.
const ROUNDS_MAX: usize = 20;

/// What a worker was allotted, when it was asked last. Statements see whether it still has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allotted {
    /// By what they see that; `None` where it has nothing.
    pub(crate) revision: Option<i64>,
    /// How many may be taken in these uses in all, as the rules said then.
    most: Arc<HashMap<i64, u32>>,
}

impl Allotted {
    pub(super) fn has(&self, place: &Place) -> bool {
        self.most.get(&place.of) == Some(&place.most)
    }
}

#[derive(Debug, Default)]
struct OfWorker {
    allotted: Allotted,
    /// How many places it is given at a time, once that is known.
    slots: Option<u32>,
    needed: HashMap<i64, Needed>,
}

/// How many places were needed of a use, and when it may be asked for next.
#[derive(Debug, Default)]
struct Needed {
    places: u32,
    not_before: Option<Instant>,
}

/// What the workers of this process were allotted.
#[derive(Debug, Default)]
pub(crate) struct Allotments {
    workers: Mutex<HashMap<WorkerId, OfWorker>>,
    /// How often all was forgotten.
    forgotten: AtomicU64,
}

impl Allotments {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkerId, OfWorker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, worker: WorkerId) -> Allotted {
        let workers = self.lock();
        workers
            .get(&worker)
            .map(|it| it.allotted.clone())
            .unwrap_or_default()
    }

    /// What a worker believes to have is wrong.
    pub(crate) fn doubt(&self, worker: WorkerId) {
        if let Some(it) = self.lock().get_mut(&worker) {
            it.allotted = Allotted::default();
            it.needed.clear();
        }
    }

    /// A worker has gone.
    pub(crate) fn forget(&self, worker: WorkerId) {
        self.lock().remove(&worker);
    }

    /// A server that has taken the place of another may know less than that did.
    pub(crate) fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::Release);
        self.lock().clear();
    }

    /// Who was refused may ask again at once.
    #[cfg(test)]
    pub(crate) fn ask_again(&self) {
        let mut workers = self.lock();
        for it in workers.values_mut().flat_map(|it| it.needed.values_mut()) {
            it.not_before = None;
        }
    }

    /// Counts what is needed one by one, and says what of it is worth to be had in advance.
    fn worth(&self, worker: WorkerId, needs: &[Needs]) -> Uses {
        if needs.iter().all(|it| it.places().is_empty()) {
            return Uses::default();
        }
        let mut workers = self.lock();
        if workers.len() >= WORKERS_MAX && !workers.contains_key(&worker) {
            workers.clear();
        }
        let OfWorker {
            allotted,
            slots,
            needed,
        } = workers.entry(worker).or_default();
        // Who needs a place that can't be had in advance has nothing of having others.
        let may_have = |it: &&Needs| it.places().iter().all(|place| Some(place.most) >= *slots);
        let mut uses = Uses::needed(needs.iter().filter(may_have));
        if needed.len() + uses.ids.len() > NEEDED_MAX {
            needed.clear();
        }
        let room = ALLOTTED_MAX.saturating_sub(allotted.most.len());
        let now = Instant::now();
        uses.retain(room, |of, number| {
            let it = needed.entry(of).or_default();
            it.places = it.places.saturating_add(number.unsigned_abs());
            let is_worth = it.places >= WORTH && it.not_before.is_none_or(|at| at <= now);
            if is_worth {
                *it = Needed {
                    places: 0,
                    not_before: Some(now + REFUSED),
                };
            }
            is_worth
        });
        uses
    }

    /// Notes what a worker was given, unless all was forgotten since it asked.
    fn note(
        &self,
        worker: WorkerId,
        (revision, slots, forgotten): (i64, u32, u64),
        given: impl Iterator<Item = (i64, u32)>,
    ) {
        let mut workers = self.lock();
        if self.forgotten.load(Ordering::Acquire) != forgotten {
            return;
        }
        let Some(it) = workers.get_mut(&worker) else {
            return;
        };
        it.slots = Some(slots);
        let allotted = &mut it.allotted;
        if allotted.revision != Some(revision) {
            allotted.most = Arc::default();
        }
        allotted.revision = Some(revision);
        Arc::make_mut(&mut allotted.most).extend(given);
    }
}

/// What tasks need, as `needs` says by what the worker was allotted; more is allotted to it before, where that is worth while.
pub(crate) async fn with_allotments(
    client: &mut Client,
    allotments: &Allotments,
    worker: WorkerId,
    needs: impl Fn(&Allotted) -> Vec<Needs>,
) -> Result<(Vec<Needs>, Option<i64>)> {
    let allotted = allotments.of(worker);
    let found = needs(&allotted);
    let wanted = allotments.worth(worker, &found);
    if wanted.ids.is_empty() {
        return Ok((found, allotted.revision));
    }
    allot(client, allotments, worker, &wanted).await?;
    let allotted = allotments.of(worker);
    Ok((needs(&allotted), allotted.revision))
}

async fn allot(client: &mut Client, allotments: &Allotments, worker: WorkerId, wanted: &Uses) -> Result<()> {
    let forgotten = allotments.forgotten.load(Ordering::Acquire);
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let id = worker.as_uuid();
    // Each in a statement of its own, which sees what was committed while the one before waited.
    let sql = include_str!("../../queries/limit_allotments_share.sql");
    query(&transaction, DOING, sql, &[&id]).await?;
    let sql = include_str!("../../queries/limit_allotments_asked.sql");
    let rows = query(&transaction, DOING, sql, &[&id]).await?;
    let row = rows.first().ok_or(StoreError::WorkerGone)?;
    let (slots, revision): (i32, i64) = (column(row, "slots")?, column(row, "revision")?);
    let sql = include_str!("../../queries/limit_allotments_give.sql");
    let given = query(
        &transaction,
        DOING,
        sql,
        &[&id, &wanted.ids, &wanted.most, &slots],
    )
    .await?;
    let given: Vec<i64> = given.iter().map(|row| column(row, "id")).collect::<Result<_>>()?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    let most = |of: &i64| wanted.most_of(*of).map(|most| (*of, most));
    allotments.note(
        worker,
        (revision, count(slots)?, forgotten),
        given.iter().filter_map(most),
    );
    Ok(())
}

/// Takes back what was allotted of these uses, since there is no room in them, and gives nobody more for a while.
pub(super) async fn take_back_scarce(client: &mut Client, uses: &[i64]) -> Result<u64> {
    let sql = include_str!("../../queries/limit_uses_scarce.sql");
    query(client, DOING, sql, &[&uses, &duration_us(SCARCE)]).await?;
    take_back(client, uses).await
}

/// Takes back what is old, or stands in the way of who waits. Says how many tasks go on.
pub(super) async fn take_back_old(client: &mut Client) -> Result<u64> {
    let mut released = 0;
    for _ in 0..ROUNDS_MAX {
        let sql = include_str!("../../queries/limit_allotments_old.sql");
        let rows = query(client, DOING, sql, &[&duration_us(AGE_MAX), &TAKEN_AT_ONCE]).await?;
        let uses: Vec<i64> = rows.iter().map(|row| column(row, "id")).collect::<Result<_>>()?;
        if !uses.is_empty() {
            released += take_back(client, &uses).await?;
        }
        if i64::try_from(uses.len()).is_ok_and(|found| found < TAKEN_AT_ONCE) {
            break;
        }
    }
    Ok(released)
}

async fn take_back(client: &mut Client, uses: &[i64]) -> Result<u64> {
    let sql = include_str!("../../queries/limit_allotments_of_uses.sql");
    let rows = query(client, DOING, sql, &[&uses]).await?;
    let mut workers: Vec<Uuid> = rows.iter().map(|row| column(row, "id")).collect::<Result<_>>()?;
    workers.sort_unstable();
    let mut released = 0;
    for some in workers.chunks(WORKERS_AT_ONCE) {
        released += take_back_from(client, some, uses).await?;
    }
    Ok(released)
}

async fn take_back_from(client: &mut Client, workers: &[Uuid], uses: &[i64]) -> Result<u64> {
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    // What they start from now on waits for this to end, and sees then that it can't rely on them.
    let sql = include_str!("../../queries/limit_allotments_lock.sql");
    query(&transaction, DOING, sql, &[&workers]).await?;
    let sql = include_str!("../../queries/limit_allotments_revise.sql");
    query(&transaction, DOING, sql, &[&workers]).await?;
    let sql = include_str!("../../queries/limit_allotments_count.sql");
    let held = query(&transaction, DOING, sql, &[&workers, &uses]).await?;
    let mut freed = drop_allotted(&transaction, workers, Some(uses)).await?;
    for row in &held {
        *freed.entry(column(row, "id")?).or_default() -= column::<i64>(row, "number")?;
    }
    let released = free_counted(&transaction, &freed).await?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(released)
}

/// Forgets what these workers were allotted, of all uses where none are said; says how many places are to be given back.
pub(crate) async fn drop_allotted(
    transaction: &Transaction<'_>,
    workers: &[Uuid],
    uses: Option<&[i64]>,
) -> Result<BTreeMap<i64, i64>> {
    let sql = include_str!("../../queries/limit_allotments_drop.sql");
    let mut freed: BTreeMap<i64, i64> = BTreeMap::new();
    for row in &query(transaction, DOING, sql, &[&workers, &uses]).await? {
        *freed.entry(column(row, "id")?).or_default() += i64::from(column::<i32>(row, "places")?);
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use forebay_core::Timestamp;

    use super::*;

    fn places(most: &[(i64, u32)]) -> Needs {
        Needs::Places(most.iter().map(|&(of, most)| Place { of, most }).collect())
    }

    #[test]
    fn what_is_needed_often_is_worth_to_be_had_in_advance() {
        let all = Allotments::default();
        let me = WorkerId::new(Timestamp::UNIX_EPOCH, &[1; 10]);
        let often = vec![places(&[(7, 100)]); 3];
        assert!(all.worth(me, &often).ids.is_empty());
        assert_eq!(all.worth(me, &often).ids, [7]);
        assert!(all.worth(me, &often).ids.is_empty(), "it does not ask twice");
        let asked = all.forgotten.load(Ordering::Acquire);
        all.note(me, (1, 50, asked), [(7, 100)].into_iter());
        assert!(all.of(me).has(&Place { of: 7, most: 100 }));
        assert!(
            !all.of(me).has(&Place { of: 7, most: 99 }),
            "the rule has changed"
        );
        all.doubt(me);
        assert_eq!(all.of(me).revision, None);
        // One of two can never be had in advance.
        let both = vec![places(&[(7, 100), (8, 49)]); 9];
        assert!(all.worth(me, &both).ids.is_empty());
        assert_eq!(all.worth(me, &vec![places(&[(8, 50)]); 9]).ids, [8]);
        // What was given by a server that is no more.
        all.forget_all();
        all.worth(me, &often);
        all.note(me, (1, 50, asked), [(7, 100)].into_iter());
        assert_eq!(all.of(me).revision, None);
    }
}
