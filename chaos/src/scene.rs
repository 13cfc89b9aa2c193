//! What every scenario sets up: a folder, the endpoint, the stack, the ledger; and how it gathers what they know.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use forebay_chaos::{
    audit,
    evidence::{Evidence, Injected},
};
use uuid::Uuid;

use crate::{
    Backend,
    database::{Database, Which},
    endpoint::Endpoint,
    ledger::Ledger,
    outcome::say,
    stack::{LEASE, Plan, READY_MAX, Stack},
    watch::Watch,
};

/// How long what was accepted may take to become final once nothing is broken any more.
pub(crate) const FINAL_MAX: Duration = Duration::from_secs(120);
/// For how long after a fault was undone its consequences may show: the lease passes, a call to the store that hangs is
/// given up, what was lost is published again.
const AFTERMATH: Duration = Duration::from_secs(30);

/// A run's surroundings.
pub(crate) struct Scene {
    pub(crate) watch: Watch,
    pub(crate) folder: PathBuf,
    pub(crate) endpoint: Endpoint,
    pub(crate) stack: Stack,
    pub(crate) ledger: Arc<Ledger>,
}

impl Scene {
    /// Prepares everything, and starts the servers; Forebay's processes are not started.
    pub(crate) async fn prepare(backend: Backend, worker: Option<PathBuf>) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("forebay-chaos-")
            .tempdir()?
            .keep();
        say(format_args!("evidence and logs: {}", folder.display()));
        let watch = Watch::start();
        let endpoint = Endpoint::open(watch, &folder.join("starts.ndjson")).await?;
        let plan = Plan {
            backend,
            folder: &folder,
            endpoint: endpoint.port(),
            worker,
        };
        let stack = Stack::prepare(&plan).await?;
        if let Database::Postgres(url) = &stack.database {
            audit::install_postgres(url).await.context("install the audit")?;
        }
        Ok(Self {
            watch,
            folder,
            endpoint,
            stack,
            ledger: Arc::default(),
        })
    }

    /// Starts Forebay.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.stack.start().await?;
        if let Database::Sqlite(path) = &self.stack.database {
            audit::install_sqlite(path).await.context("install the audit")?;
        }
        Ok(())
    }

    /// Waits until everything that was accepted is final; returns what is not in time.
    pub(crate) async fn settle(&self) -> HashSet<Uuid> {
        let (database, ids) = (&self.stack.database, self.ledger.ids());
        database
            .wait_for(Which::Finished, ids, FINAL_MAX, self.watch)
            .await
    }

    /// Ends Forebay, and gathers what everybody knows.
    pub(crate) async fn gather(&mut self, faults: Vec<Injected>) -> Result<Evidence> {
        self.stack.end()?;
        self.stack.keep_logs(&self.folder).await?;
        let (transitions, rows) = self.stack.database.read(self.watch).await?;
        let evidence = Evidence {
            accepted: self.ledger.accepted(),
            starts: self.endpoint.starts()?,
            transitions,
            rows,
            faults,
            aftermath: LEASE + AFTERMATH,
        };
        write_json(&self.folder.join("evidence.json"), &evidence)?;
        Ok(evidence)
    }

    /// What no part of Forebay may have done, whatever was done to it.
    pub(crate) fn panics(&self) -> Vec<String> {
        self.stack
            .members
            .iter()
            .flat_map(|member| member.panics())
            .collect()
    }

    /// What submitters were told besides "accepted", and which processes ended although nobody had ended them.
    pub(crate) fn said(&self) -> Vec<String> {
        let refused = self.ledger.refused();
        let refused: Vec<String> = refused
            .iter()
            .map(|(answer, times)| format!("{answer}: {times}"))
            .collect();
        let members = self.stack.members.iter();
        let ended: u32 = members.map(|member| member.ended_by_itself()).sum();
        let mut said = Vec::new();
        if !refused.is_empty() {
            said.push(format!("not accepted: {}", refused.join(", ")));
        }
        if ended > 0 {
            said.push(format!(
                "{ended} times a process ended by itself, since a server was away when it started, and was started again"
            ));
        }
        said
    }

    /// Waits until all processes are ready; returns what the last of them said that was not.
    pub(crate) async fn ready(&self) -> Result<Option<String>> {
        self.stack.ready(READY_MAX).await
    }
}

/// Writes a value as JSON.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    serde_json::to_writer(file, value).with_context(|| format!("write {}", path.display()))
}
