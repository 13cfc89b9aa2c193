//! What an endpoint answered, and what that means for the task.

use std::time::Duration;

use forebay_core::{Json, Timestamp};
use reqwest::{Response, StatusCode, header::RETRY_AFTER};

use crate::handlers::{HandlerError, HandlerResult, RESULT_BYTES_MAX};

/// The longest wait that an endpoint can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// How much of an error's body is read, in bytes, and quoted, in characters.
const ERROR_BYTES_MAX: usize = 4 * 1024;
const QUOTE_CHARS_MAX: usize = 200;

/// An answer, read as far as it matters.
pub(super) struct Answer {
    status: StatusCode,
    retry_after: Option<String>,
    body: Vec<u8>,
    /// There was more than was read.
    cut: bool,
}

/// Reads an answer; no more of it than can be used.
pub(super) async fn read(mut response: Response) -> reqwest::Result<Answer> {
    let status = response.status();
    let bytes_max = if status.is_success() {
        RESULT_BYTES_MAX
    } else {
        ERROR_BYTES_MAX
    };
    let retry_after = response.headers().get(RETRY_AFTER);
    let mut answer = Answer {
        status,
        retry_after: retry_after
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned),
        body: Vec::new(),
        cut: false,
    };
    while let Some(chunk) = response.chunk().await? {
        let room = bytes_max - answer.body.len();
        answer.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            answer.cut = true;
            break;
        }
    }
    Ok(answer)
}

impl Answer {
    /// What the answer of `host` means. `now` is for a `Retry-After` that names a date.
    pub(super) fn judge(self, host: &str, now: Timestamp) -> HandlerResult {
        let status = self.status;
        if status.is_success() {
            return self.result(host);
        }
        if status.is_redirection() {
            return Err(HandlerError::permanent(format_args!(
                "{host} answered {status}: redirects are not followed, configure the address it leads to"
            )));
        }
        let is_temporary = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
        match is_temporary {
            true => Err(self.declined(host, now)),
            false => Err(HandlerError::permanent(self.message(host))),
        }
    }

    /// It may be otherwise later: not before what the answer of `host` asks for.
    pub(super) fn declined(&self, host: &str, now: Timestamp) -> HandlerError {
        let message = self.message(host);
        let asked = self.retry_after.as_deref();
        match asked.and_then(|value| parse_retry_after(value, now)) {
            Some(delay) => HandlerError::retry_after(delay, message),
            None => HandlerError::retryable(message),
        }
    }

    fn message(&self, host: &str) -> String {
        let mut message = format!("{host} answered {}", self.status);
        if let Some(quote) = self.quote() {
            message.push_str(": ");
            message.push_str(&quote);
        }
        message
    }

    fn result(self, host: &str) -> HandlerResult {
        let too_long = || {
            HandlerError::permanent(format_args!(
                "{host} answered {} with more than {RESULT_BYTES_MAX} bytes, which is the most a result may have",
                self.status
            ))
        };
        if self.cut {
            return Err(too_long());
        }
        if self.body.trim_ascii().is_empty() {
            return Ok(Json::null());
        }
        if let Ok(json) = Json::parse(&self.body) {
            return Ok(json);
        }
        let text = Json::of(&*String::from_utf8_lossy(&self.body)).map_err(HandlerError::permanent)?;
        // As a JSON string it may have become longer.
        if text.as_bytes().len() > RESULT_BYTES_MAX {
            return Err(too_long());
        }
        Ok(text)
    }

    /// The beginning of the body, fit for a message.
    fn quote(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body);
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let quote: String = text.trim().chars().take(QUOTE_CHARS_MAX).map(plain).collect();
        (!quote.is_empty()).then_some(quote)
    }
}

/// The wait that a `Retry-After` asks for, in seconds or as a date. `None` where it is neither.
fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let delay = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // What is too large for the type is too large for us.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
        // A date that has passed asks for no wait.
        Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(delay.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_seconds_or_a_date_and_has_a_bound() {
        let now = "1994-11-06T08:49:00Z".parse().unwrap();
        let seconds = |value| parse_retry_after(value, now).map(|delay| delay.as_secs());
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("3601"), Some(3_600));
        assert_eq!(seconds("99999999999999999999999"), Some(3_600));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(37));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:48:37 GMT"), Some(0));
        assert_eq!(seconds("Mon, 06 Nov 1995 08:49:37 GMT"), Some(3_600));
        for nonsense in ["", "soon", "-1", "1.5", "+3", "2026-01-01T00:00:00Z"] {
            assert_eq!(seconds(nonsense), None, "{nonsense:?}");
        }
    }
}
