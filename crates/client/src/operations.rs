//! Operations: one action on many tasks.

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{Client, Result};

/// Which tasks an operation is about: those of which all that is said is true.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct OperationFilter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_contains: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct NewOperation {
    /// `retry`, `cancel` or `delete`.
    pub action: String,
    pub filter: OperationFilter,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

/// The same, only to be counted.
#[derive(Debug, Serialize)]
struct DryRun<'a> {
    #[serde(flatten)]
    operation: &'a NewOperation,
    dry_run: bool,
}

/// What an operation would be about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Matching {
    pub count: u64,
    pub count_is_exact: bool,
    pub sample: Vec<String>,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Operation {
    pub id: String,
    pub action: String,
    pub filter: OperationFilter,
    /// `running`, `completed` or `aborted`.
    pub state: String,
    pub rate_per_second: u32,
    #[serde(default)]
    pub max: Option<u64>,
    pub expected: u64,
    pub expected_is_exact: bool,
    pub progress: OperationProgress,
    pub created_at: String,
    pub updated_at: String,
    #[serde(default)]
    pub finished_at: Option<String>,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct OperationProgress {
    pub matched: u64,
    pub done: u64,
    pub skipped: u64,
    pub failed: u64,
}

impl Operation {
    /// Whether it has ended, one way or the other.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state != "running"
    }
}

#[derive(Debug, Deserialize)]
struct Page {
    operations: Vec<Operation>,
    #[serde(default)]
    next_page_token: Option<String>,
}

impl Client {
    /// Counts the tasks that an operation would be about, and changes nothing.
    ///
    /// # Errors
    /// Where the server refused it or can't be reached.
    pub async fn count_for_operation(&self, operation: &NewOperation) -> Result<Matching> {
        let body = DryRun {
            operation,
            dry_run: true,
        };
        let url = self.path(&["operations"]);
        self.json_again(self.at(Method::POST, url).json(&body)).await
    }

    /// Begins an operation; the server carries it out. It is asked for once: were the answer lost, another would begin.
    ///
    /// # Errors
    /// Where the server refused it or can't be reached.
    pub async fn begin_operation(&self, operation: &NewOperation) -> Result<Operation> {
        let url = self.path(&["operations"]);
        self.json(self.at(Method::POST, url).json(operation)).await
    }

    /// Reads an operation.
    ///
    /// # Errors
    /// Where there is none of this id, or the server can't be reached.
    pub async fn operation(&self, id: &str) -> Result<Operation> {
        let url = self.path(&["operations", id]);
        self.json_again(self.at(Method::GET, url)).await
    }

    /// The latest `limit` operations.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn operations(&self, limit: usize) -> Result<Vec<Operation>> {
        self.pages(&["operations"], limit, |page: Page| {
            (page.operations, page.next_page_token)
        })
        .await
    }

    /// Ends an operation that runs. What was done stays. To end it again changes nothing.
    ///
    /// # Errors
    /// Where there is none of this id, where it is completed, or where the server can't be reached.
    pub async fn abort_operation(&self, id: &str) -> Result<Operation> {
        let url = self.path(&["operations", id, "abort"]);
        self.json_again(self.at(Method::POST, url)).await
    }
}
