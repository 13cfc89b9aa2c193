//! A task as the doors show it.

pub(crate) mod terms;

use forebay_core::{AttemptError, Json, State, Submission, Task, TaskProgress, Timestamp};
use serde::Serialize;

use terms::TermsBody;

/// A task in JSON. Its members are part of the contract.
#[derive(Debug, Serialize)]
pub(crate) struct TaskBody<'a> {
    id: String,
    project: &'a str,
    kind: &'a str,
    queue: &'a str,
    state: &'static str,
    priority: &'static str,
    payload: &'a Json,
    result: Option<&'a Json>,
    error: Option<&'a AttemptError>,
    attempt: u32,
    max_attempts: Option<u32>,
    progress: Option<&'a TaskProgress>,
    tags: &'a [String],
    run_at: Option<Timestamp>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    timeout_seconds: Option<f64>,
    worker: Option<String>,
    errors: &'a [AttemptError],
    log: Option<&'a str>,
    cancel_requested: bool,
    #[serde(flatten)]
    terms: TermsBody<'a>,
}

impl<'a> From<&'a Task> for TaskBody<'a> {
    fn from(task: &'a Task) -> Self {
        Self {
            id: task.id.to_string(),
            project: task.project.as_str(),
            kind: task.kind.as_str(),
            queue: task.queue.as_str(),
            state: task.state.as_str(),
            priority: task.priority.as_str(),
            payload: &task.payload,
            result: task.result.as_ref(),
            error: task.errors.last(),
            attempt: task.attempt,
            max_attempts: task.max_attempts,
            progress: task.progress.as_ref(),
            tags: &task.tags,
            run_at: task.run_at,
            created_at: task.created_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            timeout_seconds: task.timeout.map(|timeout| timeout.as_secs_f64()),
            worker: task.worker.map(|worker| worker.to_string()),
            errors: &task.errors,
            log: task.log.as_deref(),
            cancel_requested: task.cancel_requested,
            terms: TermsBody::from(task.terms.as_deref()),
        }
    }
}

/// Writes a task that was accepted a moment ago, as [`TaskBody`] does. Half of it is always the same then, and names
/// need no escaping, so that there is little left to do for the most frequent of all answers.
pub(crate) fn write_accepted(task: &Task) -> Vec<u8> {
    let mut text = Vec::with_capacity(768 + task.payload.as_bytes().len());
    write_members(&mut text, task);
    text
}

fn write_members(text: &mut Vec<u8>, task: &Task) {
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    let id: &str = task.id.as_uuid().hyphenated().encode_lower(&mut id);
    let named = [
        ("{\"id\":\"", id),
        ("\",\"project\":\"", task.project.as_str()),
        ("\",\"kind\":\"", task.kind.as_str()),
        ("\",\"queue\":\"", task.queue.as_str()),
        ("\",\"state\":\"", task.state.as_str()),
        ("\",\"priority\":\"", task.priority.as_str()),
        ("\",\"payload\":", task.payload.as_str()),
        (
            ",\"result\":null,\"error\":null,\"attempt\":0,\"max_attempts\":",
            "",
        ),
    ];
    for (before, value) in named {
        text.extend_from_slice(before.as_bytes());
        text.extend_from_slice(value.as_bytes());
    }
    write_value(text, &task.max_attempts);
    text.extend_from_slice(b",\"progress\":null,\"tags\":");
    write_value(text, &task.tags);
    text.extend_from_slice(b",\"run_at\":");
    write_value(text, &task.run_at);
    text.extend_from_slice(b",\"created_at\":");
    write_value(text, &task.created_at);
    text.extend_from_slice(b",\"started_at\":null,\"finished_at\":null,\"timeout_seconds\":");
    write_value(text, &task.timeout.map(|timeout| timeout.as_secs_f64()));
    text.extend_from_slice(b",\"worker\":null,\"errors\":[],\"log\":null,\"cancel_requested\":false,");
    match &task.terms {
        None => text.extend_from_slice(terms::NONE),
        Some(terms) => {
            let brace = text.len();
            write_value(text, &TermsBody::from(Some(&**terms)));
            // Its members follow those above.
            text.remove(brace);
        }
    }
}

fn write_value(text: &mut Vec<u8>, value: &impl Serialize) {
    // Writing these to memory can't fail.
    let _ = serde_json::to_writer(text, value);
}

/// The task that a submission becomes, as it is at that moment.
pub(crate) fn accepted(submission: &Submission) -> Task {
    Task {
        id: submission.id,
        project: submission.project.clone(),
        kind: submission.kind.clone(),
        queue: submission.lane.queue.clone(),
        priority: submission.lane.priority,
        state: submission.state(),
        payload: submission.payload.clone(),
        result: None,
        attempt: 0,
        fence: 0,
        max_attempts: submission.max_attempts,
        timeout: submission.timeout,
        tags: submission.tags.clone(),
        run_at: submission.run_at,
        created_at: submission.created_at,
        started_at: None,
        finished_at: None,
        worker: None,
        cancel_requested: false,
        errors: Vec::new(),
        log: None,
        progress: None,
        traceparent: submission.traceparent.clone(),
        fingerprint: submission.fingerprint,
        terms: submission.terms.clone(),
    }
}

/// Since when a task is in its state, as far as its row tells.
pub(crate) fn state_since(task: &Task) -> Timestamp {
    let failed_at = task.errors.last().map(|error| error.at);
    match task.state {
        State::Running => task.started_at.unwrap_or(task.created_at),
        state if state.is_final() => task.finished_at.or(failed_at).unwrap_or(task.created_at),
        _ => failed_at.unwrap_or(task.created_at),
    }
}

#[cfg(test)]
mod tests {
    use forebay_core::SubmitRequest;

    use super::*;

    #[test]
    fn an_accepted_task_is_written_as_any_other() {
        let plain = SubmitRequest {
            kind: "echo".into(),
            ..SubmitRequest::default()
        };
        let full = SubmitRequest {
            kind: "invoice.created".into(),
            queue: Some("images".into()),
            project: Some("shop".into()),
            priority: Some("high".into()),
            payload: Json::parse(br#"{ "z": 1.0e2, "a": "\u0000 \" " }"#).ok(),
            tags: vec!["a \"quoted\" tag".into(), "\u{e4}".into()],
            delay_seconds: Some(1.5),
            max_attempts: Some(7),
            timeout_seconds: Some(2.5),
            ..SubmitRequest::default()
        };
        let on_terms = SubmitRequest {
            terms: terms::tests::all(),
            ..full.clone()
        };
        for (request, now) in [
            (on_terms, "2026-03-01T12:00:00Z"),
            (plain.clone(), "2026-03-01T12:00:00Z"),
            (plain, "2026-03-01T12:00:00.120Z"),
            (full, "2026-03-01T12:00:00.000001Z"),
        ] {
            let submission = request.accept(now.parse().unwrap(), &[7; 10]).unwrap();
            let task = accepted(&submission);
            assert_eq!(
                String::from_utf8(write_accepted(&task)).unwrap(),
                serde_json::to_string(&TaskBody::from(&task)).unwrap()
            );
        }
    }
}
