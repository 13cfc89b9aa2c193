//! What the server commands share: signals, logs, health, and the order in which a process ends.

use std::{future::Future, sync::Arc, time::Duration};

use forebay_runtime::{
    admin, config::args::LogArgs, health::Health, metrics::Metrics, shutdown, supervise, telemetry,
    telemetry::Telemetry,
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use crate::exit::{Code, Failure, Result};

/// How long the operator's door may take to close.
const ADMIN_CLOSE_MAX: Duration = Duration::from_secs(2);

/// A server process.
pub(crate) struct Process {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Health,
    /// Cancelled when the process is to stop: it was told to, or a part of it broke.
    pub(crate) stop: CancellationToken,
    /// Cancelled when it was told to.
    told: CancellationToken,
    /// Cancelled when everything but the operator's door has ended.
    closed: CancellationToken,
    tracker: TaskTracker,
    telemetry: Telemetry,
    admin: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts logging, and listens to signals from now on.
    pub(crate) fn start(log: &LogArgs, service: &'static str) -> Result<Self> {
        let telemetry = telemetry::start(log, service)?;
        let told = CancellationToken::new();
        shutdown::on_signals(told.clone())?;
        Ok(Self {
            metrics: Arc::new(Metrics::new()),
            health: Health::default(),
            stop: told.child_token(),
            told,
            closed: CancellationToken::new(),
            tracker: TaskTracker::new(),
            telemetry,
            admin: None,
        })
    }

    /// Runs a part of the process. Where it breaks, the whole process stops, in good order.
    pub(crate) fn part<F>(&self, name: &'static str, part: F) -> JoinHandle<()>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = self.stop.clone();
        supervise::spawn(&self.tracker, &self.stop, name, async move {
            if let Err(problem) = part.await {
                error!(
                    part = name,
                    error = format!("{problem:#}"),
                    "broke, the process stops"
                );
                stop.cancel();
            }
        })
    }

    /// Opens the operator's door. It stays open until the end, and says "not ready" from the moment the process is
    /// to stop.
    pub(crate) fn open_admin(&mut self, listener: TcpListener) {
        let (health, stop) = (self.health.clone(), self.stop.clone());
        self.tracker.spawn(async move {
            stop.cancelled().await;
            health
                .component("process", Duration::MAX)
                .failing("is shutting down");
        });
        let (metrics, health) = (Arc::clone(&self.metrics), self.health.clone());
        let closed = self.closed.clone().cancelled_owned();
        self.admin = Some(self.part("admin", async move {
            Ok(admin::serve(listener, metrics, health, closed).await?)
        }));
    }

    /// Ends the process, once its parts have.
    pub(crate) async fn end(self) -> Result<Code> {
        self.closed.cancel();
        if let Some(admin) = self.admin {
            // Whoever reads slowly there does not hold it up.
            let _ = timeout(ADMIN_CLOSE_MAX, admin).await;
        }
        info!("stopped");
        self.telemetry.shutdown().await;
        match self.told.is_cancelled() {
            true => Ok(Code::Done),
            false => Err(Failure::new(
                Code::Failed,
                "a part of the process broke; the log says which",
            )),
        }
    }
}
