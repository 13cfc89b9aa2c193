//! Makes a worker break the first promise on purpose, so that a suite which looks for lost tasks can prove that it sees
//! one. Compiled only with the feature `sabotage`, and without effect unless [`Worker::sabotage`] is called: there is no
//! flag, no variable and no setting for it, so a binary whose own code does not ask for it cannot be made to.
//!
//! [`Worker::sabotage`]: crate::Worker::sabotage

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use forebay_broker::{Acknowledge, Result, Token};

use crate::subscribe::Receipts;

/// How a worker is to break its promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sabotage {
    /// Acknowledges deliveries before the store has them, and then waits for so long before it asks the store. A crash
    /// within that time loses them. `None` for the right order.
    pub acknowledge_first: Option<Duration>,
}

impl Sabotage {
    /// The wrong order: what is to be done last is done first, and not again.
    pub(crate) async fn before_commit<'a>(
        self,
        deliveries: impl Iterator<Item = (&'a mut Arc<dyn Acknowledge>, Token)>,
    ) {
        let Some(pause) = self.acknowledge_first else {
            return;
        };
        let mut receipts = Receipts::default();
        for (acks, token) in deliveries {
            receipts.add(acks, token);
            *acks = Arc::new(Settled);
        }
        receipts.ack().await;
        tokio::time::sleep(pause).await;
    }
}

/// Where deliveries were acknowledged already.
struct Settled;

#[async_trait]
impl Acknowledge for Settled {
    async fn ack(&self, _: Vec<Token>) -> Result<()> {
        Ok(())
    }

    async fn hand_back(&self, _: Vec<Token>) -> Result<()> {
        Ok(())
    }
}
