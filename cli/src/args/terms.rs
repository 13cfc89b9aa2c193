//! What a task asks for beyond being run.

use std::time::Duration;

use clap::Args;
use forebay_client::{NewUnique, Retry};
use forebay_core::{OnConflict, OnFailure};
use forebay_runtime::config::values::{duration, positive_duration};

/// What tasks of a schedule may ask for, too.
#[derive(Debug, Args)]
pub(crate) struct RunTerms {
    /// End an attempt that says nothing for this long, neither progress nor a line of its log.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) heartbeat_timeout: Option<Duration>,
    /// The longest wait after the first attempt; the handler's setting unless given.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    retry_base: Option<Duration>,
    /// By how much the wait grows with each attempt, from 1 to 100.
    #[arg(long, value_name = "FACTOR")]
    retry_factor: Option<f64>,
    /// The longest wait of all.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    retry_cap: Option<Duration>,
    /// The waits themselves, such as 1s,10s,1m; the last of them for all that follow.
    #[arg(long, value_name = "DURATIONS", value_parser = duration, value_delimiter = ',',
        conflicts_with_all = ["retry_base", "retry_factor", "retry_cap"])]
    retry_delays: Vec<Duration>,
    /// What it counts to in limits by key, such as a customer's number.
    #[arg(long, value_name = "KEY")]
    pub(crate) limit_key: Option<String>,
    /// A webhook that hears of its end; may be given several times.
    #[arg(long, value_name = "WEBHOOK")]
    pub(crate) notify: Vec<String>,
}

/// What a single task may ask for only.
#[derive(Debug, Args)]
pub(crate) struct TaskTerms {
    /// Let it expire unless it is started within this long; counted from when it is to run, where that is later.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) expires_in: Option<Duration>,
    /// Let it expire unless it has been started by this time.
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    pub(crate) expires_at: Option<jiff::Timestamp>,
    /// Only if there is no unfinished task of the same kind and payload, or of the same kind and --unique-key.
    #[arg(long)]
    unique: bool,
    /// What it must be the only one of, among those of its kind.
    #[arg(long, value_name = "KEY")]
    unique_key: Option<String>,
    /// For this long after it was accepted others are in conflict with it even if it is finished.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    unique_window: Option<Duration>,
    /// Where there is such a task: return it, reject this one, or replace that one unless it runs; return unless given.
    #[arg(long, value_name = "POLICY")]
    on_conflict: Option<OnConflict>,
    /// A task that it waits for; may be given several times, or several with commas.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) after: Vec<String>,
    /// Where one of those does not succeed: cancel it, or run it once all are final; cancel unless given.
    #[arg(long, value_name = "POLICY", requires = "after")]
    pub(crate) on_dependency_failure: Option<OnFailure>,
}

impl RunTerms {
    /// How it is tried again, where that is said.
    pub(crate) fn retry(&self) -> Option<Retry> {
        let retry = Retry {
            base_seconds: self.retry_base.map(|span| span.as_secs_f64()),
            factor: self.retry_factor,
            cap_seconds: self.retry_cap.map(|span| span.as_secs_f64()),
            delays_seconds: self.retry_delays.iter().map(Duration::as_secs_f64).collect(),
        };
        (retry != Retry::default()).then_some(retry)
    }
}

impl TaskTerms {
    /// What it is to be the only one of, where that is said.
    pub(crate) fn unique(&self) -> Option<NewUnique> {
        let unique = NewUnique {
            key: self.unique_key.clone(),
            window_seconds: self.unique_window.map(|window| window.as_secs_f64()),
            on_conflict: self.on_conflict.map(|policy| policy.as_str().to_owned()),
        };
        (self.unique || unique != NewUnique::default()).then_some(unique)
    }
}
