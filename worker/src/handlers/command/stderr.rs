//! What a program writes to stderr: its log, and, on lines of their own, how far it is.

use std::borrow::Cow;

use crate::handlers::{LogTail, Progress};

/// What a line begins with that says how far the program is.
const MARK: &[u8] = b"forebay-progress:";

/// No such line is longer, in bytes.
const LINE_BYTES_MAX: usize = 1_024;

/// Takes what a program writes as it comes, in pieces of any length.
pub(super) struct Stderr<'a> {
    log: &'a LogTail,
    progress: &'a Progress,
    /// The beginning of a line that may yet say how far the program is.
    held: Vec<u8>,
    /// Whether the present line is known to belong to the log.
    is_plain: bool,
}

impl<'a> Stderr<'a> {
    pub(super) fn new(log: &'a LogTail, progress: &'a Progress) -> Self {
        Self {
            log,
            progress,
            held: Vec::new(),
            is_plain: false,
        }
    }

    /// The next piece.
    pub(super) fn take(&mut self, chunk: &[u8]) {
        // From here on it is not yet in the log; most of it goes there in one.
        let mut plain = 0;
        let mut at = 0;
        while at < chunk.len() {
            let length = chunk[at..].iter().position(|&byte| byte == b'\n');
            let end = length.map_or(chunk.len(), |length| at + length + 1);
            let part = &chunk[at..end];
            if self.is_plain || (self.held.is_empty() && !may_be_progress(part)) {
                self.is_plain = length.is_none();
            } else {
                self.write(&chunk[plain..at]);
                plain = end;
                self.hold(part, length.is_some());
            }
            at = end;
        }
        self.write(&chunk[plain..]);
    }

    /// There is no more to come.
    pub(super) fn finish(mut self) {
        self.settle();
    }

    fn hold(&mut self, part: &[u8], is_whole: bool) {
        self.held.extend_from_slice(part);
        if is_whole {
            self.settle();
        } else if self.held.len() > LINE_BYTES_MAX || !may_be_progress(&self.held) {
            self.log.write(&self.held);
            self.held.clear();
            self.is_plain = true;
        }
    }

    /// The line that is held is whole.
    fn settle(&mut self) {
        match parse(&self.held) {
            Some((fraction, message)) => self.progress.set(fraction, message),
            None => self.write(&self.held),
        }
        self.held.clear();
    }

    fn write(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.log.write(bytes);
        }
    }
}

/// Whether a line that begins so may say how far the program is.
fn may_be_progress(start: &[u8]) -> bool {
    let length = start.len().min(MARK.len());
    start[..length] == MARK[..length]
}

/// The fraction and the message of a line that says how far the program is. Any other is for the log, one whose number
/// makes no sense as well: there its author finds it.
fn parse(line: &[u8]) -> Option<(f64, Cow<'_, str>)> {
    let said = line.strip_prefix(MARK)?.trim_ascii();
    if line.len() > LINE_BYTES_MAX {
        return None;
    }
    let length = said.iter().position(u8::is_ascii_whitespace);
    let (number, message) = said.split_at(length.unwrap_or(said.len()));
    let fraction: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    let message = String::from_utf8_lossy(message.trim_ascii_start());
    fraction.is_finite().then_some((fraction, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log, and what was said last, of a text that comes in pieces of `size`.
    fn read(text: &[u8], size: usize) -> (Option<String>, Option<(f64, String)>) {
        let (log, progress) = (LogTail::new(), Progress::new());
        let mut stderr = Stderr::new(&log, &progress);
        text.chunks(size).for_each(|chunk| stderr.take(chunk));
        stderr.finish();
        (log.text(), progress.said())
    }

    fn said(fraction: f64, message: &str) -> Option<(f64, String)> {
        Some((fraction, message.to_owned()))
    }

    #[test]
    fn lines_are_told_apart_however_they_are_cut() {
        let text = b"one\nforebay-progress: 0.25\ntwo\n\nforebay-\nforebay-progress:0.5  half of it \r\n\
                     for three\nnot forebay-progress: 1";
        let log = "one\ntwo\n\nforebay-\nfor three\nnot forebay-progress: 1";
        for size in 1..=text.len() {
            let expected = (Some(log.to_owned()), said(0.5, "half of it"));
            assert_eq!(read(text, size), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_need_not_be_ended() {
        assert_eq!(read(b"forebay-progress: 1 done", 5), (None, said(1.0, "done")));
        assert_eq!(read(b"a\nforebay-prog", 5).0.as_deref(), Some("a\nforebay-prog"));
    }

    #[test]
    fn what_makes_no_sense_is_kept_in_the_log() {
        let long = format!("forebay-progress: 0.5 {}\n", "x".repeat(LINE_BYTES_MAX));
        for text in [
            "forebay-progress:\n",
            "forebay-progress: half\n",
            "forebay-progress: 50% of it\n",
            "forebay-progress: nan\n",
            "Forebay-Progress: 0.5\n",
            " forebay-progress: 0.5\n",
            &long,
        ] {
            for size in [1, 7, 16 * 1_024] {
                assert_eq!(
                    read(text.as_bytes(), size),
                    (Some(text.to_owned()), None),
                    "{size}"
                );
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_harm_nothing() {
        assert_eq!(
            read(b"\xff\n\xfeforebay-progress: 1\nforebay-progress: 0.5 \xff!\n", 3),
            (
                Some("\u{fffd}\n\u{fffd}forebay-progress: 1\n".to_owned()),
                said(0.5, "\u{fffd}!")
            )
        );
    }
}
