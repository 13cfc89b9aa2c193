//! Reads what paths, queries and headers say. Unknown and repeated parameters are refused like unknown members of
//! a body, so that a typo is not a silent default.

use std::{convert::Infallible, fmt::Display, str::FromStr, time::Duration};

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{HeaderMap, request::Parts},
};
use forebay_core::{BatchId, Kind, OperationId, QueueName, TaskId, Timestamp, TraceParent};
use url::form_urlencoded;

use crate::{
    error::{ApiError, Code, FieldError, Result},
    layers::trace::RequestTrace,
    ops::{self, page},
};

/// The `{id}` of a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Id(pub(crate) TaskId);

/// The `{id}` of a path: a batch's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch(pub(crate) BatchId);

/// The `{queue}` of a path.
#[derive(Debug, Clone)]
pub(crate) struct Queue(pub(crate) QueueName);

/// The `{operation}` of a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OperationPath(pub(crate) OperationId);

/// The `{name}` of a path, of whatever has one.
#[derive(Debug, Clone)]
pub(crate) struct Named<T>(pub(crate) T);

/// The `{kind}` of a path.
#[derive(Debug, Clone)]
pub(crate) struct KindPath(pub(crate) Kind);

/// The `{code}` of a path.
#[derive(Debug, Clone)]
pub(crate) struct CodeName(pub(crate) String);

async fn path_param<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| {
            ApiError::at(
                Code::InvalidParameter,
                format!("/{name}"),
                "must be percent-encoded UTF-8",
            )
        })?;
    let value = params
        .iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned());
    value.ok_or_else(|| ApiError::of(Code::UnknownPath))
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        ops::get::parse_id(&path_param(parts, state, "id").await?).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Batch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        ops::batches::parse_id(&path_param(parts, state, "id").await?).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Queue {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let name = path_param(parts, state, "queue").await?;
        name.parse()
            .map(Self)
            .map_err(|error| ApiError::at(Code::InvalidParameter, "/queue", error))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OperationPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        ops::operations::parse_id(&path_param(parts, state, "operation").await?).map(Self)
    }
}

impl<S: Send + Sync, T: FromStr<Err: Display>> FromRequestParts<S> for Named<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let name = path_param(parts, state, "name").await?;
        name.parse()
            .map(Self)
            .map_err(|error| ApiError::at(Code::InvalidParameter, "/name", error))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for KindPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let kind = path_param(parts, state, "kind").await?;
        kind.parse()
            .map(Self)
            .map_err(|error| ApiError::at(Code::InvalidParameter, "/kind", error))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for CodeName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        path_param(parts, state, "code").await.map(Self)
    }
}

/// The trace that travels on with what this request submits.
#[derive(Debug, Clone)]
pub(crate) struct Trace(pub(crate) Option<TraceParent>);

impl<S: Send + Sync> FromRequestParts<S> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Infallible> {
        let trace = parts.extensions.get::<RequestTrace>();
        Ok(Self(trace.and_then(|trace| trace.traceparent.clone())))
    }
}

/// The parameters of a query, to be taken one by one.
#[derive(Debug)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    wrong: Vec<FieldError>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Infallible> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self {
            pairs: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            wrong: Vec::new(),
        })
    }
}

impl Query {
    /// Takes a parameter out as text.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let mut values = Vec::new();
        self.pairs.retain_mut(|(key, value)| {
            let other = key != name;
            if !other {
                values.push(std::mem::take(value));
            }
            other
        });
        if values.len() > 1 {
            self.fault(name, "must be given once");
        }
        values.pop()
    }

    /// Takes a parameter out and parses it.
    pub(crate) fn parsed<T: FromStr>(&mut self, name: &str) -> Option<T>
    where
        T::Err: ToString,
    {
        let parsed = self.text(name)?.parse::<T>();
        parsed.map_err(|error| self.fault(name, &error.to_string())).ok()
    }

    /// Takes a time out.
    pub(crate) fn time(&mut self, name: &str) -> Option<Timestamp> {
        let text = self.text(name)?;
        let parsed = text.parse();
        if parsed.is_err() {
            self.fault(
                name,
                "must be an RFC 3339 time, such as 2026-03-01T12:00:00Z (a + is written %2B)",
            );
        }
        parsed.ok()
    }

    /// Takes out which page of a list is asked for.
    pub(crate) fn page(&mut self) -> page::Asked {
        page::Asked {
            page_size: self.parsed("page_size"),
            page_token: self.text("page_token"),
        }
    }

    /// Refuses what is wrong and what is left.
    pub(crate) fn done(mut self) -> Result<()> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            self.fault(&name, "is not a parameter of this path");
        }
        if self.wrong.is_empty() {
            return Ok(());
        }
        Err(ApiError::fields(Code::InvalidParameter, self.wrong))
    }

    fn fault(&mut self, name: &str, detail: &str) {
        /// The most faults that are told.
        const FAULTS_MAX: usize = 20;
        if self.wrong.len() < FAULTS_MAX {
            let name: String = name.chars().take(100).collect();
            self.wrong.push(FieldError {
                pointer: format!("/{}", name.replace('~', "~0").replace('/', "~1")),
                detail: detail.to_owned(),
            });
        }
    }
}

/// How long a client prefers to wait, as in RFC 7240; what is malformed is ignored, as it says.
pub(crate) fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok());
    preferences
        .flat_map(|text| text.split(','))
        .find_map(|preference| {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("wait") {
                return None;
            }
            value
                .trim()
                .trim_matches('"')
                .parse()
                .ok()
                .map(Duration::from_secs)
        })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn reads_the_preference_to_wait() {
        let wait = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", HeaderValue::from_static(text));
            prefer_wait(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("wait=10"), Some(10));
        assert_eq!(wait("respond-async, Wait = \"5\"; foo"), Some(5));
        for ignored in ["", "wait", "wait=", "wait=-1", "wait=x", "waiting=5", "wait=1.5"] {
            assert_eq!(wait(ignored), None, "{ignored:?}");
        }
    }
}
