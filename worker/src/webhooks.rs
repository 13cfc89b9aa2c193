//! Deliveries to webhooks: a small executor beside the dispatcher, with one handler. Deliveries are tasks, so all that
//! is known of tasks holds for them: retries, dead letters, cancellation, pauses of their queue.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use forebay_core::{
    DELIVERY_ANSWER_MAX, DELIVERY_ATTEMPTS_MAX, DELIVERY_TIMEOUT, FAILING_MAX, QueueName, RetryPolicy,
    WEBHOOK_KIND, WEBHOOK_QUEUE,
};
use forebay_runtime::health::Health;
use ipnet::IpNet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    HandlerSettings, Handlers, Roles, WorkerOptions,
    executor::Executor,
    handlers::http::WebhookHandler,
    shared::{STORE_CALL_MAX, Shared, chain, within},
};

/// How webhooks are delivered to.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookOptions {
    /// Networks that are delivered to although they are not public.
    pub allow_private: Vec<IpNet>,
    /// How many deliveries are under way at once; half of these to one webhook.
    pub slots: usize,
    /// How long a delivery waits where its webhook has all of these already, before it is handed back for a while. A
    /// receiver that takes longer than this for one is slow, and none waits for it.
    pub patience: Duration,
    /// How long a receiver may take to answer; at most the 25 seconds that an attempt may take.
    pub answer_max: Duration,
    /// For how long every delivery to a webhook has to fail until it is disabled.
    pub failing_max: Duration,
    /// How often the store is asked whether there is a webhook, until there is one.
    pub look_every: Duration,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            allow_private: Vec::new(),
            slots: 64,
            patience: Duration::from_secs(1),
            answer_max: DELIVERY_ANSWER_MAX,
            failing_max: FAILING_MAX,
            look_every: Duration::from_secs(1),
        }
    }
}

/// Delivers until `stop`. Costs nothing but a small question every now and then until there is a webhook.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    if stop.run_until_cancelled(first_webhook(&shared)).await.is_none() {
        return Ok(());
    }
    let own = Arc::new(own(&shared)?);
    drop(shared);
    Executor::new(own, &stop).run(stop.clone()).await
}

async fn first_webhook(shared: &Shared) {
    loop {
        match within(
            STORE_CALL_MAX,
            "look for webhooks",
            shared.store.webhooks(1, None),
        )
        .await
        {
            Ok(found) if !found.is_empty() => return,
            Ok(_) => {}
            Err(error) => debug!(
                error = chain(&error),
                "did not find out whether there are webhooks"
            ),
        }
        tokio::time::sleep(shared.options.webhooks.look_every).await;
    }
}

/// What the executor is given. Its health is its own and shown to nobody: what keeps it from working keeps the
/// dispatcher, too, and that says so.
fn own(shared: &Shared) -> anyhow::Result<Shared> {
    let options = &shared.options.webhooks;
    let handler = WebhookHandler::new(
        Arc::clone(&shared.store),
        Arc::clone(&shared.clock),
        Arc::clone(&shared.metrics),
        options,
    );
    let handler = handler.context("prepare to deliver to webhooks")?;
    let settings = HandlerSettings {
        timeout: DELIVERY_TIMEOUT,
        retry: RetryPolicy {
            attempts_max: DELIVERY_ATTEMPTS_MAX,
            ..RetryPolicy::default()
        },
        ..HandlerSettings::default()
    };
    let kind = WEBHOOK_KIND.parse().context("the kind of deliveries")?;
    let queue: QueueName = WEBHOOK_QUEUE.parse().context("the queue of deliveries")?;
    let mut handlers = Handlers::new();
    handlers.register(kind, settings, handler)?;
    Ok(Shared {
        options: WorkerOptions {
            name: format!("{}/webhooks", shared.options.name),
            queues: vec![queue],
            roles: Roles::EXECUTOR,
            concurrency: options.slots,
            once: false,
            tasks_max: None,
            ..shared.options.clone()
        },
        handlers,
        store: Arc::clone(&shared.store),
        broker: Arc::clone(&shared.broker),
        clock: Arc::clone(&shared.clock),
        metrics: Arc::clone(&shared.metrics),
        health: Health::default(),
        events: shared.events.clone(),
        hearing: None,
        neighbours: shared.neighbours.clone(),
        progress: Arc::default(),
        due: Arc::clone(&shared.due),
        load: watch::Sender::default(),
        #[cfg(feature = "sabotage")]
        sabotage: crate::Sabotage::default(),
    })
}
