//! A bound on the work of a check, and on what it keeps. Every part of a schema that a payload is held against uses up what
//! it may cost; when all is used up, the check is left by unwinding, since the library that does it cannot be told to stop.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use jsonschema::{Keyword, ValidationError, paths::Location};
use serde_json::{Map, Value, json};

/// The keyword that is put into every part of a schema to count it.
pub(crate) const KEYWORD: &str = "forebay:counted";

/// How much work it may be to decide: enough to hold the largest payload against several parts for each of its values.
const WORK_MAX: u64 = 1_000_000;
/// How much memory all faults may take, in bytes: the library collects them all before it gives out the first.
const FAULTS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// What a fault takes, without its place and its text.
const FAULT_BYTES: u64 = 400;
/// What a value takes, without its text.
const VALUE_BYTES: u64 = 32;

thread_local! {
    /// How much work may still be done.
    static WORK: Cell<u64> = const { Cell::new(WORK_MAX) };
    /// While faults are collected: what each takes, with its place, and how much all others may still take.
    static FAULTS: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// The work was too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent;

/// Decides, as long as it is not too much work.
pub(crate) fn decide<T>(work: impl FnOnce() -> T) -> Result<T, Spent> {
    WORK.set(WORK_MAX);
    FAULTS.set(None);
    until_spent(work)
}

/// Collects what is wrong with a payload, as long as that is neither too much work, nor too much to keep: what was decided by the
/// first fault may be far more work to look through.
pub(crate) fn collect<T>(payload: &Value, work: impl FnOnce() -> T) -> Result<T, Spent> {
    WORK.set(WORK_MAX);
    FAULTS.set(Some((FAULT_BYTES + longest_place(payload), FAULTS_BYTES_MAX)));
    until_spent(work)
}

fn until_spent<T>(work: impl FnOnce() -> T) -> Result<T, Spent> {
    // Nothing is seen afterwards of what it leaves behind: the schema is only read, and the rest is its own.
    catch_unwind(AssertUnwindSafe(work)).map_err(|thrown: Box<dyn Any + Send>| match thrown.is::<Spent>() {
        true => Spent,
        false => resume_unwind(thrown),
    })
}

/// The longest pointer into it, in bytes.
pub(crate) fn longest_place(value: &Value) -> u64 {
    let below = match value {
        Value::Array(items) => items.iter().map(|item| 7 + longest_place(item)).max(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| 1 + name.len() as u64 + longest_place(member))
            .max(),
        _ => None,
    };
    below.unwrap_or(0)
}

/// What a value takes, in bytes, roughly; or anything above a bound.
fn extent(value: &Value, most: u64) -> u64 {
    let mut all = VALUE_BYTES;
    match value {
        Value::String(text) => all += text.len() as u64,
        Value::Array(items) => {
            for item in items {
                if all > most {
                    break;
                }
                all += extent(item, most - all);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                all += VALUE_BYTES + name.len() as u64;
                if all > most {
                    break;
                }
                all += extent(member, most - all);
            }
        }
        _ => {}
    }
    all
}

/// What it may cost to hold a value against a part, without the parts below it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weight {
    /// How many faults it may have, but for those of members.
    pub(crate) faults: u64,
    /// The names it looks for.
    pub(crate) names: u64,
    /// What is repeated in its faults, in bytes.
    pub(crate) text: u64,
    /// How often it looks at each member, and may find a fault with it.
    pub(crate) members: u64,
    /// How large the patterns are that a text is held against, and those that names are: see [`crate::survey`].
    pub(crate) programs: u64,
    pub(crate) name_programs: u64,
    /// How often it looks into all that is below a value.
    pub(crate) deep: u64,
    /// How many parts it tries that may fail, and do not count themselves then.
    pub(crate) ways: u64,
    /// Whether it lists members.
    pub(crate) lists: bool,
    /// Whether each of its faults may take a copy of the value.
    pub(crate) copies: bool,
}

impl Weight {
    /// As the keyword has it.
    pub(crate) fn to_value(self) -> Value {
        json!([
            self.faults,
            self.names,
            self.text,
            self.members,
            self.programs,
            self.name_programs,
            self.deep,
            self.ways,
            self.lists,
            self.copies
        ])
    }

    fn of(value: &Value) -> Self {
        let number = |index: usize| value.get(index).and_then(Value::as_u64).unwrap_or_default();
        let is = |index: usize| value.get(index).and_then(Value::as_bool).unwrap_or_default();
        Self {
            faults: number(0),
            names: number(1),
            text: number(2),
            members: number(3),
            programs: number(4),
            name_programs: number(5),
            deep: number(6),
            ways: number(7),
            lists: is(8),
            copies: is(9),
        }
    }

    fn work(&self, value: &Value, left: u64) -> u64 {
        let own = match value {
            Value::String(text) => {
                let reading = self.ways.saturating_mul(text.len() as u64 / 32);
                matching(self.programs, text.len() as u64).saturating_add(reading)
            }
            Value::Array(items) => self.members.saturating_mul(items.len() as u64),
            Value::Object(members) => {
                let names = match self.name_programs {
                    0 => 0,
                    programs => members
                        .keys()
                        .map(|name| matching(programs, name.len() as u64))
                        .sum(),
                };
                self.names + names + self.members.saturating_mul(members.len() as u64)
            }
            _ => 0,
        };
        let deep = match self.deep {
            0 => 0,
            times => (extent(value, left.saturating_mul(64)) / 64).saturating_mul(times),
        };
        1 + self.ways.saturating_add(own).saturating_add(deep)
    }

    fn bytes(&self, value: &Value, each: u64, left: u64) -> u64 {
        let members = match value {
            Value::Array(items) => items.len(),
            Value::Object(members) => members.len(),
            _ => 0,
        };
        let extent = match self.lists || self.copies {
            true => extent(value, left),
            false => 0,
        };
        let each = each + if self.copies { extent } else { 0 };
        let faults = self
            .faults
            .saturating_add(self.members.saturating_mul(members as u64));
        let listed = if self.lists { extent } else { 0 };
        faults
            .saturating_mul(each)
            .saturating_add(self.text)
            .saturating_add(listed)
    }
}

/// What it may cost to read a text, and to hold it against patterns: at worst each step of a program is tried at each byte.
fn matching(programs: u64, text_bytes: u64) -> u64 {
    text_bytes / 32 + programs.saturating_mul(text_bytes) / 64 + programs / 64
}

struct Counted(Weight);

impl Counted {
    fn count(&self, value: &Value) {
        let left = WORK.get();
        WORK.set(spend(left, self.0.work(value, left)));
        if let Some((each, left)) = FAULTS.get() {
            FAULTS.set(Some((each, spend(left, self.0.bytes(value, each, left)))));
        }
    }
}

fn spend(left: u64, cost: u64) -> u64 {
    left.checked_sub(cost)
        .unwrap_or_else(|| resume_unwind(Box::new(Spent)))
}

impl<'i> Keyword<'i> for Counted {
    fn validate(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        self.count(value);
        Ok(())
    }

    fn is_valid(&self, value: &'i Value) -> bool {
        self.count(value);
        true
    }
}

/// Makes the keyword.
pub(crate) fn keyword<'a>(
    _: &'a Map<String, Value>,
    weight: &'a Value,
    _: Location,
) -> Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'a>> {
    Ok(Box::new(Counted(Weight::of(weight))))
}
