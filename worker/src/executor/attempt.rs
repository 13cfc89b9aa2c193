//! One attempt at a task: runs its handler under a timeout, and decides what becomes of the task.

use std::{any::Any, future::poll_fn, panic::AssertUnwindSafe, sync::Arc, task::Poll, time::Duration};

use forebay_core::{ClaimId, Decision, Json, Outcome, RUN_AT_AHEAD_MAX, WorkerId, sanitize_text};
use forebay_runtime::supervise::random_unit;
use forebay_store::{Claimed, Completion};
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span, warn};

use super::{
    bulkhead::Place,
    completer::{Finished, Rest},
    slots::Taken,
    trace,
};
use crate::{
    handlers::{
        Execution, HandlerError, HandlerResult, LogTail, Progress, Pulse, RESULT_BYTES_MAX, Registered, Stop,
        StopReason,
    },
    shared::Shared,
};

/// No attempt takes longer, whatever its handler's settings say: about a year.
const TIMEOUT_MAX: Duration = RUN_AT_AHEAD_MAX;

/// How long a handler that was dropped may take to run its destructors.
const DROP_MAX: Duration = Duration::from_secs(1);

/// A task that was claimed, with all it takes to run it.
pub(super) struct Attempt {
    pub(super) claimed: Claimed,
    pub(super) registered: Arc<Registered>,
    pub(super) stop: Stop,
    pub(super) slot: Taken,
    pub(super) place: Place,
    pub(super) claim: ClaimId,
    pub(super) worker: WorkerId,
}

impl Attempt {
    /// How long it may say nothing: as the task says, or its handler's settings. What can't say anything may be silent.
    fn heartbeat_timeout(&self) -> Option<Duration> {
        let asked = self
            .claimed
            .terms
            .as_ref()
            .and_then(|terms| terms.heartbeat_timeout);
        let timeout = asked.or(self.registered.settings.heartbeat_timeout);
        timeout.filter(|_| self.registered.handler.can_speak())
    }

    /// Waits until it has said nothing for longer than it may.
    async fn silent(&self, pulse: &Pulse) {
        pulse
            .silent_for(self.heartbeat_timeout().unwrap_or(TIMEOUT_MAX).min(TIMEOUT_MAX))
            .await;
    }

    /// How long to wait after its attempt number `number`: as the task says, or its handler's settings.
    fn pause(&self, number: u32) -> Duration {
        let policy = self.registered.settings.retry;
        let asked = self.claimed.terms.as_ref().and_then(|terms| terms.retry.as_ref());
        match asked {
            Some(retry) => retry.delay(policy, number, random_unit()),
            None => policy.delay(number, random_unit()),
        }
    }
}

/// How the handler's part of it ended.
enum End {
    Returned(HandlerResult),
    Panicked(String),
    Stopped(StopReason),
}

/// What is written of it.
struct Verdict {
    outcome: Outcome,
    decision: Decision,
    result: Option<Json>,
    error: Option<String>,
}

/// An attempt that is under way.
struct Begun {
    attempt: Attempt,
    log: LogTail,
    pulse: Pulse,
    began: Instant,
    deadline: Instant,
    run: BoxFuture<'static, HandlerResult>,
}

/// How many attempts of quick kinds share a task. What comes first can keep what comes last for no longer than it may
/// take itself and still be quick.
pub(super) const ROW_MAX: usize = 64;

/// Runs one attempt, and hands in its outcome.
pub(super) async fn run(shared: Arc<Shared>, attempt: Attempt, finished: mpsc::Sender<Finished>) {
    let outcome = match attempt.stop.reason() {
        Some(reason) => unbegun(attempt, reason),
        None => go_on(&shared, begin(&shared, attempt)).await,
    };
    // The completer outlives all attempts, unless the worker was dropped.
    let _ = finished.send(outcome).await;
}

/// Runs attempts of quick kinds, one after the other. Any that waits for something nevertheless goes on by itself.
pub(super) async fn run_row(shared: Arc<Shared>, attempts: Vec<Attempt>, finished: mpsc::Sender<Finished>) {
    let mut ended = Vec::with_capacity(attempts.len());
    let mut others = JoinSet::new();
    for attempt in attempts {
        if let Some(reason) = attempt.stop.reason() {
            ended.push(unbegun(attempt, reason));
            continue;
        }
        let mut begun = begin(&shared, attempt);
        match poll_once(&mut begun).await {
            Poll::Ready(end) => ended.push(end_of(&shared, begun, end)),
            Poll::Pending => {
                let (shared, finished) = (Arc::clone(&shared), finished.clone());
                others.spawn(async move {
                    let outcome = go_on(&shared, begun).await;
                    let _ = finished.send(outcome).await;
                });
            }
        }
    }
    // As above. There is room for as many as there are slots.
    if let Ok(places) = finished.reserve_many(ended.len()).await {
        for (place, outcome) in places.zip(ended) {
            place.send(outcome);
        }
    }
    while others.join_next().await.is_some() {}
}

/// Lets a handler run until it ends, or waits for the first time.
async fn poll_once(begun: &mut Begun) -> Poll<End> {
    let polled = poll_fn(|cx| {
        let caught = std::panic::catch_unwind(AssertUnwindSafe(|| begun.run.as_mut().poll(cx)));
        Poll::Ready(caught)
    });
    let polled = polled.await;
    let pace = &begun.attempt.registered.pace;
    pace.note(matches!(polled, Ok(Poll::Ready(_))), begun.began.elapsed());
    match polled {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(result)) => {
            Poll::Ready(unless_stopped(End::Returned(result), begun.attempt.stop.reason()))
        }
        Err(panic) => Poll::Ready(unless_stopped(
            End::Panicked(panic_message(panic.as_ref())),
            begun.attempt.stop.reason(),
        )),
    }
}

/// What is to stop before it has begun.
fn unbegun(attempt: Attempt, reason: StopReason) -> Finished {
    outcome(attempt, &LogTail::new(), Instant::now(), End::Stopped(reason))
}

/// Makes everything ready for the handler.
fn begin(shared: &Shared, attempt: Attempt) -> Begun {
    let began = Instant::now();
    let deadline = began + attempt.claimed.timeout.min(TIMEOUT_MAX);
    let pulse = attempt
        .heartbeat_timeout()
        .map_or_else(Pulse::default, |_| Pulse::kept());
    let log = LogTail::heard_by(pulse.clone());
    let span = trace::span(&attempt.claimed);
    let progress = Progress::of(
        (attempt.claimed.id, attempt.claimed.fence),
        Arc::clone(&shared.progress),
    )
    .heard_by(pulse.clone());
    let execution = execution(&attempt, deadline, &log, progress, &span);
    let handler = Arc::clone(&attempt.registered.handler);
    let run = async move { handler.run(execution).await };
    let run = if span.is_none() {
        run.boxed()
    } else {
        run.instrument(span).boxed()
    };
    Begun {
        attempt,
        log,
        pulse,
        began,
        deadline,
        run,
    }
}

/// Sees a handler to its end.
async fn go_on(shared: &Shared, begun: Begun) -> Finished {
    let Begun {
        attempt,
        log,
        pulse,
        began,
        deadline,
        run,
    } = begun;
    let handler = start(&attempt, run);
    let silent = attempt.silent(&pulse);
    let end = watch(
        handler,
        &attempt,
        (deadline, silent),
        shared.options.handler_grace,
    )
    .await;
    shared
        .progress
        .forget((attempt.claimed.id, attempt.claimed.fence));
    outcome(attempt, &log, began, end)
}

fn end_of(shared: &Shared, begun: Begun, end: End) -> Finished {
    let Begun {
        attempt, log, began, ..
    } = begun;
    shared
        .progress
        .forget((attempt.claimed.id, attempt.claimed.fence));
    outcome(attempt, &log, began, end)
}

fn outcome(attempt: Attempt, log: &LogTail, began: Instant, end: End) -> Finished {
    let verdict = judge(&attempt, end);
    let Attempt {
        claimed,
        slot,
        place,
        claim,
        worker,
        ..
    } = attempt;
    let completion = Completion {
        id: claimed.id,
        fence: claimed.fence,
        attempt: claimed.attempt,
        outcome: verdict.outcome,
        decision: verdict.decision,
        result: verdict.result,
        error: verdict.error.as_deref().map(sanitize_text),
        log: log.text().as_deref().map(sanitize_text),
        limited: claimed.limited,
    };
    let rest = Rest {
        kind: claimed.kind,
        queue: claimed.lane.queue,
        claim,
        worker,
        slot,
        place,
        ran: began.elapsed(),
    };
    Finished { completion, rest }
}

fn execution(
    attempt: &Attempt,
    deadline: Instant,
    log: &LogTail,
    progress: Progress,
    span: &Span,
) -> Execution {
    let claimed = &attempt.claimed;
    Execution {
        id: claimed.id,
        kind: claimed.kind.clone(),
        queue: claimed.lane.queue.clone(),
        project: claimed.project.clone(),
        attempt: claimed.attempt,
        max_attempts: claimed.max_attempts,
        fence: claimed.fence,
        payload: claimed.payload.clone(),
        traceparent: trace::inside(span).or_else(|| claimed.traceparent.clone()),
        timeout: claimed.timeout,
        deadline,
        heartbeat_timeout: attempt.heartbeat_timeout(),
        stop: attempt.stop.clone(),
        log: log.clone(),
        progress,
    }
}

/// On a task of its own, so that a handler that blocks its thread can't keep us from watching it.
fn start(attempt: &Attempt, mut run: BoxFuture<'static, HandlerResult>) -> AbortOnDropHandle<HandlerResult> {
    let registered = Arc::clone(&attempt.registered);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let began = Instant::now();
        let first = futures::poll!(&mut run);
        registered.pace.note(first.is_ready(), began.elapsed());
        match first {
            Poll::Ready(result) => result,
            Poll::Pending => run.await,
        }
    }))
}

/// Waits for the handler. Where it should end early, it is told, and after the grace it is dropped.
async fn watch(
    mut handler: AbortOnDropHandle<HandlerResult>,
    attempt: &Attempt,
    (deadline, silent): (Instant, impl Future<Output = ()>),
    grace: Duration,
) -> End {
    let reason = tokio::select! {
        biased;
        ended = &mut handler => return unless_stopped(returned(ended), attempt.stop.reason()),
        reason = attempt.stop.cancelled() => reason,
        () = tokio::time::sleep_until(deadline) => {
            attempt.stop.ask(StopReason::TimedOut);
            StopReason::TimedOut
        }
        () = silent => {
            attempt.stop.ask(StopReason::Silent);
            StopReason::Silent
        }
    };
    if let Ok(ended) = timeout(grace, &mut handler).await {
        return unless_stopped(returned(ended), Some(reason));
    }
    handler.abort();
    if timeout(DROP_MAX, &mut handler).await.is_err() {
        let Claimed { id, kind, .. } = &attempt.claimed;
        warn!(task = %id, %kind, "the handler blocks its thread and cannot be ended");
    }
    End::Stopped(reason)
}

/// What a handler did, it did; anything else that it says once it was told to stop is about being stopped.
fn unless_stopped(end: End, stopped: Option<StopReason>) -> End {
    match (end, stopped) {
        (success @ End::Returned(Ok(_)), _) => success,
        (_, Some(reason)) => End::Stopped(reason),
        (end, None) => end,
    }
}

fn returned(ended: Result<HandlerResult, tokio::task::JoinError>) -> End {
    match ended.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(result) => End::Returned(result),
        Err(Ok(panic)) => End::Panicked(panic_message(panic.as_ref())),
        // Only the runtime's end aborts it before we do.
        Err(Err(_)) => End::Stopped(StopReason::Shutdown),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("it does not say why"))
}

fn judge(attempt: &Attempt, end: End) -> Verdict {
    match end {
        End::Returned(Ok(result)) => succeeded(result),
        End::Returned(Err(HandlerError::Permanent { message })) => failed(message),
        End::Returned(Err(HandlerError::Retryable { message })) | End::Panicked(message) => {
            retried(attempt, Outcome::Failed, message, None)
        }
        End::Returned(Err(HandlerError::RetryAfter { message, delay })) => {
            retried(attempt, Outcome::Failed, message, Some(delay))
        }
        End::Returned(Err(HandlerError::Snooze { delay })) => handed_back(Outcome::Snoozed, delay, None),
        End::Stopped(StopReason::TimedOut) => {
            let seconds = attempt.claimed.timeout.as_secs_f64();
            let message = format!("start-to-close timeout: the attempt took longer than {seconds} s");
            retried(attempt, Outcome::TimedOut, message, None)
        }
        End::Stopped(StopReason::Silent) => {
            let seconds = attempt.heartbeat_timeout().unwrap_or_default().as_secs_f64();
            let message = format!("heartbeat timeout: the attempt said nothing for {seconds} s");
            retried(attempt, Outcome::TimedOut, message, None)
        }
        End::Stopped(StopReason::Cancelled) => Verdict {
            outcome: Outcome::Cancelled,
            decision: Decision::Cancel,
            result: None,
            error: Some("the task was cancelled while it ran".to_owned()),
        },
        End::Stopped(StopReason::Shutdown) => {
            let message = "the worker was shut down before the attempt ended".to_owned();
            handed_back(Outcome::Interrupted, Duration::ZERO, Some(message))
        }
    }
}

fn succeeded(result: Json) -> Verdict {
    let bytes = result.as_bytes().len();
    if bytes > RESULT_BYTES_MAX {
        return failed(format!(
            "the result has {bytes} bytes, and the most that is kept is {RESULT_BYTES_MAX}"
        ));
    }
    Verdict {
        outcome: Outcome::Succeeded,
        decision: Decision::Succeed,
        result: Some(result),
        error: None,
    }
}

fn failed(message: String) -> Verdict {
    Verdict {
        outcome: Outcome::Failed,
        decision: Decision::Fail,
        result: None,
        error: Some(message),
    }
}

/// Another attempt, where there is one left.
fn retried(attempt: &Attempt, outcome: Outcome, message: String, delay: Option<Duration>) -> Verdict {
    let Claimed {
        attempt: number,
        max_attempts,
        ..
    } = attempt.claimed;
    let decision = if number >= max_attempts {
        Decision::Fail
    } else {
        let delay = delay.unwrap_or_else(|| attempt.pause(number));
        Decision::Retry {
            delay: delay.min(RUN_AT_AHEAD_MAX),
        }
    };
    Verdict {
        outcome,
        decision,
        result: None,
        error: Some(message),
    }
}

fn handed_back(outcome: Outcome, delay: Duration, message: Option<String>) -> Verdict {
    Verdict {
        outcome,
        decision: Decision::HandBack {
            delay: delay.min(RUN_AT_AHEAD_MAX),
        },
        result: None,
        error: message,
    }
}
