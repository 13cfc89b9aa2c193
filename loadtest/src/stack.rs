//! The servers and processes under load: PostgreSQL, a broker, `forebay api` and `forebay worker`.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use forebay_testkit::{
    broker::{BrokerKind, BrokerServer},
    postgres::Postgres,
};

/// How long a process may take to become ready, and a backlog to be worked off.
const PATIENCE: Duration = Duration::from_secs(120);

/// One of Forebay's processes; it is killed when this is dropped.
pub(crate) struct Forebay {
    child: Child,
    /// Where its API listens, where it has one.
    pub(crate) http: String,
    admin: String,
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
        let child = command
            .spawn()
            .with_context(|| format!("start forebay {args:?}"))?;
        let forebay = Self {
            child,
            http: format!("http://127.0.0.1:{http}"),
            admin: format!("http://127.0.0.1:{admin}"),
        };
        forebay.wait_until_ready().await?;
        Ok(forebay)
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = reqwest::get(format!("{}/health/ready", self.admin)).await;
            match answer {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                _ if Instant::now() > deadline => bail!("forebay did not become ready"),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
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
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = rollup
            .lines()
            .find(|line| line.starts_with("Pss:"))
            .context("no Pss in smaps_rollup")?;
        let kib: f64 = line
            .split_whitespace()
            .nth(1)
            .context("no number in Pss")?
            .parse()?;
        Ok(kib / 1024.0)
    }
}

/// PostgreSQL and a broker, both set up to sync before they confirm, and an API in front of them.
pub(crate) struct Stack {
    /// The database.
    pub(crate) postgres: Postgres,
    /// The broker.
    pub(crate) broker: BrokerServer,
    /// The API.
    pub(crate) api: Forebay,
}

impl Stack {
    /// Starts everything but the workers.
    pub(crate) async fn start(kind: BrokerKind) -> Result<Self> {
        let postgres = Postgres::start().await?;
        let broker = BrokerServer::start(kind).await?;
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
        let (database, broker) = (self.postgres.url(), self.broker.url());
        let env = [
            ("FOREBAY_DATABASE_URL", database.as_str()),
            ("FOREBAY_BROKER_URL", &broker),
        ];
        Forebay::start(
            &["worker", "--builtin-handlers", "--concurrency", concurrency],
            &env,
        )
        .await
    }

    /// Counts the tasks in the database: all, and those that succeeded.
    pub(crate) async fn count_tasks(&self) -> Result<(i64, i64)> {
        let (client, connection) =
            tokio_postgres::connect(&self.postgres.url(), tokio_postgres::NoTls).await?;
        let driver = tokio::spawn(connection);
        let row = client
            .query_one(
                "SELECT count(*), count(*) FILTER (WHERE state = 'succeeded') FROM tasks",
                &[],
            )
            .await?;
        driver.abort();
        Ok((row.get(0), row.get(1)))
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

fn binary() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let binary = here.parent().context("no folder")?.join("forebay");
    ensure!(
        binary.exists(),
        "{} is missing: build it with the same profile",
        binary.display()
    );
    Ok(binary)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
