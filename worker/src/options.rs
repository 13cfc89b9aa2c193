use std::{collections::BTreeSet, fmt, num::NonZero, str::FromStr, time::Duration};

use forebay_core::{Lane, QueueName};
use thiserror::Error;

use crate::WebhookOptions;

/// Which parts of a worker run in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Writes what was accepted into the store.
    pub recorder: bool,
    /// Runs tasks.
    pub executor: bool,
    /// Makes ready what became due, and takes back what was lost.
    pub dispatcher: bool,
}

impl Roles {
    /// All of them.
    pub const ALL: Self = Self {
        recorder: true,
        executor: true,
        dispatcher: true,
    };

    /// Only the executor: for pools of workers beside others that record and dispatch.
    pub const EXECUTOR: Self = Self {
        recorder: false,
        executor: true,
        dispatcher: false,
    };
}

impl Default for Roles {
    fn default() -> Self {
        Self::ALL
    }
}

/// The text does not name roles.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be a comma-separated list of recorder, executor, dispatcher; {0:?} is none of them")]
pub struct UnknownRole(String);

/// A comma-separated list, as in `recorder,executor`.
impl FromStr for Roles {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let mut roles = Self {
            recorder: false,
            executor: false,
            dispatcher: false,
        };
        for role in text.split(',').map(str::trim) {
            match role {
                "recorder" => roles.recorder = true,
                "executor" => roles.executor = true,
                "dispatcher" => roles.dispatcher = true,
                other => return Err(UnknownRole(other.to_owned())),
            }
        }
        Ok(roles)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = [
            (self.recorder, "recorder"),
            (self.executor, "executor"),
            (self.dispatcher, "dispatcher"),
        ]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .collect();
        f.write_str(&names.join(","))
    }
}

/// How a worker works. The defaults are meant for production.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerOptions {
    /// What it is called where workers are listed: its host name, say.
    pub name: String,
    /// The queues whose tasks it runs.
    pub queues: Vec<QueueName>,
    /// Which parts of it run.
    pub roles: Roles,
    /// How many tasks it runs at once: its slots.
    pub concurrency: usize,
    /// Whether the worker ends by itself once its queues have nothing ready for it and what it ran is done. Meant for
    /// executors alone: it does not wait for what a recorder or dispatcher beside it may bring.
    pub once: bool,
    /// How long such a worker tries in vain to find out whether anything is ready, before it gives up with an error.
    pub look_patience: Duration,
    /// After how many tasks the worker ends by itself; it starts no more than these.
    pub tasks_max: Option<NonZero<usize>>,
    /// After this long without a heartbeat a worker counts as dead, and its tasks are taken back.
    pub lease: Duration,
    /// How often it heartbeats; `None` for a sixth of the lease.
    pub heartbeat: Option<Duration>,
    /// How long what runs may go on once the worker is to stop.
    pub drain_timeout: Duration,
    /// How long a handler has to end by itself once it was told to stop; then it is dropped.
    pub handler_grace: Duration,
    /// How long outcomes that are not stored yet are held on to at the end.
    pub flush_timeout: Duration,
    /// How often a task may be lost with its worker before it has failed.
    pub lost_max: u32,
    /// After how long finished days are dropped; `None` keeps them for ever.
    pub retention: Option<Duration>,
    /// How it receives.
    pub intake: IntakeOptions,
    /// How it dispatches.
    pub dispatcher: DispatcherOptions,
    /// How it delivers to webhooks, which is a part of dispatching.
    pub webhooks: WebhookOptions,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            name: "worker".to_owned(),
            queues: vec![QueueName::default()],
            roles: Roles::ALL,
            concurrency: 100,
            once: false,
            look_patience: Duration::from_secs(60),
            tasks_max: None,
            lease: Duration::from_secs(30),
            heartbeat: None,
            drain_timeout: Duration::from_secs(30),
            handler_grace: Duration::from_secs(3),
            flush_timeout: Duration::from_secs(10),
            lost_max: 3,
            retention: None,
            intake: IntakeOptions::default(),
            dispatcher: DispatcherOptions::default(),
            webhooks: WebhookOptions::default(),
        }
    }
}

impl WorkerOptions {
    /// How often the worker heartbeats.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        self.heartbeat.unwrap_or(self.lease / 6)
    }

    /// The queues, each once, in order.
    pub(crate) fn distinct_queues(&self) -> BTreeSet<QueueName> {
        self.queues.iter().cloned().collect()
    }

    /// The lanes of these queues.
    pub(crate) fn lanes(&self) -> Vec<Lane> {
        self.distinct_queues().iter().flat_map(Lane::all_of).collect()
    }
}

/// How a worker receives from the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct IntakeOptions {
    /// How long a subscription is asked to wait for a message.
    pub wait: Duration,
    /// How much longer than that it may take to answer before it counts as deaf and is made anew.
    pub deaf_after: Duration,
    /// How long what this worker has no handler for is held before it is handed back for another worker.
    pub unknown_kind_pause: Duration,
    /// How long a delivery is held at most because its kind holds all the slots it may; then it is handed back, perhaps
    /// to a worker that has room. Must be less than any broker waits for an answer.
    pub held_longest: Duration,
    /// After this long without a completed round a part counts as unhealthy.
    pub health_ttl: Duration,
    /// Whether what the recorder of this worker finds room for is started at once, and not published into its lane.
    pub hand_off: bool,
}

impl Default for IntakeOptions {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(1),
            deaf_after: Duration::from_secs(2),
            unknown_kind_pause: Duration::from_secs(1),
            held_longest: Duration::from_secs(15),
            health_ttl: Duration::from_secs(10),
            hand_off: true,
        }
    }
}

/// How a dispatcher dispatches.
#[derive(Debug, Clone, PartialEq)]
pub struct DispatcherOptions {
    /// How often it looks for what became due.
    pub due_interval: Duration,
    /// How often it looks for dead workers; `None` for a quarter of the lease.
    pub take_back_interval: Option<Duration>,
    /// How often it looks for lost messages.
    pub republish_interval: Duration,
    /// A task that waits longer than this while its lane is empty has lost its message.
    pub empty_lane_lag: Duration,
    /// A task that was queued this long before the newest message its lane has delivered has lost its message.
    pub watermark_lag: Duration,
    /// How often the broker is told to forget what nobody needs.
    pub trim_interval: Duration,
    /// How often the store is told to make room for the days to come.
    pub maintain_interval: Duration,
}

impl Default for DispatcherOptions {
    fn default() -> Self {
        Self {
            due_interval: Duration::from_millis(100),
            take_back_interval: None,
            republish_interval: Duration::from_secs(2),
            empty_lane_lag: Duration::from_secs(5),
            watermark_lag: Duration::from_secs(15),
            trim_interval: Duration::from_secs(1),
            maintain_interval: Duration::from_secs(3_600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_and_written_alike() {
        for text in ["recorder", "recorder,executor", "recorder,executor,dispatcher"] {
            assert_eq!(text.parse::<Roles>().unwrap().to_string(), text);
        }
        assert_eq!(
            "dispatcher , recorder".parse::<Roles>().unwrap().to_string(),
            "recorder,dispatcher"
        );
        assert!("".parse::<Roles>().is_err());
        assert!(
            "recorder,runner"
                .parse::<Roles>()
                .unwrap_err()
                .to_string()
                .contains("\"runner\"")
        );
    }
}
