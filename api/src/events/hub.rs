//! Hands what was heard to those in this process who wait for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use forebay_core::{TaskEvent, TaskId};
use tokio::sync::{broadcast, mpsc};

/// How far behind a listener may be before it misses events.
const LAG_MAX: usize = 4_096;
/// How many past events are kept for those who reconnect.
const RECENT_MAX: usize = 4_096;
/// How many events one watcher of a task may be behind. It looks at the store when it has missed any.
const WATCH_LAG_MAX: usize = 32;

/// What a listener hears.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    /// A task changed.
    Event(Arc<TaskEvent>),
    /// Nothing was heard for a while: an unknown number of events is missing here.
    Gap,
}

/// What a watcher of a task hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// It changed.
    Event(TaskEvent),
    /// It has said how far it is.
    Progress,
}

type Watchers = HashMap<TaskId, Vec<(u64, mpsc::Sender<News>)>>;

/// All listeners of this process.
#[derive(Debug)]
pub(crate) struct Hub {
    all: broadcast::Sender<Heard>,
    recent: Mutex<VecDeque<Arc<TaskEvent>>>,
    watchers: Mutex<(u64, Watchers)>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            all: broadcast::Sender::new(LAG_MAX),
            recent: Mutex::default(),
            watchers: Mutex::default(),
        }
    }
}

/// What names an event to every replica alike, so that a listener may go on at another one.
pub(crate) fn event_id(event: &TaskEvent) -> String {
    format!(
        "{}-{}-{}-{}",
        event.at.as_microsecond(),
        event.id,
        event.attempt,
        event.state
    )
}

impl Hub {
    /// Hands on what was heard.
    pub(crate) fn hear(&self, events: Vec<TaskEvent>) {
        for event in events {
            self.tell_watchers(event.id, || News::Event(event.clone()));
            let event = Arc::new(event);
            // Under one lock, so that a listener that resumes sees each event once.
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            if recent.len() >= RECENT_MAX {
                recent.pop_front();
            }
            recent.push_back(Arc::clone(&event));
            // Nobody listens: that is fine.
            let _ = self.all.send(Heard::Event(event));
        }
    }

    /// Hands on that these tasks have said how far they are.
    pub(crate) fn hear_progress(&self, ids: &[TaskId]) {
        for &id in ids {
            self.tell_watchers(id, || News::Progress);
        }
    }

    /// Says that nothing was heard for a while.
    pub(crate) fn gap(&self) {
        let _ = self.all.send(Heard::Gap);
    }

    /// Listens to everything from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Heard> {
        self.all.subscribe()
    }

    /// Listens to everything after the event that `last` names: what came since, and what is to come. `None` for
    /// what came since where that event is not known any more.
    pub(crate) fn resume(&self, last: &str) -> (Option<Vec<Arc<TaskEvent>>>, broadcast::Receiver<Heard>) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = self.all.subscribe();
        let at = recent.iter().rposition(|event| event_id(event) == last);
        let since = at.map(|at| recent.iter().skip(at + 1).cloned().collect());
        (since, listener)
    }

    /// Listens to one task, until the watch is dropped.
    pub(crate) fn watch(self: &Arc<Self>, id: TaskId) -> Watch {
        let (sender, events) = mpsc::channel(WATCH_LAG_MAX);
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.0 += 1;
        let number = watchers.0;
        watchers.1.entry(id).or_default().push((number, sender));
        Watch {
            hub: Arc::clone(self),
            id,
            number,
            events,
        }
    }

    fn tell_watchers(&self, id: TaskId, news: impl Fn() -> News) {
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, watcher) in watchers.1.get(&id).into_iter().flatten() {
            // A watcher that is behind looks at the store.
            let _ = watcher.try_send(news());
        }
    }

    fn forget(&self, id: TaskId, number: u64) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_task) = watchers.1.get_mut(&id) {
            of_task.retain(|(known, _)| *known != number);
            if of_task.is_empty() {
                watchers.1.remove(&id);
            }
        }
    }
}

/// Hears of one task.
#[derive(Debug)]
pub(crate) struct Watch {
    hub: Arc<Hub>,
    id: TaskId,
    number: u64,
    events: mpsc::Receiver<News>,
}

impl Watch {
    /// What is heard next of the task.
    pub(crate) async fn next(&mut self) -> Option<News> {
        self.events.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.hub.forget(self.id, self.number);
    }
}

#[cfg(test)]
mod tests {
    use forebay_core::{QueueName, State, Timestamp};

    use super::*;

    fn event(n: u8) -> TaskEvent {
        TaskEvent {
            id: TaskId::new(Timestamp::UNIX_EPOCH, &[n; 10]),
            kind: "echo".parse().unwrap(),
            queue: QueueName::default(),
            state: State::Queued,
            attempt: 0,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn a_watch_hears_of_its_task_only_and_leaves_nothing_behind() {
        let hub = Arc::new(Hub::default());
        let mut watch = hub.watch(event(1).id);
        hub.hear(vec![event(2), event(1)]);
        hub.hear_progress(&[event(2).id, event(1).id]);
        assert_eq!(watch.next().await, Some(News::Event(event(1))));
        assert_eq!(watch.next().await, Some(News::Progress));
        drop(watch);
        assert!(hub.watchers.lock().unwrap().1.is_empty());
    }

    #[test]
    fn resumes_after_the_event_that_was_seen() {
        let hub = Hub::default();
        hub.hear((0..5).map(event).collect());
        let (since, _listener) = hub.resume(&event_id(&event(2)));
        let ids: Vec<TaskId> = since.unwrap().iter().map(|event| event.id).collect();
        assert_eq!(ids, [event(3).id, event(4).id]);
        assert!(hub.resume("unheard of").0.is_none());
    }

    #[test]
    fn past_events_are_bounded() {
        let hub = Hub::default();
        for _ in 0..RECENT_MAX + 10 {
            hub.hear(vec![event(0)]);
        }
        assert_eq!(hub.recent.lock().unwrap().len(), RECENT_MAX);
    }
}
