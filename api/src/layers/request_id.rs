//! Each request has an id: the caller's `X-Request-Id` where that is harmless, else a new one. It is echoed.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use forebay_runtime::supervise::random_bytes;

/// The header.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over.
const BYTES_MAX: usize = 128;

/// The request's id.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) HeaderValue);

impl RequestId {
    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// The id of the request with these headers.
pub(crate) fn of(headers: &HeaderMap) -> RequestId {
    let given = headers.get(HEADER).filter(|value| is_harmless(value.as_bytes()));
    RequestId(given.cloned().unwrap_or_else(make))
}

fn is_harmless(id: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(allowed)
}

fn make() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random = random_bytes();
    let mut hex = [0; 20];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(random) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    HeaderValue::from_bytes(&hex).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use super::is_harmless;

    #[test]
    fn takes_over_ids_and_nothing_else() {
        assert!(is_harmless(b"4bf92f35-77b3:a/b+c=@_."));
        let long = [b'a'; 129];
        for bad in [&b""[..], b"a b", b"<script>", b"a\"b", b"\xff", &long] {
            assert!(!is_harmless(bad), "{bad:?}");
        }
    }
}
