//! Tells Kubernetes what it would cost to delete this pod, so that it deletes idle workers first when it scales in.
//!
//! It is best effort, and the API server does not like to be written to often: only what is news is told, and not more
//! than every 15 seconds. What fails here never harms the worker. Knows nothing of tasks but how many run.

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use forebay_runtime::supervise::random_unit;
use forebay_worker::Load;
use reqwest::{Certificate, Client, Method, header, redirect};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Where Kubernetes puts what a pod needs to talk to its API server.
pub(crate) const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Pods with a lower number are deleted first; 0 where there is none.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Karpenter writes the cost of pods that have this.
const MANAGED: &str = "karpenter.sh/managed-deletion-cost";

/// How long it is silent after each attempt to tell, at least; up to a third longer, so that the pods of a pool do not
/// tell all at once.
const INTERVAL: Duration = Duration::from_secs(15);
/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(5);

/// What each task that runs is worth.
const COST_OF_A_SLOT: i32 = 10;
/// The most that the time of the task that has run for longest may add: it does at twelve days.
const COST_OF_TIME_MAX: u32 = 20;
const COST_MAX: i32 = 1_000_000;

/// Ten for each slot that runs a task, and one for each doubling of the seconds for which the longest has run.
fn cost(load: Load) -> i32 {
    if load.busy == 0 {
        return 0;
    }
    let busy = i32::try_from(load.busy).unwrap_or(COST_MAX);
    let doublings = load.longest.as_secs().max(1).ilog2().min(COST_OF_TIME_MAX);
    busy.saturating_mul(COST_OF_A_SLOT)
        .saturating_add(doublings.cast_signed())
        .min(COST_MAX)
}

/// Whether it has begun or ceased to be idle, or differs by more than a quarter.
fn is_news(told: i32, cost: i32) -> bool {
    let is_other_kind = (told == 0) != (cost == 0);
    is_other_kind || i64::from(told.abs_diff(cost)) * 4 > i64::from(told.max(cost))
}

/// The pod that this process runs in, and the way to its API server.
#[derive(Debug)]
pub(crate) struct Pod {
    url: String,
    account: PathBuf,
    interval: Duration,
}

/// What of a pod matters here.
#[derive(Debug, Deserialize)]
struct Seen {
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Seen {
    fn cost(&self) -> i32 {
        let cost = self.metadata.annotations.get(COST);
        cost.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    fn is_managed(&self) -> bool {
        self.metadata.annotations.contains_key(MANAGED)
    }
}

impl Pod {
    /// Finds out where it is; `account` is the folder of the service account's token and certificate.
    pub(crate) fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
        account: &Path,
    ) -> Result<Self, String> {
        let mut missing = Vec::new();
        let [name, namespace, host, port] = [
            "POD_NAME",
            "POD_NAMESPACE",
            "KUBERNETES_SERVICE_HOST",
            "KUBERNETES_SERVICE_PORT",
        ]
        .map(|key| {
            variable(key).unwrap_or_else(|| {
                missing.push(format!("{key} is not set"));
                String::new()
            })
        });
        for file in ["token", "ca.crt"].map(|file| account.join(file)) {
            if !file.is_file() {
                missing.push(format!("there is no {}", file.display()));
            }
        }
        for (key, value) in [("POD_NAME", &name), ("POD_NAMESPACE", &namespace)] {
            let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            if !value.chars().all(is_allowed) {
                missing.push(format!("{key} is no name of Kubernetes: {value:?}"));
            }
        }
        if !missing.is_empty() {
            return Err(format!("--pod-deletion-cost cannot work: {}", missing.join(", ")));
        }
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host,
        };
        Ok(Self {
            url: format!("https://{host}:{port}/api/v1/namespaces/{namespace}/pods/{name}"),
            account: account.to_owned(),
            interval: INTERVAL,
        })
    }

    /// Tells until `stop`, or until the worker has ended.
    pub(crate) async fn tell(self, load: watch::Receiver<Load>, stop: &CancellationToken) {
        stop.run_until_cancelled(self.tell_on(load)).await;
    }

    async fn tell_on(&self, mut load: watch::Receiver<Load>) {
        let mut teller = Teller {
            pod: self,
            client: None,
            told: None,
            is_failing: false,
        };
        loop {
            let news = match teller.told {
                None => None,
                Some(told) => match load.wait_for(|load| is_news(told, cost(*load))).await {
                    Ok(load) => Some(cost(*load)),
                    Err(_) => return,
                },
            };
            if teller.attempt(news).await.is_some_and(|seen| seen.is_managed()) {
                info!("the pod's deletion cost is managed by Karpenter: this worker does not tell it");
                return;
            }
            tokio::time::sleep(self.interval.mul_f64(1.0 + random_unit() / 3.0)).await;
        }
    }
}

struct Teller<'a> {
    pod: &'a Pod,
    client: Option<Client>,
    /// What the pod said last; `None` before it was asked.
    told: Option<i32>,
    is_failing: bool,
}

impl Teller<'_> {
    /// Writes the cost, or only asks what is there. `None` where that failed, which was said.
    async fn attempt(&mut self, news: Option<i32>) -> Option<Seen> {
        match self.call(news).await {
            Ok(seen) => {
                debug!(cost = seen.cost(), "the pod's deletion cost");
                self.told = Some(seen.cost());
                if std::mem::take(&mut self.is_failing) {
                    info!("the pod's deletion cost can be told again");
                }
                Some(seen)
            }
            Err(problem) => {
                // Its certificate may have been exchanged.
                self.client = None;
                let error = format!("{problem:#}");
                if std::mem::replace(&mut self.is_failing, true) {
                    debug!(error, "the pod's deletion cost still cannot be told");
                } else {
                    warn!(
                        error,
                        "the pod's deletion cost cannot be told; the worker goes on"
                    );
                }
                None
            }
        }
    }

    async fn call(&mut self, news: Option<i32>) -> anyhow::Result<Seen> {
        // It is exchanged within the hour.
        let token = read(&self.pod.account.join("token")).await?;
        let client = match &self.client {
            Some(client) => client.clone(),
            None => connect(&read(&self.pod.account.join("ca.crt")).await?)?,
        };
        self.client = Some(client.clone());
        let request = match news {
            None => client.request(Method::GET, &self.pod.url),
            Some(cost) => client
                .request(Method::PATCH, &self.pod.url)
                .header(header::CONTENT_TYPE, "application/merge-patch+json")
                .body(json!({"metadata": {"annotations": {COST: cost.to_string()}}}).to_string()),
        };
        let answer = request.bearer_auth(token.trim()).send().await?;
        let status = answer.status();
        ensure!(
            status.is_success(),
            "the API server answered {status}{}",
            hint(status)
        );
        Ok(answer.json().await?)
    }
}

fn hint(status: reqwest::StatusCode) -> impl Display {
    match status.as_u16() {
        403 => ": its service account may not get and patch the pod",
        _ => "",
    }
}

async fn read(path: &Path) -> anyhow::Result<String> {
    let text = tokio::fs::read_to_string(path).await;
    text.with_context(|| format!("read {}", path.display()))
}

fn connect(certificate: &str) -> anyhow::Result<Client> {
    let roots = Certificate::from_pem_bundle(certificate.as_bytes())?;
    let client = Client::builder()
        .tls_certs_only(roots)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(CALL_MAX);
    Ok(client.build()?)
}

#[cfg(test)]
mod tests;
