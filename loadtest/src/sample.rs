//! Watches the run: at every interval, what the threads counted, and what the server, its processes and its database
//! say of themselves.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{Interval, MissedTickBehavior, interval_at};
use tokio_postgres::Client;

use crate::{
    database,
    live::Live,
    report::{Percentiles, Point, ms, round},
    server::Server,
    tally::{Counts, Id},
    transport::Context,
};

/// How many points a run has, about.
const POINTS: f64 = 150.0;
/// The shortest and the longest interval, in seconds.
const INTERVAL: (f64, f64) = (0.25, 30.0);

/// Where figures come from.
pub(crate) struct Sources {
    /// The threads.
    pub(crate) contexts: Vec<Arc<Context>>,
    /// The server.
    pub(crate) server: Server,
    /// The queue.
    pub(crate) queue: String,
    /// Processes of this machine, by their ids.
    pub(crate) processes: Vec<(String, u32)>,
    /// Processes anywhere, by their metrics.
    pub(crate) metrics: Vec<(String, String)>,
    /// The database.
    pub(crate) database: Option<Client>,
}

/// How far apart the points of a run are.
pub(crate) fn interval(run_seconds: f64) -> Duration {
    Duration::from_secs_f64((run_seconds / POINTS).clamp(INTERVAL.0, INTERVAL.1))
}

/// Samples while something else is done.
pub(crate) struct Sampler {
    sources: Sources,
    start: Instant,
    ticks: Interval,
    last: Instant,
    cpu: f64,
    counts: Counts,
    ids: Vec<Id>,
    points: Vec<Point>,
}

impl Sampler {
    /// The first sample is taken one interval after `start`.
    pub(crate) fn new(sources: Sources, start: Instant, every: Duration) -> Self {
        let mut ticks = interval_at((start + every).into(), every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            sources,
            start,
            ticks,
            last: start,
            cpu: cpu_seconds(),
            counts: Counts::default(),
            ids: Vec::new(),
            points: Vec::new(),
        }
    }

    /// Samples until `work` is done, and counts what is left over then.
    pub(crate) async fn during<T>(&mut self, live: &Live, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = self.ticks.tick() => {
                    let mut point = self.point();
                    // The work goes on meanwhile.
                    let asked = async { ask(&self.sources, &mut point).await };
                    let early = tokio::select! {
                        done = &mut work => Some(done),
                        () = asked => None,
                    };
                    live.show(&point);
                    self.points.push(point);
                    if let Some(done) = early {
                        break done;
                    }
                }
            }
        };
        let rest = self.point();
        fold(&mut self.points, rest);
        done
    }

    /// All counts so far, without the ids.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// All accepted ids so far, those of the last call left out.
    pub(crate) fn take_ids(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.ids)
    }

    /// The run over time.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.points.clone()
    }

    fn point(&mut self) -> Point {
        let mut counts = Counts::default();
        for context in &self.sources.contexts {
            let mut part = context.tally.take();
            self.ids.append(&mut part.ids);
            counts.add(&part);
        }
        self.counts.add(&counts);
        let (now, used) = (Instant::now(), cpu_seconds());
        let mut point = point(&counts, (self.start, self.last, now));
        point.in_flight = self
            .sources
            .contexts
            .iter()
            .map(|context| context.feed.outstanding() as u64)
            .sum();
        point.generator_cores = Some(round((used - self.cpu) / point.seconds.max(1e-3)));
        (self.last, self.cpu) = (now, used);
        point
    }
}

fn point(counts: &Counts, (start, last, now): (Instant, Instant, Instant)) -> Point {
    Point {
        at: to_ms(now.saturating_duration_since(start)),
        seconds: to_ms(now.saturating_duration_since(last)),
        submitted: counts.submitted,
        accepted: counts.accepted,
        refused: counts.refused,
        failed: counts.failed,
        unanswered: counts.unanswered,
        latency_ms: Percentiles::of(&counts.latency),
        behind_ms_max: (!counts.lag.is_empty()).then(|| ms(counts.lag.max())),
        ..Point::default()
    }
}

/// In seconds, to the millisecond.
fn to_ms(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1e3
}

fn fold(points: &mut Vec<Point>, rest: Point) {
    let Some(last) = points.last_mut() else {
        points.push(rest);
        return;
    };
    last.at = rest.at;
    last.seconds = (last.seconds * 1e3 + rest.seconds * 1e3).round() / 1e3;
    last.submitted += rest.submitted;
    last.accepted += rest.accepted;
    last.refused += rest.refused;
    last.failed += rest.failed;
    last.unanswered += rest.unanswered;
    last.latency_ms = last.latency_ms.or(rest.latency_ms);
}

/// Asks all at once, since each may take a while.
async fn ask(sources: &Sources, point: &mut Point) {
    let figures = async {
        match &sources.database {
            Some(client) => tokio::time::timeout(Duration::from_secs(2), database::figures(client))
                .await
                .ok()?,
            None => None,
        }
    };
    let (depth, workers, memory, figures) = tokio::join!(
        sources.server.depth(&sources.queue),
        sources.server.workers(),
        memory(sources),
        figures
    );
    if let Some(depth) = depth {
        (point.ready, point.running, point.scheduled) = (depth.ready, depth.running, depth.scheduled);
    }
    if let Some(workers) = workers {
        (point.workers, point.slots, point.busy) =
            (Some(workers.count), Some(workers.slots), Some(workers.busy));
    }
    point.memory_mib = memory;
    point.database = figures;
}

async fn memory(sources: &Sources) -> BTreeMap<String, f64> {
    let mut memory = BTreeMap::new();
    for (name, id) in sources
        .processes
        .iter()
        .chain([&("generator".to_owned(), std::process::id())])
    {
        if let Some(mib) = resident_mib(*id) {
            memory.insert(name.clone(), round(mib));
        }
    }
    for (name, url) in &sources.metrics {
        if let Some(mib) = sources.server.memory_mib(url).await {
            memory.insert(name.clone(), round(mib));
        }
    }
    memory
}

/// The resident memory of a process of this machine.
fn resident_mib(id: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// The processor time of this process so far.
pub(crate) fn cpu_seconds() -> f64 {
    /// Of `/proc`, on every Linux that runs today.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may contain spaces; what follows it does not.
    let after = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = after
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}
