//! How messages are written: protocol buffers, by the field numbers of `proto/forebay/wire/v1/wire.proto`.

use std::time::Duration;

use bytes::Bytes;
use forebay_core::{
    Fingerprint, Json, Kind, Lane, Ready, Signal, Submission, TaskEvent, TaskId, TraceParent,
    from_unix_micros,
};
use forebay_proto::wire;
use prost::Message as _;
use thiserror::Error;

use crate::Message;

/// The bytes are not a message of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct DecodeError(String);

impl DecodeError {
    fn in_field(field: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("field {field}: {error}"))
    }
}

/// Writes a message's body.
#[must_use]
pub fn encode(message: &Message) -> Bytes {
    match message {
        Message::Submission(task) => submission_to_wire(task).encode_to_vec().into(),
        Message::Ready(task) => ready_to_wire(task).encode_to_vec().into(),
    }
}

/// Reads the body of a message whose subject begins with `verb`.
///
/// # Errors
/// Where the verb is unknown or the body does not fit it.
pub fn decode(verb: &str, body: Bytes) -> Result<Message, DecodeError> {
    match verb {
        "submit" | "park" => wire::Submission::decode(body)
            .map_err(|e| DecodeError(e.to_string()))
            .and_then(submission_from_wire)
            .map(Message::Submission),
        "ready" => wire::Ready::decode(body)
            .map_err(|e| DecodeError(e.to_string()))
            .and_then(|task| ready_from_wire(&task))
            .map(Message::Ready),
        other => Err(DecodeError(format!("unknown subject {other:?}"))),
    }
}

/// Writes a signal.
#[must_use]
pub fn encode_signal(signal: &Signal) -> Bytes {
    let (cancel, events) = match signal {
        Signal::Cancel(ids) => (ids.iter().map(|&id| id_to_wire(id)).collect(), Vec::new()),
        Signal::Events(events) => (Vec::new(), events.iter().map(event_to_wire).collect()),
    };
    wire::Signal { cancel, events }.encode_to_vec().into()
}

/// Reads a signal.
///
/// # Errors
/// Where the bytes are not one.
pub fn decode_signal(body: Bytes) -> Result<Signal, DecodeError> {
    let signal = wire::Signal::decode(body).map_err(|e| DecodeError(e.to_string()))?;
    if signal.cancel.is_empty() {
        signal
            .events
            .iter()
            .map(event_from_wire)
            .collect::<Result<_, _>>()
            .map(Signal::Events)
    } else {
        signal
            .cancel
            .iter()
            .map(|id| id_from_wire(id))
            .collect::<Result<_, _>>()
            .map(Signal::Cancel)
    }
}

fn submission_to_wire(task: &Submission) -> wire::Submission {
    wire::Submission {
        id: id_to_wire(task.id),
        project: task.project.to_string(),
        kind: task.kind.to_string(),
        queue: task.lane.queue.to_string(),
        priority: task.lane.priority.to_string(),
        payload: task.payload.to_bytes(),
        tags: task.tags.clone(),
        run_at_unix_micros: task.run_at.map(|at| at.as_microsecond()),
        max_attempts: task.max_attempts,
        timeout_ms: task
            .timeout
            .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        created_at_unix_micros: task.created_at.as_microsecond(),
        fingerprint: task
            .fingerprint
            .map_or_else(Bytes::new, |print| Bytes::copy_from_slice(&print.0)),
        traceparent: task
            .traceparent
            .as_ref()
            .map(|trace| trace.as_str().to_owned())
            .unwrap_or_default(),
    }
}

fn submission_from_wire(task: wire::Submission) -> Result<Submission, DecodeError> {
    let fingerprint = match task.fingerprint.len() {
        0 => None,
        _ => Some(Fingerprint(
            task.fingerprint
                .as_ref()
                .try_into()
                .map_err(|e| DecodeError::in_field("fingerprint", e))?,
        )),
    };
    Ok(Submission {
        id: id_from_wire(&task.id)?,
        project: task
            .project
            .parse()
            .map_err(|e| DecodeError::in_field("project", e))?,
        kind: parse_kind(&task.kind)?,
        lane: lane_from_wire(&task.queue, &task.priority)?,
        payload: Json::parse(&task.payload).map_err(|e| DecodeError::in_field("payload", e))?,
        tags: task.tags,
        run_at: task.run_at_unix_micros.map(from_unix_micros),
        max_attempts: task.max_attempts,
        timeout: task.timeout_ms.map(Duration::from_millis),
        created_at: from_unix_micros(task.created_at_unix_micros),
        fingerprint,
        traceparent: TraceParent::parse(&task.traceparent),
    })
}

fn ready_to_wire(task: &Ready) -> wire::Ready {
    wire::Ready {
        id: id_to_wire(task.id),
        kind: task.kind.to_string(),
        queue: task.lane.queue.to_string(),
        priority: task.lane.priority.to_string(),
        fence: task.fence,
        lost: task.lost,
    }
}

fn ready_from_wire(task: &wire::Ready) -> Result<Ready, DecodeError> {
    Ok(Ready {
        id: id_from_wire(&task.id)?,
        kind: parse_kind(&task.kind)?,
        lane: lane_from_wire(&task.queue, &task.priority)?,
        fence: task.fence,
        lost: task.lost,
    })
}

fn event_to_wire(event: &TaskEvent) -> wire::TaskEvent {
    wire::TaskEvent {
        id: id_to_wire(event.id),
        kind: event.kind.to_string(),
        queue: event.queue.to_string(),
        state: event.state.to_string(),
        attempt: event.attempt,
        at_unix_micros: event.at.as_microsecond(),
    }
}

fn event_from_wire(event: &wire::TaskEvent) -> Result<TaskEvent, DecodeError> {
    Ok(TaskEvent {
        id: id_from_wire(&event.id)?,
        kind: parse_kind(&event.kind)?,
        queue: event
            .queue
            .parse()
            .map_err(|e| DecodeError::in_field("queue", e))?,
        state: event
            .state
            .parse()
            .map_err(|e| DecodeError::in_field("state", e))?,
        attempt: event.attempt,
        at: from_unix_micros(event.at_unix_micros),
    })
}

fn id_to_wire(id: TaskId) -> Bytes {
    Bytes::copy_from_slice(id.as_uuid().as_bytes())
}

fn id_from_wire(bytes: &[u8]) -> Result<TaskId, DecodeError> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|e| DecodeError::in_field("id", e))?;
    Ok(TaskId::from_bytes(bytes))
}

fn parse_kind(kind: &str) -> Result<Kind, DecodeError> {
    kind.parse().map_err(|e| DecodeError::in_field("kind", e))
}

fn lane_from_wire(queue: &str, priority: &str) -> Result<Lane, DecodeError> {
    Ok(Lane {
        queue: queue.parse().map_err(|e| DecodeError::in_field("queue", e))?,
        priority: priority
            .parse()
            .map_err(|e| DecodeError::in_field("priority", e))?,
    })
}

#[cfg(test)]
mod tests;
