//! Publishing: atomic batches where the server has them, single messages in a row where not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use forebay_broker::{Message, PublishError, Source, wire};
use forebay_core::Lane;
use futures::StreamExt;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    api::{self, ApiError, PublishAck},
    connection::{Connection, with_causes},
    topology::{Topology, subject},
};

/// The most messages in one atomic batch; the server's own bound.
const BATCH_MAX: usize = 1_000;
/// From how many messages on an atomic batch is worth it. The server stages a batch in files of its own, which costs
/// about as much as syncing this many messages one by one.
const ATOMIC_MIN: usize = 32;
/// How many batches this connection has under way at once. The server takes 50 on a stream, from all its clients.
const BATCHES_IN_FLIGHT_MAX: usize = 12;

type Outcome = Result<(), PublishError>;

/// A message as it goes over the wire.
struct Outgoing {
    subject: String,
    body: Bytes,
}

/// What publishes.
pub(crate) struct Publisher {
    connection: Connection,
    topology: Arc<Topology>,
    timeout: Duration,
    batches: Semaphore,
    /// Batches are named by this, which no other connection has, and a number.
    batch_prefix: String,
    batch_number: AtomicU64,
}

impl Publisher {
    pub(crate) fn new(connection: Connection, topology: Arc<Topology>, timeout: Duration) -> Self {
        let inbox = connection.client.new_inbox();
        let unique = inbox.rsplit('.').next().unwrap_or_default();
        Self {
            batch_prefix: unique.to_owned(),
            batch_number: AtomicU64::new(0),
            batches: Semaphore::new(BATCHES_IN_FLIGHT_MAX),
            connection,
            topology,
            timeout,
        }
    }

    /// Publishes, and answers within the timeout: what is not confirmed by then counts as not taken.
    pub(crate) async fn publish(&self, batch: Vec<Message>) -> Vec<Outcome> {
        if let Err(why) = self.connection.check() {
            return vec![Err(PublishError::Unavailable(why)); batch.len()];
        }
        let late = PublishError::Unavailable(format!("no confirmation within {:?}", self.timeout));
        let mut outcomes = vec![Err(late); batch.len()];
        let deadline = Instant::now() + self.timeout;
        // At the deadline the outcomes that are known by then remain.
        let _ = timeout_at(deadline, self.publish_all(&batch, &mut outcomes)).await;
        outcomes
    }

    async fn publish_all(&self, batch: &[Message], outcomes: &mut [Outcome]) {
        let lanes = lanes_of(batch);
        if let Err(error) = self.ensure(&lanes).await {
            outcomes.fill(Err(refusal(&error)));
            return;
        }
        let outgoing: Vec<Outgoing> = batch
            .iter()
            .map(|message| Outgoing {
                subject: subject(message),
                body: wire::encode(message),
            })
            .collect();
        // One after the other: a lane is first in, first out.
        for (part, outcomes) in outgoing.chunks(BATCH_MAX).zip(outcomes.chunks_mut(BATCH_MAX)) {
            self.publish_part(part, &lanes, outcomes).await;
        }
    }

    /// Publishes up to [`BATCH_MAX`] messages, once more where the stream turns out to be gone.
    async fn publish_part(&self, part: &[Outgoing], lanes: &[Lane], outcomes: &mut [Outcome]) {
        let mut results = self.attempt(part).await;
        if results
            .iter()
            .any(|result| matches!(result, Err(error) if error.is_no_stream()))
        {
            tracing::warn!("the stream is gone, making it again");
            self.topology.forget_all();
            if self.ensure(lanes).await.is_ok() {
                self.retry_missing(part, &mut results).await;
            }
        }
        for (outcome, result) in outcomes.iter_mut().zip(results) {
            *outcome = result.map_err(|error| refusal(&error));
        }
    }

    async fn retry_missing(&self, part: &[Outgoing], results: &mut [Result<(), ApiError>]) {
        if results.iter().all(Result::is_err) {
            results.clone_from_slice(&self.attempt(part).await);
            return;
        }
        for (message, result) in part.iter().zip(results) {
            if matches!(result, Err(error) if error.is_no_stream()) {
                *result = self.publish_one(message).await;
            }
        }
    }

    async fn attempt(&self, part: &[Outgoing]) -> Vec<Result<(), ApiError>> {
        if part.len() >= ATOMIC_MIN && self.topology.is_atomic() {
            match self.publish_atomic(part).await {
                // Nothing of the batch was stored, so it may go message by message.
                Err(error) if error.is_about_the_batch() => {
                    tracing::warn!(%error, "the server refused a batch, publishing its messages singly");
                }
                whole => return vec![whole; part.len()],
            }
        }
        self.publish_singly(part).await
    }

    /// Publishes in order, and does not wait for one confirmation before the next message.
    async fn publish_singly(&self, part: &[Outgoing]) -> Vec<Result<(), ApiError>> {
        if let [lone] = part {
            return vec![self.publish_one(lone).await];
        }
        let unanswered = ApiError::Unreachable("the confirmation did not come in time".to_owned());
        let mut results = vec![Err(unanswered); part.len()];
        let answered = self.pipeline(part, &mut results);
        // A little less than the whole, so that what was confirmed is not given up with what was not.
        if let Ok(Err(error)) = timeout(self.timeout.mul_f64(0.9), answered).await {
            fill_unanswered(&mut results, &error);
        }
        results
    }

    async fn pipeline(
        &self,
        part: &[Outgoing],
        results: &mut [Result<(), ApiError>],
    ) -> Result<(), ApiError> {
        let unreachable = |error: &dyn std::error::Error| ApiError::Unreachable(with_causes(error));
        let mut losses = self.connection.watch_losses();
        losses.mark_unchanged();
        self.connection.check().map_err(ApiError::Unreachable)?;
        let client = &self.connection.client;
        let inbox = client.new_inbox();
        let mut answers = client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|e| unreachable(&e))?;
        for (index, message) in part.iter().enumerate() {
            let (subject, reply) = (message.subject.clone(), format!("{inbox}.{index}"));
            let sent = client
                .publish_with_reply(subject, reply, message.body.clone())
                .await;
            sent.map_err(|error| unreachable(&error))?;
        }
        for _ in part {
            let answer = tokio::select! {
                Some(answer) = answers.next() => answer,
                _ = losses.changed() => return Err(ApiError::Unreachable("the connection was lost".to_owned())),
                else => return Err(ApiError::Unreachable("the connection is closed".to_owned())),
            };
            let place = answer
                .subject
                .rsplit('.')
                .next()
                .and_then(|index| index.parse::<usize>().ok());
            if let Some(result) = place.and_then(|index| results.get_mut(index)) {
                *result = api::read::<PublishAck>(&answer).map(|_| ());
            }
        }
        Ok(())
    }

    async fn publish_one(&self, message: &Outgoing) -> Result<(), ApiError> {
        let request = Request::new().payload(message.body.clone());
        let _: PublishAck =
            api::send(&self.connection, message.subject.clone(), request, self.timeout).await?;
        Ok(())
    }

    /// Publishes all or nothing: the answer to the last message is the answer to all.
    async fn publish_atomic(&self, part: &[Outgoing]) -> Result<(), ApiError> {
        let Some((last, others)) = part.split_last() else {
            return Ok(());
        };
        let _place = self.batches.acquire().await;
        let number = self.batch_number.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", self.batch_prefix);
        for (index, message) in others.iter().enumerate() {
            let headers = batch_headers(&id, index + 1);
            let (subject, body) = (message.subject.clone(), message.body.clone());
            let sent = self
                .connection
                .client
                .publish_with_headers(subject, headers, body);
            sent.await
                .map_err(|error| ApiError::Unreachable(with_causes(&error)))?;
        }
        let mut headers = batch_headers(&id, part.len());
        headers.insert("Nats-Batch-Commit", "1");
        let commit = Request::new().headers(headers).payload(last.body.clone());
        let ack: PublishAck = api::send(&self.connection, last.subject.clone(), commit, self.timeout).await?;
        if ack.batch.as_deref() == Some(id.as_str()) && ack.count == Some(part.len()) {
            return Ok(());
        }
        Err(ApiError::Unreachable(
            "the server did not confirm the batch as a whole".to_owned(),
        ))
    }

    async fn ensure(&self, lanes: &[Lane]) -> Result<(), ApiError> {
        for lane in lanes {
            self.topology
                .ensure(&Source::Lane(lane.clone()), self.timeout)
                .await?;
        }
        Ok(())
    }
}

/// Those that have no answer yet have this one.
fn fill_unanswered(results: &mut [Result<(), ApiError>], error: &ApiError) {
    for result in results {
        if matches!(result, Err(ApiError::Unreachable(_))) {
            *result = Err(error.clone());
        }
    }
}

fn batch_headers(id: &str, sequence: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Batch-Id", id);
    headers.insert("Nats-Batch-Sequence", sequence.to_string());
    headers
}

fn lanes_of(batch: &[Message]) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = batch.iter().map(|message| message.lane().clone()).collect();
    lanes.sort_unstable();
    lanes.dedup();
    lanes
}

fn refusal(error: &ApiError) -> PublishError {
    if error.is_full() {
        PublishError::Full
    } else {
        PublishError::Unavailable(error.to_string())
    }
}
