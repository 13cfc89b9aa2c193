//! The fields of a message, written and read in place: what travels for each task is not worth a structure of its own
//! with a copy of every text in it. The bytes are those that the generated code writes, and are read by its rules: the
//! last of several counts, and what is unknown is passed over.

use bytes::{Buf, Bytes};
use forebay_core::{Kind, Lane, Project, QueueName};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

use super::DecodeError;

/// Writes a text or bytes, unless there are none.
pub(super) fn put(tag: u32, value: &[u8], body: &mut Vec<u8>) {
    if !value.is_empty() {
        put_always(tag, value, body);
    }
}

/// Writes bytes, even if there are none.
pub(crate) fn put_always(tag: u32, value: &[u8], body: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, body);
    encode_varint(value.len() as u64, body);
    body.extend_from_slice(value);
}

/// Writes a number.
pub(super) fn put_number(tag: u32, value: u64, body: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, body);
    encode_varint(value, body);
}

/// Writes a number, where there is one.
pub(super) fn put_some(tag: u32, value: Option<u64>, body: &mut Vec<u8>) {
    if let Some(value) = value {
        put_number(tag, value, body);
    }
}

/// A field's value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Result<u64, DecodeError> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err(DecodeError("a number is not one".to_owned())),
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(DecodeError("a text is not one".to_owned())),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|error| DecodeError(error.to_string()))
    }
}

/// Reads the fields of `body`, of which the message has those up to `last`.
pub(crate) fn each<'a>(
    body: &'a Bytes,
    last: u32,
    mut take: impl FnMut(u32, Value<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let unreadable = |error: prost::DecodeError| DecodeError(error.to_string());
    let mut rest: &[u8] = body;
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(unreadable)?;
        match wire_type {
            WireType::Varint if tag <= last => {
                take(tag, Value::Number(decode_varint(&mut rest).map_err(unreadable)?))?;
            }
            WireType::LengthDelimited if tag <= last => {
                let len = decode_varint(&mut rest).map_err(unreadable)?;
                let value = usize::try_from(len)
                    .ok()
                    .and_then(|len| rest.split_at_checked(len));
                let (value, behind) = value.ok_or_else(|| DecodeError("it ends too early".to_owned()))?;
                rest = behind;
                take(tag, Value::Bytes(value))?;
            }
            _ if tag <= last => return Err(DecodeError(format!("field {tag} is of another type"))),
            _ => skip_field(wire_type, tag, &mut rest, DecodeContext::default()).map_err(unreadable)?,
        }
    }
    debug_assert!(!rest.has_remaining());
    Ok(())
}

/// The names that were read last: most messages have the same, and a name is cheaper to share than to make.
#[derive(Debug, Default)]
pub(crate) struct Names {
    kind: Option<Kind>,
    project: Option<Project>,
    queue: Option<QueueName>,
}

macro_rules! name {
    ($name:ident, $type:ident) => {
        pub(super) fn $name(&mut self, text: &str) -> Result<$type, DecodeError> {
            if let Some(known) = self.$name.as_ref().filter(|known| known.as_str() == text) {
                return Ok(known.clone());
            }
            let parsed = text.parse::<$type>();
            let parsed = parsed.map_err(|error| DecodeError::in_field(stringify!($name), error))?;
            Ok(self.$name.insert(parsed).clone())
        }
    };
}

impl Names {
    name!(kind, Kind);
    name!(project, Project);
    name!(queue, QueueName);

    pub(super) fn lane(&mut self, queue: &str, priority: &str) -> Result<Lane, DecodeError> {
        let priority = priority.parse();
        Ok(Lane {
            queue: self.queue(queue)?,
            priority: priority.map_err(|error| DecodeError::in_field("priority", error))?,
        })
    }
}
