//! Who goes next of those who wait in line.

use forebay_core::{Priority, TaskId, Timestamp};

/// Each so many releases of a line, the one goes that has waited longest, whatever its priority: so none waits for ever
/// while others come with a higher one.
pub const OLDEST_EVERY: i64 = 8;

/// One of those in front of a line: of each priority, those who have waited longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which task.
    pub id: TaskId,
    /// Its priority.
    pub priority: Priority,
    /// Since when it waits.
    pub since: Timestamp,
}

/// The next `room` of a line of which `heads` are in front, where so many were released before.
#[must_use]
pub fn next_in_line(mut heads: Vec<Head>, room: usize, released: i64) -> Vec<TaskId> {
    let room = room.min(heads.len());
    let mut next = Vec::with_capacity(room);
    for number in (released + 1..).take(room) {
        let by_age = |head: &Head| (head.since, head.id);
        let found = match number % OLDEST_EVERY {
            0 => (0..heads.len()).min_by_key(|&at| by_age(&heads[at])),
            _ => (0..heads.len()).min_by_key(|&at| (heads[at].priority, by_age(&heads[at]))),
        };
        let Some(found) = found else { break };
        next.push(heads.swap_remove(found).id);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(number: u8, priority: Priority, since: i64) -> Head {
        Head {
            id: TaskId::from_bytes([number; 16]),
            priority,
            since: Timestamp::from_second(since).expect("a time"),
        }
    }

    fn numbers(ids: Vec<TaskId>) -> Vec<u8> {
        ids.into_iter().map(|id| id.as_uuid().as_bytes()[0]).collect()
    }

    #[test]
    fn priority_goes_first_then_age() {
        let heads = vec![
            head(1, Priority::Low, 1),
            head(2, Priority::High, 9),
            head(3, Priority::Default, 5),
            head(4, Priority::High, 8),
        ];
        assert_eq!(numbers(next_in_line(heads.clone(), 3, 0)), [4, 2, 3]);
        assert_eq!(numbers(next_in_line(heads, 9, 0)), [4, 2, 3, 1]);
        assert_eq!(next_in_line(Vec::new(), 3, 0), []);
    }

    #[test]
    fn each_eighth_is_the_oldest() {
        let mut heads: Vec<Head> = (10..30).map(|it| head(it, Priority::High, it.into())).collect();
        heads.push(head(1, Priority::Low, 1));
        heads.push(head(2, Priority::Default, 2));
        let order = numbers(next_in_line(heads.clone(), 16, 0));
        assert_eq!((order[7], order[15]), (1, 2), "{order:?}");
        assert_eq!(numbers(next_in_line(heads, 1, 7)), [1], "counted over passes");
    }
}
