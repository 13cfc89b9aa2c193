//! What the person at the terminal sees while the load runs; plain lines where nobody sits at a terminal.

use std::{
    io::IsTerminal,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::Point;

/// Between two plain lines.
const LINES: Duration = Duration::from_secs(5);

/// The display.
pub(crate) struct Live {
    bar: ProgressBar,
    figures: ProgressBar,
    /// Kept so that the bars are drawn together.
    _both: MultiProgress,
    plain: Option<Mutex<Plain>>,
    /// Whether progress is the time that has gone by.
    timed: AtomicBool,
}

struct Plain {
    phase: String,
    said: Option<Instant>,
}

impl Live {
    /// On standard error, so that results can be written to standard output.
    pub(crate) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let both = MultiProgress::with_draw_target(target);
        let bar = both.add(ProgressBar::new(0));
        let figures = both.add(ProgressBar::new_spinner());
        bar.set_style(style(
            "{msg:24} {wide_bar:.cyan/dim} {percent:>3} %  {elapsed} · {eta} left",
        ));
        figures.set_style(style("{msg}"));
        Self {
            bar,
            figures,
            _both: both,
            timed: AtomicBool::new(false),
            plain: (!terminal).then(|| {
                Mutex::new(Plain {
                    phase: String::new(),
                    said: None,
                })
            }),
        }
    }

    /// A part of the run begins that takes a certain time.
    pub(crate) fn timed_phase(&self, name: &'static str, seconds: f64) {
        self.phase(name, (seconds * 1e3) as u64);
        self.timed.store(true, Ordering::Relaxed);
    }

    /// Another part of the run begins, which ends when `total` is reached.
    pub(crate) fn phase(&self, name: &'static str, total: u64) {
        self.timed.store(false, Ordering::Relaxed);
        self.bar.set_length(total.max(1));
        self.bar.reset();
        self.bar.set_message(name);
        if let Some(plain) = &self.plain {
            let mut plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
            name.clone_into(&mut plain.phase);
            plain.said = None;
        }
    }

    /// How far it has come.
    pub(crate) fn progress(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// How things stand.
    pub(crate) fn show(&self, point: &Point) {
        if self.timed.load(Ordering::Relaxed) {
            self.progress((point.at * 1e3) as u64);
        }
        self.figures.set_message(figures(point));
        self.say(point);
    }

    /// Something happened that is worth a line.
    pub(crate) fn note(&self, text: &str) {
        if self.plain.is_some() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    /// Takes the display away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
        self.figures.finish_and_clear();
    }

    fn say(&self, point: &Point) {
        let Some(plain) = &self.plain else {
            return;
        };
        let mut plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
        if plain.said.is_some_and(|said| said.elapsed() < LINES) {
            return;
        }
        plain.said = Some(Instant::now());
        let done = self.bar.position() * 100 / self.bar.length().unwrap_or(1).max(1);
        eprintln!("{:>6.1} s  {} {done} %  {}", point.at, plain.phase, line(point));
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that can't be read is seen at once, and is no reason to end a run.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn per_second(count: u64, point: &Point) -> f64 {
    count as f64 / point.seconds.max(0.001)
}

fn known(number: Option<u64>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| number.to_string())
}

fn percentiles(point: &Point) -> String {
    match &point.latency_ms {
        Some(told) => format!(
            "p50 {:.2} · p90 {:.2} · p99 {:.2} · max {:.1} ms",
            told.p50, told.p90, told.p99, told.max
        ),
        None => "no answers".to_owned(),
    }
}

fn line(point: &Point) -> String {
    format!(
        "accepted {:.0}/s refused {:.0}/s errors {:.0}/s | {} | ready {} running {}",
        per_second(point.accepted, point),
        per_second(point.refused, point),
        per_second(point.failed + point.unanswered, point),
        percentiles(point),
        known(point.ready),
        known(point.running),
    )
}

fn figures(point: &Point) -> String {
    format!(
        "  rate     {:>9.0}/s submitted  {:>9.0}/s accepted  {:>7.0}/s refused  {:>6.0}/s errors\n  \
           latency  {}   (generator behind {:.2} ms)\n  \
           queue    {} ready · {} running · {} scheduled   workers {} ({} of {} slots busy)   {} unanswered",
        per_second(point.submitted, point),
        per_second(point.accepted, point),
        per_second(point.refused, point),
        per_second(point.failed + point.unanswered, point),
        percentiles(point),
        point.behind_ms_max.unwrap_or(0.0),
        known(point.ready),
        known(point.running),
        known(point.scheduled),
        known(point.workers),
        known(point.busy),
        known(point.slots),
        point.in_flight,
    )
}
