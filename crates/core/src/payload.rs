//! A payload is JSON *text*: it goes from request to row to handler as the bytes that came in.

use bytes::Bytes;
use serde_json::value::RawValue;
use thiserror::Error;

/// The largest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// How deep a payload may nest. Deeper text would be a trap for the parsers of handlers and browsers.
pub const PAYLOAD_DEPTH_MAX: usize = 100;

/// The text is not one JSON value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("is not valid JSON: {0}")]
pub struct InvalidJson(String);

/// One JSON value as text, known to be valid UTF-8 and valid JSON. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Bytes);

impl Json {
    /// The text `null`.
    #[must_use]
    pub fn null() -> Self {
        Self(Bytes::from_static(b"null"))
    }

    /// Checks that `text` is exactly one JSON value, and trims the white space around it.
    ///
    /// # Errors
    /// Where it is not; the message names line and column.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidJson> {
        let raw: &RawValue = serde_json::from_slice(text).map_err(|e| InvalidJson(e.to_string()))?;
        let json = Self::from_raw(raw);
        if json.depth() > PAYLOAD_DEPTH_MAX {
            return Err(InvalidJson(format!(
                "nested deeper than {PAYLOAD_DEPTH_MAX} levels"
            )));
        }
        Ok(json)
    }

    /// Takes text that serde has found to be JSON.
    #[must_use]
    pub fn from_raw(raw: &RawValue) -> Self {
        Self(Bytes::copy_from_slice(raw.get().as_bytes()))
    }

    /// Writes `value` as JSON.
    ///
    /// # Errors
    /// Where the value has no JSON form (a map with keys that are not strings, say).
    pub fn of<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, InvalidJson> {
        serde_json::to_vec(value)
            .map(|text| Self(text.into()))
            .map_err(|e| InvalidJson(e.to_string()))
    }

    /// Takes bytes that were checked before they were stored or sent; checks UTF-8 again, which is cheap,
    /// and not the grammar, which is not.
    ///
    /// # Errors
    /// Where they are not UTF-8.
    pub fn from_trusted(text: Bytes) -> Result<Self, InvalidJson> {
        match std::str::from_utf8(&text) {
            Ok(_) => Ok(Self(text)),
            Err(error) => Err(InvalidJson(error.to_string())),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("null")
    }

    /// The bytes of the text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the text, shared.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// How deep arrays and objects nest.
    #[must_use]
    pub fn depth(&self) -> usize {
        let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
        for &byte in self.0.iter() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'[' | b'{' if !in_string => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        deepest
    }
}

impl std::fmt::Debug for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Json({} bytes)", self.0.len())
    }
}

impl serde::Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.as_str()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_text_as_it_came() {
        for text in [
            r#"{"b":1,"a":1.0e2}"#,
            r#""\u0000\ud800""#,
            "123456789012345678901234567890",
        ] {
            assert_eq!(Json::parse(text.as_bytes()).unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_what_is_not_one_value() {
        for text in ["", "{", "1 2", "{'a':1}", "nul", "\u{0}"] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text:?} was accepted");
        }
        assert!(Json::parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn counts_depth_outside_strings_only() {
        assert_eq!(Json::parse(br#"{"[[[": [["]\"["]]}"#).unwrap().depth(), 3);
        let deep = "[".repeat(PAYLOAD_DEPTH_MAX + 1) + &"]".repeat(PAYLOAD_DEPTH_MAX + 1);
        assert!(Json::parse(deep.as_bytes()).is_err());
    }
}
