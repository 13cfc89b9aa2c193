//! Each request has an id: the caller's `X-Request-Id` where that is harmless, else a new one. It is echoed.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use forebay_runtime::supervise::random_bytes;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over.
const BYTES_MAX: usize = 128;

/// The request's id.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(HEADER)
        .filter(|value| is_harmless(value.as_bytes()));
    let id = given.cloned().unwrap_or_else(make);
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    response.headers_mut().insert(HEADER, id);
    response
}

fn is_harmless(id: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(allowed)
}

fn make() -> HeaderValue {
    let hex: String = random_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&hex).unwrap_or_else(|_| HeaderValue::from_static("none"))
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
