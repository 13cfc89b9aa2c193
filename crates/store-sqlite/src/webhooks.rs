//! Webhooks: what is kept of them. What they are told is in [`deliver`].

mod deliver;
mod rows;

use std::time::Duration;

use async_trait::async_trait;
use forebay_core::{NewWebhook, State, Webhook, WebhookName};
use forebay_store::{Delivery, PutWebhook, Replay, Replayed, Result, Webhooks};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore,
    dispatch::bounded,
    error::failed,
    row::{micros_of, micros_of_duration, to_json},
};

pub(crate) use deliver::enqueue;

const LIST: &str = include_str!("../queries/webhooks_list.sql");
const PUT: &str = include_str!("../queries/webhook_put.sql");
const DELETE: &str = include_str!("../queries/webhook_delete.sql");
const DISABLE: &str = include_str!("../queries/webhook_disable.sql");
const FAILING: &str = include_str!("../queries/webhook_failing.sql");
const WORKING: &str = include_str!("../queries/webhook_working.sql");
const DELIVERIES: &str = include_str!("../queries/webhook_deliveries_list.sql");

#[async_trait]
impl Webhooks for SqliteStore {
    async fn put_webhook(&self, webhook: &NewWebhook) -> Result<PutWebhook> {
        const DOING: &str = "put a webhook";
        let mut tx = self.begin(DOING).await?;
        let old = rows::get(&mut tx, DOING, &webhook.name).await?;
        let kept = webhook.replacing(old.as_ref(), self.clock_now());
        write(&mut tx, DOING, &kept).await?;
        tx.commit().await?;
        Ok(PutWebhook {
            webhook: kept,
            is_new: old.is_none(),
        })
    }

    async fn webhook(&self, name: &WebhookName) -> Result<Option<Webhook>> {
        const DOING: &str = "read a webhook";
        rows::get(&mut *self.reader(DOING).await?, DOING, name).await
    }

    async fn webhooks(&self, page_size: usize, after: Option<&WebhookName>) -> Result<Vec<Webhook>> {
        const DOING: &str = "list webhooks";
        let found = sqlx::query(LIST)
            .bind(after.map_or("", WebhookName::as_str))
            .bind(bounded(page_size))
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        found.iter().map(rows::webhook).collect()
    }

    async fn delete_webhook(&self, name: &WebhookName) -> Result<bool> {
        const DOING: &str = "delete a webhook";
        let mut tx = self.begin(DOING).await?;
        let deleted = sqlx::query(DELETE)
            .bind(name.as_str())
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        tx.commit().await?;
        Ok(deleted.rows_affected() > 0)
    }

    async fn disable_webhook(&self, name: &WebhookName, url: &str, reason: &str) -> Result<bool> {
        const DOING: &str = "disable a webhook";
        let mut tx = self.begin(DOING).await?;
        let disabled = sqlx::query(DISABLE)
            .bind(name.as_str())
            .bind(url)
            .bind(reason)
            .bind(micros_of(self.clock_now()))
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        tx.commit().await?;
        Ok(disabled.rows_affected() > 0)
    }

    async fn note_failing(
        &self,
        name: &WebhookName,
        url: &str,
        patience: Duration,
        reason: &str,
    ) -> Result<bool> {
        const DOING: &str = "note that a webhook fails";
        let mut tx = self.begin(DOING).await?;
        let disabled: Option<bool> = sqlx::query_scalar(FAILING)
            .bind(name.as_str())
            .bind(url)
            .bind(micros_of_duration(patience))
            .bind(reason)
            .bind(micros_of(self.clock_now()))
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        tx.commit().await?;
        Ok(disabled.unwrap_or(false))
    }

    async fn note_working(&self, name: &WebhookName, url: &str) -> Result<()> {
        const DOING: &str = "note that a webhook works";
        let mut tx = self.begin(DOING).await?;
        sqlx::query(WORKING)
            .bind(name.as_str())
            .bind(url)
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        tx.commit().await
    }

    async fn deliveries(
        &self,
        name: &WebhookName,
        page_size: usize,
        before: Option<i64>,
    ) -> Result<Vec<Delivery>> {
        const DOING: &str = "list deliveries";
        let found = sqlx::query(DELIVERIES)
            .bind(name.as_str())
            .bind(before.unwrap_or(i64::MAX))
            .bind(bounded(page_size))
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        found.iter().map(rows::delivery).collect()
    }

    async fn replay(&self, name: &WebhookName, what: Replay) -> Result<Replayed> {
        let mut tx = self.begin("replay deliveries").await?;
        let replayed = deliver::replay(&mut tx, name, what, self.clock_now()).await?;
        tx.commit().await?;
        Ok(replayed)
    }
}

async fn write(tx: &mut SqliteConnection, doing: &'static str, webhook: &Webhook) -> Result<()> {
    let previous = webhook.previous_secret.as_ref();
    let states: Vec<&str> = webhook.states.iter().copied().map(State::as_str).collect();
    sqlx::query(PUT)
        .bind(webhook.name.as_str())
        .bind(&webhook.url)
        .bind(webhook.secret.expose())
        .bind(previous.map(|(secret, _)| secret.expose()))
        .bind(previous.map(|(_, until)| micros_of(*until)))
        .bind(to_json(&states)?)
        .bind(webhook.include_result)
        .bind(webhook.disabled)
        .bind(webhook.disabled_reason.as_deref())
        .bind(webhook.failing_since.map(micros_of))
        .bind(micros_of(webhook.created_at))
        .bind(micros_of(webhook.updated_at))
        .execute(tx)
        .await
        .map_err(failed(doing))?;
    Ok(())
}
