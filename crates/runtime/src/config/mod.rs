//! Configuration: flags, over `FOREBAY_*` variables, over `forebay.toml`, over defaults.
//!
//! [`args`] declares the settings as clap structs; [`load`] puts the four layers together for the command that
//! was called, and reports everything that is wrong at once, each in one line that names its source.

pub mod args;
mod docs;
mod file;
mod load;
pub mod values;
mod variables;

pub use docs::table;
pub use load::{LoadError, Loaded, Setting, Source, load};

/// The file that is read where none is named and it exists.
pub const DEFAULT_FILE: &str = "forebay.toml";

/// What every setting's variable begins with.
const PREFIX: &str = "FOREBAY_";

/// Settings whose value may come from a file named by a twin variable with this ending.
const FILE_TWIN: &str = "_FILE";
const WITH_FILE_TWIN: [&str; 2] = ["database_url", "broker_url"];

/// The closest of `known` to `word`, where one is close enough to be what was meant.
fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 5))
        .map(|(_, candidate)| candidate)
}

fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    match closest(word, known) {
        Some(candidate) => format!("; did you mean {candidate}?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
