//! Publishing: submissions in bundles, each with a confirmation of its own; what is ready one by one, with one
//! confirmation for many.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Request, Subject};
use bytes::Bytes;
use forebay_broker::{
    Message, PublishError, Source,
    bundle::{self, Bundle},
    wire,
};
use forebay_core::{Lane, Submission};
use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use crate::{
    api::{self, ApiError, PublishAck},
    connection::{Connection, with_causes},
    topology::{SUBMIT, Topology, lane_subject},
};

/// How much room a bundle leaves below the server's bound on a message.
const ROOM_BYTES: usize = 4 * 1024;
/// The most bytes in one bundle, where the server would take more.
const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many bundles of one call are on their way at once.
const BUNDLES_IN_FLIGHT_MAX: usize = 16;
/// The most ready tasks that are published on one confirmation.
const RUN_MAX: usize = 1_000;

type Outcome = Result<(), PublishError>;

/// A message of a lane as it goes over the wire.
struct Outgoing {
    subject: Subject,
    body: Bytes,
}

/// The messages of one kind in a batch, with their places in it.
struct Sorted<T> {
    places: Vec<usize>,
    messages: Vec<T>,
}

impl<T> Sorted<T> {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            places: Vec::with_capacity(capacity),
            messages: Vec::with_capacity(capacity),
        }
    }

    fn push(&mut self, place: usize, message: T) {
        self.places.push(place);
        self.messages.push(message);
    }
}

/// What publishes.
pub(crate) struct Publisher {
    connection: Connection,
    topology: Arc<Topology>,
    timeout: Duration,
    /// The number of the message that was confirmed last in the lanes' stream.
    ready_seq: AtomicU64,
}

impl Publisher {
    pub(crate) fn new(connection: Connection, topology: Arc<Topology>, timeout: Duration) -> Self {
        Self {
            connection,
            topology,
            timeout,
            ready_seq: AtomicU64::new(0),
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
        let _ = timeout_at(deadline, self.publish_all(batch, &mut outcomes)).await;
        outcomes
    }

    async fn publish_all(&self, batch: Vec<Message>, outcomes: &mut [Outcome]) {
        let mut submissions = Sorted::with_capacity(batch.len());
        let mut ready = Sorted::with_capacity(0);
        let mut lanes = Lanes::default();
        for (place, message) in batch.into_iter().enumerate() {
            match message {
                Message::Submission(task) => submissions.push(place, task),
                Message::Ready(task) => {
                    let subject = lanes.subject(&task.lane);
                    let body = wire::encode(&Message::Ready(task));
                    ready.push(place, Outgoing { subject, body });
                }
            }
        }
        if !submissions.messages.is_empty() {
            self.publish_submissions(submissions, outcomes).await;
        }
        if !ready.messages.is_empty() {
            self.publish_ready(&ready, &lanes, outcomes).await;
        }
    }

    /// Several bundles are on their way at once, and are taken in the order in which they are sent.
    async fn publish_submissions(&self, tasks: Sorted<Submission>, outcomes: &mut [Outcome]) {
        let bytes_max = self.connection.payload_bytes_max().saturating_sub(ROOM_BYTES);
        let bundles = bundle::pack(&tasks.messages, bytes_max.min(BUNDLE_BYTES_MAX));
        drop(tasks.messages);
        let bodies: Vec<Bytes> = bundles.iter().map(|bundle| bundle.body.clone()).collect();
        let mut sent = stream::iter(bodies)
            .map(|body| self.send(SUBMIT.clone(), body))
            .buffered(BUNDLES_IN_FLIGHT_MAX);
        let mut places = tasks.places.into_iter();
        for bundle in &bundles {
            let mut result = sent.next().await.unwrap_or(Err(ApiError::NobodyThere));
            if matches!(&result, Err(error) if error.is_no_stream()) {
                result = self.send_to_new_intake(bundle).await;
            }
            let outcome = result.map(|_| ()).map_err(|error| refusal(&error));
            for place in places.by_ref().take(bundle.count) {
                outcomes[place].clone_from(&outcome);
            }
        }
    }

    async fn send_to_new_intake(&self, bundle: &Bundle) -> Result<PublishAck, ApiError> {
        self.topology.make_again(self.timeout).await?;
        self.send(SUBMIT.clone(), bundle.body.clone()).await
    }

    /// Run after run: a lane is first in, first out.
    async fn publish_ready(&self, ready: &Sorted<Outgoing>, lanes: &Lanes, outcomes: &mut [Outcome]) {
        if let Err(error) = self.ensure(lanes).await {
            for &place in &ready.places {
                outcomes[place] = Err(refusal(&error));
            }
            return;
        }
        for (places, run) in ready.places.chunks(RUN_MAX).zip(ready.messages.chunks(RUN_MAX)) {
            let mut result = self.publish_run(run).await;
            if matches!(&result, Err(error) if error.is_no_stream()) {
                result = match self.make_again(lanes).await {
                    Ok(()) => self.publish_run(run).await,
                    Err(error) => Err(error),
                };
            }
            let taken = result.map_err(|error| refusal(&error));
            for &place in places {
                outcomes[place].clone_from(&taken);
            }
        }
    }

    /// Publishes in order, and has the last message confirmed. Where others before it were refused, the number it was
    /// given tells so, unless somebody else published at that moment; those are then published again by the dispatcher,
    /// as is all that a lane loses.
    async fn publish_run(&self, run: &[Outgoing]) -> Result<(), ApiError> {
        let Some((last, others)) = run.split_last() else {
            return Ok(());
        };
        let before = self.ready_seq.load(Ordering::Relaxed);
        for message in others {
            let sent = self
                .connection
                .client
                .publish(message.subject.clone(), message.body.clone());
            sent.await
                .map_err(|error| ApiError::Unreachable(with_causes(&error)))?;
        }
        let seq = self.send(last.subject.clone(), last.body.clone()).await?.seq;
        self.ready_seq.store(seq, Ordering::Relaxed);
        if seq > before && seq - before < run.len() as u64 {
            return Err(ApiError::PartlyRefused);
        }
        Ok(())
    }

    async fn send(&self, subject: Subject, body: Bytes) -> Result<PublishAck, ApiError> {
        let request = Request::new().payload(body);
        api::send(&self.connection, subject, request, self.timeout).await
    }

    async fn ensure(&self, lanes: &Lanes) -> Result<(), ApiError> {
        for source in &lanes.sources {
            self.topology.ensure(source, self.timeout).await?;
        }
        Ok(())
    }

    async fn make_again(&self, lanes: &Lanes) -> Result<(), ApiError> {
        self.topology.make_again(self.timeout).await?;
        self.ensure(lanes).await
    }
}

/// The lanes of a batch: a few, mostly one.
#[derive(Default)]
struct Lanes {
    sources: Vec<Source>,
    subjects: Vec<Subject>,
}

impl Lanes {
    fn subject(&mut self, lane: &Lane) -> Subject {
        let known = |source: &Source| matches!(source, Source::Lane(known) if known == lane);
        if let Some(place) = self.sources.iter().position(known) {
            return self.subjects[place].clone();
        }
        let subject = Subject::from(lane_subject(lane));
        self.sources.push(Source::Lane(lane.clone()));
        self.subjects.push(subject.clone());
        subject
    }
}

fn refusal(error: &ApiError) -> PublishError {
    if error.is_full() {
        PublishError::Full
    } else {
        PublishError::Unavailable(error.to_string())
    }
}
