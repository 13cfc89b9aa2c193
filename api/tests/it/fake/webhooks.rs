//! Webhooks as they are kept. Nobody delivers to them here.

use std::{ops::Bound, time::Duration};

use async_trait::async_trait;
use forebay_core::{NewWebhook, State, TaskEvent, TaskId, Timestamp, Webhook, WebhookEvent, WebhookName};
use forebay_store::{
    Delivery, DeliveryStanding, NewDelivery, PutWebhook, Replay, Replayed, Result, Webhooks,
};

use super::{Fake, Inner};

/// The time of what is put.
fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

#[async_trait]
impl Webhooks for Fake {
    async fn put_webhook(&self, webhook: &NewWebhook) -> Result<PutWebhook> {
        let mut inner = self.store("put a webhook").await?;
        let old = inner.webhooks.get(&webhook.name);
        let is_new = old.is_none();
        let kept = webhook.replacing(old, now());
        inner.webhooks.insert(kept.name.clone(), kept.clone());
        Ok(PutWebhook {
            webhook: kept,
            is_new,
        })
    }

    async fn webhook(&self, name: &WebhookName) -> Result<Option<Webhook>> {
        Ok(self.store("read a webhook").await?.webhooks.get(name).cloned())
    }

    async fn webhooks(&self, page_size: usize, after: Option<&WebhookName>) -> Result<Vec<Webhook>> {
        let inner = self.store("list webhooks").await?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = inner.webhooks.range((after, Bound::Unbounded)).take(page_size);
        Ok(page.map(|(_, webhook)| webhook.clone()).collect())
    }

    async fn delete_webhook(&self, name: &WebhookName) -> Result<bool> {
        let mut inner = self.store("delete a webhook").await?;
        inner.deliveries.retain(|(webhook, _)| webhook != name);
        Ok(inner.webhooks.remove(name).is_some())
    }

    async fn disable_webhook(&self, name: &WebhookName, url: &str, reason: &str) -> Result<bool> {
        let mut inner = self.store("disable a webhook").await?;
        let Some(webhook) = inner.webhooks.get_mut(name).filter(|webhook| webhook.url == url) else {
            return Ok(false);
        };
        webhook.disabled = true;
        webhook.disabled_reason = Some(reason.to_owned());
        Ok(true)
    }

    async fn note_failing(&self, name: &WebhookName, _: &str, _: Duration, reason: &str) -> Result<bool> {
        let mut inner = self.store("note that a webhook fails").await?;
        let Some(webhook) = inner.webhooks.get_mut(name) else {
            return Ok(false);
        };
        webhook.disabled = webhook.failing_since.is_some();
        webhook.disabled_reason = webhook.disabled.then(|| reason.to_owned());
        webhook.failing_since = webhook.failing_since.or(Some(now()));
        Ok(webhook.disabled)
    }

    async fn note_working(&self, name: &WebhookName, _: &str) -> Result<()> {
        let mut inner = self.store("note that a webhook works").await?;
        if let Some(webhook) = inner.webhooks.get_mut(name) {
            webhook.failing_since = None;
        }
        Ok(())
    }

    async fn deliveries(
        &self,
        name: &WebhookName,
        page_size: usize,
        before: Option<i64>,
    ) -> Result<Vec<Delivery>> {
        let inner = self.store("list deliveries").await?;
        let its = inner
            .deliveries
            .iter()
            .rev()
            .filter(|(webhook, _)| webhook == name);
        let its = its.filter(|(_, delivery)| before.is_none_or(|before| delivery.place < before));
        Ok(its
            .take(page_size)
            .map(|(_, delivery)| delivery.clone())
            .collect())
    }

    async fn replay(&self, name: &WebhookName, what: Replay) -> Result<Replayed> {
        let mut inner = self.store("replay deliveries").await?;
        let Some(webhook) = inner.webhooks.get(name).cloned() else {
            return Ok(Replayed::NoWebhook);
        };
        if webhook.disabled {
            return Ok(Replayed::Disabled);
        }
        match what {
            Replay::Trial => {
                let new = NewDelivery::new(&webhook, WebhookEvent::trial(&webhook, now()), now());
                Ok(done(&mut inner, new))
            }
            Replay::Task(id) => Ok(of_task(&mut inner, &webhook, id)),
            Replay::Since(..) => Ok(Replayed::Done {
                events: Vec::new(),
                more: false,
            }),
        }
    }
}

fn of_task(inner: &mut Inner, webhook: &Webhook, id: TaskId) -> Replayed {
    let Some(task) = inner.tasks.get(&id) else {
        return Replayed::NoTask;
    };
    if !task.state.is_final() {
        return Replayed::NotFinal(task.state);
    }
    let names = task.terms.as_ref().map(|terms| terms.notify.clone());
    if !names.unwrap_or_default().contains(&webhook.name) {
        return Replayed::NotItsTask;
    }
    let new = NewDelivery::new(webhook, WebhookEvent::trial(webhook, now()), now());
    done(inner, new)
}

fn done(inner: &mut Inner, new: NewDelivery) -> Replayed {
    let events: Vec<TaskEvent> = new.event(now()).into_iter().collect();
    let place = i64::try_from(inner.deliveries.len()).unwrap() + 1;
    let delivery = Delivery {
        place,
        event_id: new.event_id,
        event_kind: new.event_kind,
        task: new.about.map(|(task, ..)| task),
        created_at: now(),
        delivered_by: new.submission.map(|task| task.id),
        standing: Some(DeliveryStanding {
            state: State::Scheduled,
            attempt: 0,
            run_at: Some(now()),
            finished_at: None,
            error: None,
        }),
    };
    inner.deliveries.push((new.webhook, delivery));
    Replayed::Done { events, more: false }
}
