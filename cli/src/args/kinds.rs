//! `forebay kinds`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use forebay_core::SchemaMode;

use super::Common;

#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "\
Examples:
  forebay kinds put thumbnail thumbnail.schema.json
  forebay kinds put thumbnail thumbnail.schema.json --mode warn
  forebay kinds get thumbnail --version 1
  forebay kinds delete thumbnail

Without a command it lists."
)]
pub(crate) struct Kinds {
    #[command(subcommand)]
    pub(crate) command: Option<KindsCommand>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KindsCommand {
    /// List all kinds that have schemas.
    List,
    /// Show the schema of a kind.
    Get(GetKind),
    /// Register a JSON Schema as the next version of its kind's.
    Put(PutKind),
    /// Let payloads of kinds look as they like.
    Delete(KindNames),
}

#[derive(Debug, Args)]
pub(crate) struct GetKind {
    /// The kind.
    pub(crate) kind: String,
    /// Another version than the one that counts.
    #[arg(long, value_name = "N")]
    pub(crate) version: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct PutKind {
    /// The kind.
    pub(crate) kind: String,
    /// A file with a JSON Schema of draft 2020-12, or of draft 7 where it says so; - is standard input.
    #[arg(value_name = "PATH|-")]
    pub(crate) schema: PathBuf,
    /// What becomes of a task whose payload does not fit: enforce refuses it, warn tells the log; enforce unless given.
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<SchemaMode>,
}

#[derive(Debug, Args)]
pub(crate) struct KindNames {
    /// The kinds.
    #[arg(required = true, value_name = "KIND")]
    pub(crate) kinds: Vec<String>,
}
