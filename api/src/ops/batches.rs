//! Batches: tasks that are submitted together and looked at together. What is announced of a batch is kept in the store
//! first; its tasks then go the way of all tasks.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use forebay_core::{
    AFTER_MAX, BatchId, Fingerprint, IdempotencyKey, Json, Project, State, Submission, SubmitRequest, Task,
    TaskId, Timestamp, TraceParent, Violation, from_unix_micros,
};
use forebay_runtime::supervise::random_bytes;
use forebay_store::{Batch, BatchCounts, BatchPage, BatchPart, Grown, NewBatch, Opened};
use sha2::{Digest, Sha256};

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::{
        after, change, counts, kinds,
        list::check_page_size,
        notify, once,
        page::bad_token,
        read,
        submit::{self, Asked as AskedTask},
        unique,
    },
};

/// The most tasks of one request.
pub(crate) const TASKS_MAX: usize = 1_000;
/// The longest name of a batch, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// The most mistakes that are told.
const VIOLATIONS_MAX: usize = 100;
/// The part of a batch that it is opened with, and that of the task which completes it. Those that are added later are named
/// by their keys, after a plus sign.
const FIRST_PART: &str = "";
const COMPLETION_PART: &str = "completion";

/// A batch as a door read it.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) name: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) is_open: bool,
    pub(crate) tasks: Tasks,
    pub(crate) on_complete: Option<AskedTask>,
}

/// Tasks of a batch as a door read them.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    pub(crate) tasks: Vec<AskedTask>,
    /// Whether each waits for the one before.
    pub(crate) chain: bool,
    /// The request's idempotency key.
    pub(crate) key: Option<String>,
    /// What the request says, as it came.
    pub(crate) said: Said,
    pub(crate) traceparent: Option<TraceParent>,
}

/// Stands for what a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said(Fingerprint);

impl Default for Said {
    fn default() -> Self {
        Self::of(b"")
    }
}

impl Said {
    pub(crate) fn of(text: &[u8]) -> Self {
        let digest = Sha256::digest(text);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(Fingerprint(bytes))
    }
}

/// Tasks of a batch that are durable.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) batch: Batch,
    pub(crate) ids: Vec<TaskId>,
    /// Whether an earlier request with the same idempotency key opened the batch.
    pub(crate) replayed: bool,
}

/// A page of batches, and the token of the next one.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) batches: Vec<Batch>,
    pub(crate) next: Option<String>,
}

/// A page of a batch's tasks, and the token of the next one.
#[derive(Debug)]
pub(crate) struct ListedTasks {
    pub(crate) tasks: Vec<Task>,
    pub(crate) next: Option<String>,
}

/// Parses a batch's id as a door received it.
pub(crate) fn parse_id(text: &str) -> Result<BatchId> {
    text.parse()
        .map_err(|_| ApiError::at(Code::InvalidParameter, "/id", "must be a UUID"))
}

/// Opens a batch and submits its tasks. When this returns `Ok`, all of them are durable. To be carried on to its end once
/// begun, whoever still waits for the answer: what is announced must come.
pub(crate) async fn open(app: &App, mut asked: Asked) -> Result<Accepted> {
    if app.stop.is_cancelled() {
        return Err(ApiError::of(Code::ShuttingDown));
    }
    let now = app.clock.now();
    let mut wrong = Vec::new();
    let project = parse_project(asked.project.as_deref(), &mut wrong);
    check_name(asked.name.as_deref(), &mut wrong);
    let key = parse_key(asked.tasks.key.as_deref(), &mut wrong);
    let id = match &key {
        Some(key) => BatchId::keyed(now, &project, key),
        None => BatchId::new(now, &random_bytes()),
    };
    // A repeat is not judged anew: what was accepted once is not refused for what has changed since.
    let known = match key {
        Some(_) => find_same(app, id, asked.tasks.said).await?,
        None => None,
    };
    if known.is_none() {
        look_at_others(app, &mut asked.tasks, asked.on_complete.as_mut()).await;
    }
    let planned = Plan {
        batch: known.as_ref().map_or(id, |batch| batch.id),
        part: FIRST_PART,
        project: &project,
        now,
        is_repeat: known.is_some(),
    };
    let tasks = planned.tasks(&asked.tasks, &mut wrong);
    let on_complete = asked.on_complete.filter(|_| known.is_none());
    let completion = on_complete.and_then(|task| planned.completion(task, &asked.tasks, &mut wrong));
    refuse(wrong)?;
    let replayed = known.is_some();
    let (batch, tasks, raced) = match known {
        Some(batch) => (batch, tasks, false),
        None => {
            let new = NewBatch {
                id,
                project: project.clone(),
                name: asked.name,
                fingerprint: key.as_ref().map(|_| asked.tasks.said.0),
                total: u64::try_from(tasks.len()).unwrap_or(u64::MAX),
                is_open: asked.is_open,
                created_at: now,
                completion,
            };
            let batch = announce(app, &tasks, &new).await?;
            // A key of yesterday names what it named then.
            let tasks = match batch.id == id {
                true => tasks,
                false => Plan {
                    batch: batch.id,
                    ..planned
                }
                .tasks(&asked.tasks, &mut Vec::new()),
            };
            let raced = key.is_some() && batch.created_at != now;
            (batch, tasks, raced)
        }
    };
    let ids = tasks.iter().map(|task| task.id).collect();
    if let Err(error) = hand_in(app, &batch, tasks).await {
        let kept = match key {
            Some(_) => Kept::ByKey,
            None => give_up(app, &batch).await,
        };
        return Err(unfinished(error, &batch, kept));
    }
    Ok(Accepted {
        batch,
        ids,
        replayed: replayed || raced,
    })
}

/// The batch that an earlier request under the key has opened, if it was the same request.
async fn find_same(app: &App, id: BatchId, said: Said) -> Result<Option<Batch>> {
    let found = read(app, || app.store.batch(id)).await?;
    match found {
        Some(batch) if batch.fingerprint == Some(said.0) => Ok(Some(batch)),
        Some(batch) => Err(reused(batch.id)),
        None => Ok(None),
    }
}

/// Looks at what only new tasks are held against, and opens the batch.
async fn announce(app: &App, tasks: &[Submission], new: &NewBatch) -> Result<Batch> {
    kinds::check_batch(app, tasks, new.completion.as_ref()).await?;
    unique::check_batch(app, tasks).await?;
    match read(app, || app.store.open_batch(new)).await? {
        Opened::New(batch) | Opened::Known(batch) => Ok(batch),
        Opened::Conflict(id) => Err(reused(id)),
    }
}

/// Adds tasks to an open batch. The request has a key, since a batch counts on what is announced. To be carried on to its
/// end as [`open`] is.
pub(crate) async fn grow(app: &App, id: BatchId, mut asked: Tasks) -> Result<Accepted> {
    if app.stop.is_cancelled() {
        return Err(ApiError::of(Code::ShuttingDown));
    }
    let Some(key) = asked.key.clone() else {
        let detail =
            "must be given: what is added is counted, so the request must be one that can be repeated";
        return Err(ApiError::at(Code::InvalidParameter, "/Idempotency-Key", detail));
    };
    let batch = find(app, id).await?;
    let part = Said::of(key.as_bytes()).0;
    let is_repeat = read(app, || app.store.knows_part(batch.id, part)).await?;
    if !is_repeat {
        look_at_others(app, &mut asked, None).await;
    }
    let mut wrong = Vec::new();
    parse_key(Some(&key), &mut wrong);
    let planned = Plan {
        batch: batch.id,
        part: &format!("+{key}"),
        project: &batch.project,
        now: app.clock.now(),
        is_repeat,
    };
    let tasks = planned.tasks(&asked, &mut wrong);
    refuse(wrong)?;
    if !is_repeat {
        kinds::check_batch(app, &tasks, None).await?;
        unique::check_batch(app, &tasks).await?;
    }
    let part = BatchPart {
        part,
        fingerprint: asked.said.0,
        count: u64::try_from(tasks.len()).unwrap_or(u64::MAX),
    };
    let batch = match read(app, || app.store.grow_batch(batch.id, &part)).await? {
        Grown::Done(batch) => batch,
        Grown::Closed(batch) => return Err(closed(&batch)),
        Grown::Full(batch) => return Err(full(&batch)),
        Grown::Conflict => return Err(reused(id)),
        Grown::NotFound => return Err(unknown(id)),
    };
    let ids = tasks.iter().map(|task| task.id).collect();
    hand_in(app, &batch, tasks)
        .await
        .map_err(|error| unfinished(error, &batch, Kept::ByKey))?;
    Ok(Accepted {
        batch,
        ids,
        replayed: false,
    })
}

/// Reads a batch, and counts its tasks.
pub(crate) async fn get(app: &App, id: BatchId) -> Result<(Batch, BatchCounts)> {
    let batch = find(app, id).await?;
    let counts = counts::of(app, &batch).await?;
    Ok((batch, counts))
}

async fn find(app: &App, id: BatchId) -> Result<Batch> {
    let found = read(app, || app.store.batch(id)).await?;
    found.ok_or_else(|| unknown(id))
}

/// Closes a batch. To close it again changes nothing.
pub(crate) async fn close(app: &App, id: BatchId) -> Result<Batch> {
    let closed = read(app, || app.store.close_batch(id)).await?;
    closed.ok_or_else(|| unknown(id))
}

/// Cancels a batch. To cancel it again changes nothing.
pub(crate) async fn cancel(app: &App, id: BatchId) -> Result<Batch> {
    let cancelled = read(app, || app.store.cancel_batch(id)).await?;
    let batch = cancelled.ok_or_else(|| unknown(id))?;
    if batch.cancelled_at.is_none() {
        let detail = format!("batch {id} is complete: there is nothing to cancel");
        return Err(ApiError::new(Code::BatchClosed, detail));
    }
    tell_of_completion(app, &batch).await;
    tracing::info!(batch = %id, "a batch was cancelled");
    Ok(batch)
}

/// Tells whoever waits for it that the task that was to complete a batch is cancelled. Best effort: they look for themselves, too.
async fn tell_of_completion(app: &App, batch: &Batch) {
    let Some(id) = batch.completion else { return };
    if let Ok(Some(task)) = once(app, app.store.get(id)).await
        && task.state == State::Cancelled
    {
        change::tell(app, &task);
    }
}

/// Lists a page of batches, newest first.
pub(crate) async fn list(
    app: &App,
    project: Option<Project>,
    page_size: Option<i64>,
    page_token: Option<String>,
) -> Result<Listed> {
    let page_size = check_page_size(page_size)?;
    let after = page_token.map(|token| parse_page(&token)).transpose()?;
    // One more tells whether there is a next page.
    let mut batches = read(app, || app.store.batches(project.as_ref(), page_size + 1, after)).await?;
    let more = batches.len() > page_size;
    batches.truncate(page_size);
    let next = batches.last().filter(|_| more).map(write_page);
    Ok(Listed { batches, next })
}

/// Lists a page of the recorded tasks of a batch, in the order in which they were submitted together.
pub(crate) async fn tasks(
    app: &App,
    id: BatchId,
    page_size: Option<i64>,
    page_token: Option<String>,
) -> Result<ListedTasks> {
    let page_size = check_page_size(page_size)?;
    let after = page_token.map(|token| parse_place(&token)).transpose()?;
    let batch = find(app, id).await?;
    let mut tasks = read(app, || app.store.batch_tasks(batch.id, page_size + 1, after)).await?;
    let more = tasks.len() > page_size;
    tasks.truncate(page_size);
    let next = tasks.last().filter(|_| more);
    Ok(ListedTasks {
        next: next.map(|last| URL_SAFE_NO_PAD.encode(last.id.as_uuid().as_bytes())),
        tasks,
    })
}

/// What makes submissions of the tasks of a batch.
#[derive(Debug, Clone, Copy)]
struct Plan<'a> {
    batch: BatchId,
    part: &'a str,
    project: &'a Project,
    now: Timestamp,
    /// Whether it was accepted before.
    is_repeat: bool,
}

impl Plan<'_> {
    /// The tasks of a request, each with the id that its place gives it.
    fn tasks(&self, asked: &Tasks, wrong: &mut Vec<Violation>) -> Vec<Submission> {
        if asked.tasks.len() > TASKS_MAX {
            let detail =
                format!("must have at most {TASKS_MAX} items: open the batch with open, and add to it");
            wrong.push(Violation::invalid("/tasks", detail));
            return Vec::new();
        }
        let completion = TaskId::of_batch(self.batch, COMPLETION_PART, 0);
        let mut tasks = Vec::with_capacity(asked.tasks.len());
        for (index, task) in (0_u16..).zip(&asked.tasks) {
            let at = format!("/tasks/{index}");
            wrong.extend(
                task.violations
                    .iter()
                    .cloned()
                    .map(|violation| below(&at, violation)),
            );
            let mut request = self.request(task.request.clone(), asked, &at, wrong);
            request.terms.batch = Some(self.batch);
            wrong.extend(waits_for_the_end(&request, completion, &at));
            if let Some(before) = index.checked_sub(1).filter(|_| asked.chain) {
                let before = TaskId::of_batch(self.batch, self.part, before);
                match request.terms.after.len() {
                    AFTER_MAX => wrong.push(one_too_many(&at)),
                    _ => request.terms.after.push(before.to_string()),
                }
            }
            let id = TaskId::of_batch(self.batch, self.part, index);
            tasks.extend(self.accept(request, id, &at, wrong));
            if wrong.len() >= VIOLATIONS_MAX {
                break;
            }
        }
        tasks
    }

    /// The task that completes the batch.
    fn completion(&self, task: AskedTask, asked: &Tasks, wrong: &mut Vec<Violation>) -> Option<Submission> {
        let at = "/on_complete";
        wrong.extend(task.violations.into_iter().map(|violation| below(at, violation)));
        let mut request = self.request(task.request, asked, at, wrong);
        if !request.terms.after.is_empty() {
            let detail = "must not be given: it waits for the batch";
            wrong.push(Violation::invalid("/on_complete/after", detail));
        }
        if request.terms.unique.is_some() {
            let detail = "must not be given: there is one for the batch";
            wrong.push(Violation::invalid("/on_complete/unique", detail));
        }
        if request.payload.is_none() {
            let said = format!("{{\"batch_id\":\"{}\"}}", self.batch);
            request.payload = Json::from_trusted(said.into_bytes().into()).ok();
        }
        self.accept(
            request,
            TaskId::of_batch(self.batch, COMPLETION_PART, 0),
            at,
            wrong,
        )
    }

    /// What all of them have in common.
    fn request(
        &self,
        mut request: SubmitRequest,
        asked: &Tasks,
        at: &str,
        wrong: &mut Vec<Violation>,
    ) -> SubmitRequest {
        if request.idempotency_key.take().is_some() {
            let detail =
                "must not be given in a batch: its key is the request's, in the header Idempotency-Key";
            wrong.push(Violation::invalid(format!("{at}/idempotency_key"), detail));
        }
        request.project.get_or_insert_with(|| self.project.to_string());
        request.traceparent.clone_from(&asked.traceparent);
        request
    }

    fn accept(
        &self,
        request: SubmitRequest,
        id: TaskId,
        at: &str,
        wrong: &mut Vec<Violation>,
    ) -> Option<Submission> {
        let accepted = match self.is_repeat {
            true => request.accept_again(self.now, &random_bytes()),
            false => request.accept(self.now, &random_bytes()),
        };
        match accepted {
            Ok(task) => Some(Submission { id, ..task }),
            Err(more) => {
                wrong.extend(more.into_iter().map(|violation| below(at, violation)));
                None
            }
        }
    }
}

/// What a member may not wait for: the task that waits for it.
fn waits_for_the_end(request: &SubmitRequest, completion: TaskId, at: &str) -> Option<Violation> {
    let mut after = request.terms.after.iter();
    let index = after.position(|id| id.parse() == Ok(completion))?;
    let detail = "must not be the task that completes this batch: it waits for all others of it";
    Some(Violation::invalid(format!("{at}/after/{index}"), detail))
}

fn one_too_many(at: &str) -> Violation {
    let most = AFTER_MAX - 1;
    let detail = format!("must have at most {most} items in a chain, where the task before it is one more");
    Violation::invalid(format!("{at}/after"), detail)
}

/// What is wrong with a task, as what is wrong with the request.
fn below(at: &str, violation: Violation) -> Violation {
    Violation {
        pointer: format!("{at}{}", violation.pointer),
        ..violation
    }
}

fn refuse(mut wrong: Vec<Violation>) -> Result<()> {
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.truncate(VIOLATIONS_MAX);
    Err(ApiError::violations(wrong))
}

async fn look_at_others(app: &App, asked: &mut Tasks, on_complete: Option<&mut AskedTask>) {
    let mut waiting: Vec<&mut AskedTask> = asked
        .tasks
        .iter_mut()
        .filter(|task| !task.request.terms.after.is_empty())
        .collect();
    after::check(app, &mut waiting).await;
    let notifies = |task: &&mut AskedTask| !task.request.terms.notify.is_empty();
    let mut notifying: Vec<&mut AskedTask> = asked
        .tasks
        .iter_mut()
        .chain(on_complete)
        .filter(notifies)
        .collect();
    if !notifying.is_empty() {
        notify::check(app, &mut notifying).await;
    }
}

fn parse_project(text: Option<&str>, wrong: &mut Vec<Violation>) -> Project {
    match text.map(str::parse) {
        None => Project::default(),
        Some(Ok(project)) => project,
        Some(Err(error)) => {
            let error: forebay_core::InvalidName = error;
            wrong.push(Violation::invalid("/project", error.to_string()));
            Project::default()
        }
    }
}

fn check_name(name: Option<&str>, wrong: &mut Vec<Violation>) {
    let is_sound =
        |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if name.is_some_and(|name| !is_sound(name)) {
        let detail = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control characters");
        wrong.push(Violation::invalid("/name", detail));
    }
}

fn parse_key(text: Option<&str>, wrong: &mut Vec<Violation>) -> Option<IdempotencyKey> {
    let text = text?;
    let key = IdempotencyKey::parse(text);
    if key.is_none() {
        let detail = "must be 1 to 255 printable ASCII characters, in the header Idempotency-Key";
        wrong.push(Violation::invalid("/idempotency_key", detail));
    }
    key
}

/// Publishes all; an error is that of the first that was not accepted. When a batch is complete all of them have ended, and
/// what is not kept any more must not run again.
async fn hand_in(app: &App, batch: &Batch, tasks: Vec<Submission>) -> Result<()> {
    if batch.completed_at.is_some() {
        return Ok(());
    }
    let tasks = tasks.into_iter().enumerate().collect();
    let results = submit::hand_in(app, tasks, &|_| ()).await;
    results.into_iter().try_for_each(|(_, result)| result)
}

/// A batch of which a part was not accepted, and whose request can't be repeated, is cancelled, so that no half of it runs on.
async fn give_up(app: &App, batch: &Batch) -> Kept {
    match once(app, app.store.cancel_batch(batch.id)).await {
        Ok(Some(batch)) if batch.cancelled_at.is_some() => {
            tell_of_completion(app, &batch).await;
            Kept::Cancelled
        }
        Ok(_) => Kept::Unsure,
        Err(error) => {
            tracing::warn!(batch = %batch.id, error = error.detail, "a batch that was not accepted as a whole was not cancelled");
            Kept::Unsure
        }
    }
}

/// What becomes of a batch of which not all is known to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// The same request completes it.
    ByKey,
    /// Nothing of it runs.
    Cancelled,
    /// A part of it may run.
    Unsure,
}

fn unfinished(error: ApiError, batch: &Batch, kept: Kept) -> ApiError {
    let id = batch.id;
    let detail = match kept {
        Kept::ByKey => format!(
            "not all of the tasks of batch {id} are known to be accepted: send the same request again, with its key"
        ),
        Kept::Cancelled => format!(
            "not all of the tasks of batch {id} could be accepted, so it was cancelled: send it again"
        ),
        Kept::Unsure => {
            format!("batch {id} may be partly accepted: cancel it before you send it again")
        }
    };
    ApiError { detail, ..error }
}

fn unknown(id: BatchId) -> ApiError {
    ApiError::new(Code::BatchNotFound, format!("there is no batch {id}"))
}

fn closed(batch: &Batch) -> ApiError {
    ApiError::new(
        Code::BatchClosed,
        format!("batch {} is closed: no task can be added", batch.id),
    )
}

fn full(batch: &Batch) -> ApiError {
    let (id, most) = (batch.id, forebay_store::BATCH_TASKS_MAX);
    ApiError::new(
        Code::BatchTooLarge,
        format!("batch {id} would have more than {most} tasks"),
    )
}

fn reused(id: BatchId) -> ApiError {
    ApiError::new(
        Code::IdempotencyKeyReused,
        format!("the idempotency key was used for another request about batch {id}"),
    )
}

fn write_page(last: &Batch) -> String {
    let mut bytes = last.created_at.as_microsecond().to_be_bytes().to_vec();
    bytes.extend(last.id.as_uuid().as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn parse_page(token: &str) -> Result<BatchPage> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let parsed = bytes.and_then(|bytes| {
        let (at, id) = bytes.split_first_chunk::<8>()?;
        Some(BatchPage {
            created_at: from_unix_micros(i64::from_be_bytes(*at)),
            id: uuid::Uuid::from_slice(id).ok()?.into(),
        })
    });
    parsed.ok_or_else(bad_token)
}

fn parse_place(token: &str) -> Result<TaskId> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let id = bytes.and_then(|bytes| uuid::Uuid::from_slice(&bytes).ok());
    id.map(TaskId::from).ok_or_else(bad_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_one_that_was_given() {
        let at = Timestamp::UNIX_EPOCH;
        for bad in [
            "",
            "!",
            "AAAA",
            &URL_SAFE_NO_PAD.encode([1; 23]),
            &URL_SAFE_NO_PAD.encode([1; 25]),
        ] {
            assert_eq!(
                parse_page(bad).unwrap_err().code,
                Code::InvalidPageToken,
                "{bad:?}"
            );
            assert_eq!(
                parse_place(bad).unwrap_err().code,
                Code::InvalidPageToken,
                "{bad:?}"
            );
        }
        let id = TaskId::new(at, &[1; 10]);
        assert_eq!(
            parse_place(&URL_SAFE_NO_PAD.encode(id.as_uuid().as_bytes())).unwrap(),
            id
        );
    }
}
