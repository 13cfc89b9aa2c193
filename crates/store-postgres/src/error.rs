//! What a driver's error means to the caller.

use std::error::Error as StdError;

use forebay_store::StoreError;
use tokio_postgres::error::SqlState;

/// The constraint that a claim of a worker that was declared dead violates.
const CLAIMS_WORKER: &str = "claims_worker";

pub(crate) fn unavailable(
    doing: &'static str,
    source: impl Into<Box<dyn StdError + Send + Sync>>,
) -> StoreError {
    StoreError::Unavailable {
        doing,
        source: source.into(),
    }
}

pub(crate) fn refused(doing: &'static str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> StoreError {
    StoreError::Refused {
        doing,
        source: source.into(),
    }
}

/// A value in the database that the types do not allow.
pub(crate) fn corrupt(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(what.to_string())
}

/// Judges an error of the hot statements' driver.
pub(crate) fn hot(doing: &'static str, error: tokio_postgres::Error) -> StoreError {
    let constraint = error.as_db_error().and_then(|e| e.constraint());
    if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) && constraint == Some(CLAIMS_WORKER) {
        return StoreError::WorkerGone;
    }
    let code = error.code().map(|code| code.code().to_owned());
    judge(doing, code.as_deref(), error)
}

/// Judges an error of the reads' driver.
pub(crate) fn read(doing: &'static str, error: sqlx::Error) -> StoreError {
    if matches!(
        error,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_)
    ) {
        return corrupt(error);
    }
    let code = error
        .as_database_error()
        .and_then(|e| e.code())
        .map(std::borrow::Cow::into_owned);
    judge(doing, code.as_deref(), error)
}

/// By the class of the SQLSTATE, its first two characters. What has none is the network's doing.
fn judge(
    doing: &'static str,
    code: Option<&str>,
    error: impl Into<Box<dyn StdError + Send + Sync>>,
) -> StoreError {
    match code {
        // Undefined table: there is no schema.
        Some("42P01") => StoreError::Schema {
            found: 0,
            needed: crate::maintain::schema_version(),
        },
        // Data exceptions, constraints, limits of the database: one of the rows is at fault.
        Some(code) if ["22", "23", "54"].iter().any(|class| code.starts_with(class)) => refused(doing, error),
        // A statement that does not fit the schema.
        Some(code) if code.starts_with("42") => corrupt(format!("{doing}: {}", error.into())),
        _ => unavailable(doing, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_worth_another_try_and_a_bad_row_is_not() {
        for code in [
            None,
            Some("57P01"),
            Some("40P01"),
            Some("53300"),
            Some("25006"),
            Some("57014"),
        ] {
            assert!(judge("test", code, "x").is_unavailable(), "{code:?}");
        }
        for code in ["22021", "23514", "54000"] {
            assert!(
                matches!(judge("test", Some(code), "x"), StoreError::Refused { .. }),
                "{code}"
            );
        }
        assert!(matches!(
            judge("test", Some("42P01"), "x"),
            StoreError::Schema { found: 0, .. }
        ));
    }
}
