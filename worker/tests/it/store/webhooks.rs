//! There are no webhooks in the store in memory.

use std::time::Duration;

use async_trait::async_trait;
use forebay_core::{NewWebhook, Webhook, WebhookName};
use forebay_store::{Delivery, PutWebhook, Replay, Replayed, Result, StoreError, Webhooks};

use super::MemoryStore;

#[async_trait]
impl Webhooks for MemoryStore {
    async fn put_webhook(&self, _: &NewWebhook) -> Result<PutWebhook> {
        Err(StoreError::Refused {
            doing: "put a webhook",
            source: "there are none here".into(),
        })
    }

    async fn webhook(&self, _: &WebhookName) -> Result<Option<Webhook>> {
        Ok(None)
    }

    async fn webhooks(&self, _: usize, _: Option<&WebhookName>) -> Result<Vec<Webhook>> {
        Ok(Vec::new())
    }

    async fn delete_webhook(&self, _: &WebhookName) -> Result<bool> {
        Ok(false)
    }

    async fn disable_webhook(&self, _: &WebhookName, _: &str, _: &str) -> Result<bool> {
        Ok(false)
    }

    async fn note_failing(&self, _: &WebhookName, _: &str, _: Duration, _: &str) -> Result<bool> {
        Ok(false)
    }

    async fn note_working(&self, _: &WebhookName, _: &str) -> Result<()> {
        Ok(())
    }

    async fn deliveries(&self, _: &WebhookName, _: usize, _: Option<i64>) -> Result<Vec<Delivery>> {
        Ok(Vec::new())
    }

    async fn replay(&self, _: &WebhookName, _: Replay) -> Result<Replayed> {
        Ok(Replayed::NoWebhook)
    }
}
