//! Accepts tasks.

use std::time::Duration;

use forebay_broker::PublishError;
use forebay_core::{
    Json, Kind, QueueName, State, Submission, SubmitRequest, Task, TaskEvent, TaskId, Timestamp, Violation,
};
use forebay_runtime::supervise::random_bytes;
use futures::future::join_all;
use tokio::time::timeout;

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::{
        after, kinds, notify,
        recent::{Known, Named},
        unique,
    },
    task::accepted,
};

/// A request as a door read it: what it asks for, and what the door already found wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) request: SubmitRequest,
    pub(crate) violations: Vec<Violation>,
}

/// A task that is durable.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) task: Task,
    /// Whether an earlier request with the same idempotency key made it.
    pub(crate) replayed: bool,
    /// Whether it is another task, which stands for the one that was submitted: it has the same unique key.
    pub(crate) stands_in: bool,
}

/// One of many tasks that are durable.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Durable<'a> {
    /// It was submitted now.
    New(&'a Submission),
    /// An earlier request with the same idempotency key made it, or it stands for it by its unique key.
    Known(&'a Task),
}

/// Accepts a task, or refuses it at once where the line in front of the broker is full. When this returns `Ok`, the task
/// is durable.
pub(crate) async fn submit(app: &App, mut asked: Asked) -> Result<Accepted> {
    let now = app.clock.now();
    if asked.request.idempotency_key.is_some() {
        // Boxed, so that those without a key need not carry its state.
        let same = Box::pin(find_same(app, now, &asked)).await?;
        if let Some(task) = same {
            return Ok(Accepted {
                task,
                replayed: true,
                stands_in: false,
            });
        }
    }
    if !asked.request.terms.after.is_empty() {
        Box::pin(after::check(app, &mut [&mut asked])).await;
    }
    if !asked.request.terms.notify.is_empty() {
        Box::pin(notify::check(app, &mut [&mut asked])).await;
    }
    let submission = check(now, asked)?;
    if app.schemas.any() {
        Box::pin(kinds::check_payload(app, &submission)).await?;
    }
    if app.stop.is_cancelled() {
        return Err(ApiError::of(Code::ShuttingDown));
    }
    if submission.terms.is_some()
        && let Some(task) = Box::pin(unique::find(app, &submission)).await?
    {
        return Ok(Accepted {
            task,
            replayed: false,
            stands_in: true,
        });
    }
    app.recent.about_to_submit(&submission);
    let task = accepted(&submission);
    let within = app.bounds.submit;
    let submitted = timeout(within, app.submitter.submit(submission)).await;
    let published = submitted.unwrap_or_else(|_| Err(late(within)));
    note(app, &Note::of(&task), &published);
    published?;
    app.metrics.task_submitted(&task.queue, 1);
    Ok(Accepted {
        task,
        replayed: false,
        stands_in: false,
    })
}

/// Accepts many, and waits for places in the line in front of the broker: their sender is held back meanwhile. One
/// result for each, in order, as `shown` shows what is durable.
pub(crate) async fn submit_all<T>(
    app: &App,
    mut asked: Vec<Result<Asked>>,
    shown: impl Fn(Durable<'_>) -> T,
) -> Vec<Result<T>> {
    let now = app.clock.now();
    // Looked at before anything is waited for: of a stream, which hands in one group after the other, none is refused for
    // this after which others are accepted.
    let stopping = app.stop.is_cancelled();
    let mut results: Vec<Option<Result<T>>> = asked.iter().map(|_| None).collect();
    if asked.iter().flatten().any(has_key) {
        for (index, answer) in Box::pin(find_repeats(app, now, &asked, &shown)).await {
            results[index] = Some(answer);
        }
    }
    let waits = |asked: &&mut Asked| !asked.request.terms.after.is_empty();
    let mut waiting: Vec<&mut Asked> = unanswered(&mut asked, &results).filter(waits).collect();
    if !waiting.is_empty() {
        Box::pin(after::check(app, &mut waiting)).await;
    }
    let notifies = |asked: &&mut Asked| !asked.request.terms.notify.is_empty();
    let mut notifying: Vec<&mut Asked> = unanswered(&mut asked, &results).filter(notifies).collect();
    if !notifying.is_empty() {
        Box::pin(notify::check(app, &mut notifying)).await;
    }
    let (mut plain, mut keyed) = (Vec::with_capacity(asked.len()), Vec::new());
    for (index, asked) in asked.into_iter().enumerate() {
        if results[index].is_some() {
            continue;
        }
        let checked = asked.and_then(|asked| check(now, asked));
        match checked {
            Err(error) => results[index] = Some(Err(error)),
            Ok(_) if stopping => {
                results[index] = Some(Err(ApiError::of(Code::ShuttingDown)));
            }
            Ok(submission) => {
                let sort = match submission.fingerprint.is_some() || submission.is_unique() {
                    true => &mut keyed,
                    false => &mut plain,
                };
                sort.push((index, submission));
            }
        }
    }
    if app.schemas.any() {
        for sort in [&mut plain, &mut keyed] {
            for (index, error) in Box::pin(kinds::take_misfits(app, sort)).await {
                results[index] = Some(Err(error));
            }
        }
    }
    let keyed = async {
        match keyed.is_empty() {
            true => Vec::new(),
            false => Box::pin(hand_in_keyed(app, keyed, &shown)).await,
        }
    };
    let (plain, keyed) = tokio::join!(hand_in(app, plain, &shown), keyed);
    for (index, result) in plain.into_iter().chain(keyed) {
        results[index] = Some(result);
    }
    let result = |result: Option<Result<T>>| result.unwrap_or_else(|| Err(ApiError::of(Code::Internal)));
    results.into_iter().map(result).collect()
}

fn has_key(asked: &Asked) -> bool {
    asked.request.idempotency_key.is_some()
}

/// Those of many that are not answered yet.
fn unanswered<'a, T>(
    asked: &'a mut [Result<Asked>],
    results: &'a [Option<Result<T>>],
) -> impl Iterator<Item = &'a mut Asked> {
    let open = asked
        .iter_mut()
        .zip(results)
        .filter(|(_, result)| result.is_none());
    open.filter_map(|(asked, _)| asked.as_mut().ok())
}

/// The place of one of many, and what became of it.
pub(crate) type Placed<T> = Vec<(usize, Result<T>)>;

/// As [`submit_all`], for what has idempotency keys or must be the only one of something.
async fn hand_in_keyed<T>(
    app: &App,
    submissions: Vec<(usize, Submission)>,
    shown: &impl Fn(Durable<'_>) -> T,
) -> Placed<T> {
    let looks = submissions
        .iter()
        .map(|(_, submission)| unique::find(app, submission));
    let found = join_all(looks).await;
    let (mut results, mut new) = (Vec::with_capacity(found.len()), Vec::new());
    for ((index, submission), found) in submissions.into_iter().zip(found) {
        match found {
            Ok(Some(task)) => results.push((index, Ok(shown(Durable::Known(&task))))),
            Err(error) => results.push((index, Err(error))),
            // The same key may be in here twice.
            Ok(None) if matches!(app.recent.find(&submission), Known::Other) => {
                results.push((index, Err(reused(submission.id))));
            }
            Ok(None) => {
                app.recent.about_to_submit(&submission);
                new.push((index, submission));
            }
        }
    }
    results.extend(hand_in(app, new, shown).await);
    results
}

/// Publishes many together.
pub(crate) async fn hand_in<T>(
    app: &App,
    submissions: Vec<(usize, Submission)>,
    shown: &impl Fn(Durable<'_>) -> T,
) -> Placed<T> {
    if submissions.is_empty() {
        return Vec::new();
    }
    let mut notes = Vec::with_capacity(submissions.len());
    let mut tasks = Vec::with_capacity(submissions.len());
    for (index, submission) in submissions {
        let state = submission.state();
        let note = Note {
            id: submission.id,
            kind: submission.kind.clone(),
            queue: submission.lane.queue.clone(),
            state,
            created_at: submission.created_at,
            keyed: submission.fingerprint.is_some(),
            mark: unique::mark_of(&submission.project, submission.terms.as_deref()),
        };
        notes.push((index, note, shown(Durable::New(&submission))));
        tasks.push(submission);
    }
    let (within, count) = (app.bounds.submit_patient, tasks.len());
    let submitted = timeout(within, app.submitter.submit_all(tasks)).await;
    let published = submitted.unwrap_or_else(|_| vec![Err(late(within)); count]);
    let mut counted = Counted::new(app);
    let judged = notes.into_iter().zip(published);
    judged
        .map(|((index, task, shown), published)| {
            self::note(app, &task, &published);
            if published.is_ok() {
                counted.add(&task.queue);
            }
            (index, published.map(|()| shown).map_err(ApiError::from))
        })
        .collect()
}

/// What is remembered and told of a submission, once the broker has answered.
struct Note {
    id: TaskId,
    kind: Kind,
    queue: QueueName,
    state: State,
    created_at: Timestamp,
    keyed: bool,
    mark: Option<unique::Mark>,
}

impl Note {
    fn of(task: &Task) -> Self {
        Self {
            id: task.id,
            kind: task.kind.clone(),
            queue: task.queue.clone(),
            state: task.state,
            created_at: task.created_at,
            keyed: task.fingerprint.is_some(),
            mark: unique::mark_of(&task.project, task.terms.as_deref()),
        }
    }
}

fn note(app: &App, task: &Note, published: &std::result::Result<(), PublishError>) {
    match published {
        Ok(()) => {
            if task.keyed {
                app.recent.submitted(task.id);
            }
            if let Some(mark) = &task.mark {
                app.marks.submitted(mark.clone(), task.id, task.created_at);
            }
            app.announcer.announce(|| TaskEvent {
                id: task.id,
                kind: task.kind.clone(),
                queue: task.queue.clone(),
                state: task.state,
                attempt: 0,
                at: task.created_at,
            });
        }
        Err(PublishError::Full | PublishError::Conflict | PublishError::Away { .. }) if task.keyed => {
            app.recent.not_submitted(task.id);
        }
        Err(_) => {}
    }
}

/// Counts what was submitted, many at once where they are of one queue.
struct Counted<'a> {
    app: &'a App,
    queue: Option<QueueName>,
    count: u64,
}

impl<'a> Counted<'a> {
    fn new(app: &'a App) -> Self {
        Self {
            app,
            queue: None,
            count: 0,
        }
    }

    fn add(&mut self, queue: &QueueName) {
        if self.queue.as_ref() != Some(queue) {
            self.tell();
            self.queue = Some(queue.clone());
        }
        self.count += 1;
    }

    fn tell(&mut self) {
        if let Some(queue) = self.queue.take() {
            self.app.metrics.task_submitted(&queue, self.count);
        }
        self.count = 0;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}

fn check(now: Timestamp, asked: Asked) -> Result<Submission> {
    let Asked {
        request,
        mut violations,
    } = asked;
    match request.accept(now, &random_bytes()) {
        Ok(submission) if violations.is_empty() => Ok(submission),
        Ok(_) => Err(ApiError::violations(violations)),
        Err(more) => {
            violations.extend(more);
            Err(ApiError::violations(violations))
        }
    }
}

fn late(within: Duration) -> PublishError {
    PublishError::Unavailable(format!("nothing was heard for {within:?}"))
}

/// The answers to those of many that are repeats.
async fn find_repeats<T>(
    app: &App,
    now: Timestamp,
    asked: &[Result<Asked>],
    shown: &impl Fn(Durable<'_>) -> T,
) -> Placed<T> {
    let asked = asked.iter().enumerate();
    let keyed =
        asked.filter_map(|(index, asked)| Some((index, asked.as_ref().ok().filter(|asked| has_key(asked))?)));
    let looks = keyed.map(|(index, asked)| async move { (index, find_same(app, now, asked).await) });
    let found = join_all(looks).await.into_iter();
    found
        .filter_map(|(index, found)| {
            let found = found.transpose()?;
            Some((index, found.map(|task| shown(Durable::Known(&task)))))
        })
        .collect()
}

/// The task that the request's key already names, where that is known in time. It is looked for before the request is
/// judged: what was accepted once is not refused for what has changed since, or it would be sent again under another key.
async fn find_same(app: &App, now: Timestamp, asked: &Asked) -> Result<Option<Task>> {
    // Of what could not be read it is not known whether it was said before.
    let named = asked.request.named(now).filter(|_| asked.violations.is_empty());
    let Some((id, fingerprint)) = named else {
        return Ok(None);
    };
    let payload = asked.request.payload.clone().unwrap_or_else(Json::null);
    let named = Named {
        id,
        fingerprint,
        payload,
        at: now,
    };
    match app.recent.find_named(&named) {
        Known::Same(task) => return Ok(Some(*task)),
        Known::Other => return Err(reused(id)),
        Known::Unsure => {}
    }
    let Some(task) = look_up(app, id).await else {
        return Ok(None);
    };
    if task.fingerprint == Some(fingerprint) {
        Ok(Some(task))
    } else {
        Err(reused(task.id))
    }
}

/// Looks in the store; skipped where the store does not answer in time, since acceptance depends on the broker
/// alone, and the recorder refuses a second request under the key in any case.
async fn look_up(app: &App, id: TaskId) -> Option<Task> {
    let look = async {
        let _place = app.places.lookups.acquire().await.ok()?;
        match app.store.get(id).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(error = %error, "an idempotency key was not looked up");
                None
            }
        }
    };
    timeout(app.bounds.lookup, look).await.ok().flatten()
}

fn reused(id: TaskId) -> ApiError {
    ApiError::new(
        Code::IdempotencyKeyReused,
        format!("the idempotency key names task {id}, which was submitted with another request"),
    )
}
