//! Ids. A task id says by its first 48 bits on which day it was made, which is what the store partitions by.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{Project, ScheduleName, Timestamp};

/// The window in which an idempotency key names one task at the least, in milliseconds: a UTC day.
const KEY_WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;

/// A submitter's own name for one task, of 1 to 255 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Parses a key. `None` where it is empty, too long, or has a character that a header can't carry.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let valid = !key.is_empty() && key.len() <= 255 && key.bytes().all(|b| (b' '..=b'~').contains(&b));
        valid.then(|| Self(key.to_owned()))
    }
}

/// Names one task, for ever. A UUIDv7; or, where the submitter gave an idempotency key, a UUIDv8 made of
/// the current day and a hash of project and key, so that every replica derives the same id with no shared state.
/// A tick of a schedule names its task in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct TaskId(Uuid);

impl TaskId {
    /// A new id. `random` must be ten random bytes.
    #[must_use]
    pub fn new(at: Timestamp, random: &[u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_millis(at), random).into_uuid())
    }

    /// The id that `key` names in `project` on the day of `at`.
    #[must_use]
    pub fn keyed(at: Timestamp, project: &Project, key: &IdempotencyKey) -> Self {
        let mut hasher = Sha256::new();
        hasher.update((project.as_str().len() as u64).to_be_bytes());
        hasher.update(project.as_str());
        hasher.update(&key.0);
        Self::hashed(at, hasher)
    }

    /// The id of the task that a schedule submits at a tick: the same whoever fires it, and however often.
    #[must_use]
    pub fn of_tick(schedule: &ScheduleName, tick: Timestamp) -> Self {
        let mut hasher = Sha256::new();
        // No project's name is of this length, so no key leads to the id of a tick.
        hasher.update(u64::MAX.to_be_bytes());
        hasher.update(tick.as_microsecond().to_be_bytes());
        hasher.update(schedule.as_str());
        Self::hashed(tick, hasher)
    }

    /// The id of a task of a batch: that at place `index` of a part of it, which is named by `part`. In order of their
    /// ids the tasks of a part are as they were submitted.
    #[must_use]
    pub fn of_batch(batch: BatchId, part: &str, index: u16) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(batch.0.as_bytes());
        hasher.update(part);
        let digest = hasher.finalize();
        let mut bytes = [0_u8; 16];
        bytes[..6].copy_from_slice(&batch.0.as_bytes()[..6]);
        bytes[6..14].copy_from_slice(&digest[..8]);
        bytes[14..].copy_from_slice(&index.to_be_bytes());
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Made of the day of `at` and of what was hashed.
    fn hashed(at: Timestamp, hasher: Sha256) -> Self {
        let digest = hasher.finalize();
        let mut bytes = [0_u8; 16];
        bytes[6..].copy_from_slice(&digest[..10]);
        let now_ms = unix_millis(at);
        write_millis(&mut bytes, now_ms - now_ms % KEY_WINDOW_MS);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The id that the same key had in the window before; `None` for an id that has no key. What exists under
    /// this id is the same task, which is why a key holds for at least 24 hours.
    #[must_use]
    pub fn previous_window(self) -> Option<Self> {
        self.in_window(|millis| millis.checked_sub(KEY_WINDOW_MS))
    }

    /// The ids that the same key has in the window before and in the one after; none for an id that has no key. The one
    /// after counts as well, since clocks differ: at midnight a request may be repeated where it is still yesterday.
    pub fn adjacent_windows(self) -> impl Iterator<Item = Self> {
        let next = self.in_window(|millis| millis.checked_add(KEY_WINDOW_MS));
        self.previous_window().into_iter().chain(next)
    }

    fn in_window(self, other: impl FnOnce(u64) -> Option<u64>) -> Option<Self> {
        if self.0.get_version_num() != 8 {
            return None;
        }
        let mut bytes = self.0.into_bytes();
        write_millis(&mut bytes, other(self.unix_millis())?);
        Some(Self(Uuid::from_bytes(bytes)))
    }

    /// The time in the id, in milliseconds since 1970.
    #[must_use]
    pub fn unix_millis(self) -> u64 {
        let bytes = self.0.as_bytes();
        let mut millis = [0_u8; 8];
        millis[2..].copy_from_slice(&bytes[..6]);
        u64::from_be_bytes(millis)
    }

    /// The smallest id of the given millisecond: a bound for range partitions.
    #[must_use]
    pub fn lower_bound(unix_millis: u64) -> Uuid {
        let mut bytes = [0_u8; 16];
        write_millis(&mut bytes, unix_millis);
        Uuid::from_bytes(bytes)
    }

    /// The id whose UUID has these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The id as a UUID.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

fn unix_millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

fn write_millis(bytes: &mut [u8; 16], millis: u64) {
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
}

macro_rules! id {
    ($type:ident) => {
        impl From<Uuid> for $type {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$type> for Uuid {
            fn from(id: $type) -> Self {
                id.0
            }
        }

        impl FromStr for $type {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// One life of a worker process. A worker that was declared dead comes back under a new id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(Uuid);

impl WorkerId {
    /// A new id. `random` must be ten random bytes.
    #[must_use]
    pub fn new(at: Timestamp, random: &[u8; 10]) -> Self {
        Self(TaskId::new(at, random).0)
    }

    /// The id as a UUID.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

/// A batch: tasks that were submitted together and are looked at together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct BatchId(Uuid);

impl BatchId {
    /// A new id. `random` must be ten random bytes.
    #[must_use]
    pub fn new(at: Timestamp, random: &[u8; 10]) -> Self {
        Self(TaskId::new(at, random).0)
    }

    /// The id that `key` names in `project` on the day of `at`, as [`TaskId::keyed`] does for tasks.
    #[must_use]
    pub fn keyed(at: Timestamp, project: &Project, key: &IdempotencyKey) -> Self {
        let mut hasher = Sha256::new();
        // No project's name is of this length: no task's key leads to the id of a batch.
        hasher.update((u64::MAX - 1).to_be_bytes());
        hasher.update(project.as_str());
        hasher.update([0]);
        hasher.update(&key.0);
        Self(TaskId::hashed(at, hasher).0)
    }

    /// The ids that the same key has in the window before and in the one after; none for an id that has no key.
    pub fn adjacent_windows(self) -> impl Iterator<Item = Self> {
        TaskId(self.0).adjacent_windows().map(|id| Self(id.0))
    }

    /// The id as a UUID.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

/// An operation on many tasks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct OperationId(Uuid);

impl OperationId {
    /// A new id. `random` must be ten random bytes.
    #[must_use]
    pub fn new(at: Timestamp, random: &[u8; 10]) -> Self {
        Self(TaskId::new(at, random).0)
    }

    /// The id as a UUID.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

/// One batch of tasks that a worker claimed together; the store's note of who runs what.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimId(Uuid);

impl ClaimId {
    /// A new id. `random` must be ten random bytes.
    #[must_use]
    pub fn new(at: Timestamp, random: &[u8; 10]) -> Self {
        Self(TaskId::new(at, random).0)
    }

    /// The id as a UUID.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

id!(TaskId);
id!(WorkerId);
id!(ClaimId);
id!(BatchId);
id!(OperationId);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_same_key_names_the_same_task_all_day_and_is_found_from_the_next() {
        let project = Project::default();
        let key = IdempotencyKey::parse("order-17").unwrap();
        let morning = TaskId::keyed(at("2026-03-01T00:00:00Z"), &project, &key);
        let night = TaskId::keyed(at("2026-03-01T23:59:59.999Z"), &project, &key);
        let next_day = TaskId::keyed(at("2026-03-02T00:00:00Z"), &project, &key);
        assert_eq!(morning, night);
        assert_ne!(night, next_day);
        assert_eq!(next_day.previous_window(), Some(night));
        assert!(night.adjacent_windows().any(|id| id == next_day));
        assert!(next_day.adjacent_windows().any(|id| id == night));
        assert_eq!(night.as_uuid().get_version_num(), 8);
    }

    #[test]
    fn keys_do_not_leak_between_projects() {
        let key = IdempotencyKey::parse("k").unwrap();
        let now = at("2026-03-01T12:00:00Z");
        let one = TaskId::keyed(now, &"a".parse().unwrap(), &key);
        let other = TaskId::keyed(now, &"b".parse().unwrap(), &key);
        assert_ne!(one, other);
    }

    #[test]
    fn a_tick_names_one_task_of_its_day() {
        let nightly: ScheduleName = "nightly".parse().unwrap();
        let tick = at("2026-03-01T03:00:00Z");
        let id = TaskId::of_tick(&nightly, tick);
        assert_eq!(id, TaskId::of_tick(&nightly, tick));
        assert_eq!(
            id.unix_millis(),
            u64::try_from(at("2026-03-01T00:00:00Z").as_millisecond()).unwrap()
        );
        assert_eq!(id.as_uuid().get_version_num(), 8);
        assert_ne!(id, TaskId::of_tick(&nightly, at("2026-03-01T03:00:01Z")));
        assert_ne!(id, TaskId::of_tick(&"weekly".parse().unwrap(), tick));
    }

    #[test]
    fn the_tasks_of_a_batch_are_in_order_and_those_of_a_key_are_always_the_same() {
        let now = at("2026-03-01T12:00:00.123Z");
        let key = IdempotencyKey::parse("import-17").unwrap();
        let project = Project::default();
        let batch = BatchId::keyed(now, &project, &key);
        assert_eq!(batch, BatchId::keyed(at("2026-03-01T23:00:00Z"), &project, &key));
        assert_ne!(batch.as_uuid(), TaskId::keyed(now, &project, &key).as_uuid());
        assert_eq!(batch.adjacent_windows().count(), 2);
        let ids: Vec<TaskId> = (0..1_000)
            .map(|index| TaskId::of_batch(batch, "a", index))
            .collect();
        assert!(ids.is_sorted());
        assert_eq!(ids[0].unix_millis(), TaskId(batch.0).unix_millis());
        assert_ne!(ids[0], TaskId::of_batch(batch, "b", 0));
        let other = BatchId::new(now, &[3; 10]);
        assert_eq!(other.adjacent_windows().count(), 0);
        assert_ne!(
            TaskId::of_batch(other, "a", 0),
            TaskId::of_batch(BatchId::new(now, &[4; 10]), "a", 0)
        );
    }

    #[test]
    fn an_id_without_a_key_has_no_window_and_keeps_its_time() {
        let now = at("2026-03-01T12:00:00.123Z");
        let id = TaskId::new(now, &[7; 10]);
        assert_eq!(id.previous_window(), None);
        assert_eq!(id.adjacent_windows().count(), 0);
        assert_eq!(id.unix_millis(), u64::try_from(now.as_millisecond()).unwrap());
    }
}
