//! The handlers of `forebay.toml`.

use std::path::Path;

use forebay_runtime::config::Loaded;
use forebay_worker::{Handlers, handlers::config::HandlerConfig};
use serde::Deserialize;

use crate::exit::{Failure, Result};

/// The handlers that the file describes; everything that is wrong with them at once.
pub(crate) fn from_file(loaded: &mut Loaded) -> Result<Handlers> {
    let path = loaded.file.clone().unwrap_or_default();
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut problems = Vec::new();
    let mut tables = Vec::new();
    for (index, table) in std::mem::take(&mut loaded.handlers).into_iter().enumerate() {
        match HandlerConfig::deserialize(table) {
            Ok(table) => tables.push(table),
            Err(error) => problems.push(format!("handler number {}: {}", index + 1, error.message())),
        }
    }
    let handlers =
        Handlers::from_config(tables, folder, |name| std::env::var(name).ok()).unwrap_or_else(|wrong| {
            problems.extend(wrong.iter().map(ToString::to_string));
            Handlers::new()
        });
    if problems.is_empty() {
        return Ok(handlers);
    }
    let lines: Vec<String> = problems
        .into_iter()
        .map(|problem| format!("{}: {}", path.display(), problem.trim().replace('\n', " ")))
        .collect();
    Err(Failure::usage(lines.join("\nforebay: ")))
}
