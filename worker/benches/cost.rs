//! What a worker itself costs: recorder and executor against a store and a broker that cost nothing.
//!
//! Prints tasks a second and, what noise hardly changes, the microseconds of processor time a task takes. With a delay,
//! the store and the broker answer that much later: then it shows how well the parts of the worker overlap.
//!
//! ```text
//! cargo bench -p forebay-worker -- executor 400000 4096        # tasks, slots
//! cargo bench -p forebay-worker -- executor 400000 4096 5      # every answer takes 5 ms
//! cargo bench -p forebay-worker -- recorder 400000
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for developers"
)]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use forebay_broker::{
    Acknowledge, Broker, Consumer, Delivery, Depth, Message, PublishError, Source, Subscription, Token,
};
use forebay_core::{
    ClaimId, Clock, Json, Lane, LimitName, LimitRule, QueueName, Ready, Schedule, ScheduleName, Signal,
    State, Submission, SubmitRequest, SystemClock, Task, TaskEvent, TaskId, Timestamp, WorkerId, WorkerInfo,
};
use forebay_runtime::{
    config::{args::LogArgs, values::LogFormat},
    health::Health,
    metrics::Metrics,
    supervise::random_bytes,
    telemetry,
};
use forebay_store::{
    Admin, Changed, ClaimRequest, Claimed, Completed, Completion, Dispatch, Execute, Fired, Heartbeat,
    HeartbeatReply, Hold, Limit, LimitUse, Limits, Mended, OldestReady, Operate, Page, PageToken, PutLimit,
    PutSchedule, QueueCounts, Read, ReadySink, ReadyWalk, Record, Recorded, Recording, Reject, Rejects,
    Released, Republished, Result, Schedules, StartRequest, StoreError, TaskFilter,
};
use forebay_worker::{Execution, HandlerSettings, Handlers, Roles, Worker, WorkerOptions};
use futures::stream::BoxStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A store and a broker of no cost.
struct Nothing {
    delay: Duration,
    source: Source,
    deliveries: Mutex<VecDeque<Delivery>>,
    done: AtomicUsize,
    statements: AtomicUsize,
    all: usize,
    all_done: Notify,
}

impl Nothing {
    async fn delay(&self) {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
    }

    fn done(&self, count: usize) {
        if self.done.fetch_add(count, Ordering::AcqRel) + count >= self.all {
            self.all_done.notify_one();
        }
    }
}

#[async_trait]
impl Record for Nothing {
    async fn record_and_tell(&self, batch: &[Submission]) -> Result<Recording> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.delay().await;
        Ok(Recording::of(vec![Recorded::New; batch.len()]))
    }

    async fn set_aside(&self, _: &[Reject]) -> Result<()> {
        Ok(())
    }
}

fn claimed(request: &ClaimRequest, now: Timestamp) -> Claimed {
    let ready = &request.ready;
    Claimed {
        id: ready.id,
        fence: ready.fence + 1,
        attempt: 1,
        max_attempts: request.max_attempts,
        timeout: request.timeout,
        project: forebay_core::Project::default(),
        kind: ready.kind.clone(),
        lane: ready.lane.clone(),
        payload: Json::null(),
        queued_at: now,
        traceparent: None,
        terms: None,
        limited: false,
    }
}

#[async_trait]
impl Execute for Nothing {
    async fn register(&self, _: &Heartbeat) -> Result<()> {
        Ok(())
    }

    async fn heartbeat(&self, _: &Heartbeat) -> Result<HeartbeatReply> {
        Ok(HeartbeatReply::default())
    }

    async fn claim(&self, _: WorkerId, _: ClaimId, batch: &[ClaimRequest]) -> Result<Vec<Option<Claimed>>> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.delay().await;
        let now = SystemClock.now();
        Ok(batch.iter().map(|request| Some(claimed(request, now))).collect())
    }

    async fn record_and_claim(
        &self,
        _: WorkerId,
        _: ClaimId,
        batch: &[StartRequest],
    ) -> Result<Vec<(Recorded, Option<Claimed>)>> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.delay().await;
        let now = SystemClock.now();
        let started = |request: &StartRequest| (Recorded::New, Some(request.started(now)));
        Ok(batch.iter().map(started).collect())
    }

    async fn complete(&self, _: WorkerId, batch: &[Completion], _: &[ClaimId]) -> Result<Vec<Completed>> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.delay().await;
        self.done(batch.len());
        Ok(vec![Completed::Applied(State::Succeeded); batch.len()])
    }

    async fn deregister(&self, _: WorkerId) -> Result<()> {
        Ok(())
    }

    async fn abandon(&self, _: WorkerId, _: u32) -> Result<Vec<TaskEvent>> {
        Ok(Vec::new())
    }
}

/// What neither role asks for.
fn not_asked<T>() -> Result<T> {
    Err(StoreError::Corrupt("not part of the measurement".to_owned()))
}

#[async_trait]
impl Dispatch for Nothing {
    async fn dispatch_due(&self, _: usize, _: &dyn ReadySink) -> Result<Vec<TaskEvent>> {
        not_asked()
    }

    async fn take_back(&self, _: Duration, _: u32) -> Result<Vec<TaskEvent>> {
        not_asked()
    }

    async fn republish_lost(
        &self,
        _: &[(Lane, Timestamp)],
        _: Timestamp,
        _: usize,
        _: &dyn ReadySink,
    ) -> Result<Republished> {
        not_asked()
    }

    async fn expire_due(&self, _: usize) -> Result<forebay_store::Expired> {
        not_asked()
    }

    async fn watermarks(&self) -> Result<Vec<(Lane, Timestamp)>> {
        not_asked()
    }

    async fn now(&self) -> Result<Timestamp> {
        not_asked()
    }

    async fn maintain(&self, _: Option<Duration>) -> Result<()> {
        not_asked()
    }
}

#[async_trait]
impl Read for Nothing {
    async fn get(&self, _: TaskId) -> Result<Option<Task>> {
        not_asked()
    }

    async fn unique_holder(
        &self,
        _: &forebay_core::Project,
        _: forebay_core::UniqueMark,
    ) -> Result<Option<Task>> {
        not_asked()
    }

    async fn list(&self, _: &TaskFilter, _: usize, _: Option<PageToken>) -> Result<Page> {
        not_asked()
    }

    async fn queues(&self) -> Result<Vec<QueueCounts>> {
        not_asked()
    }

    async fn paused_queues(&self) -> Result<Vec<QueueName>> {
        Ok(Vec::new())
    }

    async fn oldest_ready(&self, _: &QueueName, walk: ReadyWalk) -> Result<OldestReady> {
        Ok(OldestReady {
            age: None,
            walk,
            is_complete: true,
        })
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        not_asked()
    }

    async fn rejects(&self, _: usize, _: usize) -> Result<Rejects> {
        not_asked()
    }
}

#[async_trait]
impl forebay_store::Explain for Nothing {
    async fn place(&self, _: TaskId) -> Result<Option<forebay_store::Place>> {
        not_asked()
    }
}

#[async_trait]
impl forebay_store::Operations for Nothing {
    async fn matching(&self, _: &forebay_core::OperationPlan, _: usize) -> Result<forebay_store::Matching> {
        not_asked()
    }

    async fn begin_operation(
        &self,
        _: forebay_core::OperationId,
        _: &forebay_core::OperationPlan,
        _: &forebay_store::Matching,
    ) -> Result<Option<forebay_core::Operation>> {
        not_asked()
    }

    async fn operation(&self, _: forebay_core::OperationId) -> Result<Option<forebay_core::Operation>> {
        not_asked()
    }

    async fn operations(
        &self,
        _: usize,
        _: Option<forebay_core::OperationId>,
    ) -> Result<Vec<forebay_core::Operation>> {
        not_asked()
    }

    async fn abort_operation(&self, _: forebay_core::OperationId) -> Result<Option<forebay_core::Operation>> {
        not_asked()
    }

    async fn pass_operation(&self) -> Result<forebay_store::OperationPass> {
        Ok(forebay_store::OperationPass::default())
    }
}

#[async_trait]
impl Operate for Nothing {
    async fn cancel(&self, _: TaskId) -> Result<Changed> {
        not_asked()
    }

    async fn retry(&self, _: TaskId) -> Result<Changed> {
        not_asked()
    }

    async fn set_paused(&self, _: &QueueName, _: bool) -> Result<bool> {
        not_asked()
    }
}

#[async_trait]
impl Schedules for Nothing {
    async fn put_schedule(&self, _: &Schedule) -> Result<PutSchedule> {
        not_asked()
    }

    async fn schedule(&self, _: &ScheduleName) -> Result<Option<Schedule>> {
        not_asked()
    }

    async fn pause_schedule(&self, _: &ScheduleName, _: bool) -> Result<Option<Schedule>> {
        not_asked()
    }

    async fn schedules(&self, _: usize, _: Option<&ScheduleName>) -> Result<Vec<Schedule>> {
        not_asked()
    }

    async fn delete_schedule(&self, _: &ScheduleName) -> Result<bool> {
        not_asked()
    }

    async fn fire_schedules(&self, _: usize, _: Option<Timestamp>) -> Result<Fired> {
        Ok(Fired::default())
    }
}

#[async_trait]
impl forebay_store::Kinds for Nothing {
    async fn put_schema(
        &self,
        _: &forebay_core::Kind,
        _: forebay_core::SchemaMode,
        _: &forebay_core::Json,
    ) -> Result<forebay_store::PutSchema> {
        not_asked()
    }

    async fn schema(
        &self,
        _: &forebay_core::Kind,
        _: Option<u32>,
    ) -> Result<Option<forebay_core::KindSchema>> {
        not_asked()
    }

    async fn schemas(
        &self,
        _: usize,
        _: Option<&forebay_core::Kind>,
    ) -> Result<Vec<forebay_core::KindSchema>> {
        not_asked()
    }

    async fn schema_versions(&self) -> Result<Vec<(forebay_core::Kind, u32)>> {
        not_asked()
    }

    async fn delete_schema(&self, _: &forebay_core::Kind) -> Result<bool> {
        not_asked()
    }
}

#[async_trait]
impl forebay_store::Webhooks for Nothing {
    async fn put_webhook(&self, _: &forebay_core::NewWebhook) -> Result<forebay_store::PutWebhook> {
        not_asked()
    }

    async fn webhook(&self, _: &forebay_core::WebhookName) -> Result<Option<forebay_core::Webhook>> {
        not_asked()
    }

    async fn webhooks(
        &self,
        _: usize,
        _: Option<&forebay_core::WebhookName>,
    ) -> Result<Vec<forebay_core::Webhook>> {
        not_asked()
    }

    async fn delete_webhook(&self, _: &forebay_core::WebhookName) -> Result<bool> {
        not_asked()
    }

    async fn disable_webhook(&self, _: &forebay_core::WebhookName, _: &str, _: &str) -> Result<bool> {
        not_asked()
    }

    async fn note_failing(
        &self,
        _: &forebay_core::WebhookName,
        _: &str,
        _: Duration,
        _: &str,
    ) -> Result<bool> {
        not_asked()
    }

    async fn note_working(&self, _: &forebay_core::WebhookName, _: &str) -> Result<()> {
        not_asked()
    }

    async fn deliveries(
        &self,
        _: &forebay_core::WebhookName,
        _: usize,
        _: Option<i64>,
    ) -> Result<Vec<forebay_store::Delivery>> {
        not_asked()
    }

    async fn replay(
        &self,
        _: &forebay_core::WebhookName,
        _: forebay_store::Replay,
    ) -> Result<forebay_store::Replayed> {
        not_asked()
    }
}

#[async_trait]
impl forebay_store::Compose for Nothing {
    async fn unknown(&self, _: &[TaskId]) -> Result<Vec<TaskId>> {
        not_asked()
    }

    async fn blocked_on(&self, _: TaskId) -> Result<forebay_store::BlockedOn> {
        not_asked()
    }

    async fn open_batch(&self, _: &forebay_store::NewBatch) -> Result<forebay_store::Opened> {
        not_asked()
    }

    async fn grow_batch(
        &self,
        _: forebay_core::BatchId,
        _: &forebay_store::BatchPart,
    ) -> Result<forebay_store::Grown> {
        not_asked()
    }

    async fn knows_part(&self, _: forebay_core::BatchId, _: forebay_core::Fingerprint) -> Result<bool> {
        not_asked()
    }

    async fn close_batch(&self, _: forebay_core::BatchId) -> Result<Option<forebay_store::Batch>> {
        not_asked()
    }

    async fn cancel_batch(&self, _: forebay_core::BatchId) -> Result<Option<forebay_store::Batch>> {
        not_asked()
    }

    async fn batch(&self, _: forebay_core::BatchId) -> Result<Option<forebay_store::Batch>> {
        not_asked()
    }

    async fn batch_counts(&self, _: forebay_core::BatchId) -> Result<forebay_store::BatchCounts> {
        not_asked()
    }

    async fn batches(
        &self,
        _: Option<&forebay_core::Project>,
        _: usize,
        _: Option<forebay_store::BatchPage>,
    ) -> Result<Vec<forebay_store::Batch>> {
        not_asked()
    }

    async fn batch_tasks(&self, _: forebay_core::BatchId, _: usize, _: Option<TaskId>) -> Result<Vec<Task>> {
        not_asked()
    }

    async fn settle(&self, _: usize) -> Result<forebay_store::Settled> {
        Ok(forebay_store::Settled::default())
    }
}

#[async_trait]
impl Limits for Nothing {
    async fn put_limit(&self, _: &LimitRule) -> Result<PutLimit> {
        not_asked()
    }

    async fn limit(&self, _: &LimitName) -> Result<Option<Limit>> {
        not_asked()
    }

    async fn limits(&self, _: usize, _: Option<&LimitName>) -> Result<Vec<Limit>> {
        not_asked()
    }

    async fn delete_limit(&self, _: &LimitName) -> Result<bool> {
        not_asked()
    }

    async fn limit_use(&self, _: &LimitName) -> Result<LimitUse> {
        not_asked()
    }

    async fn held_by(&self, _: TaskId) -> Result<Option<Hold>> {
        not_asked()
    }

    async fn release_throttled(&self, _: Option<i64>, _: usize) -> Result<Released> {
        Ok(Released::default())
    }

    async fn mend_limits(&self) -> Result<Mended> {
        Ok(Mended::default())
    }
}

#[async_trait]
impl Admin for Nothing {
    async fn migrate(&self) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// One end of a subscription, or all of a broker.
#[derive(Clone)]
struct End {
    nothing: Arc<Nothing>,
    source: Source,
}

#[async_trait]
impl Consumer for End {
    async fn next(&mut self, max: usize, wait: Duration) -> forebay_broker::Result<Vec<Delivery>> {
        let taken: Vec<Delivery> = if self.source == self.nothing.source {
            let mut deliveries = self.nothing.deliveries.lock().unwrap();
            let count = max.min(deliveries.len());
            deliveries.drain(..count).collect()
        } else {
            Vec::new()
        };
        if taken.is_empty() {
            tokio::time::sleep(wait).await;
        } else {
            self.nothing.delay().await;
        }
        Ok(taken)
    }
}

#[async_trait]
impl Acknowledge for End {
    async fn ack(&self, tokens: Vec<Token>) -> forebay_broker::Result<()> {
        if self.source == Source::Submissions {
            self.nothing.done(tokens.len());
        }
        Ok(())
    }

    async fn hand_back(&self, _: Vec<Token>) -> forebay_broker::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Broker for End {
    async fn publish(&self, batch: Vec<Message>) -> Vec<std::result::Result<(), PublishError>> {
        self.nothing.delay().await;
        vec![Ok(()); batch.len()]
    }

    async fn consume(&self, source: Source) -> forebay_broker::Result<Subscription> {
        let end = Self {
            nothing: Arc::clone(&self.nothing),
            source,
        };
        Ok(Subscription {
            consumer: Box::new(end.clone()),
            acks: Arc::new(end),
        })
    }

    async fn depth(&self, _: &Lane) -> forebay_broker::Result<Depth> {
        Ok(Depth::default())
    }

    async fn unrecorded(&self) -> forebay_broker::Result<u64> {
        Ok(0)
    }

    async fn signal(&self, _: Signal) -> forebay_broker::Result<()> {
        Ok(())
    }

    async fn signals(&self) -> forebay_broker::Result<BoxStream<'static, Signal>> {
        Ok(Box::pin(futures::stream::pending()))
    }

    async fn trim(&self) -> forebay_broker::Result<()> {
        Ok(())
    }

    async fn check(&self) -> forebay_broker::Result<()> {
        Ok(())
    }
}

fn submission() -> Submission {
    let request = SubmitRequest {
        kind: "noop".to_owned(),
        ..SubmitRequest::default()
    };
    request.accept(SystemClock.now(), &random_bytes()).unwrap()
}

fn deliveries(source: &Source, count: usize) -> VecDeque<Delivery> {
    let template = submission();
    let message = |id| match source {
        Source::Submissions => Message::Submission(Submission {
            id,
            ..template.clone()
        }),
        Source::Lane(lane) => Message::Ready(Ready {
            id,
            kind: template.kind.clone(),
            lane: lane.clone(),
            fence: 0,
            lost: 0,
        }),
    };
    let deliver = |_| {
        let now = SystemClock.now();
        Delivery {
            message: Ok(message(TaskId::new(now, &random_bytes()))),
            published_at: now,
            token: Token(Bytes::from_static(b"token")),
        }
    };
    (0..count).map(deliver).collect()
}

/// Returns at once.
async fn noop(_: serde_json::Value, _: Execution) -> std::result::Result<(), forebay_worker::HandlerError> {
    Ok(())
}

fn handlers() -> Handlers {
    let settings = HandlerSettings::default();
    Handlers::new()
        .with_builtin()
        .function("noop", settings, noop)
        .unwrap()
}

fn options(role: &str, slots: usize) -> WorkerOptions {
    let off = Roles {
        recorder: false,
        executor: false,
        dispatcher: false,
    };
    let roles = match role {
        "recorder" => Roles {
            recorder: true,
            ..off
        },
        _ => Roles::EXECUTOR,
    };
    WorkerOptions {
        roles,
        concurrency: slots,
        ..WorkerOptions::default()
    }
}

/// The processor time that this process has used, user and system, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split(' ').collect();
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

async fn measure(role: &str, count: usize, slots: usize, delay: Duration) {
    let source = match role {
        "recorder" => Source::Submissions,
        _ => Source::Lane(Lane::new(Default::default(), Default::default())),
    };
    let nothing = Arc::new(Nothing {
        delay,
        deliveries: Mutex::new(deliveries(&source, count)),
        source,
        done: AtomicUsize::new(0),
        statements: AtomicUsize::new(0),
        all: count,
        all_done: Notify::new(),
    });
    let broker = Arc::new(End {
        nothing: Arc::clone(&nothing),
        source: nothing.source.clone(),
    });
    let worker = Worker::new(
        options(role, slots),
        handlers(),
        Arc::clone(&nothing) as Arc<dyn forebay_store::Store>,
        broker,
        Arc::new(SystemClock),
        Arc::new(Metrics::new()),
        Health::default(),
    );
    let stop = CancellationToken::new();
    let (ticks, began) = (cpu_ticks(), Instant::now());
    let run = tokio::spawn(worker.run(stop.clone()));
    nothing.all_done.notified().await;
    let (ticks, took) = (cpu_ticks() - ticks, began.elapsed());
    stop.cancel();
    run.await.unwrap().unwrap();
    let statements = nothing.statements.load(Ordering::Relaxed);
    println!(
        "{role} tasks={count} slots={slots} delay={delay:?}: {:.0}/s, {:.2} us of processor time a task, {statements} statements",
        count as f64 / took.as_secs_f64(),
        ticks as f64 * 10_000.0 / count as f64,
    );
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |index: usize, default: u64| -> anyhow::Result<u64> {
        Ok(args.get(index).map_or(Ok(default), |text| text.parse())?)
    };
    let log = LogArgs {
        log_format: LogFormat::Json,
        log: std::env::var("FOREBAY_LOG").unwrap_or_else(|_| "info".to_owned()),
        otlp_endpoint: None,
    };
    let telemetry = telemetry::start(&log, "bench")?;
    let role = args.first().map_or("executor", String::as_str);
    let count = usize::try_from(number(1, 400_000)?)?;
    let slots = usize::try_from(number(2, 512)?)?;
    measure(role, count, slots, Duration::from_millis(number(3, 0)?)).await;
    telemetry.shutdown().await;
    Ok(())
}
