//! Server-Sent Events, with reconnection.

use std::time::Duration;

use futures::{Stream, stream};
use reqwest::{Method, StatusCode, header};
use tokio::time::{sleep, timeout};

use crate::{Client, Error, Event, Result, error::shown, lines::Lines};

/// How long to wait before the connection is made again: at first, and at the most.
const RECONNECT_FIRST: Duration = Duration::from_millis(200);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// A server that sends nothing for this long, not even a comment, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long the answer's head may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What to listen to.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only to this task.
    pub task: Option<String>,
    /// Only to this queue.
    pub queue: Option<String>,
    /// Only to this kind.
    pub kind: Option<String>,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// A task changed its state, or has said how far it is.
    Event(Event),
    /// Something may have been missed.
    Gap,
    /// The connection was lost, for this reason, and is made again.
    Lost(String),
}

impl Heard {
    fn is_final(&self) -> bool {
        matches!(self, Self::Event(event) if event.is_final())
    }
}

struct Listening {
    client: Client,
    filter: EventFilter,
    lines: Option<Lines>,
    /// Whether the one task that is watched has ended.
    over: bool,
    last_id: Option<String>,
    pause: Duration,
}

pub(crate) async fn listen(
    client: Client,
    filter: EventFilter,
) -> Result<impl Stream<Item = Result<Heard>> + Send + 'static> {
    let mut listening = Listening {
        client,
        filter,
        lines: None,
        over: false,
        last_id: None,
        pause: RECONNECT_FIRST,
    };
    listening.connect().await?;
    Ok(stream::try_unfold(listening, |mut listening| async move {
        let heard = listening.next().await?;
        Ok(heard.map(|heard| (heard, listening)))
    }))
}

impl Listening {
    async fn connect(&mut self) -> Result<()> {
        let mut url = match &self.filter.task {
            Some(id) => self.client.path(&["tasks", id, "events"]),
            None => self.client.path(&["events"]),
        };
        for (name, value) in [("queue", &self.filter.queue), ("kind", &self.filter.kind)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let mut request = self
            .client
            .at_open(Method::GET, url)
            .header(header::ACCEPT, "text/event-stream");
        if let Some(id) = &self.last_id {
            request = request.header("Last-Event-ID", id);
        }
        let answer = match timeout(ANSWER_TIMEOUT, self.client.answer(request)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.silent()),
        };
        self.over = answer.status() == StatusCode::NO_CONTENT;
        self.lines = Some(Lines::new(answer, self.client.base().clone()));
        Ok(())
    }

    /// The next that is worth telling. Only a refusal that reconnecting can't cure is an error.
    async fn next(&mut self) -> Result<Option<Heard>> {
        while !self.over {
            let Some(lines) = &mut self.lines else {
                sleep(self.pause).await;
                self.pause = (self.pause * 2).min(RECONNECT_MAX);
                match self.connect().await {
                    Err(error) if !error.is_unavailable() => return Err(error),
                    Ok(()) | Err(_) => continue,
                }
            };
            let block = match timeout(SILENCE_MAX, read_block(lines)).await {
                Ok(block) => block,
                Err(_) => Err(self.silent()),
            };
            match block {
                Ok(Some(block)) => {
                    self.pause = RECONNECT_FIRST;
                    if let Some(id) = &block.id {
                        self.last_id = Some(id.clone());
                    }
                    if let Some(heard) = block.heard(&self.client)? {
                        self.over = self.filter.task.is_some() && heard.is_final();
                        return Ok(Some(heard));
                    }
                }
                Ok(None) => {
                    self.lines = None;
                    return Ok(Some(Heard::Lost("the server ended the connection".to_owned())));
                }
                Err(error) => {
                    self.lines = None;
                    return Ok(Some(Heard::Lost(error.to_string())));
                }
            }
        }
        Ok(None)
    }

    fn silent(&self) -> Error {
        Error::Unreachable {
            url: shown(self.client.base()),
            reason: "it fell silent".to_owned(),
        }
    }
}

/// One event of the stream, as in the HTML standard.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    id: Option<String>,
    name: String,
    data: String,
}

impl Block {
    fn take(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments, `retry`, and what a later server may add.
            _ => {}
        }
    }

    fn heard(&self, client: &Client) -> Result<Option<Heard>> {
        match self.name.as_str() {
            "missed" => Ok(Some(Heard::Gap)),
            _ if self.data.is_empty() => Ok(None),
            _ => serde_json::from_str(&self.data)
                .map(|event| Some(Heard::Event(event)))
                .map_err(|error| Error::Unexpected {
                    url: shown(client.base()),
                    answer: format!("an event that makes no sense ({error})"),
                }),
        }
    }
}

/// Reads up to the next empty line, or one comment: so that a server that has nothing to say is heard to live.
async fn read_block(lines: &mut Lines) -> Result<Option<Block>> {
    let mut block = Block::default();
    while let Some(line) = lines.next().await? {
        if line.is_empty() || (line.starts_with(':') && block == Block::default()) {
            return Ok(Some(block));
        }
        block.take(&line);
    }
    Ok(None)
}
