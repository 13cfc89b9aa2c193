//! A client of Forebay's HTTP API, as the command line uses it. It knows the API alone, and none of the server's
//! crates.

mod error;
mod events;
mod lines;
mod list;
mod model;
mod request;
mod retry;
mod schedules;

pub use error::{Error, FieldError, Problem, Result};
pub use events::{EventFilter, Heard};
pub use list::TaskFilter;
pub use model::{
    AttemptError, Event, ItemResult, NewSchedule, NewTask, Progress, Queue, Reject, Rejects, Schedule,
    ScheduledTask, Task, Worker,
};
pub use request::{Client, SubmitOptions};
