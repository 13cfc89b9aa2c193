//! What a submission may say, and what of it is refused. Both doors and the command line use this one check.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::{
    IdempotencyKey, Json, Kind, Lane, PAYLOAD_BYTES_MAX, Priority, Project, QueueName, Ready, State, TaskId,
    Terms, TermsRequest, Timestamp, TraceParent, name::KINDS_RESERVED, terms::Surroundings,
};

/// How far ahead a `run_at` may be.
pub const RUN_AT_AHEAD_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The most attempts a submission may ask for.
const MAX_ATTEMPTS_MAX: i64 = 1_000;
/// The longest timeout a submission may ask for, in seconds: a week.
const TIMEOUT_SECONDS_MAX: f64 = 7.0 * 24.0 * 3_600.0;
/// The most tags, and the longest of them in bytes.
const TAGS_MAX: usize = 16;
const TAG_BYTES_MAX: usize = 64;

/// What kind of mistake a violation is; the doors map it to their codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// A field's value is not allowed.
    Invalid,
    /// The payload is too large.
    PayloadTooLarge,
}

/// One thing wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where: a JSON pointer into the request, such as `/tags/3`.
    pub pointer: String,
    /// What is wrong and what is allowed, as a fragment: "must be positive".
    pub detail: String,
    /// What kind of mistake.
    pub problem: Problem,
}

impl Violation {
    /// A field whose value is not allowed.
    #[must_use]
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            detail: detail.into(),
            problem: Problem::Invalid,
        }
    }
}

/// A request to run a task, with the right types but not yet checked.
#[derive(Debug, Clone, Default)]
pub struct SubmitRequest {
    /// See [`Kind`].
    pub kind: String,
    /// See [`QueueName`]; `default` unless said.
    pub queue: Option<String>,
    /// See [`Project`]; `default` unless said.
    pub project: Option<String>,
    /// See [`Priority`]; `default` unless said.
    pub priority: Option<String>,
    /// `null` unless said.
    pub payload: Option<Json>,
    /// Labels to find it by.
    pub tags: Vec<String>,
    /// Not before this time.
    pub run_at: Option<Timestamp>,
    /// Not before this many seconds from now. Excludes `run_at`.
    pub delay_seconds: Option<f64>,
    /// How many attempts it may have; the handler's setting unless said.
    pub max_attempts: Option<i64>,
    /// How long an attempt may take; the handler's setting unless said.
    pub timeout_seconds: Option<f64>,
    /// The submitter's own name for it.
    pub idempotency_key: Option<String>,
    /// What it asks for beyond being run.
    pub terms: TermsRequest,
    /// The trace of the request.
    pub traceparent: Option<TraceParent>,
}

/// Tells two submissions under one idempotency key apart: a hash of all that the submitter said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

/// A task that was accepted: what travels through the broker, and what the recorder inserts.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// Names it for ever.
    pub id: TaskId,
    /// Whose it is.
    pub project: Project,
    /// What it does.
    pub kind: Kind,
    /// Where it goes.
    pub lane: Lane,
    /// The input of its handler.
    pub payload: Json,
    /// The submitter's labels.
    pub tags: Vec<String>,
    /// When it is due, where that is later than its acceptance: it is then parked, not ready.
    pub run_at: Option<Timestamp>,
    /// As the submitter said.
    pub max_attempts: Option<u32>,
    /// As the submitter said.
    pub timeout: Option<Duration>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Present where it has an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    /// The trace of the request that submitted it.
    pub traceparent: Option<TraceParent>,
    /// What it asks for beyond being run; boxed, since few do.
    pub terms: Option<Box<Terms>>,
}

impl Submission {
    /// Where it stands as far as is known when it is accepted.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.waits_for_others(), self.run_at) {
            (true, _) => State::Blocked,
            (false, Some(_)) => State::Scheduled,
            (false, None) => State::Queued,
        }
    }

    /// Whether it waits for other tasks.
    #[must_use]
    pub fn waits_for_others(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.after.is_some())
    }

    /// Whether it must be the only one of something.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.unique.is_some())
    }

    /// What says that it is ready, once it is recorded.
    #[must_use]
    pub fn into_ready(self) -> Ready {
        Ready {
            id: self.id,
            kind: self.kind,
            lane: self.lane,
            fence: 0,
            lost: 0,
        }
    }
}

impl SubmitRequest {
    /// Checks the request and makes it a task accepted at `now`. `random` must be ten random bytes.
    ///
    /// # Errors
    /// With all that is wrong with it, not just the first.
    pub fn accept(self, now: Timestamp, random: &[u8; 10]) -> Result<Submission, Vec<Violation>> {
        self.checked(now, random, false)
    }

    /// As [`Self::accept`], for what was accepted before and perhaps not submitted: what has to start by a time that has
    /// passed meanwhile is not refused, and expires.
    ///
    /// # Errors
    /// With all that is wrong with it, not just the first.
    pub fn accept_again(self, now: Timestamp, random: &[u8; 10]) -> Result<Submission, Vec<Violation>> {
        self.checked(now, random, true)
    }

    /// What a request with an idempotency key names: the id of its task, and what tells it from other requests under
    /// that key. `None` where it has no key, or no valid one.
    #[must_use]
    pub fn named(&self, now: Timestamp) -> Option<(TaskId, Fingerprint)> {
        let key = IdempotencyKey::parse(self.idempotency_key.as_deref()?)?;
        let project = match self.project.as_deref() {
            None => Project::default(),
            Some(project) => project.parse().ok()?,
        };
        Some((TaskId::keyed(now, &project, &key), self.fingerprint()))
    }

    fn checked(
        self,
        now: Timestamp,
        random: &[u8; 10],
        is_repeat: bool,
    ) -> Result<Submission, Vec<Violation>> {
        let mut wrong = Vec::new();
        let kind = self
            .kind
            .parse::<Kind>()
            .map_err(|e| wrong.push(Violation::invalid("/kind", e.to_string())));
        let queue = parse_or_default::<QueueName>(self.queue.as_deref(), "/queue", &mut wrong);
        refuse_reserved(&self.kind, &queue, &mut wrong);
        let project = parse_or_default::<Project>(self.project.as_deref(), "/project", &mut wrong);
        let priority = parse_or_default::<Priority>(self.priority.as_deref(), "/priority", &mut wrong);
        let run_at = self.due(now, &mut wrong);
        let max_attempts = self.checked_max_attempts(&mut wrong);
        let timeout = self.checked_timeout(&mut wrong);
        let key = self.checked_key(&mut wrong);
        check_tags(&self.tags, &mut wrong);
        let fingerprint = key.as_ref().map(|_| self.fingerprint());
        let payload = self.payload.unwrap_or_else(Json::null);
        check_payload(&payload, &mut wrong);
        let around = Surroundings {
            now,
            run_at,
            kind: kind.as_ref().ok(),
            payload: &payload,
            is_repeat,
        };
        let terms = self.terms.accept(&around, &mut wrong);
        let (Ok(kind), true) = (kind, wrong.is_empty()) else {
            return Err(wrong);
        };
        let id = match &key {
            Some(key) => TaskId::keyed(now, &project, key),
            None => TaskId::new(now, random),
        };
        Ok(Submission {
            id,
            project,
            kind,
            lane: Lane::new(queue, priority),
            payload,
            tags: self.tags,
            run_at: run_at.filter(|&due| due > now),
            max_attempts,
            timeout,
            created_at: now,
            fingerprint,
            traceparent: self.traceparent,
            terms,
        })
    }

    fn due(&self, now: Timestamp, wrong: &mut Vec<Violation>) -> Option<Timestamp> {
        let latest = now.saturating_add(RUN_AT_AHEAD_MAX).unwrap_or(Timestamp::MAX);
        match (self.run_at, self.delay_seconds) {
            (Some(_), Some(_)) => {
                wrong.push(Violation::invalid(
                    "/delay_seconds",
                    "must not be given together with run_at",
                ));
                None
            }
            (Some(due), None) if due > latest => {
                wrong.push(Violation::invalid("/run_at", "must be at most a year ahead"));
                None
            }
            (Some(due), None) => Some(crate::micros(due)),
            (None, Some(delay)) if !(0.0..=RUN_AT_AHEAD_MAX.as_secs_f64()).contains(&delay) => {
                wrong.push(Violation::invalid(
                    "/delay_seconds",
                    "must be from 0 to 31622400, a year",
                ));
                None
            }
            (None, Some(delay)) => now
                .saturating_add(Duration::from_secs_f64(delay))
                .ok()
                .map(crate::micros),
            (None, None) => None,
        }
    }

    fn checked_max_attempts(&self, wrong: &mut Vec<Violation>) -> Option<u32> {
        let asked = self.max_attempts?;
        if !(1..=MAX_ATTEMPTS_MAX).contains(&asked) {
            wrong.push(Violation::invalid(
                "/max_attempts",
                format!("must be from 1 to {MAX_ATTEMPTS_MAX}"),
            ));
        }
        u32::try_from(asked).ok()
    }

    fn checked_timeout(&self, wrong: &mut Vec<Violation>) -> Option<Duration> {
        let asked = self.timeout_seconds?;
        if !(0.001..=TIMEOUT_SECONDS_MAX).contains(&asked) {
            wrong.push(Violation::invalid(
                "/timeout_seconds",
                "must be from 0.001 to 604800, a week",
            ));
            return None;
        }
        Some(Duration::from_secs_f64(asked))
    }

    fn checked_key(&self, wrong: &mut Vec<Violation>) -> Option<IdempotencyKey> {
        let text = self.idempotency_key.as_deref()?;
        let key = IdempotencyKey::parse(text);
        if key.is_none() {
            wrong.push(Violation::invalid(
                "/idempotency_key",
                "must be 1 to 255 printable ASCII characters, in the header Idempotency-Key",
            ));
        }
        key
    }

    /// Hashes what the submitter said, so that a delay counts as written and not as the time it leads to.
    fn fingerprint(&self) -> Fingerprint {
        let mut hasher = Sha256::new();
        let mut field = |text: &str| {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        };
        field(&self.kind);
        field(self.queue.as_deref().unwrap_or("default"));
        field(self.priority.as_deref().unwrap_or("default"));
        field(self.payload.as_ref().map_or("null", Json::as_str));
        field(&format!(
            "{:?} {:?} {:?} {:?}",
            self.run_at, self.delay_seconds, self.max_attempts, self.timeout_seconds
        ));
        for tag in &self.tags {
            field(tag);
        }
        if !self.terms.is_empty() {
            // What is not said leaves no trace in it, so that what may be said in a later version changes nothing.
            let said = serde_json::to_string(&self.terms).expect("has only text, numbers and lists");
            field(&said);
            if let Some(batch) = self.terms.batch {
                field(&batch.to_string());
            }
        }
        let digest = hasher.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Fingerprint(bytes)
    }
}

fn parse_or_default<T>(text: Option<&str>, pointer: &str, wrong: &mut Vec<Violation>) -> T
where
    T: std::str::FromStr + Default,
    T::Err: ToString,
{
    match text.map(str::parse) {
        None => T::default(),
        Some(Ok(value)) => value,
        Some(Err(error)) => {
            wrong.push(Violation::invalid(pointer, error.to_string()));
            T::default()
        }
    }
}

fn check_tags(tags: &[String], wrong: &mut Vec<Violation>) {
    if tags.len() > TAGS_MAX {
        wrong.push(Violation::invalid(
            "/tags",
            format!("must have at most {TAGS_MAX} items"),
        ));
    }
    for (index, tag) in tags.iter().enumerate() {
        if tag.is_empty() || tag.len() > TAG_BYTES_MAX || tag.chars().any(char::is_control) {
            wrong.push(Violation::invalid(
                format!("/tags/{index}"),
                format!("must have 1 to {TAG_BYTES_MAX} bytes and no control characters"),
            ));
        }
    }
}

fn check_payload(payload: &Json, wrong: &mut Vec<Violation>) {
    let size = payload.as_bytes().len();
    if size > PAYLOAD_BYTES_MAX {
        wrong.push(Violation {
            pointer: "/payload".into(),
            detail: format!("must be at most {PAYLOAD_BYTES_MAX} bytes, and is {size}: store it elsewhere and send a reference"),
            problem: Problem::PayloadTooLarge,
        });
    } else if payload.depth() > crate::PAYLOAD_DEPTH_MAX {
        wrong.push(Violation::invalid(
            "/payload",
            format!("must not nest deeper than {} levels", crate::PAYLOAD_DEPTH_MAX),
        ));
    }
}

/// What Forebay submits itself is not for others to submit.
fn refuse_reserved(kind: &str, queue: &QueueName, wrong: &mut Vec<Violation>) {
    if kind.starts_with(KINDS_RESERVED) {
        let detail = format!("must not begin with {KINDS_RESERVED}: such kinds are Forebay's own");
        wrong.push(Violation::invalid("/kind", detail));
    }
    if queue.is_reserved() {
        wrong.push(Violation::invalid(
            "/queue",
            "is Forebay's own, for the deliveries of webhooks",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn echo() -> SubmitRequest {
        SubmitRequest {
            kind: "echo".into(),
            ..SubmitRequest::default()
        }
    }

    #[test]
    fn only_a_kind_is_needed() {
        let task = echo().accept(now(), &[0; 10]).unwrap();
        assert_eq!(task.lane.to_string(), "default.default");
        assert_eq!((task.payload.as_str(), task.run_at), ("null", None));
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let request = SubmitRequest {
            kind: "two words".into(),
            queue: Some("A".into()),
            priority: Some("urgent".into()),
            delay_seconds: Some(-1.0),
            max_attempts: Some(0),
            timeout_seconds: Some(f64::NAN),
            tags: vec!["ok".into(), String::new()],
            idempotency_key: Some("ä".into()),
            ..SubmitRequest::default()
        };
        let wrong = request.accept(now(), &[0; 10]).unwrap_err();
        let mut pointers: Vec<&str> = wrong.iter().map(|v| v.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(
            pointers,
            [
                "/delay_seconds",
                "/idempotency_key",
                "/kind",
                "/max_attempts",
                "/priority",
                "/queue",
                "/tags/1",
                "/timeout_seconds"
            ]
        );
    }

    #[test]
    fn what_is_our_own_is_not_for_users_to_submit() {
        let request = SubmitRequest {
            kind: crate::WEBHOOK_KIND.into(),
            queue: Some(crate::WEBHOOK_QUEUE.into()),
            ..SubmitRequest::default()
        };
        let wrong = request.accept(now(), &[0; 10]).unwrap_err();
        let pointers: Vec<&str> = wrong.iter().map(|v| v.pointer.as_str()).collect();
        assert_eq!(pointers, ["/kind", "/queue"]);
        let near = SubmitRequest {
            kind: "forebay-webhook".into(),
            ..SubmitRequest::default()
        };
        assert!(near.accept(now(), &[0; 10]).is_ok());
    }

    #[test]
    fn what_is_due_already_is_ready() {
        let past = SubmitRequest {
            run_at: "2020-01-01T00:00:00Z".parse().ok(),
            ..echo()
        };
        assert_eq!(past.accept(now(), &[0; 10]).unwrap().run_at, None);
        let zero = SubmitRequest {
            delay_seconds: Some(0.0),
            ..echo()
        };
        assert_eq!(zero.accept(now(), &[0; 10]).unwrap().run_at, None);
        let later = SubmitRequest {
            delay_seconds: Some(1.5),
            ..echo()
        };
        assert_eq!(
            later.accept(now(), &[0; 10]).unwrap().run_at,
            "2026-03-01T12:00:01.5Z".parse().ok()
        );
    }

    #[test]
    fn a_payload_may_be_as_large_as_promised_and_no_larger() {
        let payload = |size: usize| Json::parse(format!("\"{}\"", "a".repeat(size - 2)).as_bytes()).ok();
        let largest = SubmitRequest {
            payload: payload(PAYLOAD_BYTES_MAX),
            ..echo()
        };
        assert!(largest.accept(now(), &[0; 10]).is_ok());
        let larger = SubmitRequest {
            payload: payload(PAYLOAD_BYTES_MAX + 1),
            ..echo()
        };
        let wrong = larger.accept(now(), &[0; 10]).unwrap_err();
        assert_eq!(wrong[0].problem, Problem::PayloadTooLarge);
    }

    #[test]
    fn one_key_names_one_task_and_its_fingerprint_tells_bodies_apart() {
        let keyed = |payload: &str| SubmitRequest {
            idempotency_key: Some("k".into()),
            payload: Json::parse(payload.as_bytes()).ok(),
            ..echo()
        };
        let first = keyed("1").accept(now(), &[1; 10]).unwrap();
        let again = keyed("1").accept(now(), &[2; 10]).unwrap();
        let other = keyed("2").accept(now(), &[3; 10]).unwrap();
        assert_eq!((first.id, first.fingerprint), (again.id, again.fingerprint));
        assert_eq!(first.id, other.id);
        assert_ne!(first.fingerprint, other.fingerprint);
    }

    /// It is compared with what other versions of this program recorded.
    #[test]
    fn a_fingerprint_is_the_same_in_every_version() {
        let mut request = SubmitRequest {
            idempotency_key: Some("k".into()),
            tags: vec!["t".into()],
            ..echo()
        };
        let hex = |request: &SubmitRequest| {
            let bytes = request.fingerprint().0;
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(hex(&request), "5a93c41d658cc7444248d19881fe0e47");
        request.terms = TermsRequest {
            limit_key: Some("a".into()),
            retry: Some(crate::RetryRequest {
                delays_seconds: vec![1.0, 2.5],
                ..crate::RetryRequest::default()
            }),
            unique: Some(crate::UniqueRequest::default()),
            ..TermsRequest::default()
        };
        let said = serde_json::to_string(&request.terms).unwrap();
        assert_eq!(
            said,
            r#"{"retry":{"delays_seconds":[1.0,2.5]},"limit_key":"a","unique":{}}"#
        );
        assert_eq!(hex(&request), "357e17003451e3dc8cf653cce11e5fde");
    }

    #[test]
    fn what_a_request_names_is_what_it_becomes() {
        let mut request = SubmitRequest {
            project: Some("p".into()),
            ..echo()
        };
        assert_eq!(request.named(now()), None);
        request.idempotency_key = Some("k".into());
        let named = request.named(now()).unwrap();
        let task = request.clone().accept(now(), &[0; 10]).unwrap();
        assert_eq!(named, (task.id, task.fingerprint.unwrap()));
        request.project = Some("No".into());
        assert_eq!(request.named(now()), None);
    }

    #[test]
    fn what_was_accepted_once_may_be_late() {
        let mut request = echo();
        request.terms.expires_at = Some("2026-03-01T11:59:59Z".parse().unwrap());
        let wrong = request.clone().accept(now(), &[0; 10]).unwrap_err();
        assert_eq!(wrong[0].pointer, "/expires_at");
        let task = request.clone().accept_again(now(), &[0; 10]).unwrap();
        assert_eq!(task.terms.unwrap().expires_at, request.terms.expires_at);
        request.max_attempts = Some(0);
        assert!(request.accept_again(now(), &[0; 10]).is_err());
    }
}
