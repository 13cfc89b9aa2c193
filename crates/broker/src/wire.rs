//! How messages are written: protocol buffers, by the field numbers of `proto/forebay/wire/v1/wire.proto`.

pub(crate) mod fields;

use std::time::Duration;

use bytes::Bytes;
use forebay_core::{
    Fingerprint, Json, Kind, Ready, Signal, Submission, TaskEvent, TaskId, Terms, Timestamp, TraceParent,
    from_unix_micros,
};
use forebay_proto::wire;
use prost::Message as _;
use thiserror::Error;

use self::fields::{Names, put, put_always, put_some};
use crate::Message;

/// About how many bytes a submission has beside its payload; to reserve by.
pub(crate) const FRAME_BYTES: usize = 160;
/// About how many bytes a task that is ready has.
const READY_BYTES: usize = 96;

/// The bytes are not a message of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct DecodeError(String);

impl DecodeError {
    fn in_field(field: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("field {field}: {error}"))
    }
}

/// Writes a message's body; that of a submission is an item of a [bundle](crate::bundle).
#[must_use]
pub fn encode(message: &Message) -> Bytes {
    let mut body = Vec::new();
    match message {
        Message::Submission(task) => {
            body.reserve(task.payload.as_bytes().len() + FRAME_BYTES);
            put_submission(task, &mut body);
        }
        Message::Ready(task) => {
            body.reserve(READY_BYTES);
            put_ready(task, &mut body);
        }
    }
    body.into()
}

/// Reads the body of a message whose subject begins with `verb`; with `submit`, an item of a
/// [bundle](crate::bundle).
///
/// # Errors
/// Where the verb is unknown or the body does not fit it.
pub fn decode(verb: &str, body: impl Into<Bytes>) -> Result<Message, DecodeError> {
    Decoder::default().decode(verb, &body.into())
}

/// Reads many messages, and is quick with those that have names in common.
#[derive(Debug, Default)]
pub struct Decoder {
    names: Names,
}

impl Decoder {
    /// As the function [`decode`].
    ///
    /// # Errors
    /// Where the verb is unknown or the body does not fit it.
    pub fn decode(&mut self, verb: &str, body: &Bytes) -> Result<Message, DecodeError> {
        match verb {
            "submit" => submission(body, &mut self.names).map(Message::Submission),
            "ready" => ready(body, &mut self.names).map(Message::Ready),
            other => Err(DecodeError(format!("unknown subject {other:?}"))),
        }
    }
}

/// Writes a signal.
#[must_use]
pub fn encode_signal(signal: &Signal) -> Bytes {
    let mut written = wire::Signal::default();
    match signal {
        Signal::Cancel(ids) => written.cancel = ids.iter().map(|&id| id_to_wire(id)).collect(),
        Signal::Events(events) => written.events = events.iter().map(event_to_wire).collect(),
        Signal::Progress(ids) => written.progress = ids.iter().map(|&id| id_to_wire(id)).collect(),
        Signal::QueuesChanged => written.queues_changed = true,
        Signal::Due => written.due = true,
    }
    written.encode_to_vec().into()
}

/// Reads a signal. One of a kind that this program does not know is one of no events.
///
/// # Errors
/// Where the bytes are not one.
pub fn decode_signal(body: Bytes) -> Result<Signal, DecodeError> {
    let signal = wire::Signal::decode(body).map_err(|e| DecodeError(e.to_string()))?;
    let ids = |ids: &[Bytes]| ids.iter().map(|id| id_from_wire(id)).collect::<Result<_, _>>();
    if signal.queues_changed {
        Ok(Signal::QueuesChanged)
    } else if signal.due {
        Ok(Signal::Due)
    } else if !signal.progress.is_empty() {
        ids(&signal.progress).map(Signal::Progress)
    } else if signal.cancel.is_empty() {
        signal
            .events
            .iter()
            .map(event_from_wire)
            .collect::<Result<_, _>>()
            .map(Signal::Events)
    } else {
        ids(&signal.cancel).map(Signal::Cancel)
    }
}

/// Writes the fields of a `Submission`.
pub(crate) fn put_submission(task: &Submission, body: &mut Vec<u8>) {
    put(1, task.id.as_uuid().as_bytes(), body);
    put(2, task.project.as_str().as_bytes(), body);
    put(3, task.kind.as_str().as_bytes(), body);
    put(4, task.lane.queue.as_str().as_bytes(), body);
    put(5, task.lane.priority.as_str().as_bytes(), body);
    put(6, task.payload.as_bytes(), body);
    for tag in &task.tags {
        put_always(7, tag.as_bytes(), body);
    }
    let micros = |time: Timestamp| time.as_microsecond().cast_unsigned();
    put_some(8, task.run_at.map(micros), body);
    put_some(9, task.max_attempts.map(u64::from), body);
    let millis = |timeout: Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    put_some(10, task.timeout.map(millis), body);
    put_some(11, Some(micros(task.created_at)).filter(|&at| at != 0), body);
    put(
        12,
        task.fingerprint.as_ref().map_or(&[], |print| &print.0[..]),
        body,
    );
    put(
        13,
        task.traceparent
            .as_ref()
            .map_or("", TraceParent::as_str)
            .as_bytes(),
        body,
    );
    if let Some(terms) = &task.terms {
        put(14, terms.to_json().as_bytes(), body);
    }
}

/// Reads the fields of a `Submission`. Its payload was checked before it was published, and is a slice of `body`.
fn submission(body: &Bytes, names: &mut Names) -> Result<Submission, DecodeError> {
    let (mut id, mut payload, mut fingerprint) = (&[][..], &[][..], &[][..]);
    let (mut project, mut kind, mut queue, mut priority, mut traceparent) = ("", "", "", "", "");
    let (mut tags, mut run_at, mut max_attempts, mut timeout) = (Vec::new(), None, None, None);
    let (mut created_at, mut terms) = (0, "");
    fields::each(body, 14, |tag, value| {
        match tag {
            1 => id = value.bytes()?,
            2 => project = value.text()?,
            3 => kind = value.text()?,
            4 => queue = value.text()?,
            5 => priority = value.text()?,
            6 => payload = value.bytes()?,
            7 => tags.push(value.text()?.to_owned()),
            8 => run_at = Some(value.number()?.cast_signed()),
            9 => max_attempts = Some(low_bits(value.number()?)),
            10 => timeout = Some(value.number()?),
            11 => created_at = value.number()?.cast_signed(),
            12 => fingerprint = value.bytes()?,
            13 => traceparent = value.text()?,
            _ => terms = value.text()?,
        }
        Ok(())
    })?;
    let payload = Json::from_trusted(body.slice_ref(payload));
    Ok(Submission {
        id: id_from_wire(id)?,
        project: names.project(project)?,
        kind: names.kind(kind)?,
        lane: names.lane(queue, priority)?,
        payload: payload.map_err(|error| DecodeError::in_field("payload", error))?,
        tags,
        run_at: run_at.map(from_unix_micros),
        max_attempts,
        timeout: timeout.map(Duration::from_millis),
        created_at: from_unix_micros(created_at),
        fingerprint: fingerprint_from_wire(fingerprint)?,
        traceparent: TraceParent::parse(traceparent),
        terms: terms_from_wire(terms)?,
    })
}

fn terms_from_wire(text: &str) -> Result<Option<Box<Terms>>, DecodeError> {
    if text.is_empty() {
        return Ok(None);
    }
    let terms = Terms::from_json(text);
    terms
        .map(Some)
        .map_err(|error| DecodeError::in_field("terms", error))
}

fn fingerprint_from_wire(bytes: &[u8]) -> Result<Option<Fingerprint>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let print = bytes.try_into();
    print
        .map(|print| Some(Fingerprint(print)))
        .map_err(|error| DecodeError::in_field("fingerprint", error))
}

/// Writes the fields of a `Ready`.
fn put_ready(task: &Ready, body: &mut Vec<u8>) {
    put(1, task.id.as_uuid().as_bytes(), body);
    put(2, task.kind.as_str().as_bytes(), body);
    put(3, task.lane.queue.as_str().as_bytes(), body);
    put(4, task.lane.priority.as_str().as_bytes(), body);
    for (tag, number) in [(5, task.fence), (6, task.lost)] {
        put_some(tag, Some(number.into()).filter(|&number| number != 0), body);
    }
}

fn ready(body: &Bytes, names: &mut Names) -> Result<Ready, DecodeError> {
    let (mut id, mut kind, mut queue, mut priority) = (&[][..], "", "", "");
    let (mut fence, mut lost) = (0, 0);
    fields::each(body, 6, |tag, value| {
        match tag {
            1 => id = value.bytes()?,
            2 => kind = value.text()?,
            3 => queue = value.text()?,
            4 => priority = value.text()?,
            5 => fence = low_bits(value.number()?),
            _ => lost = low_bits(value.number()?),
        }
        Ok(())
    })?;
    Ok(Ready {
        id: id_from_wire(id)?,
        kind: names.kind(kind)?,
        lane: names.lane(queue, priority)?,
        fence,
        lost,
    })
}

/// A number of 32 bits, as the generated code reads one that has more.
fn low_bits(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX)
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

#[cfg(test)]
mod tests;
