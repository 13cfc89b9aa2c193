//! A private RabbitMQ server, with the Erlang name daemon that it needs.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OnceCell,
    time::{Instant, sleep, timeout},
};

use crate::process::{Process, empty_folder};
use node::Node;

mod node;

/// How long a server may take to start or to stop. It takes about four seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often other ports are tried, where somebody was faster.
const PORT_ATTEMPTS_MAX: usize = 3;

/// Looks at the disk several times a second, where the server itself would take up to ten seconds.
const WATCH_DISK: &str =
    "rabbit_disk_monitor:set_min_check_interval(100), rabbit_disk_monitor:set_max_check_interval(500)";

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// The folder for its data, where it is to be another than one of its own: a small disk, say.
    pub data: Option<PathBuf>,
    /// Further lines for its configuration file, such as `disk_free_limit.absolute = 10MB`.
    pub extra: String,
    /// Further variables for its environment.
    pub env: Vec<(String, String)>,
}

/// A RabbitMQ server of one's own. It keeps its ports and its data through all restarts, and is gone when dropped. It
/// syncs what it confirms, as in production.
#[derive(Debug)]
pub struct RabbitMq {
    node: Node,
    process: Option<Process>,
    names: Process,
    folder: TempDir,
}

impl RabbitMq {
    /// Starts a server.
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
        for _ in 1..PORT_ATTEMPTS_MAX {
            match Self::attempt(&setup).await {
                Err(error) if is_about_ports(&error) => drop(error),
                outcome => return outcome,
            }
        }
        Self::attempt(&setup).await
    }

    async fn attempt(setup: &Setup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("forebay-rabbitmq.").tempdir()?;
        let node = Node::prepare(folder.path(), setup)?;
        let names = node.start_names().await?;
        let mut server = Self {
            node,
            process: None,
            names,
            folder,
        };
        server.restart().await?;
        Ok(server)
    }

    /// One server for all tests of this process. Take a virtual host each, by [`Self::fresh_vhost`].
    ///
    /// # Panics
    /// Where it does not start, or is not installed.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async { Self::start().await.expect("start the tests' RabbitMQ server") })
            .await
    }

    /// The virtual host that every server has, for a user who may do everything.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("%2f")
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.node.port
    }

    /// Creates a virtual host of a name that no other has, and returns its URL.
    ///
    /// # Errors
    /// Where the server does not run.
    pub async fn fresh_vhost(&self) -> Result<String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let all = "<<\".*\">>";
        self.eval(&format!(
            "ok = rabbit_vhost:add(<<\"{name}\">>, <<\"tests\">>), \
             ok = rabbit_auth_backend_internal:set_permissions(\
             <<\"guest\">>, <<\"{name}\">>, {all}, {all}, {all}, <<\"tests\">>)"
        ))
        .await
        .with_context(|| format!("create the virtual host {name}"))?;
        Ok(self.url_of(&name))
    }

    /// Evaluates Erlang expressions in the server, divided by commas and without a full stop, and returns the value of
    /// the last, as text. Takes milliseconds, unlike `rabbitmqctl`.
    ///
    /// # Errors
    /// Where the server does not run, or the expressions raise an exception.
    pub async fn eval(&self, expressions: &str) -> Result<String> {
        self.running()?;
        self.node.eval(expressions).await
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

    /// Starts it again with the data it has, after killing it where it runs. It has no alarm then, whatever
    /// [`Self::raise_disk_alarm`] did.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        if !self.names.is_running() {
            self.names = self.node.start_names().await?;
        }
        let log = self.folder.path().join("log");
        let folder = self.folder.path();
        self.process = Some(Process::spawn_in(folder, &mut self.node.command()?, &log)?);
        self.wait_until_ready().await?;
        self.eval(WATCH_DISK).await?;
        Ok(())
    }

    /// Deletes all its data, virtual hosts included; it must not run.
    ///
    /// # Errors
    /// Where it runs, or the data can't be deleted.
    pub fn wipe(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("stop the server before wiping it");
        }
        empty_folder(self.node.data()).context("wipe the server's data")
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

    /// Makes it believe that its disk is full: it blocks all connections that publish, until
    /// [`Self::clear_disk_alarm`]. The alarm is on when this returns; connections hear of it a moment later.
    ///
    /// # Errors
    /// Where the server does not run.
    pub async fn raise_disk_alarm(&self) -> Result<()> {
        self.set_disk_free_limit("Limit = 1000000000000000000", true)
            .await
    }

    /// Ends [`Self::raise_disk_alarm`], where the disk does have room.
    ///
    /// # Errors
    /// Where the server does not run.
    pub async fn clear_disk_alarm(&self) -> Result<()> {
        self.set_disk_free_limit(
            "{ok, Limit} = application:get_env(rabbit, disk_free_limit)",
            false,
        )
        .await
    }

    /// What it logged since it was first started.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    async fn set_disk_free_limit(&self, limit: &str, alarm: bool) -> Result<()> {
        self.eval(&format!(
            "{limit}, rabbit_disk_monitor:set_disk_free_limit(Limit)"
        ))
        .await?;
        let deadline = Instant::now() + PATIENCE;
        while self
            .eval("rabbit_alarm:get_alarms()")
            .await?
            .contains("resource_limit, disk")
            != alarm
        {
            if Instant::now() > deadline {
                bail!("the disk alarm does not follow the limit");
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn url_of(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", self.node.port)
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the server does not run")
    }

    /// Waits until it speaks AMQP, which it does once its data are loaded.
    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !greets(self.node.port).await {
            let runs = self.process.as_mut().is_some_and(Process::is_running);
            if !runs || Instant::now() > deadline {
                self.kill()?;
                bail!("the RabbitMQ server did not start:\n{}", self.log());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn is_about_ports(error: &anyhow::Error) -> bool {
    let text = error.to_string();
    ["eaddrinuse", "in use"].iter().any(|sign| text.contains(sign))
}

/// Whether somebody answers the first words of AMQP 0-9-1 with a frame of `connection.start`.
async fn greets(port: u16) -> bool {
    let greeting = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"AMQP\0\0\x09\x01").await?;
        let mut frame = [0; 11];
        stream.read_exact(&mut frame).await?;
        let (method_on_channel_0, start) = ([1, 0, 0], [0, 10, 0, 10]);
        std::io::Result::Ok(frame.starts_with(&method_on_channel_0) && frame.ends_with(&start))
    };
    matches!(timeout(Duration::from_secs(1), greeting).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{process::is_alive, wait};

    #[tokio::test]
    async fn keeps_ports_and_data_and_can_be_killed_stopped_and_wiped() {
        let mut server = RabbitMq::start().await.unwrap();
        let (url, vhost) = (server.url(), server.fresh_vhost().await.unwrap());
        let name = vhost.rsplit('/').next().unwrap().to_owned();
        let exists = format!("rabbit_vhost:exists(<<\"{name}\">>)");
        server.kill().unwrap();
        assert!(!greets(server.port()).await);
        assert!(server.eval("ok").await.is_err(), "a killed server answered");
        server.restart().await.unwrap();
        assert_eq!(server.url(), url);
        assert_eq!(server.eval(&exists).await.unwrap(), "true");
        assert!(server.wipe().is_err(), "a running server was wiped");
        server.stop().await.unwrap();
        server.wipe().unwrap();
        server.restart().await.unwrap();
        assert_eq!(server.eval(&exists).await.unwrap(), "false");
    }

    #[tokio::test]
    async fn the_end_of_the_test_process_ends_even_a_paused_server() {
        let mut server = RabbitMq::start().await.unwrap();
        server.pause().unwrap();
        assert!(!greets(server.port()).await, "a paused server greeted");
        server.resume().unwrap();
        wait::until("a greeting", PATIENCE, || greets(server.port())).await;
        server.pause().unwrap();
        let ids = [server.running().unwrap().id(), server.names.id()];
        assert!(ids.iter().all(|&id| is_alive(id)));
        server.names.abandon();
        server.process.as_mut().unwrap().abandon();
        wait::until("the end of both, and of the folder", PATIENCE, || {
            let gone = ids.iter().all(|&id| !is_alive(id)) && !server.folder.path().exists();
            async move { gone }
        })
        .await;
    }

    #[tokio::test]
    async fn a_shared_server_has_virtual_hosts_and_disk_alarms() {
        let server = RabbitMq::shared().await;
        let (one, other) = (
            server.fresh_vhost().await.unwrap(),
            server.fresh_vhost().await.unwrap(),
        );
        assert_ne!(one, other);
        let may_publish = "rabbit_alarm:get_alarms()";
        server.raise_disk_alarm().await.unwrap();
        assert_ne!(server.eval(may_publish).await.unwrap(), "[]");
        server.clear_disk_alarm().await.unwrap();
        assert_eq!(server.eval(may_publish).await.unwrap(), "[]");
        let error = server.eval("1 = 2").await.unwrap_err().to_string();
        assert!(error.contains("badmatch"), "{error}");
    }
}
