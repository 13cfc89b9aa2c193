//! JetStream's request and reply API, as far as it is needed. The requests are written by hand: they are few, and
//! what is sent does not then depend on what a version of the client knows of.

use std::time::Duration;

use async_nats::{Message, Request, RequestErrorKind, StatusCode, Subject};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::time::timeout;

use crate::connection::{Connection, with_causes};

/// Why the server did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ApiError {
    /// It said no.
    #[error("{description} (code {err_code})")]
    Refused {
        /// JetStream's own number of the error.
        err_code: u64,
        /// What it said.
        description: String,
    },
    /// Nobody answers to that subject: there is no JetStream, or no such stream or consumer.
    #[error("nobody answers: JetStream is off, or the stream is gone")]
    NobodyThere,
    /// It took a part of what was published, and had no room for the rest.
    #[error("the stream took only a part")]
    PartlyRefused,
    /// There is no connection, or no answer in time.
    #[error("{0}")]
    Unreachable(String),
}

/// Error codes of the server, from its `errors.json`.
mod code {
    pub(super) const CONSUMER_NOT_FOUND: u64 = 10_014;
    pub(super) const STREAM_NOT_FOUND: u64 = 10_059;
    /// The account's limits, the server's limits, its disk, its memory.
    pub(super) const RESOURCES: [u64; 4] = [10_002, 10_023, 10_047, 10_028];
    pub(super) const STORE_FAILED: u64 = 10_077;
}

impl ApiError {
    /// Whether the stream is gone.
    pub(crate) fn is_no_stream(&self) -> bool {
        match self {
            Self::NobodyThere => true,
            Self::Refused { err_code, .. } => *err_code == code::STREAM_NOT_FOUND,
            Self::PartlyRefused | Self::Unreachable(_) => false,
        }
    }

    /// Whether the stream is there and the consumer is not.
    pub(crate) fn is_no_consumer(&self) -> bool {
        matches!(self, Self::Refused { err_code, .. } if *err_code == code::CONSUMER_NOT_FOUND)
    }

    /// Whether the stream, or the disk under it, is full.
    pub(crate) fn is_full(&self) -> bool {
        let Self::Refused {
            err_code,
            description,
        } = self
        else {
            return *self == Self::PartlyRefused;
        };
        code::RESOURCES.contains(err_code)
            || (*err_code == code::STORE_FAILED
                && ["exceeded", "insufficient", "no space"]
                    .iter()
                    .any(|word| description.contains(word)))
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct MaybeError {
    error: Option<ErrorBody>,
}

/// Reads an answer, which may be an error.
fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, ApiError> {
    let unreadable = |error| ApiError::Unreachable(format!("the server's answer can't be read: {error}"));
    if let Some(error) = serde_json::from_slice::<MaybeError>(answer)
        .map_err(unreadable)?
        .error
    {
        return Err(ApiError::Refused {
            err_code: error.err_code,
            description: error.description,
        });
    }
    serde_json::from_slice(answer).map_err(unreadable)
}

/// Reads what came to a reply subject.
fn read<T: DeserializeOwned>(answer: &Message) -> Result<T, ApiError> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(ApiError::NobodyThere);
    }
    parse(&answer.payload)
}

/// Sends a request to any subject that JetStream answers to, the stream's own subjects included.
pub(crate) async fn send<T: DeserializeOwned>(
    connection: &Connection,
    subject: Subject,
    request: Request,
    limit: Duration,
) -> Result<T, ApiError> {
    let mut losses = connection.watch_losses();
    losses.mark_unchanged();
    connection.check().map_err(ApiError::Unreachable)?;
    let sent = connection.client.send_request(subject, request.timeout(None));
    let answered = tokio::select! {
        answered = timeout(limit, sent) => answered,
        // The answer went with the connection.
        _ = losses.changed() => return Err(ApiError::Unreachable("the connection was lost".to_owned())),
    };
    match answered {
        Ok(Ok(answer)) => read(&answer),
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Err(ApiError::NobodyThere),
        Ok(Err(error)) => Err(ApiError::Unreachable(with_causes(&error))),
        Err(_) => Err(ApiError::Unreachable(format!("no answer within {limit:?}"))),
    }
}

/// Calls a method of JetStream's API.
pub(crate) async fn call<T: DeserializeOwned>(
    connection: &Connection,
    method: String,
    body: &impl Serialize,
    limit: Duration,
) -> Result<T, ApiError> {
    let body = serde_json::to_vec(body).map_err(|error| ApiError::Unreachable(error.to_string()))?;
    let request = Request::new().payload(Bytes::from(body));
    send(connection, format!("$JS.API.{method}").into(), request, limit).await
}

/// The answer to a publish.
#[derive(Debug, Deserialize)]
pub(crate) struct PublishAck {
    /// The number of the message in its stream.
    pub(crate) seq: u64,
}

/// What the server says of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamInfo {
    /// Its settings, ours and others'.
    pub(crate) config: serde_json::Map<String, serde_json::Value>,
    /// What it holds.
    pub(crate) state: StreamState,
}

/// What a stream holds.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamState {
    /// How many messages it has.
    pub(crate) messages: u64,
    /// The number of the newest message it ever had.
    pub(crate) last_seq: u64,
    /// How many messages each subject has, where this was asked for.
    #[serde(default)]
    pub(crate) subjects: std::collections::HashMap<String, u64>,
}

/// What the server says of a consumer.
#[derive(Debug, Deserialize)]
pub(crate) struct ConsumerInfo {
    /// Its name.
    pub(crate) name: String,
    /// Up to where everything is acknowledged.
    pub(crate) ack_floor: SequencePair,
    /// How many were delivered and not acknowledged.
    pub(crate) num_ack_pending: u64,
    /// How many were not yet delivered.
    pub(crate) num_pending: u64,
}

/// A position.
#[derive(Debug, Deserialize)]
pub(crate) struct SequencePair {
    /// In the stream.
    pub(crate) stream_seq: u64,
}

/// One page of a stream's consumers.
#[derive(Debug, Deserialize)]
pub(crate) struct ConsumerPage {
    /// How many there are in all.
    pub(crate) total: usize,
    /// Those of this page.
    #[serde(default)]
    pub(crate) consumers: Option<Vec<ConsumerInfo>>,
}

/// The answer to what either succeeds or is an error.
#[derive(Debug, Deserialize)]
pub(crate) struct Done {}
