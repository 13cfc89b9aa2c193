//! The metrics of the contract, for Prometheus. Labels are bounded: past `LABEL_VALUES_MAX` values of a label,
//! further ones count as `other`. A task's id is never one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError, RwLock},
    time::Duration,
};

use forebay_core::{Outcome, QueueName};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use crate::circuit::State;

mod process;

/// How many values a label may take that comes from users.
const LABEL_VALUES_MAX: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NoLabels {}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FinishedLabels {
    queue: String,
    kind: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    queue: String,
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DependencyLabels {
    dependency: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    method: String,
    code: i32,
}

/// The durations of the requests of one route with one status.
#[derive(Debug, Clone)]
pub struct RequestDurations(Histogram);

impl RequestDurations {
    /// Another request was answered.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

/// What is known of a queue at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueGauges {
    /// Ready tasks in the broker.
    pub ready: u64,
    /// Running tasks.
    pub running: u64,
    /// Tasks that wait for a time.
    pub scheduled: u64,
}

/// The metrics of the tasks of one kind in one queue, looked up once for many tasks.
#[derive(Debug)]
pub struct KindMetrics {
    labels: KindLabels,
    wait: Histogram,
    duration: Histogram,
    all_finished: Family<FinishedLabels, Counter>,
    /// Those that were counted by this, by outcome.
    finished: Vec<(Outcome, Counter)>,
}

impl KindMetrics {
    /// An attempt started, `wait` after its task became ready.
    pub fn started(&self, wait: Duration) {
        self.wait.observe(wait.as_secs_f64());
    }

    /// The outcome of an attempt that took `duration` is stored.
    pub fn finished(&mut self, outcome: Outcome, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
        if let Some((_, counter)) = self.finished.iter().find(|(known, _)| *known == outcome) {
            counter.inc();
            return;
        }
        let labels = FinishedLabels {
            queue: self.labels.queue.clone(),
            kind: self.labels.kind.clone(),
            outcome: outcome.as_str(),
        };
        let counter = self.all_finished.get_or_create(&labels).clone();
        counter.inc();
        self.finished.push((outcome, counter));
    }
}

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    labels: Mutex<HashMap<&'static str, HashSet<String>>>,
    /// What is counted for each task that is submitted, found without making labels.
    queues: RwLock<HashMap<QueueName, Counter>>,
    submitted: Family<QueueLabels, Counter>,
    finished: Family<FinishedLabels, Counter>,
    wait: Family<KindLabels, Histogram, fn() -> Histogram>,
    duration: Family<KindLabels, Histogram, fn() -> Histogram>,
    publish_duration: Histogram,
    publish_batch_size: Histogram,
    record_lag: Histogram,
    persist_duration: Family<OperationLabels, Histogram, fn() -> Histogram>,
    slots: Family<StateLabels, Gauge>,
    circuit: Family<DependencyLabels, Gauge>,
    fenced_writes: Counter,
    undecodable: Counter,
    http: Family<HttpLabels, Histogram, fn() -> Histogram>,
    rpc: Family<RpcLabels, Histogram, fn() -> Histogram>,
    queue_ready: Family<QueueLabels, Gauge>,
    queue_running: Family<QueueLabels, Gauge>,
    queue_scheduled: Family<QueueLabels, Gauge>,
    /// Absent until it is first known.
    queue_stats_timestamp: Family<NoLabels, Gauge>,
}

/// From 0.1 ms to 10 s: for requests, publishes and statements.
fn quick() -> Histogram {
    Histogram::new([
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}

/// From 1 ms to an hour: for tasks.
fn slow() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
        900.0, 3600.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero, and `forebay_build_info`.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            labels: Mutex::default(),
            queues: RwLock::default(),
            submitted: Family::default(),
            finished: Family::default(),
            wait: Family::new_with_constructor(slow),
            duration: Family::new_with_constructor(slow),
            publish_duration: quick(),
            publish_batch_size: Histogram::new([
                1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0,
            ]),
            record_lag: quick(),
            persist_duration: Family::new_with_constructor(quick),
            slots: Family::default(),
            circuit: Family::default(),
            fenced_writes: Counter::default(),
            undecodable: Counter::default(),
            http: Family::new_with_constructor(quick),
            rpc: Family::new_with_constructor(quick),
            queue_ready: Family::default(),
            queue_running: Family::default(),
            queue_scheduled: Family::default(),
            queue_stats_timestamp: Family::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let mut registry = Registry::default();
        registry.register(
            "forebay_build",
            "The version of this program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "forebay_tasks_submitted",
            "Tasks accepted",
            self.submitted.clone(),
        );
        registry.register(
            "forebay_tasks_finished",
            "Attempts of this worker whose outcome is stored, by outcome",
            self.finished.clone(),
        );
        let seconds = Unit::Seconds;
        registry.register_with_unit(
            "forebay_task_wait",
            "From ready to started",
            seconds.clone(),
            self.wait.clone(),
        );
        registry.register_with_unit(
            "forebay_task_duration",
            "How long an attempt ran",
            seconds.clone(),
            self.duration.clone(),
        );
        registry.register_with_unit(
            "forebay_publish_duration",
            "From handing a batch to the broker to its confirmation",
            seconds.clone(),
            self.publish_duration.clone(),
        );
        registry.register(
            "forebay_publish_batch_size",
            "Messages published together",
            self.publish_batch_size.clone(),
        );
        registry.register_with_unit(
            "forebay_record_lag",
            "From accepting a task to its row in the store",
            seconds.clone(),
            self.record_lag.clone(),
        );
        registry.register_with_unit(
            "forebay_persist_duration",
            "How long a batch took the store, by operation",
            seconds.clone(),
            self.persist_duration.clone(),
        );
        registry.register(
            "forebay_worker_slots",
            "Slots of this worker, by state",
            self.slots.clone(),
        );
        registry.register(
            "forebay_circuit_state",
            "Whether calls to a dependency go through: 0 closed, 1 half-open (being probed), 2 open",
            self.circuit.clone(),
        );
        registry.register(
            "forebay_fenced_writes",
            "Outcomes that were refused because the attempt was not the current one",
            self.fenced_writes.clone(),
        );
        registry.register(
            "forebay_undecodable_messages",
            "Broker messages that were set aside because nobody can decode them",
            self.undecodable.clone(),
        );
        registry.register_with_unit(
            "http_server_request_duration",
            "HTTP requests by route and status",
            seconds.clone(),
            self.http.clone(),
        );
        registry.register_with_unit(
            "rpc_server_call_duration",
            "gRPC calls by method and code",
            seconds,
            self.rpc.clone(),
        );
        registry.register(
            "forebay_queue_ready",
            "Ready tasks in the broker",
            self.queue_ready.clone(),
        );
        registry.register(
            "forebay_queue_running",
            "Running tasks",
            self.queue_running.clone(),
        );
        registry.register(
            "forebay_queue_scheduled",
            "Tasks that wait for a time",
            self.queue_scheduled.clone(),
        );
        registry.register(
            "forebay_queue_stats_timestamp_seconds",
            "When the forebay_queue_* metrics were last true, in seconds since 1970",
            self.queue_stats_timestamp.clone(),
        );
        registry.register_collector(Box::new(process::ProcessCollector));
        self.registry = registry;
        self
    }

    /// Submissions were confirmed by the broker.
    pub fn task_submitted(&self, queue: &QueueName, count: u64) {
        let known = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(submitted) = known.get(queue) {
            submitted.inc_by(count);
            return;
        }
        drop(known);
        let submitted = self.submitted.get_or_create_owned(&QueueLabels {
            queue: self.bounded("queue", queue.as_str()),
        });
        submitted.inc_by(count);
        let mut known = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < LABEL_VALUES_MAX {
            known.insert(queue.clone(), submitted);
        }
    }

    /// What is counted of a kind in a queue, to be looked up once for many tasks.
    #[must_use]
    pub fn of_kind(&self, queue: &QueueName, kind: &str) -> KindMetrics {
        let labels = self.kind_labels(queue, kind);
        KindMetrics {
            wait: self.wait.get_or_create_owned(&labels),
            duration: self.duration.get_or_create_owned(&labels),
            all_finished: self.finished.clone(),
            finished: Vec::new(),
            labels,
        }
    }

    /// Tasks were recorded, so long after they were accepted.
    pub fn recorded(&self, lags: impl Iterator<Item = Duration>) {
        for lag in lags {
            self.record_lag.observe(lag.as_secs_f64());
        }
    }

    /// A batch was published, or refused, by the broker.
    pub fn published(&self, messages: usize, duration: Duration) {
        self.publish_duration.observe(duration.as_secs_f64());
        self.publish_batch_size.observe(messages as f64);
    }

    /// The store answered to a batch of `operation`: record, claim, complete, dispatch.
    pub fn persisted(&self, operation: &'static str, duration: Duration) {
        self.persist_duration
            .get_or_create(&OperationLabels { operation })
            .observe(duration.as_secs_f64());
    }

    /// How many slots a worker has in use, and how many are free.
    pub fn worker_slots(&self, busy: usize, free: usize) {
        let set = |state, count: usize| {
            self.slots
                .get_or_create(&StateLabels { state })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set("busy", busy);
        set("free", free);
    }

    /// Where the circuit of a dependency stands.
    pub fn circuit(&self, dependency: &'static str, state: State) {
        self.circuit
            .get_or_create(&DependencyLabels { dependency })
            .set(state.number());
    }

    /// An outcome was refused because its attempt was not the current one.
    pub fn fenced_write(&self) {
        self.fenced_writes.inc();
    }

    /// A message was set aside.
    pub fn undecodable_message(&self) {
        self.undecodable.inc();
    }

    /// An HTTP request was answered. `route` is the route's pattern, never the path.
    pub fn http_request(&self, method: &str, route: &str, status: u16, duration: Duration) {
        let labels = HttpLabels {
            method: method.to_owned(),
            route: route.to_owned(),
            status,
        };
        self.http.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// The same for many requests of one route and status: without the labels being looked up for each.
    #[must_use]
    pub fn http_requests(&self, method: &str, route: &str, status: u16) -> RequestDurations {
        let labels = HttpLabels {
            method: method.to_owned(),
            route: route.to_owned(),
            status,
        };
        RequestDurations(self.http.get_or_create_owned(&labels))
    }

    /// A gRPC call was answered with the numeric `code`.
    pub fn rpc_call(&self, method: &str, code: i32, duration: Duration) {
        let labels = RpcLabels {
            method: self.bounded("method", method),
            code,
        };
        self.rpc.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// What is known of all queues now.
    pub fn queues(&self, now_unix_seconds: i64, queues: &[(QueueName, QueueGauges)]) {
        let set = |family: &Family<QueueLabels, Gauge>, queue: &str, count: u64| {
            let labels = QueueLabels {
                queue: queue.to_owned(),
            };
            family
                .get_or_create(&labels)
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        for (queue, gauges) in queues {
            let queue = self.bounded("queue", queue.as_str());
            set(&self.queue_ready, &queue, gauges.ready);
            set(&self.queue_running, &queue, gauges.running);
            set(&self.queue_scheduled, &queue, gauges.scheduled);
        }
        self.queue_stats_timestamp
            .get_or_create(&NoLabels {})
            .set(now_unix_seconds);
    }

    /// All metrics in the text format of OpenMetrics.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn kind_labels(&self, queue: &QueueName, kind: &str) -> KindLabels {
        KindLabels {
            queue: self.bounded("queue", queue.as_str()),
            kind: self.bounded("kind", kind),
        }
    }

    fn bounded(&self, label: &'static str, value: &str) -> String {
        let mut known = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(label).or_default();
        if known.contains(value) {
            return value.to_owned();
        }
        if known.len() >= LABEL_VALUES_MAX {
            return "other".to_owned();
        }
        known.insert(value.to_owned());
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let metrics = Metrics::new();
        let queue = QueueName::default();
        metrics.task_submitted(&queue, 2);
        let mut of_echo = metrics.of_kind(&queue, "echo");
        of_echo.started(Duration::from_millis(3));
        of_echo.finished(Outcome::TimedOut, Duration::from_millis(3));
        metrics.recorded([Duration::from_millis(3)].into_iter());
        metrics.worker_slots(1, 2);
        metrics.queues(
            1,
            &[(
                queue,
                QueueGauges {
                    ready: 1,
                    running: 2,
                    scheduled: 3,
                },
            )],
        );
        let text = metrics.encode();
        for line in [
            "forebay_tasks_submitted_total{queue=\"default\"} 2",
            "forebay_tasks_finished_total{queue=\"default\",kind=\"echo\",outcome=\"timed_out\"} 1",
            "forebay_task_wait_seconds_count{queue=\"default\",kind=\"echo\"} 1",
            "forebay_record_lag_seconds_count 1",
            "forebay_worker_slots{state=\"busy\"} 1",
            "forebay_queue_ready{queue=\"default\"} 1",
            "forebay_fenced_writes_total 0",
            "forebay_build_info{version=",
            "process_resident_memory_bytes",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_label_cannot_grow_without_bound() {
        let metrics = Metrics::new();
        for n in 0..LABEL_VALUES_MAX + 10 {
            metrics.task_submitted(&format!("q{n}").parse().unwrap(), 1);
        }
        assert!(
            metrics
                .encode()
                .contains("forebay_tasks_submitted_total{queue=\"other\"} 10")
        );
    }
}
