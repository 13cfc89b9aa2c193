//! Errors as gRPC statuses: the code of the table, `ErrorInfo` always, `BadRequest` and `RetryInfo` where they fit.

use std::{collections::HashMap, time::Duration};

use forebay_proto::v1;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::ApiError;

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
        assert_eq!(field_path(""), "");
    }
}
