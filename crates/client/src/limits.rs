//! Limits: how many tasks run, or start, at a time.

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{Client, Result};

/// A limit to put.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NewLimit {
    /// Only tasks of this queue count; of all unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Only tasks of this kind count; of all unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Whether only tasks with a key count, those of each key by themselves.
    pub by_key: bool,
    /// How many may run at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How many may start in a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// So many starts in such a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per_seconds: f64,
    /// How many at once after a rest; as many as `count` unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// A limit as the server shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Limit {
    pub name: String,
    pub queue: Option<String>,
    pub kind: Option<String>,
    pub by_key: bool,
    pub concurrency: Option<u32>,
    pub rate: Option<Rate>,
    /// How many tasks run that count to it; only where it is read by itself.
    pub running: Option<u64>,
    /// How many tasks it holds back; only where it is read by itself.
    pub waiting: Option<u64>,
    pub created_at: String,
    pub updated_at: String,
}

#[derive(Debug, Deserialize)]
struct Page {
    limits: Vec<Limit>,
    #[serde(default)]
    next_page_token: Option<String>,
}

impl Client {
    /// Makes a limit, or replaces the one of that name; to put the same again changes nothing, so it is tried a few times
    /// where the server can't be reached. Returns it as it is now. It holds a second later.
    ///
    /// # Errors
    /// Where the server refused it or can't be reached.
    pub async fn put_limit(&self, name: &str, limit: &NewLimit) -> Result<Limit> {
        let url = self.path(&["limits", name]);
        self.json_again(self.at(Method::PUT, url).json(limit)).await
    }

    /// Reads a limit, and how much it is used.
    ///
    /// # Errors
    /// Where there is none of this name, or the server can't be reached.
    pub async fn limit(&self, name: &str) -> Result<Limit> {
        let url = self.path(&["limits", name]);
        self.json_again(self.at(Method::GET, url)).await
    }

    /// All limits, by name.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn limits(&self) -> Result<Vec<Limit>> {
        self.pages(&["limits"], usize::MAX, |page: Page| {
            (page.limits, page.next_page_token)
        })
        .await
    }

    /// Deletes a limit. What it held back goes on.
    ///
    /// # Errors
    /// Where there is none of this name, or the server can't be reached.
    pub async fn delete_limit(&self, name: &str) -> Result<()> {
        let url = self.path(&["limits", name]);
        self.answer(self.at(Method::DELETE, url)).await.map(drop)
    }
}
