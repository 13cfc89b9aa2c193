//! What the metadata of a trigger asks for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use forebay_core::QueueName;
use forebay_proto::externalscaler::MetricSpec;

use crate::Demand;

/// The metric of mode `tasks`: ready and running tasks.
pub const METRIC_TASKS: &str = "forebay-tasks";
/// The metric of mode `desired_workers`.
pub const METRIC_DESIRED_WORKERS: &str = "forebay-desired-workers";

/// Tasks for each worker, unless said otherwise: a worker's slots.
const TARGET_PER_WORKER: f64 = 100.0;
/// KEDA rounds to thousandths, and 0 workers cannot be divided by.
const TARGET_MIN: f64 = 0.001;
const TARGET_MAX: f64 = 1e9;
/// Queues of one trigger.
const QUEUES_MAX: usize = 100;
/// Unknown keys that are told of in the log.
const TOLD_MAX: usize = 100;

const QUEUE: &str = "queue";
const MODE: &str = "mode";
const TARGET: &str = "target_per_worker";

/// Which metric a pool is scaled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Tasks,
    DesiredWorkers,
}

impl Mode {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "tasks" => Ok(Self::Tasks),
            "desired_workers" => Ok(Self::DesiredWorkers),
            other => Err(format!(
                "{MODE} is {other:?}: set it to tasks or desired_workers, or leave it out for tasks"
            )),
        }
    }

    pub(crate) fn metric(self) -> &'static str {
        match self {
            Self::Tasks => METRIC_TASKS,
            Self::DesiredWorkers => METRIC_DESIRED_WORKERS,
        }
    }

    pub(crate) fn of(self, demand: &Demand) -> u64 {
        match self {
            Self::Tasks => demand.tasks(),
            Self::DesiredWorkers => demand.desired_workers,
        }
    }
}

/// A trigger's metadata, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metadata {
    pub(crate) queues: Vec<QueueName>,
    pub(crate) mode: Mode,
}

impl Metadata {
    /// Reads it. The error says what is wrong and what to do.
    pub(crate) fn parse(metadata: &HashMap<String, String>) -> Result<Self, String> {
        let queues = metadata.get(QUEUE).ok_or_else(|| {
            format!(
                "{QUEUE} is missing: set it to the queue of the workers, or to several separated by commas"
            )
        })?;
        // Not needed here, but a mistake in it must not go unnoticed.
        target(metadata)?;
        Ok(Self {
            queues: parse_queues(queues)?,
            mode: mode(metadata)?,
        })
    }

    /// The metric that is meant by a name: the one it says, else that of the mode. It comes back as it was given, with
    /// whatever a version of KEDA puts before it; and since the name says which target the caller goes by, the answer
    /// fits it also while a change of the mode is on its way. An error here would only stop the scaling.
    pub(crate) fn metric(&self, name: &str) -> Mode {
        [Mode::Tasks, Mode::DesiredWorkers]
            .into_iter()
            .find(|mode| name.ends_with(mode.metric()))
            .unwrap_or(self.mode)
    }
}

/// The metric and its target. What is not understood has its default, since without an answer KEDA would scale by
/// nothing, not even by the other triggers; the other calls say what is wrong.
pub(crate) fn spec(metadata: &HashMap<String, String>) -> MetricSpec {
    let mode = mode(metadata).unwrap_or(Mode::Tasks);
    let target = match mode {
        Mode::Tasks => target(metadata).unwrap_or(TARGET_PER_WORKER),
        Mode::DesiredWorkers => 1.0,
    };
    MetricSpec {
        metric_name: mode.metric().to_owned(),
        target_size: target.ceil() as i64,
        target_size_float: target,
    }
}

fn mode(metadata: &HashMap<String, String>) -> Result<Mode, String> {
    metadata
        .get(MODE)
        .map_or(Ok(Mode::Tasks), |text| Mode::parse(text))
}

fn target(metadata: &HashMap<String, String>) -> Result<f64, String> {
    let Some(text) = metadata.get(TARGET) else {
        return Ok(TARGET_PER_WORKER);
    };
    let number = text.trim().parse().ok();
    number
        .filter(|number| (TARGET_MIN..=TARGET_MAX).contains(number))
        .ok_or_else(|| {
            format!(
                "{TARGET} is {text:?}: set it to how many tasks one worker is to have, a number of {TARGET_MIN} or \
                 more such as {TARGET_PER_WORKER} or 0.5, or leave it out for {TARGET_PER_WORKER}"
            )
        })
}

fn parse_queues(text: &str) -> Result<Vec<QueueName>, String> {
    // A queue that is named twice has its tasks once.
    let mut queues = BTreeSet::new();
    for name in text.split(',').map(str::trim) {
        let queue = name.parse().map_err(|error| {
            format!("{QUEUE} {text:?} has {name:?}: {error}; name one queue, or several separated by commas")
        })?;
        queues.insert(queue);
        if queues.len() > QUEUES_MAX {
            return Err(format!(
                "{QUEUE} has more than {QUEUES_MAX} names: spread them over several triggers"
            ));
        }
    }
    Ok(queues.into_iter().collect())
}

/// Tells of keys that nobody here knows, once each. KEDA adds keys of its own, so they are no mistake.
#[derive(Debug, Default)]
pub(crate) struct UnknownKeys(Mutex<BTreeSet<String>>);

impl UnknownKeys {
    pub(crate) fn note(&self, metadata: &HashMap<String, String>) {
        for key in metadata.keys() {
            if ![QUEUE, MODE, TARGET].contains(&key.as_str()) && self.is_news(key) {
                tracing::debug!(key, "a trigger's metadata has a key that means nothing here");
            }
        }
    }

    fn is_news(&self, key: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < TOLD_MAX && !told.contains(key) && told.insert(key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let owned = pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()));
        owned.collect()
    }

    #[test]
    fn queues_are_trimmed_and_counted_once() {
        let parsed = Metadata::parse(&given(&[("queue", " mail, reports ,mail")])).unwrap();
        let names: Vec<&str> = parsed.queues.iter().map(QueueName::as_str).collect();
        assert_eq!(
            (names.as_slice(), parsed.mode),
            (["mail", "reports"].as_slice(), Mode::Tasks)
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_the_way_out() {
        let many: Vec<String> = (0..=QUEUES_MAX).map(|n| format!("q{n}")).collect();
        let many = many.join(",");
        for (metadata, named) in [
            (given(&[]), "set it to the queue"),
            (given(&[("queues", "mail")]), "queue is missing"),
            (given(&[("queue", "")]), "several separated by commas"),
            (
                given(&[("queue", "mail,,reports")]),
                "several separated by commas",
            ),
            (given(&[("queue", "no good")]), "no good"),
            (given(&[("queue", &many)]), "several triggers"),
            (
                given(&[("queue", "a"), ("mode", "cpu")]),
                "tasks or desired_workers",
            ),
            (
                given(&[("queue", "a"), ("target_per_worker", "0")]),
                "a number of 0.001 or more",
            ),
            (given(&[("queue", "a"), ("target_per_worker", "-1")]), "-1"),
            (given(&[("queue", "a"), ("target_per_worker", "NaN")]), "NaN"),
            (given(&[("queue", "a"), ("target_per_worker", "inf")]), "inf"),
            (given(&[("queue", "a"), ("target_per_worker", "many")]), "many"),
        ] {
            let error = Metadata::parse(&metadata).unwrap_err();
            assert!(error.contains(named), "{metadata:?}: {error}");
        }
    }

    #[test]
    fn the_spec_never_fails_and_fills_both_fields() {
        let spec_of = |pairs: &[(&str, &str)]| {
            let spec = spec(&given(pairs));
            (spec.metric_name, spec.target_size, spec.target_size_float)
        };
        let tasks = |whole, exact| (METRIC_TASKS.to_owned(), whole, exact);
        assert_eq!(spec_of(&[]), tasks(100, 100.0));
        assert_eq!(spec_of(&[("target_per_worker", " 20 ")]), tasks(20, 20.0));
        assert_eq!(spec_of(&[("target_per_worker", "0.5")]), tasks(1, 0.5));
        assert_eq!(
            spec_of(&[("target_per_worker", "x"), ("mode", "y")]),
            tasks(100, 100.0)
        );
        assert_eq!(
            spec_of(&[("mode", "desired_workers"), ("target_per_worker", "20")]),
            (METRIC_DESIRED_WORKERS.to_owned(), 1, 1.0)
        );
    }

    #[test]
    fn a_name_says_which_metric_is_meant() {
        let by_mode = |mode| Metadata::parse(&given(&[("queue", "a"), ("mode", mode)])).unwrap();
        let (tasks, workers) = (by_mode("tasks"), by_mode("desired_workers"));
        for name in ["forebay-tasks", "s0-forebay-tasks", "s12-forebay-tasks"] {
            assert_eq!(workers.metric(name), Mode::Tasks);
        }
        assert_eq!(tasks.metric("s1-forebay-desired-workers"), Mode::DesiredWorkers);
        for name in ["", "something"] {
            assert_eq!(
                (tasks.metric(name), workers.metric(name)),
                (Mode::Tasks, Mode::DesiredWorkers)
            );
        }
    }

    #[test]
    fn an_unknown_key_is_news_once_and_the_memory_is_bounded() {
        let keys = UnknownKeys::default();
        assert!(keys.is_news("scalerAddress") && !keys.is_news("scalerAddress"));
        for n in 0..2 * TOLD_MAX {
            keys.is_news(&n.to_string());
        }
        assert_eq!(keys.0.lock().unwrap().len(), TOLD_MAX);
    }
}
