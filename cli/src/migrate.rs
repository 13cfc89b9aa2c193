//! `forebay migrate`: brings the schema up to date.

use anyhow::Context;
use forebay_runtime::{open, telemetry};

use crate::{
    args::Migrate,
    client::print::Printer,
    exit::{Code, Result},
};

pub(crate) async fn run(args: Migrate) -> Result<Code> {
    let telemetry = telemetry::start(&args.log, "forebay-migrate")?;
    let store = open::store(&args.database).await?;
    store.migrate().await.context("migrate the database")?;
    Printer::new(false).line("the schema is up to date")?;
    telemetry.shutdown().await;
    Ok(Code::Done)
}
