//! How a command ends: its exit code, and the one line that says why.

use std::{fmt, io};

use forebay_client::Error;

/// Exit codes. They are documented in the help, and scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Code {
    Done = 0,
    /// A task did not succeed; or a server command could not start, or broke.
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Refused = 4,
    Pending = 5,
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// A command that did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// For standard error; empty where everything is said.
    pub(crate) message: String,
}

/// What a command returns.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.is_unavailable() {
            true => Code::Unreachable,
            false => Code::Refused,
        };
        let hint = match &error {
            Error::Unreachable { .. } => "; is the server running? --url or FOREBAY_URL says where",
            _ => "",
        };
        Self::new(code, format_args!("{error}{hint}"))
    }
}

/// What goes wrong with the terminal, a pipe or a file. A reader that has seen enough, such as `head`, is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Code::Done, ""),
            _ => Self::new(Code::Failed, error),
        }
    }
}

/// Servers: the whole chain of causes, in one line.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Failed, format!("{error:#}").replace('\n', " "))
    }
}
