//! Runs a task with an HTTP endpoint: the payload is posted to it, its answer is the result.
//!
//! Requests are signed as [Standard Webhooks](https://www.standardwebhooks.com) have it. They go nowhere but to
//! the configured endpoint: redirects and proxies are off, and addresses that are not public are refused when a
//! connection is made, so that nobody who controls a name can make a worker call into its own network.

mod address;
mod answer;
mod places;
mod signature;
mod webhook;

use std::{error::Error, fmt::Write, sync::Arc, time::Duration};

use async_trait::async_trait;
use forebay_core::{Clock, SystemClock};
use reqwest::{
    Client, RequestBuilder,
    header::{CONTENT_TYPE, HeaderValue},
    redirect::Policy,
};
use thiserror::Error as ThisError;
use url::{Host, Url};

use self::{
    address::{PublicOnly, Reach, Unreachable},
    signature::Signer,
};
use super::{Execution, Handler, HandlerError, HandlerResult};

pub(crate) use self::webhook::WebhookHandler;

/// How long connecting may take, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// By how much a call outlives its attempt's timeout where nobody stops it. Whoever watches the attempt is meant to
/// come first, since it knows that this is a timeout and not just another failure.
const TIMEOUT_SLACK: Duration = Duration::from_secs(1);

/// Posts each attempt to one endpoint.
///
/// The request has the payload as its body, and the headers `webhook-id` (the task's id: the same for all its
/// attempts, so that the receiver can tell a repetition), `webhook-timestamp`, `webhook-signature` where there is
/// a secret, `forebay-attempt`, `forebay-fence`, `forebay-kind`, `forebay-queue` and, where there is a trace,
/// `traceparent`. The fence is [`Execution::fence`]: it grows with every start of the task, so a receiver that refuses
/// a lower one than it has seen is safe from a worker that was given up and woke up.
///
/// An answer of 2xx is success: its body is the result, as JSON where it is JSON, else as a string, and `null`
/// where there is none. 408, 425, 429 and 5xx are tried again, not before what `Retry-After` asks for; every other
/// answer fails the task for good, and so does a redirect, which is never followed.
pub struct HttpHandler {
    client: Client,
    url: Url,
    /// What errors call the endpoint. Not the whole address, whose path may be a secret.
    host: String,
    signer: Option<Signer>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for HttpHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpHandler")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Why an endpoint can't be used. Says which setting is wrong, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error("{setting} {detail}")]
pub struct InvalidEndpoint {
    /// The setting, as it is called in the configuration: `url`, `secret_env` or `allow_private`.
    pub setting: &'static str,
    /// What is wrong with it, as a fragment.
    pub detail: String,
}

impl InvalidEndpoint {
    fn new(setting: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { setting, detail }
    }
}

impl HttpHandler {
    /// A handler that posts to `url`. It signs with `secret`, which is either `whsec_` and base64, or any text.
    /// Addresses that are not public are refused unless they are within `allow_private`: networks such as
    /// `10.0.0.0/8`, or single addresses.
    ///
    /// # Errors
    /// All that is wrong with these settings.
    pub fn new(
        url: &str,
        secret: Option<&str>,
        allow_private: &[String],
    ) -> Result<Self, Vec<InvalidEndpoint>> {
        let mut problems = Vec::new();
        let signer = secret.map(Signer::new).transpose();
        let signer = signer.map_err(|detail| problems.push(InvalidEndpoint::new("secret_env", detail)));
        let reach = Reach::parse(allow_private);
        let reach = reach.map_err(|details| {
            problems.extend(
                details
                    .iter()
                    .map(|detail| InvalidEndpoint::new("allow_private", detail)),
            );
        });
        let url = check_url(url).map_err(|detail| problems.push(InvalidEndpoint::new("url", detail)));
        let (Ok(signer), Ok(reach), Ok((url, host))) = (signer, reach, url) else {
            return Err(problems);
        };
        if let Some(refused) = refused_literal(&url, &reach) {
            return Err(vec![InvalidEndpoint::new(
                "url",
                format!("is refused: {refused}"),
            )]);
        }
        let client = client(url.scheme(), reach).map_err(|e| {
            vec![InvalidEndpoint::new(
                "url",
                format!("can't be called: {}", chain(&e)),
            )]
        })?;
        Ok(Self {
            client,
            url,
            host,
            signer,
            clock: Arc::new(SystemClock),
        })
    }

    /// Reads the time from `clock`, for signatures and for dates in `Retry-After`.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn request(&self, execution: &Execution) -> RequestBuilder {
        let id = execution.id.to_string();
        let sent_at = self.clock.now().as_second();
        let body = execution.payload.to_bytes();
        let mut request = self
            .client
            .post(self.url.clone())
            .timeout(execution.timeout.saturating_add(TIMEOUT_SLACK))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("webhook-id", &id)
            .header("webhook-timestamp", sent_at)
            .header("forebay-attempt", execution.attempt)
            .header("forebay-fence", execution.fence)
            .header("forebay-kind", execution.kind.as_str())
            .header("forebay-queue", execution.queue.as_str());
        if let Some(signer) = &self.signer {
            request = request.header("webhook-signature", signer.sign(&id, sent_at, &body));
        }
        if let Some(trace) = &execution.traceparent {
            request = request.header("traceparent", trace.as_str());
        }
        request.body(body)
    }

    fn failed(&self, error: reqwest::Error) -> HandlerError {
        failed_at(&self.host, error)
    }
}

/// No answer of `host`, or not all of it.
fn failed_at(host: &str, error: reqwest::Error) -> HandlerError {
    // The address stays out of it: its path may be a secret.
    let error = error.without_url();
    if let Some(unreachable) = cause::<Unreachable>(&error) {
        return HandlerError::permanent(format_args!("{host} was not called: {unreachable}"));
    }
    if error.is_timeout() && !error.is_connect() {
        return HandlerError::retryable(format_args!("{host} did not answer in time"));
    }
    HandlerError::retryable(format_args!("calling {host}: {}", chain(&error)))
}

#[async_trait]
impl Handler for HttpHandler {
    /// An endpoint says one thing, and that at the end.
    fn can_speak(&self) -> bool {
        false
    }

    async fn run(&self, execution: Execution) -> HandlerResult {
        let call = async {
            let response = self
                .request(&execution)
                .send()
                .await
                .map_err(|e| self.failed(e))?;
            let answer = answer::read(response).await.map_err(|e| self.failed(e))?;
            answer.judge(&self.host, self.clock.now())
        };
        tokio::select! {
            result = call => result,
            // Dropping the call closes its connection.
            _ = execution.stop.cancelled() => {
                Err(HandlerError::retryable(format_args!("the call to {} was broken off", self.host)))
            }
        }
    }
}

/// The address, and what to call it: host and port.
fn check_url(text: &str) -> Result<(Url, String), String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "must begin with http:// or https://, not with {}:",
            url.scheme()
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user name or a password".to_owned());
    }
    let Some(host) = url.host_str() else {
        return Err("has no host".to_owned());
    };
    let name = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    Ok((url, name))
}

/// A URL with an address instead of a name never reaches the resolver, so it is checked here. It can't change:
/// redirects are not followed.
fn refused_literal(url: &Url, reach: &Reach) -> Option<Unreachable> {
    let address = match url.host()? {
        Host::Ipv4(address) => address.into(),
        Host::Ipv6(address) => address.into(),
        Host::Domain(_) => return None,
    };
    reach.check(address).err()
}

fn client(scheme: &str, reach: Reach) -> reqwest::Result<Client> {
    let mut builder = Client::builder();
    if scheme == "http" {
        // There is no one to trust: a machine that has no certificates will do.
        builder = builder.tls_certs_only([]);
    }
    builder
        .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_MAX)
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .dns_resolver(PublicOnly::new(reach))
        .build()
}

/// The cause of type `E` in an error's chain.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String can't fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
