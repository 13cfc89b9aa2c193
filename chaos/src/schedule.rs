//! Which faults strike, in which order, whom, for how long, and which of them overlap.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::faults::Fault;

/// How often a fault begins while the one before is still held, where they suit each other.
const OVERLAPS: f64 = 0.5;

/// One fault to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    /// Which process of its role it strikes.
    pub(crate) victim: usize,
    /// How long it waits after the group has begun.
    pub(crate) after: Duration,
    /// For how long it is held.
    pub(crate) hold: Duration,
}

/// What strikes together: one fault, or two that overlap.
pub(crate) type Group = Vec<Planned>;

/// Plans `count` faults of `table`, for roles with so many processes each. Each entry has come before one comes twice.
pub(crate) fn plan(table: &[Fault], count: usize, processes: usize, seed: u64) -> Vec<Group> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut order: Vec<Fault> = Vec::with_capacity(count);
    while order.len() < count && !table.is_empty() {
        let mut round = table.to_vec();
        round.shuffle(&mut rng);
        round.truncate(count - order.len());
        order.extend(round);
    }
    let mut groups: Vec<Group> = Vec::new();
    for fault in order {
        let mut planned = Planned {
            fault,
            victim: rng.random_range(0..processes.max(1)),
            after: Duration::ZERO,
            hold: fault.hold(&mut rng),
        };
        match groups.last_mut() {
            Some(group) if group.len() == 1 && rng.random_bool(OVERLAPS) && suits(&group[0], &planned) => {
                planned.after = group[0].hold.mul_f64(rng.random_range(0.1..0.9));
                group.push(planned);
            }
            _ => groups.push(vec![planned]),
        }
    }
    groups
}

fn suits(one: &Planned, other: &Planned) -> bool {
    one.fault.suits(one.victim, &other.fault, other.victim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, faults};

    #[test]
    fn each_fault_comes_before_one_comes_twice() {
        let table = faults::table(Backend::Nats);
        for count in [table.len(), table.len() + 10, 3 * table.len()] {
            let flat: Vec<Fault> = plan(&table, count, 2, 7)
                .concat()
                .iter()
                .map(|p| p.fault)
                .collect();
            assert_eq!(flat.len(), count);
            for fault in &table {
                let times = flat.iter().filter(|f| *f == fault).count();
                assert!(times >= count / table.len(), "{fault:?} comes {times} times");
            }
        }
        assert_eq!(plan(&table, 8, 2, 7).concat().len(), 8);
        assert!(plan(&[], 8, 2, 7).is_empty());
    }

    #[test]
    fn about_a_third_overlap_and_only_what_suits() {
        let table = faults::table(Backend::Nats);
        let groups = plan(&table, 1_000, 2, 11);
        let pairs: Vec<&Group> = groups.iter().filter(|group| group.len() == 2).collect();
        assert!(
            (250..400).contains(&pairs.len()),
            "{} of 1000 overlap with the next",
            pairs.len()
        );
        for pair in pairs {
            assert!(suits(&pair[0], &pair[1]), "{pair:?}");
            assert!(pair[1].after <= pair[0].hold, "{pair:?} do not overlap");
        }
        assert!(groups.iter().all(|group| group.len() <= 2));
    }

    #[test]
    fn a_seed_makes_the_same_again() {
        let table = faults::table(Backend::Rabbitmq);
        assert_eq!(plan(&table, 50, 2, 3), plan(&table, 50, 2, 3));
        assert_ne!(plan(&table, 50, 2, 3), plan(&table, 50, 2, 4));
    }
}
