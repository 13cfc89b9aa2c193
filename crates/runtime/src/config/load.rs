//! Puts the layers together.
//!
//! clap knows flags and variables, stops at the first mistake, and does not know files. So the command line is
//! parsed twice: first with every setting as plain text, which tells which flags were given; then, after all
//! values of all sources were checked by their own parsers, with the effective ones as defaults.

use std::{ffi::OsString, fmt, path::PathBuf};

use clap::{Arg, ArgMatches, Command, builder::Resettable, parser::ValueSource};

use super::{FILE_TWIN, PREFIX, WITH_FILE_TWIN, file::ConfigFile, values::masked, variables::Variables};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag(String),
    /// This variable of the environment.
    Variable(String),
    /// This file.
    File(String),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One setting as it is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its key in the file; also the id of its flag.
    pub key: String,
    /// Its value, secrets masked; `None` where it is not set.
    pub value: Option<String>,
    /// Where that came from.
    pub source: Source,
}

/// The configuration of the command that was called.
#[derive(Debug)]
pub struct Loaded {
    /// For `from_arg_matches` of the command's clap struct.
    pub matches: ArgMatches,
    /// Every setting of the command.
    pub settings: Vec<Setting>,
    /// The `[[handler]]` tables of the file.
    pub handlers: Vec<toml::Value>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Variables that are set, and that this command has no use for.
    pub unused: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// The command line is wrong, or asks for help; clap has the words for it.
    Usage(clap::Error),
    /// Everything else that is wrong, one line each.
    Problems(Vec<String>),
}

/// Loads the configuration for the subcommand of `command` that `argv` calls. Settings are the options that have
/// a variable. `env` is the environment.
///
/// # Errors
/// With all that is wrong.
pub fn load(
    command: &Command,
    argv: Vec<OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, LoadError> {
    let known = Known::of(command);
    let flags = lenient(command.clone())
        .try_get_matches_from(argv.clone())
        .map_err(LoadError::Usage)?;
    let mut problems = Vec::new();
    let variables = Variables::pick(env, &known.variables(), &mut problems);
    let named = flag_of(&flags, "config").or_else(|| variables.get("FOREBAY_CONFIG").map(str::to_owned));
    let file = ConfigFile::read(named.map(PathBuf::from), &known.keys(), &mut problems);
    known.check_all(&variables, &file, &mut problems);

    let (called, flags) = flags.subcommand().unwrap_or(("", &flags));
    let layers = Layers {
        flags,
        variables: &variables,
        file: &file,
    };
    let wanted: Vec<Arg> = settings_of(command.find_subcommand(called).unwrap_or(command))
        .cloned()
        .collect();
    let mut effective = Vec::new();
    for arg in &wanted {
        let found = layers.find(arg, &mut problems);
        if found.is_none() && arg.is_required_set() {
            problems.push(missing(arg));
        }
        effective.push((arg.get_id().to_string(), found));
    }
    if !problems.is_empty() {
        return Err(LoadError::Problems(problems));
    }
    let unused = known.unused(&wanted, &variables);
    let matches = strict(command.clone(), called, &effective)
        .try_get_matches_from(argv)
        .map_err(LoadError::Usage)?;
    Ok(Loaded {
        matches,
        settings: effective.into_iter().map(shown).collect(),
        handlers: file.handlers,
        file: file.path,
        unused,
    })
}

/// A value with its source.
type Found = Option<(String, Source)>;

struct Layers<'a> {
    flags: &'a ArgMatches,
    variables: &'a Variables,
    file: &'a ConfigFile,
}

impl Layers<'_> {
    /// The value that counts. A bad flag becomes a problem here; variables and the file are checked already.
    fn find(&self, arg: &Arg, problems: &mut Vec<String>) -> Found {
        let key = arg.get_id().as_str();
        let flag = format!("--{}", arg.get_long().unwrap_or(key));
        if let Some(value) = flag_of(self.flags, key) {
            check(arg, &value, &flag, problems);
            return Some((value, Source::Flag(flag)));
        }
        let name = variable_of(arg);
        if let Some(value) = self.variables.get(&name) {
            return Some((value.to_owned(), Source::Variable(name)));
        }
        if let Some((value, twin)) = self.secret_file(arg, problems) {
            return Some((value, Source::Variable(twin)));
        }
        if let Some(value) = self.file.values.get(key) {
            return Some((value.clone(), Source::File(self.file.name())));
        }
        let default = arg.get_default_values().first()?;
        Some((default.to_string_lossy().into_owned(), Source::Default))
    }

    fn secret_file(&self, arg: &Arg, problems: &mut Vec<String>) -> Option<(String, String)> {
        let twin = format!("{}{FILE_TWIN}", variable_of(arg));
        let path = self.variables.get(&twin)?;
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let value = text.trim().to_owned();
                check(
                    arg,
                    &value,
                    &format!("the file {path} that {twin} names"),
                    problems,
                );
                Some((value, twin))
            }
            Err(error) => {
                problems.push(format!("{twin}: cannot read {path}: {error}"));
                // Not missing: wrong.
                Some((String::new(), twin))
            }
        }
    }
}

/// Every setting of every command, once.
struct Known(Vec<Arg>);

impl Known {
    fn of(command: &Command) -> Self {
        let mut args: Vec<Arg> = Vec::new();
        for command in std::iter::once(command).chain(command.get_subcommands()) {
            for arg in settings_of(command) {
                if !args.iter().any(|known| known.get_id() == arg.get_id()) {
                    args.push(arg.clone());
                }
            }
        }
        Self(args)
    }

    fn variables(&self) -> Vec<String> {
        self.0.iter().map(variable_of).collect()
    }

    /// What may stand in the file: all but the file's own name.
    fn keys(&self) -> Vec<String> {
        let keys = self.0.iter().map(|arg| arg.get_id().to_string());
        keys.filter(|key| key != "config").collect()
    }

    fn unused(&self, wanted: &[Arg], variables: &Variables) -> Vec<String> {
        let is_wanted = |name: &String| wanted.iter().any(|arg| variable_of(arg) == *name);
        self.variables()
            .into_iter()
            .filter(|name| name != "FOREBAY_CONFIG" && !is_wanted(name) && variables.get(name).is_some())
            .collect()
    }

    /// Checks variables and file, also where another source has the last word, or another command is called:
    /// a mistake that waits for its day is still one.
    fn check_all(&self, variables: &Variables, file: &ConfigFile, problems: &mut Vec<String>) {
        for arg in &self.0 {
            let name = variable_of(arg);
            if let Some(value) = variables.get(&name) {
                check(arg, value, &format!("{name} in the environment"), problems);
            }
            let twin = format!("{name}{FILE_TWIN}");
            if WITH_FILE_TWIN.contains(&arg.get_id().as_str())
                && variables.get(&name).is_some()
                && variables.get(&twin).is_some()
            {
                problems.push(format!(
                    "{name} and {twin} are both set in the environment: set one of them"
                ));
            }
            if let Some(value) = file.values.get(arg.get_id().as_str()) {
                check(
                    arg,
                    value,
                    &format!("{} in {}", arg.get_id(), file.name()),
                    problems,
                );
            }
        }
    }
}

fn settings_of(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| is_setting(arg))
}

fn is_setting(arg: &Arg) -> bool {
    arg.get_env()
        .and_then(std::ffi::OsStr::to_str)
        .is_some_and(|name| name.starts_with(PREFIX))
}

fn variable_of(arg: &Arg) -> String {
    arg.get_env().unwrap_or_default().to_string_lossy().into_owned()
}

fn flag_of(flags: &ArgMatches, key: &str) -> Option<String> {
    let given = flags.value_source(key) == Some(ValueSource::CommandLine);
    let value = flags.try_get_raw(key).ok().flatten()?.next_back()?;
    given.then(|| value.to_string_lossy().into_owned())
}

/// Asks the setting's own parser.
fn check(arg: &Arg, value: &str, from: &str, problems: &mut Vec<String>) {
    let alone = arg.clone().env(Resettable::Reset).required(false).global(false);
    let long = arg.get_long().unwrap_or_default();
    let parsed = Command::new("check")
        .arg(alone)
        .try_get_matches_from(["check", &format!("--{long}={value}")]);
    if let Err(error) = parsed {
        let shown = masked(value);
        let why = std::error::Error::source(&error).map_or_else(
            || "is not allowed".to_owned(),
            // clap's own parsers (numbers) quote the value again, and speak of digits.
            |source| {
                source
                    .to_string()
                    .replace("invalid digit found in string", "must be a whole number")
                    .replace(&format!("{value} is not"), "must be")
                    .replace(value, &shown)
            },
        );
        problems.push(format!("{from} is {shown:?}: {why}"));
    }
}

fn missing(arg: &Arg) -> String {
    let (key, name) = (arg.get_id().as_str(), variable_of(arg));
    let flag = arg.get_long().unwrap_or(key);
    format!(
        "{name} is not set: set it, or give --{flag}, or {key} in {}",
        super::DEFAULT_FILE
    )
}

/// Every setting as optional text.
fn lenient(command: Command) -> Command {
    let plain = |arg: Arg| match is_setting(&arg) {
        true => arg
            .required(false)
            .hide_env_values(true)
            .value_parser(clap::builder::OsStringValueParser::new()),
        false => arg,
    };
    command.mut_args(plain).mut_subcommands(|sub| sub.mut_args(plain))
}

/// The settings of the command that was called as typed, with what is in effect as defaults.
fn strict(command: Command, called: &str, effective: &[(String, Found)]) -> Command {
    let fill = |arg: Arg| {
        if !is_setting(&arg) {
            return arg;
        }
        let arg = arg.required(false);
        let found = effective.iter().find(|(key, _)| arg.get_id() == key);
        match found {
            Some((_, Some((value, _)))) => arg.env(Resettable::Reset).default_value(value.clone()),
            _ => arg.env(Resettable::Reset),
        }
    };
    let command = command.mut_args(fill);
    match called {
        "" => command,
        called => command.mut_subcommand(called, |sub| sub.mut_args(fill)),
    }
}

fn shown((key, found): (String, Found)) -> Setting {
    match found {
        Some((value, source)) => Setting {
            key,
            value: Some(masked(&value)),
            source,
        },
        None => Setting {
            key,
            value: None,
            source: Source::Default,
        },
    }
}
