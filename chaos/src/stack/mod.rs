//! Everything that a run breaks: the servers, and Forebay's processes with their lines and clocks.

mod broker;
mod line;
mod member;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use forebay_testkit::{clock::FakeClock, postgres::Postgres};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::{
    broker::Broker,
    line::End,
    member::{Member, Role, Start},
};
use crate::{Backend, database::Database, outcome::say};

/// How long a worker may be silent before its tasks are given to others.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// How long everything may take to become ready.
pub(crate) const READY_MAX: Duration = Duration::from_secs(90);
/// How often the supervisor looks.
const SUPERVISE: Duration = Duration::from_millis(100);
/// How often readiness is asked for.
const POLL: Duration = Duration::from_millis(50);

/// What is started.
#[derive(Debug, Clone)]
pub(crate) struct Plan<'a> {
    pub(crate) backend: Backend,
    /// Where configuration, data and logs are kept.
    pub(crate) folder: &'a Path,
    /// The port of the endpoint that runs the tasks.
    pub(crate) endpoint: u16,
    /// What runs as a worker; `forebay` unless a test of the suite itself has another.
    pub(crate) worker: Option<PathBuf>,
}

/// The servers and the processes.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) members: Vec<Arc<Member>>,
    pub(crate) database: Database,
    postgres: Option<Mutex<Postgres>>,
    /// The clock of Postgres.
    pub(crate) postgres_clock: Option<FakeClock>,
    broker: Option<Mutex<Broker>>,
    pub(crate) client: reqwest::Client,
    supervisor: Option<AbortOnDropHandle<()>>,
}

impl Stack {
    /// Starts the servers, brings the schema up to date, and makes the processes, which are not started yet.
    pub(crate) async fn prepare(plan: &Plan<'_>) -> Result<Self> {
        let config = write_config(plan)?;
        std::fs::create_dir_all(plan.folder.join("logs"))?;
        if plan.backend == Backend::Embedded {
            return embedded(plan, &config);
        }
        let clock = FakeClock::new()?;
        let postgres = Postgres::start_in(clock.env()).await?;
        let broker = Broker::start(plan.backend).await?;
        migrate(&postgres.url())?;
        let mut members = Vec::new();
        for role in [Role::Api, Role::Worker, Role::Dispatcher] {
            for number in 1..=2 {
                let line = line::Line::lay(&broker.url(), &postgres.url()).await?;
                let mut start = start_of(role, &config)?;
                if let (Role::Worker, Some(program)) = (role, &plan.worker) {
                    start.program = program.clone();
                }
                start.env.extend(environment(&line));
                let logs = plan.folder.join("logs");
                members.push(Arc::new(Member::new(role, number, start, Some(line), &logs)?));
            }
        }
        Ok(Self {
            members,
            database: Database::Postgres(postgres.url()),
            postgres: Some(Mutex::new(postgres)),
            postgres_clock: Some(clock),
            broker: Some(Mutex::new(broker)),
            client: reqwest::Client::new(),
            supervisor: None,
        })
    }

    /// Starts all processes and their supervisor, and waits until they are ready.
    pub(crate) async fn start(&mut self) -> Result<()> {
        for member in &self.members {
            member.start()?;
        }
        let members = self.members.clone();
        self.supervisor = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                sleep(SUPERVISE).await;
                for member in &members {
                    if let Err(error) = member.supervise() {
                        say(format_args!("{} can't be started again: {error:#}", member.name));
                    }
                }
            }
        })));
        self.ready(READY_MAX).await.map(drop)
    }

    /// Waits until all processes say that they are ready. Returns what the last said that was not, and its name.
    pub(crate) async fn ready(&self, within: Duration) -> Result<Option<String>> {
        let deadline = Instant::now() + within;
        let mut said = None;
        for member in &self.members {
            while let Err(last) = member.readiness(&self.client).await {
                let last = format!("{}: {last}", member.name);
                ensure!(Instant::now() <= deadline, "not ready within {within:?}: {last}");
                said = Some(last);
                sleep(POLL).await;
            }
        }
        Ok(said)
    }

    /// The processes of a role.
    pub(crate) fn of(&self, role: Role) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().filter(move |member| member.role == role)
    }

    /// Where the API listens: each replica.
    pub(crate) fn doors(&self) -> Vec<String> {
        let serving = self.members.iter().filter(|member| member.role.serves());
        serving.map(|member| member.http.clone()).collect()
    }

    /// The broker, for as long as this is held.
    pub(crate) async fn broker(&self) -> Result<MutexGuard<'_, Broker>> {
        let broker = self.broker.as_ref().context("there is no broker here")?;
        Ok(broker.lock().await)
    }

    /// Postgres, for as long as this is held.
    pub(crate) async fn postgres(&self) -> Result<MutexGuard<'_, Postgres>> {
        let postgres = self.postgres.as_ref().context("there is no Postgres here")?;
        Ok(postgres.lock().await)
    }

    /// The servers, each with its version.
    pub(crate) async fn versions(&self) -> Vec<String> {
        let postgres = match &self.database {
            Database::Postgres(_) => self.database.version().await.ok(),
            Database::Sqlite(_) => None,
        };
        let broker = match &self.broker {
            Some(broker) => broker.lock().await.version(),
            None => None,
        };
        [broker, postgres].into_iter().flatten().collect()
    }

    /// Ends the processes, so that nothing writes any more.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.supervisor = None;
        self.members.iter().try_for_each(|member| member.kill())
    }

    /// What servers logged, into the folder of the logs.
    pub(crate) async fn keep_logs(&self, folder: &Path) -> Result<()> {
        if let Some(postgres) = &self.postgres {
            std::fs::write(folder.join("logs/postgres.log"), postgres.lock().await.log())?;
        }
        if let Some(broker) = &self.broker {
            std::fs::write(folder.join("logs/broker.log"), broker.lock().await.log())?;
        }
        Ok(())
    }
}

fn embedded(plan: &Plan<'_>, config: &Path) -> Result<Stack> {
    let data = plan.folder.join("data");
    let mut start = start_of(Role::Dev, config)?;
    start
        .args
        .extend(["--data".to_owned(), data.display().to_string()]);
    let member = Member::new(Role::Dev, 1, start, None, &plan.folder.join("logs"))?;
    Ok(Stack {
        members: vec![Arc::new(member)],
        database: Database::Sqlite(data.join("forebay.db")),
        postgres: None,
        postgres_clock: None,
        broker: None,
        client: reqwest::Client::new(),
        supervisor: None,
    })
}

/// How a process of a role is started.
fn start_of(role: Role, config: &Path) -> Result<Start> {
    let roles = match role {
        Role::Api => None,
        Role::Worker => Some("recorder,executor"),
        Role::Dispatcher => Some("dispatcher"),
        Role::Dev => Some("recorder,executor,dispatcher"),
    };
    let command = match role {
        Role::Worker | Role::Dispatcher => "worker",
        _ => role.name(),
    };
    let mut args = vec![
        command.to_owned(),
        "--config".to_owned(),
        config.display().to_string(),
    ];
    args.extend(roles.into_iter().flat_map(worker_args));
    Ok(Start {
        program: forebay()?,
        args,
        env: Vec::new(),
    })
}

/// What a worker of these roles is started with, after its command and its configuration.
fn worker_args(roles: &str) -> Vec<String> {
    let lease = format!("{}s", LEASE.as_secs());
    let args = [
        "--roles",
        roles,
        "--queues",
        "default,second",
        "--concurrency",
        "32",
        "--drain-timeout",
        "2s",
        "--lease",
        &lease,
    ];
    args.map(str::to_owned).to_vec()
}

/// The command line of a worker that only records, and of one that executes, too.
pub(crate) fn worker_command(folder: &Path, roles: &str) -> Vec<String> {
    let mut args = vec!["worker".to_owned(), "--config".to_owned()];
    args.push(folder.join("forebay.toml").display().to_string());
    args.extend(worker_args(roles));
    args
}

/// Where a process finds its servers, in how few connections, and how much its broker may hold: its disk is small.
fn environment(line: &line::Line) -> Vec<(String, String)> {
    [
        ("FOREBAY_DATABASE_URL", line.postgres_url.as_str()),
        ("FOREBAY_BROKER_URL", &line.broker_url),
        ("FOREBAY_DATABASE_HOT_CONNECTIONS", "4"),
        ("FOREBAY_DATABASE_READ_CONNECTIONS", "4"),
        ("FOREBAY_NATS_STREAM_MAX_BYTES", "64MiB"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

/// The handlers: all tasks end at the endpoint, some through a program.
fn write_config(plan: &Plan<'_>) -> Result<PathBuf> {
    let ours = std::env::current_exe()?;
    let port = plan.endpoint;
    let common = "timeout_seconds = 20\nmax_attempts = 50\nretry = { base_seconds = 0.5, factor = 1.5, cap_seconds = 3 }";
    let text = format!(
        "[[handler]]\nkind = \"chaos\"\nhttp = {{ url = \"http://127.0.0.1:{port}/run\", allow_private = [\"127.0.0.1\"] }}\n\
         {common}\n\n[[handler]]\nkind = \"chaos-command\"\ncommand = [{:?}, \"handle\", \"--port\", \"{port}\"]\n{common}\n",
        ours.display().to_string(),
    );
    let path = plan.folder.join("forebay.toml");
    std::fs::write(&path, text)?;
    Ok(path)
}

fn migrate(url: &str) -> Result<()> {
    let output = Command::new(forebay()?)
        .arg("migrate")
        .env("FOREBAY_DATABASE_URL", url)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "forebay migrate: {said}");
    Ok(())
}

/// The binary: what `FOREBAY_BIN` names, else the one beside this.
fn forebay() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FOREBAY_BIN") {
        return Ok(std::path::absolute(path)?);
    }
    beside("forebay")
}

/// A program that was built with this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let path = here.parent().context("no folder")?.join(name);
    ensure!(
        path.exists(),
        "{} is missing: build it with the same profile",
        path.display()
    );
    Ok(path)
}
