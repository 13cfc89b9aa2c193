//! The connections of the hot statements: prepared once, bounded in time, and thrown away when in doubt.

use std::time::Duration;

use deadpool_postgres::{
    Client, GenericClient, Hook, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
};
use forebay_store::{Result, StoreError};
use tokio_postgres::{
    NoTls, Row,
    types::{FromSql, ToSql},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    connect::{CONNECT_TIME_MAX, Target},
    error,
};

/// How long a hot statement may take here. The server ends it a little earlier, unless it hangs.
const STATEMENT_TIME_MAX: Duration = Duration::from_millis(5_500);

/// What a session of the hot statements is told. They all reach `tasks` by its key or one index, and a batch joins
/// the few rows of an array to it: a nested loop is the right plan, whatever the statistics of a young partition say.
pub(crate) const SESSION: &str = "-c statement_timeout=5000 -c lock_timeout=4000 \
    -c idle_in_transaction_session_timeout=30000 -c plan_cache_mode=force_generic_plan \
    -c enable_hashjoin=off -c enable_mergejoin=off -c enable_seqscan=off -c enable_bitmapscan=off -c enable_sort=off \
    -c jit=off";

/// How old the plan of a statement may be. The first is made when a table may be empty, and stays as it is while that grows.
const PLAN_AGE_MAX: Duration = Duration::from_secs(60);

/// The parameters of a statement.
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A pool of connections for hot statements.
pub(crate) struct HotPool(Pool);

/// A connection out of the pool. It goes back by [`Checkout::settle`]; dropped in the middle of something, it is
/// closed, since nobody knows what it is at.
pub(crate) struct Checkout {
    object: Option<Object>,
}

impl HotPool {
    /// `connected` is called for each new connection: what was known of the server may not be so any more.
    pub(crate) fn new(
        target: &Target,
        connections: usize,
        connected: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self> {
        // The statements have no state to reset, and transactions are rolled back by their guards or by `Checkout`.
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let config = target.hot_config()?;
        let manager = match target.tls()? {
            Some(tls) => Manager::from_config(config, MakeRustlsConnect::new(tls), recycling),
            None => Manager::from_config(config, NoTls, recycling),
        };
        Pool::builder(manager)
            .max_size(connections.max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_TIME_MAX))
            .create_timeout(Some(CONNECT_TIME_MAX))
            .recycle_timeout(Some(CONNECT_TIME_MAX))
            .post_create(Hook::sync_fn(move |_, _| {
                connected();
                Ok(())
            }))
            .post_recycle(Hook::sync_fn(|client, metrics| {
                let used = metrics.recycled.unwrap_or(metrics.created);
                if plans_are_old(metrics.created.elapsed(), used.elapsed()) {
                    client.statement_cache.clear();
                }
                Ok(())
            }))
            .build()
            .map(Self)
            .map_err(|e| error::refused("set up the connections", e))
    }

    /// Waits for a connection, but not for long.
    pub(crate) async fn get(&self, doing: &'static str) -> Result<Checkout> {
        match self.0.get().await {
            Ok(object) => Ok(Checkout { object: Some(object) }),
            Err(error) => Err(error::unavailable(doing, error)),
        }
    }
}

/// Whether a connection of this age, last used so long ago, makes its plans anew now: with its first use in each minute of its life.
fn plans_are_old(age: Duration, unused: Duration) -> bool {
    let minute = |age: Duration| age.as_millis() / PLAN_AGE_MAX.as_millis();
    minute(age) > minute(age.saturating_sub(unused))
}

impl Checkout {
    pub(crate) fn client(&mut self) -> &mut Client {
        self.object
            .as_mut()
            .expect("only settling takes it, and that consumes")
    }

    /// Gives the connection back, unless the outcome says that it may be broken.
    pub(crate) fn settle<T>(mut self, outcome: Result<T>) -> Result<T> {
        if !outcome.as_ref().is_err_and(StoreError::is_unavailable) {
            drop(self.object.take());
        }
        outcome
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

/// Gives up on what takes longer than a statement may: the server hangs, or the network swallows.
pub(crate) async fn bounded<T>(doing: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    bounded_by(STATEMENT_TIME_MAX, doing, work).await
}

/// As [`bounded`], for what has a time of its own.
pub(crate) async fn bounded_by<T>(
    time_max: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(time_max, work).await {
        Ok(outcome) => outcome,
        Err(slow) => Err(error::unavailable(doing, slow)),
    }
}

/// Runs a statement, prepared once on each connection.
pub(crate) async fn query(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &'static str,
    params: Params<'_>,
) -> Result<Vec<Row>> {
    let run = async {
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, params).await
    };
    run.await.map_err(|e| error::hot(doing, e))
}

/// Prepares statements that are sent together afterwards: one that had to be prepared first would come too late in their
/// order.
pub(crate) async fn prepare(
    client: &impl GenericClient,
    doing: &'static str,
    statements: &[&'static str],
) -> Result<()> {
    for sql in statements {
        let prepared = client.prepare_cached(sql).await;
        prepared.map_err(|e| error::hot(doing, e))?;
    }
    Ok(())
}

/// Runs a statement that returns no rows, prepared once on each connection; says how many rows it wrote. The error is
/// the driver's, for callers that distinguish.
pub(crate) async fn execute(
    client: &impl GenericClient,
    sql: &'static str,
    params: Params<'_>,
) -> std::result::Result<u64, tokio_postgres::Error> {
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, params).await
}

/// A column of a row.
pub(crate) fn column<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T> {
    row.try_get(name).map_err(error::corrupt)
}

/// A column of a row by its place, for where there are many rows: a name is searched for in each.
pub(crate) fn nth_column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(error::corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_made_anew_once_a_minute() {
        let seconds = Duration::from_secs;
        assert!(!plans_are_old(seconds(59), seconds(1)));
        assert!(plans_are_old(seconds(60), seconds(1)));
        assert!(!plans_are_old(seconds(61), seconds(1)));
        assert!(plans_are_old(seconds(185), seconds(70)));
        assert!(!plans_are_old(seconds(3), seconds(9)));
    }
}
