//! What SQLite's errors ask of the caller.

use std::path::Path;

use forebay_store::StoreError;

/// Primary result codes of SQLite (<https://www.sqlite.org/rescode.html>).
mod code {
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const TOO_BIG: i32 = 18;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const MISMATCH: i32 = 20;
    pub(super) const RANGE: i32 = 25;
    pub(super) const NOT_A_DATABASE: i32 = 26;
}

/// Wraps an error with what was asked.
pub(crate) fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| wrap(doing, error)
}

/// Wraps an error of opening with the file's path.
pub(crate) fn with_path(path: &Path, error: sqlx::Error) -> StoreError {
    let place = path.display();
    match wrap("open the database", error) {
        StoreError::Corrupt(what) => StoreError::Corrupt(format!("{place}: {what}")),
        StoreError::Unavailable { doing, source } => StoreError::Unavailable {
            doing,
            source: format!("{place}: {source}").into(),
        },
        other => other,
    }
}

fn wrap(doing: &'static str, error: sqlx::Error) -> StoreError {
    use sqlx::Error as E;
    match &error {
        E::Database(database) => {
            let extended: i32 = database.code().and_then(|code| code.parse().ok()).unwrap_or(0);
            match extended & 0xff {
                code::CORRUPT | code::NOT_A_DATABASE => {
                    StoreError::Corrupt(format!("could not {doing}: {}", database.message()))
                }
                code::CONSTRAINT | code::TOO_BIG | code::MISMATCH | code::RANGE => refused(doing, error),
                _ if database.message().starts_with("no such table") => StoreError::Schema {
                    found: 0,
                    needed: crate::admin::schema_needed(),
                },
                // Busy, locked, full, read-only, I/O and whatever else time or an operator may mend.
                _ => StoreError::Unavailable {
                    doing,
                    source: error.into(),
                },
            }
        }
        E::ColumnDecode { .. } | E::Decode(_) | E::ColumnNotFound(_) | E::TypeNotFound { .. } => {
            StoreError::Corrupt(format!("could not {doing}: {error}"))
        }
        E::Encode(_) | E::InvalidArgument(_) | E::Configuration(_) => refused(doing, error),
        _ => StoreError::Unavailable {
            doing,
            source: error.into(),
        },
    }
}

fn refused(doing: &'static str, error: sqlx::Error) -> StoreError {
    StoreError::Refused {
        doing,
        source: error.into(),
    }
}
