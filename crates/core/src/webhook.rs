//! Webhooks: who hears of the ends of tasks. Pure: what is wrong with a request for one, and what becomes of the one
//! that it replaces. What they are told is in [`event`].

mod event;

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use thiserror::Error;
use url::Url;

use crate::{State, Timestamp, Violation, WebhookName};

pub use event::{
    DELIVERY_ANSWER_MAX, DELIVERY_ATTEMPTS_MAX, DELIVERY_DELAYS, DELIVERY_TIMEOUT, EndedTask, WEBHOOK_KIND,
    WEBHOOK_QUEUE, WebhookEvent,
};

/// How long a secret that was replaced goes on signing beside the new one.
pub const SECRET_OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// For how long every delivery has to fail until the webhook is disabled, as Standard Webhooks advises.
pub const FAILING_MAX: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// Marks a secret, which is written as base64.
const SECRET_PREFIX: &str = "whsec_";
/// How many bytes a secret has, as Standard Webhooks asks.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// The longest URL, in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// The states that a webhook can hear of.
const FINAL: [State; 4] = [State::Succeeded, State::Failed, State::Cancelled, State::Expired];

/// What events are signed with: `whsec_` and the base64 of 24 to 64 bytes. Shows itself to nobody who does not
/// [ask](Self::expose).
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(String);

/// The text is no secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be whsec_ and the base64 of {} to {} bytes", SECRET_BYTES.start(), SECRET_BYTES.end())]
pub struct InvalidSecret;

impl WebhookSecret {
    /// A new one of `random`, which must be random.
    #[must_use]
    pub fn new(random: &[u8; 32]) -> Self {
        Self(format!("{SECRET_PREFIX}{}", BASE64_STANDARD.encode(random)))
    }

    /// Its text, for those who sign and those who keep it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebhookSecret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let key = text.strip_prefix(SECRET_PREFIX).ok_or(InvalidSecret)?;
        let key = BASE64_STANDARD.decode(key).map_err(|_| InvalidSecret)?;
        match SECRET_BYTES.contains(&key.len()) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidSecret),
        }
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

/// An endpoint that hears of the ends of tasks which name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// What tasks call it.
    pub name: WebhookName,
    /// Where events are posted to.
    pub url: String,
    /// What they are signed with.
    pub secret: WebhookSecret,
    /// What they are signed with as well until then, since it was replaced.
    pub previous_secret: Option<(WebhookSecret, Timestamp)>,
    /// The final states that it hears of; sorted, each once, and at least one.
    pub states: Vec<State>,
    /// Whether an event has the task's result.
    pub include_result: bool,
    /// Whether it rests. What it would have heard of meanwhile is noted, and can be replayed.
    pub disabled: bool,
    /// Why it was disabled, where that was not by its owner.
    pub disabled_reason: Option<String>,
    /// Since when nothing that it was told was taken; `None` where something was, or nothing was to be told.
    pub failing_since: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

impl Webhook {
    /// The secrets that sign at `now`: the present one, and the one before for a while.
    pub fn secrets(&self, now: Timestamp) -> impl Iterator<Item = &WebhookSecret> {
        let previous = self.previous_secret.as_ref().filter(|(_, until)| *until > now);
        std::iter::once(&self.secret).chain(previous.map(|(secret, _)| secret))
    }

    /// Whether it hears of this end, were it not disabled.
    #[must_use]
    pub fn hears_of(&self, state: State) -> bool {
        self.states.contains(&state)
    }
}

/// A request to make a webhook, with the right types but not yet checked.
#[derive(Debug, Clone, Default)]
pub struct WebhookRequest {
    /// See [`Webhook::url`].
    pub url: String,
    /// See [`WebhookSecret`]; unless said, the one it has, or a new one.
    pub secret: Option<String>,
    /// See [`Webhook::states`]; all final ones unless said.
    pub states: Option<Vec<String>>,
    /// See [`Webhook::include_result`].
    pub include_result: bool,
    /// See [`Webhook::disabled`].
    pub disabled: bool,
}

/// A webhook as it is put: checked, and not yet held against the one of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// See [`Webhook::name`].
    pub name: WebhookName,
    /// See [`Webhook::url`].
    pub url: String,
    /// The secret that was given.
    pub secret: Option<WebhookSecret>,
    /// The secret that it has where none was given, and it had none.
    pub fresh_secret: WebhookSecret,
    /// See [`Webhook::states`].
    pub states: Vec<State>,
    /// See [`Webhook::include_result`].
    pub include_result: bool,
    /// See [`Webhook::disabled`].
    pub disabled: bool,
}

impl WebhookRequest {
    /// Checks the request. `random` must be random: it becomes the secret where none is given.
    ///
    /// # Errors
    /// With all that is wrong with it, not just the first.
    pub fn accept(self, name: WebhookName, random: &[u8; 32]) -> Result<NewWebhook, Vec<Violation>> {
        let mut wrong = Vec::new();
        if let Err(detail) = check_url(&self.url) {
            wrong.push(Violation::invalid("/url", detail));
        }
        let secret = self.secret.as_deref().and_then(|secret| {
            let parsed = secret.parse::<WebhookSecret>();
            parsed
                .map_err(|error| wrong.push(Violation::invalid("/secret", error.to_string())))
                .ok()
        });
        let states = states(self.states.as_deref(), &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(NewWebhook {
            name,
            url: self.url,
            secret,
            fresh_secret: WebhookSecret::new(random),
            states,
            include_result: self.include_result,
            disabled: self.disabled,
        })
    }
}

fn states(asked: Option<&[String]>, wrong: &mut Vec<Violation>) -> Vec<State> {
    const ALLOWED: &str = "must be one of succeeded, failed, cancelled, expired";
    let Some(asked) = asked else {
        return FINAL.to_vec();
    };
    if !(1..=FINAL.len()).contains(&asked.len()) {
        let detail = format!("must have 1 to {} items", FINAL.len());
        wrong.push(Violation::invalid("/states", detail));
        return Vec::new();
    }
    let mut states = BTreeSet::new();
    for (index, text) in asked.iter().enumerate() {
        match text.parse::<State>() {
            Ok(state) if state.is_final() => _ = states.insert(state),
            _ => wrong.push(Violation::invalid(format!("/states/{index}"), ALLOWED)),
        }
    }
    states.into_iter().collect()
}

fn check_url(text: &str) -> Result<(), String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("must have at most {URL_BYTES_MAX} bytes"));
    }
    // What parses them passes over them, or escapes them. It is kept and shown as it came.
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("must not contain spaces or control characters".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("must be a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with https:// or http://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user name or a password: what is posted is signed".to_owned());
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment".to_owned());
    }
    Ok(())
}

impl NewWebhook {
    /// The webhook as it is once it was put at `now` in the place of `old`. A secret that is replaced goes on signing
    /// for [`SECRET_OVERLAP`]. To put the same again changes nothing; with any change, one that fails has all its time again.
    #[must_use]
    pub fn replacing(&self, old: Option<&Webhook>, now: Timestamp) -> Webhook {
        let kept = old.map(|old| &old.secret);
        let secret = self.secret.as_ref().or(kept).unwrap_or(&self.fresh_secret);
        let previous_secret = match old {
            Some(old) if old.secret != *secret => {
                let until = now.saturating_add(SECRET_OVERLAP).unwrap_or(Timestamp::MAX);
                Some((old.secret.clone(), until))
            }
            Some(old) => old.previous_secret.clone().filter(|(_, until)| *until > now),
            None => None,
        };
        let disabled_reason = old.and_then(|old| old.disabled_reason.clone());
        let mut new = Webhook {
            name: self.name.clone(),
            url: self.url.clone(),
            secret: secret.clone(),
            previous_secret,
            states: self.states.clone(),
            include_result: self.include_result,
            disabled: self.disabled,
            disabled_reason: disabled_reason.filter(|_| self.disabled),
            failing_since: old.and_then(|old| old.failing_since),
            created_at: old.map_or(now, |old| old.created_at),
            updated_at: old.map_or(now, |old| old.updated_at),
        };
        if old.is_some_and(|old| *old != new) {
            new.updated_at = now;
            new.failing_since = None;
        }
        new
    }

    /// Whether `webhook` has the secret that was made for this request, which is to be shown then.
    #[must_use]
    pub fn has_made_secret_of(&self, webhook: &Webhook) -> bool {
        self.secret.is_none() && webhook.secret == self.fresh_secret
    }
}

#[cfg(test)]
mod tests;
