//! What a submission looks like in JSON.

use std::{fmt, marker::PhantomData};

use axum::http::HeaderMap;
use bytes::Bytes;
use forebay_core::{
    Json, RetryRequest, SubmitRequest, TermsRequest, Timestamp, TraceParent, UniqueRequest, Violation,
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{error::Category, value::RawValue};

use crate::{
    error::{ApiError, Code, Result},
    ops::submit::Asked,
};

/// The members of a submission. Unknown ones are refused, so that a typo is not a silent default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubmitBody<'a> {
    #[serde(default)]
    kind: String,
    queue: Option<String>,
    project: Option<String>,
    priority: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    tags: Option<Vec<String>>,
    run_at: Option<String>,
    delay_seconds: Option<f64>,
    max_attempts: Option<Whole>,
    timeout_seconds: Option<f64>,
    idempotency_key: Option<String>,
    expires_at: Option<String>,
    schedule_to_start_timeout_seconds: Option<f64>,
    heartbeat_timeout_seconds: Option<f64>,
    // Boxed, since few have them, and all are moved about.
    retry: Option<Box<Members<RetryRequest>>>,
    limit_key: Option<String>,
    unique: Option<Box<Members<UniqueRequest>>>,
    after: Option<Vec<String>>,
    on_dependency_failure: Option<String>,
    notify: Option<Vec<String>>,
}

/// What is said of a body that is no object.
const NO_TASK: &str = "a task must be a JSON object, such as {\"kind\": \"echo\"}";

/// Reads a submission. The payload stays the text that came.
pub(crate) fn parse(text: &Bytes) -> Result<Asked> {
    let body: SubmitBody<'_> = object(text, NO_TASK)?;
    Ok(body.asked(text))
}

/// Reads an object. `otherwise` is said of anything else.
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a [u8], otherwise: &str) -> Result<T> {
    let body = serde_json::from_slice(text).map_err(|error| explain::<T>(text, &error, otherwise))?;
    // serde would read an array of the members' values, too.
    if !is_object(text) {
        return Err(not_an_object(otherwise));
    }
    Ok(body)
}

/// Reads the submissions of an array in one go. `None` where anything at all is wrong with it: which item, and what, is
/// found out by reading them one by one.
pub(crate) fn parse_all(text: &Bytes, items_max: usize) -> Option<Vec<Asked>> {
    let bodies: Vec<Object<'_>> = serde_json::from_slice(text).ok()?;
    let asked = |Members(body): Object<'_>| body.asked(text);
    (bodies.len() <= items_max).then(|| bodies.into_iter().map(asked).collect())
}

/// A submission that is an object for certain.
pub(crate) type Object<'a> = Members<SubmitBody<'a>>;

/// What is an object for certain: serde would read an array of the members' values, too.
#[derive(Debug)]
pub(crate) struct Members<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Members<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> std::result::Result<Members<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Members)
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

impl SubmitBody<'_> {
    /// What it asks for; its payload is a part of `text`.
    pub(crate) fn asked(self, text: &Bytes) -> Asked {
        let body = self;
        let mut violations = Vec::new();
        let run_at = time(body.run_at.as_deref(), "/run_at", &mut violations);
        let terms = TermsRequest {
            expires_at: time(body.expires_at.as_deref(), "/expires_at", &mut violations),
            schedule_to_start_timeout_seconds: body.schedule_to_start_timeout_seconds,
            heartbeat_timeout_seconds: body.heartbeat_timeout_seconds,
            retry: body.retry.map(|retry| retry.0),
            limit_key: body.limit_key,
            unique: body.unique.map(|unique| unique.0),
            after: body.after.unwrap_or_default(),
            on_dependency_failure: body.on_dependency_failure,
            notify: body.notify.unwrap_or_default(),
            batch: None,
        };
        let request = SubmitRequest {
            kind: body.kind,
            queue: body.queue,
            project: body.project,
            priority: body.priority,
            payload: body.payload.map(|raw| payload(text, raw)),
            tags: body.tags.unwrap_or_default(),
            run_at,
            delay_seconds: body.delay_seconds,
            max_attempts: body.max_attempts.map(|number| number.0),
            timeout_seconds: body.timeout_seconds,
            idempotency_key: body.idempotency_key,
            traceparent: None,
            terms,
        };
        Asked { request, violations }
    }
}

pub(crate) fn time(text: Option<&str>, pointer: &str, violations: &mut Vec<Violation>) -> Option<Timestamp> {
    let parsed = text?.parse::<Timestamp>();
    if parsed.is_err() {
        let detail = "must be an RFC 3339 time, such as 2026-03-01T12:00:00Z";
        violations.push(Violation::invalid(pointer, detail));
    }
    parsed.ok()
}

/// The payload as a part of the text that it came in.
pub(crate) fn payload(text: &Bytes, raw: &RawValue) -> Json {
    let part = text.slice_ref(raw.get().as_bytes());
    Json::from_trusted(part).unwrap_or_else(|_| Json::from_raw(raw))
}

impl Asked {
    /// Adds what the headers of a single submission say.
    pub(crate) fn with_headers(
        mut self,
        headers: &HeaderMap,
        traceparent: Option<TraceParent>,
    ) -> Result<Self> {
        if self.request.idempotency_key.is_some() {
            let detail =
                "is a member of the items of a batch: here it belongs into the header Idempotency-Key";
            return Err(ApiError::at(Code::InvalidBody, "/idempotency_key", detail));
        }
        self.request.traceparent = traceparent;
        match key_in(headers) {
            Ok(key) => self.request.idempotency_key = key,
            Err(detail) => self
                .violations
                .push(Violation::invalid("/idempotency_key", detail)),
        }
        Ok(self)
    }
}

/// The key in the header, which the draft writes as a quoted string and most clients do not.
pub(crate) fn key_in(headers: &HeaderMap) -> std::result::Result<Option<String>, &'static str> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err("must be given once");
    }
    let text = value
        .to_str()
        .map_err(|_| "must be 1 to 255 printable ASCII characters")?;
    let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let unquoted = unquoted.filter(|key| !key.is_empty());
    Ok(Some(unquoted.unwrap_or(text).to_owned()))
}

/// Says what is wrong with a body that could not be read. Reads it again, to find out where; only refused
/// requests pay for that.
fn explain<'a, T: Deserialize<'a>>(text: &'a [u8], error: &serde_json::Error, otherwise: &str) -> ApiError {
    if matches!(error.classify(), Category::Syntax | Category::Eof | Category::Io) {
        return malformed(error);
    }
    if !is_object(text) {
        return not_an_object(otherwise);
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut reader) else {
        return malformed(error);
    };
    let mut pointer: String = error.path().iter().map(segment).collect();
    let detail = without_place(&error.inner().to_string());
    if let Some(member) = detail
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split('`').next())
        && !pointer.ends_with(&escape(member))
    {
        pointer = format!("{pointer}/{}", escape(member));
    }
    ApiError::at(Code::InvalidBody, pointer, detail)
}

fn is_object(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{")
}

fn not_an_object(detail: &str) -> ApiError {
    ApiError::at(Code::InvalidBody, "", detail)
}

/// The text is not JSON.
pub(crate) fn malformed(error: &serde_json::Error) -> ApiError {
    let detail = match error.classify() {
        Category::Eof if error.line() <= 1 && error.column() == 0 => "the body is empty".to_owned(),
        _ => error.to_string(),
    };
    ApiError::new(Code::MalformedJson, detail)
}

fn segment(segment: &serde_path_to_error::Segment) -> String {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", escape(key)),
        Segment::Enum { variant } => format!("/{}", escape(variant)),
        Segment::Unknown => String::new(),
    }
}

/// Escapes a member's name for a JSON pointer, and cuts what is too long to be shown.
fn escape(name: &str) -> String {
    let short: String = name.chars().take(100).collect();
    short.replace('~', "~0").replace('/', "~1")
}

/// serde_json adds line and column, which the pointer says better; and a client's text may be long.
fn without_place(message: &str) -> String {
    let cut = message.rfind(" at line ").map_or(message, |at| &message[..at]);
    let unknown = cut.strip_prefix("unknown field `");
    match unknown.and_then(|rest| rest.rsplit_once("`, expected ")) {
        // All that is known is told, however much that is; the name is the client's.
        Some((name, known)) => {
            let short: String = name.chars().take(100).collect();
            format!("unknown field `{short}`, expected {known}")
        }
        None => cut.chars().take(300).collect(),
    }
}

/// A whole number, however it is written: `3` and `3.0` are the same number in JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole(pub(crate) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E>(self, number: i64) -> std::result::Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_u64<E>(self, number: u64) -> std::result::Result<Whole, E> {
                Ok(Whole(i64::try_from(number).unwrap_or(i64::MAX)))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> std::result::Result<Whole, E> {
                if number.fract() == 0.0 {
                    // Saturates, and is then out of every range.
                    return Ok(Whole(number as i64));
                }
                Err(E::invalid_type(serde::de::Unexpected::Float(number), &self))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
