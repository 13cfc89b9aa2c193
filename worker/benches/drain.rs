//! What a worker does on real servers of its own, PostgreSQL and NATS, which sync every write: how fast it records a
//! backlog, and how fast it drains it with no-op tasks and the outcomes kept. Prints rates, and the microseconds of
//! processor time a task takes in this process and on the whole machine.
//!
//! ```text
//! cargo bench -p forebay-worker --bench drain -- 200000 512    # tasks, slots
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for developers"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_broker::{Broker, Message};
use forebay_broker_nats::{NatsBroker, NatsOptions};
use forebay_core::{Clock, Json, SubmitRequest, SystemClock};
use forebay_runtime::{health::Health, metrics::Metrics, supervise::random_bytes};
use forebay_store::{Admin, Store};
use forebay_store_postgres::{PostgresOptions, PostgresStore};
use forebay_testkit::{nats::Nats, postgres::Postgres};
use forebay_worker::{Execution, HandlerSettings, Handlers, Roles, Worker, WorkerOptions};
use tokio_util::sync::CancellationToken;

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct World {
    store: Arc<PostgresStore>,
    broker: Arc<NatsBroker>,
}

/// Processor time: of this process, and of the whole machine, in hundredths of a second.
#[derive(Clone, Copy)]
struct Spent {
    own: u64,
    all: u64,
    at: Instant,
}

fn spent() -> Spent {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let own: Vec<&str> = stat[stat.rfind(')').unwrap()..].split(' ').collect();
    let machine = std::fs::read_to_string("/proc/stat").unwrap();
    let busy: Vec<u64> = machine
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .skip(1)
        .map(|n| n.parse().unwrap())
        .collect();
    Spent {
        own: own[12].parse::<u64>().unwrap() + own[13].parse::<u64>().unwrap(),
        all: busy[0] + busy[1] + busy[2] + busy[5] + busy[6],
        at: Instant::now(),
    }
}

fn print(what: &str, count: usize, since: Spent) {
    let now = spent();
    let each = |ticks: u64| ticks as f64 * 10_000.0 / count as f64;
    println!(
        "{what}: {:.0}/s; processor time a task: {:.2} us here, {:.2} us on the whole machine",
        count as f64 / (now.at - since.at).as_secs_f64(),
        each(now.own - since.own),
        each(now.all - since.all),
    );
}

async fn noop(_: serde_json::Value, _: Execution) -> Result<(), forebay_worker::HandlerError> {
    Ok(())
}

struct Running {
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    run: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// The sum of all series of a metric.
    fn sum(&self, metric: &str) -> usize {
        let text = self.metrics.encode();
        let lines = text.lines().filter(|line| line.starts_with(metric));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize)
            .sum()
    }

    async fn until(&self, metric: &str, count: usize) {
        while self.sum(metric) < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(self) {
        let text = self.metrics.encode();
        for operation in ["record", "claim", "complete"] {
            let value = |part: &str| {
                let start = format!("forebay_persist_duration_seconds_{part}{{operation=\"{operation}\"}}");
                let line = text.lines().find(|line| line.starts_with(&start))?;
                line.rsplit(' ').next()?.parse::<f64>().ok()
            };
            if let (Some(count), Some(sum)) = (value("count"), value("sum")) {
                println!(
                    "  {operation}: {count} statements, {:.2} ms each",
                    sum * 1_000.0 / count
                );
            }
        }
        self.stop.cancel();
        self.run.await.unwrap().unwrap();
    }
}

impl World {
    fn worker(&self, roles: Roles, slots: usize) -> Running {
        let handlers = Handlers::new().with_builtin();
        let handlers = handlers.function("noop", HandlerSettings::default(), noop);
        let metrics = Arc::new(Metrics::new());
        let worker = Worker::new(
            WorkerOptions {
                roles,
                concurrency: slots,
                ..WorkerOptions::default()
            },
            handlers.unwrap(),
            Arc::clone(&self.store) as Arc<dyn Store>,
            Arc::clone(&self.broker) as Arc<dyn Broker>,
            Arc::new(SystemClock),
            Arc::clone(&metrics),
            Health::default(),
        );
        let stop = CancellationToken::new();
        let run = tokio::spawn(worker.run(stop.clone()));
        Running { metrics, stop, run }
    }

    async fn submit(&self, count: usize) {
        for _ in 0..count / 1_000 {
            let task = |_| {
                let request = SubmitRequest {
                    kind: "noop".to_owned(),
                    payload: Json::of(&"x".repeat(256)).ok(),
                    ..SubmitRequest::default()
                };
                Message::Submission(request.accept(SystemClock.now(), &random_bytes()).unwrap())
            };
            let results = self.broker.publish((0..1_000).map(task).collect()).await;
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |index: usize, default: usize| -> anyhow::Result<usize> {
        Ok(args.get(index).map_or(Ok(default), |text| text.parse())?)
    };
    let (count, slots) = (number(0, 100_000)?, number(1, 512)?);
    let postgres = Postgres::start_tuned(&["shared_buffers=1GB", "max_wal_size=4GB"]).await?;
    let nats = Nats::start().await?;
    let store = PostgresStore::connect(&PostgresOptions::new(postgres.url())).await?;
    store.migrate().await?;
    let world = World {
        store: Arc::new(store),
        broker: Arc::new(NatsBroker::connect(&NatsOptions::new(nats.url())).await?),
    };
    let roles = |text: &str| text.parse::<Roles>();
    let since = spent();
    world.submit(count).await;
    print("submit", count, since);
    let since = spent();
    let recorder = world.worker(roles("recorder")?, slots);
    recorder.until("forebay_record_lag_seconds_count", count).await;
    while world.broker.unrecorded().await? > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    print("record", count, since);
    recorder.end().await;
    postgres.psql("postgres", "VACUUM ANALYZE")?;
    let since = spent();
    let executor = world.worker(roles("executor")?, slots);
    executor.until("forebay_tasks_finished_total", count).await;
    print("drain", count, since);
    executor.end().await;
    let since = spent();
    let both = world.worker(roles("recorder,executor")?, slots);
    world.submit(count).await;
    both.until("forebay_tasks_finished_total", count).await;
    print("submit, record and drain at once", count, since);
    both.end().await;
    Ok(())
}
