//! The stream and its consumers: what they are called, how they are set up, and that they exist.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use forebay_broker::{Depth, Message, Source};
use forebay_core::Lane;
use serde_json::{Map, Value, json};

use crate::{
    LOOK_TIMEOUT, NatsOptions,
    api::{self, ApiError, ConsumerInfo, ConsumerPage, Done, FoundMessage, StreamInfo},
    connection::Connection,
};

/// The consumer that reads all submissions.
pub(crate) const RECORDER: &str = "recorder";
/// The consumers of lanes are called `lane_<queue>_<priority>`.
const LANE_PREFIX: &str = "lane_";
/// How many deliveries may be under way from one consumer before it pauses.
const ACK_PENDING_MAX: u64 = 20_000;
/// How many pull requests may wait at one consumer: how many processes can read it.
const WAITING_MAX: u64 = 2_048;
/// How many consumers the server lists on one page; a bound on how many pages are read.
const PAGES_MAX: usize = 1_000;

/// The subject of a message.
pub(crate) fn subject(message: &Message) -> String {
    format!("{}.{}", message.verb(), message.lane())
}

/// The durable name of a lane's consumer. A priority has no `_`, so it parses back.
pub(crate) fn lane_consumer(lane: &Lane) -> String {
    format!("{LANE_PREFIX}{}_{}", lane.queue, lane.priority)
}

/// The lane whose consumer has this name.
pub(crate) fn lane_of(consumer: &str) -> Option<Lane> {
    let (queue, priority) = consumer.strip_prefix(LANE_PREFIX)?.rsplit_once('_')?;
    Some(Lane::new(queue.parse().ok()?, priority.parse().ok()?))
}

/// The durable name of the consumer that reads `source`.
pub(crate) fn consumer_of(source: &Source) -> String {
    match source {
        Source::Submissions => RECORDER.to_owned(),
        Source::Lane(lane) => lane_consumer(lane),
    }
}

fn filters(source: &Source) -> Vec<String> {
    match source {
        Source::Submissions => vec!["submit.>".to_owned(), "park.>".to_owned()],
        Source::Lane(lane) => vec![format!("submit.{lane}"), format!("ready.{lane}")],
    }
}

/// The consumers that are known to exist, as long as the connection is the one they were seen on.
#[derive(Default)]
struct Known {
    losses: u64,
    names: HashSet<String>,
}

/// Knows what exists on the server, and makes what does not.
pub(crate) struct Topology {
    connection: Connection,
    stream: String,
    stream_bytes_max: i64,
    replicas: usize,
    ack_wait: Duration,
    atomic_wanted: bool,
    atomic: AtomicBool,
    known: Mutex<Known>,
}

impl Topology {
    pub(crate) fn new(connection: Connection, options: &NatsOptions) -> Self {
        Self {
            connection,
            stream: options.stream.clone(),
            stream_bytes_max: options.stream_bytes_max,
            replicas: options.replicas,
            ack_wait: options.ack_wait,
            atomic_wanted: options.atomic_batches,
            atomic: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }

    /// The stream's name.
    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// Whether the stream takes atomic batches.
    pub(crate) fn is_atomic(&self) -> bool {
        self.atomic.load(Ordering::Relaxed)
    }

    /// Makes the stream and the recorder's consumer, or brings the stream's settings up to date.
    pub(crate) async fn ensure_stream(&self, limit: Duration) -> Result<(), ApiError> {
        let found = self.call::<StreamInfo>("STREAM.INFO", &json!({}), limit).await;
        let info = match found {
            Ok(info) => self.update_stream(info, limit).await?,
            Err(error) if is_refused_as_missing(&error) => {
                tracing::info!(stream = self.stream, "making the stream");
                let settings = Value::Object(self.settings());
                self.call("STREAM.CREATE", &settings, limit).await?
            }
            Err(error) => return Err(error),
        };
        // An older server takes the setting without a word, and does not show it.
        let atomic = self.atomic_wanted && info.config.get("allow_atomic") == Some(&Value::Bool(true));
        self.atomic.store(atomic, Ordering::Relaxed);
        self.ensure_consumer(&Source::Submissions, limit).await
    }

    /// Sets what is ours to set, and leaves the rest as an operator made it.
    async fn update_stream(&self, info: StreamInfo, limit: Duration) -> Result<StreamInfo, ApiError> {
        let mut wanted = info.config.clone();
        wanted.extend(self.settings());
        if wanted == info.config {
            return Ok(info);
        }
        tracing::info!(stream = self.stream, "updating the stream's settings");
        self.call("STREAM.UPDATE", &Value::Object(wanted), limit).await
    }

    fn settings(&self) -> Map<String, Value> {
        let settings = json!({
            "name": self.stream,
            "subjects": ["submit.*.*", "park.*.*", "ready.*.*"],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "max_bytes": self.stream_bytes_max,
            "num_replicas": self.replicas,
            "allow_atomic": true,
        });
        match settings {
            Value::Object(settings) => settings,
            _ => unreachable!("an object was written above"),
        }
    }

    /// Sees to it that the consumer of `source` exists; where the stream is gone, that it exists too.
    pub(crate) async fn ensure(&self, source: &Source, limit: Duration) -> Result<(), ApiError> {
        if self.is_known(&consumer_of(source)) {
            return Ok(());
        }
        match self.ensure_consumer(source, limit).await {
            Err(error) if error.is_no_stream() => {
                self.ensure_stream(limit).await?;
                self.ensure_consumer(source, limit).await
            }
            done => done,
        }
    }

    async fn ensure_consumer(&self, source: &Source, limit: Duration) -> Result<(), ApiError> {
        let name = consumer_of(source);
        let losses = self.connection.losses();
        let body = json!({
            "stream_name": self.stream,
            "config": {
                "name": name,
                "durable_name": name,
                "filter_subjects": filters(source),
                "deliver_policy": "all",
                "ack_policy": "explicit",
                "ack_wait": u64::try_from(self.ack_wait.as_nanos()).unwrap_or(u64::MAX),
                "max_deliver": -1,
                "max_ack_pending": ACK_PENDING_MAX,
                "max_waiting": WAITING_MAX,
                "replay_policy": "instant",
            },
        });
        let method = format!("CONSUMER.CREATE.{}.{name}", self.stream);
        let made: ConsumerInfo = api::call(&self.connection, method, &body, limit).await?;
        self.remember(losses, made.name);
        Ok(())
    }

    fn is_known(&self, name: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.losses == self.connection.losses() && known.names.contains(name)
    }

    fn remember(&self, losses: u64, name: String) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.losses < losses {
            *known = Known {
                losses,
                names: HashSet::new(),
            };
        }
        if known.losses == losses {
            known.names.insert(name);
        }
    }

    /// Forgets that a consumer exists: somebody deleted it.
    pub(crate) fn forget(&self, name: &str) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .names
            .remove(name);
    }

    /// Forgets that anything exists: somebody deleted the stream.
    pub(crate) fn forget_all(&self) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .names
            .clear();
    }

    /// Whether the server answers; the stream is made again where it is gone.
    pub(crate) async fn look(&self) -> Result<(), ApiError> {
        let seen = self
            .call::<StreamInfo>("STREAM.INFO", &json!({}), LOOK_TIMEOUT)
            .await;
        match seen {
            Err(error) if is_refused_as_missing(&error) => {
                self.forget_all();
                self.ensure_stream(LOOK_TIMEOUT).await
            }
            seen => seen.map(|_| ()),
        }
    }

    /// How much a lane holds.
    pub(crate) async fn depth(&self, lane: &Lane) -> Result<Depth, ApiError> {
        let source = Source::Lane(lane.clone());
        let counted = self.counted(&consumer_of(&source)).await;
        match counted {
            Err(error) if error.is_no_consumer() && self.has_messages(lane).await? => {
                // The lane was used; somebody deleted its consumer, and with it the only count.
                self.forget(&consumer_of(&source));
                self.ensure(&source, LOOK_TIMEOUT).await?;
                self.counted(&consumer_of(&source)).await
            }
            Err(error) if error.is_no_consumer() => Ok(Depth::default()),
            Err(error) if is_refused_as_missing(&error) => {
                self.look().await?;
                Ok(Depth::default())
            }
            counted => counted,
        }
    }

    /// How many submissions the recorder has not acknowledged. A consumer's counts run behind the stream's: where they
    /// say that there is nothing, the stream itself is asked, so that what was confirmed before is never missed.
    pub(crate) async fn unrecorded(&self) -> Result<u64, ApiError> {
        let before = self.recorder().await?;
        let counted = before.num_pending + before.num_ack_pending;
        if counted > 0 {
            return Ok(counted);
        }
        let newest = self.newest("submit.>").await?.max(self.newest("park.>").await?);
        if newest <= before.ack_floor.stream_seq {
            return Ok(0);
        }
        let now = self.recorder().await?;
        Ok(u64::from(newest > now.ack_floor.stream_seq))
    }

    async fn recorder(&self) -> Result<ConsumerInfo, ApiError> {
        match self.consumer(RECORDER).await {
            Err(error) if error.is_no_consumer() || is_refused_as_missing(&error) => {
                self.forget(RECORDER);
                self.ensure(&Source::Submissions, LOOK_TIMEOUT).await?;
                self.consumer(RECORDER).await
            }
            info => info,
        }
    }

    async fn consumer(&self, name: &str) -> Result<ConsumerInfo, ApiError> {
        let method = format!("CONSUMER.INFO.{}.{name}", self.stream);
        api::call(&self.connection, method, &json!({}), LOOK_TIMEOUT).await
    }

    async fn counted(&self, consumer: &str) -> Result<Depth, ApiError> {
        let info = self.consumer(consumer).await?;
        Ok(Depth {
            waiting: info.num_pending,
            delivered: info.num_ack_pending,
        })
    }

    /// The number of the newest message that `filter` matches; 0 where there is none.
    async fn newest(&self, filter: &str) -> Result<u64, ApiError> {
        let body = json!({ "last_by_subj": filter });
        let found: Result<FoundMessage, ApiError> = self.call("STREAM.MSG.GET", &body, LOOK_TIMEOUT).await;
        match found {
            Ok(found) => Ok(found.message.seq),
            Err(error) if error.is_no_message() => Ok(0),
            Err(error) => Err(error),
        }
    }

    async fn has_messages(&self, lane: &Lane) -> Result<bool, ApiError> {
        let body = json!({ "subjects_filter": format!("*.{lane}") });
        let info: StreamInfo = self.call("STREAM.INFO", &body, LOOK_TIMEOUT).await?;
        Ok(info
            .state
            .subjects
            .keys()
            .any(|subject| !subject.starts_with("park.")))
    }

    /// The number of the newest message.
    pub(crate) async fn last_seq(&self) -> Result<u64, ApiError> {
        let info: StreamInfo = self.call("STREAM.INFO", &json!({}), LOOK_TIMEOUT).await?;
        Ok(info.state.last_seq)
    }

    /// Every subject that has messages.
    pub(crate) async fn subjects(&self) -> Result<HashSet<String>, ApiError> {
        let body = json!({ "subjects_filter": ">" });
        let info: StreamInfo = self.call("STREAM.INFO", &body, LOOK_TIMEOUT).await?;
        Ok(info.state.subjects.into_keys().collect())
    }

    /// All consumers of the stream.
    pub(crate) async fn consumers(&self) -> Result<Vec<ConsumerInfo>, ApiError> {
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let body = json!({ "offset": all.len() });
            let page: ConsumerPage = self.call("CONSUMER.LIST", &body, LOOK_TIMEOUT).await?;
            let consumers = page.consumers.unwrap_or_default();
            let last = consumers.is_empty();
            all.extend(consumers);
            if last || all.len() >= page.total {
                break;
            }
        }
        Ok(all)
    }

    /// Deletes the messages of a subject up to and including the one numbered `through`.
    pub(crate) async fn purge(&self, subject: &str, through: u64) -> Result<(), ApiError> {
        let body = json!({ "filter": subject, "seq": through + 1 });
        self.call::<Done>("STREAM.PURGE", &body, LOOK_TIMEOUT)
            .await
            .map(|_| ())
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<T, ApiError> {
        api::call(&self.connection, format!("{method}.{}", self.stream), body, limit).await
    }
}

/// Whether JetStream itself says that there is no such stream. (That nobody answers means that JetStream is off.)
fn is_refused_as_missing(error: &ApiError) -> bool {
    error.is_no_stream() && *error != ApiError::NobodyThere
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_a_consumer_name_of_its_own() {
        let mut names = HashSet::new();
        for queue in ["a", "a_high", "a_low_high", "a-b", "default", "_"] {
            let Ok(queue) = queue.parse() else { continue };
            for lane in Lane::all_of(&queue) {
                let name = lane_consumer(&lane);
                assert!(!name.contains(['.', '*', '>', ' ']), "{name}");
                assert_eq!(lane_of(&name), Some(lane));
                assert!(names.insert(name));
            }
        }
        assert_eq!(lane_of(RECORDER), None);
    }
}
