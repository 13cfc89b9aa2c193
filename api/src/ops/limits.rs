//! Limits: how many tasks run, or start, at a time. What a limit may say is checked in `forebay_core`; it is enforced where
//! tasks are claimed.

use forebay_core::{LIMITS_MAX, LimitName, LimitRequest};
use forebay_store::{Limit, LimitUse, PutLimit};

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::{
        once,
        page::{self, Page},
        read,
    },
};

/// Parses a limit's name as a door received it.
pub(crate) fn parse_name(text: &str) -> Result<LimitName> {
    text.parse()
        .map_err(|error| ApiError::at(Code::InvalidParameter, "/name", error))
}

/// Makes a limit, or replaces the one of that name. Returns it as it is now, and whether it is new. To put the same twice
/// changes nothing, so it may be tried again.
pub(crate) async fn put(app: &App, name: LimitName, request: LimitRequest) -> Result<(Limit, bool)> {
    let rule = request.accept(name).map_err(ApiError::violations)?;
    match read(app, || app.store.put_limit(&rule)).await? {
        PutLimit::New(limit) => {
            tracing::info!(limit = %rule.name, "a limit was made");
            Ok((limit, true))
        }
        PutLimit::Replaced(limit) => Ok((limit, false)),
        PutLimit::TooMany => {
            let detail = format!("there are {LIMITS_MAX} limits already");
            Err(ApiError::new(Code::TooManyLimits, detail))
        }
    }
}

/// Reads a limit, and how much it is used.
pub(crate) async fn get(app: &App, name: &LimitName) -> Result<(Limit, LimitUse)> {
    let found = read(app, || app.store.limit(name)).await?;
    let limit = found.ok_or_else(|| unknown(name))?;
    let used = read(app, || app.store.limit_use(name)).await?;
    Ok((limit, used))
}

/// Lists a page of limits, by name.
pub(crate) async fn list(app: &App, asked: page::Asked) -> Result<Page<Limit>> {
    let wanted = asked.check::<LimitName>()?;
    let found = read(app, || app.store.limits(wanted.count(), wanted.after.as_ref())).await?;
    Ok(wanted.page(found, |last| last.rule.name.to_string()))
}

/// Deletes a limit. What it held back goes on.
pub(crate) async fn delete(app: &App, name: &LimitName) -> Result<()> {
    // Once: where only the answer was lost, a second try would find nothing.
    match once(app, app.store.delete_limit(name)).await? {
        true => {
            tracing::info!(limit = %name, "a limit was deleted");
            Ok(())
        }
        false => Err(unknown(name)),
    }
}

fn unknown(name: &LimitName) -> ApiError {
    ApiError::new(Code::LimitNotFound, format!("there is no limit {name}"))
}
