//! Handlers to try Forebay out with. On in `forebay dev` only.

use std::{
    num::NonZero,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use forebay_core::{Json, Kind};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{Execution, Handler, HandlerError, HandlerResult, HandlerSettings, Handlers};

/// The longest that `sleep` and `cpu` can be asked for: a day.
const SECONDS_MAX: f64 = 24.0 * 3_600.0;

/// The most iterations that `cpu` can be asked for: some hours.
const ITERATIONS_MAX: u64 = 100_000_000_000;

/// After how many iterations `cpu` looks whether it should end: well under a millisecond.
const ITERATIONS_UNWATCHED: u64 = 1_000;

impl Handlers {
    /// A registry of the built-in handlers.
    #[must_use]
    pub fn builtin() -> Self {
        Self::new().with_builtin()
    }

    /// Adds the built-in handlers, but for kinds that have a handler already:
    ///
    /// - `echo` returns its payload.
    /// - `sleep` takes `{"seconds": s}`, and returns the same after that time.
    /// - `fail` takes `{"message": text, "permanent": bool, "times": n}`, all optional. It fails, for good where it
    ///   is permanent, and succeeds after `times` failed attempts where that is given.
    /// - `cpu` takes either `{"iterations": n}` or `{"milliseconds": ms}`, and keeps one processor busy.
    #[must_use]
    pub fn with_builtin(mut self) -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        let busy = HandlerSettings {
            concurrency: Some(processors),
            ..HandlerSettings::default()
        };
        self.add("echo", HandlerSettings::default(), Echo);
        self.add("sleep", HandlerSettings::default(), Sleep);
        self.add("fail", HandlerSettings::default(), Fail);
        self.add("cpu", busy, Cpu);
        self
    }

    fn add(&mut self, kind: &str, settings: HandlerSettings, handler: impl Handler) {
        let kind: Kind = kind.parse().expect("the built-in kinds are valid");
        // Whoever has defined the kind meant to.
        let _ = self.register(kind, settings, handler);
    }
}

struct Echo;

#[async_trait]
impl Handler for Echo {
    async fn run(&self, execution: Execution) -> HandlerResult {
        Ok(execution.payload)
    }
}

struct Sleep;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SleepInput {
    seconds: f64,
}

#[async_trait]
impl Handler for Sleep {
    async fn run(&self, execution: Execution) -> HandlerResult {
        let SleepInput { seconds } = input(&execution)?;
        let duration = duration(seconds).ok_or_else(|| out_of_range(&execution, "/seconds", SECONDS_MAX))?;
        tokio::select! {
            () = tokio::time::sleep(duration) => Ok(execution.payload),
            _ = execution.stop.cancelled() => Err(HandlerError::retryable("woken up before the time was over")),
        }
    }
}

struct Fail;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FailInput {
    message: String,
    permanent: bool,
    times: Option<u32>,
}

impl Default for FailInput {
    fn default() -> Self {
        Self {
            message: "failed as asked".to_owned(),
            permanent: false,
            times: None,
        }
    }
}

#[async_trait]
impl Handler for Fail {
    async fn run(&self, execution: Execution) -> HandlerResult {
        let wanted: Option<FailInput> = input(&execution)?;
        let wanted = wanted.unwrap_or_default();
        execution.log.line(format_args!(
            "attempt {} of {}",
            execution.attempt, execution.max_attempts
        ));
        if wanted.times.is_some_and(|times| execution.attempt > times) {
            return encode(&json!({ "attempt": execution.attempt }));
        }
        if wanted.permanent {
            Err(HandlerError::permanent(wanted.message))
        } else {
            Err(HandlerError::retryable(wanted.message))
        }
    }
}

struct Cpu;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CpuInput {
    iterations: Option<u64>,
    milliseconds: Option<u64>,
}

/// When the work is done.
#[derive(Clone, Copy)]
struct Until {
    iterations: u64,
    time: Duration,
}

#[async_trait]
impl Handler for Cpu {
    async fn run(&self, execution: Execution) -> HandlerResult {
        let until = match input(&execution)? {
            CpuInput {
                iterations: Some(iterations),
                milliseconds: None,
            } if iterations <= ITERATIONS_MAX => Until {
                iterations,
                time: Duration::MAX,
            },
            CpuInput {
                iterations: Some(_),
                milliseconds: None,
            } => {
                return Err(out_of_range(&execution, "/iterations", ITERATIONS_MAX));
            }
            CpuInput {
                iterations: None,
                milliseconds: Some(milliseconds),
            } => {
                let time = Duration::from_millis(milliseconds);
                if time.as_secs_f64() > SECONDS_MAX {
                    return Err(out_of_range(&execution, "/milliseconds", SECONDS_MAX * 1_000.0));
                }
                Until {
                    iterations: u64::MAX,
                    time,
                }
            }
            _ => {
                return Err(wrong(
                    &execution,
                    "needs either \"iterations\" or \"milliseconds\"",
                ));
            }
        };
        // A child: it ends with the attempt's, and when this future is dropped.
        let stop = execution.stop.token().child_token();
        let _ends_with_this = stop.clone().drop_guard();
        let (iterations, digest) = tokio::task::spawn_blocking(move || hash(until, &stop)).await?;
        if let Some(reason) = execution.stop.reason() {
            return Err(HandlerError::retryable(format_args!(
                "ended after {iterations} iterations: {reason:?}"
            )));
        }
        encode(&json!({ "iterations": iterations, "digest": digest }))
    }
}

/// Hashes a hash of a hash, until it is done or stopped.
fn hash(until: Until, stop: &CancellationToken) -> (u64, String) {
    let began = Instant::now();
    let mut digest = [0_u8; 32];
    let mut done = 0;
    while done < until.iterations && began.elapsed() < until.time && !stop.is_cancelled() {
        let count = ITERATIONS_UNWATCHED.min(until.iterations - done);
        for _ in 0..count {
            digest = Sha256::digest(digest).into();
        }
        done += count;
    }
    (done, digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn input<T: DeserializeOwned>(execution: &Execution) -> Result<T, HandlerError> {
    serde_json::from_slice(execution.payload.as_bytes()).map_err(|error| wrong(execution, error))
}

fn encode(value: &serde_json::Value) -> HandlerResult {
    Json::of(value).map_err(HandlerError::permanent)
}

fn duration(seconds: f64) -> Option<Duration> {
    let seconds = Some(seconds).filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds))?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn wrong(execution: &Execution, detail: impl std::fmt::Display) -> HandlerError {
    HandlerError::permanent(format_args!(
        "the payload is not what {} takes: {detail}",
        execution.kind
    ))
}

fn out_of_range(execution: &Execution, pointer: &str, max: impl std::fmt::Display) -> HandlerError {
    wrong(execution, format_args!("{pointer} must be from 0 to {max}"))
}
