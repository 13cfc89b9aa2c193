//! `forebay-loadtest run`: from the arguments to the report.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Common, Profile, RunArgs},
    audit::{self, Check, Scope},
    database,
    feed::Feed,
    ledger::Ledger,
    live::Live,
    pacer,
    report::{Distribution, Environment, Point, Report, Settings, Summary, VERSION, Verdict, judge, round},
    sample::{self, Sampler, Sources, cpu_seconds},
    schedule::{Arrivals, Curve},
    server::Server,
    shape::{Shape, Wanted},
    started::Started,
    tally::Tally,
    transport::{self, Context, Target, Transport},
};

/// How long after its end the schedule may still be caught up with, beside the time that an answer may take.
const OVERTIME: Duration = Duration::from_secs(5);
/// Before the first task is due: time for every thread to be ready.
const RUN_UP: Duration = Duration::from_millis(50);

/// Runs the load, checks what became of it, writes and prints the results. Whether all promises were kept.
pub(crate) async fn run(args: RunArgs) -> Result<bool> {
    let RunArgs { profile, mut common } = args;
    let curve = profile.curve()?;
    let live = Live::new();
    let started = match common.server.start {
        Some(start) => Some(Started::start(start, &common.server, &live).await?),
        None => None,
    };
    if let Some(started) = &started {
        started.aim(&mut common.server);
    }
    let plan = Plan::new(profile, curve, common)?;
    let server = Server::new(&plan.http.url)?;
    let environment = plan.environment(&server).await?;
    let outcome = plan.execute(&server, started.as_ref(), &live).await;
    live.end();
    let report = outcome?.into_report(&plan, environment);
    let results = &plan.common.results;
    if let Some(path) = &results.json {
        report.write_json(path)?;
    }
    if let Some(path) = &results.html {
        report.write_html(path)?;
    }
    report.print();
    Ok(report.verdict.passed)
}

/// What is to be done, checked.
struct Plan {
    profile: Profile,
    curve: Curve,
    common: Common,
    shape: Arc<Shape>,
    tag: Option<String>,
    http: Target,
    target: Target,
    check: Check,
}

/// What was done.
struct Outcome {
    began: Timestamp,
    summary: Summary,
    points: Vec<Point>,
    latency: Distribution,
    lag: Distribution,
    queued: Distribution,
    ledger: Ledger,
}

impl Plan {
    fn new(profile: Profile, curve: Curve, common: Common) -> Result<Self> {
        let task = &common.task;
        let tag = task.tag.clone().unwrap_or_else(|| {
            let now = Timestamp::now().as_millisecond();
            format!("load-{now:x}-{:x}", std::process::id())
        });
        let tag = (!task.untagged).then_some(tag);
        let payload = task.payload.as_deref().map(serde_json::from_str).transpose();
        let wanted = Wanted {
            kind: task.kind.clone(),
            queue: task.queue.clone(),
            priorities: task.priorities()?,
            tag: tag.clone(),
            payload: payload.context("--payload is not JSON")?,
            payload_bytes: task.payload_bytes,
        };
        let http = Target::new(&common.server.url, b"http/1.1")?;
        let target = match common.generator.transport {
            Transport::Grpc => Target::new(&common.server.grpc_url, b"h2")?,
            Transport::Http | Transport::Ndjson => http.clone(),
        };
        let known = common.server.database_url.is_some();
        let check = common
            .results
            .check
            .unwrap_or(if known { Check::Database } else { Check::Api });
        ensure!(
            known || check == Check::Api,
            "--check database needs --database-url"
        );
        let (threads, connections) = (common.generator.threads, common.generator.connections);
        ensure!(
            threads <= connections,
            "{threads} threads need at least as many connections"
        );
        Ok(Self {
            shape: Arc::new(Shape::new(wanted, common.generator.seed)?),
            profile,
            curve,
            common,
            tag,
            http,
            target,
            check,
        })
    }

    fn arrivals(&self) -> Arrivals {
        let generator = &self.common.generator;
        let most = generator.tasks_max.unwrap_or(u64::MAX);
        Arrivals::new(&self.curve, generator.arrivals, generator.seed, most)
    }

    async fn execute(&self, server: &Server, started: Option<&Started>, live: &Live) -> Result<Outcome> {
        let contexts = self.contexts();
        let (began, start, cpu) = (Timestamp::now(), Instant::now() + RUN_UP, cpu_seconds());
        let every = sample::interval(self.curve.seconds());
        let sources = self.sources(&contexts, server, started).await?;
        let mut sampler = Sampler::new(sources, start, every);
        let (interrupt, give_up) = (CancellationToken::new(), CancellationToken::new());
        let listening = tokio::spawn(on_interrupt(interrupt.clone(), give_up.clone()));
        live.timed_phase("submitting", self.curve.seconds());
        let left = sampler
            .during(live, self.load(&contexts, start, &interrupt))
            .await?;
        let seconds = start.elapsed().as_secs_f64();
        let mut summary = Summary {
            seconds: round(seconds),
            unsent: left.not_handed_out + left.withdrawn,
            generator_cpu_seconds: round(cpu_seconds() - cpu),
            interrupted: interrupt.is_cancelled(),
            ..Summary::default()
        };
        summary.count(sampler.counts());
        summary.submitted -= left.withdrawn.min(summary.submitted);
        summary.accepted_per_second = round(summary.accepted as f64 / seconds.max(1e-3));
        let mut ledger = Ledger::new(sampler.take_ids());
        let scope = Scope {
            server,
            queue: &self.common.task.queue,
            tag: self.tag.as_deref(),
            database_url: self.common.server.database_url.as_deref(),
            check: self.check,
        };
        let end = Instant::now() + self.common.results.drain;
        let audit = audit::audit(&scope, &mut ledger, end, (live, &give_up));
        sampler.during(live, audit).await?;
        listening.abort();
        Ok(Outcome {
            began: began + jiff::SignedDuration::try_from(RUN_UP)?,
            summary,
            points: sampler.points(),
            latency: Distribution::of(&sampler.counts().latency),
            lag: Distribution::of(&sampler.counts().lag),
            queued: Distribution::of(&sampler.counts().queued),
            ledger,
        })
    }

    /// One for each thread, each with its share of the bound.
    fn contexts(&self) -> Vec<Arc<Context>> {
        let generator = &self.common.generator;
        let share = generator.in_flight_max.div_ceil(generator.threads);
        let context = |_| {
            Arc::new(Context {
                feed: Feed::new(share),
                tally: Tally::default(),
                shape: Arc::clone(&self.shape),
                target: self.target.clone(),
                timeout: generator.timeout,
                retries_max: generator.retry,
            })
        };
        (0..generator.threads).map(context).collect()
    }

    async fn sources(
        &self,
        contexts: &[Arc<Context>],
        server: &Server,
        started: Option<&Started>,
    ) -> Result<Sources> {
        let database = match &self.common.server.database_url {
            Some(url) => Some(database::connect(url).await?),
            None => None,
        };
        Ok(Sources {
            contexts: contexts.to_vec(),
            server: server.clone(),
            queue: self.common.task.queue.clone(),
            processes: started.map(Started::processes).unwrap_or_default(),
            metrics: self.common.server.watch.clone(),
            database,
        })
    }

    /// Submits everything. Returns what was not sent.
    async fn load(
        &self,
        contexts: &[Arc<Context>],
        start: Instant,
        stop: &CancellationToken,
    ) -> Result<Left> {
        let generator = &self.common.generator;
        let length = Duration::from_secs_f64(self.curve.seconds());
        let end = start + length + generator.timeout + OVERTIME;
        let threads = contexts.iter().enumerate().map(|(index, context)| {
            let share = Share {
                transport: generator.transport,
                connections: generator.connections.div_ceil(contexts.len()),
                context: Arc::clone(context),
                stop: stop.clone(),
            };
            let numbered = (0..).zip(self.arrivals());
            let arrivals = numbered.skip(index).step_by(contexts.len());
            tokio::task::spawn_blocking(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime
                    .context("start a runtime")?
                    .block_on(share.submit(arrivals, (start, end)))
            })
        });
        let mut sum = Left::default();
        for thread in threads.collect::<Vec<_>>() {
            let left = thread.await.context("a thread of the generator")??;
            sum.not_handed_out += left.not_handed_out;
            sum.withdrawn += left.withdrawn;
        }
        Ok(sum)
    }

    async fn environment(&self, server: &Server) -> Result<Environment> {
        let version = server.version().await?;
        let database = match &self.common.server.database_url {
            Some(url) => database::version(&database::connect(url).await?).await,
            None => None,
        };
        Ok(Environment::here(
            format!("Forebay {version}"),
            database.map(|version| format!("PostgreSQL {version}")),
        ))
    }

    fn settings(&self) -> Settings {
        let (server, generator) = (&self.common.server, &self.common.generator);
        let (task, results) = (&self.common.task, &self.common.results);
        let start = server
            .start
            .map(|start| start.describe(server.workers, server.concurrency));
        Settings {
            profile: self.profile.name(),
            transport: generator.transport,
            url: self.target.url.clone(),
            started_by_us: start,
            seconds: self.curve.seconds(),
            tasks_planned: self.arrivals().count() as u64,
            tasks_max: generator.tasks_max,
            in_flight_max: generator.in_flight_max,
            spacing: generator.arrivals,
            seed: generator.seed,
            connections: generator.connections,
            threads: generator.threads,
            timeout_seconds: generator.timeout.as_secs_f64(),
            retries_max: generator.retry,
            kind: task.kind.clone(),
            queue: task.queue.clone(),
            priorities: task.priorities.clone(),
            payload_bytes: self.shape.message(1_234_567).payload.len(),
            tag: self.tag.clone(),
            check: self.check,
            drain_seconds: results.drain.as_secs_f64(),
        }
    }
}

/// What was due and not sent, for want of time.
#[derive(Default)]
struct Left {
    not_handed_out: u64,
    /// Handed out, and taken by no connection.
    withdrawn: u64,
}

/// What one thread does.
struct Share {
    transport: Transport,
    connections: usize,
    context: Arc<Context>,
    stop: CancellationToken,
}

impl Share {
    async fn submit(
        self,
        arrivals: impl Iterator<Item = (u64, Duration)>,
        (start, end): (Instant, Instant),
    ) -> Result<Left> {
        let Context {
            feed, tally, timeout, ..
        } = &*self.context;
        let mut connections = transport::open(self.transport, self.connections, &self.context);
        let paced = pacer::pace(arrivals, (start, end), (feed, tally), &self.stop).await?;
        let left = Left {
            not_handed_out: paced.unsent,
            withdrawn: feed.close(),
        };
        // What is under way ends by its own time-out.
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(*timeout + OVERTIME, ended).await.is_err() {
            connections.shutdown().await;
        }
        tally.given_up(feed.outstanding() as u64);
        Ok(left)
    }
}

/// The first Ctrl-C ends the load, the second one the wait for its end.
async fn on_interrupt(first: CancellationToken, second: CancellationToken) {
    for token in [first, second] {
        if tokio::signal::ctrl_c().await.is_ok() {
            token.cancel();
        }
    }
}

impl Outcome {
    fn into_report(self, plan: &Plan, environment: Environment) -> Report {
        let Self {
            began,
            mut summary,
            mut points,
            ledger,
            ..
        } = self;
        let shift_us = shift_us(&ledger, began);
        let ends: Vec<f64> = ledger
            .finished_us
            .iter()
            .map(|us| (us - began.as_microsecond() - shift_us) as f64 / 1e6)
            .collect();
        if let Some(last) = ends.iter().copied().max_by(f64::total_cmp) {
            let seconds = last.max(1e-3);
            summary.seconds_to_last_end = Some(round(seconds));
            summary.finished_per_second = Some(round(ends.len() as f64 / seconds));
        }
        fill(&mut points, ends.iter().copied(), |point| {
            point.finished.get_or_insert(0)
        });
        let due = plan.arrivals().map(|due| due.as_secs_f64());
        fill(&mut points, due, |point| &mut point.planned);
        let checked_by = match plan.check {
            Check::Api => "api",
            Check::Database => "database",
        };
        let mut report = Report {
            version: VERSION,
            began_at: began.to_string(),
            settings: plan.settings(),
            environment,
            summary,
            account: ledger.account(checked_by),
            verdict: Verdict::default(),
            latency: self.latency,
            lag: self.lag,
            queued: self.queued,
            wait: Distribution::of(&ledger.wait),
            turnaround: Distribution::of(&ledger.turnaround),
            points,
        };
        report.verdict = judge(&report);
        report
    }
}

/// How far the server's clock is ahead of ours, in microseconds, where that is more than a request may take.
fn shift_us(ledger: &Ledger, began: Timestamp) -> i64 {
    /// Smaller differences are the time that the first request took, or as good as.
    const SHIFT_US_MIN: i64 = 2_000_000;
    let first = ledger
        .ids()
        .first()
        .map(|id| forebay_core::TaskId::from_bytes(*id).unix_millis());
    let first = first.and_then(|ms| i64::try_from(ms).ok());
    let shift = first.map_or(0, |ms| ms * 1_000 - began.as_microsecond());
    if shift.abs() < SHIFT_US_MIN { 0 } else { shift }
}

/// Counts each moment into the point in whose interval it lies.
fn fill(points: &mut [Point], at: impl Iterator<Item = f64>, count: impl Fn(&mut Point) -> &mut u64) {
    for at in at {
        let index = points.partition_point(|point| point.at < at);
        if let Some(point) = points.get_mut(index) {
            *count(point) += 1;
        }
    }
    // Nothing happened there, which is known, too.
    for point in points {
        count(point);
    }
}
