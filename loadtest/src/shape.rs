//! What the submitted tasks look like. All that does not differ from task to task is written once.

use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use forebay_proto::v1::SubmitTaskRequest;
use rand::{Rng, SeedableRng, distr::Alphanumeric, rngs::StdRng};
use serde_json::{Value, json};

/// The payload that Forebay takes, at most.
const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// The sum of all weights.
const WEIGHTS_MAX: usize = 1_000;

/// How often each priority is used: `high=1,default=8,low=1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Priorities(Vec<(String, usize)>);

impl FromStr for Priorities {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut weights = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let name = name.trim();
            if !["high", "default", "low"].contains(&name) {
                bail!("{name:?} is no priority: they are high, default and low");
            }
            let weight = weight.trim().parse();
            weights.push((name.to_owned(), weight.context("a weight is a whole number")?));
        }
        let sum: usize = weights.iter().map(|(_, weight)| *weight).sum();
        ensure!(
            (1..=WEIGHTS_MAX).contains(&sum),
            "the weights must sum up to 1 to {WEIGHTS_MAX}"
        );
        Ok(Self(weights))
    }
}

impl Priorities {
    /// One entry for each unit of weight, those of each priority evenly spread.
    fn table(&self) -> Vec<usize> {
        let mut slots: Vec<(f64, usize)> = Vec::new();
        for (index, (_, weight)) in self.0.iter().enumerate() {
            let places = (0..*weight).map(|place| ((place as f64 + 0.5) / *weight as f64, index));
            slots.extend(places);
        }
        slots.sort_by(|a, b| a.0.total_cmp(&b.0));
        slots.into_iter().map(|(_, index)| index).collect()
    }
}

/// What makes up a task.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// What kind it is.
    pub(crate) kind: String,
    /// Where it goes.
    pub(crate) queue: String,
    /// How urgent it is.
    pub(crate) priorities: Priorities,
    /// By which tag it can be found.
    pub(crate) tag: Option<String>,
    /// The payload of all tasks, instead of one of some size.
    pub(crate) payload: Option<Value>,
    /// The size of the payload.
    pub(crate) payload_bytes: usize,
}

/// Writes tasks.
#[derive(Debug)]
pub(crate) struct Shape {
    wanted: Wanted,
    table: Vec<usize>,
    /// For each priority, the JSON up to the payload.
    heads: Vec<String>,
    /// The payload before and after the number; after is `None` where it has no number.
    payload: (String, Option<String>),
}

impl Shape {
    /// Checks what is wanted.
    pub(crate) fn new(wanted: Wanted, seed: u64) -> Result<Self> {
        ensure!(
            wanted.payload_bytes <= PAYLOAD_BYTES_MAX,
            "a payload has at most {PAYLOAD_BYTES_MAX} bytes"
        );
        let heads = wanted.priorities.0.iter().map(|(priority, _)| {
            let mut task = json!({"kind": wanted.kind, "queue": wanted.queue, "priority": priority});
            if let Some(tag) = &wanted.tag {
                task["tags"] = json!([tag]);
            }
            let mut text = task.to_string();
            text.pop();
            text + ",\"payload\":"
        });
        Ok(Self {
            table: wanted.priorities.table(),
            heads: heads.collect(),
            payload: payload(&wanted, seed),
            wanted,
        })
    }

    fn priority(&self, number: u64) -> usize {
        self.table[(number % self.table.len() as u64) as usize]
    }

    /// Writes a task as JSON.
    pub(crate) fn write(&self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.heads[self.priority(number)].as_bytes());
        self.write_payload(number, out);
        out.push(b'}');
    }

    fn write_payload(&self, number: u64, out: &mut Vec<u8>) {
        let (before, after) = &self.payload;
        out.extend_from_slice(before.as_bytes());
        if let Some(after) = after {
            out.extend_from_slice(number.to_string().as_bytes());
            out.extend_from_slice(after.as_bytes());
        }
    }

    /// About how many bytes a task has as JSON.
    pub(crate) fn bytes(&self) -> usize {
        let (before, after) = &self.payload;
        self.heads[0].len() + before.len() + after.as_ref().map_or(0, String::len) + 8
    }

    /// A task as a gRPC message.
    pub(crate) fn message(&self, number: u64) -> SubmitTaskRequest {
        let mut payload = Vec::with_capacity(self.bytes());
        self.write_payload(number, &mut payload);
        SubmitTaskRequest {
            kind: self.wanted.kind.clone(),
            queue: self.wanted.queue.clone(),
            priority: self.wanted.priorities.0[self.priority(number)].0.clone(),
            payload: payload.into(),
            tags: self.wanted.tag.iter().cloned().collect(),
            ..SubmitTaskRequest::default()
        }
    }
}

/// Payloads that do not compress, so that the database gets to write what it is asked to.
fn payload(wanted: &Wanted, seed: u64) -> (String, Option<String>) {
    if let Some(payload) = &wanted.payload {
        return (payload.to_string(), None);
    }
    let (before, between, after) = ("{\"number\":", ",\"filler\":\"", "\"}");
    // A number of seven digits, as most are in a run worth the name.
    let frame = before.len() + 7 + between.len() + after.len();
    if wanted.payload_bytes < frame {
        return ("null".to_owned(), None);
    }
    let filler = StdRng::seed_from_u64(seed)
        .sample_iter(Alphanumeric)
        .take(wanted.payload_bytes - frame)
        .map(char::from)
        .collect::<String>();
    (before.to_owned(), Some(format!("{between}{filler}{after}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(priorities: &str, payload_bytes: usize) -> Wanted {
        Wanted {
            kind: "echo".into(),
            queue: "default".into(),
            priorities: priorities.parse().unwrap(),
            tag: Some("load-1".into()),
            payload: None,
            payload_bytes,
        }
    }

    fn written(shape: &Shape, number: u64) -> Value {
        let mut text = Vec::new();
        shape.write(number, &mut text);
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn both_doors_get_the_same_task() {
        let shape = Shape::new(wanted("high=1,low=3", 256), 1).unwrap();
        for number in 0..8 {
            let (json, message) = (written(&shape, number), shape.message(number));
            assert_eq!(json["kind"], message.kind.as_str());
            assert_eq!(json["priority"], message.priority.as_str());
            assert_eq!(json["tags"][0], message.tags[0].as_str());
            assert_eq!(
                json["payload"],
                serde_json::from_slice::<Value>(&message.payload).unwrap()
            );
            assert_eq!(json["payload"]["number"], number);
        }
    }

    #[test]
    fn payloads_have_the_size_that_was_asked_for() {
        for bytes in [64, 256, 100_000] {
            let shape = Shape::new(wanted("default", bytes), 1).unwrap();
            assert_eq!(shape.message(1_234_567).payload.len(), bytes);
        }
        assert_eq!(
            written(&Shape::new(wanted("default", 0), 1).unwrap(), 1)["payload"],
            Value::Null
        );
        assert!(Shape::new(wanted("default", PAYLOAD_BYTES_MAX + 1), 1).is_err());
    }

    #[test]
    fn priorities_come_as_often_as_they_weigh() {
        let shape = Shape::new(wanted("high=1,default=8,low=1", 64), 1).unwrap();
        let count = |priority: &str| {
            (0..100)
                .filter(|&number| written(&shape, number)["priority"] == priority)
                .count()
        };
        assert_eq!((count("high"), count("default"), count("low")), (10, 80, 10));
        for wrong in ["urgent", "high=x", "high=0", "", "low=1001"] {
            assert!(wrong.parse::<Priorities>().is_err(), "{wrong:?}");
        }
    }
}
