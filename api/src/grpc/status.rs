//! Errors as gRPC statuses: the code of the table, `ErrorInfo` always, `BadRequest` and `RetryInfo` where they fit. Also
//! those that the table has no row for, since they cannot happen over HTTP.

use std::{collections::HashMap, time::Duration};

use forebay_proto::v1;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{ApiError, Code};

/// The domain of the codes.
const DOMAIN: &str = "forebay";

/// The status of an error.
pub(crate) fn status(error: &ApiError) -> Status {
    let row = error.code.row();
    let mut metadata = HashMap::new();
    if let Some(state) = error.state {
        metadata.insert("state".to_owned(), state.to_string());
    }
    let mut details = ErrorDetails::with_error_info(row.code, DOMAIN, metadata);
    for field in &error.errors {
        details.add_bad_request_violation(field_path(&field.pointer), &field.detail);
    }
    if let Some(seconds) = error.retry_after_seconds {
        details.set_retry_info(Some(Duration::from_secs(seconds.into())));
    }
    Status::with_error_details(row.grpc, &error.detail, details)
}

/// The call's deadline is over.
pub(crate) fn late() -> Status {
    let message = "the deadline of the call is over; whether it has had an effect is not known";
    let details = ErrorDetails::with_error_info("deadline_exceeded", DOMAIN, HashMap::new());
    Status::with_error_details(tonic::Code::DeadlineExceeded, message, details)
}

/// What tonic answers by itself, in our words; `None` where it is not tonic's, or says all there is to say.
pub(crate) fn of_tonic(theirs: &Status) -> Option<Status> {
    let message = theirs.message();
    let error = match theirs.code() {
        // The protocol wants this code where a compression is not known.
        tonic::Code::Unimplemented if theirs.metadata().contains_key("grpc-accept-encoding") => {
            let reason = Code::UnsupportedMediaType.as_str();
            let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
            return Some(Status::with_error_details(theirs.code(), message, details));
        }
        tonic::Code::Unimplemented if message.is_empty() => {
            let detail = "there is no such service or method here; reflection tells what there is";
            ApiError::new(Code::UnknownPath, detail)
        }
        tonic::Code::Unimplemented => ApiError::new(Code::UnknownPath, message),
        tonic::Code::OutOfRange if message.contains("message length too large") => {
            ApiError::new(Code::BodyTooLarge, message)
        }
        tonic::Code::Internal if UNREADABLE.iter().any(|start| message.starts_with(start)) => {
            ApiError::new(Code::InvalidBody, message)
        }
        tonic::Code::Internal => {
            tracing::warn!(message, "a call failed outside of its handler");
            ApiError::of(Code::Internal)
        }
        _ => return None,
    };
    Some(status(&error))
}

/// How tonic begins to say that a message can't be read.
const UNREADABLE: [&str; 4] = [
    "failed to decode Protobuf message",
    "protocol error: received message",
    "Missing request message",
    "Unexpected EOF decoding stream",
];

/// The same for one of many.
pub(crate) fn problem(error: &ApiError) -> v1::Problem {
    let row = error.code.row();
    v1::Problem {
        code: row.code.to_owned(),
        detail: error.detail.clone(),
        violations: error
            .errors
            .iter()
            .map(|field| v1::FieldViolation {
                field: field_path(&field.pointer),
                description: field.detail.clone(),
            })
            .collect(),
        retry_after: error.retry_after_seconds.map(|seconds| prost_types::Duration {
            seconds: seconds.into(),
            nanos: 0,
        }),
    }
}

/// A JSON pointer as a path of protocol buffer fields: `/tags/1` is `tags[1]`.
fn field_path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        let name = match part {
            "delay_seconds" => "delay",
            "timeout_seconds" => "timeout",
            "catch_up_seconds" => "catch_up",
            "jitter_seconds" => "jitter",
            other => other,
        };
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            path += &format!("[{name}]");
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path += name;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::field_path;

    #[test]
    fn names_fields_as_the_proto_does() {
        assert_eq!(field_path("/tags/1"), "tags[1]");
        assert_eq!(field_path("/timeout_seconds"), "timeout");
        assert_eq!(field_path("/spec/catch_up_seconds"), "spec.catch_up");
        assert_eq!(field_path("/spec/task/tags/1"), "spec.task.tags[1]");
        assert_eq!(field_path(""), "");
    }
}
