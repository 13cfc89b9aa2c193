//! What a schema may be made of, beyond what its own rules say: few enough parts, and references within itself alone.

use std::collections::{HashMap, HashSet};

use jsonschema::{Draft, PatternOptions};
use serde_json::{Map, Value, json};

use crate::{
    FAULTS_MAX, Fault, MATCHING_BYTES_MAX,
    fuel::{self, Weight},
};

/// The most parts, references and patterns of a schema.
const PARTS_MAX: usize = 2_000;
const REFERENCES_MAX: usize = 200;
const PATTERNS_MAX: usize = 20;
/// How much memory the patterns of a schema may take, in bytes.
pub(crate) const PROGRAMS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// In which steps a compiled pattern is measured, in bytes.
const PROGRAM_BYTES: u64 = 4 * 1024;
/// How often that is taken, at worst: by the pattern forwards and backwards, and by what matching keeps of each of its states on both
/// threads: where it was, and for each group where that began and ended.
const COPIES: u64 = 6;
const GROUP_COPIES: u64 = 2;
/// What a pattern with groups may take besides, where there is only one way to match it: so many times, up to a bound.
const ONE_WAY_COPIES: u64 = 16;
const ONE_WAY_BYTES_MAX: u64 = 1024 * 1024;
/// What a part takes, and what each byte of the text takes, once it is compiled.
const PART_BYTES: u64 = 2 * 1024;
const TEXT_BYTES: u64 = 16;
/// What is said of a pattern that can't be used.
const NO_PATTERN: &str = "must be a pattern without look-around and back-references, and the patterns of a schema must take at most \
    32 MiB once compiled: rather than to count a large class, as in {1,1000}, say + and maxLength";
/// The most options that are looked at one after another.
const MIXED_OPTIONS_MAX: usize = 100;

/// Keywords that hold a schema.
const ONE: [&str; 12] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords that hold a list of schemas.
const LIST: [&str; 5] = ["allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// Keywords that hold schemas by name.
const NAMED: [&str; 6] = [
    "$defs",
    "definitions",
    "dependencies",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// Keywords that keep a copy of each value that what is below them finds fault with.
const COPYING: [&str; 3] = ["\"anyOf\"", "\"oneOf\"", "\"propertyNames\""];

/// Keywords that may be much work for one value: they come after their part was counted.
const COSTLY: [&str; 2] = ["pattern", "uniqueItems"];
/// Keywords before which a part has to be counted, since it may fail by them after much work of theirs.
const TRYING: [&str; 6] = ["$dynamicRef", "$ref", "anyOf", "if", "not", "oneOf"];

/// Which rules a schema goes by.
pub(crate) fn draft(schema: &Value) -> Result<Draft, Fault> {
    match schema {
        Value::Bool(_) => Ok(Draft::Draft202012),
        Value::Object(members) => match members
            .get("$schema")
            .map(|named| named.as_str().unwrap_or_default())
        {
            None => Ok(Draft::Draft202012),
            Some(named) => match named.trim_end_matches('#') {
                "https://json-schema.org/draft/2020-12/schema" => Ok(Draft::Draft202012),
                "http://json-schema.org/draft-07/schema" => Ok(Draft::Draft7),
                _ => {
                    let detail = "must be https://json-schema.org/draft/2020-12/schema or \
                                  http://json-schema.org/draft-07/schema#";
                    Err(Fault::new("/$schema", detail))
                }
            },
        },
        _ => Err(Fault::new("", "must be an object, true or false")),
    }
}

/// What was found out about a schema.
#[derive(Debug)]
pub(crate) struct Surveyed {
    /// About how much memory it takes, once it is compiled.
    pub(crate) bytes: u64,
}

/// Looks at all parts of a schema that follows its own rules, and has each of them counted when it is used.
pub(crate) fn survey(schema: &mut Value) -> Result<Surveyed, Vec<Fault>> {
    let text = schema.to_string();
    let mut survey = Survey::default();
    survey.part(schema, "");
    survey.references_lead_somewhere();
    if survey.faults.is_empty() {
        survey.measure_patterns();
    }
    if !survey.faults.is_empty() {
        return Err(survey.faults);
    }
    let mut costs = Costs {
        copies: COPYING.iter().any(|name| text.contains(name)),
        name_programs: 0,
        programs: survey.programs,
    };
    costs.name_programs = survey
        .name_patterns
        .iter()
        .map(|pattern| costs.program(pattern))
        .sum();
    costs.count(schema);
    let parts = survey.places.len() as u64 * PART_BYTES + text.len() as u64 * TEXT_BYTES;
    let patterns = costs
        .programs
        .iter()
        .map(|(pattern, program)| pattern_bytes(pattern, *program));
    Ok(Surveyed {
        bytes: parts + patterns.sum::<u64>(),
    })
}

/// The parts right below a part, each with its place.
fn below(members: &mut Map<String, Value>) -> Vec<(String, &mut Value)> {
    let mut found = Vec::new();
    for (name, value) in members {
        let place = format!("/{}", escaped(name));
        let name = name.as_str();
        match value {
            Value::Object(_) | Value::Bool(_) if ONE.contains(&name) => found.push((place, value)),
            Value::Array(parts) if LIST.contains(&name) => {
                let parts = parts.iter_mut().enumerate();
                found.extend(parts.map(|(index, part)| (format!("{place}/{index}"), part)));
            }
            Value::Object(parts) if NAMED.contains(&name) => {
                let parts = parts.iter_mut().filter(|(_, part)| !part.is_array());
                found.extend(parts.map(|(key, part)| (format!("{place}/{}", escaped(key)), part)));
            }
            _ => {}
        }
    }
    found
}

#[derive(Default)]
struct Survey {
    places: HashSet<String>,
    anchors: HashSet<String>,
    /// Each with where it is.
    references: Vec<(String, String)>,
    patterns: Vec<(String, String)>,
    /// Those of them that names are held against.
    name_patterns: Vec<String>,
    /// How large each pattern is, as [`program_of`] says.
    programs: HashMap<String, u64>,
    faults: Vec<Fault>,
}

impl Survey {
    fn fault(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault::new(pointer, detail));
        }
    }

    /// Recursion is as deep as JSON may nest.
    fn part(&mut self, schema: &mut Value, at: &str) {
        self.places.insert(at.to_owned());
        if self.places.len() > PARTS_MAX {
            if self.places.len() == PARTS_MAX + 1 {
                self.fault("", format!("must have at most {PARTS_MAX} parts"));
            }
            return;
        }
        let Value::Object(members) = schema else { return };
        self.look_at(members, at);
        for (place, part) in below(members) {
            self.part(part, &format!("{at}{place}"));
        }
    }

    fn look_at(&mut self, members: &Map<String, Value>, at: &str) {
        for (name, value) in members {
            match (name.as_str(), value) {
                ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(to)) => {
                    self.references.push((format!("{at}/{name}"), to.clone()));
                }
                ("$anchor" | "$dynamicAnchor", Value::String(anchor)) => {
                    self.anchors.insert(anchor.clone());
                }
                ("$id" | "$schema", _) if !at.is_empty() => {
                    self.fault(format!("{at}/{name}"), "must not be given below the top");
                }
                (fuel::KEYWORD, _) => self.fault(format!("{at}/{name}"), "must not be given"),
                ("enum", Value::Array(options)) if options.len() > MIXED_OPTIONS_MAX && is_mixed(options) => {
                    let detail = format!(
                        "must have at most {MIXED_OPTIONS_MAX} options, unless all are strings, or all are integers"
                    );
                    self.fault(format!("{at}/{name}"), detail);
                }
                ("pattern", Value::String(pattern)) => {
                    self.patterns.push((format!("{at}/{name}"), pattern.clone()));
                }
                ("patternProperties", Value::Object(patterns)) => {
                    self.name_patterns.extend(patterns.keys().cloned());
                    let patterns = patterns
                        .keys()
                        .map(|pattern| (format!("{at}/{name}"), pattern.clone()));
                    self.patterns.extend(patterns);
                }
                _ => {}
            }
        }
    }

    fn references_lead_somewhere(&mut self) {
        if self.references.len() > REFERENCES_MAX {
            self.fault("", format!("must have at most {REFERENCES_MAX} references"));
        }
        if self.patterns.len() > PATTERNS_MAX {
            self.fault("", format!("must have at most {PATTERNS_MAX} patterns"));
        }
        for (at, to) in std::mem::take(&mut self.references) {
            let known = match to.strip_prefix('#') {
                Some(place) if place.is_empty() || place.starts_with('/') => self.places.contains(place),
                Some(anchor) => self.anchors.contains(anchor),
                None => false,
            };
            if !known {
                self.fault(
                    at,
                    "must lead to a part of this schema, such as #/$defs/address: nothing is fetched",
                );
            }
        }
    }

    /// The same pattern is compiled once, wherever it is.
    fn measure_patterns(&mut self) {
        let mut left = PROGRAMS_BYTES_MAX;
        for (at, pattern) in std::mem::take(&mut self.patterns) {
            if self.programs.contains_key(&pattern) {
                continue;
            }
            match program_of(&pattern, left / (PROGRAM_BYTES * copies(&pattern))) {
                Some(program) => {
                    left = left.saturating_sub(pattern_bytes(&pattern, program));
                    self.programs.insert(pattern, program);
                }
                // To try further ones would take as long again.
                None => return self.fault(at, NO_PATTERN),
            }
        }
    }
}

/// How many groups a pattern has, and rather too many: some may stand for themselves.
fn groups(pattern: &str) -> u64 {
    (pattern.matches('(').count() - pattern.matches("(?:").count()) as u64
}

fn copies(pattern: &str) -> u64 {
    COPIES + GROUP_COPIES * groups(pattern)
}

/// How much memory a pattern of this size takes, after it was used on both threads.
fn pattern_bytes(pattern: &str, program: u64) -> u64 {
    let bytes = program * PROGRAM_BYTES;
    let one_way = match groups(pattern) {
        0 => 0,
        _ => (bytes * ONE_WAY_COPIES).min(ONE_WAY_BYTES_MAX),
    };
    bytes * copies(pattern) + one_way + 2 * MATCHING_BYTES_MAX as u64
}

/// How large a pattern is once it is compiled, in [`PROGRAM_BYTES`], a fourth too much at most. `None` where it is more than `most`, or no
/// pattern.
fn program_of(pattern: &str, most: u64) -> Option<u64> {
    let schema = json!({"pattern": pattern});
    if most == 0 {
        return None;
    }
    let (mut too_little, mut enough) = (0, 1);
    while !fits(&schema, enough) {
        if enough == most {
            return None;
        }
        (too_little, enough) = (enough, most.min(enough * 2));
    }
    while enough - too_little > (too_little / 4).max(1) {
        let between = too_little + (enough - too_little) / 2;
        match fits(&schema, between) {
            true => enough = between,
            false => too_little = between,
        }
    }
    Some(enough)
}

fn fits(schema: &Value, programs: u64) -> bool {
    let bytes = usize::try_from(programs * PROGRAM_BYTES).unwrap_or(usize::MAX);
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex().size_limit(bytes))
        .build(schema)
        .is_ok()
}

/// What it costs to use the parts of a schema.
struct Costs {
    copies: bool,
    programs: HashMap<String, u64>,
    /// All that names may be held against in parts that fail.
    name_programs: u64,
}

impl Costs {
    fn count(&self, schema: &mut Value) {
        let Value::Object(members) = schema else { return };
        let weight = self.weight(members);
        for (_, part) in below(members) {
            self.count(part);
        }
        count_in_time(members, &weight);
    }

    fn program(&self, pattern: &str) -> u64 {
        self.programs.get(pattern).copied().unwrap_or(1)
    }

    /// What it may cost to hold a value against a part.
    fn weight(&self, members: &Map<String, Value>) -> Weight {
        let mut weight = Weight {
            faults: members.len() as u64,
            copies: self.copies,
            ..Weight::default()
        };
        let looks_for = |names: &Value| {
            let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
            names.fold((0, 0), |(count, bytes), name| {
                (count + 1, bytes + name.len() as u64)
            })
        };
        for (name, value) in members {
            match (name.as_str(), value) {
                ("required", names) => {
                    let (count, bytes) = looks_for(names);
                    weight.names += count;
                    weight.text += bytes;
                }
                ("dependentRequired" | "dependencies", Value::Object(depending)) => {
                    for names in depending.values() {
                        let (count, bytes) = looks_for(names);
                        weight.names += 1 + count;
                        weight.text += bytes;
                    }
                }
                ("pattern", Value::String(pattern)) => {
                    weight.programs += self.program(pattern);
                    weight.text += pattern.len() as u64;
                }
                ("patternProperties", Value::Object(patterns)) => {
                    weight.members += patterns.len() as u64;
                    weight.name_programs += patterns.keys().map(|pattern| self.program(pattern)).sum::<u64>();
                }
                ("format" | "contentEncoding" | "contentMediaType", Value::String(text)) => {
                    weight.text += text.len() as u64;
                }
                ("not", part) => weight.text += part.to_string().len() as u64,
                ("uniqueItems" | "const" | "contains" | "enum", _) => weight.deep = 1,
                _ => {}
            }
            if name.starts_with("additional") || name.starts_with("unevaluated") {
                weight.lists = true;
                weight.members += u64::from(!value.is_boolean() || name.ends_with("Items"));
            }
            // Parts that are true or false are not counted themselves.
            match value {
                Value::Bool(_) if ["items", "contains", "propertyNames"].contains(&name.as_str()) => {
                    weight.members += 1;
                }
                Value::Array(parts) if LIST.contains(&name.as_str()) => {
                    weight.faults += parts.iter().filter(|part| part.is_boolean()).count() as u64;
                }
                Value::Object(parts) if NAMED.contains(&name.as_str()) => {
                    weight.faults += parts.values().filter(|part| part.is_boolean()).count() as u64;
                }
                _ => {}
            }
        }
        weight.faults += weight.names;
        // What fails may not count itself, and all that it is made of may hold names against patterns before.
        let ways = ["anyOf", "oneOf"]
            .into_iter()
            .filter_map(|name| members.get(name)?.as_array())
            .map(Vec::len);
        let others = ["contains", "if", "not"];
        let others = others.iter().filter(|name| members.contains_key(**name));
        weight.ways = (ways.sum::<usize>() + others.count()) as u64;
        weight.deep += weight.ways * self.name_programs;
        weight
    }
}

/// Has a part counted: after all else in it has held, or before what may fail after much work. The latter by way of `allOf`, which comes
/// before all that tries parts, and behind what is there already, which references may lead to.
fn count_in_time(members: &mut Map<String, Value>, weight: &Weight) {
    let costly = COSTLY.iter().filter_map(|name| members.remove_entry(*name));
    let costly: Map<String, Value> = costly.collect();
    if costly.is_empty() && !TRYING.iter().any(|name| members.contains_key(*name)) {
        members.insert(fuel::KEYWORD.to_owned(), weight.to_value());
        return;
    }
    let all = members.entry("allOf").or_insert_with(|| json!([]));
    if let Value::Array(parts) = all {
        parts.push(json!({fuel::KEYWORD: weight.to_value()}));
        if !costly.is_empty() {
            parts.push(Value::Object(costly));
        }
    }
}

/// Whether options have to be tried one after another.
fn is_mixed(options: &[Value]) -> bool {
    let are = |is: fn(&Value) -> bool| options.iter().all(|option| option.is_null() || is(option));
    !are(Value::is_string) && !are(Value::is_i64)
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
