//! The servers and processes under load: PostgreSQL, a broker, `forebay api` and `forebay worker`.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use forebay_testkit::{
    broker::{BrokerKind, BrokerServer},
    postgres::Postgres,
    process::free_port,
};

use crate::bench::meter;

/// How long a process may take to become ready, and a backlog to be worked off.
const PATIENCE: Duration = Duration::from_secs(120);

/// How PostgreSQL is set up beside its defaults, for everybody alike. What a commit promises stays as it is by default.
pub(crate) const POSTGRES_SETTINGS: [&str; 2] = ["shared_buffers=1GB", "max_wal_size=4GB"];

/// Starts a PostgreSQL server of one's own, as durable as one is by default.
pub(crate) async fn postgres() -> Result<Postgres> {
    Postgres::start_tuned(&POSTGRES_SETTINGS).await
}

/// One of Forebay's processes; it is killed when this is dropped.
pub(crate) struct Forebay {
    child: Child,
    /// Where its API listens, where it has one.
    pub(crate) http: String,
    /// The same, over gRPC.
    pub(crate) grpc: String,
    /// Where it tells of itself.
    pub(crate) admin: String,
    /// From its start to its being ready.
    pub(crate) ready_after: Duration,
}

impl Drop for Forebay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Forebay {
    /// Starts `forebay <args>` with the given environment, and waits until it says that it is ready.
    pub(crate) async fn start(args: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        let (http, grpc, admin) = (free_port()?, free_port()?, free_port()?);
        let mut command = Command::new(binary()?);
        command
            .args(args)
            .env("FOREBAY_ADMIN_ADDR", format!("127.0.0.1:{admin}"))
            .env("FOREBAY_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if args[0] != "worker" {
            command.env("FOREBAY_HTTP_ADDR", format!("127.0.0.1:{http}"));
            command.env("FOREBAY_GRPC_ADDR", format!("127.0.0.1:{grpc}"));
        }
        command.envs(env.iter().copied());
        let began = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("start forebay {args:?}"))?;
        let mut forebay = Self {
            child,
            http: format!("http://127.0.0.1:{http}"),
            grpc: format!("http://127.0.0.1:{grpc}"),
            admin: format!("http://127.0.0.1:{admin}"),
            ready_after: Duration::ZERO,
        };
        forebay.wait_until_ready().await?;
        forebay.ready_after = began.elapsed();
        Ok(forebay)
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let client = reqwest::Client::new();
        let url = format!("{}/health/ready", self.admin);
        loop {
            match client.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                _ if Instant::now() > deadline => bail!("forebay did not become ready"),
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("forebay ended before it was ready: {status}");
            }
        }
    }

    /// How many attempts succeeded on this worker so far.
    pub(crate) async fn succeeded(&self) -> Result<u64> {
        let text = reqwest::get(format!("{}/metrics", self.admin))
            .await?
            .text()
            .await?;
        let count = text
            .lines()
            .filter(|line| line.starts_with("forebay_tasks_finished_total") && line.contains("\"succeeded\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        Ok(count)
    }

    /// Waits until `count` attempts succeeded.
    pub(crate) async fn wait_until_succeeded(&self, count: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let done = self.succeeded().await?;
            if done >= count {
                ensure!(
                    done == count,
                    "{done} attempts succeeded of {count} accepted tasks"
                );
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "only {done} of {count} tasks finished");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Memory that this process has for itself, in MiB: its proportional set size.
    pub(crate) fn memory_mib(&self) -> Result<f64> {
        meter::memory_mib(self.pid())
    }
}

/// PostgreSQL and a broker, both set up to sync before they confirm, and an API in front of them.
pub(crate) struct Stack {
    /// The API. It goes before what it needs.
    pub(crate) api: Forebay,
    /// The database.
    pub(crate) postgres: Postgres,
    /// The broker.
    pub(crate) broker: BrokerServer,
}

impl Stack {
    /// Starts everything but the workers.
    pub(crate) async fn start(kind: BrokerKind) -> Result<Self> {
        let (postgres, broker) = (postgres().await?, BrokerServer::start(kind).await?);
        let url = postgres.url();
        run_to_end(&["migrate"], &[("FOREBAY_DATABASE_URL", &url)])?;
        let env = [
            ("FOREBAY_DATABASE_URL", url.as_str()),
            ("FOREBAY_BROKER_URL", &broker.url()),
        ];
        let api = Forebay::start(&["api"], &env).await?;
        Ok(Self {
            postgres,
            broker,
            api,
        })
    }

    /// Starts a worker with all three roles and the built-in handlers.
    pub(crate) async fn worker(&self, concurrency: &str) -> Result<Forebay> {
        self.worker_with(&["--builtin-handlers", "--concurrency", concurrency])
            .await
    }

    /// Starts a worker.
    pub(crate) async fn worker_with(&self, arguments: &[&str]) -> Result<Forebay> {
        let (database, broker) = (self.postgres.url(), self.broker.url());
        let env = [
            ("FOREBAY_DATABASE_URL", database.as_str()),
            ("FOREBAY_BROKER_URL", &broker),
        ];
        Forebay::start(&[&["worker"], arguments].concat(), &env).await
    }

    /// Counts the tasks in the database: all, and those that succeeded.
    pub(crate) fn count_tasks(&self) -> Result<(u64, u64)> {
        let sql = "SELECT count(*), count(*) FILTER (WHERE state = 'succeeded') FROM tasks";
        let answer = self.postgres.psql("postgres", sql)?;
        let (all, succeeded) = answer.split_once('|').context("two counts")?;
        Ok((all.parse()?, succeeded.parse()?))
    }
}

fn run_to_end(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let output = Command::new(binary()?)
        .args(args)
        .envs(env.iter().copied())
        .output()?;
    ensure!(
        output.status.success(),
        "forebay {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The program beside this one.
pub(crate) fn binary() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let binary = here.parent().context("no folder")?.join("forebay");
    ensure!(
        binary.exists(),
        "{} is missing: build it with the same profile",
        binary.display()
    );
    Ok(binary)
}
