//! Looks for the task that a unique one would be in conflict with, before it is accepted. Which of several is the one is
//! decided when they are recorded: what is not seen here, since the store is away, or since two come at once, is recorded
//! as cancelled. This look makes that rare, and gives an answer at once.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use forebay_core::{OnConflict, Project, State, Submission, Task, TaskId, Timestamp, UniqueMark};
use futures::future::join_all;
use tokio::time::timeout;

use crate::{
    App,
    error::{ApiError, Code, FieldError, Result},
    ops,
};

/// How many marks are remembered.
const MARKS_MAX: usize = 10_000;
/// For how long, in seconds.
const SECONDS_MAX: i64 = 60;
/// How much is told of the tasks of a batch.
const REFUSED_MAX: usize = 100;

/// What at most one task has, in its project.
pub(crate) type Mark = (Project, UniqueMark);

/// The mark that a task asks for.
pub(crate) fn mark_of(project: &Project, terms: Option<&forebay_core::Terms>) -> Option<Mark> {
    let unique = terms?.unique.as_ref()?;
    Some((project.clone(), unique.mark))
}

/// The task that stands for the submission, which is not accepted then.
///
/// # Errors
/// `unique_conflict`, where the submission asks to be refused, or to replace a task that runs.
pub(crate) async fn find(app: &App, submission: &Submission) -> Result<Option<Task>> {
    let Some(unique) = submission.terms.as_ref().and_then(|terms| terms.unique.as_ref()) else {
        return Ok(None);
    };
    let look = async {
        let _place = app.places.lookups.acquire().await.ok()?;
        match holder(app, submission, unique.mark).await {
            Ok(holder) => holder,
            Err(error) => {
                tracing::debug!(error = error.detail, "a unique task was not looked up");
                None
            }
        }
    };
    let Some(holder) = timeout(app.bounds.lookup, look).await.ok().flatten() else {
        return Ok(None);
    };
    // The same request again: its idempotency key says more.
    if holder.id == submission.id {
        return Ok(None);
    }
    match (unique.on_conflict, holder.state) {
        (OnConflict::Return, _) => Ok(Some(holder)),
        (OnConflict::Replace, State::Running) => {
            Err(conflict(holder.id, "runs already, so that it is not replaced"))
        }
        (OnConflict::Replace, _) => Ok(None),
        (OnConflict::Reject, state) if state.is_final() => {
            Err(conflict(holder.id, "is finished, but its window is not over"))
        }
        (OnConflict::Reject, _) => Err(conflict(holder.id, "is not finished")),
    }
}

/// As [`find`], for the tasks of a batch, which are accepted all or none: no other task can stand for one of them, so only
/// those are looked for that ask to be refused.
///
/// # Errors
/// `unique_conflict`, with all that would be refused.
pub(crate) async fn check_batch(app: &App, tasks: &[Submission]) -> Result<()> {
    let on_conflict = |task: &Submission| Some(task.terms.as_ref()?.unique.as_ref()?.on_conflict);
    let asking = tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| on_conflict(task).is_some_and(|on_conflict| on_conflict != OnConflict::Return));
    let looks = asking.map(|(index, task)| async move { (index, find(app, task).await.err()) });
    let refused = join_all(looks).await.into_iter().filter_map(|(index, error)| {
        Some(FieldError {
            pointer: format!("/tasks/{index}/unique"),
            detail: error?.detail,
        })
    });
    let refused: Vec<FieldError> = refused.take(REFUSED_MAX).collect();
    match refused.is_empty() {
        true => Ok(()),
        false => Err(ApiError::fields(Code::UniqueConflict, refused)),
    }
}

fn conflict(holder: TaskId, why: &str) -> ApiError {
    let detail = format!("task {holder} has the same unique key and {why}");
    ApiError::new(Code::UniqueConflict, detail)
}

async fn holder(app: &App, submission: &Submission, mark: UniqueMark) -> Result<Option<Task>> {
    let recorded = app.store.unique_holder(&submission.project, mark).await?;
    if recorded.is_some() {
        return Ok(recorded);
    }
    // Accepted here a moment ago, and perhaps not yet recorded.
    let mark = (submission.project.clone(), mark);
    let Some(latest) = app.marks.find(&mark, submission.created_at) else {
        return Ok(None);
    };
    let task = ops::get::get(app, latest).await?;
    Ok(Some(task).filter(|task| !task.state.is_final()))
}

/// The marks of tasks that this replica accepted in the last minute or so. Only a shortcut, as
/// [`super::recent::RecentKeys`] is.
#[derive(Debug, Default)]
pub(crate) struct RecentMarks {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    latest: HashMap<Mark, (TaskId, i64)>,
    /// In the order in which they came; a mark that has come again since is in here twice.
    order: VecDeque<(Mark, TaskId)>,
}

impl RecentMarks {
    /// The broker confirmed a task with this mark.
    pub(crate) fn submitted(&self, mark: Mark, id: TaskId, at: Timestamp) {
        let mut inner = self.lock();
        inner.forget_old(at.as_second());
        if inner.order.len() >= MARKS_MAX {
            inner.forget_oldest();
        }
        inner.order.push_back((mark.clone(), id));
        inner.latest.insert(mark, (id, at.as_second()));
    }

    /// The latest task with this mark.
    fn find(&self, mark: &Mark, now: Timestamp) -> Option<TaskId> {
        let mut inner = self.lock();
        inner.forget_old(now.as_second());
        inner.latest.get(mark).map(|(id, _)| *id)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget_oldest(&mut self) {
        if let Some((mark, id)) = self.order.pop_front()
            && self.latest.get(&mark).is_some_and(|(latest, _)| *latest == id)
        {
            self.latest.remove(&mark);
        }
    }

    fn forget_old(&mut self, now: i64) {
        while let Some((mark, id)) = self.order.front() {
            match self.latest.get(mark) {
                Some((latest, at)) if latest == id && now - at <= SECONDS_MAX => return,
                _ => self.forget_oldest(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_core::{Json, SubmitRequest, UniqueRequest};

    use super::*;

    fn mark(key: &str) -> Mark {
        let mut request = SubmitRequest {
            kind: "echo".to_owned(),
            payload: Some(Json::null()),
            ..SubmitRequest::default()
        };
        request.terms.unique = Some(UniqueRequest {
            key: Some(key.to_owned()),
            ..UniqueRequest::default()
        });
        let task = request.accept(Timestamp::UNIX_EPOCH, &[0; 10]).unwrap();
        mark_of(&task.project, task.terms.as_deref()).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn id(n: u128) -> TaskId {
        TaskId::from_bytes(n.to_be_bytes())
    }

    #[test]
    fn the_latest_counts_and_for_a_minute() {
        let marks = RecentMarks::default();
        assert_eq!(marks.find(&mark("a"), at(0)), None);
        marks.submitted(mark("a"), id(1), at(0));
        marks.submitted(mark("b"), id(2), at(10));
        marks.submitted(mark("a"), id(3), at(30));
        assert_eq!(marks.find(&mark("a"), at(61)), Some(id(3)));
        assert_eq!(marks.find(&mark("b"), at(70)), Some(id(2)));
        assert_eq!(marks.find(&mark("b"), at(71)), None);
        assert_eq!(marks.find(&mark("a"), at(91)), None);
        assert!(marks.lock().order.is_empty() && marks.lock().latest.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let marks = RecentMarks::default();
        let first = mark("first");
        marks.submitted(first.clone(), id(0), at(0));
        for n in 0..MARKS_MAX {
            marks.submitted(mark(&n.to_string()), id(n as u128), at(0));
        }
        assert_eq!(marks.lock().order.len(), MARKS_MAX);
        assert_eq!(marks.find(&first, at(0)), None);
        assert_eq!(marks.find(&mark("0"), at(0)), Some(id(0)));
    }
}
