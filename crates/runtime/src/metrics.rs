//! The metrics of the contract, for Prometheus. Labels are bounded: past `LABEL_VALUES_MAX` values of a label,
//! further ones count as `other`. A task's id is never one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError, RwLock, atomic::AtomicU64},
    time::Duration,
};

use forebay_core::{Outcome, QueueName};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use crate::circuit::State;

mod labels;
mod process;

use labels::{
    DependencyLabels, FinishedLabels, HttpLabels, KindLabels, NoLabels, OperationLabels, OutcomeLabels,
    QueueLabels, RpcLabels, ScalerLabels, SchemaLabels, StateLabels,
};

/// How many values a label may take that comes from users.
const LABEL_VALUES_MAX: usize = 1_000;

/// What one of several adds to a gauge; taken away again when it is dropped.
#[derive(Debug)]
struct Share {
    gauge: Gauge,
    added: i64,
}

impl Share {
    fn new(gauge: Gauge) -> Self {
        Self { gauge, added: 0 }
    }

    fn set(&mut self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.gauge.inc_by(count - self.added);
        self.added = count;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gauge.dec_by(self.added);
    }
}

/// The slots of one executor, for as long as it lives.
#[derive(Debug)]
pub struct WorkerSlots {
    busy: Share,
    free: Share,
}

impl WorkerSlots {
    /// How many are in use now, and how many are free.
    pub fn set(&mut self, busy: usize, free: usize) {
        self.busy.set(busy);
        self.free.set(free);
    }
}

/// An open stream of a remote worker: counted while it is held.
#[derive(Debug)]
pub struct RemoteWorker {
    _share: Share,
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

/// What is known of a queue at one moment. What is not known has no sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueGauges {
    /// Ready tasks in the broker that may run.
    pub ready: Option<u64>,
    /// Running tasks.
    pub running: Option<u64>,
    /// Ready tasks that are held back: their queue is paused.
    pub gated: Option<u64>,
    /// Tasks that wait for a time.
    pub scheduled: Option<u64>,
    /// How long the first ready task has been so.
    pub oldest_ready_age: Option<Duration>,
    /// How many workers it takes.
    pub desired_workers: Option<u64>,
}

/// The metrics of the tasks of one kind in one queue, looked up once for many tasks.
#[derive(Debug)]
pub struct KindMetrics {
    labels: KindLabels,
    wait: Histogram,
    duration: Histogram,
    dead_letters: Counter,
    all_finished: Family<FinishedLabels, Counter>,
    /// Those that were counted by this, by outcome.
    finished: Vec<(Outcome, Counter)>,
}

impl KindMetrics {
    /// An attempt started, `wait` after its task became ready.
    pub fn started(&self, wait: Duration) {
        self.wait.observe(wait.as_secs_f64());
    }

    /// A task has failed for good.
    pub fn failed_for_good(&self) {
        self.dead_letters.inc();
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
    schedule_ticks: Family<OutcomeLabels, Counter>,
    limits_mended: Counter,
    schema_warnings: Family<SchemaLabels, Counter>,
    webhooks_disabled: Counter,
    dead_letters: Family<KindLabels, Counter>,
    wait: Family<KindLabels, Histogram, fn() -> Histogram>,
    duration: Family<KindLabels, Histogram, fn() -> Histogram>,
    publish_duration: Histogram,
    publish_batch_size: Histogram,
    record_lag: Histogram,
    persist_duration: Family<OperationLabels, Histogram, fn() -> Histogram>,
    slots: Family<StateLabels, Gauge>,
    /// Absent from a process that has never had any.
    remote_workers: Family<NoLabels, Gauge>,
    circuit: Family<DependencyLabels, Gauge>,
    fenced_writes: Counter,
    undecodable: Counter,
    http: Family<HttpLabels, Histogram, fn() -> Histogram>,
    rpc: Family<RpcLabels, Histogram, fn() -> Histogram>,
    scaler_requests: Family<ScalerLabels, Counter>,
    /// Absent from a process that is no scaler.
    scaler_streams: Family<NoLabels, Gauge>,
    queue_ready: Family<QueueLabels, Gauge>,
    queue_running: Family<QueueLabels, Gauge>,
    queue_gated: Family<QueueLabels, Gauge>,
    queue_scheduled: Family<QueueLabels, Gauge>,
    queue_oldest_ready_age: Family<QueueLabels, Gauge<f64, AtomicU64>>,
    queue_desired_workers: Family<QueueLabels, Gauge>,
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
    /// All metrics at zero, and `forebay_build_info` of a process that is none of the `forebay` binary's.
    #[must_use]
    pub fn new() -> Self {
        Self::of_role("library")
    }

    /// All metrics at zero, and `forebay_build_info` of a process of this role: `api`, `worker`, `scaler`, `dev`.
    #[must_use]
    pub fn of_role(role: &'static str) -> Self {
        let metrics = Self {
            registry: Registry::default(),
            labels: Mutex::default(),
            queues: RwLock::default(),
            submitted: Family::default(),
            finished: Family::default(),
            schedule_ticks: Family::default(),
            limits_mended: Counter::default(),
            schema_warnings: Family::default(),
            webhooks_disabled: Counter::default(),
            dead_letters: Family::default(),
            wait: Family::new_with_constructor(slow),
            duration: Family::new_with_constructor(slow),
            publish_duration: quick(),
            publish_batch_size: Histogram::new([
                1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0,
            ]),
            record_lag: quick(),
            persist_duration: Family::new_with_constructor(quick),
            slots: Family::default(),
            remote_workers: Family::default(),
            circuit: Family::default(),
            fenced_writes: Counter::default(),
            undecodable: Counter::default(),
            http: Family::new_with_constructor(quick),
            rpc: Family::new_with_constructor(quick),
            scaler_requests: Family::default(),
            scaler_streams: Family::default(),
            queue_ready: Family::default(),
            queue_running: Family::default(),
            queue_gated: Family::default(),
            queue_scheduled: Family::default(),
            queue_oldest_ready_age: Family::default(),
            queue_desired_workers: Family::default(),
            queue_stats_timestamp: Family::default(),
        };
        metrics.registered(role)
    }

    fn registered(mut self, role: &'static str) -> Self {
        let mut registry = Registry::default();
        registry.register(
            "forebay_build",
            "The version of this program, and what this process of it does",
            Info::new([("version", env!("CARGO_PKG_VERSION")), ("role", role)]),
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
        registry.register(
            "forebay_dead_letters",
            "Tasks that failed for good",
            self.dead_letters.clone(),
        );
        registry.register(
            "forebay_schedule_ticks",
            "Ticks of schedules: fired, skipped since a task was unfinished, or missed since it was too late",
            self.schedule_ticks.clone(),
        );
        registry.register(
            "forebay_limit_counters_mended",
            "Counters of limits that were not what they count, and were mended",
            self.limits_mended.clone(),
        );
        registry.register(
            "forebay_schema_warnings",
            "Payloads of kinds whose schema is in warn mode that were accepted although they do not fit it (misfit), or were not held against \
             it (unchecked)",
            self.schema_warnings.clone(),
        );
        registry.register(
            "forebay_webhooks_disabled",
            "Webhooks that were disabled since their endpoints are gone or took nothing for days",
            self.webhooks_disabled.clone(),
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
            "Slots of the executors of this process, by state",
            self.slots.clone(),
        );
        registry.register(
            "forebay_remote_workers",
            "Remote workers that are connected to this process",
            self.remote_workers.clone(),
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
            "forebay_scaler_requests",
            "Calls of the external scaler by method and code; streams when they open",
            self.scaler_requests.clone(),
        );
        registry.register(
            "forebay_scaler_streams",
            "Open streams of the external scaler that wait for work",
            self.scaler_streams.clone(),
        );
        registry.register(
            "forebay_queue_ready",
            "Ready tasks in the broker that may run",
            self.queue_ready.clone(),
        );
        registry.register(
            "forebay_queue_running",
            "Running tasks",
            self.queue_running.clone(),
        );
        registry.register(
            "forebay_queue_gated",
            "Ready tasks that are held back, since their queue is paused: no reason for more workers",
            self.queue_gated.clone(),
        );
        registry.register(
            "forebay_queue_scheduled",
            "Tasks that wait for a time",
            self.queue_scheduled.clone(),
        );
        registry.register(
            "forebay_queue_oldest_ready_age_seconds",
            "How long the first ready task has been so; 0 where nothing is ready",
            self.queue_oldest_ready_age.clone(),
        );
        registry.register(
            "forebay_queue_desired_workers",
            "How many workers it takes to keep up, and to work off what is ready in ten seconds",
            self.queue_desired_workers.clone(),
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
            dead_letters: self.dead_letters.get_or_create_owned(&labels),
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

    /// The slots of one executor. Those of several add up.
    #[must_use]
    pub fn worker_slots(&self) -> WorkerSlots {
        let gauge = |state| self.slots.get_or_create_owned(&StateLabels { state });
        WorkerSlots {
            busy: Share::new(gauge("busy")),
            free: Share::new(gauge("free")),
        }
    }

    /// The streams of remote workers that are open, with those that this opens while it is held.
    #[must_use]
    pub fn remote_worker(&self) -> RemoteWorker {
        let gauge = self.remote_workers.get_or_create_owned(&NoLabels {});
        let mut share = Share::new(gauge);
        share.set(1);
        RemoteWorker { _share: share }
    }

    /// Where the circuit of a dependency stands.
    pub fn circuit(&self, dependency: &'static str, state: State) {
        self.circuit
            .get_or_create(&DependencyLabels { dependency })
            .set(state.number());
    }

    /// So many ticks of schedules were `fired`, `skipped` or `missed`.
    pub fn schedule_ticks(&self, outcome: &'static str, count: u64) {
        self.schedule_ticks
            .get_or_create(&OutcomeLabels { outcome })
            .inc_by(count);
    }

    /// So many counters of limits were wrong, and are right again.
    pub fn limits_mended(&self, count: u64) {
        self.limits_mended.inc_by(count);
    }

    /// A payload of a kind was accepted although it does not fit its schema (`misfit`), or was not held against it (`unchecked`).
    pub fn schema_warning(&self, kind: &str, reason: &'static str) {
        let labels = SchemaLabels {
            kind: self.bounded("kind", kind),
            reason,
        };
        self.schema_warnings.get_or_create(&labels).inc();
    }

    /// A webhook was disabled, and not by its owner.
    pub fn webhook_disabled(&self) {
        self.webhooks_disabled.inc();
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

    /// This process is a scaler: these methods and codes are there from now on, at zero.
    pub fn scaler_starts(&self, methods: &[&'static str], codes: &[&'static str]) {
        for &method in methods {
            for &code in codes {
                drop(self.scaler_requests.get_or_create(&ScalerLabels { method, code }));
            }
        }
        self.scaler_streams.get_or_create(&NoLabels {}).set(0);
    }

    /// A call of the scaler was answered, or a stream opened.
    pub fn scaler_request(&self, method: &'static str, code: &'static str) {
        self.scaler_requests
            .get_or_create(&ScalerLabels { method, code })
            .inc();
    }

    /// A stream that waits for work was opened.
    pub fn scaler_stream_opened(&self) {
        self.scaler_streams.get_or_create(&NoLabels {}).inc();
    }

    /// A stream that waits for work has ended.
    pub fn scaler_stream_closed(&self) {
        self.scaler_streams.get_or_create(&NoLabels {}).dec();
    }

    /// What is known of all queues now.
    pub fn queues(&self, queues: &[(QueueName, QueueGauges)]) {
        for (queue, gauges) in queues {
            let labels = QueueLabels {
                queue: self.bounded("queue", queue.as_str()),
            };
            for (family, count) in [
                (&self.queue_ready, gauges.ready),
                (&self.queue_running, gauges.running),
                (&self.queue_gated, gauges.gated),
                (&self.queue_scheduled, gauges.scheduled),
                (&self.queue_desired_workers, gauges.desired_workers),
            ] {
                match count {
                    Some(count) => {
                        let gauge = family.get_or_create(&labels);
                        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
                    }
                    None => {
                        family.remove(&labels);
                    }
                }
            }
            let ages = &self.queue_oldest_ready_age;
            match gauges.oldest_ready_age {
                Some(age) => {
                    ages.get_or_create(&labels).set(age.as_secs_f64());
                }
                None => {
                    ages.remove(&labels);
                }
            }
        }
    }

    /// All of what [`Self::queues`] was told last is true at this time, and nothing is missing.
    pub fn queues_counted(&self, unix_seconds: i64) {
        self.queue_stats_timestamp
            .get_or_create(&NoLabels {})
            .set(unix_seconds);
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
        let mut slots = metrics.worker_slots();
        slots.set(1, 2);
        let gauges = QueueGauges {
            ready: Some(1),
            running: Some(2),
            gated: Some(4),
            scheduled: Some(3),
            oldest_ready_age: Some(Duration::from_millis(1_500)),
            desired_workers: Some(5),
        };
        metrics.queues(&[(queue, gauges)]);
        metrics.queues_counted(1);
        let text = metrics.encode();
        for line in [
            "forebay_tasks_submitted_total{queue=\"default\"} 2",
            "forebay_tasks_finished_total{queue=\"default\",kind=\"echo\",outcome=\"timed_out\"} 1",
            "forebay_task_wait_seconds_count{queue=\"default\",kind=\"echo\"} 1",
            "forebay_record_lag_seconds_count 1",
            "forebay_worker_slots{state=\"busy\"} 1",
            "forebay_queue_ready{queue=\"default\"} 1",
            "forebay_queue_running{queue=\"default\"} 2",
            "forebay_queue_gated{queue=\"default\"} 4",
            "forebay_queue_scheduled{queue=\"default\"} 3",
            "forebay_queue_oldest_ready_age_seconds{queue=\"default\"} 1.5",
            "forebay_queue_desired_workers{queue=\"default\"} 5",
            "forebay_queue_stats_timestamp_seconds{} 1",
            "forebay_fenced_writes_total 0",
            concat!(
                "forebay_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\",role=\"library\"} 1"
            ),
            "process_resident_memory_bytes",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn what_is_not_known_of_a_queue_has_no_sample() {
        let metrics = Metrics::new();
        let queue = QueueName::default();
        let known = QueueGauges {
            ready: Some(1),
            running: Some(0),
            oldest_ready_age: Some(Duration::ZERO),
            ..QueueGauges::default()
        };
        metrics.queues(&[(queue.clone(), known)]);
        let shown = |name: &str| metrics.encode().contains(&format!("{name}{{"));
        assert!(shown("forebay_queue_ready") && shown("forebay_queue_oldest_ready_age_seconds"));
        let unknown = QueueGauges {
            running: Some(0),
            ..QueueGauges::default()
        };
        metrics.queues(&[(queue, unknown)]);
        assert!(!shown("forebay_queue_ready") && !shown("forebay_queue_oldest_ready_age_seconds"));
        assert!(shown("forebay_queue_running"));
    }

    #[test]
    fn the_slots_of_several_executors_add_up_and_go_with_them() {
        let metrics = Metrics::new();
        let shows = |busy: i64, free: i64| {
            let text = metrics.encode();
            [("busy", busy), ("free", free)].iter().all(|(state, count)| {
                text.contains(&format!("forebay_worker_slots{{state=\"{state}\"}} {count}\n"))
            })
        };
        let (mut one, mut other) = (metrics.worker_slots(), metrics.worker_slots());
        assert!(shows(0, 0));
        one.set(3, 7);
        other.set(1, 1);
        one.set(2, 8);
        assert!(shows(3, 9));
        drop(one);
        assert!(shows(1, 1));
        drop(other);
        assert!(shows(0, 0));
        let connected = metrics.remote_worker();
        assert!(metrics.encode().contains("forebay_remote_workers{} 1\n"));
        drop(connected);
        assert!(metrics.encode().contains("forebay_remote_workers{} 0\n"));
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
