//! What a task asks for beyond being run, between the messages of the `.proto` and the types of the core.

use forebay_core::{RetryRequest, TaskId, TaskRetry, Terms, Unique, UniqueRequest};
use forebay_proto::v1;

use crate::grpc::convert::{said, seconds, to_duration, to_timestamp};

/// How it asks to be tried again.
pub(super) fn retry_asked(retry: v1::TaskRetry) -> RetryRequest {
    RetryRequest {
        base_seconds: retry.base.map(seconds),
        factor: retry.factor,
        cap_seconds: retry.cap.map(seconds),
        delays_seconds: retry.delays.into_iter().map(seconds).collect(),
    }
}

/// What it asks to be the only one of.
pub(super) fn unique_asked(unique: v1::Unique) -> UniqueRequest {
    UniqueRequest {
        key: unique.key,
        window_seconds: unique.window.map(seconds),
        on_conflict: said(unique.on_conflict),
    }
}

/// A task that says nothing but this.
pub(super) fn shown(terms: &Terms) -> v1::Task {
    let after = terms.after.as_ref();
    v1::Task {
        expires_at: terms.expires_at.map(to_timestamp),
        heartbeat_timeout: terms.heartbeat_timeout.and_then(to_duration),
        retry: terms.retry.as_ref().map(retry),
        limit_key: terms
            .limit_key
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        unique: terms.unique.as_ref().map(unique),
        after: after
            .map(|after| after.tasks.iter().map(TaskId::to_string).collect())
            .unwrap_or_default(),
        on_dependency_failure: after
            .map(|after| after.on_failure.as_str().to_owned())
            .unwrap_or_default(),
        notify: terms.notify.iter().map(ToString::to_string).collect(),
        batch: terms.batch.map(|batch| batch.to_string()).unwrap_or_default(),
        ..v1::Task::default()
    }
}

/// How it is tried again.
pub(super) fn retry(retry: &TaskRetry) -> v1::TaskRetry {
    v1::TaskRetry {
        base: retry.base.and_then(to_duration),
        factor: retry.factor,
        cap: retry.cap.and_then(to_duration),
        delays: retry
            .delays
            .iter()
            .filter_map(|delay| to_duration(*delay))
            .collect(),
    }
}

fn unique(unique: &Unique) -> v1::TaskUnique {
    v1::TaskUnique {
        mark: unique.mark.as_uuid().to_string(),
        until: unique.until.map(to_timestamp),
        on_conflict: unique.on_conflict.as_str().to_owned(),
    }
}
