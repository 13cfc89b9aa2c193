//! What payloads of a kind must look like, by a JSON Schema that was registered.

use std::{fmt, str::FromStr};

use crate::{Json, Kind, Timestamp};

/// The most kinds that may have a schema at once.
pub const KIND_SCHEMAS_MAX: usize = 500;
/// How many versions of a kind's schema are kept, the latest among them.
pub const SCHEMA_VERSIONS_MAX: u32 = 100;

/// What becomes of a submission whose payload does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SchemaMode {
    /// It is refused.
    #[default]
    Enforce,
    /// It is accepted, and the log tells of it.
    Warn,
}

/// The text names none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be one of enforce, warn")]
pub struct UnknownSchemaMode;

impl SchemaMode {
    /// The name used in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Warn => "warn",
        }
    }
}

impl fmt::Display for SchemaMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SchemaMode {
    type Err = UnknownSchemaMode;

    fn from_str(text: &str) -> Result<Self, UnknownSchemaMode> {
        match text {
            "enforce" => Ok(Self::Enforce),
            "warn" => Ok(Self::Warn),
            _ => Err(UnknownSchemaMode),
        }
    }
}

/// A version of what payloads of a kind must look like.
#[derive(Debug, Clone, PartialEq)]
pub struct KindSchema {
    /// The kind.
    pub kind: Kind,
    /// Counted from 1 for each kind, and never given twice.
    pub version: u32,
    /// What becomes of what does not fit.
    pub mode: SchemaMode,
    /// The schema, as the text that was sent.
    pub schema: Json,
    /// When it was registered.
    pub created_at: Timestamp,
}
