//! What was set aside because nobody can decode it.

use forebay_store::Rejects;

use crate::{App, error::Result, ops::read};

/// How much of a body is shown.
pub(crate) const EXCERPT_BYTES: usize = 1_024;

/// The latest `limit` messages that were set aside.
pub(crate) async fn rejects(app: &App, limit: usize) -> Result<Rejects> {
    read(app, || app.store.rejects(limit, EXCERPT_BYTES)).await
}
