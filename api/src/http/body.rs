//! Reads bodies: whole, bounded in size and in time, of the media type that is expected.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::{
    App,
    error::{ApiError, Code, Result},
};

/// Of a body that is refused for its size, so much is still read and dropped, for so long: a client that is cut
/// off while it sends does not get to see the answer.
const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
const DRAIN: Duration = Duration::from_secs(2);

/// The media types that bodies may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    Json,
    NdJson,
}

/// The media type of a request's body.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<MediaType> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next()?.to_ascii_lowercase();
    // JSON is UTF-8; whoever says otherwise would be misread.
    let is_utf8 = |parameter: &str| {
        let parameter = parameter.to_ascii_lowercase();
        parameter
            .strip_prefix("charset=")
            .is_none_or(|charset| matches!(charset.trim_matches('"'), "utf-8" | "utf8"))
    };
    if !parts.all(is_utf8) {
        return None;
    }
    match essence.as_str() {
        "application/json" => Some(MediaType::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(MediaType::NdJson),
        _ => None,
    }
}

/// The media type is not the right one.
pub(crate) fn unsupported(headers: &HeaderMap, expected: &str) -> ApiError {
    let given = match headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) {
        None => "there is no Content-Type".to_owned(),
        Some(Ok(text)) => format!(
            "the Content-Type is {:?}",
            text.chars().take(100).collect::<String>()
        ),
        Some(Err(_)) => "the Content-Type is not text".to_owned(),
    };
    ApiError::new(
        Code::UnsupportedMediaType,
        format!("{given}; expected {expected}"),
    )
}

/// Reads a body that must be JSON.
pub(crate) async fn read_json(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes> {
    if media_type(headers) != Some(MediaType::Json) {
        return Err(unsupported(headers, "application/json"));
    }
    read(headers, body, app.bounds.body_bytes, app.bounds.body).await
}

/// Reads a body of up to `bytes_max`, which must arrive within `within`.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    bytes_max: usize,
    within: Duration,
) -> Result<Bytes> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|bytes| bytes > bytes_max) {
        // A client that expects a word before it sends need not send at all.
        if !headers.contains_key(header::EXPECT) {
            drain(body).await;
        }
        return Err(too_large(bytes_max));
    }
    // Copied, small as it is: the connection goes on reading into the buffer that this is a part of.
    let mut all = BytesMut::with_capacity(declared.unwrap_or(0));
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::new(Code::MalformedJson, "the body ended too early"))?;
            let Ok(data) = frame.into_data() else { continue };
            if all.len() + data.len() > bytes_max {
                return Ok(false);
            }
            all.extend_from_slice(&data);
        }
        Ok(true)
    };
    match timeout(within, reading).await {
        Ok(Ok(true)) => Ok(all.freeze()),
        Ok(Ok(false)) => {
            drain(body).await;
            Err(too_large(bytes_max))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ApiError::of(Code::BodyTimeout)),
    }
}

/// Reads on to the end, as far as is reasonable.
pub(crate) async fn drain(mut body: Body) {
    let mut dropped = 0;
    let draining = async {
        while let Some(Ok(frame)) = body.frame().await {
            dropped += frame.data_ref().map_or(0, Bytes::len);
            if dropped > DRAIN_BYTES_MAX {
                return;
            }
        }
    };
    // Whether it was read to its end makes no difference to the answer.
    let _ = timeout(DRAIN, draining).await;
}

fn too_large(bytes_max: usize) -> ApiError {
    ApiError::new(
        Code::BodyTooLarge,
        format!("the body must have at most {bytes_max} bytes"),
    )
}
