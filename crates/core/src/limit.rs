//! Limits: how many tasks run at a time, and how many start in a time. A limit is a named rule for the tasks of a queue, of
//! a kind, or of both; it counts them all together, or those of each key by themselves.

use std::time::Duration;

use crate::{Kind, LimitKey, LimitName, QueueName, Timestamp, Violation};

/// The most limits there may be: each claim looks through them.
pub const LIMITS_MAX: usize = 1_000;
/// The most tasks that a limit may allow at a time.
pub const CONCURRENCY_MAX: u32 = 1_000_000;
/// The most starts that a rate may allow in its time, and the most that may come at once.
pub const RATE_COUNT_MAX: u32 = 1_000_000;
/// The longest time that a rate may speak of: thirty days.
const RATE_PER_SECONDS_MAX: f64 = 30.0 * 24.0 * 3_600.0;
/// The most starts a second: beyond that a limit costs more than it spares.
const RATE_PER_SECOND_MAX: f64 = 100_000.0;

/// So many starts in such a time, evenly spaced but for a burst after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
    /// How many may start at once after a rest.
    pub burst: u32,
}

impl Rate {
    /// From one start to the next, in nanoseconds, rounded up so that there are never more than asked for.
    fn interval(self) -> i64 {
        let per = i64::try_from(self.per.as_nanos()).unwrap_or(i64::MAX);
        let count = i64::from(self.count.max(1));
        per / count + i64::from(per % count > 0)
    }

    /// How far starts may run ahead of their even spacing, in nanoseconds.
    fn tolerance(self) -> i64 {
        self.interval().saturating_mul(i64::from(self.burst.max(1) - 1))
    }
}

/// What is remembered of a rate: when the next start is due if all of them were evenly spaced (the *theoretical arrival
/// time* of the generic cell rate algorithm), in nanoseconds since 1970. The default has seen no start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Pace(pub i64);

impl Pace {
    /// When the next start may be: `now`, or later.
    #[must_use]
    pub fn next(self, rate: Rate, now: Timestamp) -> Timestamp {
        self.next_within(rate, Duration::ZERO, now)
    }

    /// As [`Self::next`], for starts that may come up to `early` before their time.
    #[must_use]
    pub fn next_within(self, rate: Rate, early: Duration, now: Timestamp) -> Timestamp {
        let early = i64::try_from(early.as_nanos()).unwrap_or(i64::MAX);
        let earliest = self.0.saturating_sub(rate.tolerance()).saturating_sub(early);
        // A start is never too early by what is below a microsecond.
        let earliest = earliest.div_euclid(1_000) + i64::from(earliest.rem_euclid(1_000) > 0);
        Timestamp::from_microsecond(earliest).map_or(Timestamp::MAX, |earliest| earliest.max(now))
    }

    /// What is remembered once one more has started at `at`, or is to start then.
    #[must_use]
    pub fn after(self, rate: Rate, at: Timestamp) -> Self {
        let at = at.as_microsecond().saturating_mul(1_000);
        Self(self.0.max(at).saturating_add(rate.interval()))
    }
}

/// A limit: what counts to it, and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRule {
    /// Its name.
    pub name: LimitName,
    /// Only tasks of this queue count.
    pub queue: Option<QueueName>,
    /// Only tasks of this kind count.
    pub kind: Option<Kind>,
    /// Only tasks with a `limit_key` count, those of each key by themselves.
    pub by_key: bool,
    /// How many of them may run at a time.
    pub concurrency: Option<u32>,
    /// How many of them may start in a time.
    pub rate: Option<Rate>,
}

impl LimitRule {
    /// Whether tasks of this queue and kind may count to it; by key it depends on whether they have one.
    #[must_use]
    pub fn concerns(&self, queue: &QueueName, kind: &Kind) -> bool {
        self.queue.as_ref().is_none_or(|it| it == queue) && self.kind.as_ref().is_none_or(|it| it == kind)
    }

    /// As which of its uses a task counts to it: the text is its key, and empty where all count together. `None` where it
    /// does not count.
    #[must_use]
    pub fn counts<'a>(&self, queue: &QueueName, kind: &Kind, key: Option<&'a LimitKey>) -> Option<&'a str> {
        if !self.concerns(queue, kind) {
            return None;
        }
        match self.by_key {
            true => key.map(LimitKey::as_str),
            false => Some(""),
        }
    }

    /// Whether it is `other` but for how many may run at a time: what waits by the one may go on waiting by the other.
    #[must_use]
    pub fn differs_in_concurrency_only(&self, other: &Self) -> bool {
        let concurrency = self.concurrency;
        self.concurrency.is_some() == other.concurrency.is_some()
            && *self
                == Self {
                    concurrency,
                    ..other.clone()
                }
    }
}

/// A request to make a limit, with the right types but not yet checked. The members' names are those of the API.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitRequest {
    /// See [`QueueName`]; tasks of all queues unless said.
    pub queue: Option<String>,
    /// See [`Kind`]; tasks of all kinds unless said.
    pub kind: Option<String>,
    /// Whether tasks of each key count by themselves, and tasks without a key not at all.
    pub by_key: bool,
    /// How many may run at a time.
    pub concurrency: Option<i64>,
    /// How many may start in a time.
    pub rate: Option<RateRequest>,
}

/// See [`Rate`].
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateRequest {
    /// How many.
    pub count: i64,
    /// In how many seconds.
    pub per_seconds: f64,
    /// How many at once after a rest; as many as `count` unless said.
    #[serde(default)]
    pub burst: Option<i64>,
}

impl LimitRequest {
    /// Checks the request and makes it a limit.
    ///
    /// # Errors
    /// With all that is wrong with it, not just the first.
    pub fn accept(self, name: LimitName) -> Result<LimitRule, Vec<Violation>> {
        let mut wrong = Vec::new();
        let queue = parse(self.queue.as_deref(), "/queue", &mut wrong);
        let kind = parse(self.kind.as_deref(), "/kind", &mut wrong);
        let concurrency = self
            .concurrency
            .and_then(|it| count(it, CONCURRENCY_MAX, "/concurrency", &mut wrong));
        let rate = self.rate.as_ref().and_then(|rate| rate.accept(&mut wrong));
        if self.concurrency.is_none() && self.rate.is_none() {
            wrong.push(Violation::invalid("", "must have concurrency or rate, or both"));
        }
        match wrong.is_empty() {
            true => Ok(LimitRule {
                name,
                queue,
                kind,
                by_key: self.by_key,
                concurrency,
                rate,
            }),
            false => Err(wrong),
        }
    }
}

impl RateRequest {
    fn accept(&self, wrong: &mut Vec<Violation>) -> Option<Rate> {
        let starts = count(self.count, RATE_COUNT_MAX, "/rate/count", wrong);
        let burst = match self.burst {
            Some(burst) => count(burst, RATE_COUNT_MAX, "/rate/burst", wrong),
            None => starts,
        };
        let allowed = (0.001..=RATE_PER_SECONDS_MAX).contains(&self.per_seconds);
        let per = Duration::try_from_secs_f64(self.per_seconds)
            .ok()
            .filter(|_| allowed);
        if per.is_none() {
            let detail = "must be from 0.001 to 2592000, thirty days";
            wrong.push(Violation::invalid("/rate/per_seconds", detail));
        }
        let (count, per, burst) = (starts?, per?, burst?);
        if f64::from(count) / per.as_secs_f64() > RATE_PER_SECOND_MAX {
            let detail = format!("must be at most {RATE_PER_SECOND_MAX} for each of the seconds");
            wrong.push(Violation::invalid("/rate/count", detail));
            return None;
        }
        Some(Rate { count, per, burst })
    }
}

fn parse<T: std::str::FromStr>(text: Option<&str>, pointer: &str, wrong: &mut Vec<Violation>) -> Option<T>
where
    T::Err: ToString,
{
    text?
        .parse()
        .map_err(|error: T::Err| wrong.push(Violation::invalid(pointer, error.to_string())))
        .ok()
}

fn count(asked: i64, most: u32, pointer: &str, wrong: &mut Vec<Violation>) -> Option<u32> {
    let count = u32::try_from(asked)
        .ok()
        .filter(|count| (1..=most).contains(count));
    if count.is_none() {
        wrong.push(Violation::invalid(pointer, format!("must be from 1 to {most}")));
    }
    count
}

#[cfg(test)]
mod tests;
