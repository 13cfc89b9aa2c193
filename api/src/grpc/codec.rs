//! How the messages of `SubmitTasks` are read and written. There may be a hundred thousand of them a second, so an answer
//! is written once, from the submission itself, where the generated code would copy each of its fields twice.

use bytes::{Buf, BufMut};
use forebay_core::{Lifecycle, Submission};
use forebay_proto::v1;
use prost::Message;
use tonic::{
    Status,
    codec::{self, BufferSettings, DecodeBuf, EncodeBuf},
};

use crate::{
    error::Result,
    grpc::{convert, status},
    ops::submit::Durable,
};

/// The largest message that is read, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a stream's buffers have room for from the start, so that they need not grow.
const BUFFER_BYTES: usize = 64 * 1024;
/// How much of the answers is put together before it is sent, where there is more.
const SENT_BYTES: usize = 32 * 1024;

/// The fields of `SubmitTasksResponse`.
const INDEX: u32 = 1;
const TASK: u32 = 2;
const PROBLEM: u32 = 3;

/// A number, or a message, text or bytes with their length in front: the two forms that fields have here.
const NUMBER: u32 = 0;
const WITH_LENGTH: u32 = 2;

/// A submission that was read, and how many bytes it took.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) message: v1::SubmitTaskRequest,
    pub(crate) bytes: usize,
}

/// A `SubmitTasksResponse`, ready to be sent.
#[derive(Debug)]
pub(crate) struct Answer {
    index: u64,
    field: u32,
    result: Vec<u8>,
}

impl Answer {
    /// What became of the submission at `index`: a task as [`task`] wrote it, or an error.
    pub(crate) fn new(index: u64, result: Result<Vec<u8>>) -> Self {
        let (field, result) = match result {
            Ok(task) => (TASK, task),
            Err(error) => (PROBLEM, status::problem(&error).encode_to_vec()),
        };
        Self { index, field, result }
    }

    fn write(&self, buffer: &mut impl BufMut) {
        if self.index != 0 {
            put_key(buffer, INDEX, NUMBER);
            put_number(buffer, self.index);
        }
        put_bytes(buffer, self.field, &self.result);
    }
}

/// Reads submissions and writes answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codec;

impl codec::Codec for Codec {
    type Encode = Answer;
    type Decode = Arrived;
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
        answer.write(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, SENT_BYTES)
    }
}

impl codec::Decoder for Codec {
    type Item = Arrived;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> std::result::Result<Option<Arrived>, Status> {
        let bytes = buffer.remaining();
        let message =
            v1::SubmitTaskRequest::decode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(Arrived { message, bytes }))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, SENT_BYTES)
    }
}

/// A task as the bytes of its message.
pub(crate) fn task(durable: Durable<'_>) -> Vec<u8> {
    match durable {
        Durable::New(submission) => accepted(submission),
        Durable::Known(task) => convert::task(task).encode_to_vec(),
    }
}

/// The task that a submission becomes, as [`convert::task`] shows it: the fields that are not empty then.
fn accepted(submission: &Submission) -> Vec<u8> {
    // About what the rest takes.
    const FIELDS_BYTES: usize = 256;
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    let id: &str = submission.id.as_uuid().hyphenated().encode_lower(&mut id);
    let state = convert::task_state(Lifecycle::accepted(submission.run_at).state);
    let payload = submission.payload.as_bytes();
    let mut text = Vec::with_capacity(FIELDS_BYTES + payload.len());
    let to = &mut text;
    put_bytes(to, 1, id.as_bytes());
    put_bytes(to, 2, submission.kind.as_str().as_bytes());
    put_bytes(to, 3, submission.lane.queue.as_str().as_bytes());
    put_key(to, 4, NUMBER);
    put_number(to, u64::from(state as i32 as u32));
    put_bytes(to, 5, submission.lane.priority.as_str().as_bytes());
    put_bytes(to, 6, payload);
    if let Some(most) = submission.max_attempts {
        put_key(to, 10, NUMBER);
        put_number(to, most.into());
    }
    for tag in &submission.tags {
        put_bytes(to, 11, tag.as_bytes());
    }
    if let Some(run_at) = submission.run_at {
        put_message(to, 12, &convert::to_timestamp(run_at));
    }
    put_message(to, 13, &convert::to_timestamp(submission.created_at));
    if let Some(timeout) = submission.timeout.and_then(|timeout| timeout.try_into().ok()) {
        put_message::<prost_types::Duration>(to, 16, &timeout);
    }
    put_bytes(to, 19, submission.project.as_str().as_bytes());
    text
}

fn put_key(to: &mut impl BufMut, field: u32, form: u32) {
    put_number(to, u64::from(field << 3 | form));
}

/// Seven bits at a time, the lowest first.
fn put_number(to: &mut impl BufMut, mut number: u64) {
    while number >= 0x80 {
        to.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    to.put_u8(number as u8);
}

fn put_bytes(to: &mut impl BufMut, field: u32, bytes: &[u8]) {
    put_key(to, field, WITH_LENGTH);
    put_number(to, bytes.len() as u64);
    to.put_slice(bytes);
}

fn put_message<M: Message>(to: &mut Vec<u8>, field: u32, message: &M) {
    put_key(to, field, WITH_LENGTH);
    // A vector has room for anything.
    let _ = message.encode_length_delimited(to);
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
            assert_eq!(
                v1::Task::decode(&*accepted(&submission)).unwrap(),
                task,
                "{submission:?}"
            );
            assert_eq!(accepted(&submission), task.encode_to_vec());
        }
    }

    #[test]
    fn so_is_an_answer() {
        use v1::submit_tasks_response::Result as Outcome;
        let task = convert::task(&crate::task::accepted(&submissions()[1]));
        let error = ApiError::at(Code::InvalidRequest, "/kind", "must be there");
        let answers = [
            (0, Ok(task.encode_to_vec()), Outcome::Task(task.clone())),
            (300, Ok(task.encode_to_vec()), Outcome::Task(task)),
            (1, Err(error.clone()), Outcome::Problem(status::problem(&error))),
        ];
        for (index, result, outcome) in answers {
            let mut written = Vec::new();
            Answer::new(index, result).write(&mut written);
            let result = Some(outcome);
            assert_eq!(written, v1::SubmitTasksResponse { index, result }.encode_to_vec());
        }
    }
}
