//! The terms of a task: what it asks for beyond being run. Most tasks have none, so they travel and are kept apart from
//! the rest, as one JSON object.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use crate::{BatchId, Json, Kind, LimitKey, RetryPolicy, TaskId, Timestamp, Violation, WebhookName, micros};

/// The most tasks that one may wait for by name.
pub const AFTER_MAX: usize = 100;
/// The most webhooks that one task may notify.
pub const NOTIFY_MAX: usize = 8;
/// The most waits that a retry policy may list.
const DELAYS_MAX: usize = 100;
/// The longest timeout, window or wait, in seconds: a year.
const YEAR_SECONDS: f64 = 366.0 * 24.0 * 3_600.0;
/// The longest `unique.key`, in bytes.
const UNIQUE_KEY_BYTES_MAX: usize = 255;

/// What a task asks for beyond being run, checked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// It must have been started by then for the first time; else it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// An attempt that says nothing for so long is ended.
    #[serde(
        rename = "heartbeat_timeout_us",
        with = "maybe_micros",
        skip_serializing_if = "Option::is_none"
    )]
    pub heartbeat_timeout: Option<Duration>,
    /// How it is tried again, where that is not as its handler says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<TaskRetry>,
    /// Which of the limits that are counted by key it counts to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_key: Option<LimitKey>,
    /// What it must be the only one of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique: Option<Unique>,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<After>,
    /// The webhooks that hear of its end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<WebhookName>,
    /// The batch it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchId>,
}

/// How a task is tried again: each part that is said overrides that of its handler's [`RetryPolicy`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskRetry {
    /// See [`RetryPolicy::base`].
    #[serde(
        rename = "base_us",
        with = "maybe_micros",
        skip_serializing_if = "Option::is_none"
    )]
    pub base: Option<Duration>,
    /// See [`RetryPolicy::factor`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// See [`RetryPolicy::cap`].
    #[serde(
        rename = "cap_us",
        with = "maybe_micros",
        skip_serializing_if = "Option::is_none"
    )]
    pub cap: Option<Duration>,
    /// The waits themselves, without chance, after the first attempt, the second, and so on; the last of them for all
    /// that follow. Where there are any, the other parts say nothing.
    #[serde(
        rename = "delays_us",
        with = "all_micros",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub delays: Vec<Duration>,
}

impl TaskRetry {
    /// The wait after attempt number `attempt` (the first is 1) of a task whose handler has `policy`. `random` is uniform
    /// in `0.0..1.0`.
    #[must_use]
    pub fn delay(&self, policy: RetryPolicy, attempt: u32, random: f64) -> Duration {
        let place = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        if let Some(delay) = self.delays.get(place).or(self.delays.last()) {
            return *delay;
        }
        let policy = RetryPolicy {
            base: self.base.unwrap_or(policy.base),
            factor: self.factor.unwrap_or(policy.factor),
            cap: self.cap.unwrap_or(policy.cap),
            ..policy
        };
        policy.delay(attempt, random)
    }
}

/// What a task must be the only one of, in its project: of all with the same mark, one at most is unfinished, or
/// younger than the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// A hash of the kind and the key, or of the kind and the payload where no key is given.
    pub mark: UniqueMark,
    /// Until when others are in conflict with it although it is finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What happens where there is one.
    pub on_conflict: OnConflict,
}

/// The hash that stands for what a task must be the only one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UniqueMark(uuid::Uuid);

impl UniqueMark {
    fn of(kind: &Kind, key: Option<&str>, payload: &Json) -> Self {
        let mut hasher = Sha256::new();
        let (sort, text) = match key {
            Some(key) => ("key", key),
            None => ("payload", payload.as_str()),
        };
        for part in [kind.as_str(), sort, text] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize()[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The mark as a UUID, which is how the stores keep it.
    #[must_use]
    pub fn as_uuid(self) -> uuid::Uuid {
        self.0
    }
}

/// What happens to a submission where there is a task that it may not stand beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// It is answered with that task.
    #[default]
    Return,
    /// It is refused.
    Reject,
    /// It takes that task's place, which is cancelled, unless that one runs: then it is refused.
    Replace,
}

/// What a task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// Each of them must be final; sorted, each once.
    pub tasks: Vec<TaskId>,
    /// What happens where one of them did not succeed.
    pub on_failure: OnFailure,
}

/// What happens to a task where one that it waits for ends otherwise than by succeeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is cancelled, with an error that names that one.
    #[default]
    Cancel,
    /// It waits on, and runs when all are final.
    Run,
}

macro_rules! words {
    ($type:ident, $error:ident, $allowed:literal, $($variant:ident = $word:literal),+) => {
        /// The text names none.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("must be one of {}", $allowed)]
        pub struct $error;

        impl $type {
            /// The name used in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($error),
                }
            }
        }
    };
}
words!(
    OnConflict,
    UnknownOnConflict,
    "return, reject, replace",
    Return = "return",
    Reject = "reject",
    Replace = "replace"
);
words!(
    OnFailure,
    UnknownOnFailure,
    "cancel, run",
    Cancel = "cancel",
    Run = "run"
);

/// What a submission says of its terms, with the right types but not yet checked. The members' names are those of the
/// API, in JSON and in the protocol buffers. Its own JSON, which has what is said and no more, is a part of the fingerprint of
/// a submission: members keep their names and their order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TermsRequest {
    /// It expires unless it is started by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// It expires unless it is started so long after it was accepted, or after its `run_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_to_start_timeout_seconds: Option<f64>,
    /// An attempt that says nothing for so long is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_timeout_seconds: Option<f64>,
    /// How it is tried again; its handler's setting unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryRequest>,
    /// See [`LimitKey`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_key: Option<String>,
    /// What it must be the only one of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique: Option<UniqueRequest>,
    /// Ids of the tasks it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// See [`OnFailure`]; `cancel` unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_dependency_failure: Option<String>,
    /// Names of webhooks that hear of its end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<String>,
    /// The batch it belongs to. No door reads this from a submission: the one that makes batches says so.
    #[serde(skip)]
    pub batch: Option<BatchId>,
}

/// See [`TaskRetry`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryRequest {
    /// The longest wait after the first attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_seconds: Option<f64>,
    /// By how much it grows with each attempt; from 1 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// No wait is longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_seconds: Option<f64>,
    /// The waits themselves, instead; at most 100. `null` says nothing, as it does for the others.
    #[serde(deserialize_with = "null_is_none", skip_serializing_if = "Vec::is_empty")]
    pub delays_seconds: Vec<f64>,
}

fn null_is_none<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// See [`Unique`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UniqueRequest {
    /// What it must be the only one of, among those of its kind; its payload unless said. 1 to 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For how long after it was accepted others are in conflict with it even if it is finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<f64>,
    /// See [`OnConflict`]; `return` unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<String>,
}

/// What the check of terms needs to know of the rest of a submission.
pub(crate) struct Surroundings<'a> {
    pub(crate) now: Timestamp,
    pub(crate) run_at: Option<Timestamp>,
    /// `None` where it is not a valid one.
    pub(crate) kind: Option<&'a Kind>,
    pub(crate) payload: &'a Json,
    /// Whether it was accepted before: times that have passed since are no mistakes.
    pub(crate) is_repeat: bool,
}

impl TermsRequest {
    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The checked terms; `None` where nothing is asked for, or where something is wrong.
    pub(crate) fn accept(self, around: &Surroundings<'_>, wrong: &mut Vec<Violation>) -> Option<Box<Terms>> {
        if self.is_empty() {
            return None;
        }
        let terms = Terms {
            expires_at: self.expiry(around, wrong),
            heartbeat_timeout: seconds(
                self.heartbeat_timeout_seconds,
                0.001,
                "/heartbeat_timeout_seconds",
                wrong,
            ),
            retry: self.retry.and_then(|retry| retry.accept(wrong)),
            limit_key: parse(self.limit_key.as_deref(), "/limit_key", wrong),
            unique: self.unique.and_then(|unique| unique.accept(around, wrong)),
            after: after(&self.after, self.on_dependency_failure.as_deref(), wrong),
            notify: names(&self.notify, wrong),
            batch: self.batch,
        };
        (terms != Terms::default()).then(|| Box::new(terms))
    }

    fn expiry(&self, around: &Surroundings<'_>, wrong: &mut Vec<Violation>) -> Option<Timestamp> {
        let may_start = around.run_at.unwrap_or(around.now).max(around.now);
        let pointer = "/schedule_to_start_timeout_seconds";
        let timed_out = seconds(self.schedule_to_start_timeout_seconds, 0.001, pointer, wrong)
            .map(|timeout| may_start.saturating_add(timeout).unwrap_or(Timestamp::MAX));
        if !around.is_repeat && self.expires_at.is_some_and(|at| at <= may_start) {
            let detail = "must be later than now, and than the time that it is to run at";
            wrong.push(Violation::invalid("/expires_at", detail));
        }
        let at = match (self.expires_at, timed_out) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        at.map(micros)
    }
}

impl RetryRequest {
    fn accept(self, wrong: &mut Vec<Violation>) -> Option<TaskRetry> {
        let before = wrong.len();
        let has_formula = self.base_seconds.is_some() || self.factor.is_some() || self.cap_seconds.is_some();
        if has_formula && !self.delays_seconds.is_empty() {
            let detail = "must not be given together with a base, a factor or a cap";
            wrong.push(Violation::invalid("/retry/delays_seconds", detail));
        }
        if self.delays_seconds.len() > DELAYS_MAX {
            let detail = format!("must have at most {DELAYS_MAX} items");
            wrong.push(Violation::invalid("/retry/delays_seconds", detail));
        }
        if self.factor.is_some_and(|factor| !(1.0..=100.0).contains(&factor)) {
            wrong.push(Violation::invalid("/retry/factor", "must be from 1 to 100"));
        }
        let delays = self.delays_seconds.iter().take(DELAYS_MAX).enumerate();
        let delays = delays.filter_map(|(index, &delay)| {
            seconds(Some(delay), 0.0, &format!("/retry/delays_seconds/{index}"), wrong)
        });
        let delays: Vec<Duration> = delays.collect();
        let retry = TaskRetry {
            base: seconds(self.base_seconds, 0.0, "/retry/base_seconds", wrong),
            factor: self.factor,
            cap: seconds(self.cap_seconds, 0.0, "/retry/cap_seconds", wrong),
            delays,
        };
        (wrong.len() == before && retry != TaskRetry::default()).then_some(retry)
    }
}

impl UniqueRequest {
    fn accept(self, around: &Surroundings<'_>, wrong: &mut Vec<Violation>) -> Option<Unique> {
        let before = wrong.len();
        let key = self.key.as_deref();
        let is_sound =
            |key: &str| (1..=UNIQUE_KEY_BYTES_MAX).contains(&key.len()) && !key.chars().any(char::is_control);
        if key.is_some_and(|key| !is_sound(key)) {
            let detail = format!("must have 1 to {UNIQUE_KEY_BYTES_MAX} bytes and no control characters");
            wrong.push(Violation::invalid("/unique/key", detail));
        }
        let window = seconds(self.window_seconds, 0.001, "/unique/window_seconds", wrong);
        let on_conflict = parse(self.on_conflict.as_deref(), "/unique/on_conflict", wrong);
        let kind = around.kind.filter(|_| wrong.len() == before)?;
        let until = window.map(|window| around.now.saturating_add(window).unwrap_or(Timestamp::MAX));
        Some(Unique {
            mark: UniqueMark::of(kind, key, around.payload),
            until: until.map(micros),
            on_conflict: on_conflict.unwrap_or_default(),
        })
    }
}

fn after(ids: &[String], on_failure: Option<&str>, wrong: &mut Vec<Violation>) -> Option<After> {
    let parsed = parse(on_failure, "/on_dependency_failure", wrong);
    if ids.is_empty() {
        if on_failure.is_some() {
            let detail = "says something only together with after";
            wrong.push(Violation::invalid("/on_dependency_failure", detail));
        }
        return None;
    }
    if ids.len() > AFTER_MAX {
        let detail = format!("must have at most {AFTER_MAX} items: a batch can be waited for as a whole");
        wrong.push(Violation::invalid("/after", detail));
        return None;
    }
    let mut tasks = BTreeSet::new();
    for (index, id) in ids.iter().enumerate() {
        match id.parse::<TaskId>() {
            Ok(id) => _ = tasks.insert(id),
            Err(_) => wrong.push(Violation::invalid(
                format!("/after/{index}"),
                "must be the id of a task",
            )),
        }
    }
    Some(After {
        tasks: tasks.into_iter().collect(),
        on_failure: parsed.unwrap_or_default(),
    })
}

fn names(asked: &[String], wrong: &mut Vec<Violation>) -> Vec<WebhookName> {
    if asked.len() > NOTIFY_MAX {
        let detail = format!("must have at most {NOTIFY_MAX} items");
        wrong.push(Violation::invalid("/notify", detail));
    }
    let parsed = asked.iter().take(NOTIFY_MAX).enumerate();
    let parsed: BTreeSet<WebhookName> = parsed
        .filter_map(|(index, name)| parse(Some(name), &format!("/notify/{index}"), wrong))
        .collect();
    parsed.into_iter().collect()
}

fn parse<T: FromStr>(text: Option<&str>, pointer: &str, wrong: &mut Vec<Violation>) -> Option<T>
where
    T::Err: ToString,
{
    text?
        .parse()
        .map_err(|error: T::Err| wrong.push(Violation::invalid(pointer, error.to_string())))
        .ok()
}

/// To the microsecond, which is what the stores keep.
fn seconds(asked: Option<f64>, least: f64, pointer: &str, wrong: &mut Vec<Violation>) -> Option<Duration> {
    let asked = asked?;
    if !(least..=YEAR_SECONDS).contains(&asked) {
        let detail = format!("must be from {least} to {YEAR_SECONDS}, a year");
        wrong.push(Violation::invalid(pointer, detail));
        return None;
    }
    let exact = Duration::from_secs_f64(asked);
    u64::try_from(exact.as_micros()).ok().map(Duration::from_micros)
}

/// Durations as whole microseconds.
mod maybe_micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.map(super::micros_of).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_micros))
    }
}

/// Durations as whole microseconds.
mod all_micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        let micros: Vec<u64> = values.iter().copied().map(super::micros_of).collect();
        micros.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
        let micros = Vec::<u64>::deserialize(from)?;
        Ok(micros.into_iter().map(Duration::from_micros).collect())
    }
}

fn micros_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Terms {
    /// Its form in the wire and in the stores.
    #[must_use]
    pub fn to_json(&self) -> String {
        // No member has a form that JSON lacks: numbers are finite, maps have names.
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }

    /// Reads that form.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_json(text: &str) -> Result<Box<Self>, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Whether somebody waits for its end from the beginning.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.batch.is_some() || !self.notify.is_empty()
    }

    /// Whether they have to do with nothing but the task itself, once it is known: with no other task, no other time and nobody who
    /// waits for its end.
    #[must_use]
    pub fn stand_alone(&self) -> bool {
        let Self {
            expires_at,
            heartbeat_timeout: _,
            retry: _,
            limit_key: _,
            unique,
            after,
            notify,
            batch,
        } = self;
        expires_at.is_none() && unique.is_none() && after.is_none() && notify.is_empty() && batch.is_none()
    }
}

#[cfg(test)]
mod tests;
