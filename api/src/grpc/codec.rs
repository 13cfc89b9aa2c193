//! How the messages of `SubmitTasks` are read and written. There may be a hundred thousand of them a second, so an answer
//! is written once, from the submission itself, where the generated code would copy each of its fields twice.

use bytes::{Buf, BufMut, Bytes};
use forebay_core::{Lifecycle, Submission};
use forebay_proto::v1;
use prost::Message;
use tonic::{
    Status,
    codec::{self, DecodeBuf, EncodeBuf},
};

use crate::{
    error::Result,
    grpc::{convert, status},
    ops::submit::Durable,
};

/// The largest message that is read, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The fields of `SubmitTasksResponse`.
const INDEX: u32 = 1;
const TASK: u32 = 2;
const PROBLEM: u32 = 3;

/// A number, or a message, text or bytes with their length in front: the two forms that fields have here.
const NUMBER: u32 = 0;
const WITH_LENGTH: u32 = 2;

/// A message that is written but for its payload, which is not copied before it is sent.
#[derive(Debug, Default)]
pub(crate) struct Written {
    text: Vec<u8>,
    payload: Bytes,
    /// Where in the text the payload goes.
    at: usize,
}

impl Written {
    fn whole(message: &impl Message) -> Self {
        Self {
            text: message.encode_to_vec(),
            ..Self::default()
        }
    }

    fn put(&self, to: &mut impl BufMut) {
        let (before, after) = self.text.split_at(self.at);
        for part in [before, &self.payload, after] {
            to.put_slice(part);
        }
    }
}

/// A `SubmitTasksResponse`, ready to be sent.
#[derive(Debug)]
pub(crate) struct Answer {
    index: u64,
    field: u32,
    result: Written,
}

impl Answer {
    /// What became of the submission at `index`: a task as [`task`] wrote it, or an error.
    pub(crate) fn new(index: u64, result: Result<Written>) -> Self {
        let (field, result) = match result {
            Ok(task) => (TASK, task),
            Err(error) => (PROBLEM, Written::whole(&status::problem(&error))),
        };
        Self { index, field, result }
    }

    fn put(&self, to: &mut impl BufMut) {
        if self.index != 0 {
            put_key(to, INDEX, NUMBER);
            put_number(to, self.index);
        }
        put_key(to, self.field, WITH_LENGTH);
        put_number(to, (self.result.text.len() + self.result.payload.len()) as u64);
        self.result.put(to);
    }
}

/// Takes submissions unread, and writes answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codec;

impl codec::Codec for Codec {
    type Encode = Answer;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl codec::Encoder for Codec {
    type Item = Answer;
    type Error = Status;

    fn encode(&mut self, answer: Answer, buffer: &mut EncodeBuf<'_>) -> std::result::Result<(), Status> {
        answer.put(buffer);
        Ok(())
    }
}

impl codec::Decoder for Codec {
    type Item = Bytes;
    type Error = Status;

    /// The message stays a part of the buffer that it came in.
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> std::result::Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Reads a submission.
pub(crate) fn submission(message: Bytes) -> std::result::Result<v1::SubmitTaskRequest, Status> {
    v1::SubmitTaskRequest::decode(message).map_err(|error| Status::internal(error.to_string()))
}

/// A task as its message.
pub(crate) fn task(durable: Durable<'_>) -> Written {
    match durable {
        Durable::New(submission) => accepted(submission),
        Durable::Known(task) => Written::whole(&convert::task(task)),
    }
}

/// The task that a submission becomes, as [`convert::task`] shows it: the fields that are not empty then.
fn accepted(submission: &Submission) -> Written {
    // About what they take.
    const FIELDS_BYTES: usize = 128;
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    let id: &str = submission.id.as_uuid().hyphenated().encode_lower(&mut id);
    let state = convert::task_state(Lifecycle::accepted(submission.run_at).state);
    let payload = submission.payload.to_bytes();
    let mut text = Vec::with_capacity(FIELDS_BYTES);
    let to = &mut text;
    put_bytes(to, 1, id.as_bytes());
    put_bytes(to, 2, submission.kind.as_str().as_bytes());
    put_bytes(to, 3, submission.lane.queue.as_str().as_bytes());
    put_key(to, 4, NUMBER);
    put_number(to, u64::from(state as i32 as u32));
    put_bytes(to, 5, submission.lane.priority.as_str().as_bytes());
    put_key(to, 6, WITH_LENGTH);
    put_number(to, payload.len() as u64);
    let at = to.len();
    if let Some(most) = submission.max_attempts {
        put_key(to, 10, NUMBER);
        put_number(to, most.into());
    }
    for tag in &submission.tags {
        put_bytes(to, 11, tag.as_bytes());
    }
    for (field, at) in [(12, submission.run_at), (13, Some(submission.created_at))] {
        if let Some(at) = at.map(convert::to_timestamp) {
            put_time(to, field, at.seconds, at.nanos);
        }
    }
    if let Some(timeout) = submission.timeout {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        put_time(to, 16, seconds, timeout.subsec_nanos() as i32);
    }
    put_bytes(to, 19, submission.project.as_str().as_bytes());
    Written { text, payload, at }
}

fn put_key(to: &mut impl BufMut, field: u32, form: u32) {
    put_number(to, u64::from(field << 3 | form));
}

/// Seven bits at a time, the lowest first.
fn put_number(to: &mut impl BufMut, mut number: u64) {
    let (mut bytes, mut count) = ([0; 10], 0);
    while number >= 0x80 {
        bytes[count] = number as u8 | 0x80;
        number >>= 7;
        count += 1;
    }
    bytes[count] = number as u8;
    to.put_slice(&bytes[..=count]);
}

fn put_bytes(to: &mut impl BufMut, field: u32, bytes: &[u8]) {
    put_key(to, field, WITH_LENGTH);
    put_number(to, bytes.len() as u64);
    to.put_slice(bytes);
}

/// A `Timestamp` or a `Duration`, which are written alike.
fn put_time(to: &mut Vec<u8>, field: u32, seconds: i64, nanos: i32) {
    put_key(to, field, WITH_LENGTH);
    // Two numbers of at most ten bytes: so the length takes one byte.
    let at = to.len();
    to.push(0);
    for (field, number) in [(1, seconds), (2, nanos.into())] {
        if number != 0 {
            put_key(to, field, NUMBER);
            put_number(to, number as u64);
        }
    }
    to[at] = (to.len() - at - 1) as u8;
}

#[cfg(test)]
mod tests {
    use forebay_core::{Json, SubmitRequest};

    use super::*;
    use crate::error::{ApiError, Code};

    fn submissions() -> [Submission; 3] {
        let now = "2026-03-01T12:00:00.123456Z".parse().unwrap();
        let plain = SubmitRequest {
            kind: "echo".to_owned(),
            ..SubmitRequest::default()
        };
        let full = SubmitRequest {
            kind: "invoice.created".to_owned(),
            queue: Some("mail".to_owned()),
            project: Some("shop".to_owned()),
            priority: Some("high".to_owned()),
            payload: Json::parse(br#"{"to":"Zo\u00eb"}"#).ok(),
            tags: vec!["a".to_owned(), "ä".to_owned()],
            delay_seconds: Some(90.5),
            max_attempts: Some(300),
            timeout_seconds: Some(0.25),
            ..SubmitRequest::default()
        };
        let large = SubmitRequest {
            payload: Json::parse(format!("\"{}\"", "x".repeat(100_000)).as_bytes()).ok(),
            ..plain.clone()
        };
        [plain, full, large].map(|request| request.accept(now, &[7; 10]).unwrap())
    }

    #[test]
    fn an_accepted_task_is_written_as_the_generated_code_would() {
        for submission in submissions() {
            let task = convert::task(&crate::task::accepted(&submission));
            let mut written = Vec::new();
            accepted(&submission).put(&mut written);
            assert_eq!(v1::Task::decode(&*written).unwrap(), task, "{submission:?}");
            assert_eq!(written, task.encode_to_vec());
        }
    }

    #[test]
    fn so_is_an_answer() {
        use v1::submit_tasks_response::Result as Outcome;
        let submission = &submissions()[1];
        let task = convert::task(&crate::task::accepted(submission));
        let error = ApiError::at(Code::InvalidRequest, "/kind", "must be there");
        let answers = [
            (0, Ok(Written::whole(&task)), Outcome::Task(task.clone())),
            (300, Ok(accepted(submission)), Outcome::Task(task)),
            (1, Err(error.clone()), Outcome::Problem(status::problem(&error))),
        ];
        for (index, result, outcome) in answers {
            let mut written = Vec::new();
            Answer::new(index, result).put(&mut written);
            let result = Some(outcome);
            assert_eq!(written, v1::SubmitTasksResponse { index, result }.encode_to_vec());
        }
    }
}
