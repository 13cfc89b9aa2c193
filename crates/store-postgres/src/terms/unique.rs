//! Tasks that must be the only one of something. Which of several is that, is decided as they are recorded, under a lock
//! for each mark: recorders that run side by side decide one after the other.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::Transaction;
use forebay_core::{OnConflict, State, Submission, TaskId, Timestamp, Unique};
use forebay_store::{Entry, Result, UniqueHolder, enter, replaced_by};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Standing;
use crate::{
    dispatch,
    hot::{column, query},
    limits,
    values::{Instant, word},
};

const DOING: &str = "record unique tasks";

/// How many marks maintenance looks at together.
const FORGOTTEN_AT_ONCE: i64 = 5_000;

/// What at most one task has: a mark, in a project.
type Mark<'a> = (&'a str, Uuid);

/// A task that must be the only one of something.
struct Asked<'a> {
    task: &'a Submission,
    unique: &'a Unique,
}

impl<'a> Asked<'a> {
    fn of(task: &'a Submission) -> Option<Self> {
        let unique = task.terms.as_ref()?.unique.as_ref()?;
        Some(Self { task, unique })
    }

    fn mark(&self) -> Mark<'a> {
        (self.task.project.as_str(), self.unique.mark.as_uuid())
    }

    fn entry(&self, holders: &HashMap<Mark<'a>, UniqueHolder>, now: Timestamp) -> Entry {
        enter(self.unique, self.task.created_at, holders.get(&self.mark()), now)
    }

    /// The ids under which it may be known already.
    fn ids(&self) -> impl Iterator<Item = TaskId> {
        std::iter::once(self.task.id).chain(self.task.id.adjacent_windows())
    }
}

/// What was decided of tasks that must be the only ones of something.
#[derive(Default)]
pub(super) struct Decided {
    /// Where those stand that may not stand beside another, or whose place a later one takes.
    pub(super) standings: HashMap<TaskId, Standing>,
    /// Recorded tasks that were cancelled, since one of these takes their place.
    pub(super) replaced: Vec<TaskId>,
}

/// Decides who may stand beside whom. Gives their marks to those who may, and cancels what they replace.
pub(super) async fn decide(transaction: &Transaction<'_>, tasks: &[&Submission]) -> Result<Decided> {
    let mut asked: Vec<Asked<'_>> = tasks.iter().filter_map(|task| Asked::of(task)).collect();
    if asked.is_empty() {
        return Ok(Decided::default());
    }
    lock(transaction, &asked).await?;
    let mut seen = known(transaction, &asked).await?;
    // What is known already has had its turn, and may be replaced by now.
    asked.retain(|asked| {
        let is_new = !asked.ids().any(|id| seen.contains(&id));
        seen.insert(asked.task.id);
        is_new
    });
    let now = dispatch::now(transaction).await?;
    let mut holders = holders(transaction, &asked).await?;
    let replaced = replace(transaction, &asked, &mut holders, now).await?;
    let standings = decide_in_order(&asked, &mut holders, now);
    take(transaction, &asked, &holders).await?;
    Ok(Decided { standings, replaced })
}

/// One after the other, as they were submitted. `holders` says afterwards who has each mark.
fn decide_in_order<'a>(
    asked: &[Asked<'a>],
    holders: &mut HashMap<Mark<'a>, UniqueHolder>,
    now: Timestamp,
) -> HashMap<TaskId, Standing> {
    let mut decided = HashMap::new();
    for asked in asked {
        let Asked { task, unique } = asked;
        match asked.entry(holders, now) {
            Entry::TurnedAway(error) => {
                decided.insert(task.id, Standing::cancelled(error));
                continue;
            }
            // One of these very tasks: what was recorded before is replaced already.
            Entry::Replaces(other) => {
                decided.insert(other, Standing::cancelled(replaced_by(task.id)));
            }
            Entry::Free => {}
        }
        let holder = UniqueHolder {
            task: task.id,
            state: Standing::by_time(task).state,
            created_at: task.created_at,
            until: unique.until,
        };
        holders.insert(asked.mark(), holder);
    }
    decided
}

/// Takes the locks of all marks, in one order.
async fn lock(transaction: &Transaction<'_>, asked: &[Asked<'_>]) -> Result<()> {
    let mut keys: Vec<i64> = asked.iter().map(|asked| lock_key(asked.mark())).collect();
    keys.sort_unstable();
    keys.dedup();
    let sql = include_str!("../../queries/unique_keys_lock.sql");
    query(transaction, DOING, sql, &[&keys]).await.map(|_| ())
}

/// The number that stands for a mark among the locks of the database. Projects share it: that costs a wait at most.
fn lock_key((_, mark): Mark<'_>) -> i64 {
    let (high, low) = mark.as_u64_pair();
    (high ^ low).cast_signed()
}

/// Those ids of the tasks that are recorded.
async fn known(transaction: &Transaction<'_>, asked: &[Asked<'_>]) -> Result<HashSet<TaskId>> {
    let ids: Vec<Uuid> = asked.iter().flat_map(Asked::ids).map(TaskId::as_uuid).collect();
    let sql = include_str!("../../queries/tasks_fingerprints.sql");
    let rows = query(transaction, DOING, sql, &[&ids]).await?;
    rows.iter()
        .map(|row| column::<Uuid>(row, "id").map(TaskId::from))
        .collect()
}

async fn holders<'a>(
    transaction: &Transaction<'_>,
    asked: &[Asked<'a>],
) -> Result<HashMap<Mark<'a>, UniqueHolder>> {
    let marks: HashSet<Mark<'a>> = asked.iter().map(Asked::mark).collect();
    let (projects, ids): (Vec<&str>, Vec<Uuid>) = marks.iter().copied().unzip();
    let sql = include_str!("../../queries/unique_keys_holders.sql");
    let rows = query(transaction, DOING, sql, &[&projects, &ids]).await?;
    let mut found: HashMap<(String, Uuid), UniqueHolder> = HashMap::new();
    for row in &rows {
        let holder = UniqueHolder {
            task: TaskId::from(column::<Uuid>(row, "task_id")?),
            state: word(column(row, "state")?)?,
            created_at: column::<Instant>(row, "created_at")?.0,
            until: column::<Option<Instant>>(row, "until")?.map(|until| until.0),
        };
        found.insert((column(row, "project")?, column(row, "mark")?), holder);
    }
    let holder_of = |(project, mark): Mark<'a>| {
        let holder = found.get(&(project.to_owned(), mark))?;
        Some(((project, mark), *holder))
    };
    Ok(marks.into_iter().filter_map(holder_of).collect())
}

/// Cancels the holders that are to be replaced, unless they run by now, and notes that in `holders`. Answers with those that
/// it has cancelled.
async fn replace<'a>(
    transaction: &Transaction<'_>,
    asked: &[Asked<'a>],
    holders: &mut HashMap<Mark<'a>, UniqueHolder>,
    now: Timestamp,
) -> Result<Vec<TaskId>> {
    let mut wanted: HashMap<Uuid, (Mark<'a>, String)> = HashMap::new();
    for asked in asked
        .iter()
        .filter(|asked| asked.unique.on_conflict == OnConflict::Replace)
    {
        if let Entry::Replaces(other) = asked.entry(holders, now) {
            let by = || (asked.mark(), replaced_by(asked.task.id));
            wanted.entry(other.as_uuid()).or_insert_with(by);
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut sorted: Vec<(Uuid, &str)> = wanted.iter().map(|(id, (_, why))| (*id, why.as_str())).collect();
    sorted.sort_unstable();
    let (ids, errors): (Vec<Uuid>, Vec<&str>) = sorted.into_iter().unzip();
    let hold = include_str!("../../queries/due_hold_all.sql");
    query(transaction, DOING, hold, &[&ids]).await?;
    let sql = include_str!("../../queries/tasks_replace.sql");
    let rows = query(transaction, DOING, sql, &[&ids, &errors]).await?;
    let mut replaced: Vec<Uuid> = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = column(row, "id")?;
        if let Some((mark, _)) = wanted.remove(&id) {
            holders.remove(&mark);
        }
        replaced.push(id);
    }
    limits::leave(transaction, &replaced).await?;
    // Those that are left were started since they were looked at, or have ended, which counts as if it were later.
    for (mark, _) in wanted.into_values() {
        if let Some(holder) = holders.get_mut(&mark) {
            holder.state = State::Running;
        }
    }
    Ok(replaced.into_iter().map(TaskId::from).collect())
}

/// Gives each mark to the last of the tasks that took it.
async fn take(
    transaction: &Transaction<'_>,
    asked: &[Asked<'_>],
    holders: &HashMap<Mark<'_>, UniqueHolder>,
) -> Result<()> {
    let mut taken: Vec<(&Asked<'_>, &UniqueHolder)> = asked
        .iter()
        .filter_map(|asked| Some((asked, holders.get(&asked.mark())?)))
        .filter(|(asked, holder)| holder.task == asked.task.id)
        .collect();
    taken.sort_unstable_by_key(|(asked, _)| asked.mark());
    let projects: Vec<&str> = taken.iter().map(|(asked, _)| asked.mark().0).collect();
    let marks: Vec<Uuid> = taken.iter().map(|(asked, _)| asked.mark().1).collect();
    let tasks: Vec<Uuid> = taken.iter().map(|(asked, _)| asked.task.id.as_uuid()).collect();
    let until: Vec<Option<Instant>> = taken.iter().map(|(_, it)| it.until.map(Instant)).collect();
    let sql = include_str!("../../queries/unique_keys_take.sql");
    query(transaction, DOING, sql, &[&projects, &marks, &tasks, &until])
        .await
        .map(|_| ())
}

/// Forgets the marks of tasks that are finished, stretch by stretch.
pub(crate) async fn forget_finished(connection: &mut PgConnection) -> std::result::Result<(), sqlx::Error> {
    let mut place = Some((String::new(), Uuid::nil()));
    while let Some((project, mark)) = place {
        place = sqlx::query_as(include_str!("../../queries/unique_keys_forget.sql"))
            .bind(project)
            .bind(mark)
            .bind(FORGOTTEN_AT_ONCE)
            .fetch_optional(&mut *connection)
            .await?;
    }
    Ok(())
}
