//! A client of Forebay's HTTP API, as the command line uses it. It knows the API alone, and none of the server's
//! crates.

mod batches;
mod error;
mod events;
mod explain;
mod kinds;
mod limits;
mod lines;
mod list;
mod model;
mod operations;
mod page;
mod request;
mod retry;
mod schedules;
mod webhooks;

pub use batches::{Batch, MoreTasks, NewBatch};
pub use error::{Error, FieldError, Problem, Result};
pub use events::{EventFilter, Heard};
pub use explain::{Explanation, Hold};
pub use kinds::{KindSchema, NewKindSchema};
pub use limits::{Limit, NewLimit, Rate};
pub use list::TaskFilter;
pub use model::{
    AttemptError, Event, ItemResult, NewSchedule, NewTask, NewUnique, Progress, Queue, Reject, Rejects,
    Retry, Schedule, ScheduledTask, Task, Unique, Worker,
};
pub use operations::{Matching, NewOperation, Operation, OperationFilter, OperationProgress};
pub use request::{Client, SubmitOptions};
pub use webhooks::{Delivery, NewWebhook, Webhook, WebhookReplay, WebhookReplayed};
