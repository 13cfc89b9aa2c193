//! One submission, over HTTP.

use std::{sync::atomic::Ordering, time::Duration};

use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Draft, Shared,
    recipe::{Recipe, Way},
};

/// How long a request may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How long a stream may take.
const STREAM_MAX: Duration = Duration::from_secs(60);
/// How long a submission under a key is tried.
pub(super) const KEYED_MAX: Duration = Duration::from_secs(90);
/// How long is waited before it is tried again.
const AGAIN_WAIT: Duration = Duration::from_millis(300);

/// What an answer has of a task.
#[derive(Debug, Deserialize)]
struct Answer {
    id: Option<Uuid>,
}

#[derive(Debug, Deserialize)]
struct Answers {
    results: Vec<Answer>,
}

impl Shared {
    pub(super) async fn send(&self, recipe: &Recipe, number: u64, stop: &CancellationToken) {
        match &recipe.way {
            Way::Single => {
                self.single(recipe, number).await;
            }
            Way::Keyed { key, again } => self.keyed(recipe, number, key, *again, stop).await,
            Way::Array => self.array(&recipe.drafts, number).await,
            Way::Lines => {
                self.lines(&recipe.drafts, number).await;
            }
        }
    }

    /// One task, once.
    pub(super) async fn single(&self, recipe: &Recipe, number: u64) -> Option<Uuid> {
        let _open = self.gate.read().await;
        let request = self
            .post(number, "/v1/tasks")
            .json(&self.body(recipe.drafts.first()?));
        self.one(request, None).await
    }

    /// One task under a key: again and again, each time to another replica, until it is accepted.
    async fn keyed(&self, recipe: &Recipe, number: u64, key: &str, again: bool, stop: &CancellationToken) {
        let Some(draft) = recipe.drafts.first() else {
            return;
        };
        // The same request each time, and it may meet several clocks.
        let body = self.body(&draft.clone().by_our_clock());
        let deadline = Instant::now() + KEYED_MAX / 2;
        let mut more = if again { 1 } else { 0 };
        for turn in number.. {
            let accepted = {
                let _open = self.gate.read().await;
                let request = self
                    .post(turn, "/v1/tasks")
                    .header("idempotency-key", key)
                    .json(&body);
                self.one(request, Some(key)).await.is_some()
            };
            if accepted && more == 0 || stop.is_cancelled() || Instant::now() > deadline {
                return;
            }
            if accepted {
                more -= 1;
            }
            sleep(AGAIN_WAIT).await;
        }
    }

    async fn array(&self, drafts: &[Draft], number: u64) {
        let _open = self.gate.read().await;
        let bodies: Vec<Value> = drafts.iter().map(|draft| self.body(draft)).collect();
        let request = self.post(number, "/v1/tasks/batch").json(&bodies);
        if let Some(answer) = self.answer(request).await {
            match answer.json::<Answers>().await {
                Ok(answers) => answers.results.iter().for_each(|answer| self.note(answer)),
                Err(_) => self.ledger.refuse("half an answer"),
            }
        }
    }

    /// Returns how many were accepted.
    pub(super) async fn lines(&self, drafts: &[Draft], number: u64) -> usize {
        let _open = self.gate.read().await;
        let body: String = drafts
            .iter()
            .map(|draft| format!("{}\n", self.body(draft)))
            .collect();
        let request = self
            .post(number, "/v1/tasks/batch")
            .header("content-type", "application/x-ndjson")
            .timeout(STREAM_MAX)
            .body(body);
        let Some(mut answer) = self.answer(request).await else {
            return 0;
        };
        let (mut text, mut accepted) = (Vec::new(), 0);
        // A line that has come is an answer, also where the next one never comes.
        while let Ok(Some(chunk)) = answer.chunk().await {
            text.extend_from_slice(&chunk);
            while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if let Ok(answer) = serde_json::from_slice::<Answer>(&line) {
                    self.note(&answer);
                    accepted += usize::from(answer.id.is_some());
                }
            }
        }
        accepted
    }

    async fn one(&self, request: RequestBuilder, key: Option<&str>) -> Option<Uuid> {
        let answer = self.answer(request).await?;
        match answer.json::<Answer>().await {
            Ok(Answer { id: Some(id) }) => {
                self.ledger.accept(id, self.watch.now(), key);
                Some(id)
            }
            _ => {
                self.ledger.refuse("half an answer");
                None
            }
        }
    }

    /// The answer, if it is 202.
    async fn answer(&self, request: RequestBuilder) -> Option<Response> {
        match request.send().await {
            Ok(answer) if answer.status() == 202 => Some(answer),
            Ok(answer) => {
                let status = answer.status();
                self.ledger.refuse(status.as_str());
                // These say "not now"; every other says that somebody is wrong.
                if !matches!(status.as_u16(), 429 | 503) {
                    let text = answer.text().await.unwrap_or_default();
                    self.problem(format!("a submission was answered {status}: {text}"));
                }
                None
            }
            Err(error) => {
                let how = if error.is_timeout() {
                    "no answer in time"
                } else {
                    "connection broken"
                };
                self.ledger.refuse(how);
                None
            }
        }
    }

    fn note(&self, answer: &Answer) {
        match answer.id {
            Some(id) => self.ledger.accept(id, self.watch.now(), None),
            None => self.ledger.refuse("refused within a batch"),
        }
    }

    fn post(&self, turn: u64, path: &str) -> RequestBuilder {
        let door = usize::try_from(turn).unwrap_or_default() % self.doors.len();
        let url = format!("{}{path}", self.doors[door]);
        self.client.post(url).timeout(REQUEST_MAX)
    }

    fn body(&self, draft: &Draft) -> Value {
        let at = |millis| self.watch.time_in(Duration::from_millis(millis));
        if self.leaping.load(Ordering::Acquire) > 0 {
            draft.clone().by_our_clock().body(at)
        } else {
            draft.body(at)
        }
    }
}
