//! Why a task is where it is.

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{Client, Result};

/// Why a task is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Explanation {
    pub id: String,
    pub state: String,
    /// The one thing that it waits for, by a name that never changes.
    pub reason: String,
    /// The same in a sentence.
    pub detail: String,
    #[serde(default)]
    pub run_at: Option<String>,
    #[serde(default)]
    pub next_attempt: Option<u32>,
    #[serde(default)]
    pub ahead: Option<u64>,
    #[serde(default)]
    pub ahead_is_exact: Option<bool>,
    #[serde(default)]
    pub worker: Option<String>,
    #[serde(default)]
    pub worker_name: Option<String>,
    #[serde(default)]
    pub limit: Option<Hold>,
    #[serde(default)]
    pub blocked_on: Vec<String>,
    #[serde(default)]
    pub batch: Option<String>,
    pub at: String,
}

/// A limit that holds a task back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Hold {
    pub name: String,
    #[serde(default)]
    pub key: Option<String>,
    pub running: u64,
    #[serde(default)]
    pub concurrency: Option<u32>,
    #[serde(default)]
    pub next_at: Option<String>,
    pub ahead: u64,
}

impl Client {
    /// Says why a task is where it is: the one thing that it waits for.
    ///
    /// # Errors
    /// Where there is no such task, or the server can't be reached.
    pub async fn explain(&self, id: &str) -> Result<Explanation> {
        let url = self.path(&["tasks", id, "explain"]);
        self.json_again(self.at(Method::GET, url)).await
    }
}
