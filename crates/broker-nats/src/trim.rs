//! Forgetting what its reader has acknowledged.
//!
//! A consumer's *ack floor* is the number up to which it has acknowledged everything of its subject; that is the only
//! figure of a consumer that is safe to purge by (its counts run behind the stream's).

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use forebay_core::Lane;

use crate::{
    api::ApiError,
    topology::{Topology, lane_in, lane_of, lane_subject},
};

/// A purge to be made: of a subject, or of all, up to and including a message.
type Purge = (Option<String>, u64);

/// What trims.
#[derive(Default)]
pub(crate) struct Trimmer {
    /// Up to where the intake was purged last, to not ask for the same again.
    recorded: Mutex<u64>,
    /// The same of each subject of the lanes.
    done: Mutex<HashMap<Option<String>, u64>>,
}

impl Trimmer {
    /// Purges what may go.
    pub(crate) async fn trim(&self, topology: &Topology) -> Result<(), ApiError> {
        self.trim_intake(topology).await?;
        self.trim_lanes(topology).await
    }

    async fn trim_intake(&self, topology: &Topology) -> Result<(), ApiError> {
        let recorded = topology.recorded().await?;
        let done = *self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        // It also goes down, when the stream was made anew.
        if recorded > 0 && recorded != done {
            topology.purge(topology.intake(), None, recorded).await?;
            *self.recorded.lock().unwrap_or_else(PoisonError::into_inner) = recorded;
        }
        Ok(())
    }

    async fn trim_lanes(&self, topology: &Topology) -> Result<(), ApiError> {
        // In this order: a message that is newer than `last` may be missing in `subjects`, no older one can.
        let last = topology.last_ready().await?;
        let subjects = topology.ready_subjects().await?;
        if subjects.is_empty() {
            self.done.lock().unwrap_or_else(PoisonError::into_inner).clear();
            return Ok(());
        }
        let mut floors = HashMap::new();
        for consumer in topology.lane_consumers().await? {
            if let Some(lane) = lane_of(&consumer.name) {
                floors.insert(lane, consumer.ack_floor.stream_seq);
            }
        }
        for (subject, through) in self.news(plan(last, &subjects, &floors)) {
            topology
                .purge(topology.ready(), subject.as_deref(), through)
                .await?;
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

/// What may be purged. `last` is the number of the newest message before `subjects` was read, `floors` those of the
/// lanes. What nobody needs is dropped in one go, which is cheap; only beyond that it is picked out lane by lane.
fn plan(last: u64, subjects: &HashSet<String>, floors: &HashMap<Lane, u64>) -> Vec<Purge> {
    let mut lanes: Vec<(Lane, u64)> = subjects
        .iter()
        .filter_map(|subject| lane_in(subject))
        .map(|lane| {
            let floor = floors.get(&lane).copied().unwrap_or(0);
            (lane, floor)
        })
        .collect();
    lanes.sort_unstable();
    // What is of no lane is nobody's to read; it goes with what is around it.
    let lowest = lanes.iter().map(|(_, floor)| *floor).min().unwrap_or(0).min(last);
    let mut purges = vec![(None, lowest)];
    let beyond = lanes.into_iter().filter(|(_, floor)| *floor > lowest);
    purges.extend(beyond.map(|(lane, floor)| (Some(lane_subject(&lane)), floor)));
    purges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(lanes: &[(&str, Option<u64>)]) -> Vec<Purge> {
        let subjects = lanes.iter().map(|(lane, _)| format!("ready.{lane}")).collect();
        let floors = lanes
            .iter()
            .filter_map(|(lane, floor)| Some((lane.parse().unwrap(), (*floor)?)));
        plan(100, &subjects, &floors.collect())
    }

    fn only(lane: &str, through: u64) -> Purge {
        (Some(format!("ready.{lane}")), through)
    }

    #[test]
    fn what_every_lane_is_past_goes_at_once_and_the_rest_by_lane() {
        assert_eq!(planned(&[("q.default", Some(70))]), [(None, 70)]);
        assert_eq!(
            planned(&[("q.default", Some(70)), ("q.high", Some(40)), ("q.low", Some(90))]),
            [(None, 40), only("q.default", 70), only("q.low", 90)]
        );
    }

    #[test]
    fn a_lane_that_nobody_reads_yet_keeps_all_it_has() {
        assert_eq!(
            planned(&[("q.default", Some(70)), ("q.high", None)]),
            [(None, 0), only("q.default", 70)]
        );
    }

    /// A lane that had nothing when the subjects were read may have got something since.
    #[test]
    fn nothing_goes_at_once_that_is_newer_than_the_look_at_the_lanes() {
        assert_eq!(
            planned(&[("q.default", Some(170))]),
            [(None, 100), only("q.default", 170)]
        );
        assert_eq!(planned(&[]), [(None, 0)]);
    }
}
