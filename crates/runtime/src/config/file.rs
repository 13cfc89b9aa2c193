//! `forebay.toml`: settings by key, and the `[[handler]]` tables of the worker.

use std::{collections::BTreeMap, path::PathBuf};

use super::{DEFAULT_FILE, did_you_mean};

/// The table that is the worker's.
const HANDLER_KEY: &str = "handler";

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    /// Where it is; `None` where there is none.
    pub(super) path: Option<PathBuf>,
    /// The text of each setting it has.
    pub(super) values: BTreeMap<String, String>,
    /// The `[[handler]]` tables, as they are.
    pub(super) handlers: Vec<toml::Value>,
}

impl ConfigFile {
    /// Reads the file that was named, or the default one where it exists. Adds what is wrong to `problems`.
    pub(super) fn read(named: Option<PathBuf>, known: &[String], problems: &mut Vec<String>) -> Self {
        let (path, is_named) = match named {
            Some(path) => (path, true),
            None => (PathBuf::from(DEFAULT_FILE), false),
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if !is_named && error.kind() == std::io::ErrorKind::NotFound => {
                return Self::default();
            }
            Err(error) => {
                problems.push(format!(
                    "cannot read the configuration file {}: {error}",
                    path.display()
                ));
                return Self::default();
            }
        };
        Self::parse(path, &text, known, problems)
    }

    fn parse(path: PathBuf, text: &str, known: &[String], problems: &mut Vec<String>) -> Self {
        let mut file = Self {
            path: Some(path),
            ..Self::default()
        };
        let name = file.name();
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                problems.push(format!(
                    "{name}{}: {}",
                    line_of(&error, text),
                    error.message().replace('\n', " ")
                ));
                return file;
            }
        };
        for (key, value) in table {
            if key == HANDLER_KEY {
                file.take_handlers(value, problems);
            } else if known.contains(&key) {
                match as_text(&value) {
                    Some(text) => drop(file.values.insert(key, text)),
                    None => problems.push(format!(
                        "{key} in {name} must be a text, a number or a list of them, not {}",
                        value.type_str()
                    )),
                }
            } else {
                let known = known.iter().map(String::as_str).chain([HANDLER_KEY]);
                problems.push(format!(
                    "{key} in {name} is no setting{}",
                    did_you_mean(&key, known)
                ));
            }
        }
        file
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> String {
        self.path
            .as_ref()
            .map_or_else(|| DEFAULT_FILE.to_owned(), |path| path.display().to_string())
    }

    fn take_handlers(&mut self, value: toml::Value, problems: &mut Vec<String>) {
        match value {
            toml::Value::Array(tables) if tables.iter().all(toml::Value::is_table) => self.handlers = tables,
            _ => problems.push(format!(
                "{HANDLER_KEY} in {} must be tables: [[{HANDLER_KEY}]]",
                self.name()
            )),
        }
    }
}

fn line_of(error: &toml::de::Error, text: &str) -> String {
    match error.span() {
        Some(span) => {
            let line = text.as_bytes()[..span.start.min(text.len())]
                .iter()
                .filter(|&&b| b == b'\n')
                .count()
                + 1;
            format!(", line {line}")
        }
        None => String::new(),
    }
}

/// The text that a variable would have in place of this value. A list is joined by commas.
fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .filter(|item| !item.is_array())
                .map(as_text)
                .collect();
            texts
                .filter(|texts| texts.len() == items.len())
                .map(|texts| texts.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}
