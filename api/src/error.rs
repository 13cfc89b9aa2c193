//! The one table of errors: each stable code with its HTTP status, its gRPC code, its title, whether and when to
//! try again, and its page. Both doors answer from it, and nothing else makes an error answer.

use std::{fmt::Display, time::Duration};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use forebay_broker::{BrokerError, PublishError};
use forebay_core::{Problem as Mistake, State, Violation};
use forebay_runtime::guard::Away;
use forebay_store::StoreError;
use serde::Serialize;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $grpc:ident, $title:literal, $retry:expr;)*) => {
        /// What went wrong, by a name that never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its row of the table.
            #[must_use]
            pub fn row(self) -> &'static Row {
                match self {
                    $(Self::$name => const { &Row {
                        code: $code,
                        status: $status,
                        grpc: tonic::Code::$grpc,
                        title: $title,
                        retry_after_seconds: $retry,
                        page: include_str!(concat!("../../docs/errors/", $code, ".md")),
                    } },)*
                }
            }
        }
    };
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// The stable code: the `code` of a problem, and the `reason` of an ErrorInfo.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The gRPC code.
    pub grpc: tonic::Code,
    /// What the code means, in a few words.
    pub title: &'static str,
    /// How long to wait before trying again; `None` where trying the same again is no use.
    pub retry_after_seconds: Option<u32>,
    /// Its page, in Markdown.
    pub page: &'static str,
}

codes! {
    /// The body is not JSON.
    MalformedJson = "malformed_json", 400, InvalidArgument, "The body is not valid JSON", None;
    /// A member of the body is unknown or of the wrong type.
    InvalidBody = "invalid_body", 400, InvalidArgument, "The body has an unknown member or a wrong type", None;
    /// A parameter of the path, the query or a header is not allowed.
    InvalidParameter = "invalid_parameter", 400, InvalidArgument, "A parameter is not valid", None;
    /// The page token was not made for this list.
    InvalidPageToken = "invalid_page_token", 400, InvalidArgument, "The page token is not valid for this list", None;
    /// There is nothing at this path.
    UnknownPath = "unknown_path", 404, Unimplemented, "There is nothing at this path", None;
    /// There is no such task.
    TaskNotFound = "task_not_found", 404, NotFound, "There is no such task", None;
    /// There is no such queue.
    QueueNotFound = "queue_not_found", 404, NotFound, "There is no such queue", None;
    /// There is no such schedule.
    ScheduleNotFound = "schedule_not_found", 404, NotFound, "There is no such schedule", None;
    /// The kind has no schema, or not that version.
    SchemaNotFound = "schema_not_found", 404, NotFound, "There is no such schema", None;
    /// There is no such limit.
    LimitNotFound = "limit_not_found", 404, NotFound, "There is no such limit", None;
    /// There is no such webhook.
    WebhookNotFound = "webhook_not_found", 404, NotFound, "There is no such webhook", None;
    /// There is no such batch.
    BatchNotFound = "batch_not_found", 404, NotFound, "There is no such batch", None;
    /// There is no such operation.
    OperationNotFound = "operation_not_found", 404, NotFound, "There is no such operation", None;
    /// The path does not know this method.
    MethodNotAllowed = "method_not_allowed", 405, Unimplemented, "The method is not allowed here", None;
    /// The body took too long to arrive.
    BodyTimeout = "body_timeout", 408, DeadlineExceeded, "The body took too long to arrive", Some(1);
    /// The task's state forbids it.
    StateConflict = "state_conflict", 409, FailedPrecondition, "The state of the task does not allow this", None;
    /// There is a task with the same unique key.
    UniqueConflict = "unique_conflict", 409, AlreadyExists, "There is a task with the same unique key", None;
    /// The webhook is disabled.
    WebhookDisabled = "webhook_disabled", 409, FailedPrecondition, "The webhook is disabled", None;
    /// The batch takes no more tasks, or is complete.
    BatchClosed = "batch_closed", 409, FailedPrecondition, "The batch is closed or complete", None;
    /// There are as many limits as there may be.
    TooManyLimits = "too_many_limits", 409, FailedPrecondition, "There are too many limits", None;
    /// As many kinds as may have schemas have one.
    TooManySchemas = "too_many_schemas", 409, FailedPrecondition, "Too many kinds have schemas", None;
    /// The body is too large.
    BodyTooLarge = "body_too_large", 413, InvalidArgument, "The body is too large", None;
    /// The payload is too large.
    PayloadTooLarge = "payload_too_large", 413, InvalidArgument, "The payload is too large", None;
    /// The batch has too many items.
    BatchTooLarge = "batch_too_large", 413, InvalidArgument, "The batch has too many items", None;
    /// The body's media type is not one that this path takes.
    UnsupportedMediaType = "unsupported_media_type", 415, InvalidArgument, "The media type is not supported here", None;
    /// Members of the request have values that are not allowed.
    InvalidRequest = "invalid_request", 422, InvalidArgument, "The request has values that are not allowed", None;
    /// The idempotency key names another request.
    IdempotencyKeyReused = "idempotency_key_reused", 422, AlreadyExists, "The idempotency key is in use with another request", None;
    /// The broker, or the line in front of it, is full.
    BacklogFull = "backlog_full", 429, ResourceExhausted, "There is no room for more tasks at the moment", Some(2);
    /// A defect of the server.
    Internal = "internal", 500, Internal, "The server made a mistake", None;
    /// Too many requests are under way.
    Overloaded = "overloaded", 503, Unavailable, "Too many requests are under way", Some(1);
    /// The broker can't be reached.
    BrokerUnavailable = "broker_unavailable", 503, Unavailable, "The broker is not available", Some(2);
    /// The store can't be reached.
    StoreUnavailable = "store_unavailable", 503, Unavailable, "The store is not available", Some(2);
    /// The task may be accepted, and is not yet recorded.
    NotYetRecorded = "not_yet_recorded", 503, Unavailable, "The task is not recorded yet", Some(1);
    /// The server is about to stop.
    ShuttingDown = "shutting_down", 503, Unavailable, "The server is shutting down", Some(1);
}

impl Code {
    /// The code's stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().code
    }

    /// The code of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where: a JSON pointer into the body, or `/` and the name of a parameter.
    pub pointer: String,
    /// What is wrong and what is allowed.
    pub detail: String,
}

/// An error as both doors answer it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Its row in the table.
    pub code: Code,
    /// What went wrong this time. Never says what went wrong inside.
    pub detail: String,
    /// The fields at fault.
    pub errors: Vec<FieldError>,
    /// The state that forbids it, where that is why.
    pub state: Option<State>,
    /// How long to wait before trying again: what the table says, unless more is known.
    pub retry_after_seconds: Option<u32>,
}

/// What an operation returns.
pub type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    /// An error that says no more than its title.
    #[must_use]
    pub fn of(code: Code) -> Self {
        Self::new(code, code.row().title)
    }

    /// An error that says what went wrong this time.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            state: None,
            retry_after_seconds: code.row().retry_after_seconds,
        }
    }

    /// An error about a dependency that is asked again after `pause`; until then trying again is no use.
    #[must_use]
    fn away(code: Code, pause: Duration) -> Self {
        let seconds = pause.as_millis().div_ceil(1_000).max(1);
        Self {
            retry_after_seconds: Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
            ..Self::of(code)
        }
    }

    /// An error about one field.
    #[must_use]
    pub fn at(code: Code, pointer: impl Into<String>, detail: impl Display) -> Self {
        let field = FieldError {
            pointer: pointer.into(),
            detail: detail.to_string(),
        };
        Self::fields(code, vec![field])
    }

    /// An error about these fields: its detail tells the first, and how many more there are.
    #[must_use]
    pub fn fields(code: Code, errors: Vec<FieldError>) -> Self {
        let Some(first) = errors.first() else {
            return Self::of(code);
        };
        let mut detail = match first.pointer.trim_start_matches('/') {
            "" => first.detail.clone(),
            name => format!("{name}: {}", first.detail),
        };
        if errors.len() > 1 {
            detail += &format!(" (and {} more)", errors.len() - 1);
        }
        Self {
            errors,
            ..Self::new(code, detail)
        }
    }

    /// The request's values are not allowed, for these reasons.
    #[must_use]
    pub fn violations(violations: Vec<Violation>) -> Self {
        let too_large = violations
            .iter()
            .any(|violation| violation.problem == Mistake::PayloadTooLarge);
        let code = if too_large {
            Code::PayloadTooLarge
        } else {
            Code::InvalidRequest
        };
        let errors = violations
            .into_iter()
            .map(|violation| FieldError {
                pointer: violation.pointer,
                detail: violation.detail,
            })
            .collect();
        Self::fields(code, errors)
    }

    /// The error as it is written, with the trace it belongs to.
    #[must_use]
    pub fn to_problem<'a>(&'a self, trace_id: Option<&'a str>) -> ProblemBody<'a> {
        let row = self.code.row();
        ProblemBody {
            kind: format!("/docs/errors/{}", row.code),
            title: row.title,
            status: row.status,
            detail: &self.detail,
            code: row.code,
            errors: &self.errors,
            state: self.state.map(State::as_str),
            trace_id,
        }
    }

    /// Writes the answer of the HTTP door.
    #[must_use]
    pub fn to_response(&self, trace_id: Option<&str>) -> Response {
        let row = self.code.row();
        let body = serde_json::to_vec(&self.to_problem(trace_id)).unwrap_or_default();
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, headers, body).into_response()
    }
}

/// RFC 9457, with a stable `code`, the fields at fault, and the trace.
#[derive(Debug, Serialize)]
pub struct ProblemBody<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}

/// The answer is written by `layers::problem`, which knows the trace; it finds the error in the
/// response's extensions.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.to_response(None);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { doing, source } => {
                tracing::debug!(doing, error = %source, "the store is unavailable");
                match source.downcast_ref::<Away>() {
                    Some(away) => Self::away(Code::StoreUnavailable, away.retry_in),
                    None => Self::of(Code::StoreUnavailable),
                }
            }
            StoreError::Schema { .. } => {
                tracing::error!(error = %error, "the store can't be used");
                Self::of(Code::StoreUnavailable)
            }
            other => {
                let source = std::error::Error::source(&other).map(ToString::to_string);
                tracing::error!(error = %other, source, "the store failed");
                Self::of(Code::Internal)
            }
        }
    }
}

impl From<BrokerError> for ApiError {
    fn from(error: BrokerError) -> Self {
        tracing::debug!(error = %error, source = %error.source, "the broker is unavailable");
        match error.source.downcast_ref::<Away>() {
            Some(away) => Self::away(Code::BrokerUnavailable, away.retry_in),
            None => Self::of(Code::BrokerUnavailable),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Full => Self::of(Code::BacklogFull),
            PublishError::Conflict => Self::of(Code::IdempotencyKeyReused),
            PublishError::Away { retry_in, .. } => Self::away(Code::BrokerUnavailable, retry_in),
            other => {
                tracing::debug!(error = %other, "a task was not confirmed");
                Self::of(Code::BrokerUnavailable)
            }
        }
    }
}
