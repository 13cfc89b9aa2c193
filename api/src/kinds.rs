//! The schemas of kinds as this replica knows them: read every second, and kept while the store is away.

use std::{
    collections::HashMap,
    fmt,
    panic::{UnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use forebay_core::{Kind, KindSchema, SchemaMode, Timestamp};
use forebay_schema::{Busy, Fault, Schema, Threads};

/// How many threads check payloads. Most kinds have no schema, and most checks are short.
const THREADS: usize = 2;
/// How many checks may wait for one of them.
const WAITING_MAX: usize = 1_000;
/// How often the log tells of payloads of a kind that do not fit and are accepted, in seconds.
const WARN_EVERY_SECONDS: i64 = 1;

/// A schema, ready to be used.
pub(crate) struct Ready {
    pub(crate) version: u32,
    pub(crate) mode: SchemaMode,
    /// `None` where this program can't use it, which another has taken: nothing is held against it then.
    schema: Option<Schema>,
    /// About how much memory it takes.
    bytes: u64,
    warned_at: AtomicI64,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Ready {
    /// Compiles a schema that was kept. Takes a while, and a large stack.
    pub(crate) fn of(kept: &KindSchema) -> Self {
        Self::compiled(kept, Schema::compile)
    }

    /// A schema that makes its compiler panic is one that can't be used, as well: a replica must not wait for it for ever.
    fn compiled(
        kept: &KindSchema,
        compile: impl FnOnce(&str) -> Result<Schema, Vec<Fault>> + UnwindSafe,
    ) -> Self {
        let text = kept.schema.as_str();
        let schema = catch_unwind(|| compile(text)).unwrap_or_else(|_| Err(Vec::new()));
        let schema = schema.map_err(|faults| {
            let fault = faults.first().map_or("a panic", |fault| fault.detail.as_str());
            tracing::error!(
                kind = %kept.kind, version = kept.version, fault, "a schema cannot be used here: payloads are accepted unchecked"
            );
        });
        Self {
            version: kept.version,
            mode: kept.mode,
            bytes: schema.as_ref().map_or(0, Schema::bytes),
            schema: schema.ok(),
            warned_at: AtomicI64::new(0),
        }
    }

    /// What of a payload does not fit.
    pub(crate) fn faults(&self, payload: &str) -> Vec<Fault> {
        let checked = self.schema.as_ref().map(|schema| schema.check(payload));
        checked.and_then(Result::err).unwrap_or_default()
    }

    /// Whether the log should hear of another payload that does not fit.
    pub(crate) fn may_warn(&self, now: Timestamp) -> bool {
        let (now, last) = (now.as_second(), self.warned_at.load(Ordering::Relaxed));
        let due = now.saturating_sub(last).saturating_abs() >= WARN_EVERY_SECONDS;
        due && self
            .warned_at
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

type ByKind = HashMap<Kind, Arc<Ready>>;

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    /// Whether any kind has one: all that most submissions ask.
    any: AtomicBool,
    by_kind: RwLock<Arc<ByKind>>,
    /// Whoever changes what is known, or what there is to know.
    pub(crate) changing: tokio::sync::Mutex<()>,
    threads: OnceLock<Option<Threads>>,
}

impl Schemas {
    /// Whether there is any schema at all.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    pub(crate) fn all(&self) -> Arc<ByKind> {
        Arc::clone(&self.by_kind.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The schema of a kind.
    pub(crate) fn of(&self, kind: &Kind) -> Option<Arc<Ready>> {
        self.all().get(kind).cloned()
    }

    /// About how much memory those of other kinds take.
    pub(crate) fn bytes_without(&self, kind: &Kind) -> u64 {
        let all = self.all();
        let others = all.iter().filter(|(other, _)| *other != kind);
        others.map(|(_, ready)| ready.bytes).sum()
    }

    pub(crate) fn set(&self, all: ByKind) {
        self.any.store(!all.is_empty(), Ordering::Relaxed);
        *self.by_kind.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
    }

    /// Does something that takes a while on a thread that is made for that. Nothing comes of the answer where the work
    /// panics.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<tokio::sync::oneshot::Receiver<T>, Busy> {
        let threads = self.threads.get_or_init(|| {
            let started = Threads::start(THREADS, WAITING_MAX);
            started
                .map_err(|error| tracing::error!(error = %error, "no threads for schemas"))
                .ok()
        });
        threads.as_ref().ok_or(Busy)?.run(work)
    }

    /// As [`Ready::of`].
    pub(crate) fn compile(
        &self,
        kept: KindSchema,
    ) -> Result<tokio::sync::oneshot::Receiver<Arc<Ready>>, Busy> {
        self.run(move || Arc::new(Ready::of(&kept)))
    }
}

#[cfg(test)]
mod tests {
    use forebay_core::Json;

    use super::*;

    #[test]
    fn a_schema_that_cannot_be_compiled_is_known_and_asks_for_nothing() {
        let kept = KindSchema {
            kind: "thumbnail".parse().unwrap(),
            version: 7,
            mode: SchemaMode::Enforce,
            schema: Json::parse(b"false").unwrap(),
            created_at: "2026-03-01T12:00:00Z".parse().unwrap(),
        };
        assert_eq!(Ready::of(&kept).faults("1").len(), 1);
        let panicked = Ready::compiled(&kept, |_| panic!("a test's"));
        let refused = Ready::compiled(&kept, |_| Err(Vec::new()));
        for ready in [panicked, refused] {
            assert_eq!((ready.version, ready.faults("1")), (7, Vec::new()));
        }
    }
}
