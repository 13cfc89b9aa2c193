//! Time, behind one module, so that the crate that provides it can be changed in one place.

use std::fmt;

pub use jiff::Timestamp;

/// Where a component reads the time from. Injected, so that tests can hold it.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The current time, in whole microseconds, which is what every store keeps.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        micros(Timestamp::now())
    }
}

/// Cuts a timestamp to whole microseconds: the resolution of the stores and of the wire.
#[must_use]
pub fn micros(at: Timestamp) -> Timestamp {
    from_unix_micros(at.as_microsecond())
}

/// The timestamp of `unix_micros`, held within the range that a timestamp can express.
#[must_use]
pub fn from_unix_micros(unix_micros: i64) -> Timestamp {
    let clamped = unix_micros.clamp(Timestamp::MIN.as_microsecond(), Timestamp::MAX.as_microsecond());
    Timestamp::from_microsecond(clamped).unwrap_or(Timestamp::UNIX_EPOCH)
}
