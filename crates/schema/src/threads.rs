//! Where payloads are checked: on threads of their own, since a check may take a while, and may need a large stack.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use tokio::sync::oneshot;

/// The stack of each, of which only what is used takes memory. A schema may refer from part to part for each level of a
/// payload.
const STACK_BYTES: usize = 256 * 1024 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// There is no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// Threads that check payloads. They end when this is dropped, and all that was handed in is done.
#[derive(Debug)]
pub struct Threads {
    jobs: SyncSender<Job>,
}

impl Threads {
    /// Starts so many, for which so many jobs may wait.
    ///
    /// # Errors
    /// Where the system has no threads left.
    pub fn start(count: usize, waiting_max: usize) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(waiting_max);
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 0..count {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new()
                .name(format!("schemas-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || work(&waiting))?;
        }
        Ok(Self { jobs })
    }

    /// Hands a job in. Nothing comes of the answer where the job panics.
    ///
    /// # Errors
    /// Where too many wait.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Busy> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody waits for it any more.
            if !answer.is_closed() {
                let _ = answer.send(job());
            }
        });
        match self.jobs.try_send(job) {
            Ok(()) => Ok(answered),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Busy),
        }
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        // The next job is another one's. The panic is told by the hook, as any.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}
