use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::Pulse;

/// How much of a log is kept, in bytes.
const TAIL_BYTES_MAX: usize = 8 * 1024;

/// The end of what an attempt logged: the last 8 KiB. Cheap to clone; all clones write to the same tail.
#[derive(Clone, Default)]
pub struct LogTail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    pulse: Pulse,
}

impl LogTail {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty log; what is written to it is heard by `pulse`.
    pub(crate) fn heard_by(pulse: Pulse) -> Self {
        Self {
            pulse,
            ..Self::default()
        }
    }

    /// Appends bytes as they come, whole lines or not.
    pub fn write(&self, bytes: &[u8]) {
        self.pulse.beat();
        let kept = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        let mut tail = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        // Never more than the tail has: `kept` alone fits.
        let excess = (tail.len() + kept.len()).saturating_sub(TAIL_BYTES_MAX);
        tail.drain(..excess);
        tail.extend(kept);
    }

    /// Appends a line.
    pub fn line(&self, line: impl fmt::Display) {
        self.write(format!("{line}\n").as_bytes());
    }

    /// What is kept, as text: what is not UTF-8 is replaced. `None` where nothing was logged.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let mut tail = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.is_empty() {
            return None;
        }
        Some(String::from_utf8_lossy(tail.make_contiguous()).into_owned())
    }
}

impl fmt::Debug for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogTail")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end() {
        let log = LogTail::new();
        assert_eq!(log.text(), None);
        log.write(b"first ");
        let clone = log.clone();
        let write_second = move || clone.line("second");
        write_second();
        assert_eq!(log.text().unwrap(), "first second\n");
        log.write(&vec![b'x'; TAIL_BYTES_MAX - 3]);
        assert_eq!(log.text().unwrap().len(), TAIL_BYTES_MAX);
        assert!(log.text().unwrap().starts_with("nd\nxxx"));
        log.write(&vec![b'y'; 3 * TAIL_BYTES_MAX]);
        assert_eq!(log.text().unwrap(), "y".repeat(TAIL_BYTES_MAX));
    }

    #[test]
    fn a_character_cut_in_half_is_replaced() {
        let log = LogTail::new();
        log.write("ä".repeat(TAIL_BYTES_MAX / 2).as_bytes());
        log.write(b"x");
        assert!(log.text().unwrap().starts_with('\u{fffd}'));
    }
}
