//! Drives a circuit: lets calls through or refuses them, notices silence, and probes while there is doubt.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    circuit::{Change, Circuit, Refusal, State},
    metrics::Metrics,
    supervise::random_unit,
};

/// After so long without any answer, while a call waits for one, a probe finds out whether the dependency hangs.
const SILENCE: Duration = Duration::from_millis(300);
/// How long a probe may take while calls go through. With [`SILENCE`] it bounds how long the first calls of an outage
/// wait.
const PROBE_TIME_MAX: Duration = Duration::from_millis(1_500);
/// How long it may take while they are refused, when nobody waits for it: enough for a new connection over a slow
/// link, so that the return is found there, too.
const OPEN_PROBE_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a call was not made, or was given up: its dependency has not answered for a while. Says nothing about
/// what the call asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// Who is away: "the database", "the broker".
    pub what: &'static str,
    /// How long ago it answered last.
    pub silent: Duration,
    /// When it is asked again; zero where that is under way.
    pub retry_in: Duration,
    /// Whether the call was made, and given up: it may have had its effect.
    pub asked: bool,
    /// What the last probe failed by; empty where it did not say.
    pub trouble: String,
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, silent) = (self.what, self.silent.as_secs_f64());
        write!(f, "{what} has not answered for {silent:.1} s")?;
        match self.trouble.as_str() {
            "" => f.write_str("; ")?,
            trouble => write!(f, " ({trouble}); ")?,
        }
        match self.retry_in {
            Duration::ZERO => f.write_str("it is being tried now"),
            wait => write!(f, "next try in {:.1} s", wait.as_secs_f64()),
        }
    }
}

impl std::error::Error for Away {}

/// What a call's outcome says about its dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered, be it with a refusal.
    Answered,
    /// It could not be reached, or did not answer in time.
    Failed,
    /// Nothing.
    Unknown,
}

/// Asks the dependency whether it is there; an error is the text of what failed.
pub type Probe = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Stands in front of one dependency.
pub struct Guard {
    shared: Arc<Shared>,
}

struct Shared {
    dependency: &'static str,
    what: &'static str,
    probe: Probe,
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
    /// Counts the openings, to those who wait for an answer.
    openings: watch::Sender<u64>,
}

struct Inner {
    circuit: Circuit,
    /// Whether a probe is under way, or waits for its time.
    probing: bool,
    /// What the last probe failed by; empty while the circuit is closed, and where a probe was just not answered.
    trouble: String,
}

impl Guard {
    /// A guard of the `dependency`, as metrics and logs call it; errors call it `what`.
    #[must_use]
    pub fn new(dependency: &'static str, what: &'static str, metrics: Arc<Metrics>, probe: Probe) -> Self {
        metrics.circuit(dependency, State::Closed);
        let shared = Shared {
            dependency,
            what,
            probe,
            metrics,
            inner: Mutex::new(Inner {
                circuit: Circuit::new(now()),
                probing: false,
                trouble: String::new(),
            }),
            openings: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Where the circuit stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.lock().circuit.state()
    }

    /// Makes a call, unless the circuit is open; gives it up where the circuit opens meanwhile, and it takes `grace`
    /// longer still. That is no more than a timeout is to the caller: the call may have had its effect.
    ///
    /// # Errors
    /// [`Away`], where the call was not made or was given up.
    pub async fn call<T>(
        &self,
        grace: Duration,
        call: impl Future<Output = T>,
        judge: impl FnOnce(&T) -> Verdict,
    ) -> Result<T, Away> {
        let mut openings = self.shared.admit()?;
        let opened = async {
            // The sender is ours, so this ends with an opening only.
            let _ = openings.changed().await;
            sleep(grace).await;
        };
        tokio::select! {
            biased;
            result = self.shared.watched(call) => {
                self.shared.note(judge(&result));
                Ok(result)
            }
            () = opened => Err(self.shared.given_up()),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard({}: {:?})", self.shared.dependency, self.state())
    }
}

/// By the runtime's clock, so that tests can advance it.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Shared {
    /// Waits for a call, and doubts the dependency when nothing at all is answered for long.
    async fn watched<T>(self: &Arc<Self>, call: impl Future<Output = T>) -> T {
        let mut call = std::pin::pin!(call);
        let mut look_at = Instant::now() + SILENCE;
        loop {
            tokio::select! {
                biased;
                result = &mut call => return result,
                () = sleep_until(look_at) => {
                    look_at = Instant::now() + SILENCE;
                    if self.lock().circuit.is_silent(now(), SILENCE) {
                        self.doubt();
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out what tells of the openings from now on. Under the lock, so that none from before is among them.
    fn admit(&self) -> Result<watch::Receiver<u64>, Away> {
        let inner = self.lock();
        match inner.circuit.admit(now()) {
            Ok(()) => Ok(self.openings.subscribe()),
            Err(refusal) => Err(self.away(refusal, &inner)),
        }
    }

    fn away(&self, refusal: Refusal, inner: &Inner) -> Away {
        Away {
            what: self.what,
            silent: refusal.silent,
            retry_in: refusal.retry_in,
            asked: false,
            trouble: inner.trouble.clone(),
        }
    }

    /// The circuit opened, and may be closed again by now.
    fn given_up(&self) -> Away {
        let nothing = Refusal {
            silent: Duration::ZERO,
            retry_in: Duration::ZERO,
        };
        let inner = self.lock();
        let refusal = inner.circuit.admit(now()).err().unwrap_or(nothing);
        Away {
            asked: true,
            ..self.away(refusal, &inner)
        }
    }

    /// Applies what happened, and tells of what it changed.
    fn apply(&self, event: impl FnOnce(&mut Circuit) -> Option<Change>) {
        let (change, trouble) = {
            let mut inner = self.lock();
            let before = inner.circuit.state();
            let change = event(&mut inner.circuit);
            if inner.circuit.state() != before {
                // Under the lock, so that the metric ends up as the circuit does.
                self.metrics.circuit(self.dependency, inner.circuit.state());
            }
            match change {
                // Under the lock, so that it reaches the calls that were let in before, and no other.
                Some(Change::Opened { .. }) => self.openings.send_modify(|count| *count += 1),
                Some(Change::Closed { .. }) => inner.trouble.clear(),
                None => {}
            }
            (change, inner.trouble.clone())
        };
        let dependency = self.dependency;
        match change {
            None => {}
            Some(Change::Opened { again }) => {
                if again {
                    tracing::debug!(dependency, "the circuit is open again");
                } else {
                    tracing::warn!(
                        dependency,
                        error = trouble,
                        "the circuit is open: it does not answer, and calls are refused at once"
                    );
                }
            }
            Some(Change::Closed { after, again }) => {
                let seconds = after.as_secs_f64();
                if again {
                    tracing::debug!(dependency, seconds, "the circuit is closed again");
                } else {
                    tracing::info!(dependency, seconds, "the circuit is closed: it answers again");
                }
            }
        }
    }

    fn note(self: &Arc<Self>, verdict: Verdict) {
        match verdict {
            Verdict::Answered => self.apply(|circuit| circuit.answered(now())),
            Verdict::Failed => {
                self.apply(|circuit| circuit.failed(now(), random_unit()));
                self.doubt();
            }
            Verdict::Unknown => {}
        }
    }

    /// Probes, unless that was done a moment ago; an open circuit is probed in any case.
    fn doubt(self: &Arc<Self>) {
        let doubtful = {
            let mut inner = self.lock();
            inner.circuit.doubt(now()) || inner.circuit.state() != State::Closed
        };
        if doubtful {
            self.start_probing();
        }
    }

    fn start_probing(self: &Arc<Self>) {
        if !std::mem::replace(&mut self.lock().probing, true) {
            tokio::spawn(probe(Arc::downgrade(self)));
        }
    }

    /// Asks the dependency, and waits for as long as a probe may take. One who is silent is asked anew meanwhile: what
    /// was asked on a connection that died is never answered.
    async fn ask(&self) -> Result<(), String> {
        let mut answers = FuturesUnordered::new();
        let began = Instant::now();
        let mut ask_at = began;
        loop {
            if ask_at <= Instant::now() {
                answers.push(AssertUnwindSafe((self.probe)()).catch_unwind());
                ask_at += PROBE_TIME_MAX;
            }
            match timeout(SILENCE, answers.next()).await {
                Ok(Some(Ok(Err(_)) | Err(_))) if !answers.is_empty() => {}
                Ok(answer) => return answer.and_then(Result::ok).unwrap_or_else(|| Err(String::new())),
                Err(_) if began.elapsed() >= self.probe_time_max() => return Err(String::new()),
                Err(_) => {}
            }
        }
    }

    /// Changes while a probe is under way, where calls open the circuit or close it.
    fn probe_time_max(&self) -> Duration {
        match self.lock().circuit.state() {
            State::Closed => PROBE_TIME_MAX,
            State::HalfOpen | State::Open => OPEN_PROBE_TIME_MAX,
        }
    }

    /// Whether there is nothing to find out any more.
    fn settled(&self) -> bool {
        let mut inner = self.lock();
        let settled = inner.circuit.state() == State::Closed;
        inner.probing = !settled;
        if settled {
            inner.trouble.clear();
        }
        settled
    }
}

/// Probes until the dependency answers, or nobody guards it any more.
async fn probe(guarded: Weak<Shared>) {
    loop {
        let Some(wait) = guarded
            .upgrade()
            .map(|shared| shared.lock().circuit.until_probe(now()))
        else {
            return;
        };
        sleep(wait).await;
        let Some(shared) = guarded.upgrade() else { return };
        shared.apply(|circuit| {
            circuit.probe_begins();
            None
        });
        match shared.ask().await {
            Ok(()) => shared.apply(|circuit| circuit.probe_answered(now())),
            Err(trouble) => {
                shared.lock().trouble = trouble;
                shared.apply(|circuit| circuit.probe_failed(now(), random_unit()));
            }
        }
        if shared.settled() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
