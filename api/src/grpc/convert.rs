//! Between the messages of the `.proto` and the types of the core.

use bytes::Bytes;
use forebay_core::{
    AttemptError, Json, State, SubmitRequest, Task, TaskProgress, TermsRequest, Timestamp, TraceParent,
    Violation,
};
use forebay_proto::v1::{self, submit_task_request::When};
use forebay_store::TaskFilter;
use serde_json::value::RawValue;

use crate::{
    error::{ApiError, Code, FieldError, Result},
    grpc::terms,
    ops::{
        list::Wanted,
        page,
        submit::{Asked, Durable},
    },
};

/// What a submission asks for.
pub(crate) fn asked(message: v1::SubmitTaskRequest, traceparent: Option<TraceParent>) -> Asked {
    let mut violations = Vec::new();
    let (mut run_at, mut delay_seconds) = (None, None);
    match message.when {
        None => {}
        Some(When::RunAt(at)) => run_at = valid(at, "/run_at", &mut violations),
        Some(When::Delay(delay)) => delay_seconds = Some(seconds(delay)),
    }
    let payload = Some(message.payload).filter(|text| !text.is_empty());
    let payload = payload.and_then(|text| {
        let read = payload_of(&text);
        let refused = |error| {
            violations.push(Violation::invalid(
                "/payload",
                format!("is not valid JSON: {error}"),
            ));
        };
        read.map_err(refused).ok()
    });
    let terms = TermsRequest {
        expires_at: message
            .expires_at
            .and_then(|at| valid(at, "/expires_at", &mut violations)),
        schedule_to_start_timeout_seconds: message.schedule_to_start_timeout.map(seconds),
        heartbeat_timeout_seconds: message.heartbeat_timeout.map(seconds),
        retry: message.retry.map(terms::retry_asked),
        limit_key: said(message.limit_key),
        unique: message.unique.map(terms::unique_asked),
        after: message.after,
        on_dependency_failure: said(message.on_dependency_failure),
        notify: message.notify,
        batch: None,
    };
    let request = SubmitRequest {
        kind: message.kind,
        queue: said(message.queue),
        project: said(message.project),
        priority: said(message.priority),
        payload,
        tags: message.tags,
        run_at,
        delay_seconds,
        max_attempts: message.max_attempts.map(i64::from),
        timeout_seconds: message.timeout.map(seconds),
        idempotency_key: said(message.idempotency_key),
        traceparent,
        terms,
    };
    Asked { request, violations }
}

/// The payload, which stays a part of what it came in. How deep it may nest is checked with everything else.
fn payload_of(text: &Bytes) -> serde_json::Result<Json> {
    let raw: &RawValue = serde_json::from_slice(text)?;
    let part = text.slice_ref(raw.get().as_bytes());
    Ok(Json::from_trusted(part).unwrap_or_else(|_| Json::from_raw(raw)))
}

/// What is said of a submission in a stream.
pub(crate) fn receipt(durable: Durable<'_>) -> v1::TaskReceipt {
    let (id, state) = match durable {
        Durable::New(submission) => (submission.id, submission.state()),
        Durable::Known(task) => (task.id, task.state),
    };
    v1::TaskReceipt {
        id: id.to_string(),
        state: task_state(state).into(),
    }
}

/// Which page of which list.
pub(crate) fn wanted(message: v1::ListTasksRequest) -> Result<Wanted> {
    let mut wrong = Vec::new();
    let mut fault = |name: &str, detail: String| {
        wrong.push(FieldError {
            pointer: format!("/{name}"),
            detail,
        });
    };
    let state = match v1::TaskState::try_from(message.state) {
        Ok(v1::TaskState::Unspecified) => None,
        Ok(state) => State::ALL.into_iter().find(|known| task_state(*known) == state),
        Err(error) => {
            fault("state", error.to_string());
            None
        }
    };
    let queue = said(message.queue).map(|text| text.parse());
    let queue = queue
        .transpose()
        .unwrap_or_else(|error: forebay_core::InvalidName| {
            fault("queue", error.to_string());
            None
        });
    let kind = said(message.kind).map(|text| text.parse());
    let kind = kind
        .transpose()
        .unwrap_or_else(|error: forebay_core::InvalidName| {
            fault("kind", error.to_string());
            None
        });
    let mut time = |name: &str, at: Option<prost_types::Timestamp>| {
        let parsed = at.map(timestamp);
        if parsed == Some(None) {
            fault(name, "must be a valid Timestamp".to_owned());
        }
        parsed.flatten()
    };
    let filter = TaskFilter {
        project: None,
        state,
        queue,
        kind,
        tag: said(message.tag),
        created_after: time("created_after", message.created_after),
        created_before: time("created_before", message.created_before),
    };
    if !wrong.is_empty() {
        return Err(ApiError::fields(Code::InvalidParameter, wrong));
    }
    Ok(Wanted {
        filter,
        page_size: Some(i64::from(message.page_size)).filter(|size| *size != 0),
        page_token: said(message.page_token),
    })
}

/// A task as a message.
pub(crate) fn task(task: &Task) -> v1::Task {
    let errors: Vec<v1::AttemptError> = task.errors.iter().map(attempt_error).collect();
    let terms = task.terms.as_deref().map(terms::shown).unwrap_or_default();
    v1::Task {
        id: task.id.to_string(),
        kind: task.kind.to_string(),
        queue: task.queue.to_string(),
        state: task_state(task.state).into(),
        priority: task.priority.to_string(),
        payload: task.payload.to_bytes(),
        result: task.result.as_ref().map(Json::to_bytes).unwrap_or_default(),
        error: errors.last().cloned(),
        attempt: task.attempt,
        max_attempts: task.max_attempts,
        tags: task.tags.clone(),
        run_at: task.run_at.map(to_timestamp),
        created_at: Some(to_timestamp(task.created_at)),
        started_at: task.started_at.map(to_timestamp),
        finished_at: task.finished_at.map(to_timestamp),
        timeout: task.timeout.and_then(|timeout| timeout.try_into().ok()),
        worker: task.worker.map(|worker| worker.to_string()).unwrap_or_default(),
        errors,
        project: task.project.to_string(),
        log: task.log.clone().unwrap_or_default(),
        cancel_requested: task.cancel_requested,
        progress: task.progress.as_ref().map(progress),
        expires_at: terms.expires_at,
        heartbeat_timeout: terms.heartbeat_timeout,
        retry: terms.retry,
        limit_key: terms.limit_key,
        unique: terms.unique,
        after: terms.after,
        on_dependency_failure: terms.on_dependency_failure,
        notify: terms.notify,
        batch: terms.batch,
    }
}

/// How far a task is.
pub(crate) fn progress(progress: &TaskProgress) -> v1::TaskProgress {
    v1::TaskProgress {
        fraction: progress.fraction,
        message: progress.message.clone(),
        at: Some(to_timestamp(progress.at)),
    }
}

fn attempt_error(error: &AttemptError) -> v1::AttemptError {
    v1::AttemptError {
        attempt: error.attempt,
        outcome: error.outcome.clone(),
        message: error.message.clone(),
        at: Some(to_timestamp(error.at)),
    }
}

/// A state as the `.proto` names it.
pub(crate) fn task_state(state: State) -> v1::TaskState {
    match state {
        State::Scheduled => v1::TaskState::Scheduled,
        State::Blocked => v1::TaskState::Blocked,
        State::Throttled => v1::TaskState::Throttled,
        State::Queued => v1::TaskState::Queued,
        State::Running => v1::TaskState::Running,
        State::Retrying => v1::TaskState::Retrying,
        State::Succeeded => v1::TaskState::Succeeded,
        State::Failed => v1::TaskState::Failed,
        State::Cancelled => v1::TaskState::Cancelled,
        State::Expired => v1::TaskState::Expired,
    }
}

/// A time as a message.
pub(crate) fn to_timestamp(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.as_microsecond();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0),
    }
}

fn valid(at: prost_types::Timestamp, pointer: &str, violations: &mut Vec<Violation>) -> Option<Timestamp> {
    let read = timestamp(at);
    if read.is_none() {
        violations.push(Violation::invalid(pointer, "must be a valid Timestamp"));
    }
    read
}

fn timestamp(at: prost_types::Timestamp) -> Option<Timestamp> {
    if !(0..1_000_000_000).contains(&at.nanos) {
        return None;
    }
    Timestamp::new(at.seconds, at.nanos).ok()
}

/// A span as a message; `None` where it is too long for one.
pub(crate) fn to_duration(span: std::time::Duration) -> Option<prost_types::Duration> {
    span.try_into().ok()
}

/// A span in seconds.
pub(crate) fn seconds(duration: prost_types::Duration) -> f64 {
    duration.seconds as f64 + f64::from(duration.nanos) / 1e9
}

/// Which page of a list is asked for.
pub(crate) fn page(page_size: i32, page_token: String) -> page::Asked {
    page::Asked {
        page_size: Some(i64::from(page_size)).filter(|size| *size != 0),
        page_token: said(page_token),
    }
}

/// An empty string is what a client that said nothing sends.
pub(crate) fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_place() {
        let at: Timestamp = "1969-12-31T23:59:59.5Z".parse().unwrap();
        let message = to_timestamp(at);
        assert_eq!((message.seconds, message.nanos), (-1, 500_000_000));
        assert_eq!(timestamp(message), Some(at));
    }
}
