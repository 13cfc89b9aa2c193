//! The `[[handler]]` tables of `forebay.toml`: which programs and endpoints run which kinds.

use std::{
    collections::BTreeMap,
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use forebay_core::{Kind, RetryPolicy};
use secrecy::SecretString;
use serde::Deserialize;
use thiserror::Error;

use super::{Handler, HandlerSettings, Handlers, command::CommandHandler, http::HttpHandler};

/// The longest timeout and the longest wait between attempts, in seconds: a week, as for a submission.
const SECONDS_MAX: f64 = 7.0 * 24.0 * 3_600.0;

/// The shortest timeout, in seconds.
const TIMEOUT_SECONDS_MIN: f64 = 0.001;

/// The most attempts, as for a submission.
const ATTEMPTS_MAX: i64 = 1_000;

/// The most attempts of one kind that may run at once.
const CONCURRENCY_MAX: i64 = 10_000;

/// How much the wait between attempts may grow each time.
const FACTORS: RangeInclusive<f64> = 1.0..=100.0;

/// One `[[handler]]` table: a kind, and either a `command` or an `http` endpoint that runs it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandlerConfig {
    /// Which tasks it runs.
    pub kind: String,
    /// A program and its arguments. No shell is involved.
    pub command: Option<Vec<String>>,
    /// An endpoint.
    pub http: Option<HttpConfig>,
    /// How long one attempt may take, where the task does not say; 300 unless said.
    pub timeout_seconds: Option<f64>,
    /// How long an attempt of a command may say nothing (neither progress nor any output), where the task does not say;
    /// as long as it likes unless said.
    pub heartbeat_timeout_seconds: Option<f64>,
    /// How many attempts there are, where the task does not say; 5 unless said.
    pub max_attempts: Option<i64>,
    /// How many attempts a worker runs at once. Unless said, as many as it has slots, less a tenth (and at least one)
    /// where there are handlers for other kinds.
    pub concurrency: Option<i64>,
    /// How long to wait between attempts.
    pub retry: Option<RetryConfig>,
    /// Environment variables for the command, over those it inherits.
    #[serde(default)]
    pub env: BTreeMap<String, SecretString>,
    /// The folder that the command runs in, seen from the one that `forebay.toml` is in; that one unless said.
    pub cwd: Option<PathBuf>,
}

/// An endpoint that runs tasks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Where to post the payload.
    pub url: String,
    /// The environment variable of the worker that holds the secret to sign with; requests go unsigned unless said.
    pub secret_env: Option<String>,
    /// The networks (`10.0.0.0/8`) and addresses (`127.0.0.1`) that it may have though they are not public.
    #[serde(default)]
    pub allow_private: Vec<String>,
}

/// The wait between attempts: random, and at the longest `base_seconds · factorⁿ⁻¹` after the n-th, but never more
/// than `cap_seconds`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryConfig {
    /// 2 unless said.
    pub base_seconds: Option<f64>,
    /// 2 unless said.
    pub factor: Option<f64>,
    /// 3,600 unless said.
    pub cap_seconds: Option<f64>,
}

/// One thing wrong with a `[[handler]]` table. As text it is one line that says where, what, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("handler {handler}: {setting} {detail}")]
pub struct ConfigProblem {
    /// Which table: its kind, or its number where it has none.
    pub handler: String,
    /// The key, such as `timeout_seconds`.
    pub setting: String,
    /// What is wrong, as a fragment: "must be positive".
    pub detail: String,
}

impl Handlers {
    /// The handlers that `tables` describe. Programs run in `folder`, the one that the tables were read from, unless
    /// they say otherwise; `env` looks up the environment variables that hold secrets. What is named there is kept
    /// from all programs.
    ///
    /// # Errors
    /// Everything that is wrong with the tables.
    pub fn from_config(
        tables: Vec<HandlerConfig>,
        folder: &Path,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<ConfigProblem>> {
        let secrets = tables
            .iter()
            .filter_map(|table| table.http.as_ref()?.secret_env.clone())
            .collect();
        let surroundings = Surroundings {
            folder,
            env: &env,
            secrets,
        };
        let mut handlers = Self::new();
        let mut problems = Vec::new();
        for (index, table) in tables.into_iter().enumerate() {
            let mut check = Check::new(&table, index);
            if let Some((kind, settings, handler)) = check.table(table, &surroundings)
                && handlers.register_shared(kind, settings, handler).is_err()
            {
                check.problem("kind", "is taken: another handler has it");
            }
            problems.append(&mut check.problems);
        }
        if problems.is_empty() {
            Ok(handlers)
        } else {
            Err(problems)
        }
    }
}

/// What the tables refer to.
struct Surroundings<'a> {
    folder: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    /// The environment variables that hold secrets of endpoints.
    secrets: Vec<String>,
}

/// Checks one table, and collects what is wrong with it.
struct Check {
    handler: String,
    problems: Vec<ConfigProblem>,
}

impl Check {
    fn new(table: &HandlerConfig, index: usize) -> Self {
        let handler = if table.kind.is_empty() {
            format!("number {}", index + 1)
        } else {
            format!("{:?}", table.kind)
        };
        let problems = Vec::new();
        Self { handler, problems }
    }

    fn problem(&mut self, setting: &str, detail: impl fmt::Display) {
        self.problems.push(ConfigProblem {
            handler: self.handler.clone(),
            setting: setting.to_owned(),
            detail: detail.to_string(),
        });
    }

    /// The table as a handler; `None` where there are problems.
    fn table(
        &mut self,
        table: HandlerConfig,
        surroundings: &Surroundings<'_>,
    ) -> Option<(Kind, HandlerSettings, Arc<dyn Handler>)> {
        let kind = table
            .kind
            .parse::<Kind>()
            .map_err(|error| self.problem("kind", error))
            .ok();
        if kind.as_ref().is_some_and(Kind::is_reserved) {
            self.problem(
                "kind",
                "must not begin with forebay.: such kinds are Forebay's own",
            );
        }
        let settings = self.settings(&table);
        let handler: Option<Arc<dyn Handler>> = match (table.command.clone(), &table.http) {
            (Some(command), None) => {
                let handler = self.command(command, table, surroundings);
                handler.map(|handler| Arc::new(handler) as _)
            }
            (None, Some(http)) => {
                self.only_for_commands(&table);
                self.http(http, surroundings)
                    .map(|handler| Arc::new(handler) as _)
            }
            (Some(_), Some(_)) => {
                self.problem("http", "must not be given together with command");
                None
            }
            (None, None) => {
                self.problem("command", "or http must be given");
                None
            }
        };
        if self.problems.is_empty() {
            Some((kind?, settings, handler?))
        } else {
            None
        }
    }

    fn settings(&mut self, table: &HandlerConfig) -> HandlerSettings {
        let defaults = HandlerSettings::default();
        let timeout = self.seconds("timeout_seconds", table.timeout_seconds, TIMEOUT_SECONDS_MIN);
        let heartbeat = self.seconds(
            "heartbeat_timeout_seconds",
            table.heartbeat_timeout_seconds,
            TIMEOUT_SECONDS_MIN,
        );
        let attempts = self.count("max_attempts", table.max_attempts, ATTEMPTS_MAX);
        let concurrency = self.count("concurrency", table.concurrency, CONCURRENCY_MAX);
        let mut retry = self.retry(table.retry.unwrap_or_default());
        retry.attempts_max = attempts.unwrap_or(retry.attempts_max);
        HandlerSettings {
            timeout: timeout.unwrap_or(defaults.timeout),
            heartbeat_timeout: heartbeat,
            retry,
            concurrency: concurrency.and_then(|n| usize::try_from(n).ok()),
        }
    }

    fn retry(&mut self, retry: RetryConfig) -> RetryPolicy {
        let defaults = RetryPolicy::default();
        if let Some(factor) = retry.factor
            && !FACTORS.contains(&factor)
        {
            let (min, max) = FACTORS.into_inner();
            self.problem("retry.factor", format_args!("must be from {min} to {max}"));
        }
        let base = self.seconds("retry.base_seconds", retry.base_seconds, 0.0);
        let cap = self.seconds("retry.cap_seconds", retry.cap_seconds, 0.0);
        RetryPolicy {
            base: base.unwrap_or(defaults.base),
            factor: retry.factor.unwrap_or(defaults.factor),
            cap: cap.unwrap_or(defaults.cap),
            attempts_max: defaults.attempts_max,
        }
    }

    fn seconds(&mut self, setting: &str, seconds: Option<f64>, min: f64) -> Option<Duration> {
        let seconds = seconds?;
        if (min..=SECONDS_MAX).contains(&seconds) {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        self.problem(
            setting,
            format_args!("must be from {min} to {SECONDS_MAX}, which is a week"),
        );
        None
    }

    fn count(&mut self, setting: &str, count: Option<i64>, max: i64) -> Option<u32> {
        let count = count?;
        if (1..=max).contains(&count) {
            return u32::try_from(count).ok();
        }
        self.problem(setting, format_args!("must be from 1 to {max}"));
        None
    }

    fn command(
        &mut self,
        command: Vec<String>,
        table: HandlerConfig,
        surroundings: &Surroundings<'_>,
    ) -> Option<CommandHandler> {
        if command.iter().any(|part| part.contains('\0')) {
            self.problem("command", "must not contain NUL characters");
        }
        for (name, value) in &table.env {
            self.variable(name, value);
        }
        let mut parts = command.into_iter();
        let Some(program) = parts.next().filter(|program| !program.is_empty()) else {
            self.problem(
                "command",
                "must be a program and its arguments, like [\"python3\", \"thumb.py\"]",
            );
            return None;
        };
        // The folder of a file called by its name alone is "", which no process can be in.
        let folder = Path::new(".")
            .join(surroundings.folder)
            .join(table.cwd.unwrap_or_default());
        let mut handler = CommandHandler::new(program, parts).cwd(folder);
        for name in &surroundings.secrets {
            handler = handler.hide_env(name);
        }
        Some(
            table
                .env
                .into_iter()
                .fold(handler, |handler, (name, value)| handler.env(name, value)),
        )
    }

    fn variable(&mut self, name: &str, value: &SecretString) {
        use secrecy::ExposeSecret;
        if name.is_empty() || name.contains(['=', '\0']) || value.expose_secret().contains('\0') {
            self.problem(
                "env",
                format_args!(
                    "can't hold {name:?}: no environment variable can be called that or have that value"
                ),
            );
        }
    }

    fn only_for_commands(&mut self, table: &HandlerConfig) {
        if !table.env.is_empty() {
            self.problem("env", "is for commands only");
        }
        if table.cwd.is_some() {
            self.problem("cwd", "is for commands only");
        }
        if table.heartbeat_timeout_seconds.is_some() {
            let detail = "is for commands only: an endpoint says nothing until it answers";
            self.problem("heartbeat_timeout_seconds", detail);
        }
    }

    fn http(&mut self, http: &HttpConfig, surroundings: &Surroundings<'_>) -> Option<HttpHandler> {
        let mut secret = None;
        if let Some(name) = &http.secret_env {
            secret = (surroundings.env)(name);
            if secret.is_none() {
                self.problem(
                    "http.secret_env",
                    format_args!("names {name}, and the environment has no such variable"),
                );
            }
        }
        match HttpHandler::new(&http.url, secret.as_deref(), &http.allow_private) {
            Ok(handler) => Some(handler),
            Err(problems) => {
                for problem in problems {
                    self.problem(&format!("http.{}", problem.setting), problem.detail);
                }
                None
            }
        }
    }
}
