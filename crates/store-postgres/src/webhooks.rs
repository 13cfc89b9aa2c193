//! Webhooks: what is kept of them. What they are told is in [`deliver`].

mod deliver;
mod rows;

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Client, GenericClient};
use forebay_core::{NewWebhook, State, Webhook, WebhookName};
use forebay_store::{Delivery, PutWebhook, Replay, Replayed, Result, Webhooks};

use crate::{
    PostgresStore, dispatch, error,
    hot::{Params, bounded, column, query},
    values::{Instant, duration_us},
};

pub(crate) use deliver::enqueue;

/// How often a webhook is tried to be put, should it come and go all the time.
const PUT_TRIES: usize = 5;

#[async_trait]
impl Webhooks for PostgresStore {
    async fn put_webhook(&self, webhook: &NewWebhook) -> Result<PutWebhook> {
        const DOING: &str = "put a webhook";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, put(connection.client(), webhook)).await;
        connection.settle(outcome)
    }

    async fn webhook(&self, name: &WebhookName) -> Result<Option<Webhook>> {
        const DOING: &str = "read a webhook";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, rows::get(connection.client(), DOING, &[name])).await;
        connection.settle(outcome).map(|mut found| found.pop())
    }

    async fn webhooks(&self, page_size: usize, after: Option<&WebhookName>) -> Result<Vec<Webhook>> {
        const DOING: &str = "list webhooks";
        let sql = include_str!("../queries/webhooks_list.sql");
        let limit = i64::try_from(page_size).unwrap_or(i64::MAX);
        let after = after.map_or("", WebhookName::as_str);
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, &[&after, &limit])).await;
        let found = connection.settle(outcome)?;
        found.iter().map(rows::webhook).collect()
    }

    async fn delete_webhook(&self, name: &WebhookName) -> Result<bool> {
        const DOING: &str = "delete a webhook";
        let sql = include_str!("../queries/webhooks_delete.sql");
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, &[&name.as_str()])).await;
        connection.settle(outcome).map(|rows| !rows.is_empty())
    }

    async fn disable_webhook(&self, name: &WebhookName, url: &str, reason: &str) -> Result<bool> {
        const DOING: &str = "disable a webhook";
        let sql = include_str!("../queries/webhooks_disable.sql");
        let params: Params<'_> = &[&name.as_str(), &url, &reason];
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, params)).await;
        connection.settle(outcome).map(|rows| !rows.is_empty())
    }

    async fn note_failing(
        &self,
        name: &WebhookName,
        url: &str,
        patience: Duration,
        reason: &str,
    ) -> Result<bool> {
        const DOING: &str = "note that a webhook fails";
        let sql = include_str!("../queries/webhooks_failing.sql");
        let params: Params<'_> = &[&name.as_str(), &url, &duration_us(patience), &reason];
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, params)).await;
        let found = connection.settle(outcome)?;
        found.first().map_or(Ok(false), |row| column(row, "disabled"))
    }

    async fn note_working(&self, name: &WebhookName, url: &str) -> Result<()> {
        const DOING: &str = "note that a webhook works";
        let sql = include_str!("../queries/webhooks_working.sql");
        let params: Params<'_> = &[&name.as_str(), &url];
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, params)).await;
        connection.settle(outcome).map(drop)
    }

    async fn deliveries(
        &self,
        name: &WebhookName,
        page_size: usize,
        before: Option<i64>,
    ) -> Result<Vec<Delivery>> {
        const DOING: &str = "list deliveries";
        let sql = include_str!("../queries/webhook_deliveries_list.sql");
        let limit = i64::try_from(page_size).unwrap_or(i64::MAX);
        let params: Params<'_> = &[&name.as_str(), &before.unwrap_or(i64::MAX), &limit];
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, params)).await;
        let found = connection.settle(outcome)?;
        found.iter().map(rows::delivery).collect()
    }

    async fn replay(&self, name: &WebhookName, what: Replay) -> Result<Replayed> {
        const DOING: &str = "replay deliveries";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, deliver::replay(connection.client(), name, what)).await;
        connection.settle(outcome)
    }
}

async fn put(client: &mut Client, webhook: &NewWebhook) -> Result<PutWebhook> {
    const DOING: &str = "put a webhook";
    for _ in 0..PUT_TRIES {
        let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
        let put = try_to_put(&transaction, DOING, webhook).await?;
        transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
        if let Some(put) = put {
            return Ok(put);
        }
    }
    Err(error::unavailable(DOING, "it comes and goes all the time"))
}

/// `None` where somebody else has made it in this moment.
async fn try_to_put(
    client: &impl GenericClient,
    doing: &'static str,
    webhook: &NewWebhook,
) -> Result<Option<PutWebhook>> {
    let held = include_str!("../queries/webhooks_hold.sql");
    let found = query(client, doing, held, &[&webhook.name.as_str()]).await?;
    let old = found.first().map(rows::webhook).transpose()?;
    let kept = webhook.replacing(old.as_ref(), dispatch::now(client).await?);
    let sql = match old {
        None => include_str!("../queries/webhooks_add.sql"),
        Some(_) => include_str!("../queries/webhooks_replace.sql"),
    };
    let written = write(client, doing, sql, &kept).await?;
    Ok(written.then_some(PutWebhook {
        webhook: kept,
        is_new: old.is_none(),
    }))
}

async fn write(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &'static str,
    webhook: &Webhook,
) -> Result<bool> {
    let previous = webhook.previous_secret.as_ref();
    let states: Vec<&str> = webhook.states.iter().copied().map(State::as_str).collect();
    let params: Params<'_> = &[
        &webhook.name.as_str(),
        &webhook.url,
        &webhook.secret.expose(),
        &previous.map(|(secret, _)| secret.expose()),
        &previous.map(|(_, until)| Instant(*until)),
        &states,
        &webhook.include_result,
        &webhook.disabled,
        &webhook.disabled_reason,
        &webhook.failing_since.map(Instant),
        &Instant(webhook.created_at),
        &Instant(webhook.updated_at),
    ];
    Ok(!query(client, doing, sql, params).await?.is_empty())
}
