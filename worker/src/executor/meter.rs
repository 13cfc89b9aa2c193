use forebay_core::{Kind, QueueName};
use forebay_runtime::metrics::{KindMetrics, Metrics};

/// How many are remembered; then it begins anew.
const KNOWN_MAX: usize = 64;

/// Remembers the metrics of kinds, so that they need not be looked up by their labels for each task.
#[derive(Default)]
pub(super) struct Meter {
    /// The one used last is first: tasks of a kind come in rows.
    known: Vec<(QueueName, Kind, KindMetrics)>,
}

impl Meter {
    pub(super) fn of(&mut self, metrics: &Metrics, queue: &QueueName, kind: &Kind) -> &mut KindMetrics {
        let same = |(its_queue, its_kind, _): &(QueueName, Kind, KindMetrics)| {
            its_kind == kind && its_queue == queue
        };
        match self.known.iter().position(same) {
            Some(0) => {}
            Some(index) => self.known.swap(0, index),
            None => {
                if self.known.len() >= KNOWN_MAX {
                    self.known.clear();
                }
                let found = metrics.of_kind(queue, kind.as_str());
                self.known.push((queue.clone(), kind.clone(), found));
                let last = self.known.len() - 1;
                self.known.swap(0, last);
            }
        }
        &mut self.known[0].2
    }
}
