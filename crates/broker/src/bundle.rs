//! Bundles: many submissions in one message of the broker.
//!
//! A broker syncs its disk for each message that it takes, whatever its size. So what is submitted together travels
//! together: packed when it is published, unpacked when it is delivered, and answered once all of it is answered.

use std::collections::{HashMap, hash_map::Entry};

use bytes::Bytes;
use forebay_core::Submission;
use prost::encoding::{encoded_len_varint, key_len};

use crate::{
    Message, Token, Undecodable,
    wire::{
        self, Decoder,
        fields::{self, put_always},
    },
};

/// The most submissions in one bundle.
pub const TASKS_MAX: usize = 1_000;
/// The field of `Submissions` that holds the items.
const ITEM: u32 = 1;

/// Submissions as one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The message's body.
    pub body: Bytes,
    /// How many submissions are in it.
    pub count: usize,
}

/// Packs submissions, in order, into bundles of at most [`TASKS_MAX`] of them and `bytes_max` bytes each. One that is
/// larger by itself goes alone.
#[must_use]
pub fn pack(tasks: &[Submission], bytes_max: usize) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    let (mut body, mut count, mut item) = (Vec::new(), 0, Vec::new());
    for (index, task) in tasks.iter().enumerate() {
        item.clear();
        wire::put_submission(task, &mut item);
        let framed = key_len(ITEM) + encoded_len_varint(item.len() as u64) + item.len();
        if count == TASKS_MAX || (count > 0 && body.len() + framed > bytes_max) {
            let body = Bytes::from(std::mem::take(&mut body));
            bundles.push(Bundle { body, count });
            count = 0;
        }
        if count == 0 {
            body.reserve(framed.max(bytes_of(&tasks[index..]).min(bytes_max)));
        }
        put_always(ITEM, &item, &mut body);
        count += 1;
    }
    if count > 0 {
        let body = Bytes::from(body);
        bundles.push(Bundle { body, count });
    }
    bundles
}

fn bytes_of(tasks: &[Submission]) -> usize {
    let bytes = |task: &Submission| task.payload.as_bytes().len() + wire::FRAME_BYTES;
    tasks.iter().take(TASKS_MAX).map(bytes).sum()
}

/// Unpacks a bundle that came from `subject`: its submissions, in order, and what is none of them. Never empty: what is
/// not a bundle at all, or has nothing in it, is one message that can't be decoded. Payloads are slices of `body`.
#[must_use]
pub fn unpack(subject: &str, body: Bytes) -> Vec<Result<Message, Undecodable>> {
    let undecodable = |body: Bytes, reason: String| Undecodable {
        subject: subject.to_owned(),
        body,
        reason,
    };
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    let read = fields::each(&body, ITEM, |_, value| {
        let item = body.slice_ref(value.bytes()?);
        let message = decoder.decode("submit", &item);
        messages.push(message.map_err(|error| undecodable(item, error.to_string())));
        Ok(())
    });
    match read {
        Ok(()) if messages.is_empty() => vec![Err(undecodable(body, "it is empty".to_owned()))],
        Ok(()) => messages,
        Err(error) => vec![Err(undecodable(body, error.to_string()))],
    }
}

/// What is known of a message whose parts were handed out.
#[derive(Debug)]
struct Open {
    /// How many parts are not answered.
    parts: usize,
    /// Whether the message was given back to the broker.
    handed_back: bool,
}

/// Counts the parts of each message that are not answered. The token of a part is a clone of its message's.
#[derive(Debug, Default)]
pub struct Parts {
    messages: HashMap<Bytes, Open>,
}

impl Parts {
    /// A message came, and `count` parts of it are handed out, or will be.
    ///
    /// Where it is open under that token already, all parts of both deliveries must be answered: which of them an answer
    /// is about can't be told.
    pub fn open(&mut self, token: &Bytes, count: usize) {
        match self.messages.entry(token.clone()) {
            Entry::Occupied(mut open) => {
                let open = open.get_mut();
                open.parts += count;
                open.handed_back = false;
            }
            Entry::Vacant(place) => {
                place.insert(Open {
                    parts: count,
                    handed_back: false,
                });
            }
        }
    }

    /// These parts are done. Says which messages are: those whose last part this was, and that were not handed back.
    pub fn done(&mut self, tokens: impl IntoIterator<Item = Token>) -> Vec<Bytes> {
        let mut done = Vec::new();
        for (token, count) in counted(tokens) {
            if let Some(handed_back) = self.answer(&token, count)
                && !handed_back
            {
                done.push(token);
            }
        }
        done
    }

    /// These parts are to be handed out again. Says which messages must be given back to the broker for that: each once,
    /// and at once, though other parts of it are not answered. All of it comes again; repeats are harmless.
    pub fn hand_back(&mut self, tokens: impl IntoIterator<Item = Token>) -> Vec<Bytes> {
        let mut back = Vec::new();
        for (token, count) in counted(tokens) {
            let Some(open) = self.messages.get_mut(&token) else {
                continue;
            };
            let first = !std::mem::replace(&mut open.handed_back, true);
            self.answer(&token, count);
            if first {
                back.push(token);
            }
        }
        back
    }

    /// How many messages are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether no message is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Counts answers. Where the last part is answered, the message is closed: says then whether it was handed back.
    fn answer(&mut self, token: &Bytes, count: usize) -> Option<bool> {
        let open = self.messages.get_mut(token)?;
        open.parts = open.parts.saturating_sub(count);
        if open.parts > 0 {
            return None;
        }
        self.messages.remove(token).map(|open| open.handed_back)
    }
}

/// Tokens with how often each comes in a row: the parts of a message are mostly answered together.
fn counted(tokens: impl IntoIterator<Item = Token>) -> Vec<(Bytes, usize)> {
    let mut counted: Vec<(Bytes, usize)> = Vec::new();
    for Token(token) in tokens {
        match counted.last_mut() {
            Some((last, count)) if *last == token => *count += 1,
            _ => counted.push((token, 1)),
        }
    }
    counted
}

#[cfg(test)]
mod tests;
