//! The deadline of a gRPC call: what its caller wrote into `grpc-timeout`.

use std::time::Duration;

use axum::http::HeaderMap;

use crate::error::{ApiError, Code, Result};

const HEADER: &str = "grpc-timeout";
/// What is longer is no deadline.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);
/// How many digits there may be.
const DIGITS_MAX: usize = 8;

/// How long the caller waits; `None` where it does not say.
pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(text) = headers.get(HEADER) else {
        return Ok(None);
    };
    let within = text.to_str().ok().and_then(parse).ok_or_else(|| {
        let detail = "must be 1 to 8 digits and a unit: H, M, S, m, u or n";
        ApiError::at(Code::InvalidParameter, format!("/{HEADER}"), detail)
    })?;
    Ok(Some(within).filter(|within| *within < LONGEST))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = digits.len() <= DIGITS_MAX && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| is_number)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_the_protocol() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3_600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("00000006n", Duration::from_nanos(6)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "S",
            "1",
            "123456789S",
            "+1S",
            "1.5S",
            "-1S",
            "1s",
            "1 S",
            "1ü",
            "1SS",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_deadline_is_none() {
        let header = |text: &str| HeaderMap::from_iter([(HEADER.parse().unwrap(), text.parse().unwrap())]);
        assert_eq!(of(&HeaderMap::new()), Ok(None));
        assert_eq!(of(&header("99999999H")), Ok(None));
        assert_eq!(of(&header("20S")), Ok(Some(Duration::from_secs(20))));
        let refused = of(&header("soon")).unwrap_err();
        assert_eq!((refused.code, refused.errors.len()), (Code::InvalidParameter, 1));
    }
}
