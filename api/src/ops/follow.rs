//! Follows one task from state to state until it is final. What is heard makes it fast; what is read makes it true.

use std::time::Duration;

use forebay_core::{State, Task, TaskEvent, TaskId, TaskProgress, Timestamp, from_unix_micros};
use tokio::time::{Instant, sleep_until};

use crate::{
    App,
    error::Result,
    events::{News, Watch},
    ops,
    task::state_since,
};

/// The first look at the store after a step; each further one is twice as late.
const LOOK_FIRST: Duration = Duration::from_millis(50);

/// One step of a task.
#[derive(Debug)]
pub(crate) struct Step {
    /// Its place in the task's life.
    pub(crate) cursor: Cursor,
    /// The whole task, where it was read: on the first step, and on a final one.
    pub(crate) task: Option<Box<Task>>,
    /// How far it is, where that is all that changed. Its place is that of the step before.
    pub(crate) progress: Option<TaskProgress>,
}

/// Names a step to whoever resumes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) state: State,
    pub(crate) attempt: u32,
    pub(crate) at: Timestamp,
}

impl Cursor {
    /// Reads a cursor; `None` where it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let attempt = parts.next()?.parse().ok()?;
        let state = parts.next()?.parse().ok()?;
        let at = from_unix_micros(parts.next()?.parse().ok()?);
        Some(Self { state, attempt, at })
    }

    fn of(task: &Task) -> Self {
        Self {
            state: task.state,
            attempt: task.attempt,
            at: state_since(task),
        }
    }

    fn heard(event: &TaskEvent) -> Self {
        Self {
            state: event.state,
            attempt: event.attempt,
            at: event.at,
        }
    }

    fn is_same_step(&self, other: &Self) -> bool {
        (self.state, self.attempt) == (other.state, other.attempt)
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.attempt, self.state, self.at.as_microsecond())
    }
}

/// Follows a task.
#[derive(Debug)]
pub(crate) struct Follow {
    app: App,
    id: TaskId,
    watch: Watch,
    /// Read already and not yet told.
    first: Option<Box<Task>>,
    last: Option<Cursor>,
    /// What it said last of how far it is, of what was told.
    progress_at: Option<Timestamp>,
    look_at: Instant,
    pause: Duration,
    ended: bool,
}

impl Follow {
    /// Follows a task from where it stands; or, where `after` is its latest step, from the next one.
    pub(crate) async fn open(app: &App, id: TaskId, after: Option<Cursor>) -> Result<Self> {
        let watch = app.hub.watch(id);
        let task = ops::get::get(app, id).await?;
        let mut follow = Self::new(app, task.id, watch);
        let now = Cursor::of(&task);
        if after.is_some_and(|seen| seen.is_same_step(&now)) {
            follow.last = after;
            follow.ended = now.state.is_final();
        } else {
            follow.first = Some(Box::new(task));
        }
        Ok(follow)
    }

    /// Follows a task that was just accepted, from its next step on.
    pub(crate) fn accepted(app: &App, task: &Task) -> Self {
        let mut follow = Self::new(app, task.id, app.hub.watch(task.id));
        follow.last = Some(Cursor::of(task));
        follow
    }

    fn new(app: &App, id: TaskId, watch: Watch) -> Self {
        Self {
            app: app.clone(),
            id,
            watch,
            first: None,
            last: None,
            progress_at: None,
            look_at: Instant::now() + LOOK_FIRST,
            pause: LOOK_FIRST,
            ended: false,
        }
    }

    /// Whether nothing more is to come, and nothing came.
    pub(crate) fn is_over(&self) -> bool {
        self.ended
    }

    /// The next step; `None` after a final one, or when the process stops.
    pub(crate) async fn next(&mut self) -> Option<Step> {
        if let Some(task) = self.first.take() {
            return Some(self.step(Cursor::of(&task), Some(task)));
        }
        let stop = self.app.stop.clone();
        while !self.ended {
            let step = tokio::select! {
                () = stop.cancelled() => return None,
                Some(news) = self.watch.next() => match news {
                    News::Event(event) => self.hear(&event).await,
                    News::Progress => self.look().await,
                },
                () = sleep_until(self.look_at) => self.look().await,
            };
            if step.is_some() {
                return step;
            }
        }
        None
    }

    /// What is heard of a final state is not told until the store shows it, so that its result comes with it.
    async fn hear(&mut self, event: &TaskEvent) -> Option<Step> {
        let cursor = Cursor::heard(event);
        if cursor.state.is_final() {
            self.pause = LOOK_FIRST;
            return self.look().await;
        }
        let stale = self
            .last
            .is_some_and(|last| cursor.is_same_step(&last) || cursor.at < last.at);
        (!stale).then(|| self.step(cursor, None))
    }

    /// Looks at the store. An error is passed over: it is looked at again.
    async fn look(&mut self) -> Option<Step> {
        self.look_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(self.app.bounds.follow);
        let task = ops::once(&self.app, self.app.store.get(self.id)).await.ok()??;
        let cursor = Cursor::of(&task);
        match self.last {
            Some(last) if cursor.is_same_step(&last) => self.progress(last, task.progress),
            _ => Some(self.step(cursor, Some(Box::new(task)))),
        }
    }

    fn progress(&mut self, last: Cursor, progress: Option<TaskProgress>) -> Option<Step> {
        let is_news = |progress: &TaskProgress| self.progress_at != Some(progress.at);
        let progress = progress.filter(is_news)?;
        self.progress_at = Some(progress.at);
        Some(Step {
            cursor: last,
            task: None,
            progress: Some(progress),
        })
    }

    fn step(&mut self, cursor: Cursor, task: Option<Box<Task>>) -> Step {
        self.last = Some(cursor);
        if let Some(progress) = task.as_ref().and_then(|task| task.progress.as_ref()) {
            self.progress_at = Some(progress.at);
        }
        self.ended = cursor.state.is_final();
        self.pause = LOOK_FIRST;
        self.look_at = Instant::now() + self.pause;
        Step {
            cursor,
            task,
            progress: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_parses_back() {
        let cursor = Cursor {
            state: State::Running,
            attempt: 3,
            at: from_unix_micros(-5),
        };
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        for bad in ["", "1", "1.running", "x.running.5", "1.sleeping.5", "1.running.x"] {
            assert_eq!(Cursor::parse(bad), None, "{bad:?}");
        }
    }
}
