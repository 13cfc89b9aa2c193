//! What can go wrong, in words for the person who called.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

/// What a method of the client returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call did not succeed.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// No answer came, or it broke off.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// Whom.
        url: String,
        /// Why, down to the first cause.
        reason: String,
    },
    /// The server answered, and refused.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The server answered something that this client does not understand: is it a Forebay server?
    #[error("{url} answered {answer}: is it a Forebay server?")]
    Unexpected {
        /// Who.
        url: String,
        /// The answer, or what is wrong with it.
        answer: String,
    },
}

impl Error {
    /// Whether there is nobody to ask at the moment: no server, or one that can't serve now.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => problem.status == 503,
            Self::Unexpected { .. } => false,
        }
    }

    /// How long to wait before trying again, where the server says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(problem) => problem.retry_after_seconds.map(Duration::from_secs),
            Self::Unreachable { .. } | Self::Unexpected { .. } => None,
        }
    }

    pub(crate) fn unreachable(error: &reqwest::Error, base: &url::Url) -> Self {
        // reqwest's own text only repeats the URL; the cause is at the end of the chain.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let reason = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            cause.to_string()
        };
        Self::Unreachable {
            url: shown(base),
            reason,
        }
    }
}

/// A URL without what is secret in it.
pub(crate) fn shown(url: &url::Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() {
        // Fails only for URLs without a host, which the client refuses.
        let _ = url.set_password(Some("****"));
    }
    url.as_str().trim_end_matches('/').to_owned()
}

/// An RFC 9457 problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The stable name of the error.
    #[serde(default)]
    pub code: String,
    /// What the code means.
    #[serde(default)]
    pub title: String,
    /// What went wrong this time.
    #[serde(default)]
    pub detail: String,
    /// The fields at fault.
    #[serde(default)]
    pub errors: Vec<FieldError>,
    /// The trace, for the server's operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// How long the server asks to wait before trying again.
    #[serde(skip)]
    pub retry_after_seconds: Option<u64>,
}

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// A JSON pointer into the request.
    pub pointer: String,
    /// What is wrong and what is allowed.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        // The detail tells a single field at fault already, and several are listed.
        let has_detail = !self.detail.is_empty() && self.detail != self.title;
        if has_detail && self.errors.len() <= 1 {
            return write!(f, ": {} ({}, {})", self.detail, self.code, self.status);
        }
        write!(f, " ({}, {})", self.code, self.status)?;
        for field in &self.errors {
            write!(
                f,
                "\n  {} {}",
                field.pointer.trim_start_matches('/'),
                field.detail
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_a_sentence_with_its_fields() {
        let text = r#"{"type":"/docs/errors/invalid_request","title":"Not allowed","status":422,
            "detail":"Not allowed","code":"invalid_request",
            "errors":[{"pointer":"/kind","detail":"must match x"}]}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(
            problem.to_string(),
            "Not allowed (invalid_request, 422)\n  kind must match x"
        );
    }

    #[test]
    fn a_single_field_that_the_detail_tells_is_not_told_again() {
        let text = r#"{"title":"Not allowed","status":422,"detail":"kind: must match x","code":"invalid_request",
            "errors":[{"pointer":"/kind","detail":"must match x"}]}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(
            problem.to_string(),
            "Not allowed: kind: must match x (invalid_request, 422)"
        );
    }

    #[test]
    fn several_fields_are_told_once_each() {
        let text = r#"{"title":"Not allowed","status":422,"detail":"kind: wrong (and 1 more)","code":"invalid_request",
            "errors":[{"pointer":"/kind","detail":"wrong"},{"pointer":"/queue","detail":"wrong"}]}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(
            problem.to_string(),
            "Not allowed (invalid_request, 422)\n  kind wrong\n  queue wrong"
        );
    }

    #[test]
    fn a_password_in_the_url_does_not_show() {
        let url = url::Url::parse("https://me:geheim@example.org/").unwrap();
        assert_eq!(shown(&url), "https://me:****@example.org");
    }
}
