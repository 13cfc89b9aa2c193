//! What follows from what is known of a task.

use std::time::Duration;

use forebay_broker::Depth;
use forebay_core::{BatchId, State, Task, TaskId, Timestamp, WorkerId, WorkerInfo};
use forebay_store::{Hold, Place};

/// What is due longer than this has met nobody who makes it ready.
const OVERDUE: Duration = Duration::from_secs(2);
/// What is ready longer than this and is not in the broker has lost its message.
const ASTRAY: Duration = Duration::from_secs(5);
/// How many of the tasks it waits for are named in the sentence.
const NAMED_MAX: usize = 3;
/// How much of an error is quoted.
const QUOTED_MAX: usize = 200;

/// The one thing that a task waits for, by a name that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    WaitsForTime,
    WaitsForRetry,
    WaitsForDispatcher,
    WaitsForTasks,
    WaitsForBatch,
    HeldByLimit,
    QueuePaused,
    NoWorker,
    InLine,
    Running,
    Cancelling,
    Finished,
    Expired,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::WaitsForTime => "waits_for_time",
            Self::WaitsForRetry => "waits_for_retry",
            Self::WaitsForDispatcher => "waits_for_dispatcher",
            Self::WaitsForTasks => "waits_for_tasks",
            Self::WaitsForBatch => "waits_for_batch",
            Self::HeldByLimit => "held_by_limit",
            Self::QueuePaused => "queue_paused",
            Self::NoWorker => "no_worker",
            Self::InLine => "in_line",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Finished => "finished",
            Self::Expired => "expired",
        }
    }
}

/// Why a task is where it is. What does not fit the reason is `None`, or empty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Explanation {
    pub(crate) id: TaskId,
    pub(crate) state: State,
    pub(crate) reason: Reason,
    /// The same in a sentence, for people.
    pub(crate) detail: String,
    /// When it is due.
    pub(crate) run_at: Option<Timestamp>,
    /// The number of the attempt that comes next.
    pub(crate) next_attempt: Option<u32>,
    /// How many go before it.
    pub(crate) ahead: Option<u64>,
    /// Whether these are all.
    pub(crate) ahead_is_exact: Option<bool>,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) worker_name: Option<String>,
    pub(crate) limit: Option<Hold>,
    pub(crate) blocked_on: Vec<TaskId>,
    pub(crate) batch: Option<BatchId>,
    /// When this was so.
    pub(crate) at: Timestamp,
}

/// What is known beside the task.
#[derive(Debug)]
pub(crate) enum Facts {
    /// Nothing that is needed.
    Task,
    Lane(InLane),
    /// What the worker that runs it is called, where it is known.
    Worker(Option<String>),
    Limit(Option<Hold>),
    Blocked {
        tasks: Vec<TaskId>,
        /// Those of them that are not recorded, each with when it is no longer waited for.
        unknown: Vec<(TaskId, Timestamp)>,
        batch: Option<BatchId>,
    },
}

/// How it stands in its lane.
#[derive(Debug)]
pub(crate) struct InLane {
    pub(crate) place: Place,
    pub(crate) is_paused: bool,
    /// Those that read its queue.
    pub(crate) workers: Vec<WorkerInfo>,
    /// What the broker says, where it answers.
    pub(crate) depth: Option<Depth>,
}

/// Explains a task.
pub(crate) fn explain(task: &Task, facts: &Facts, now: Timestamp) -> Explanation {
    let blank = Explanation {
        id: task.id,
        state: task.state,
        reason: Reason::Finished,
        detail: String::new(),
        run_at: None,
        next_attempt: None,
        ahead: None,
        ahead_is_exact: None,
        worker: None,
        worker_name: None,
        limit: None,
        blocked_on: Vec::new(),
        batch: None,
        at: now,
    };
    match task.state {
        State::Scheduled | State::Retrying => timed(task, now, blank),
        State::Throttled => throttled(task, facts, now, blank),
        State::Blocked => blocked(facts, blank),
        State::Queued => queued(task, facts, now, blank),
        State::Running => running(task, facts, blank),
        State::Succeeded | State::Failed | State::Cancelled | State::Expired => ended(task, blank),
    }
}

fn timed(task: &Task, now: Timestamp, blank: Explanation) -> Explanation {
    let due = task.run_at.unwrap_or(now);
    if due <= now {
        return due_already(task, due, now, blank);
    }
    let wait = span(until(now, due));
    let (reason, detail) = match task.state {
        State::Retrying => {
            let failed = last_failure(task).map_or_else(String::new, |failed| format!("{failed}; "));
            let next = task.attempt + 1;
            let detail = format!("{failed}attempt {next} is due in {wait}, at {due}.");
            (Reason::WaitsForRetry, capital(detail))
        }
        _ => {
            let detail = format!("It waits for its time: it is due in {wait}, at {due}.");
            (Reason::WaitsForTime, detail)
        }
    };
    Explanation {
        reason,
        detail,
        run_at: Some(due),
        next_attempt: Some(task.attempt + 1),
        ..blank
    }
}

fn due_already(task: &Task, due: Timestamp, now: Timestamp, blank: Explanation) -> Explanation {
    let late = until(due, now);
    let detail = match late > OVERDUE {
        true => format!(
            "It has been due for {}, and nobody has made it ready: is a worker with the role dispatcher running, and \
             does the broker take messages?",
            span(late)
        ),
        false => "It is due, and is made ready in a moment.".to_owned(),
    };
    Explanation {
        reason: Reason::WaitsForDispatcher,
        detail,
        run_at: Some(due),
        next_attempt: Some(task.attempt + 1),
        ..blank
    }
}

fn throttled(task: &Task, facts: &Facts, now: Timestamp, blank: Explanation) -> Explanation {
    if let Some(due) = task.run_at.filter(|due| *due <= now) {
        return due_already(task, due, now, blank);
    }
    let held = match facts {
        Facts::Limit(held) => held.clone(),
        _ => None,
    };
    let next_at = held.as_ref().and_then(|held| held.next_at).or(task.run_at);
    let name = held.as_ref().map_or_else(
        || "A limit".to_owned(),
        |held| match &held.key {
            Some(key) => format!("The limit {} (key {})", held.limit, key),
            None => format!("The limit {}", held.limit),
        },
    );
    let detail = match (next_at, &held) {
        (Some(at), _) => {
            let wait = span(until(now, at));
            format!("{name} holds it back: its rate lets it go in {wait}, at {at}.")
        }
        (None, Some(held)) => {
            let most = held
                .concurrency
                .map_or_else(String::new, |most: u32| format!(" of {most}"));
            let running = held.running;
            let line = before(held.ahead, held.ahead < Hold::AHEAD_MAX);
            format!("{name} holds it back: {running}{most} run that count to it. {line}")
        }
        (None, None) => format!("{name} holds it back, until what counts to it has ended."),
    };
    Explanation {
        reason: Reason::HeldByLimit,
        detail,
        run_at: next_at,
        next_attempt: Some(task.attempt + 1),
        ahead: held.as_ref().map(|held| held.ahead),
        ahead_is_exact: held.as_ref().map(|held| held.ahead < Hold::AHEAD_MAX),
        limit: held,
        ..blank
    }
}

fn blocked(facts: &Facts, blank: Explanation) -> Explanation {
    let (tasks, unknown, batch) = match facts {
        Facts::Blocked {
            tasks,
            unknown,
            batch,
        } => (tasks.clone(), unknown.as_slice(), *batch),
        _ => (Vec::new(), Default::default(), None),
    };
    if let (Some(id), true) = (batch, tasks.is_empty()) {
        return Explanation {
            reason: Reason::WaitsForBatch,
            detail: format!("It runs when all tasks of the batch {id} have ended."),
            next_attempt: Some(1),
            batch,
            ..blank
        };
    }
    let named: Vec<String> = tasks.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = match tasks.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let detail = match tasks.is_empty() {
        true => "What it waited for has ended; it is released in a moment.".to_owned(),
        false => {
            let unknown = unknown_yet(unknown);
            format!("It waits for {}{more} to end.{unknown}", named.join(", "))
        }
    };
    Explanation {
        reason: Reason::WaitsForTasks,
        detail,
        next_attempt: Some(1),
        blocked_on: tasks,
        batch,
        ..blank
    }
}

/// What is to be said of tasks that it waits for and that nobody has recorded: the one of them that is waited for the shortest time.
fn unknown_yet(unknown: &[(TaskId, Timestamp)]) -> String {
    let Some((id, until)) = unknown.iter().min_by_key(|(_, until)| *until) else {
        return String::new();
    };
    let more = match unknown.len() - 1 {
        0 => String::new(),
        more => format!(" (nor are others of these, {more} in all)"),
    };
    format!(
        " Task {id} is not recorded yet{more}: perhaps it does not exist. If it has not come by {until}, it counts as one \
         that has failed."
    )
}

fn queued(task: &Task, facts: &Facts, now: Timestamp, blank: Explanation) -> Explanation {
    let Facts::Lane(lane) = facts else {
        return Explanation {
            reason: Reason::InLine,
            detail: "It is ready, and about to be started.".to_owned(),
            next_attempt: Some(task.attempt + 1),
            ..blank
        };
    };
    let queue = &task.queue;
    let living = lane.workers.iter().filter(|worker| !worker.draining);
    let (workers, slots, busy) = living.fold((0_u32, 0_u64, 0_u64), |(workers, slots, busy), worker| {
        let runs: u64 = worker.busy.iter().map(|(_, count)| u64::from(*count)).sum();
        (workers + 1, slots + u64::from(worker.slots), busy + runs)
    });
    let is_astray = lane.depth.as_ref().is_some_and(|depth| depth.is_empty())
        && until(lane.place.queued_at, now) > ASTRAY;
    let (reason, detail) = if lane.is_paused {
        let detail =
            format!("The queue {queue} is paused: none of its tasks is started until it is resumed.");
        (Reason::QueuePaused, detail)
    } else if workers == 0 {
        let detail = match lane.workers.is_empty() {
            true => format!("No worker reads the queue {queue}."),
            false => format!("The only workers that read the queue {queue} are about to stop."),
        };
        (Reason::NoWorker, detail)
    } else if is_astray {
        let detail = "The broker has no message of it: a dispatcher publishes again what was lost, within a minute or so.";
        (Reason::WaitsForDispatcher, detail.to_owned())
    } else {
        let line = before(lane.place.ahead, lane.place.is_exact);
        let detail = format!("{line} {busy} of the {slots} slots of the queue's workers are busy.");
        (Reason::InLine, detail)
    };
    Explanation {
        reason,
        detail,
        next_attempt: Some(task.attempt + 1),
        ahead: Some(lane.place.ahead),
        ahead_is_exact: Some(lane.place.is_exact),
        ..blank
    }
}

fn running(task: &Task, facts: &Facts, blank: Explanation) -> Explanation {
    let worker_name = match facts {
        Facts::Worker(name) => name.clone(),
        _ => None,
    };
    let whom = match (&worker_name, task.worker) {
        (Some(name), _) => format!("the worker {name}"),
        (None, Some(id)) => format!("the worker {id}"),
        (None, None) => "a worker".to_owned(),
    };
    let (reason, mut detail) = match task.cancel_requested {
        true => {
            let detail = format!("It is to be cancelled, and {whom} was told; it has not ended yet.");
            (Reason::Cancelling, detail)
        }
        false => {
            let since = task
                .started_at
                .map_or_else(String::new, |at| format!(" since {at}"));
            let detail = format!("Attempt {} runs on {whom}{since}.", task.attempt);
            (Reason::Running, detail)
        }
    };
    if let Some(progress) = &task.progress {
        // What is not done is not shown as done.
        let percent = (progress.fraction.clamp(0.0, 1.0) * 100.0 + 1e-9).floor();
        let message = match progress.message.as_str() {
            "" => String::new(),
            message => format!(" ({})", quoted(message)),
        };
        detail.push_str(&format!(" It said last that {percent} % is done{message}."));
    }
    Explanation {
        reason,
        detail,
        worker: task.worker,
        worker_name,
        ..blank
    }
}

fn ended(task: &Task, blank: Explanation) -> Explanation {
    let at = task
        .finished_at
        .map_or_else(String::new, |at| format!(" at {at}"));
    let (reason, detail) = match task.state {
        State::Succeeded => (Reason::Finished, format!("It succeeded{at}.")),
        State::Cancelled => {
            let why = task.errors.last().filter(|_| task.fence == 0);
            let why = why.map_or_else(String::new, |error| format!(": {}", quoted(&error.message)));
            (Reason::Finished, format!("It was cancelled{at}{why}."))
        }
        State::Expired => {
            let detail = format!("It was not started in time, and expired{at}.");
            (Reason::Expired, detail)
        }
        _ => {
            let why = last_failure(task).map_or_else(String::new, |failed| format!(": {failed}"));
            (Reason::Finished, format!("It has failed for good{at}{why}."))
        }
    };
    Explanation {
        reason,
        detail,
        worker: task.worker,
        ..blank
    }
}

/// The attempt that ended last, in a few words.
fn last_failure(task: &Task) -> Option<String> {
    let error = task.errors.last()?;
    let most = task
        .max_attempts
        .map_or_else(String::new, |most| format!(" of {most}"));
    let (number, outcome) = (error.attempt, error.outcome.replace('_', " "));
    Some(format!(
        "attempt {number}{most} {outcome} ({})",
        quoted(&error.message)
    ))
}

/// Where in a line.
fn before(ahead: u64, is_exact: bool) -> String {
    match (ahead, is_exact) {
        (0, true) => "It is the next in line.".to_owned(),
        (1, true) => "1 task is before it.".to_owned(),
        (ahead, true) => format!("{ahead} tasks are before it."),
        (ahead, false) => format!("At least {ahead} tasks are before it."),
    }
}

fn quoted(text: &str) -> String {
    let line = text.replace(['\n', '\r'], " ");
    let mut short: String = line.chars().take(QUOTED_MAX).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

fn capital(text: String) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => text,
    }
}

fn until(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// A span in its largest unit.
fn span(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
