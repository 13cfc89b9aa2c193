//! When the faults were at work, and which of them a thing that happened is put down to.

use std::time::Duration;

use crate::evidence::{Injected, Moment};

/// The faults of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows<'a> {
    faults: &'a [Injected],
    aftermath: Duration,
}

impl<'a> Windows<'a> {
    /// A fault's window is from its beginning until `aftermath` after its end.
    pub(super) fn new(faults: &'a [Injected], aftermath: Duration) -> Self {
        Self { faults, aftermath }
    }

    /// The fault that explains why an execution that was under way since `since` was cut short at `at`: one in whose
    /// window that lies, and that can do such a thing. Of several, one that was not over before the execution was
    /// under way, that struck a worker, and that began last, in this order.
    pub(super) fn cause(&self, since: Moment, at: Moment) -> Option<usize> {
        (0..self.faults.len())
            .filter(|&it| self.holds(it, at) && can_interrupt(&self.faults[it].target))
            .max_by_key(|&it| {
                let fault = &self.faults[it];
                (fault.until >= since, fault.target.contains("worker"), fault.from)
            })
    }

    /// The fault that something else at `at` is put down to: of those in whose windows it lies, one that was not over,
    /// and that began last, in this order.
    pub(super) fn around(&self, at: Moment) -> Option<usize> {
        (0..self.faults.len())
            .filter(|&it| self.holds(it, at))
            .max_by_key(|&it| (self.faults[it].until >= at, self.faults[it].from))
    }

    fn holds(&self, index: usize, at: Moment) -> bool {
        let fault = &self.faults[index];
        fault.from <= at && at <= fault.until.saturating_add(self.aftermath)
    }
}

/// Whether a fault of this target may cut executions short. Workers hold them, and the database says who is alive. What
/// befalls the API, the dispatcher, the broker and the lines to it must not touch what already runs.
fn can_interrupt(target: &str) -> bool {
    let innocent = ["api", "dispatcher", "broker"];
    !innocent.iter().any(|it| target.starts_with(it)) && !target.ends_with("–broker")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(target: &str, from: u64, until: u64) -> Injected {
        let seconds = Duration::from_secs;
        Injected {
            fault: "kill -9".to_owned(),
            target: target.to_owned(),
            from: seconds(from),
            until: seconds(until),
            recovered: seconds(until),
        }
    }

    #[test]
    fn a_window_ends_with_the_aftermath() {
        let faults = [fault("worker", 10, 12)];
        let windows = Windows::new(&faults, Duration::from_secs(3));
        let cause = |milliseconds| windows.cause(Moment::ZERO, Duration::from_millis(milliseconds));
        assert_eq!(cause(9_999), None);
        assert_eq!(cause(10_000), Some(0));
        assert_eq!(cause(15_000), Some(0));
        assert_eq!(cause(15_001), None);
    }

    #[test]
    fn of_several_the_one_that_could_have_done_it_is_chosen() {
        let faults = [
            fault("worker", 1, 3),
            fault("worker", 10, 12),
            fault("Postgres", 11, 13),
            fault("Postgres", 14, 15),
        ];
        let windows = Windows::new(&faults, Duration::from_secs(20));
        let at = Duration::from_secs(16);
        assert_eq!(
            windows.cause(Duration::from_secs(5), at),
            Some(1),
            "it struck a worker"
        );
        assert_eq!(
            windows.cause(Duration::from_secs(13), at),
            Some(3),
            "the others were over"
        );
        assert_eq!(
            windows.cause(Duration::from_secs(2), at),
            Some(1),
            "it began last"
        );
    }

    #[test]
    fn what_cannot_touch_an_execution_explains_no_repetition() {
        for (target, explains) in [
            ("worker", true),
            ("Postgres", true),
            ("dev", true),
            ("worker–Postgres", true),
            ("everybody–Postgres", true),
            ("api", false),
            ("api–Postgres", false),
            ("dispatcher", false),
            ("dispatcher–Postgres", false),
            ("broker", false),
            ("worker–broker", false),
            ("everybody–broker", false),
        ] {
            let faults = [fault(target, 10, 12)];
            let windows = Windows::new(&faults, Duration::ZERO);
            let at = Duration::from_secs(11);
            assert_eq!(windows.cause(at, at).is_some(), explains, "{target}");
            assert_eq!(windows.around(at), Some(0), "{target}");
        }
    }

    #[test]
    fn other_things_are_put_down_to_a_fault_that_was_at_work() {
        let faults = [fault("broker", 10, 20), fault("api", 11, 12)];
        let windows = Windows::new(&faults, Duration::from_secs(5));
        let around = |seconds| windows.around(Duration::from_secs(seconds));
        assert_eq!(
            [9, 10, 12, 14, 22, 26].map(around),
            [None, Some(0), Some(1), Some(0), Some(0), None]
        );
    }
}
