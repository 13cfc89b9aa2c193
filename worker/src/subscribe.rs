//! A subscription that cannot go deaf: one that does not answer is dropped and made anew, and health says so.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use forebay_broker::{Acknowledge, Broker, Delivery, Source, Subscription, Token};
use forebay_runtime::{health::Reporter, supervise::Backoff};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::shared::BROKER_CALL_MAX;

/// How long the first round of a subscription waits: short, so that it is soon known whether it works.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// What one round brought.
pub(crate) struct Received {
    pub(crate) deliveries: Vec<Delivery>,
    /// The subscription's answering side.
    pub(crate) acks: Arc<dyn Acknowledge>,
}

/// Reads one source, round by round.
pub(crate) struct Reader {
    broker: Arc<dyn Broker>,
    source: Source,
    deaf_after: Duration,
    reporter: Reporter,
    /// Ends the waits between failed rounds.
    stop: CancellationToken,
    subscription: Option<Subscription>,
    backoff: Backoff,
    healthy: bool,
    /// Whether the log says that it fails: once when it begins, and once when it works again.
    failing: bool,
}

impl Reader {
    pub(crate) fn new(
        broker: Arc<dyn Broker>,
        source: Source,
        deaf_after: Duration,
        reporter: Reporter,
        stop: CancellationToken,
    ) -> Self {
        Self {
            broker,
            source,
            deaf_after,
            reporter,
            stop,
            subscription: None,
            backoff: Backoff::default(),
            healthy: false,
            failing: false,
        }
    }

    /// One round: up to `max` deliveries within `wait`. `None` where the subscription is broken; that was reported
    /// and waited out, and the next round makes a new one.
    pub(crate) async fn round(&mut self, max: usize, wait: Duration) -> Option<Received> {
        match self.attempt(max, wait).await {
            Ok(received) => {
                self.reporter.ok();
                self.healthy = true;
                self.backoff = Backoff::default();
                if std::mem::take(&mut self.failing) {
                    info!(source = ?self.source, "the subscription works again");
                }
                Some(received)
            }
            Err(problem) => {
                self.subscription = None;
                self.healthy = false;
                let error = format!("{problem:#}");
                if std::mem::replace(&mut self.failing, true) {
                    debug!(source = ?self.source, error, "the subscription still fails");
                } else {
                    warn!(source = ?self.source, error, "the subscription fails, and is made anew until it works");
                }
                self.reporter.failing(format_args!("{problem:#}"));
                tokio::select! {
                    () = tokio::time::sleep(self.backoff.next()) => {}
                    () = self.stop.cancelled() => {}
                }
                None
            }
        }
    }

    async fn attempt(&mut self, max: usize, wait: Duration) -> anyhow::Result<Received> {
        let (subscription, wait) = match &mut self.subscription {
            Some(subscription) => (subscription, wait),
            none => {
                let consumed =
                    tokio::time::timeout(BROKER_CALL_MAX, self.broker.consume(self.source.clone()))
                        .await
                        .context("the broker does not answer")??;
                (none.insert(consumed), wait.min(FIRST_WAIT))
            }
        };
        let next = subscription.consumer.next(max, wait);
        let Ok(answer) = tokio::time::timeout(wait + self.deaf_after, next).await else {
            bail!("the subscription has gone deaf");
        };
        Ok(Received {
            deliveries: answer?,
            acks: Arc::clone(&subscription.acks),
        })
    }

    /// Says that nothing is wrong with it while it is deliberately not read.
    pub(crate) fn resting(&self) {
        if self.healthy {
            self.reporter.ok();
        }
    }

    /// As [`Self::resting`], where it is not read whatever it was like before.
    pub(crate) fn at_rest(&self) {
        self.reporter.ok();
    }

    /// Gives up the subscription, which is to be closed; the next round makes a new one. `None` where there is none.
    pub(crate) fn leave(&mut self) -> Option<Leaving> {
        let limit = self.deaf_after;
        self.subscription
            .take()
            .map(|subscription| Leaving { subscription, limit })
    }

    /// For good, and in good order.
    pub(crate) async fn close(mut self) {
        if let Some(leaving) = self.leave() {
            leaving.close().await;
        }
        self.retire();
    }

    /// For good.
    pub(crate) fn retire(&self) {
        self.reporter.retire();
    }
}

/// A subscription that is read no more.
pub(crate) struct Leaving {
    subscription: Subscription,
    limit: Duration,
}

impl Leaving {
    /// In good order: what was asked for and not answered yet goes back to the broker. Were it only dropped, that would
    /// come again when the broker has waited in vain for an answer.
    pub(crate) async fn close(mut self) {
        // An answer that is later than this has gone astray.
        let _ = tokio::time::timeout(self.limit, self.subscription.consumer.close()).await;
    }
}

/// Answers to deliveries, gathered by the subscription that made them.
#[derive(Default)]
pub(crate) struct Receipts {
    groups: Vec<(Arc<dyn Acknowledge>, Vec<Token>)>,
}

impl Receipts {
    pub(crate) fn add(&mut self, acks: &Arc<dyn Acknowledge>, token: Token) {
        self.group(acks).push(token);
    }

    pub(crate) fn append(&mut self, other: Self) {
        for (acks, mut tokens) in other.groups {
            self.group(&acks).append(&mut tokens);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The tokens of one subscription. There are few subscriptions, and what comes together is mostly of the same.
    fn group(&mut self, acks: &Arc<dyn Acknowledge>) -> &mut Vec<Token> {
        let same = |(known, _): &(Arc<dyn Acknowledge>, Vec<Token>)| {
            std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(acks))
        };
        let index = self.groups.iter().position(same).unwrap_or_else(|| {
            self.groups.push((Arc::clone(acks), Vec::new()));
            self.groups.len() - 1
        });
        &mut self.groups[index].1
    }

    /// These are done. Where that can't be said they come again, and are turned away.
    pub(crate) async fn ack(self) {
        for (acks, tokens) in self.groups {
            let count = tokens.len();
            let answered = tokio::time::timeout(BROKER_CALL_MAX, acks.ack(tokens)).await;
            if !matches!(answered, Ok(Ok(()))) {
                debug!(count, "an acknowledgement failed, the messages come again");
            }
        }
    }

    /// These are left to the store. Where that can't be said they come again.
    pub(crate) async fn leave(self) {
        for (acks, tokens) in self.groups {
            let count = tokens.len();
            let answered = tokio::time::timeout(BROKER_CALL_MAX, acks.leave(tokens)).await;
            if !matches!(answered, Ok(Ok(()))) {
                debug!(count, "leaving messages to the store failed, they come again");
            }
        }
    }

    /// These are not done. Where that can't be said the broker finds out by itself, later.
    pub(crate) async fn hand_back(self) {
        for (acks, tokens) in self.groups {
            let count = tokens.len();
            let answered = tokio::time::timeout(BROKER_CALL_MAX, acks.hand_back(tokens)).await;
            if !matches!(answered, Ok(Ok(()))) {
                debug!(count, "handing back failed, the messages come again later");
            }
        }
    }
}
