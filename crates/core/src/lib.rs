//! The domain of Forebay: what a task is, which states it may take, when it is tried again, and which
//! input is refused. Pure code: it does no I/O, spawns nothing and never reads a clock by itself.
//!
//! The one idea behind all of it: a task that is *ready* waits in the broker, a task that is *not ready*
//! waits in the store, and the dispatcher moves it over when it becomes ready.

mod event;
mod id;
mod kind_schema;
mod lifecycle;
mod limit;
mod name;
mod operation;
mod payload;
mod queue;
mod retry;
mod schedule;
mod submit;
mod task;
mod terms;
mod time;
mod trace;
mod webhook;

pub use event::{Signal, TaskEvent};
pub use id::{BatchId, ClaimId, IdempotencyKey, OperationId, TaskId, WorkerId};
pub use kind_schema::{KIND_SCHEMAS_MAX, KindSchema, SCHEMA_VERSIONS_MAX, SchemaMode, UnknownSchemaMode};
pub use lifecycle::{Decision, Lifecycle, Outcome, Refused, State, UnknownState};
pub use limit::{
    CONCURRENCY_MAX, LIMITS_MAX, LimitRequest, LimitRule, Pace, RATE_COUNT_MAX, Rate, RateRequest,
};
pub use name::{
    InvalidLimitKey, InvalidName, Kind, LimitKey, LimitName, Project, QueueName, ScheduleName, WebhookName,
};
pub use operation::{
    Action, FilterRequest, Operation, OperationFilter, OperationPlan, OperationProgress, OperationRequest,
    OperationState, RATE_PER_SECOND, RATE_PER_SECOND_MAX, UnknownAction, UnknownOperationState,
};
pub use payload::{InvalidJson, Json, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX};
pub use queue::{Lane, Priority, UnknownPriority};
pub use retry::RetryPolicy;
pub use schedule::{
    CATCH_UP_MAX, Cron, InvalidCron, JITTER_MAX, Missed, Overlap, Plan, Schedule, ScheduleRequest,
    ScheduledTask, Tick, TimeZone, UnknownOverlap, UnknownTimeZone, plan,
};
pub use submit::{Fingerprint, Problem, RUN_AT_AHEAD_MAX, Submission, SubmitRequest, Violation};
pub use task::{AttemptError, Ready, Task, TaskProgress, WorkerInfo, sanitize_text};
pub use terms::{
    AFTER_MAX, After, NOTIFY_MAX, OnConflict, OnFailure, RetryRequest, TaskRetry, Terms, TermsRequest,
    Unique, UniqueMark, UniqueRequest, UnknownOnConflict, UnknownOnFailure,
};
pub use time::{Clock, SystemClock, Timestamp, from_unix_micros, micros};
pub use trace::TraceParent;
pub use webhook::{
    DELIVERY_ANSWER_MAX, DELIVERY_ATTEMPTS_MAX, DELIVERY_DELAYS, DELIVERY_TIMEOUT, EndedTask, FAILING_MAX,
    InvalidSecret, NewWebhook, SECRET_OVERLAP, WEBHOOK_KIND, WEBHOOK_QUEUE, Webhook, WebhookEvent,
    WebhookRequest, WebhookSecret,
};
