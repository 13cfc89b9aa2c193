//! How much, and how long.

use std::time::Duration;

/// The bounds of a scaler.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at once. Further ones wait to be accepted.
    pub connections: usize,
    /// Streams at once, of all connections. Further ones are refused. One for each ScaledObject is needed.
    pub streams: usize,
    /// How long a call may wait for the figures: a little longer than they take to say that they are not known. KEDA waits
    /// for 3 s.
    pub answer: Duration,
    /// How often a stream looks by itself, for when no event tells of a task.
    pub poll: Duration,
    /// The least time between two `true` of a stream, each of which makes KEDA write to its ScaledObject.
    pub quiet: Duration,
    /// After this long, give or take a tenth, a stream ends with OK, so that its caller opens another, maybe elsewhere.
    pub stream_age: Duration,
    /// After this long a connection takes no more calls, so that its caller opens another and asks DNS again. What
    /// is under way on it goes on.
    pub connection_age: Duration,
    /// How long calls may take to end once the process is to stop.
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1_024,
            streams: 1_024,
            answer: Duration::from_millis(2_500),
            poll: Duration::from_secs(1),
            quiet: Duration::from_secs(5),
            stream_age: Duration::from_secs(30 * 60),
            connection_age: Duration::from_secs(10 * 60),
            drain: Duration::from_secs(5),
        }
    }
}
