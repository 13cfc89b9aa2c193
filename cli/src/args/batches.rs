//! `forebay batches`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Common;

#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "\
Examples:
  forebay batches open tasks.ndjson --name 'nightly import' --on-complete report
  generate-tasks | forebay batches open --chain
  forebay batches get 01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d

Without a command it lists."
)]
pub(crate) struct Batches {
    #[command(subcommand)]
    pub(crate) command: Option<BatchesCommand>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BatchesCommand {
    /// List the latest batches.
    List(Latest),
    /// Show how far a batch is.
    Get(BatchId),
    /// List the tasks of a batch.
    Tasks(BatchTasks),
    /// Submit tasks together: a JSON object a line, at most 1,000.
    Open(Box<OpenBatch>),
    /// Add tasks to a batch that was opened with --open.
    Add(AddToBatch),
    /// Say that no more tasks come: it is complete when all have ended.
    Close(BatchId),
    /// Cancel a batch and all of its tasks that have not ended.
    Cancel(BatchId),
}

#[derive(Debug, Args)]
pub(crate) struct Latest {
    /// How many to list.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

impl Default for Latest {
    fn default() -> Self {
        Self { limit: 50 }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BatchId {
    /// The batch.
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct BatchTasks {
    /// The batch.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) latest: Latest,
}

#[derive(Debug, Args)]
pub(crate) struct OpenBatch {
    /// The tasks, one JSON object a line, such as {"kind": "echo"}; standard input unless given.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// What to call it.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Each task waits for the one before it.
    #[arg(long)]
    pub(crate) chain: bool,
    /// A task of this kind runs once when all have ended.
    #[arg(long, value_name = "KIND")]
    pub(crate) on_complete: Option<String>,
    /// The input of that task as JSON; the id of the batch unless given.
    #[arg(long, value_name = "JSON", requires = "on_complete")]
    pub(crate) on_complete_payload: Option<String>,
    /// More tasks can be added until it is closed.
    #[arg(long)]
    pub(crate) open: bool,
    /// Your own name for it: sending the same again opens it once, and submits what is missing.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AddToBatch {
    /// The batch.
    pub(crate) id: String,
    /// The tasks, one JSON object a line; standard input unless given.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Each task waits for the one before it.
    #[arg(long)]
    pub(crate) chain: bool,
    /// Your own name for this addition: sending the same again adds it once.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: String,
}
