//! Delivers events to webhooks: a handler whose endpoint, and what it signs with, come from the store.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use forebay_core::{Clock, DELIVERY_DELAYS, Json, Timestamp, Webhook, WebhookName};
use forebay_runtime::{metrics::Metrics, supervise::random_unit};
use forebay_store::Store;
use reqwest::{
    Client, RequestBuilder, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::{debug, warn};
use url::Url;

use super::{
    address::Reach,
    answer, chain, check_url, client, failed_at,
    places::{Place, Places},
    refused_literal,
    signature::Signer,
};
use crate::{
    WebhookOptions,
    handlers::{Execution, Handler, HandlerError, HandlerResult},
    shared::{STORE_CALL_MAX, within},
};

/// Structured mode: the event is the body.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
/// How long the store may take to say where to: together with all that follows, less than an attempt may take, so that none is
/// cut off, and made again, which has delivered.
const READ_MAX: Duration = Duration::from_secs(2);
/// How long a delivery waits while the store does not say where to. Costs no attempt.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// How long a delivery waits whose webhook was changed while it was under way. Costs no attempt.
const CHANGED_PAUSE: Duration = Duration::from_secs(1);
/// How long a delivery waits at least, and at most, while too many others to the same slow webhook are under way: long
/// and different enough that those which wait are not claimed for nothing all the time. Costs no attempt. Each time it is
/// longer by as much, up to the last of these, so that a backlog that grows is not a load that grows with it.
const BUSY_PAUSE_MIN: Duration = Duration::from_secs(15);
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(60);
const BUSY_PAUSE_LONGEST: Duration = Duration::from_secs(3_600);
/// How long noting that a webhook fails or works may take: whether it was noted does not decide about the delivery, and
/// the next one notes it.
const NOTE_MAX: Duration = Duration::from_secs(1);
/// From which attempt on one in vain may disable a webhook: some hours after the first, so that no short outage is what does
/// it, days after another one that nothing has been delivered since.
const DISABLING_ATTEMPT: u32 = 6;
const DAY_SECS: u64 = 24 * 60 * 60;
const GONE: &str = "its endpoint answered 410 Gone";

/// Posts events, as CloudEvents that are signed as Standard Webhooks has it.
///
/// Any answer of 2xx is a delivery, and what else it says is not read. 410 disables the webhook and ends the delivery.
/// Everything else is tried again on the schedule of deliveries, or later where `Retry-After` asks for that; redirects are
/// not followed. An address that is not public ends the delivery, unless the operator has allowed it. A webhook that has
/// taken nothing for days is disabled.
pub(crate) struct WebhookHandler {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    reach: Reach,
    plain: Client,
    /// The reason where there are no certificates to trust.
    encrypted: Result<Client, String>,
    places: Arc<Places>,
    answer_max: Duration,
    failing_max: Duration,
}

/// What the payload of a delivery says.
#[derive(Deserialize)]
struct Payload<'a> {
    webhook: WebhookName,
    #[serde(borrow)]
    event: &'a RawValue,
}

#[derive(Deserialize)]
struct EventId {
    id: String,
}

impl WebhookHandler {
    /// A handler that asks `store` for webhooks.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        options: &WebhookOptions,
    ) -> anyhow::Result<Self> {
        let reach = Reach::of(options.allow_private.clone());
        Ok(Self {
            store,
            clock,
            metrics,
            plain: client("http", reach.clone())?,
            encrypted: client("https", reach.clone()).map_err(|error| chain(&error)),
            reach,
            places: Places::new(options.slots.div_ceil(2), options.patience),
            answer_max: options.answer_max,
            failing_max: options.failing_max,
        })
    }

    async fn webhook(&self, name: &WebhookName) -> Result<Webhook, HandlerError> {
        let asked = within(READ_MAX, "read a webhook", self.store.webhook(name)).await;
        let found = asked.map_err(|_| HandlerError::snooze(STORE_PAUSE))?;
        let webhook = found
            .ok_or_else(|| HandlerError::permanent(format_args!("there is no webhook {name} any more")))?;
        if webhook.disabled {
            return Err(HandlerError::permanent(format_args!(
                "the webhook {name} is disabled"
            )));
        }
        Ok(webhook)
    }

    async fn deliver(&self, execution: &Execution) -> HandlerResult {
        let malformed = |error: serde_json::Error| {
            HandlerError::permanent(format_args!("this is the payload of no delivery: {error}"))
        };
        let payload: Payload<'_> = serde_json::from_slice(execution.payload.as_bytes()).map_err(malformed)?;
        let EventId { id } = serde_json::from_str(payload.event.get()).map_err(malformed)?;
        let webhook = self.webhook(&payload.webhook).await?;
        let Some(place) = self.places.enter(&webhook.name).await else {
            let handed_back = execution.fence.saturating_sub(execution.attempt);
            return Err(HandlerError::snooze(busy_pause(random_unit(), handed_back)));
        };
        let (url, host) = check_url(&webhook.url).map_err(HandlerError::permanent)?;
        let request = self.request(execution, &webhook, url.clone(), &id, payload.event)?;
        match self.post(request, &url, &host, execution.attempt).await {
            Ok(StatusCode::GONE) => Err(self.disable(&webhook).await),
            Ok(status) => {
                self.note_working(&webhook, &place).await;
                Json::of(&serde_json::json!({"status": status.as_u16()})).map_err(HandlerError::permanent)
            }
            Err(error) => Err(self
                .note_failing(&webhook, &place, execution.attempt, error)
                .await),
        }
    }

    /// The status with which the endpoint took it, or is gone; the error is the endpoint's.
    async fn post(
        &self,
        request: RequestBuilder,
        url: &Url,
        host: &str,
        attempt: u32,
    ) -> Result<StatusCode, HandlerError> {
        if let Some(refused) = refused_literal(url, &self.reach) {
            return Err(HandlerError::permanent(format_args!(
                "{host} was not called: {refused}"
            )));
        }
        let response = request.send().await.map_err(|error| failed_at(host, error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::GONE {
            return Ok(status);
        }
        let answer = answer::read(response)
            .await
            .map_err(|error| failed_at(host, error))?;
        let declined = answer.declined(host, self.clock.now());
        Err(not_before_schedule(declined, attempt))
    }

    fn request(
        &self,
        execution: &Execution,
        webhook: &Webhook,
        url: Url,
        id: &str,
        event: &RawValue,
    ) -> Result<RequestBuilder, HandlerError> {
        let client = match url.scheme() {
            "http" => &self.plain,
            _ => self.encrypted.as_ref().map_err(HandlerError::retryable)?,
        };
        let now = self.clock.now();
        let sent_at = now.as_second();
        let body = event.get().as_bytes();
        let mut signatures = Vec::with_capacity(2);
        for secret in webhook.secrets(now) {
            let signer = Signer::new(secret.expose()).map_err(HandlerError::permanent)?;
            signatures.push(signer.sign(id, sent_at, body));
        }
        let mut request = client
            .post(url)
            .timeout(self.answer_max)
            .header(CONTENT_TYPE, MEDIA_TYPE)
            .header("webhook-id", id)
            .header("webhook-timestamp", sent_at)
            .header("webhook-signature", signatures.join(" "));
        if let Some(trace) = &execution.traceparent {
            request = request.header("traceparent", trace.as_str());
        }
        Ok(request.body(body.to_vec()))
    }

    /// The endpoint wants to hear nothing more.
    async fn disable(&self, webhook: &Webhook) -> HandlerError {
        let name = &webhook.name;
        let disabling = self.store.disable_webhook(name, &webhook.url, GONE);
        match within(STORE_CALL_MAX, "disable a webhook", disabling).await {
            Ok(true) => self.disabled(name, GONE),
            // It has another URL by now, or is gone or disabled: the next look tells.
            Ok(false) => HandlerError::snooze(CHANGED_PAUSE),
            // It says so again.
            Err(_) => HandlerError::snooze(STORE_PAUSE),
        }
    }

    fn disabled(&self, name: &WebhookName, reason: &str) -> HandlerError {
        warn!(webhook = %name, "a webhook was disabled: {reason}");
        self.metrics.webhook_disabled();
        HandlerError::permanent(format_args!("the webhook {name} is disabled: {reason}"))
    }

    /// The endpoint has not taken an event. Written once when that begins, and once when it has lasted for too long.
    async fn note_failing(
        &self,
        webhook: &Webhook,
        place: &Place,
        attempt: u32,
        error: HandlerError,
    ) -> HandlerError {
        let has_lasted = |since: Timestamp| {
            let lasted = self.clock.now().duration_since(since);
            Duration::try_from(lasted).unwrap_or_default() >= self.failing_max
        };
        let is_noted = match webhook.failing_since {
            None => counts(attempt, &error),
            Some(since) => may_disable(attempt, &error) && has_lasted(since),
        };
        if !is_noted {
            return error;
        }
        place.note_failing(true);
        let name = &webhook.name;
        let reason = format!(
            "it has taken nothing for {} days",
            self.failing_max.as_secs() / DAY_SECS
        );
        let noting = self
            .store
            .note_failing(name, &webhook.url, self.failing_max, &reason);
        match within(NOTE_MAX, "note that a webhook fails", noting).await {
            Ok(true) => self.disabled(name, &reason),
            Ok(false) => error,
            Err(unnoted) => {
                debug!(webhook = %name, error = chain(&unnoted), "did not note that a webhook fails");
                error
            }
        }
    }

    /// The endpoint has taken an event.
    async fn note_working(&self, webhook: &Webhook, place: &Place) {
        if webhook.failing_since.is_none() && !place.is_failing() {
            return;
        }
        place.note_failing(false);
        let name = &webhook.name;
        let noting = self.store.note_working(name, &webhook.url);
        if let Err(error) = within(NOTE_MAX, "note that a webhook works", noting).await {
            debug!(webhook = %name, error = chain(&error), "did not note that a webhook works");
        }
    }
}

/// Whether an attempt in vain says that a webhook fails: one attempt may fail anywhere, and a webhook that takes most
/// things at once is not to be written to with each that it does not.
fn counts(attempt: u32, error: &HandlerError) -> bool {
    attempt > 1 || matches!(error, HandlerError::Permanent { .. })
}

/// Whether an attempt in vain may disable a webhook that fails for long.
fn may_disable(attempt: u32, error: &HandlerError) -> bool {
    attempt >= DISABLING_ATTEMPT || matches!(error, HandlerError::Permanent { .. })
}

/// What an endpoint asks for may be longer than the schedule's pause, and no shorter: the attempts are to last for days.
fn not_before_schedule(error: HandlerError, attempt: u32) -> HandlerError {
    let place = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    match error {
        HandlerError::RetryAfter { message, delay } => {
            let scheduled = DELIVERY_DELAYS.get(place).or(DELIVERY_DELAYS.last());
            HandlerError::retry_after(delay.max(scheduled.copied().unwrap_or_default()), message)
        }
        other => other,
    }
}

/// `random` is uniform in `0.0..1.0`. The delivery was handed back so many times before.
fn busy_pause(random: f64, handed_back: u32) -> Duration {
    let pause = BUSY_PAUSE_MIN + (BUSY_PAUSE_MAX - BUSY_PAUSE_MIN).mul_f64(random);
    let times = handed_back.saturating_add(1);
    pause.saturating_mul(times).min(BUSY_PAUSE_LONGEST)
}

#[async_trait]
impl Handler for WebhookHandler {
    async fn run(&self, execution: Execution) -> HandlerResult {
        tokio::select! {
            result = self.deliver(&execution) => result,
            // Dropping the call closes its connection.
            _ = execution.stop.cancelled() => Err(HandlerError::retryable("the delivery was broken off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_core::DELIVERY_TIMEOUT;

    use super::*;

    #[test]
    fn what_is_asked_for_counts_where_it_is_longer_than_the_schedule() {
        let seconds = Duration::from_secs;
        for (attempt, asked, waits) in [
            (1, 0, 5),
            (1, 7, 7),
            (2, 7, 300),
            (2, 3_600, 3_600),
            (9, 3_600, 86_400),
            (10, 0, 86_400),
        ] {
            let error = not_before_schedule(HandlerError::retry_after(seconds(asked), "later"), attempt);
            assert_eq!(
                error,
                HandlerError::retry_after(seconds(waits), "later"),
                "{attempt}"
            );
        }
        let without = HandlerError::retryable("no");
        assert_eq!(
            not_before_schedule(without, 1),
            HandlerError::retryable("no"),
            "the task's own schedule counts"
        );
    }

    #[test]
    fn a_first_attempt_in_vain_says_nothing_of_a_webhook() {
        let (again, never) = (HandlerError::retryable("no"), HandlerError::permanent("no"));
        assert!(!counts(1, &again) && !counts(1, &HandlerError::retry_after(BUSY_PAUSE_MIN, "no")));
        assert!(counts(2, &again) && counts(1, &never));
        assert!(!may_disable(5, &again), "of a short outage");
        assert!(may_disable(6, &again) && may_disable(1, &never));
    }

    #[test]
    fn what_was_delivered_is_not_cut_off() {
        let options = WebhookOptions::default();
        let all = READ_MAX + options.patience + options.answer_max + NOTE_MAX;
        assert!(all < DELIVERY_TIMEOUT, "{all:?}");
    }

    #[test]
    fn those_beyond_the_places_come_back_at_different_times() {
        assert_eq!(busy_pause(0.0, 0), BUSY_PAUSE_MIN);
        let (one, other) = (busy_pause(0.3, 0), busy_pause(0.9, 0));
        assert!(one < other && other < BUSY_PAUSE_MAX);
        assert_eq!(busy_pause(0.0, 9), BUSY_PAUSE_MIN * 10);
        assert_eq!(busy_pause(0.9, u32::MAX), BUSY_PAUSE_LONGEST);
    }
}
