//! What the server commands share: signals, logs, health, and the order in which a process ends.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

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
    /// Cancelled when it is meant to end: it was told to, or has done all that it was started for.
    meant: CancellationToken,
    /// What was the first to break.
    broke: Arc<OnceLock<String>>,
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
        let role = service.strip_prefix("forebay-").unwrap_or(service);
        let meant = CancellationToken::new();
        shutdown::on_signals(meant.clone())?;
        Ok(Self {
            metrics: Arc::new(Metrics::of_role(role)),
            health: Health::default(),
            stop: meant.child_token(),
            meant,
            broke: Arc::default(),
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
        let (stop, broke) = (self.stop.clone(), Arc::clone(&self.broke));
        supervise::spawn(&self.tracker, &self.stop, name, async move {
            if let Err(problem) = part.await {
                let error = format!("{problem:#}");
                error!(part = name, error, "broke, the process stops");
                // The first counts.
                let _ = broke.set(format!("the {name} broke: {error}"));
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

    /// What it was started for is done, unless it is ending already.
    pub(crate) fn complete(&self) {
        if !self.stop.is_cancelled() {
            self.meant.cancel();
        }
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
        if self.meant.is_cancelled() {
            return Ok(Code::Done);
        }
        let broke = self.broke.get().map(String::as_str);
        Err(Failure::new(
            Code::Failed,
            broke.unwrap_or("a part of the process panicked; the log says which"),
        ))
    }
}
