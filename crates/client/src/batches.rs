//! Batches: tasks that are submitted together and looked at together.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Client, NewTask, Result, Task};

/// A batch to open.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewBatch {
    /// What to call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The text of each of its tasks, as [`NewTask`] has it.
    pub tasks: Vec<Box<RawValue>>,
    /// Each waits for the one before.
    pub chain: bool,
    /// What runs when all have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_complete: Option<NewTask>,
    /// More can be added until it is closed.
    pub open: bool,
}

/// Tasks to add to a batch.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MoreTasks {
    /// The text of each, as [`NewTask`] has it.
    pub tasks: Vec<Box<RawValue>>,
    /// Each waits for the one before.
    pub chain: bool,
}

/// A batch as the server shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Batch {
    pub id: String,
    pub name: Option<String>,
    pub project: String,
    pub state: String,
    pub total: u64,
    pub ended: u64,
    pub progress: f64,
    pub counts: Option<BTreeMap<String, u64>>,
    pub completion_task_id: Option<String>,
    pub created_at: String,
    pub closed_at: Option<String>,
    pub cancelled_at: Option<String>,
    pub completed_at: Option<String>,
    /// Of the tasks of a request that submitted some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub task_ids: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Batches {
    batches: Vec<Batch>,
    #[serde(default)]
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Tasks {
    tasks: Vec<Task>,
    #[serde(default)]
    next_page_token: Option<String>,
}

impl Client {
    /// Opens a batch and submits its tasks, all or none. With a key it is tried a few times where the server can't be
    /// reached or has no room; without one it is sent once.
    ///
    /// # Errors
    /// Where the server refused it or can't be reached.
    pub async fn open_batch(&self, batch: &NewBatch, idempotency_key: Option<&str>) -> Result<Batch> {
        let request = self.at(Method::POST, self.path(&["batches"])).json(batch);
        match idempotency_key {
            Some(key) => self.json_again(request.header("Idempotency-Key", key)).await,
            None => self.json(request).await,
        }
    }

    /// Adds tasks to an open batch; the key is what makes it possible to try again.
    ///
    /// # Errors
    /// Where the server refused it or can't be reached.
    pub async fn add_to_batch(&self, id: &str, tasks: &MoreTasks, idempotency_key: &str) -> Result<Batch> {
        let request = self
            .at(Method::POST, self.path(&["batches", id, "tasks"]))
            .json(tasks);
        self.json_again(request.header("Idempotency-Key", idempotency_key))
            .await
    }

    /// Reads a batch, and counts its tasks.
    ///
    /// # Errors
    /// Where there is none of this id, or the server can't be reached.
    pub async fn batch(&self, id: &str) -> Result<Batch> {
        self.json_again(self.at(Method::GET, self.path(&["batches", id])))
            .await
    }

    /// The latest `limit` batches.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn batches(&self, limit: usize) -> Result<Vec<Batch>> {
        self.pages(&["batches"], limit, |page: Batches| {
            (page.batches, page.next_page_token)
        })
        .await
    }

    /// The first `limit` tasks of a batch.
    ///
    /// # Errors
    /// Where there is none of this id, or the server can't be reached.
    pub async fn batch_tasks(&self, id: &str, limit: usize) -> Result<Vec<Task>> {
        let path = ["batches", id, "tasks"];
        self.pages(&path, limit, |page: Tasks| (page.tasks, page.next_page_token))
            .await
    }

    /// Closes a batch: no more tasks can be added. To close it again changes nothing.
    ///
    /// # Errors
    /// Where there is none of this id, or the server can't be reached.
    pub async fn close_batch(&self, id: &str) -> Result<Batch> {
        self.json_again(self.at(Method::POST, self.path(&["batches", id, "close"])))
            .await
    }

    /// Cancels a batch and all of its tasks that have not ended. To cancel it again changes nothing.
    ///
    /// # Errors
    /// Where there is none of this id, where it is complete, or where the server can't be reached.
    pub async fn cancel_batch(&self, id: &str) -> Result<Batch> {
        self.json_again(self.at(Method::POST, self.path(&["batches", id, "cancel"])))
            .await
    }
}
