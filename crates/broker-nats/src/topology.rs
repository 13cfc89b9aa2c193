//! The streams and their consumers: what they are called, how they are set up, and that they exist.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_nats::Subject;
use forebay_broker::{Depth, Source};
use forebay_core::Lane;
use serde_json::{Map, Value, json};

use crate::{
    LOOK_TIMEOUT, NatsOptions, READY_SHARE,
    api::{self, ApiError, ConsumerInfo, ConsumerPage, Done, StreamInfo},
    connection::Connection,
};

/// The subject of submissions.
pub(crate) static SUBMIT: Subject = Subject::from_static("submit");
/// The consumer that reads all submissions.
pub(crate) const RECORDER: &str = "recorder";
/// What the subjects of lanes begin with.
const READY: &str = "ready.";
/// The consumers of lanes are called `lane_<queue>_<priority>`.
const LANE_PREFIX: &str = "lane_";
/// How many deliveries may be under way from one consumer before it pauses.
const ACK_PENDING_MAX: u64 = 20_000;
/// How many pull requests may wait at one consumer: how many processes can read it.
const WAITING_MAX: u64 = 2_048;
/// How many consumers the server lists on one page; a bound on how many pages are read.
const PAGES_MAX: usize = 1_000;

/// The subject of what is ready in a lane.
pub(crate) fn lane_subject(lane: &Lane) -> String {
    format!("{READY}{lane}")
}

/// The lane that has this subject.
pub(crate) fn lane_in(subject: &str) -> Option<Lane> {
    subject.strip_prefix(READY)?.parse().ok()
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

/// The sources whose consumers are known to exist, as long as the connection is the one they were seen on.
#[derive(Default)]
struct Known {
    losses: u64,
    sources: HashSet<Source>,
}

/// Knows what exists on the server, and makes what does not.
pub(crate) struct Topology {
    connection: Connection,
    intake: String,
    ready: String,
    stream_bytes_max: i64,
    replicas: usize,
    ack_wait: Duration,
    known: Mutex<Known>,
}

impl Topology {
    pub(crate) fn new(connection: Connection, options: &NatsOptions) -> Self {
        Self {
            connection,
            intake: options.stream.clone(),
            ready: format!("{}_READY", options.stream),
            stream_bytes_max: options.stream_bytes_max,
            replicas: options.replicas,
            ack_wait: options.ack_wait,
            known: Mutex::default(),
        }
    }

    /// The name of the stream of submissions.
    pub(crate) fn intake(&self) -> &str {
        &self.intake
    }

    /// The name of the stream of the lanes.
    pub(crate) fn ready(&self) -> &str {
        &self.ready
    }

    /// The name of the stream that has `source`.
    pub(crate) fn stream_of(&self, source: &Source) -> &str {
        match source {
            Source::Submissions => &self.intake,
            Source::Lane(_) => &self.ready,
        }
    }

    /// Makes the streams and the recorder's consumer, or brings the streams' settings up to date.
    pub(crate) async fn ensure_streams(&self, limit: Duration) -> Result<(), ApiError> {
        self.ensure_stream(&self.intake, self.intake_settings(), limit)
            .await?;
        self.ensure_stream(&self.ready, self.ready_settings(), limit)
            .await?;
        self.ensure_consumer(&Source::Submissions, limit).await
    }

    /// Makes the streams again, of which one turned out to be gone.
    pub(crate) async fn make_again(&self, limit: Duration) -> Result<(), ApiError> {
        tracing::warn!("a stream is gone, making it again");
        self.forget_all();
        self.ensure_streams(limit).await
    }

    async fn ensure_stream(
        &self,
        stream: &str,
        settings: Map<String, Value>,
        limit: Duration,
    ) -> Result<(), ApiError> {
        match self
            .call::<StreamInfo>("STREAM.INFO", stream, &json!({}), limit)
            .await
        {
            Ok(info) => self.update_stream(stream, info, settings, limit).await,
            Err(error) if is_refused_as_missing(&error) => self.create_stream(stream, settings, limit).await,
            Err(error) => Err(error),
        }
    }

    /// Makes a stream. That of the lanes need not be synced, which only a server from 2.12 on knows how to do, and only
    /// without replicas; an older one passes over the wish, or refuses it.
    async fn create_stream(
        &self,
        stream: &str,
        settings: Map<String, Value>,
        limit: Duration,
    ) -> Result<(), ApiError> {
        tracing::info!(stream, "making the stream");
        if stream == self.ready && self.replicas == 1 {
            let mut unsynced = settings.clone();
            unsynced.insert("persist_mode".to_owned(), "async".into());
            match self
                .call::<Done>("STREAM.CREATE", stream, &Value::Object(unsynced), limit)
                .await
            {
                Err(error @ ApiError::Refused { .. }) if !error.is_full() => {
                    tracing::info!(%error, "the server does not make a stream that is not synced");
                }
                made => return made.map(|_| ()),
            }
        }
        self.call::<Done>("STREAM.CREATE", stream, &Value::Object(settings), limit)
            .await
            .map(|_| ())
    }

    /// Sets what is ours to set, and leaves the rest as an operator made it.
    async fn update_stream(
        &self,
        stream: &str,
        info: StreamInfo,
        settings: Map<String, Value>,
        limit: Duration,
    ) -> Result<(), ApiError> {
        let mut wanted = info.config.clone();
        wanted.extend(settings);
        if wanted == info.config {
            return Ok(());
        }
        tracing::info!(stream, "updating the stream's settings");
        self.call::<Done>("STREAM.UPDATE", stream, &Value::Object(wanted), limit)
            .await
            .map(|_| ())
    }

    fn intake_settings(&self) -> Map<String, Value> {
        self.settings(&self.intake, &SUBMIT, self.stream_bytes_max)
    }

    fn ready_settings(&self) -> Map<String, Value> {
        self.settings(&self.ready, "ready.*.*", self.stream_bytes_max / READY_SHARE)
    }

    fn settings(&self, stream: &str, subject: &str, bytes_max: i64) -> Map<String, Value> {
        let settings = json!({
            "name": stream,
            "subjects": [subject],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "max_bytes": bytes_max,
            "num_replicas": self.replicas,
        });
        match settings {
            Value::Object(settings) => settings,
            _ => unreachable!("an object was written above"),
        }
    }

    /// Sees to it that the consumer of `source` exists; where the stream is gone, that it exists too.
    pub(crate) async fn ensure(&self, source: &Source, limit: Duration) -> Result<(), ApiError> {
        if self.is_known(source) {
            return Ok(());
        }
        match self.ensure_consumer(source, limit).await {
            Err(error) if error.is_no_stream() => {
                self.ensure_streams(limit).await?;
                self.ensure_consumer(source, limit).await
            }
            done => done,
        }
    }

    async fn ensure_consumer(&self, source: &Source, limit: Duration) -> Result<(), ApiError> {
        let (name, stream) = (consumer_of(source), self.stream_of(source));
        let filter = match source {
            Source::Submissions => SUBMIT.to_string(),
            Source::Lane(lane) => lane_subject(lane),
        };
        let losses = self.connection.losses();
        let body = json!({
            "stream_name": stream,
            "config": {
                "name": name,
                "durable_name": name,
                "filter_subjects": [filter],
                "deliver_policy": "all",
                "ack_policy": "explicit",
                "ack_wait": u64::try_from(self.ack_wait.as_nanos()).unwrap_or(u64::MAX),
                "max_deliver": -1,
                "max_ack_pending": ACK_PENDING_MAX,
                "max_waiting": WAITING_MAX,
                "replay_policy": "instant",
            },
        });
        let method = format!("CONSUMER.CREATE.{stream}.{name}");
        let _: ConsumerInfo = api::call(&self.connection, method, &body, limit).await?;
        self.remember(losses, source);
        Ok(())
    }

    fn is_known(&self, source: &Source) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.losses == self.connection.losses() && known.sources.contains(source)
    }

    fn remember(&self, losses: u64, source: &Source) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.losses < losses {
            *known = Known {
                losses,
                sources: HashSet::new(),
            };
        }
        if known.losses == losses {
            known.sources.insert(source.clone());
        }
    }

    /// Forgets that a consumer exists: somebody deleted it.
    pub(crate) fn forget(&self, source: &Source) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .sources
            .remove(source);
    }

    /// Forgets that anything exists: somebody deleted a stream.
    fn forget_all(&self) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .sources
            .clear();
    }

    /// Whether the server answers; a stream is made again where it is gone.
    pub(crate) async fn look(&self) -> Result<(), ApiError> {
        let seen = tokio::try_join!(self.info(&self.intake), self.info(&self.ready));
        match seen {
            Err(error) if is_refused_as_missing(&error) => self.make_again(LOOK_TIMEOUT).await,
            seen => seen.map(|_| ()),
        }
    }

    /// How much a lane holds.
    pub(crate) async fn depth(&self, lane: &Lane) -> Result<Depth, ApiError> {
        let source = Source::Lane(lane.clone());
        match self.counted(&source).await {
            Err(error) if error.is_no_consumer() && self.has_messages(lane).await? => {
                // The lane was used; somebody deleted its consumer, and with it the only count.
                self.forget(&source);
                self.ensure(&source, LOOK_TIMEOUT).await?;
                self.counted(&source).await
            }
            Err(error) if error.is_no_consumer() => Ok(Depth::default()),
            Err(error) if is_refused_as_missing(&error) => {
                self.look().await?;
                Ok(Depth::default())
            }
            counted => counted,
        }
    }

    /// How many bundles the recorder has not acknowledged. A consumer's counts run behind the stream's: where they
    /// say that there is nothing, the stream itself is asked, so that what was confirmed before is never missed.
    pub(crate) async fn unrecorded(&self) -> Result<u64, ApiError> {
        let before = self.recorder().await?;
        let counted = before.num_pending + before.num_ack_pending;
        if counted > 0 {
            return Ok(counted);
        }
        let state = self.info(&self.intake).await?.state;
        // What was trimmed was recorded.
        if state.messages == 0 || state.last_seq <= before.ack_floor.stream_seq {
            return Ok(0);
        }
        let now = self.recorder().await?;
        Ok(u64::from(state.last_seq > now.ack_floor.stream_seq))
    }

    /// The number up to which all submissions are recorded.
    pub(crate) async fn recorded(&self) -> Result<u64, ApiError> {
        self.recorder().await.map(|info| info.ack_floor.stream_seq)
    }

    async fn recorder(&self) -> Result<ConsumerInfo, ApiError> {
        match self.consumer(&Source::Submissions).await {
            Err(error) if error.is_no_consumer() || is_refused_as_missing(&error) => {
                self.forget(&Source::Submissions);
                self.ensure(&Source::Submissions, LOOK_TIMEOUT).await?;
                self.consumer(&Source::Submissions).await
            }
            info => info,
        }
    }

    async fn consumer(&self, source: &Source) -> Result<ConsumerInfo, ApiError> {
        let method = format!("CONSUMER.INFO.{}.{}", self.stream_of(source), consumer_of(source));
        api::call(&self.connection, method, &json!({}), LOOK_TIMEOUT).await
    }

    async fn counted(&self, source: &Source) -> Result<Depth, ApiError> {
        let info = self.consumer(source).await?;
        Ok(Depth {
            waiting: info.num_pending,
            delivered: info.num_ack_pending,
        })
    }

    async fn has_messages(&self, lane: &Lane) -> Result<bool, ApiError> {
        let body = json!({ "subjects_filter": lane_subject(lane) });
        let info: StreamInfo = self.call("STREAM.INFO", &self.ready, &body, LOOK_TIMEOUT).await?;
        Ok(!info.state.subjects.is_empty())
    }

    async fn info(&self, stream: &str) -> Result<StreamInfo, ApiError> {
        self.call("STREAM.INFO", stream, &json!({}), LOOK_TIMEOUT).await
    }

    /// The number of the newest message of the lanes; none where the stream is gone, which is then made again.
    pub(crate) async fn last_ready(&self) -> Result<u64, ApiError> {
        match self.info(&self.ready).await {
            Err(error) if is_refused_as_missing(&error) => {
                self.make_again(LOOK_TIMEOUT).await?;
                Ok(0)
            }
            info => info.map(|info| info.state.last_seq),
        }
    }

    /// Every subject of the lanes that has messages.
    pub(crate) async fn ready_subjects(&self) -> Result<HashSet<String>, ApiError> {
        let body = json!({ "subjects_filter": ">" });
        let info: StreamInfo = self.call("STREAM.INFO", &self.ready, &body, LOOK_TIMEOUT).await?;
        Ok(info.state.subjects.into_keys().collect())
    }

    /// The consumers of all lanes.
    pub(crate) async fn lane_consumers(&self) -> Result<Vec<ConsumerInfo>, ApiError> {
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let body = json!({ "offset": all.len() });
            let page: ConsumerPage = self
                .call("CONSUMER.LIST", &self.ready, &body, LOOK_TIMEOUT)
                .await?;
            let consumers = page.consumers.unwrap_or_default();
            let last = consumers.is_empty();
            all.extend(consumers);
            if last || all.len() >= page.total {
                break;
            }
        }
        Ok(all)
    }

    /// Deletes the messages of a stream, or of one of its subjects, up to and including the one numbered `through`.
    pub(crate) async fn purge(
        &self,
        stream: &str,
        subject: Option<&str>,
        through: u64,
    ) -> Result<(), ApiError> {
        let mut body = json!({ "seq": through + 1 });
        if let Some(subject) = subject {
            body["filter"] = subject.into();
        }
        self.call::<Done>("STREAM.PURGE", stream, &body, LOOK_TIMEOUT)
            .await
            .map(|_| ())
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        stream: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<T, ApiError> {
        api::call(&self.connection, format!("{method}.{stream}"), body, limit).await
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
    fn every_lane_has_a_consumer_name_and_a_subject_of_its_own() {
        let mut names = HashSet::new();
        for queue in ["a", "a_high", "a_low_high", "a-b", "default", "_"] {
            let Ok(queue) = queue.parse() else { continue };
            for lane in Lane::all_of(&queue) {
                let name = lane_consumer(&lane);
                assert!(!name.contains(['.', '*', '>', ' ']), "{name}");
                assert_eq!(lane_of(&name), Some(lane.clone()));
                assert!(names.insert(name));
                assert_eq!(lane_in(&lane_subject(&lane)), Some(lane));
            }
        }
        assert_eq!(lane_of(RECORDER), None);
        assert_eq!(lane_in(&SUBMIT), None);
    }
}
