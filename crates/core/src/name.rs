//! The names a user gives: kinds, queues, projects. Parsed once, at the edge, into types that cannot be wrong.

use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// How the kinds begin that are Forebay's own.
pub(crate) const KINDS_RESERVED: &str = "forebay.";

/// Why a name was refused. The text says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "must match {pattern}: it starts with a lower-case letter or digit, and has at most {NAME_BYTES_MAX} characters"
)]
pub struct InvalidName {
    /// The regular expression that a valid name matches.
    pub pattern: &'static str,
}

fn is_valid(name: &str, extra: &[u8]) -> bool {
    let bytes = name.as_bytes();
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= NAME_BYTES_MAX
        && bytes.first().is_some_and(|&first| alphanumeric(first))
        && bytes.iter().all(|&b| alphanumeric(b) || extra.contains(&b))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $pattern:literal, $extra:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The regular expression that every value of this type matches.
            pub const PATTERN: &'static str = $pattern;

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                if is_valid(name, $extra) {
                    Ok(Self(name.into()))
                } else {
                    Err(InvalidName { pattern: Self::PATTERN })
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name!(
    /// What a task does: the name that a worker maps to a handler, such as `invoice.created`.
    Kind, "[a-z0-9][a-z0-9._-]{0,63}", b"._-"
);
name!(
    /// A pool of workers. Shared infrastructure, and what an autoscaler scales.
    QueueName, "[a-z0-9][a-z0-9_-]{0,63}", b"_-"
);
name!(
    /// Names a schedule.
    ScheduleName, "[a-z0-9][a-z0-9._-]{0,63}", b"._-"
);
name!(
    /// Names a limit on how many tasks run, or start, at a time.
    LimitName, "[a-z0-9][a-z0-9._-]{0,63}", b"._-"
);
name!(
    /// Names a webhook that hears of the ends of tasks.
    WebhookName, "[a-z0-9][a-z0-9._-]{0,63}", b"._-"
);
name!(
    /// Whom a task belongs to.
    Project, "[a-z0-9][a-z0-9_-]{0,63}", b"_-"
);

impl Kind {
    /// Whether it is one of Forebay's own (they begin with `forebay.`), which nobody else submits or runs.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.as_str().starts_with(KINDS_RESERVED)
    }
}

impl QueueName {
    /// Whether it is Forebay's own, which nobody else submits to or reads.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.as_str() == crate::WEBHOOK_QUEUE
    }
}

/// What tasks have in common that count to a limit together, such as a customer's number: any text of 1 to 128 bytes
/// without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct LimitKey(Arc<str>);

/// Why a limit's key was refused. The text says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must have 1 to {KEY_BYTES_MAX} bytes and no control characters")]
pub struct InvalidLimitKey;

/// The longest key of a limit, in bytes.
const KEY_BYTES_MAX: usize = 128;

impl LimitKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LimitKey {
    type Err = InvalidLimitKey;

    fn from_str(key: &str) -> Result<Self, InvalidLimitKey> {
        let is_sound = (1..=KEY_BYTES_MAX).contains(&key.len()) && !key.chars().any(char::is_control);
        is_sound.then(|| Self(key.into())).ok_or(InvalidLimitKey)
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for LimitKey {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Default for QueueName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl Default for Project {
    fn default() -> Self {
        Self("default".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_may_have_dots_and_a_queue_may_not() {
        assert!("invoice.created".parse::<Kind>().is_ok());
        assert!("invoice.created".parse::<QueueName>().is_err());
    }

    #[test]
    fn refuses_what_a_subject_or_a_label_could_not_carry() {
        for bad in [
            "",
            " ",
            "a b",
            "A",
            ".a",
            "-a",
            "a*",
            "a>",
            "ä",
            "a\n",
            &"a".repeat(65),
        ] {
            assert!(bad.parse::<Kind>().is_err(), "{bad:?} was accepted");
        }
        assert!("a".repeat(64).parse::<Kind>().is_ok());
    }
}
