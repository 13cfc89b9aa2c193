//! Limits: their rules, and what looks after those who wait. What is locked is locked in this order everywhere: the
//! allotments of workers, the worker, `due` rows, `tasks` rows, `limit_allotments` rows, `limit_uses` rows; rows of `throttled`
//! belong to who holds the task's row.

mod allot;
mod free;
mod hold;
mod place;
mod spare;
mod tend;
mod uses;

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Instant,
};

use async_trait::async_trait;
use deadpool_postgres::{Client, GenericClient};
use forebay_core::{LIMITS_MAX, LimitName, LimitRule, Rate, TaskId};
use forebay_store::{
    Hold, Limit, LimitUse, Limits, Mended, PutLimit, Released, Result,
    limits::{RULES_AGE_MAX, Rule, Rules},
};
use tokio_postgres::Row;

pub(crate) use self::{
    allot::{Allotments, Allotted, drop_allotted, with_allotments},
    free::{free, free_with, leave, pass_on},
    hold::claim,
    place::{Needs, UseIds, Uses, is_beaten},
    spare::{claim_spare, needs},
    tend::Strays,
};
use crate::{
    PostgresStore, error,
    hot::{Params, bounded, column, query},
    values::{Instant as At, count, duration, duration_us, int, word},
};

const READING: &str = "read limits";
const READ_RULES: &str = include_str!("../queries/limits_all.sql");

/// What is known here of limits, without asking the database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) ids: &'a UseIds,
    pub(crate) allotments: &'a Allotments,
}

/// The rules as they were read last.
pub(crate) type Cache = Mutex<Option<(Instant, Arc<Rules>)>>;

fn read(row: &Row) -> Result<(Limit, i64)> {
    let text = |name| column::<Option<&str>>(row, name);
    let number = |name| column::<Option<i32>>(row, name)?.map(count).transpose();
    let rate = match (number("rate_count")?, number("rate_burst")?) {
        (Some(count), Some(burst)) => Some(Rate {
            count,
            per: duration(column(row, "rate_per_us")?),
            burst,
        }),
        _ => None,
    };
    let rule = LimitRule {
        name: word(column(row, "name")?)?,
        queue: text("queue")?.map(word).transpose()?,
        kind: text("kind")?.map(word).transpose()?,
        by_key: column(row, "by_key")?,
        concurrency: number("concurrency")?,
        rate,
    };
    let limit = Limit {
        rule,
        created_at: column::<At>(row, "created_at")?.0,
        updated_at: column::<At>(row, "updated_at")?.0,
    };
    Ok((limit, column(row, "revision")?))
}

/// The rules as they are.
async fn current_rules(client: &impl GenericClient) -> Result<Rules> {
    let rows = query(client, READING, READ_RULES, &[]).await?;
    let rule = |row: &Row| {
        read(row).map(|(limit, revision)| Rule {
            rule: limit.rule,
            revision,
        })
    };
    rows.iter().map(rule).collect::<Result<_>>().map(Rules)
}

impl PostgresStore {
    /// The rules, as they were at most [`RULES_AGE_MAX`] ago.
    pub(crate) async fn rules(&self, client: &Client) -> Result<Arc<Rules>> {
        {
            let kept = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, rules)) = kept.as_ref().filter(|(at, _)| at.elapsed() < RULES_AGE_MAX) {
                return Ok(Arc::clone(rules));
            }
        }
        let at = Instant::now();
        let rules = Arc::new(current_rules(client).await?);
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, Arc::clone(&rules)));
        Ok(rules)
    }

    pub(crate) fn known<'a>(&'a self, rules: &'a Rules) -> Known<'a> {
        Known {
            rules,
            ids: &self.use_ids,
            allotments: &self.allotments,
        }
    }

    fn forget_rules(&self) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[async_trait]
impl Limits for PostgresStore {
    async fn put_limit(&self, rule: &LimitRule) -> Result<PutLimit> {
        const DOING: &str = "put a limit";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, put(connection.client(), rule)).await;
        self.forget_rules();
        connection.settle(outcome)
    }

    async fn limit(&self, name: &LimitName) -> Result<Option<Limit>> {
        let sql = include_str!("../queries/limits_get.sql");
        let mut connection = self.hot.get(READING).await?;
        let outcome = bounded(
            READING,
            query(connection.client(), READING, sql, &[&name.as_str()]),
        )
        .await;
        let rows = connection.settle(outcome)?;
        rows.first()
            .map(|row| read(row).map(|(limit, _)| limit))
            .transpose()
    }

    async fn limits(&self, page_size: usize, after: Option<&LimitName>) -> Result<Vec<Limit>> {
        let sql = include_str!("../queries/limits_list.sql");
        let limit = i64::try_from(page_size).unwrap_or(i64::MAX);
        let after = after.map_or("", LimitName::as_str);
        let mut connection = self.hot.get(READING).await?;
        let outcome = bounded(
            READING,
            query(connection.client(), READING, sql, &[&after, &limit]),
        )
        .await;
        let rows = connection.settle(outcome)?;
        rows.iter().map(|row| read(row).map(|(limit, _)| limit)).collect()
    }

    async fn delete_limit(&self, name: &LimitName) -> Result<bool> {
        const DOING: &str = "delete a limit";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, delete(connection.client(), name)).await;
        self.forget_rules();
        connection.settle(outcome)
    }

    async fn limit_use(&self, name: &LimitName) -> Result<LimitUse> {
        const DOING: &str = "read how a limit is used";
        let sql = include_str!("../queries/limit_uses_total.sql");
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, &[&name.as_str()])).await;
        let rows = connection.settle(outcome)?;
        let row = rows
            .first()
            .ok_or_else(|| error::corrupt("a sum without a result"))?;
        Ok(LimitUse {
            running: column::<i64>(row, "running")?.unsigned_abs(),
            waiting: column::<i64>(row, "waiting")?.unsigned_abs(),
        })
    }

    async fn held_by(&self, task: TaskId) -> Result<Option<Hold>> {
        const DOING: &str = "read what holds a task back";
        let sql = include_str!("../queries/throttled_by.sql");
        let most = i64::try_from(Hold::AHEAD_MAX).unwrap_or(i64::MAX);
        let mut connection = self.hot.get(DOING).await?;
        let params: Params<'_> = &[&task.as_uuid(), &most];
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, params)).await;
        let rows = connection.settle(outcome)?;
        rows.first().map(held).transpose()
    }

    fn has_released(&self) -> bool {
        self.released.swap(false, Ordering::Relaxed)
    }

    async fn release_throttled(&self, after: Option<i64>, limit: usize) -> Result<Released> {
        const DOING: &str = "let waiting tasks go on";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = tend::release(connection.client(), after, limit).await;
        match outcome {
            // Perhaps its connection is the trouble: it does not go back.
            Ok(released) if released.trouble.is_some() => Ok(released),
            outcome => connection.settle(outcome),
        }
    }

    async fn mend_limits(&self) -> Result<Mended> {
        const DOING: &str = "mend the counters of limits";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = tend::mend(connection.client(), &self.strays).await;
        connection.settle(outcome)
    }
}

fn held(row: &Row) -> Result<Hold> {
    let key: &str = column(row, "key")?;
    Ok(Hold {
        limit: word(column(row, "name")?)?,
        key: (!key.is_empty()).then(|| key.to_owned()),
        running: count(column(row, "running")?)?,
        concurrency: column::<Option<i32>>(row, "concurrency")?
            .map(count)
            .transpose()?,
        next_at: column::<Option<At>>(row, "next_at")?.map(|at| at.0),
        ahead: column::<i64>(row, "ahead")?.unsigned_abs(),
    })
}

async fn put(client: &mut Client, rule: &LimitRule) -> Result<PutLimit> {
    const DOING: &str = "put a limit";
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    query(
        &transaction,
        DOING,
        include_str!("../queries/limits_hold_all.sql"),
        &[],
    )
    .await?;
    let kept = current_rules(&transaction).await?.0;
    let old = kept.iter().find(|it| it.rule.name == rule.name);
    if old.is_none() && kept.len() >= LIMITS_MAX {
        return Ok(PutLimit::TooMany);
    }
    let is_change = old.is_some_and(|old| !old.rule.differs_in_concurrency_only(rule));
    let params: Params<'_> = &[
        &rule.name.as_str(),
        &rule.queue.as_ref().map(|it| it.as_str()),
        &rule.kind.as_ref().map(|it| it.as_str()),
        &rule.by_key,
        &rule.concurrency.map(int),
        &rule.rate.map(|rate| int(rate.count)),
        &rule.rate.map(|rate| duration_us(rate.per)),
        &rule.rate.map(|rate| int(rate.burst)),
        &is_change,
    ];
    let rows = query(
        &transaction,
        DOING,
        include_str!("../queries/limits_put.sql"),
        params,
    )
    .await?;
    let row = rows
        .first()
        .ok_or_else(|| error::corrupt("a limit that is not there"))?;
    let (limit, _) = read(row)?;
    if is_change {
        note_change(&transaction, &rule.name).await?;
    }
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(match old {
        Some(_) => PutLimit::Replaced(limit),
        None => PutLimit::New(limit),
    })
}

async fn delete(client: &mut Client, name: &LimitName) -> Result<bool> {
    const DOING: &str = "delete a limit";
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let sql = include_str!("../queries/limits_delete.sql");
    let deleted = query(&transaction, DOING, sql, &[&name.as_str()]).await?;
    if !deleted.is_empty() {
        note_change(&transaction, name).await?;
    }
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(!deleted.is_empty())
}

async fn note_change(client: &impl GenericClient, name: &LimitName) -> Result<()> {
    let sql = include_str!("../queries/limit_changes_add.sql");
    query(client, "note that a limit was changed", sql, &[&name.as_str()]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_store::conformance::limits::{
        a_bad_line_is_in_nobodys_way, a_wrong_counter_is_mended,
        what_is_had_in_advance_for_long_is_taken_back, what_nobody_uses_is_forgotten,
        workers_that_compete_keep_to_what_they_have_in_advance,
    };

    use crate::{
        PostgresStore,
        hot::{nth_column, query},
        plans::migrated,
    };

    const STRAY: &str = "INSERT INTO throttled (task_id, use_id, phase, priority, queue, since, revision)
        SELECT gen_random_uuid(), (SELECT min(id) FROM limit_uses), 0, 'default', 'default', now(), 0
        FROM generate_series(1, 12000)";

    async fn corrupt(store: &PostgresStore, statement: &'static str) {
        let mut connection = store.hot.get("test").await.expect("connect");
        let client = connection.client();
        client.batch_execute(statement).await.expect(statement);
        connection.settle(Ok(())).expect("settle");
    }

    #[tokio::test]
    async fn counters_that_are_wrong_are_mended() {
        let store = Arc::new(migrated().await);
        let corrupt = async |statement| corrupt(&store, statement).await;
        a_wrong_counter_is_mended(store.clone(), corrupt).await;
    }

    async fn count(store: &PostgresStore, sql: &'static str) -> i64 {
        let mut connection = store.hot.get("test").await.expect("connect");
        let rows = query(connection.client(), "test", sql, &[]).await;
        let rows = connection.settle(rows).expect("count");
        nth_column(&rows[0], 0).expect("a count")
    }

    #[tokio::test]
    async fn what_was_allotted_long_ago_is_taken_back() {
        const AGE: &str = "UPDATE limit_allotments SET given_at = given_at - interval '1 hour'";
        let store = Arc::new(migrated().await);
        what_is_had_in_advance_for_long_is_taken_back(
            store.clone(),
            async |sql| count(&store, sql).await,
            async || corrupt(&store, AGE).await,
        )
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_allotted_is_taken_back_again_and_again() {
        const NOTE: &str = "CREATE TABLE noted (what text);
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN INSERT INTO noted VALUES (TG_OP); RETURN NULL; END $$;
            CREATE TRIGGER note AFTER INSERT OR DELETE ON limit_allotments FOR EACH ROW EXECUTE FUNCTION note()";
        const GIVE_AGAIN: &str =
            "UPDATE limit_uses SET scarce_until = '-infinity' WHERE scarce_until > now()";
        let store = Arc::new(migrated().await);
        corrupt(&store, NOTE).await;
        let again = async || {
            let mut connection = store.hot.get("test").await.expect("connect");
            // Whoever locks the rows of many may meet another who does.
            let _ = connection.client().batch_execute(GIVE_AGAIN).await;
            connection.settle(Ok(())).expect("settle");
            store.allotments.ask_again();
        };
        workers_that_compete_keep_to_what_they_have_in_advance(store.clone(), again).await;
        let given = count(&store, "SELECT count(*) FROM noted WHERE what = 'INSERT'").await;
        let taken = count(&store, "SELECT count(*) FROM noted WHERE what = 'DELETE'").await;
        assert!(
            given >= 2 && taken >= 2,
            "given {given} times, taken back {taken} times"
        );
    }

    #[tokio::test]
    async fn lines_that_fail_keep_no_others_from_going_on() {
        const BAD: &str = "ALTER TABLE throttled ADD CONSTRAINT bad CHECK (phase = 0 OR queue <> 'bad')";
        let store = Arc::new(migrated().await);
        let corrupt = async |statement| corrupt(&store, statement).await;
        a_bad_line_is_in_nobodys_way(store.clone(), corrupt, BAD).await;
    }

    #[tokio::test]
    async fn as_much_as_there_is_is_forgotten() {
        let store = Arc::new(migrated().await);
        let corrupt = async |statement| corrupt(&store, statement).await;
        what_nobody_uses_is_forgotten(store.clone(), corrupt, STRAY).await;
    }
}
