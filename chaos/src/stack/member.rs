//! One of Forebay's processes, and what a supervisor does for it: it is started again when it ends by itself.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use forebay_testkit::{clock::FakeClock, process::Process};
use nix::sys::signal::Signal;

use super::line::Line;

/// How long a process may take to end once it is asked to.
const END_MAX: Duration = Duration::from_secs(30);
/// How long the supervisor waits before it starts a process again that ended by itself.
const RESTART_WAIT: Duration = Duration::from_millis(500);
/// How long a look at a process's health may take.
const HEALTH_MAX: Duration = Duration::from_secs(2);

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `forebay api`.
    Api,
    /// `forebay worker` that records and executes.
    Worker,
    /// `forebay worker` that dispatches.
    Dispatcher,
    /// `forebay dev`: all of them.
    Dev,
}

impl Role {
    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Dispatcher => "dispatcher",
            Self::Dev => "dev",
        }
    }

    /// Whether it serves the HTTP API.
    pub(crate) fn serves(self) -> bool {
        matches!(self, Self::Api | Self::Dev)
    }
}

/// How a process is started, each time.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
}

/// One process. It keeps its ports, its lines and its clock over restarts, and is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Where its API listens, where it has one.
    pub(crate) http: String,
    admin: String,
    log: PathBuf,
    /// Its ways to the servers; an embedded one has none.
    pub(crate) line: Option<Line>,
    /// Its clock.
    pub(crate) clock: FakeClock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    start: Start,
    process: Option<Process>,
    /// Whether it is meant to run.
    wanted: bool,
    /// When it was found to have ended by itself.
    ended_at: Option<Instant>,
    ended_by_itself: u32,
}

impl Member {
    /// A process that is not started yet.
    pub(crate) fn new(
        role: Role,
        number: usize,
        mut start: Start,
        line: Option<Line>,
        logs: &Path,
    ) -> Result<Self> {
        let name = format!("{}-{number}", role.name());
        let ports: Vec<TcpListener> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<std::io::Result<_>>()
            .context("look for free ports")?;
        let address = |n: usize| std::io::Result::Ok(ports[n].local_addr()?.to_string());
        let (http, grpc, admin) = (address(0)?, address(1)?, address(2)?);
        let clock = FakeClock::new()?;
        start.env.extend(clock.env());
        let mut set = |key: &str, value: &str| start.env.push((key.to_owned(), value.to_owned()));
        set("FOREBAY_ADMIN_ADDR", &admin);
        set(
            "FOREBAY_LOG",
            "info,async_nats=warn,sqlx=warn,tokio_postgres=warn,lapin=warn",
        );
        if role.serves() {
            set("FOREBAY_HTTP_ADDR", &http);
            set("FOREBAY_GRPC_ADDR", &grpc);
        }
        if role != Role::Api {
            set("FOREBAY_NAME", &name);
        }
        Ok(Self {
            log: logs.join(format!("{name}.log")),
            name,
            role,
            http: format!("http://{http}"),
            admin: format!("http://{admin}"),
            line,
            clock,
            state: Mutex::new(State {
                start,
                process: None,
                wanted: false,
                ended_at: None,
                ended_by_itself: 0,
            }),
        })
    }

    /// Starts it where it does not run, and has the supervisor keep it running.
    pub(crate) fn start(&self) -> Result<()> {
        let mut state = self.state();
        state.wanted = true;
        if state.process.is_none() {
            self.spawn(&mut state)?;
        }
        Ok(())
    }

    /// Has it started with other arguments from the next time on.
    pub(crate) fn next_args(&self, args: Vec<String>) {
        self.state().start.args = args;
    }

    /// `kill -9`; it stays away until [`Self::start`].
    pub(crate) fn kill(&self) -> Result<()> {
        let mut state = self.state();
        state.wanted = false;
        match state.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Asks it to end in good order, and waits for that; it stays away until [`Self::start`].
    pub(crate) async fn stop(&self) -> Result<()> {
        let process = {
            let mut state = self.state();
            state.wanted = false;
            state.process.take()
        };
        match process {
            Some(mut process) => process.stop(Signal::SIGTERM, END_MAX).await,
            None => Ok(()),
        }
    }

    /// Freezes it, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        match &self.state().process {
            Some(process) => process.signal(signal),
            None => Ok(()),
        }
    }

    /// The supervisor's look: starts it again where it ended though it is meant to run.
    pub(crate) fn supervise(&self) -> Result<()> {
        let mut state = self.state();
        if !state.wanted {
            return Ok(());
        }
        if let Some(process) = &mut state.process {
            if process.is_running() {
                return Ok(());
            }
            state.process = None;
            state.ended_at = Some(Instant::now());
            state.ended_by_itself += 1;
        }
        if state.ended_at.is_none_or(|ended| ended.elapsed() >= RESTART_WAIT) {
            self.spawn(&mut state)?;
        }
        Ok(())
    }

    /// How often it ended though nobody had ended it.
    pub(crate) fn ended_by_itself(&self) -> u32 {
        self.state().ended_by_itself
    }

    /// Whether it says that it is ready; what it says where it is not.
    pub(crate) async fn readiness(&self, client: &reqwest::Client) -> Result<(), String> {
        let url = format!("{}/health/ready", self.admin);
        let answer = client.get(url).timeout(HEALTH_MAX).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(answer.text().await.unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Panics in its log.
    pub(crate) fn panics(&self) -> Vec<String> {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let lines = String::from_utf8_lossy(&log);
        let panics = lines.lines().filter(|line| line.contains("panicked"));
        panics.map(|line| format!("{}: {line}", self.name)).collect()
    }

    fn spawn(&self, state: &mut State) -> Result<()> {
        let mut command = Command::new(&state.start.program);
        command
            .args(&state.start.args)
            .env_remove("FOREBAY_CONFIG")
            .envs(state.start.env.iter().cloned());
        state.ended_at = None;
        state.process = Some(Process::spawn(&mut command, &self.log)?);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
