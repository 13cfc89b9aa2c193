//! The idempotency keys that this replica accepted in the last minute or so. Only a shortcut: it answers before
//! the recorder has written the row. Forgetting it costs an answer, never a task, since the store refuses a second
//! request under the same key in any case.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use forebay_core::{Fingerprint, Json, Submission, Task, TaskId, Timestamp};

/// How many keys are remembered.
const KEYS_MAX: usize = 10_000;
/// For how long, in seconds.
const SECONDS_MAX: i64 = 60;

/// What is known of a submission's key.
#[derive(Debug)]
pub(crate) enum Known {
    /// It names this task, and the request is the same.
    Same(Box<Task>),
    /// It names another request.
    Other,
    /// Not known here.
    Unsure,
}

/// What a request with an idempotency key names.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) id: TaskId,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) payload: Json,
    /// When the request came.
    pub(crate) at: Timestamp,
}

#[derive(Debug)]
struct Remembered {
    /// Without its payload, which the fingerprint stands for.
    task: Task,
    confirmed: bool,
}

/// The keys, oldest forgotten first.
#[derive(Debug, Default)]
pub(crate) struct RecentKeys {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<TaskId, Remembered>,
    order: VecDeque<TaskId>,
}

impl RecentKeys {
    /// What is known of the key of `submission`.
    pub(crate) fn find(&self, submission: &Submission) -> Known {
        let Some(fingerprint) = submission.fingerprint else {
            return Known::Unsure;
        };
        self.find_named(&Named {
            id: submission.id,
            fingerprint,
            payload: submission.payload.clone(),
            at: submission.created_at,
        })
    }

    /// The same, of what is not judged yet.
    pub(crate) fn find_named(&self, named: &Named) -> Known {
        let mut inner = self.lock();
        inner.forget_old(named.at.as_second());
        let mut ids = std::iter::once(named.id).chain(named.id.adjacent_windows());
        let Some(known) = ids.find_map(|id| inner.known.get(&id)) else {
            return Known::Unsure;
        };
        if known.task.fingerprint != Some(named.fingerprint) {
            return Known::Other;
        }
        if !known.confirmed {
            return Known::Unsure;
        }
        let mut task = known.task.clone();
        task.payload = named.payload.clone();
        Known::Same(Box::new(task))
    }

    /// The submission is handed to the broker next: from now on its key is taken.
    pub(crate) fn about_to_submit(&self, submission: &Submission) {
        if submission.fingerprint.is_none() {
            return;
        }
        let mut task = crate::task::accepted(submission);
        task.payload = Json::null();
        let mut inner = self.lock();
        if inner.known.contains_key(&task.id) {
            return;
        }
        if inner.order.len() >= KEYS_MAX {
            inner.forget_oldest();
        }
        inner.order.push_back(task.id);
        inner.known.insert(
            task.id,
            Remembered {
                task,
                confirmed: false,
            },
        );
    }

    /// The broker confirmed it.
    pub(crate) fn submitted(&self, id: TaskId) {
        if let Some(known) = self.lock().known.get_mut(&id) {
            known.confirmed = true;
        }
    }

    /// The broker did not take it.
    pub(crate) fn not_submitted(&self, id: TaskId) {
        let mut inner = self.lock();
        if inner.known.get(&id).is_some_and(|known| !known.confirmed) {
            inner.known.remove(&id);
            inner.order.retain(|other| *other != id);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.known.remove(&oldest);
        }
    }

    fn forget_old(&mut self, now: i64) {
        while let Some(known) = self.order.front().and_then(|id| self.known.get(id)) {
            if now - known.task.created_at.as_second() <= SECONDS_MAX {
                return;
            }
            self.forget_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_core::SubmitRequest;

    use super::*;

    fn submission(kind: &str, at: &str) -> Submission {
        let now: Timestamp = at.parse().unwrap();
        let request = SubmitRequest {
            kind: kind.into(),
            idempotency_key: Some("k".into()),
            ..SubmitRequest::default()
        };
        request.accept(now, &[0; 10]).unwrap()
    }

    #[test]
    fn a_key_is_taken_at_once_and_answers_once_confirmed() {
        let keys = RecentKeys::default();
        let first = submission("a", "2026-03-01T12:00:00Z");
        keys.about_to_submit(&first);
        assert!(matches!(keys.find(&first), Known::Unsure));
        assert!(matches!(
            keys.find(&submission("b", "2026-03-01T12:00:01Z")),
            Known::Other
        ));
        keys.submitted(first.id);
        let Known::Same(task) = keys.find(&submission("a", "2026-03-01T12:00:30Z")) else {
            panic!("forgot it");
        };
        assert_eq!(task.created_at, first.created_at);
        let late = submission("b", "2026-03-01T12:02:00Z");
        assert!(matches!(keys.find(&late), Known::Unsure));
    }

    #[test]
    fn a_key_is_known_across_midnight() {
        let keys = RecentKeys::default();
        let first = submission("a", "2026-03-01T23:59:59Z");
        keys.about_to_submit(&first);
        keys.submitted(first.id);
        let Known::Same(task) = keys.find(&submission("a", "2026-03-02T00:00:01Z")) else {
            panic!("a request repeated over midnight makes a second task");
        };
        assert_eq!(task.id, first.id);
        assert!(matches!(
            keys.find(&submission("b", "2026-03-02T00:00:01Z")),
            Known::Other
        ));
    }

    #[test]
    fn what_the_broker_refused_is_forgotten() {
        let keys = RecentKeys::default();
        let first = submission("a", "2026-03-01T12:00:00Z");
        keys.about_to_submit(&first);
        keys.not_submitted(first.id);
        let other = submission("b", "2026-03-01T12:00:01Z");
        assert!(matches!(keys.find(&other), Known::Unsure));
    }
}
