//! The names a user gives: kinds, queues, projects. Parsed once, at the edge, into types that cannot be wrong.

use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

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
    /// Whom a task belongs to.
    Project, "[a-z0-9][a-z0-9_-]{0,63}", b"_-"
);

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
