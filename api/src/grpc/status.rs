//! Errors as gRPC statuses: the code of the table, `ErrorInfo` always, `BadRequest` and `RetryInfo` where they fit. Also
//! those that the table has no row for, since they cannot happen over HTTP.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use forebay_proto::v1;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{ApiError, Code, FieldError};

/// The domain of the codes.
const DOMAIN: &str = "forebay";

/// How much is told of the fields at fault, in bytes: a status travels in headers, of which a client takes little.
const FIELDS_BYTES_MAX: usize = 6 * 1024;

/// The status of an error.
pub(crate) fn status(error: &ApiError) -> Status {
    let row = error.code.row();
    let mut metadata = HashMap::new();
    if let Some(state) = error.state {
        metadata.insert("state".to_owned(), state.to_string());
    }
    let mut details = ErrorDetails::with_error_info(row.code, DOMAIN, metadata);
    for (path, detail) in fields(&error.errors) {
        details.add_bad_request_violation(path, detail);
    }
    if let Some(seconds) = error.retry_after_seconds {
        details.set_retry_info(Some(Duration::from_secs(seconds.into())));
    }
    Status::with_error_details(row.grpc, detail(error), details)
}

/// What went wrong, with the name that the first field at fault has here.
fn detail(error: &ApiError) -> Cow<'_, str> {
    let said = error.errors.first().and_then(|first| {
        let path = field_path(&first.pointer);
        let begin = error.detail.find(&first.detail).filter(|_| !path.is_empty())?;
        Some(format!("{path}: {}", error.detail.get(begin..)?))
    });
    said.map_or(Cow::Borrowed(error.detail.as_str()), Cow::Owned)
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
        detail: detail(error).into_owned(),
        violations: fields(&error.errors)
            .map(|(field, detail)| v1::FieldViolation {
                field,
                description: detail.to_owned(),
            })
            .collect(),
        retry_after: error.retry_after_seconds.map(|seconds| prost_types::Duration {
            seconds: seconds.into(),
            nanos: 0,
        }),
    }
}

/// The fields at fault, as many as there is room for, by their paths.
fn fields(errors: &[FieldError]) -> impl Iterator<Item = (String, &str)> {
    let mut room = FIELDS_BYTES_MAX;
    errors.iter().map_while(move |field| {
        let path = field_path(&field.pointer);
        room = room.checked_sub(path.len() + field.detail.len())?;
        Some((path, field.detail.as_str()))
    })
}

/// A JSON pointer as a path of protocol buffer fields: `/tags/1` is `tags[1]`.
fn field_path(pointer: &str) -> String {
    let mut path = String::new();
    let mut is_ours = true;
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        // What JSON gives as a number of seconds is a Duration here. Members of a payload have their own names.
        let name = match is_ours {
            true => part.strip_suffix("_seconds").unwrap_or(part),
            false => part,
        };
        is_ours &= part != "payload";
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
    use tonic_types::StatusExt;

    use super::{field_path, status};
    use crate::error::{ApiError, Code, FieldError};

    #[test]
    fn tells_of_as_many_fields_as_there_is_room_for() {
        let field = |n: usize| FieldError {
            pointer: format!("/payload/{n}"),
            detail: "x".repeat(300),
        };
        let told = |count: usize| {
            let error = ApiError::fields(Code::InvalidRequest, (0..count).map(field).collect());
            let status = status(&error);
            assert!(status.details().len() < 8 * 1024, "{}", status.details().len());
            status.get_details_bad_request().unwrap().field_violations.len()
        };
        assert_eq!(told(10), 10);
        assert_eq!(told(100), 19);
    }

    #[test]
    fn says_what_is_wrong_by_the_names_of_the_proto() {
        let said = |errors: &[(&str, &str)]| {
            let field = |(pointer, detail): &(&str, &str)| FieldError {
                pointer: (*pointer).to_owned(),
                detail: (*detail).to_owned(),
            };
            let error = ApiError::fields(Code::InvalidRequest, errors.iter().map(field).collect());
            status(&error).message().to_owned()
        };
        let retry = [("/retry/delays_seconds/0", "is wrong"), ("/kind", "is missing")];
        assert_eq!(said(&retry), "retry.delays[0]: is wrong (and 1 more)");
        assert_eq!(said(&[("", "is no object")]), "is no object");
        // Of a spec, whose fields are named from its message on once they are known to be at fault.
        let mut spec = ApiError::at(Code::InvalidRequest, "/catch_up_seconds", "must be less");
        spec.errors[0].pointer.insert_str(0, "/spec");
        assert_eq!(status(&spec).message(), "spec.catch_up: must be less");
        let told = ApiError::new(Code::TaskNotFound, "there is no task x");
        assert_eq!(status(&told).message(), "there is no task x");
    }

    #[test]
    fn names_fields_as_the_proto_does() {
        assert_eq!(field_path("/tags/1"), "tags[1]");
        assert_eq!(field_path("/timeout_seconds"), "timeout");
        assert_eq!(field_path("/spec/catch_up_seconds"), "spec.catch_up");
        assert_eq!(field_path("/spec/task/tags/1"), "spec.task.tags[1]");
        assert_eq!(field_path("/retry/delays_seconds/0"), "retry.delays[0]");
        assert_eq!(field_path("/payload/wait_seconds"), "payload.wait_seconds");
        assert_eq!(field_path(""), "");
    }
}
