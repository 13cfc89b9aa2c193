//! What the broker costs: processor time and wall clock of publishing, pulling and acknowledging, with a private server.
//!
//! ```text
//! cargo run --profile profiling -p forebay-broker-rabbitmq --example cost
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_broker::{Broker, Message, Source, Subscription};
use forebay_broker_rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use forebay_core::{Clock, Json, Lane, Ready, Submission, SubmitRequest, SystemClock};
use forebay_testkit::rabbitmq::RabbitMq;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Clock ticks of a process's time, as Linux counts them, in a second.
const TICKS: f64 = 100.0;

fn processor_seconds(pid: &str) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / TICKS)
}

/// A measurement that has begun.
struct Measure<'a> {
    server: &'a str,
    began: Instant,
    before: [f64; 2],
}

impl<'a> Measure<'a> {
    fn begin(server: &'a str) -> Outcome<Self> {
        Ok(Self {
            server,
            before: [processor_seconds("self")?, processor_seconds(server)?],
            began: Instant::now(),
        })
    }

    fn end(self, what: &str, count: usize) -> Outcome<()> {
        let seconds = self.began.elapsed().as_secs_f64();
        let now = [processor_seconds("self")?, processor_seconds(self.server)?];
        let each = |index: usize| (now[index] - self.before[index]) * 1e6 / count as f64;
        println!(
            "{what:<34} {:>9.0}/s   processor µs each: here {:>6.1}, server {:>6.1}",
            count as f64 / seconds,
            each(0),
            each(1)
        );
        Ok(())
    }
}

fn tasks(lane: &Lane, count: usize) -> Outcome<Vec<Submission>> {
    let payload = format!("{{\"text\": \"{}\"}}", "x".repeat(240));
    let made = (0..count as u64).map(|index| {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&index.to_be_bytes());
        let request = SubmitRequest {
            kind: "echo".to_owned(),
            queue: Some(lane.queue.to_string()),
            payload: Json::parse(payload.as_bytes()).ok(),
            ..SubmitRequest::default()
        };
        let accepted = request.accept(SystemClock.now(), &random);
        accepted.map_err(|violations| format!("{violations:?}").into())
    });
    made.collect()
}

fn ready(task: &Submission) -> Message {
    Message::Ready(Ready {
        id: task.id,
        kind: task.kind.clone(),
        lane: task.lane.clone(),
        fence: 0,
        lost: 0,
    })
}

async fn publish(broker: &RabbitMqBroker, batch: Vec<Message>) -> Outcome<()> {
    for outcome in broker.publish(batch).await {
        outcome?;
    }
    Ok(())
}

/// Takes and acknowledges; says how many came, and in how many rounds.
async fn drain(subscription: &mut Subscription, max: usize, count: usize) -> Outcome<usize> {
    let (mut came, mut rounds) = (0, 0);
    while came < count {
        let more = subscription.consumer.next(max, Duration::from_secs(1)).await?;
        came += more.len();
        rounds += 1;
        let tokens = more.into_iter().map(|delivery| delivery.token).collect();
        subscription.acks.ack(tokens).await?;
    }
    Ok(rounds)
}

async fn submitting(broker: &RabbitMqBroker, lane: &Lane, server: &str) -> Outcome<()> {
    for (size, calls) in [(1, 300), (32, 200), (256, 80), (1_000, 40), (10_000, 6)] {
        let batch: Vec<_> = tasks(lane, size)?.into_iter().map(Message::Submission).collect();
        let batches = vec![batch; calls];
        let measure = Measure::begin(server)?;
        for batch in batches {
            publish(broker, batch).await?;
        }
        measure.end(&format!("submit {size} at a time"), size * calls)?;
    }
    let mut recorder = broker.consume(Source::Submissions).await?;
    let measure = Measure::begin(server)?;
    let count = 300 + 32 * 200 + 256 * 80 + 40_000 + 60_000;
    drain(&mut recorder, 1_000, count).await?;
    measure.end("recorder, 1000 at a time", count)
}

async fn making_ready(broker: &RabbitMqBroker, lane: &Lane, server: &str) -> Outcome<()> {
    let tasks = tasks(lane, 1_000)?;
    let batches: Vec<Vec<Message>> = (0..40).map(|_| tasks.iter().map(ready).collect()).collect();
    let measure = Measure::begin(server)?;
    for batch in batches {
        publish(broker, batch).await?;
    }
    measure.end("ready 1000 at a time", 40_000)
}

async fn draining(broker: &RabbitMqBroker, lane: &Lane, server: &str) -> Outcome<()> {
    for (max, count) in [(10, 2_000), (100, 8_000), (500, 15_000), (2_000, 15_000)] {
        let mut subscription = broker.consume(Source::Lane(lane.clone())).await?;
        let measure = Measure::begin(server)?;
        let rounds = drain(&mut subscription, max, count).await?;
        measure.end(&format!("lane, up to {max}: {rounds} rounds"), count)?;
    }
    Ok(())
}

async fn lone(broker: &Arc<RabbitMqBroker>, lane: &Lane) -> Outcome<()> {
    let mut subscription = broker.consume(Source::Lane(lane.clone())).await?;
    let (mut delivered, mut confirmed) = (Vec::new(), Vec::new());
    for task in tasks(lane, 200)? {
        let publishing = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let began = Instant::now();
            let outcomes = broker.publish(vec![ready(&task)]).await;
            (began, began.elapsed(), outcomes)
        };
        let waiting = async {
            let came = subscription.consumer.next(100, Duration::from_secs(5)).await;
            (came, Instant::now())
        };
        let ((began, took, outcomes), (came, at)) = tokio::join!(publishing, waiting);
        outcomes.into_iter().collect::<Result<(), _>>()?;
        confirmed.push(took);
        delivered.push(at - began);
        let tokens = came?.into_iter().map(|delivery| delivery.token).collect();
        subscription.acks.ack(tokens).await?;
    }
    for (what, mut times) in [("delivered", delivered), ("confirmed", confirmed)] {
        times.sort_unstable();
        println!("one alone {what}: p50 {:?}, p99 {:?}", times[100], times[197]);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let server = RabbitMq::start().await?;
    let pid = server.eval("os:getpid()").await?;
    let pid = pid.trim().trim_matches('"');
    let broker = Arc::new(RabbitMqBroker::connect(&RabbitMqOptions::new(server.url())).await?);
    let lane = |name: &str| -> Outcome<Lane> { Ok(Lane::all_of(&name.parse()?)[1].clone()) };
    let bulk = lane("bulk")?;
    publish(&broker, tasks(&bulk, 10)?.iter().map(ready).collect()).await?;
    submitting(&broker, &bulk, pid).await?;
    making_ready(&broker, &bulk, pid).await?;
    draining(&broker, &bulk, pid).await?;
    lone(&broker, &lane("lone")?).await
}
