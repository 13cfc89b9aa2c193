//! What publishing and consuming cost on a private, synced server: rates, latencies, and CPU time for each task, ours
//! and the server's, which other load on the machine hardly changes.
//!
//! `cargo run --profile profiling -p forebay-broker-nats --example nats_cost [-- <case>…]`

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_broker::{Broker, Message, Source, Subscription};
use forebay_broker_nats::{NatsBroker, NatsOptions};
use forebay_core::{Clock, Json, Lane, Ready, Submission, SubmitRequest, SystemClock};
use forebay_testkit::nats::Nats;

const SUBMITTED: [usize; 5] = [1, 32, 256, 1_000, 10_000];
const SUBMIT_FOR: Duration = Duration::from_millis(700);
const READY: usize = 200_000;
const LONE: usize = 200;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wants = |case: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == case);
    let server = Nats::start().await?;
    let bench = Bench {
        broker: Arc::new(NatsBroker::connect(&NatsOptions::new(server.url())).await?),
        server: server.process_id().unwrap_or_default(),
        lane: "default.default".parse()?,
    };
    println!(
        "{:<28} {:>10} {:>9} {:>9} {:>9} {:>9}",
        "", "tasks/s", "p50 ms", "p99 ms", "our µs", "server µs"
    );
    if wants("submit") {
        for count in SUBMITTED {
            bench.submit(count).await?;
        }
    }
    if wants("record") {
        bench.record().await?;
    }
    if wants("ready") {
        bench.ready(1_000).await?;
        for max in [500, 2_000] {
            bench.fill().await?;
            bench.pull(max).await?;
        }
    }
    if wants("lone") {
        bench.lone().await?;
    }
    Ok(())
}

struct Bench {
    broker: Arc<NatsBroker>,
    server: u32,
    lane: Lane,
}

impl Bench {
    async fn submit(&self, count: usize) -> anyhow::Result<()> {
        let tasks: Vec<Submission> = (0..count).map(|number| self.task(number)).collect();
        let mut run = self.begin();
        let mut done = 0;
        while run.began.elapsed() < SUBMIT_FOR {
            let batch = tasks.iter().cloned().map(Message::Submission).collect();
            run.time(self.publish(batch)).await?;
            done += count;
        }
        run.end(&format!("submit {count}"), done);
        self.forget_submissions().await
    }

    /// Reads a backlog of bundles of a thousand as the recorder does.
    async fn record(&self) -> anyhow::Result<()> {
        for _ in 0..READY / 1_000 {
            let batch = (0..1_000).map(|number| Message::Submission(self.task(number)));
            self.publish(batch.collect()).await?;
        }
        let mut recorder = self.broker.consume(Source::Submissions).await?;
        let mut run = self.begin();
        run.drain(&mut recorder, 1_000, READY).await?;
        run.end("record, max 1000", READY);
        self.broker.trim().await?;
        Ok(())
    }

    async fn ready(&self, count: usize) -> anyhow::Result<()> {
        let mut run = self.begin();
        for _ in 0..READY / count {
            let batch = self.ready_batch(count);
            run.time(self.publish(batch)).await?;
        }
        run.end(&format!("publish {count} ready"), READY);
        let mut lane = self.broker.consume(Source::Lane(self.lane.clone())).await?;
        self.begin().drain(&mut lane, 5_000, READY).await?;
        self.broker.trim().await?;
        Ok(())
    }

    async fn fill(&self) -> anyhow::Result<()> {
        for _ in 0..READY / 1_000 {
            self.publish(self.ready_batch(1_000)).await?;
        }
        Ok(())
    }

    async fn pull(&self, max: usize) -> anyhow::Result<()> {
        let mut lane = self.broker.consume(Source::Lane(self.lane.clone())).await?;
        let mut run = self.begin();
        run.drain(&mut lane, max, READY).await?;
        while !self.broker.depth(&self.lane).await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        run.end(&format!("pull and ack, max {max}"), READY);
        self.broker.trim().await?;
        Ok(())
    }

    /// From the publishing of a lone task, at 100/s, until a waiting worker has it.
    async fn lone(&self) -> anyhow::Result<()> {
        let mut lane = self.broker.consume(Source::Lane(self.lane.clone())).await?;
        let mut run = self.begin();
        for _ in 0..LONE {
            let waiting = lane.consumer.next(500, Duration::from_secs(5));
            let publishing = async {
                tokio::time::sleep(Duration::from_millis(9)).await;
                let since = Instant::now();
                self.publish(self.ready_batch(1)).await.map(|()| since)
            };
            let (came, since) = tokio::join!(async { (waiting.await, Instant::now()) }, publishing);
            run.took.push(came.1 - since?);
            let tokens = came.0?.into_iter().map(|delivery| delivery.token).collect();
            lane.acks.ack(tokens).await?;
        }
        run.end("lone ready to delivery", LONE);
        Ok(())
    }

    async fn forget_submissions(&self) -> anyhow::Result<()> {
        let mut recorder = self.broker.consume(Source::Submissions).await?;
        while self.broker.unrecorded().await? > 0 {
            let came = recorder.consumer.next(10_000, Duration::from_millis(100)).await?;
            let tokens = came.into_iter().map(|delivery| delivery.token).collect();
            recorder.acks.ack(tokens).await?;
        }
        self.broker.trim().await?;
        Ok(())
    }

    async fn publish(&self, batch: Vec<Message>) -> anyhow::Result<()> {
        for outcome in self.broker.publish(batch).await {
            outcome?;
        }
        Ok(())
    }

    fn task(&self, number: usize) -> Submission {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&(number as u64).to_be_bytes());
        let request = SubmitRequest {
            kind: "invoice.created".to_owned(),
            queue: Some(self.lane.queue.to_string()),
            payload: Json::of(&"x".repeat(254)).ok(),
            ..SubmitRequest::default()
        };
        request
            .accept(SystemClock.now(), &random)
            .expect("a valid request")
    }

    fn ready_batch(&self, count: usize) -> Vec<Message> {
        let task = self.task(0);
        let ready = Ready {
            id: task.id,
            kind: task.kind,
            lane: task.lane,
            fence: 0,
            lost: 0,
        };
        vec![Message::Ready(ready); count]
    }

    fn begin(&self) -> Run {
        Run {
            began: Instant::now(),
            server: self.server,
            cpu: (cpu_of("self"), cpu_of(&self.server.to_string())),
            took: Vec::new(),
        }
    }
}

struct Run {
    began: Instant,
    server: u32,
    cpu: (Duration, Duration),
    took: Vec<Duration>,
}

impl Run {
    async fn time(&mut self, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        let since = Instant::now();
        work.await?;
        self.took.push(since.elapsed());
        Ok(())
    }

    async fn drain(&mut self, from: &mut Subscription, max: usize, count: usize) -> anyhow::Result<()> {
        let mut left = count;
        while left > 0 {
            let since = Instant::now();
            let came = from.consumer.next(max, Duration::from_secs(5)).await?;
            left -= came.len();
            self.took.push(since.elapsed());
            let tokens = came.into_iter().map(|delivery| delivery.token).collect();
            from.acks.ack(tokens).await?;
        }
        Ok(())
    }

    fn end(mut self, name: &str, tasks: usize) {
        let took = self.began.elapsed();
        self.took.sort_unstable();
        let at = |share: f64| self.took[((self.took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let each = |now: Duration, before: Duration| (now - before).as_secs_f64() * 1e6 / tasks as f64;
        println!(
            "{name:<28} {:>10.0} {:>9.2} {:>9.2} {:>9.2} {:>9.2}   ({} calls)",
            tasks as f64 / took.as_secs_f64(),
            at(0.5),
            at(0.99),
            each(cpu_of("self"), self.cpu.0),
            each(cpu_of(&self.server.to_string()), self.cpu.1),
            self.took.len(),
        );
    }
}

/// The CPU time that a process has used, from its threads' counts in nanoseconds.
fn cpu_of(process: &str) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten();
    let used = threads.filter_map(|thread| {
        let counts = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        counts.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(used.sum())
}
