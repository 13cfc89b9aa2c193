//! Forgetting what every reader has acknowledged.
//!
//! A consumer's *ack floor* is the number up to which it has acknowledged everything of its subjects; that is the
//! only figure of a consumer that is safe to purge by (its counts run behind the stream's).
//!
//! A purge must be careful with servers before 2.15.1: they move a consumer that has the purged subject among its
//! filters to the first message that is left of that subject, and so past what its other filters still hold.
//! Therefore a lane is purged as `*.<queue>.<priority>`, which covers all that its consumer reads.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use forebay_core::Lane;

use crate::{
    api::ApiError,
    topology::{RECORDER, Topology, lane_of},
};

/// A purge to be made: of a subject, up to and including a message.
type Purge = (String, u64);

/// What trims.
#[derive(Default)]
pub(crate) struct Trimmer {
    /// Up to where each subject was purged last, to not ask for the same again.
    done: Mutex<HashMap<String, u64>>,
}

impl Trimmer {
    /// Purges what may go.
    pub(crate) async fn trim(&self, topology: &Topology) -> Result<(), ApiError> {
        // In this order: a message that is newer than `last` may be missing in `subjects`, no older one can.
        let last = topology.last_seq().await?;
        let subjects = topology.subjects().await?;
        if subjects.is_empty() {
            self.done.lock().unwrap_or_else(PoisonError::into_inner).clear();
            return Ok(());
        }
        let mut recorded = 0;
        let mut floors = HashMap::new();
        for consumer in topology.consumers().await? {
            match lane_of(&consumer.name) {
                Some(lane) => {
                    floors.insert(lane, consumer.ack_floor.stream_seq);
                }
                None if consumer.name == RECORDER => recorded = consumer.ack_floor.stream_seq,
                None => {}
            }
        }
        for (subject, through) in self.news(plan(last, &subjects, recorded, &floors)) {
            topology.purge(&subject, through).await?;
            self.done
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(subject, through);
        }
        Ok(())
    }

    /// Leaves out what was purged before. A floor may also go down, when the stream was made anew.
    fn news(&self, purges: Vec<Purge>) -> Vec<Purge> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        purges
            .into_iter()
            .filter(|(subject, through)| *through > 0 && done.get(subject) != Some(through))
            .collect()
    }
}

/// What may be purged. `last` is the number of the newest message before `subjects` was read, `recorded` the
/// recorder's floor, `floors` those of the lanes.
fn plan(last: u64, subjects: &HashSet<String>, recorded: u64, floors: &HashMap<Lane, u64>) -> Vec<Purge> {
    let mut lanes: Vec<Lane> = subjects.iter().filter_map(|subject| lane_in(subject)).collect();
    lanes.sort_unstable();
    lanes.dedup();
    let mut purges = Vec::new();
    for lane in lanes {
        let has = |verb: &str| subjects.contains(&format!("{verb}.{lane}"));
        if has("park") {
            purges.push((format!("park.{lane}"), recorded));
        }
        if !(has("submit") || has("ready")) {
            continue;
        }
        // Where nothing up to `last` is the recorder's, it has no say up to there.
        let recorded = if has("submit") || has("park") {
            recorded
        } else {
            last.max(recorded)
        };
        let delivered = floors.get(&lane).copied().unwrap_or(0);
        purges.push((format!("*.{lane}"), delivered.min(recorded)));
    }
    purges
}

fn lane_in(subject: &str) -> Option<Lane> {
    let (_, lane) = subject.split_once('.')?;
    lane.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(subjects: &[&str], recorded: u64, delivered: Option<u64>) -> Vec<Purge> {
        let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        let floors = delivered.map(|floor| ("q.default".parse().unwrap(), floor));
        plan(100, &subjects, recorded, &floors.into_iter().collect())
    }

    #[test]
    fn a_submission_stays_until_both_readers_have_acknowledged_it() {
        let subjects = ["submit.q.default", "ready.q.default"];
        assert_eq!(planned(&subjects, 5, Some(7)), [("*.q.default".to_owned(), 5)]);
        assert_eq!(planned(&subjects, 9, Some(7)), [("*.q.default".to_owned(), 7)]);
        assert_eq!(planned(&subjects, 9, None), [("*.q.default".to_owned(), 0)]);
    }

    #[test]
    fn what_is_ready_does_not_wait_for_a_recorder_that_does_not_read_it() {
        assert_eq!(
            planned(&["ready.q.default"], 5, Some(70)),
            [("*.q.default".to_owned(), 70)]
        );
        assert_eq!(
            planned(&["ready.q.default"], 5, Some(170)),
            [("*.q.default".to_owned(), 100)]
        );
    }

    #[test]
    fn what_is_parked_does_not_wait_for_a_lane_that_does_not_read_it() {
        assert_eq!(
            planned(&["park.q.default"], 5, None),
            [("park.q.default".to_owned(), 5)]
        );
    }
}
