//! Runs a task with a program: payload on stdin, result on stdout, log on stderr. No shell.
//!
//! What a program can rely on is said at [`CommandHandler`]; what it cannot do is outlive its attempt:
//! it leads a process group, which is killed when the attempt ends, however it ends. Three owners see to that:
//! `process::Process` while the attempt runs and when its future is dropped, and the `guard` when the worker
//! itself is killed. Only a process that leaves the group (`setsid`) and outlives its parent escapes the first,
//! and only one that also changes its environment escapes the second.

mod guard;
mod process;
mod stderr;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use async_trait::async_trait;
use forebay_core::Json;
use nix::sys::signal::Signal;
use secrecy::{ExposeSecret, SecretString};

use self::process::{Ended, Process};
use super::{Execution, Handler, HandlerError, HandlerResult, RESULT_BYTES_MAX, StopReason};

/// `EX_DATAERR` of `sysexits.h`: the input is wrong, and another attempt is no use.
const EXIT_DATA_ERROR: i32 = 65;

/// How much of a program's output is quoted in an error, in characters.
const QUOTE_CHARS_MAX: usize = 200;

/// The one setting of ours that a program inherits: where the API is, for programs that submit tasks themselves.
const INHERITED: &str = "FOREBAY_URL";

/// Runs a program for each attempt.
///
/// The program inherits the worker's environment, without the variables that begin with `FOREBAY_` (they hold the
/// worker's secrets; `FOREBAY_URL` stays) and without those named by [`Self::hide_env`]. It is told about the
/// task in `FOREBAY_TASK_ID`, `FOREBAY_ATTEMPT`, `FOREBAY_FENCE`, `FOREBAY_KIND`, `FOREBAY_QUEUE` and, where there
/// is a trace, `TRACEPARENT`. The fence is [`Execution::fence`]: how often the task was started, this start included.
///
/// A line on stderr as `forebay-progress: 0.375 page 3 of 8` says how far it is, as [`super::Progress::set`] does: a
/// number from 0 to 1, and, if it likes, what it is at. Such lines are not part of the log.
///
/// Exit code 0 means success, and that stdout holds one JSON value or nothing; 65 fails the task for good; every
/// other code, and death by a signal, is tried again.
#[derive(Debug, Clone)]
pub struct CommandHandler {
    program: OsString,
    args: Vec<OsString>,
    cwd: Option<PathBuf>,
    env: BTreeMap<String, SecretString>,
    hidden: Vec<OsString>,
}

impl CommandHandler {
    /// Runs `program`, which is looked up in `PATH` where it has no slash, with `args`.
    pub fn new<P, A>(program: P, args: A) -> Self
    where
        P: Into<OsString>,
        A: IntoIterator,
        A::Item: Into<OsString>,
    {
        let ours = |name: &OsString| name.as_encoded_bytes().starts_with(b"FOREBAY_") && name != INHERITED;
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            cwd: None,
            env: BTreeMap::new(),
            hidden: std::env::vars_os().map(|(name, _)| name).filter(ours).collect(),
        }
    }

    /// Runs it in `folder` instead of the worker's own. A program given with a relative path is looked up there.
    #[must_use]
    pub fn cwd(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cwd = Some(folder.into());
        self
    }

    /// Sets an environment variable, over an inherited one.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: SecretString) -> Self {
        self.env.insert(name.into(), value);
        self
    }

    /// Keeps an environment variable of the worker from the program, such as the secret of another handler.
    #[must_use]
    pub fn hide_env(mut self, name: impl Into<OsString>) -> Self {
        self.hidden.push(name.into());
        self
    }

    /// The program's name, without its folder: what errors call it.
    fn name(&self) -> String {
        let file = Path::new(&self.program).file_name().unwrap_or(&self.program);
        file.to_string_lossy().into_owned()
    }

    fn prepare(&self, execution: &Execution) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args);
        for name in &self.hidden {
            command.env_remove(name);
        }
        command.env_remove("TRACEPARENT");
        for (name, value) in &self.env {
            command.env(name, value.expose_secret());
        }
        command
            .env("FOREBAY_TASK_ID", execution.id.to_string())
            .env("FOREBAY_ATTEMPT", execution.attempt.to_string())
            .env("FOREBAY_FENCE", execution.fence.to_string())
            .env("FOREBAY_KIND", execution.kind.as_str())
            .env("FOREBAY_QUEUE", execution.queue.as_str())
            .env(guard::MARK, guard::watch());
        if let Some(trace) = &execution.traceparent {
            command.env("TRACEPARENT", trace.as_str());
        }
        if let Some(folder) = &self.cwd {
            command.current_dir(folder);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The program could not be started. What only an operator can mend is permanent.
    fn not_started(&self, error: &io::Error) -> HandlerError {
        let program = self.program.to_string_lossy();
        let folder_is_missing = self.cwd.as_deref().is_some_and(|folder| !folder.is_dir());
        match error.kind() {
            _ if folder_is_missing => {
                let folder = self.cwd.as_deref().unwrap_or(Path::new("")).display();
                HandlerError::permanent(format_args!(
                    "the folder {folder} to run {program} in does not exist"
                ))
            }
            io::ErrorKind::NotFound => HandlerError::permanent(format_args!(
                "the program {program} was not found; it must be in the worker's PATH, or given with its folder"
            )),
            io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => {
                HandlerError::permanent(format_args!("the program {program} can't be run: {error}"))
            }
            // Not a program at all; io::ErrorKind has no name for it.
            _ if error.raw_os_error() == Some(nix::errno::Errno::ENOEXEC as i32) => {
                HandlerError::permanent(format_args!("the program {program} can't be run: {error}"))
            }
            _ => HandlerError::retryable(format_args!(
                "the program {program} could not be started: {error}"
            )),
        }
    }

    /// What the end of the program means for the task.
    fn judge(&self, ended: &Ended, execution: &Execution) -> HandlerResult {
        let name = self.name();
        if ended.stdout_too_long {
            return Err(HandlerError::permanent(format_args!(
                "{name} wrote more than {RESULT_BYTES_MAX} bytes to stdout, which is the most a result may have"
            )));
        }
        if ended.status.success() {
            return result(&name, &ended.stdout);
        }
        let mut message = format!("{name} {}", describe(ended.status));
        if let Some(reason) = execution.stop.reason() {
            message.push_str(match reason {
                StopReason::Cancelled => " after it was asked to end: the task was cancelled",
                StopReason::TimedOut => " after it was asked to end: it took longer than its timeout",
                StopReason::Silent => " after it was asked to end: it said nothing for longer than it may",
                StopReason::Shutdown => " after it was asked to end: the worker shuts down",
            });
        }
        if let Some(line) = execution.log.text().as_deref().and_then(last_line) {
            message.push_str(": ");
            message.push_str(&line);
        }
        if ended.status.code() == Some(EXIT_DATA_ERROR) {
            Err(HandlerError::permanent(message))
        } else {
            Err(HandlerError::retryable(message))
        }
    }
}

#[async_trait]
impl Handler for CommandHandler {
    async fn run(&self, execution: Execution) -> HandlerResult {
        let process = Process::start(self.prepare(&execution)).map_err(|e| self.not_started(&e))?;
        let ended = process
            .run(&execution)
            .await
            .map_err(|e| HandlerError::retryable(format_args!("waiting for {}: {e}", self.name())))?;
        self.judge(&ended, &execution)
    }
}

/// What the program wrote, as the task's result.
fn result(name: &str, stdout: &[u8]) -> HandlerResult {
    if stdout.trim_ascii().is_empty() {
        return Ok(Json::null());
    }
    Json::parse(stdout).map_err(|error| {
        let start = String::from_utf8_lossy(&stdout[..stdout.len().min(4 * QUOTE_CHARS_MAX)]);
        HandlerError::permanent(format_args!(
            "{name} exited with code 0, but what it wrote to stdout {error}; it begins with {}",
            quote(start.trim_start())
        ))
    })
}

/// How the program ended, as in "exited with code 1".
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or("unknown", Signal::as_str);
            format!("was killed by signal {number} ({name})")
        }
        (None, None) => "ended for an unknown reason".to_owned(),
    }
}

fn last_line(log: &str) -> Option<String> {
    let line = log.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(printable(line))
}

/// Text of a program, fit for a message: in quotation marks and short.
fn quote(text: &str) -> String {
    format!("{:?}", text.chars().take(QUOTE_CHARS_MAX).collect::<String>())
}

/// A line of a program, fit for a message: short, and without what would move a terminal's cursor.
fn printable(line: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    line.chars().take(QUOTE_CHARS_MAX).map(plain).collect()
}
