//! A private PostgreSQL server.

use std::{
    ffi::OsStr,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::process::free_port;
use installation::{find_programs, unprivileged_user};
use processes::{Running, children_of, is_ready, parent_of, remove_shared_memory, signal};

mod installation;
mod processes;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often another port is tried, where somebody was faster.
const PORT_ATTEMPTS_MAX: usize = 5;

/// Settings of every server here. There is no socket file, since its path may be too long in a temporary folder.
/// Its processes share memory by files in its folder, which go with it even where they are killed.
const SETTINGS: [&str; 7] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "shared_buffers=64MB",
    "dynamic_shared_memory_type=mmap",
    "autovacuum_naptime=5s",
    "log_min_messages=warning",
];

/// Settings with which a crash of the machine may lose what was committed, and tests are faster.
const FAST: [&str; 3] = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"];

/// A PostgreSQL server of one's own. It keeps its port and its data through all restarts, and is gone when dropped.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    durable: bool,
    /// What its programs have in their environment.
    env: Vec<(String, String)>,
    /// Settings beyond those of every server here.
    settings: Vec<String>,
    running: Option<Running>,
    folder: TempDir,
    programs: PathBuf,
    /// Whom it runs as, where we are root, whom it refuses to run as.
    user: Option<(u32, u32)>,
}

impl Postgres {
    /// Starts a server as safe as one in production: what is committed is on disk.
    ///
    /// # Errors
    /// Where it does not start, or is not installed.
    pub async fn start() -> Result<Self> {
        Self::start_with(true, Vec::new(), &[]).await
    }

    /// The same, with these settings, such as `shared_buffers=1GB`, beyond or in place of those of every server here.
    ///
    /// # Errors
    /// Where it does not start, or is not installed.
    pub async fn start_tuned(settings: &[&str]) -> Result<Self> {
        Self::start_with(true, Vec::new(), settings).await
    }

    /// The same, with these variables in its environment: a false clock, say.
    ///
    /// # Errors
    /// Where it does not start, or is not installed.
    pub async fn start_in(env: Vec<(String, String)>) -> Result<Self> {
        Self::start_with(true, env, &[]).await
    }

    /// Starts a server that leaves syncing to the kernel. A crash of the server loses nothing all the same.
    ///
    /// # Errors
    /// Where it does not start, or is not installed.
    pub async fn fast() -> Result<Self> {
        Self::start_with(false, Vec::new(), &[]).await
    }

    /// One fast server for all tests of this process. Take a database each, by [`Self::fresh_database`].
    ///
    /// # Panics
    /// Where it does not start, or is not installed.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async { Self::fast().await.expect("start the tests' PostgreSQL server") })
            .await
    }

    async fn start_with(durable: bool, env: Vec<(String, String)>, settings: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("forebay-postgres-").tempdir()?;
        let user = unprivileged_user()?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).context("hand the server its folder")?;
        }
        let mut server = Self {
            port: 0,
            durable,
            env,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            running: None,
            folder,
            programs: find_programs()?,
            user,
        };
        server.init()?;
        for _ in 0..PORT_ATTEMPTS_MAX {
            server.port = free_port()?;
            match server.start_again().await {
                Err(error) if server.log().contains("Address already in use") => drop(error),
                outcome => return outcome.map(|()| server),
            }
        }
        bail!("no port stayed free for long enough")
    }

    /// The database that every server has, for a superuser without a password.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates a database and returns its URL.
    ///
    /// # Errors
    /// Where the server does not run, or there is one of that name.
    pub fn create_database(&self, name: &str) -> Result<String> {
        self.psql("postgres", &format!("CREATE DATABASE \"{name}\""))?;
        Ok(self.url_of(name))
    }

    /// Creates a database of a name that no other has, and returns its URL.
    ///
    /// # Errors
    /// Where the server does not run.
    pub fn fresh_database(&self) -> Result<String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        self.create_database(&format!("test_{number}"))
    }

    /// Runs SQL in a database, and returns what it answers, columns divided by `|`.
    ///
    /// # Errors
    /// With what the server says to it.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let output = Command::new(self.programs.join("psql"))
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--set=ON_ERROR_STOP=1",
            ])
            .arg(self.url_of(database))
            .arg("--command")
            .arg(sql)
            .stdin(Stdio::null())
            .output()
            .context("run psql")?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Kills all its processes, as a crash would.
    ///
    /// # Errors
    /// Where they can't be killed.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else {
            return Ok(());
        };
        let children = running.freeze()?;
        for &child in &children {
            signal(child, Signal::SIGKILL)?;
        }
        running.postmaster.kill().context("kill the server")?;
        running.end()?;
        // The next start refuses to share the memory of the last.
        let deadline = std::time::Instant::now() + PATIENCE;
        while children.iter().any(|&child| parent_of(child).is_some()) {
            if std::time::Instant::now() > deadline {
                bail!("a killed process of the server does not end");
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Shuts it down properly, ending its connections.
    ///
    /// # Errors
    /// Where it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.end_by(Signal::SIGINT).await
    }

    /// Its "immediate shutdown": ends without finishing anything, and recovers from its log at the next start.
    ///
    /// # Errors
    /// Where it does not end.
    pub async fn abort(&mut self) -> Result<()> {
        self.end_by(Signal::SIGQUIT).await
    }

    async fn end_by(&mut self, how: Signal) -> Result<()> {
        let Some(mut running) = self.running.take() else {
            return Ok(());
        };
        signal(running.id(), how)?;
        let deadline = Instant::now() + PATIENCE;
        while running.postmaster.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.running = Some(running);
                bail!("the server does not shut down");
            }
            sleep(Duration::from_millis(5)).await;
        }
        running.end()
    }

    /// Shuts it down and starts it again, on the same port and data.
    ///
    /// # Errors
    /// Where it does not end or start.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Starts it after [`Self::kill`] or [`Self::stop`], on the same port and data.
    ///
    /// # Errors
    /// Where it does not start, or runs.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.running.is_some() {
            bail!("the server runs already");
        }
        let running = self.running.insert(Running::start(
            self.command("postgres", self.arguments()),
            self.folder.path(),
        )?);
        let deadline = Instant::now() + PATIENCE;
        let id = running.id().to_string();
        while !is_ready(&self.folder.path().join("data/postmaster.pid"), &id) {
            if running.postmaster.try_wait()?.is_some() || Instant::now() > deadline {
                self.kill()?;
                bail!("the server did not start:\n{}", self.log());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Makes it hang: it holds its connections and answers nothing.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn pause(&self) -> Result<()> {
        self.running()?
            .freeze()?
            .into_iter()
            .try_for_each(|child| signal(child, Signal::SIGSTOP))
    }

    /// Ends a [`Self::pause`].
    ///
    /// # Errors
    /// Where it does not run.
    pub fn resume(&self) -> Result<()> {
        let running = self.running()?;
        children_of(running.id())?
            .into_iter()
            .try_for_each(|child| signal(child, Signal::SIGCONT))?;
        signal(running.id(), Signal::SIGCONT)
    }

    /// What it logged since it was first started.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn running(&self) -> Result<&Running> {
        self.running.as_ref().context("the server does not run")
    }

    fn init(&self) -> Result<()> {
        let data = self.folder.path().join("data");
        let mut initdb = self.command("initdb", ["--pgdata".into(), data.into_os_string()]);
        let output = initdb
            .args([
                "--username=postgres",
                "--auth=trust",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
            ])
            .output()
            .context("run initdb")?;
        if !output.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn arguments(&self) -> Vec<std::ffi::OsString> {
        let port = format!("port={}", self.port);
        let settings = SETTINGS
            .iter()
            .chain(if self.durable { &[] } else { FAST.as_slice() })
            .copied()
            .chain(self.settings.iter().map(String::as_str));
        let mut arguments = vec!["-D".into(), self.folder.path().join("data").into_os_string()];
        for setting in settings.chain([port.as_str()]) {
            arguments.extend(["-c".into(), setting.into()]);
        }
        arguments
    }

    fn command(&self, program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .args(arguments)
            .envs(self.env.iter().cloned())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nothing can be done about an error here, and the watchdog is the second line of defence.
        let _ = self.kill();
        let _ = remove_shared_memory(&self.folder.path().join("data/postmaster.pid"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;

    /// The id of the memory that its processes share.
    fn shared_memory(server: &Postgres) -> String {
        let text = std::fs::read_to_string(server.folder.path().join("data/postmaster.pid")).unwrap();
        let line = text.lines().nth(6).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    fn exists(shared: &str) -> bool {
        let list = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        list.lines()
            .any(|line| line.split_whitespace().nth(1) == Some(shared))
    }

    #[tokio::test]
    async fn keeps_its_port_and_data_through_a_crash_and_leaves_nothing_behind() {
        let mut server = Postgres::start().await.unwrap();
        let port = server.port();
        server
            .psql(
                "postgres",
                "CREATE TABLE kept (number int); INSERT INTO kept VALUES (7)",
            )
            .unwrap();
        let postmaster = server.running().unwrap().id();
        let children = children_of(postmaster).unwrap();
        assert!(!children.is_empty());
        server.kill().unwrap();
        assert!(children.iter().all(|&child| parent_of(child).is_none()));
        server.start_again().await.unwrap();
        assert_eq!(
            (
                server.psql("postgres", "SELECT number FROM kept").unwrap(),
                server.port()
            ),
            ("7".into(), port)
        );
        let folder = server.folder.path().to_owned();
        let shared = shared_memory(&server);
        assert!(exists(&shared));
        drop(server);
        assert!(!folder.exists() && !exists(&shared));
    }

    #[tokio::test]
    async fn the_end_of_the_test_process_ends_even_a_paused_server() {
        let mut server = Postgres::fast().await.unwrap();
        let postmaster = server.running().unwrap().id();
        let children = children_of(postmaster).unwrap();
        let shared = shared_memory(&server);
        server.pause().unwrap();
        // What the kernel does to our end of the pipe when this process is killed.
        drop(server.running.as_mut().unwrap().watchdog.stdin.take());
        wait::until(
            "the end of all processes, the memory, and the folder",
            Duration::from_secs(10),
            || {
                let gone = children
                    .iter()
                    .chain([&postmaster])
                    .all(|&id| parent_of(id).is_none());
                let done = gone && !exists(&shared) && !server.folder.path().exists();
                async move { done }
            },
        )
        .await;
    }

    #[tokio::test]
    async fn pauses_and_resumes() {
        let mut server = Postgres::fast().await.unwrap();
        server.pause().unwrap();
        let postmaster = server.running().unwrap().id();
        let stat = format!("/proc/{postmaster}/stat");
        wait::until("the process is stopped", Duration::from_secs(10), || {
            let stopped = std::fs::read_to_string(&stat).unwrap().contains(") T ");
            async move { stopped }
        })
        .await;
        server.resume().unwrap();
        assert_eq!(server.psql("postgres", "SELECT 1").unwrap(), "1");
        server.restart().await.unwrap();
        server.abort().await.unwrap();
        assert!(server.psql("postgres", "SELECT 1").is_err());
        server.start_again().await.unwrap();
        assert!(
            server.log().contains("was not properly shut down"),
            "it finished properly"
        );
        let url = server.create_database("another").unwrap();
        assert!(url.ends_with("/another"));
        assert!(server.create_database("another").is_err());
    }
}
