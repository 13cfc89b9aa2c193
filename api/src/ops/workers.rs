//! Who works.

use forebay_core::WorkerInfo;

use crate::{App, error::Result, ops::read};

/// All workers that are alive.
pub(crate) async fn workers(app: &App) -> Result<Vec<WorkerInfo>> {
    read(app, || app.store.workers()).await
}
