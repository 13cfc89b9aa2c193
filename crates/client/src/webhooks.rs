//! Webhooks: who hears of the ends of tasks.

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{Client, Result};

/// A webhook to put.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NewWebhook {
    /// Where events are posted to.
    pub url: String,
    /// What they are signed with; the one it has, or a new one, unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The final states that it hears of; all unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<Vec<String>>,
    /// Whether events have the task's result.
    pub include_result: bool,
    /// Whether it rests.
    pub disabled: bool,
}

/// A webhook as the server shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Webhook {
    pub name: String,
    pub url: String,
    /// Only in the answer to the request that it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    pub states: Vec<String>,
    pub include_result: bool,
    pub disabled: bool,
    pub disabled_reason: Option<String>,
    /// Absent from what older servers say.
    #[serde(default)]
    pub failing_since: Option<String>,
    pub previous_secret_until: Option<String>,
    pub created_at: String,
    pub updated_at: String,
}

/// An event that a webhook was told, is being told, or would have been told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Delivery {
    pub id: Option<String>,
    pub event_id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub task_id: Option<String>,
    pub state: String,
    pub attempt: u32,
    pub error: Option<String>,
    pub created_at: String,
    pub next_attempt_at: Option<String>,
    pub finished_at: Option<String>,
}

/// What is to be told again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookReplay {
    /// The end of the task of this id.
    Task(String),
    /// All that has not arrived since a time.
    #[serde(untagged)]
    Missed {
        /// Since when.
        since: String,
        /// Only what was noted before then.
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<String>,
    },
}

/// What was told again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookReplayed {
    /// The tasks that deliver.
    pub deliveries: Vec<String>,
    /// Whether there is more: ask again.
    pub more: bool,
}

#[derive(Debug, Deserialize)]
struct Page {
    webhooks: Vec<Webhook>,
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Deliveries {
    deliveries: Vec<Delivery>,
    next_page_token: Option<String>,
}

impl Client {
    /// Makes a webhook, or replaces the one of that name. Tried once, since a secret that is made for it is told once.
    ///
    /// # Errors
    /// Where the server refused it or can't be reached.
    pub async fn put_webhook(&self, name: &str, webhook: &NewWebhook) -> Result<Webhook> {
        let url = self.path(&["webhooks", name]);
        self.json(self.at(Method::PUT, url).json(webhook)).await
    }

    /// Reads a webhook, without its secret.
    ///
    /// # Errors
    /// Where there is none of this name, or the server can't be reached.
    pub async fn webhook(&self, name: &str) -> Result<Webhook> {
        let url = self.path(&["webhooks", name]);
        self.json_again(self.at(Method::GET, url)).await
    }

    /// All webhooks, by name.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>> {
        self.pages(&["webhooks"], usize::MAX, |page: Page| {
            (page.webhooks, page.next_page_token)
        })
        .await
    }

    /// Deletes a webhook.
    ///
    /// # Errors
    /// Where there is none of this name, or the server can't be reached.
    pub async fn delete_webhook(&self, name: &str) -> Result<()> {
        let url = self.path(&["webhooks", name]);
        self.answer(self.at(Method::DELETE, url)).await.map(drop)
    }

    /// Sends a trial event.
    ///
    /// # Errors
    /// Where there is none of this name, it is disabled, or the server can't be reached.
    pub async fn test_webhook(&self, name: &str) -> Result<WebhookReplayed> {
        let url = self.path(&["webhooks", name, "test"]);
        self.json(self.at(Method::POST, url)).await
    }

    /// The latest deliveries to a webhook, up to `limit`.
    ///
    /// # Errors
    /// Where there is none of this name, or the server can't be reached.
    pub async fn deliveries(&self, name: &str, limit: usize) -> Result<Vec<Delivery>> {
        let path = ["webhooks", name, "deliveries"];
        self.pages(&path, limit, |page: Deliveries| {
            (page.deliveries, page.next_page_token)
        })
        .await
    }

    /// Tells a webhook again.
    ///
    /// # Errors
    /// Where there is none of this name, it is disabled, the task is not one to be told of, or the server can't be reached.
    pub async fn replay_webhook(&self, name: &str, what: &WebhookReplay) -> Result<WebhookReplayed> {
        let url = self.path(&["webhooks", name, "replay"]);
        self.json(self.at(Method::POST, url).json(what)).await
    }
}
