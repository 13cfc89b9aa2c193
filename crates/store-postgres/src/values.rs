//! How our values look to the database, through either driver.

use std::{borrow::Cow, error::Error as StdError, time::Duration};

use forebay_core::{Terms, Timestamp, from_unix_micros};
use forebay_store::Result;
use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull as SqlxIsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo, PgValueFormat, PgValueRef},
};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type as PgType, private::BytesMut};

use crate::error::corrupt;

/// 2000-01-01, from which Postgres counts, in microseconds since 1970.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// The longest duration that is written: a hundred years.
const DURATION_US_MAX: i64 = 100 * 366 * 24 * 3_600 * 1_000_000;

/// A `timestamptz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(pub(crate) Timestamp);

impl Instant {
    fn to_postgres(self) -> i64 {
        self.0.as_microsecond().saturating_sub(POSTGRES_EPOCH_US)
    }

    fn from_postgres(bytes: &[u8]) -> std::result::Result<Self, Box<dyn StdError + Send + Sync>> {
        let micros = i64::from_be_bytes(bytes.try_into()?);
        Ok(Self(from_unix_micros(micros.saturating_add(POSTGRES_EPOCH_US))))
    }
}

impl ToSql for Instant {
    fn to_sql(
        &self,
        _: &PgType,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(&self.to_postgres().to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &PgType) -> bool {
        *ty == PgType::TIMESTAMPTZ
    }

    tokio_postgres::types::to_sql_checked!();
}

impl<'a> FromSql<'a> for Instant {
    fn from_sql(_: &PgType, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn StdError + Sync + Send>> {
        Self::from_postgres(raw)
    }

    fn accepts(ty: &PgType) -> bool {
        *ty == PgType::TIMESTAMPTZ
    }
}

impl Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("TIMESTAMPTZ")
    }
}

impl Encode<'_, Postgres> for Instant {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> std::result::Result<SqlxIsNull, BoxDynError> {
        out.extend_from_slice(&self.to_postgres().to_be_bytes());
        Ok(SqlxIsNull::No)
    }
}

impl Decode<'_, Postgres> for Instant {
    fn decode(value: PgValueRef<'_>) -> std::result::Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => Self::from_postgres(value.as_bytes()?),
            PgValueFormat::Text => Err("a timestamp came as text".into()),
        }
    }
}

/// A duration in microseconds.
pub(crate) fn duration_us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).map_or(DURATION_US_MAX, |us| us.min(DURATION_US_MAX))
}

/// The duration of so many microseconds.
pub(crate) fn duration(us: i64) -> Duration {
    Duration::from_micros(us.unsigned_abs())
}

/// A count as an `integer`.
pub(crate) fn int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// An `integer` as a count.
pub(crate) fn count(int: i32) -> Result<u32> {
    u32::try_from(int).map_err(|_| corrupt(format!("the count {int}")))
}

/// A word of ours that the database holds as text.
pub(crate) fn word<T>(text: &str) -> Result<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e| corrupt(format!("{text:?} {e}")))
}

/// A task's terms, as the database holds them.
pub(crate) fn terms(json: Option<&str>) -> Result<Option<Box<Terms>>> {
    json.map(Terms::from_json)
        .transpose()
        .map_err(|e| corrupt(format!("terms: {e}")))
}

/// An array of texts in one text, since `unnest` can't take arrays of different lengths.
pub(crate) fn array_literal(items: &[String]) -> Cow<'static, str> {
    if items.is_empty() {
        return Cow::Borrowed("{}");
    }
    let mut literal = String::from("{");
    for (index, item) in items.iter().enumerate() {
        literal.push_str(if index == 0 { "\"" } else { ",\"" });
        for c in item.chars() {
            if matches!(c, '"' | '\\') {
                literal.push('\\');
            }
            literal.push(c);
        }
        literal.push('"');
    }
    literal.push('}');
    Cow::Owned(literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_literal_quotes_what_would_end_an_item() {
        let items = [String::from("a"), r#"b",{}\"#.into(), " ".into()];
        assert_eq!(array_literal(&items), r#"{"a","b\",{}\\"," "}"#);
        assert_eq!(array_literal(&[]), "{}");
    }

    #[test]
    fn a_duration_is_held_within_what_an_interval_can_add() {
        assert_eq!(duration_us(Duration::MAX), DURATION_US_MAX);
        assert_eq!(
            duration(duration_us(Duration::from_millis(1_500))),
            Duration::from_millis(1_500)
        );
    }
}
