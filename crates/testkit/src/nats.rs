//! A private NATS server with JetStream on disk.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::process::{Process, empty_folder, find_program, free_port};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often another port is tried, where somebody was faster.
const PORT_ATTEMPTS_MAX: usize = 5;

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Whether every write is synced to disk before it is confirmed, as in production.
    pub sync_always: bool,
    /// The folder for its data, where it is to be another than one of its own: a small disk, say.
    pub data: Option<PathBuf>,
    /// Further lines for its configuration file.
    pub extra: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            sync_always: true,
            data: None,
            extra: String::new(),
        }
    }
}

/// A NATS server of one's own. It keeps its port and its data through all restarts, and is gone when dropped.
#[derive(Debug)]
pub struct Nats {
    setup: Setup,
    port: u16,
    process: Option<Process>,
    folder: TempDir,
}

impl Nats {
    /// Starts a server that syncs every write.
    ///
    /// # Errors
    /// Where it does not start, or is not installed.
    pub async fn start() -> Result<Self> {
        Self::start_with(Setup::default()).await
    }

    /// Starts a server.
    ///
    /// # Errors
    /// Where it does not start, or is not installed.
    pub async fn start_with(setup: Setup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("forebay-nats-").tempdir()?;
        let mut server = Self {
            setup,
            port: 0,
            process: None,
            folder,
        };
        for _ in 0..PORT_ATTEMPTS_MAX {
            server.port = free_port()?;
            match server.restart().await {
                Err(error) if server.log().contains("address already in use") => drop(error),
                outcome => return outcome.map(|()| server),
            }
        }
        bail!("no port stayed free for long enough")
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// Where it can't be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Shuts it down properly.
    ///
    /// # Errors
    /// Where it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(Signal::SIGTERM, PATIENCE).await,
            None => Ok(()),
        }
    }

    /// Starts it again with the data it has, after killing it where it runs.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let program = find_program("nats-server", "FOREBAY_NATS_SERVER")?;
        let config = self.folder.path().join("nats.conf");
        std::fs::write(&config, self.configuration())?;
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(&config)
            .args(["--addr", "127.0.0.1", "--port"])
            .arg(self.port.to_string())
            .arg("--ports_file_dir")
            .arg(self.folder.path());
        let folder = self.folder.path();
        let process = Process::spawn_in(folder, &mut command, &folder.join("log"))?;
        let id = process.id();
        self.process = Some(process);
        let ports = self.folder.path().join(format!("nats-server_{id}.ports"));
        self.wait_until_ready(&ports).await
    }

    /// Deletes all its data; it must not run.
    ///
    /// # Errors
    /// Where it runs, or the data can't be deleted.
    pub fn wipe(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("stop the server before wiping it");
        }
        empty_folder(&self.data()).context("wipe the server's data")
    }

    /// Makes it hang: it holds its connections and answers nothing.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn pause(&self) -> Result<()> {
        self.running()?.pause()
    }

    /// Ends a [`Self::pause`].
    ///
    /// # Errors
    /// Where it does not run.
    pub fn resume(&self) -> Result<()> {
        self.running()?.signal(Signal::SIGCONT)
    }

    /// The number of its process, while it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// What it logged since it was first started.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the server does not run")
    }

    fn data(&self) -> PathBuf {
        let own = || self.folder.path().join("data");
        self.setup.data.clone().unwrap_or_else(own)
    }

    fn configuration(&self) -> String {
        format!(
            "jetstream {{\n  store_dir: {:?}\n  sync_interval: {}\n}}\n{}\n",
            self.data(),
            if self.setup.sync_always { "always" } else { "2m" },
            self.setup.extra,
        )
    }

    /// Waits until it says that it listens, and greets those who connect, which it does once its data are loaded.
    async fn wait_until_ready(&mut self, ports: &Path) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if ports.is_file() && greets(self.port).await {
                return Ok(());
            }
            let runs = self.process.as_mut().is_some_and(Process::is_running);
            if !runs || Instant::now() > deadline {
                bail!("the NATS server did not start:\n{}", self.log());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn greets(port: u16) -> bool {
    let greeting = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await?;
        std::io::Result::Ok(word == *b"INFO")
    };
    matches!(timeout(Duration::from_secs(1), greeting).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;

    #[tokio::test]
    async fn keeps_its_port_and_can_be_killed_stopped_and_wiped() {
        let mut server = Nats::start().await.unwrap();
        let url = server.url();
        server.kill().unwrap();
        assert!(!greets(server.port).await);
        server.restart().await.unwrap();
        assert_eq!(server.url(), url);
        assert!(server.wipe().is_err(), "a running server was wiped");
        server.stop().await.unwrap();
        server.wipe().unwrap();
        server.restart().await.unwrap();
        assert_eq!(server.url(), url);
    }

    #[tokio::test]
    async fn a_paused_server_greets_nobody() {
        let server = Nats::start().await.unwrap();
        server.pause().unwrap();
        // The signal takes effect in a moment, on a busy machine.
        wait::until("silence", PATIENCE, async || !greets(server.port).await).await;
        server.resume().unwrap();
        wait::until("a greeting", PATIENCE, || greets(server.port)).await;
    }
}
