//! What is submitted: mostly what is quick, and some of everything that tasks can be.

use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};

use crate::endpoint::Work;

/// How many tasks a batch has.
const BATCH: usize = 5;

/// The queues and their lanes.
const QUEUES: [&str; 2] = ["default", "second"];
const PRIORITIES: [&str; 3] = ["high", "default", "low"];

/// How a submission is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// One task.
    Single,
    /// One task under a key, sent again until it is accepted, and perhaps once more.
    Keyed {
        /// The key.
        key: String,
        /// Whether it is sent again though it was accepted.
        again: bool,
    },
    /// A JSON array.
    Array,
    /// A stream of lines.
    Lines,
}

/// When a task is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    /// So many milliseconds later, by the clock of whoever accepts it.
    Delayed(u64),
    /// So many milliseconds later, by ours.
    At(u64),
}

/// One task to be.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    work: Work,
    kind: &'static str,
    queue: &'static str,
    priority: &'static str,
    when: When,
}

/// One submission to be.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) way: Way,
    pub(crate) drafts: Vec<Draft>,
}

impl Recipe {
    /// The submission with this number. `run` tells the keys of one run from those of another.
    pub(crate) fn make(rng: &mut StdRng, run: u64, number: u64) -> Self {
        let way = match rng.random_range(0..100) {
            0..20 => Way::Keyed {
                key: format!("chaos-{run:x}-{number}"),
                again: rng.random_bool(0.3),
            },
            20..22 => Way::Array,
            22..24 => Way::Lines,
            _ => Way::Single,
        };
        let many = if matches!(way, Way::Array | Way::Lines) {
            BATCH
        } else {
            1
        };
        let drafts = (0..many).map(|_| Draft::make(rng, number)).collect();
        Self { way, drafts }
    }

    /// One task for each lane there is.
    pub(crate) fn everywhere(number: u64) -> Vec<Self> {
        let lanes = QUEUES
            .iter()
            .flat_map(|&queue| PRIORITIES.map(|priority| (queue, priority)));
        let drafts = lanes.map(|(queue, priority)| Draft {
            queue,
            priority,
            ..Draft::plain(number)
        });
        drafts
            .map(|draft| Self {
                way: Way::Single,
                drafts: vec![draft],
            })
            .collect()
    }

    /// The simplest there is: to see whether tasks are accepted and finish.
    pub(crate) fn probe(number: u64) -> Self {
        let drafts = vec![Draft::plain(number)];
        Self {
            way: Way::Single,
            drafts,
        }
    }
}

impl Draft {
    /// A task that is ready at once and takes no time.
    pub(crate) fn plain(number: u64) -> Self {
        Self {
            work: Work {
                number,
                work_ms: 0,
                fail_first: false,
            },
            kind: "chaos",
            queue: "default",
            priority: "default",
            when: When::Now,
        }
    }

    fn make(rng: &mut StdRng, number: u64) -> Self {
        let mut draft = Self::plain(number);
        match rng.random_range(0..100) {
            0..4 => draft.when = When::Delayed(rng.random_range(1_000..5_000)),
            4..8 => draft.when = When::At(rng.random_range(1_000..5_000)),
            8..16 => draft.work.fail_first = true,
            16..24 => draft.work.work_ms = rng.random_range(1_000..2_000),
            24..26 => draft.kind = "chaos-command",
            _ => {}
        }
        if rng.random_bool(0.15) {
            draft.queue = "second";
        }
        match rng.random_range(0..10) {
            0 => draft.priority = "high",
            1 => draft.priority = "low",
            _ => {}
        }
        draft
    }

    /// As the API wants it. `at` says what our clock will show so many milliseconds from now.
    pub(crate) fn body(&self, at: impl Fn(u64) -> String) -> Value {
        let mut body = json!({
            "kind": self.kind,
            "queue": self.queue,
            "priority": self.priority,
            "payload": self.work,
        });
        match self.when {
            When::Now => {}
            When::Delayed(millis) => body["delay_seconds"] = json!(millis as f64 / 1_000.0),
            When::At(millis) => body["run_at"] = json!(at(millis)),
        }
        body
    }

    /// The same, but with its time told by our clock.
    pub(crate) fn by_our_clock(mut self) -> Self {
        if let When::Delayed(millis) = self.when {
            self.when = When::At(millis);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn there_is_some_of_everything() {
        let mut rng = StdRng::seed_from_u64(7);
        let recipes: Vec<Recipe> = (0..2_000).map(|n| Recipe::make(&mut rng, 1, n)).collect();
        let drafts = || recipes.iter().flat_map(|recipe| &recipe.drafts);
        assert!(
            recipes
                .iter()
                .any(|r| r.way == Way::Array && r.drafts.len() == BATCH)
        );
        assert!(
            recipes
                .iter()
                .any(|r| r.way == Way::Lines && r.drafts.len() == BATCH)
        );
        let keyed = |again: bool| {
            recipes
                .iter()
                .any(|r| matches!(r.way, Way::Keyed { again: a, .. } if a == again))
        };
        assert!(keyed(true) && keyed(false));
        assert!(drafts().any(|d| d.work.fail_first) && drafts().any(|d| d.work.work_ms > 0));
        assert!(drafts().any(|d| d.kind == "chaos-command") && drafts().any(|d| d.queue == "second"));
        assert!(drafts().any(|d| d.priority == "high") && drafts().any(|d| d.priority == "low"));
        let plain = drafts().filter(|d| d.when == When::Now && d.work.work_ms == 0 && !d.work.fail_first);
        assert!(plain.count() > 1_000, "most are instant");
    }

    #[test]
    fn a_time_of_ours_does_not_need_the_clock_of_the_api() {
        let mut draft = Draft::plain(1);
        draft.when = When::Delayed(1_500);
        let at = |millis: u64| format!("in {millis}");
        assert_eq!(draft.body(at)["delay_seconds"], 1.5);
        let body = draft.by_our_clock().body(at);
        assert_eq!(
            (body["run_at"].as_str(), body.get("delay_seconds")),
            (Some("in 1500"), None)
        );
    }
}
