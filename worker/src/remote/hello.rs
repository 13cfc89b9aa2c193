//! What a worker says of itself, checked: all mistakes at once.

use std::{collections::BTreeSet, fmt::Display, time::Duration};

use forebay_core::{Kind, QueueName, RetryPolicy};
use forebay_proto::v1::{Hello, KindSettings};
use tonic::Status;

use super::status;
use crate::HandlerSettings;

/// The longest name of a worker, and of what it is written with, in bytes.
const TEXT_BYTES_MAX: usize = 128;
/// Of how many queues one worker may run tasks: each costs subscriptions.
const QUEUES_MAX: usize = 32;
/// How many kinds one worker may know.
const KINDS_MAX: usize = 1_000;
/// How many tasks one worker may run at once.
const SLOTS_MAX: u32 = 10_000;
/// How many attempts a kind may have, and how long one may take: as for a submission.
const ATTEMPTS_MAX: u32 = 1_000;
/// How many faults are told at once.
const FAULTS_MAX: usize = 20;
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
const QUEUE_RESERVED: &str = "is Forebay's own, for the deliveries of webhooks";
const KIND_RESERVED: &str = "must not begin with forebay.: such kinds are Forebay's own";

/// A worker that may be taken.
#[derive(Debug, PartialEq)]
pub(super) struct Accepted {
    pub(super) name: String,
    pub(super) queues: Vec<QueueName>,
    /// Each once.
    pub(super) kinds: Vec<(Kind, HandlerSettings)>,
    pub(super) slots: usize,
    pub(super) sdk: String,
}

/// Checks what a worker says of itself.
pub(super) fn accept(hello: Hello) -> Result<Accepted, Status> {
    let mut check = Check::default();
    check.text("name", &hello.name, 1);
    check.text("sdk", &hello.sdk, 0);
    let queues = check.queues(&hello.queues);
    let kinds = check.kinds(&hello.kinds);
    check.bounds("slots", hello.slots, SLOTS_MAX);
    if !check.violations.is_empty() {
        return Err(status::invalid(check.violations));
    }
    Ok(Accepted {
        name: hello.name,
        queues,
        kinds,
        slots: hello.slots as usize,
        sdk: hello.sdk,
    })
}

#[derive(Default)]
struct Check {
    /// The path of each field at fault, with what is wrong.
    violations: Vec<(String, String)>,
}

impl Check {
    /// The answer goes into a header, whose length clients bound: there is no room for thousands of faults.
    fn fault(&mut self, field: impl Display, detail: impl Display) {
        if self.violations.len() < FAULTS_MAX {
            self.violations.push((field.to_string(), detail.to_string()));
        }
    }

    fn text(&mut self, field: &str, text: &str, bytes_min: usize) {
        if !(bytes_min..=TEXT_BYTES_MAX).contains(&text.len()) || text.chars().any(char::is_control) {
            self.fault(
                field,
                format_args!("must have {bytes_min} to {TEXT_BYTES_MAX} bytes and no control characters"),
            );
        }
    }

    fn bounds(&mut self, field: impl Display, number: u32, max: u32) {
        if !(1..=max).contains(&number) {
            self.fault(field, format_args!("must be from 1 to {max}"));
        }
    }

    fn queues(&mut self, names: &[String]) -> Vec<QueueName> {
        if names.is_empty() {
            return vec![QueueName::default()];
        }
        if names.len() > QUEUES_MAX {
            self.fault("queues", format_args!("must have at most {QUEUES_MAX} items"));
            return Vec::new();
        }
        let mut queues = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            match name.parse::<QueueName>() {
                Ok(queue) if queue.is_reserved() => {
                    self.fault(format_args!("queues[{index}]"), QUEUE_RESERVED);
                }
                Ok(queue) => queues.push(queue),
                Err(error) => self.fault(format_args!("queues[{index}]"), error),
            }
        }
        queues
    }

    fn kinds(&mut self, all: &[KindSettings]) -> Vec<(Kind, HandlerSettings)> {
        if !(1..=KINDS_MAX).contains(&all.len()) {
            self.fault("kinds", format_args!("must have 1 to {KINDS_MAX} items"));
            return Vec::new();
        }
        let (mut kinds, mut known) = (Vec::with_capacity(all.len()), BTreeSet::new());
        for (index, said) in all.iter().enumerate() {
            let field = format!("kinds[{index}]");
            let settings = self.settings(&field, said);
            match said.kind.parse::<Kind>() {
                Ok(kind) if kind.is_reserved() => self.fault(format_args!("{field}.kind"), KIND_RESERVED),
                Ok(kind) if known.insert(kind.clone()) => kinds.push((kind, settings)),
                Ok(_) => self.fault(format_args!("{field}.kind"), "is there twice"),
                Err(error) => self.fault(format_args!("{field}.kind"), error),
            }
        }
        kinds
    }

    fn settings(&mut self, field: &str, said: &KindSettings) -> HandlerSettings {
        let mut settings = HandlerSettings::default();
        if let Some(timeout) = said.timeout {
            match Duration::try_from(timeout) {
                Ok(timeout) if (TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout) => settings.timeout = timeout,
                _ => self.fault(
                    format_args!("{field}.timeout"),
                    "must be from a millisecond to a week",
                ),
            }
        }
        if let Some(timeout) = said.heartbeat_timeout {
            match Duration::try_from(timeout) {
                Ok(timeout) if (TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout) => {
                    settings.heartbeat_timeout = Some(timeout);
                }
                _ => self.fault(
                    format_args!("{field}.heartbeat_timeout"),
                    "must be from a millisecond to a week",
                ),
            }
        }
        if let Some(attempts) = said.max_attempts {
            self.bounds(format_args!("{field}.max_attempts"), attempts, ATTEMPTS_MAX);
            settings.retry = RetryPolicy {
                attempts_max: attempts,
                ..settings.retry
            };
        }
        if let Some(concurrency) = said.concurrency {
            self.bounds(format_args!("{field}.concurrency"), concurrency, SLOTS_MAX);
            settings.concurrency = Some(concurrency as usize);
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    fn kind(name: &str) -> KindSettings {
        KindSettings {
            kind: name.to_owned(),
            ..KindSettings::default()
        }
    }

    fn hello() -> Hello {
        Hello {
            name: "host-1".to_owned(),
            kinds: vec![kind("resize")],
            slots: 4,
            ..Hello::default()
        }
    }

    #[test]
    fn what_is_not_said_has_defaults() {
        let accepted = accept(hello()).unwrap();
        assert_eq!(accepted.queues, [QueueName::default()]);
        assert_eq!(
            accepted.kinds,
            [("resize".parse().unwrap(), HandlerSettings::default())]
        );
        assert_eq!((accepted.slots, accepted.sdk.as_str()), (4, ""));
    }

    #[test]
    fn what_is_said_counts() {
        let said = KindSettings {
            timeout: Some(prost_types::Duration {
                seconds: 7,
                nanos: 500_000_000,
            }),
            max_attempts: Some(3),
            concurrency: Some(2),
            heartbeat_timeout: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
            ..kind("b")
        };
        let accepted = accept(Hello {
            queues: vec!["films".to_owned(), "default".to_owned()],
            kinds: vec![kind("a"), said],
            ..hello()
        })
        .unwrap();
        assert_eq!(accepted.queues.len(), 2);
        let settings = &accepted.kinds[1].1;
        assert_eq!(settings.timeout, Duration::from_millis(7_500));
        assert_eq!((settings.retry.attempts_max, settings.concurrency), (3, Some(2)));
        assert_eq!(settings.heartbeat_timeout, Some(Duration::from_secs(3)));
    }

    #[test]
    fn what_is_our_own_is_not_for_workers() {
        let status = accept(Hello {
            queues: vec!["default".to_owned(), forebay_core::WEBHOOK_QUEUE.to_owned()],
            kinds: vec![
                kind("forebay-webhook"),
                kind(forebay_core::WEBHOOK_KIND),
                kind("forebay.x"),
            ],
            ..hello()
        })
        .unwrap_err();
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        let fields: Vec<&str> = violations.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(fields, ["queues[1]", "kinds[1].kind", "kinds[2].kind"]);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let wrong = KindSettings {
            timeout: Some(prost_types::Duration {
                seconds: -1,
                nanos: 0,
            }),
            max_attempts: Some(0),
            concurrency: Some(10_001),
            heartbeat_timeout: Some(prost_types::Duration::default()),
            ..kind("Not A Kind")
        };
        let status = accept(Hello {
            name: String::new(),
            queues: vec!["good".to_owned(), "Bad!".to_owned()],
            kinds: vec![kind("twice"), kind("twice"), wrong],
            slots: 0,
            sdk: "x".repeat(129),
        })
        .unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(
            status.message(),
            "name: must have 1 to 128 bytes and no control characters (and 9 more)"
        );
        let details = status.get_error_details();
        let fields: Vec<&str> = details
            .bad_request()
            .unwrap()
            .field_violations
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(
            fields,
            [
                "name",
                "sdk",
                "queues[1]",
                "kinds[1].kind",
                "kinds[2].timeout",
                "kinds[2].heartbeat_timeout",
                "kinds[2].max_attempts",
                "kinds[2].concurrency",
                "kinds[2].kind",
                "slots"
            ]
        );
        for (many, field) in [
            (
                Hello {
                    kinds: Vec::new(),
                    ..hello()
                },
                "kinds",
            ),
            (
                Hello {
                    kinds: vec![kind("a"); 1_001],
                    ..hello()
                },
                "kinds",
            ),
            (
                Hello {
                    queues: vec!["a".to_owned(); 33],
                    ..hello()
                },
                "queues",
            ),
            (
                Hello {
                    name: "a\nb".to_owned(),
                    ..hello()
                },
                "name",
            ),
            (
                Hello {
                    slots: 10_001,
                    ..hello()
                },
                "slots",
            ),
        ] {
            let details = accept(many).unwrap_err().get_error_details();
            assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
        }
    }
}
