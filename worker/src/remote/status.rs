//! Why a stream ends, with the details of the `google.rpc` error model. The reasons are those of the doors, where they
//! have them.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of the reasons.
const DOMAIN: &str = "forebay";
/// When to connect again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Fields of Hello are at fault: each by its path, with what is wrong.
pub(super) fn invalid(violations: Vec<(String, String)>) -> Status {
    let mut details = reason("invalid_request");
    let mut message = "the request has values that are not allowed".to_owned();
    if let Some((field, description)) = violations.first() {
        message = format!("{field}: {description}");
    }
    if violations.len() > 1 {
        message += &format!(" (and {} more)", violations.len() - 1);
    }
    for (field, description) in violations {
        details.add_bad_request_violation(field, description);
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// A message that must not come now.
pub(super) fn out_of_order(message: &str) -> Status {
    Status::with_error_details(Code::FailedPrecondition, message, reason("out_of_order"))
}

/// The worker has said nothing for too long.
pub(super) fn silent(limit: Duration) -> Status {
    let message = format!("nothing was heard for {limit:?}");
    Status::with_error_details(Code::DeadlineExceeded, message, reason("silent"))
}

/// There is no room for it.
pub(super) fn overloaded(message: String) -> Status {
    unavailable("overloaded", message)
}

/// The process is to stop.
pub(super) fn shutting_down() -> Status {
    unavailable("shutting_down", "the server is shutting down".to_owned())
}

/// The store does not know the worker, and so it may not run anything.
pub(super) fn unregistered() -> Status {
    unavailable(
        "store_unavailable",
        "the worker could not be registered: the store is not available".to_owned(),
    )
}

/// The stream can't be read any more. That a message is too large is said by the code that the doors have for it.
pub(super) fn unreadable(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => {
            Status::with_error_details(Code::InvalidArgument, status.message(), reason("body_too_large"))
        }
        _ => status,
    }
}

/// A defect of ours.
pub(super) fn internal() -> Status {
    let message = "the server made a mistake, see its log";
    Status::with_error_details(Code::Internal, message, reason("internal"))
}

fn unavailable(code: &str, message: String) -> Status {
    let mut details = reason(code);
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::Unavailable, message, details)
}

fn reason(code: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(code, DOMAIN, HashMap::new())
}
