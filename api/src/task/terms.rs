//! What a task asks for beyond being run, as the doors show it.

use std::time::Duration;

use forebay_core::{After, BatchId, TaskId, TaskRetry, Terms, Timestamp, Unique, WebhookName};
use serde::Serialize;

/// The members of a task that has no terms, and the end of the object that they are in.
pub(super) const NONE: &[u8] =
    b"\"expires_at\":null,\"heartbeat_timeout_seconds\":null,\"retry\":null,\"limit_key\":null,\"unique\":null,\
\"after\":[],\"on_dependency_failure\":null,\"notify\":[],\"batch\":null}";

/// These members of a task. They are part of the contract.
#[derive(Debug, Default, Serialize)]
pub(crate) struct TermsBody<'a> {
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) heartbeat_timeout_seconds: Option<f64>,
    pub(crate) retry: Option<RetryBody>,
    pub(crate) limit_key: Option<&'a str>,
    pub(crate) unique: Option<UniqueBody>,
    pub(crate) after: &'a [TaskId],
    pub(crate) on_dependency_failure: Option<&'static str>,
    pub(crate) notify: &'a [WebhookName],
    pub(crate) batch: Option<BatchId>,
}

/// How it is tried again: what is null is as its handler says.
#[derive(Debug, Serialize)]
pub(crate) struct RetryBody {
    base_seconds: Option<f64>,
    factor: Option<f64>,
    cap_seconds: Option<f64>,
    delays_seconds: Vec<f64>,
}

/// What it is the only one of.
#[derive(Debug, Serialize)]
pub(crate) struct UniqueBody {
    mark: String,
    until: Option<Timestamp>,
    on_conflict: &'static str,
}

impl<'a> From<Option<&'a Terms>> for TermsBody<'a> {
    fn from(terms: Option<&'a Terms>) -> Self {
        let Some(terms) = terms else {
            return Self::default();
        };
        let after: Option<&After> = terms.after.as_ref();
        Self {
            expires_at: terms.expires_at,
            heartbeat_timeout_seconds: seconds(terms.heartbeat_timeout),
            retry: terms.retry.as_ref().map(RetryBody::from),
            limit_key: terms.limit_key.as_ref().map(|key| key.as_str()),
            unique: terms.unique.as_ref().map(UniqueBody::from),
            after: after.map_or(&[], |after| &after.tasks),
            on_dependency_failure: after.map(|after| after.on_failure.as_str()),
            notify: &terms.notify,
            batch: terms.batch,
        }
    }
}

impl From<&TaskRetry> for RetryBody {
    fn from(retry: &TaskRetry) -> Self {
        Self {
            base_seconds: seconds(retry.base),
            factor: retry.factor,
            cap_seconds: seconds(retry.cap),
            delays_seconds: retry.delays.iter().map(Duration::as_secs_f64).collect(),
        }
    }
}

impl From<&Unique> for UniqueBody {
    fn from(unique: &Unique) -> Self {
        Self {
            mark: unique.mark.as_uuid().to_string(),
            until: unique.until,
            on_conflict: unique.on_conflict.as_str(),
        }
    }
}

fn seconds(span: Option<Duration>) -> Option<f64> {
    span.map(|span| span.as_secs_f64())
}

#[cfg(test)]
pub(super) mod tests {
    use forebay_core::{RetryRequest, TermsRequest, UniqueRequest};

    use super::*;

    /// All that may be asked for at once.
    pub(in super::super) fn all() -> TermsRequest {
        TermsRequest {
            expires_at: "2026-03-01T13:00:00.5Z".parse().ok(),
            schedule_to_start_timeout_seconds: None,
            heartbeat_timeout_seconds: Some(1.5),
            retry: Some(RetryRequest {
                delays_seconds: vec![0.5, 2.0],
                ..RetryRequest::default()
            }),
            limit_key: Some("a \"quoted\" key".into()),
            unique: Some(UniqueRequest {
                window_seconds: Some(10.0),
                ..UniqueRequest::default()
            }),
            after: vec!["01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d".into()],
            on_dependency_failure: Some("run".into()),
            notify: vec!["billing".into()],
            batch: None,
        }
    }

    #[test]
    fn what_is_written_for_those_without_is_what_they_have() {
        let none = serde_json::to_string(&TermsBody::default()).unwrap();
        assert_eq!(&none.as_bytes()[1..], NONE);
    }
}
