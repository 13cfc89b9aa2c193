//! The handler of all kinds of a remote worker, and the table of what was started there and has not ended.

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use forebay_core::{Clock, Json, TaskId, Timestamp};
use forebay_proto::v1::{self, WorkResponse, finish::Outcome, stop::Reason, work_response::Message};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use super::answers::Outbound;
use crate::{Execution, Handler, HandlerError, HandlerResult, LogTail, Stop, StopReason, handlers::Progress};

/// One start of one task.
type Start = (TaskId, u32);

/// What runs at the other end, and the way there.
pub(super) struct Starts {
    /// The session has the sender itself: when it ends, so does the stream.
    outbound: mpsc::WeakSender<WorkResponse>,
    clock: Arc<dyn Clock>,
    open: Mutex<HashMap<Start, Open>>,
    /// What the worker is still to be told, in time or not: it must not go on with what has ended. No more than there are
    /// slots, since nothing else is started before.
    stops: Mutex<VecDeque<v1::Stop>>,
    stops_come: Notify,
}

/// A start that has not ended, with what may be said of it.
struct Open {
    finish: oneshot::Sender<HandlerResult>,
    log: LogTail,
    progress: Progress,
}

/// The place of a start in the table, until its attempt has ended or was given up.
struct Waiting<'a> {
    starts: &'a Starts,
    start: Start,
    execution_stop: Stop,
    /// Whether the worker was told to start it, and nothing was said of a stop.
    is_told: bool,
    finished: oneshot::Receiver<HandlerResult>,
}

impl Starts {
    pub(super) fn new(outbound: &Outbound, clock: Arc<dyn Clock>) -> Self {
        Self {
            outbound: outbound.downgrade(),
            clock,
            open: Mutex::default(),
            stops: Mutex::default(),
            stops_come: Notify::new(),
        }
    }

    /// How many wait for their end.
    pub(super) fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// The worker says how a task ended. What nobody waits for any more is ignored.
    pub(super) fn finish(&self, finish: v1::Finish) {
        let Some(open) = start_of(finish.id).and_then(|start| self.lock().remove(&start)) else {
            return;
        };
        // Whoever waited may have been told to stop waiting just now.
        let _ = open.finish.send(result_of(finish.outcome));
    }

    /// The worker says how far a task is.
    pub(super) fn progress(&self, said: v1::Progress) {
        if let Some(start) = start_of(said.id)
            && let Some(open) = self.lock().get(&start)
        {
            open.progress.set(said.fraction, said.message);
        }
    }

    /// The worker says that attempts are alive.
    pub(super) fn alive(&self, starts: Vec<v1::StartId>) {
        let open = self.lock();
        for start in starts.into_iter().filter_map(|id| start_of(Some(id))) {
            if let Some(open) = open.get(&start) {
                open.progress.beat();
            }
        }
    }

    /// The worker says what a task logs.
    pub(super) fn log(&self, said: &v1::LogLines) {
        let Some(start) = start_of(said.id.clone()) else {
            return;
        };
        let log = self.lock().get(&start).map(|open| open.log.clone());
        if let Some(log) = log {
            said.lines.iter().for_each(|line| log.line(line));
        }
    }

    fn begin(&self, execution: &Execution) -> Waiting<'_> {
        let start = (execution.id, execution.fence);
        let (finish, finished) = oneshot::channel();
        let open = Open {
            finish,
            log: execution.log.clone(),
            progress: execution.progress.clone(),
        };
        self.lock().insert(start, open);
        Waiting {
            starts: self,
            start,
            execution_stop: execution.stop.clone(),
            is_told: false,
            finished,
        }
    }

    /// Tells the worker, once it has room to hear it.
    async fn say_start(&self, start: v1::Start) {
        // Nobody hears it where the stream is gone, which the session knows by itself.
        if let Some(outbound) = self.outbound.upgrade()
            && let Some(place) = self.place_after_stops(&outbound).await
        {
            place.send(message(Message::Start(start)));
        }
    }

    /// Tells the worker what is to stop, once it has room to hear it. Never returns.
    pub(super) async fn say_stops(&self) {
        loop {
            self.stops_come.notified().await;
            if let Some(outbound) = self.outbound.upgrade() {
                self.place_after_stops(&outbound).await;
            }
        }
    }

    /// A place for one message, once all Stops are said.
    async fn place_after_stops<'a>(&self, outbound: &'a Outbound) -> Option<mpsc::Permit<'a, WorkResponse>> {
        loop {
            let place = outbound.reserve().await.ok()?;
            let Some(stop) = self.stops().pop_front() else {
                return Some(place);
            };
            place.send(message(Message::Stop(stop)));
        }
    }

    fn stops(&self) -> MutexGuard<'_, VecDeque<v1::Stop>> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Start, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting<'_> {
    /// Waits for what the worker says. Where it can't say anything any more, this waits for ever: what becomes of the task
    /// is decided elsewhere then.
    async fn finished(&mut self) -> HandlerResult {
        match (&mut self.finished).await {
            Ok(result) => result,
            Err(_) => pending().await,
        }
    }

    /// Has the worker told that it is to end, where it was told to begin.
    fn stop(&mut self, reason: StopReason) {
        if std::mem::take(&mut self.is_told) {
            self.starts.stops().push_back(stop_message(self.start, reason));
            self.starts.stops_come.notify_one();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let is_open = self.starts.lock().remove(&self.start).is_some();
        if is_open {
            let reason = self.execution_stop.reason();
            self.stop(reason.unwrap_or(StopReason::Shutdown));
        }
    }
}

/// Runs tasks at the other end.
pub(super) struct Remote(pub(super) Arc<Starts>);

#[async_trait]
impl Handler for Remote {
    async fn run(&self, execution: Execution) -> HandlerResult {
        let starts = &self.0;
        let mut waiting = starts.begin(&execution);
        let start = start_message(&execution, starts.clock.now());
        tokio::select! {
            biased;
            _ = execution.stop.cancelled() => {
                return Err(HandlerError::retryable("the worker had no room to hear of it"));
            }
            () = starts.say_start(start) => waiting.is_told = true,
        }
        tokio::select! {
            result = waiting.finished() => return result,
            reason = execution.stop.cancelled() => waiting.stop(reason),
        }
        waiting.finished().await
    }
}

fn message(message: Message) -> WorkResponse {
    WorkResponse {
        message: Some(message),
    }
}

fn start_message(execution: &Execution, now: Timestamp) -> v1::Start {
    let left = execution.deadline.saturating_duration_since(Instant::now());
    let deadline = now.saturating_add(left).unwrap_or(Timestamp::MAX);
    let traceparent = execution.traceparent.as_ref();
    v1::Start {
        id: Some(id_message((execution.id, execution.fence))),
        kind: execution.kind.to_string(),
        queue: execution.queue.to_string(),
        project: execution.project.to_string(),
        payload: execution.payload.to_bytes(),
        attempt: execution.attempt,
        max_attempts: execution.max_attempts,
        timeout: execution.timeout.try_into().ok(),
        deadline: Some(time_message(deadline)),
        traceparent: traceparent.map(|it| it.as_str().to_owned()).unwrap_or_default(),
        heartbeat_timeout: execution.heartbeat_timeout.and_then(|it| it.try_into().ok()),
    }
}

fn stop_message(start: Start, reason: StopReason) -> v1::Stop {
    let reason = match reason {
        StopReason::Cancelled => Reason::Cancelled,
        StopReason::TimedOut | StopReason::Silent => Reason::TimedOut,
        StopReason::Shutdown => Reason::Shutdown,
    };
    v1::Stop {
        id: Some(id_message(start)),
        reason: reason.into(),
    }
}

fn id_message((task, fence): Start) -> v1::StartId {
    v1::StartId {
        task_id: task.to_string(),
        fence,
    }
}

fn time_message(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.as_microsecond();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0),
    }
}

fn start_of(id: Option<v1::StartId>) -> Option<Start> {
    let id = id?;
    Some((id.task_id.parse().ok()?, id.fence))
}

fn result_of(outcome: Option<Outcome>) -> HandlerResult {
    match outcome {
        Some(Outcome::Succeeded(v1::Succeeded { result })) if result.is_empty() => Ok(Json::null()),
        Some(Outcome::Succeeded(v1::Succeeded { result })) => {
            Json::parse(&result).map_err(|e| HandlerError::permanent(format_args!("the result {e}")))
        }
        Some(Outcome::Failed(failed)) => Err(error_of(failed)),
        Some(Outcome::Snoozed(v1::Snoozed { delay })) => Err(HandlerError::snooze(delay_of(delay))),
        None => Err(HandlerError::retryable(
            "the worker did not say how the attempt ended",
        )),
    }
}

fn error_of(failed: v1::Failed) -> HandlerError {
    let v1::Failed {
        message,
        permanent,
        retry_after,
    } = failed;
    match retry_after {
        _ if permanent => HandlerError::permanent(message),
        None => HandlerError::retryable(message),
        delay => HandlerError::retry_after(delay_of(delay), message),
    }
}

/// At once, unless said; what is negative is that, too.
fn delay_of(delay: Option<prost_types::Duration>) -> Duration {
    delay.and_then(|delay| delay.try_into().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(permanent: bool, seconds: Option<i64>) -> HandlerResult {
        result_of(Some(Outcome::Failed(v1::Failed {
            message: "no".to_owned(),
            permanent,
            retry_after: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        })))
    }

    #[test]
    fn what_a_worker_says_is_what_a_handler_would_return() {
        let succeeded = |text: &'static str| {
            result_of(Some(Outcome::Succeeded(v1::Succeeded {
                result: text.as_bytes().into(),
            })))
        };
        assert_eq!(succeeded(""), Ok(Json::null()));
        assert_eq!(succeeded(" [1] ").unwrap().as_str(), "[1]");
        assert!(matches!(succeeded("{"), Err(HandlerError::Permanent { .. })));
        assert_eq!(failed(false, None), Err(HandlerError::retryable("no")));
        assert_eq!(failed(true, Some(7)), Err(HandlerError::permanent("no")));
        let seconds = Duration::from_secs;
        assert_eq!(
            failed(false, Some(7)),
            Err(HandlerError::retry_after(seconds(7), "no"))
        );
        assert_eq!(
            failed(false, Some(-7)),
            Err(HandlerError::retry_after(seconds(0), "no"))
        );
        let snoozed = result_of(Some(Outcome::Snoozed(v1::Snoozed { delay: None })));
        assert_eq!(snoozed, Err(HandlerError::snooze(seconds(0))));
        assert!(matches!(result_of(None), Err(HandlerError::Retryable { .. })));
    }
}
