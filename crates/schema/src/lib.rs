//! JSON Schema for the payloads of tasks: which schemas are taken, and what is wrong with a payload. Bounded: nothing is
//! fetched, patterns take time in proportion to the text, and what would take too long, or too much memory, is refused.

mod fuel;
mod survey;
mod threads;

use jsonschema::{Draft, PatternOptions, ValidationError, Validator, error::ValidationErrorKind};
use serde_json::Value;

pub use threads::{Busy, Threads};

/// The longest schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// How many faults are told at once.
pub const FAULTS_MAX: usize = 20;
/// How much is told of each, in characters.
const DETAIL_CHARS_MAX: usize = 300;
const POINTER_CHARS_MAX: usize = 200;
/// The longest place in a schema that all faults are told of.
const PLACE_BYTES_MAX: u64 = 1024;
/// How much of what was found out about texts may be kept, in bytes, of each pattern on each thread. What does not fit is found out
/// again.
const MATCHING_BYTES_MAX: usize = 32 * 1024;

/// One thing that is wrong with a schema, or with a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: a JSON pointer into the schema, or into the payload, of which only the beginning is told where it is long.
    pub pointer: String,
    /// What, as a fragment that follows the name of the place.
    pub detail: String,
    /// The keyword that it does not fit, or nothing. Never of a payload.
    pub keyword: String,
}

impl Fault {
    fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            detail: detail.into(),
            keyword: String::new(),
        }
    }

    fn of(error: &ValidationError<'_>) -> Self {
        Self {
            pointer: cut(error.instance_path().as_str(), POINTER_CHARS_MAX),
            detail: cut(&detail(error), DETAIL_CHARS_MAX),
            keyword: error.kind().keyword().to_owned(),
        }
    }
}

/// What is wrong, without the value, and without the names in it: they may be long, and are their sender's.
fn detail(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            format!("has properties that are not allowed: {}", unexpected.len())
        }
        ValidationErrorKind::UnevaluatedItems { unexpected } => {
            format!("has items that are not allowed: {}", unexpected.len())
        }
        ValidationErrorKind::PropertyNames { error } => {
            format!("has a property with a name that does not fit: {}", detail(error))
        }
        _ => error.masked_with("it").to_string(),
    }
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A schema that was found good.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    bytes: u64,
}

impl Schema {
    /// Compiles a schema of draft 2020-12, or of draft 7 where it says so.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn compile(text: &str) -> Result<Self, Vec<Fault>> {
        if text.len() > SCHEMA_BYTES_MAX {
            let detail = format!("must be at most {SCHEMA_BYTES_MAX} bytes, and is {}", text.len());
            return Err(vec![Fault::new("", detail)]);
        }
        let mut schema: Value = serde_json::from_str(text)
            .map_err(|error| vec![Fault::new("", format!("is not JSON: {error}"))])?;
        let draft = survey::draft(&schema).map_err(|fault| vec![fault])?;
        // First by its own rules, so that what follows finds what it expects where it expects it.
        let wrong = against_rules(draft, &schema);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let surveyed = survey::survey(&mut schema)?;
        // Each pattern was tried, so this bound is for those that come to mind later.
        let patterns = PatternOptions::regex()
            .size_limit(usize::try_from(survey::PROGRAMS_BYTES_MAX).unwrap_or(usize::MAX))
            .dfa_size_limit(MATCHING_BYTES_MAX);
        let built = jsonschema::options()
            .with_draft(draft)
            .offline()
            .with_pattern_options(patterns)
            .should_validate_formats(true)
            // Patterns that come in a payload are nobody's to compile.
            .with_format("regex", |_: &str| true)
            .with_keyword(fuel::KEYWORD, fuel::keyword)
            .build(&schema);
        match built {
            Ok(validator) => Ok(Self {
                validator,
                bytes: surveyed.bytes,
            }),
            Err(error) => Err(vec![Fault::of(&error)]),
        }
    }

    /// About how much memory it takes, and rather too much than too little.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds a payload against it.
    ///
    /// # Errors
    /// With what does not fit, up to [`FAULTS_MAX`].
    pub fn check(&self, payload: &str) -> Result<(), Vec<Fault>> {
        let Ok(payload) = serde_json::from_str::<Value>(payload) else {
            return Err(vec![Fault::new("", "holds a number that is not representable")]);
        };
        let decided = fuel::decide(|| self.validator.is_valid(&payload));
        let detail = match decided {
            Ok(true) => return Ok(()),
            // Collected at once, however few are taken.
            Ok(false) => match fuel::collect(&payload, || self.faults(&payload)) {
                Ok(faults) => return Err(faults),
                Err(fuel::Spent) => "does not fit the schema of its kind, in more places than can be told",
            },
            Err(fuel::Spent) => "takes too long to hold against the schema of its kind",
        };
        Err(vec![Fault::new("", detail)])
    }

    fn faults(&self, payload: &Value) -> Vec<Fault> {
        let errors = self.validator.iter_errors(payload);
        errors.take(FAULTS_MAX).map(|error| Fault::of(&error)).collect()
    }
}

/// What is wrong with a schema by the rules of its draft.
fn against_rules(draft: Draft, schema: &Value) -> Vec<Fault> {
    let rules = match draft {
        Draft::Draft7 => jsonschema::draft7::meta::validator(),
        _ => jsonschema::draft202012::meta::validator(),
    };
    if fuel::longest_place(schema) > PLACE_BYTES_MAX && !rules.is_valid(schema) {
        return vec![Fault::new("", "does not follow the rules of its draft")];
    }
    rules
        .iter_errors(schema)
        .take(FAULTS_MAX)
        .map(|error| Fault::of(&error))
        .collect()
}

#[cfg(test)]
mod tests;
