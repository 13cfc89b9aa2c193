//! Every bound of the doors, by name.

use std::time::Duration;

/// How much may be under way, and how long anything may take.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Submissions at once, until the head of their answer is written; past it, 503. They have places of their own,
    /// so that no number of reads can keep tasks from being accepted.
    pub submissions: usize,
    /// Reads at once, until the head of their answer is written; past it, 503.
    pub reads: usize,
    /// Cancellations and retries at once; past it, 503.
    pub changes: usize,
    /// Submissions that wait for their task, fewer than there are places for submissions; past it, a request is
    /// answered without waiting.
    pub waits: usize,
    /// Open streams of events; past it, 503.
    pub streams: usize,
    /// Open streams of submissions; past it, 503.
    pub uploads: usize,
    /// Batches held in memory at once; past it, a batch waits, and is then answered 503.
    pub batches: usize,
    /// Looks at the store on behalf of idempotency keys at once; past it, they wait.
    pub lookups: usize,
    /// Connections of one door at once; past it, they wait to be accepted.
    pub connections: usize,
    /// The body of a single request, in bytes.
    pub body_bytes: usize,
    /// The body of a batch, in bytes.
    pub batch_bytes: usize,
    /// The items of a batch.
    pub batch_items: usize,
    /// One line of NDJSON, in bytes.
    pub line_bytes: usize,
    /// The lines of one NDJSON stream that are under way.
    pub lines: usize,
    /// The bytes of these lines.
    pub lines_bytes: usize,
    /// From a task's arrival to its confirmation.
    pub submit: Duration,
    /// The same, for the tasks of a batch or a stream, which wait in line.
    pub submit_patient: Duration,
    /// A look at the store on behalf of an idempotency key.
    pub lookup: Duration,
    /// Any other question to the store.
    pub read: Duration,
    /// Any question to the broker.
    pub ask: Duration,
    /// How long a read waits for a task that may not be recorded yet.
    pub recording: Duration,
    /// How long a connection may take to begin, and a client of the HTTP door to send the head of a request.
    pub head: Duration,
    /// How long a body may take to arrive; for NDJSON, how long it may be silent.
    pub body: Duration,
    /// The longest `Prefer: wait`.
    pub wait: Duration,
    /// Between keep-alive comments on an event stream.
    pub keep_alive: Duration,
    /// How often a followed task is looked at when nothing is heard of it.
    pub follow: Duration,
    /// The store's part of a count of the queues.
    pub count: Duration,
    /// How often the broker is looked after.
    pub collect: Duration,
    /// For how long counts are shown without counting again.
    pub fresh: Duration,
    /// How long a gRPC call without a deadline may take until its answer begins, its message's arrival included.
    pub call: Duration,
    /// How often a gRPC client is asked whether it lives.
    pub ping: Duration,
    /// After how long without an answer to that its connection is closed.
    pub pong: Duration,
    /// After how long a gRPC client is asked to connect anew, give or take a tenth; and how long a stream of `TaskService`
    /// may last.
    pub connection_age: Duration,
    /// How long requests have to finish when the process is to stop.
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            submissions: 2_048,
            reads: 1_024,
            changes: 256,
            waits: 1_024,
            streams: 1_024,
            uploads: 256,
            batches: 16,
            lookups: 32,
            connections: 16_384,
            body_bytes: 1024 * 1024,
            batch_bytes: 16 * 1024 * 1024,
            batch_items: 1_000,
            line_bytes: 512 * 1024,
            lines: 2_000,
            lines_bytes: 16 * 1024 * 1024,
            submit: Duration::from_secs(2),
            submit_patient: Duration::from_secs(10),
            lookup: Duration::from_millis(500),
            read: Duration::from_secs(5),
            ask: Duration::from_secs(2),
            recording: Duration::from_secs(2),
            head: Duration::from_secs(15),
            body: Duration::from_secs(30),
            wait: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            follow: Duration::from_secs(2),
            count: Duration::from_secs(2),
            collect: Duration::from_millis(1_500),
            fresh: Duration::from_secs(5),
            call: Duration::from_secs(60),
            ping: Duration::from_secs(30),
            pong: Duration::from_secs(20),
            connection_age: Duration::from_secs(3_600),
            drain: Duration::from_secs(15),
        }
    }
}
