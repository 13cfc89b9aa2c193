//! How far attempts are: said by their handlers at any time, handed on in batches.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use forebay_core::{TaskId, TaskProgress};
use forebay_store::ProgressNote;
use tokio::sync::Notify;

use super::Pulse;

/// How many attempts may have said something that is not handed on yet. What further ones say is not taken. There are as
/// many as the worker has slots, unless handlers leave something behind that goes on saying things.
const WAITING_MAX: usize = 65_536;

/// How many attempts that have ended may be left in the order, beside as many as wait.
const SPARE: usize = 1_024;

/// One start of one task.
type Start = (TaskId, u32);

/// Where a handler says how far it is. Cheap to clone; all clones speak for the same attempt.
#[derive(Clone)]
pub struct Progress {
    start: Start,
    board: Arc<Board>,
    pulse: Pulse,
}

impl Progress {
    /// One that nobody listens to: to try out a handler without a worker.
    #[must_use]
    pub fn new() -> Self {
        Self::of((TaskId::from_bytes([0; 16]), 0), Arc::default())
    }

    pub(crate) fn of(start: Start, board: Arc<Board>) -> Self {
        Self {
            start,
            board,
            pulse: Pulse::default(),
        }
    }

    /// As it is; what is said is heard by `pulse`, too.
    pub(crate) fn heard_by(self, pulse: Pulse) -> Self {
        Self { pulse, ..self }
    }

    /// The attempt is alive.
    pub(crate) fn beat(&self) {
        self.pulse.beat();
    }

    /// Says how much of the attempt is done, from 0 to 1, and what it is at; a message may be empty. Say it as often as
    /// you like: this never waits, and the latest word is stored with the task about once a second. It is shown with the
    /// task until its next attempt begins. What is said in the last moment of an attempt may be lost.
    ///
    /// A number out of bounds is taken as the nearest bound, no number as 0, and of a message longer than
    /// [`TaskProgress::MESSAGE_BYTES_MAX`] the beginning is kept.
    pub fn set(&self, fraction: f64, message: impl AsRef<str>) {
        let said = (
            TaskProgress::fraction(fraction),
            TaskProgress::message(message.as_ref()),
        );
        self.pulse.beat();
        self.board.say(self.start, said);
    }

    /// The fraction and the message that were said last, while they are not yet handed on.
    #[must_use]
    pub fn said(&self) -> Option<(f64, String)> {
        self.board.lock().said.get(&self.start).cloned()
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// What the attempts of a worker have said and nobody has handed on.
#[derive(Debug, Default)]
pub(crate) struct Board {
    waiting: Mutex<Waiting>,
    /// Whether anything waits: so that attempts that say nothing need not ask for the lock when they end.
    is_used: AtomicBool,
    news: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    said: HashMap<Start, (f64, String)>,
    /// The keys of `said` in the order in which they came, and some of attempts that have ended since.
    order: VecDeque<Start>,
}

impl Waiting {
    fn put(&mut self, start: Start, said: (f64, String), is_newer: bool) {
        let has_room = self.said.len() < WAITING_MAX;
        match self.said.entry(start) {
            Entry::Occupied(mut known) if is_newer => {
                known.insert(said);
            }
            Entry::Vacant(place) if has_room => {
                place.insert(said);
                self.order.push_back(start);
            }
            Entry::Occupied(_) | Entry::Vacant(_) => {}
        }
        if self.order.len() > 2 * self.said.len() + SPARE {
            self.order.retain(|start| self.said.contains_key(start));
        }
    }

    fn next(&mut self) -> Option<ProgressNote> {
        loop {
            let start = self.order.pop_front()?;
            if let Some((fraction, message)) = self.said.remove(&start) {
                let (id, fence) = start;
                return Some(ProgressNote {
                    id,
                    fence,
                    fraction,
                    message,
                });
            }
        }
    }
}

impl Board {
    fn say(&self, start: Start, said: (f64, String)) {
        let mut waiting = self.lock();
        waiting.put(start, said, true);
        self.note(&waiting);
        drop(waiting);
        self.news.notify_one();
    }

    /// Takes what was said, that of the first `max` attempts that are waiting.
    pub(crate) fn take(&self, max: usize) -> Vec<ProgressNote> {
        let mut waiting = self.lock();
        let taken = std::iter::from_fn(|| waiting.next()).take(max).collect();
        self.note(&waiting);
        taken
    }

    /// These could not be handed on. What was said since counts more.
    pub(crate) fn put_back(&self, notes: Vec<ProgressNote>) {
        let mut waiting = self.lock();
        for note in notes {
            waiting.put((note.id, note.fence), (note.fraction, note.message), false);
        }
        self.note(&waiting);
    }

    /// An attempt has ended: its word would be passed over.
    pub(crate) fn forget(&self, start: Start) {
        if self.is_used.load(Ordering::Acquire) {
            let mut waiting = self.lock();
            waiting.said.remove(&start);
            self.note(&waiting);
        }
    }

    /// Nothing of it is of use any more.
    pub(crate) fn clear(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting::default();
        self.note(&waiting);
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_used.load(Ordering::Acquire)
    }

    /// Waits until something was said since this was asked last.
    pub(crate) async fn wait(&self) {
        self.news.notified().await;
    }

    fn note(&self, waiting: &Waiting) {
        self.is_used.store(!waiting.said.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(n: u8) -> Start {
        (TaskId::from_bytes([n; 16]), 1)
    }

    fn fractions(notes: &[ProgressNote]) -> Vec<f64> {
        notes.iter().map(|note| note.fraction).collect()
    }

    #[test]
    fn the_latest_word_counts_whoever_says_it() {
        let progress = Progress::new();
        assert_eq!(progress.said(), None);
        progress.set(0.1, "a");
        let clone = progress.clone();
        let say = move || clone.set(7.0, String::from("b\0"));
        say();
        assert_eq!(progress.said(), Some((1.0, "b\u{fffd}".to_owned())));
        assert_eq!(fractions(&progress.board.take(10)), [1.0]);
        assert_eq!(progress.said(), None);
        assert!(progress.board.is_empty());
    }

    #[test]
    fn those_who_wait_longest_are_taken_first() {
        let board = Arc::new(Board::default());
        let say = |n: u8, fraction| Progress::of(start(n), Arc::clone(&board)).set(fraction, "");
        say(3, 0.3);
        say(1, 0.1);
        say(2, 0.2);
        say(3, 0.4);
        assert_eq!(fractions(&board.take(2)), [0.4, 0.1]);
        say(3, 0.5);
        assert_eq!(fractions(&board.take(2)), [0.2, 0.5]);
        assert_eq!(board.take(2), []);
    }

    #[test]
    fn what_was_not_handed_on_waits_again_unless_there_is_something_newer() {
        let board = Arc::new(Board::default());
        let say = |n: u8, fraction| Progress::of(start(n), Arc::clone(&board)).set(fraction, "");
        say(1, 0.1);
        say(2, 0.2);
        let taken = board.take(10);
        say(2, 0.9);
        board.put_back(taken);
        assert_eq!(fractions(&board.take(10)), [0.9, 0.1]);
        say(1, 0.3);
        board.clear();
        assert!(board.is_empty());
    }

    /// A flood of attempts that say something and end at once: it keeps nobody waiting, and leaves nothing behind.
    #[test]
    fn who_has_ended_is_forgotten() {
        let board = Board::default();
        let id = |n: usize| TaskId::from_bytes((n as u128).to_be_bytes());
        board.say((id(0), 1), (0.5, "lasts".to_owned()));
        for n in 1..10 * SPARE {
            board.say((id(n), 1), (1.0, String::new()));
            board.forget((id(n), 1));
            assert!(board.lock().order.len() <= 4 + SPARE);
        }
        board.say((id(1), 1), (0.25, "late".to_owned()));
        board.forget((id(2), 1));
        assert_eq!(fractions(&board.take(2)), [0.5, 0.25]);
        assert!(board.is_empty() && board.lock().order.is_empty());
        board.say((id(3), 1), (1.0, String::new()));
        assert!(!board.is_empty());
        board.forget((id(3), 1));
        assert!(board.is_empty());
        assert_eq!(board.take(1), []);
    }

    #[test]
    fn what_waits_is_bounded() {
        let board = Board::default();
        let id = |n: usize| TaskId::from_bytes((n as u128).to_be_bytes());
        for n in 0..WAITING_MAX + 10 {
            board.say((id(n), 1), (0.5, String::new()));
        }
        board.say((id(0), 1), (0.7, String::new()));
        let taken = board.take(usize::MAX);
        assert_eq!((taken.len(), taken[0].fraction), (WAITING_MAX, 0.7));
    }

    #[tokio::test]
    async fn who_waits_hears_of_what_was_said_before() {
        let progress = Progress::new();
        progress.set(0.5, "half");
        progress.board.wait().await;
    }
}
