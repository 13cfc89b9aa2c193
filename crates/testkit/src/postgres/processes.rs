//! The processes of a PostgreSQL server, each a session of its own, and what they share.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Waits for the end of the test process, however it ends (the pipe to its standard input closes), and then kills the
/// server with its children, which are sessions of their own, and removes what they share and its folder.
const WATCHDOG: &str = r#"
read -r _
kill -s STOP "$1"
for status in $(grep -ls "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status); do
    child=${status#/proc/}
    kill -s KILL "${child%/status}"
done
kill -s KILL "$1"
set -- "$2" $(sed -n 7p "$2/data/postmaster.pid")
if [ -n "$3" ]; then ipcrm -m "$3"; fi
rm -rf "$1" || rm -rf "$1"
"#;

#[derive(Debug)]
pub(super) struct Running {
    pub(super) postmaster: Child,
    pub(super) watchdog: Child,
}

impl Running {
    pub(super) fn start(mut command: Command, folder: &Path) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))?;
        let postmaster = command
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("start the server")?;
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(postmaster.id().to_string())
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the watchdog of the server")?;
        Ok(Self { postmaster, watchdog })
    }

    pub(super) fn id(&self) -> u32 {
        self.postmaster.id()
    }

    /// Stops the postmaster, so that it makes no more children, and lists those it has.
    pub(super) fn freeze(&self) -> Result<Vec<u32>> {
        signal(self.id(), Signal::SIGSTOP)?;
        children_of(self.id())
    }

    /// After the server's end: waits for it, and for the watchdog, which has nothing to watch over any more.
    pub(super) fn end(&mut self) -> Result<()> {
        self.watchdog.kill()?;
        self.watchdog.wait()?;
        self.postmaster.wait().context("wait for the server")?;
        Ok(())
    }
}

/// Sends a signal. That the process is gone already is no error.
pub(super) fn signal(id: u32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(id.cast_signed()), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("send {signal} to the server")),
    }
}

pub(super) fn children_of(id: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").context("list processes")? {
        let child = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        children.extend(child.filter(|&child| parent_of(child) == Some(id)));
    }
    Ok(children)
}

/// Its parent; `None` where it has ended.
pub(super) fn parent_of(id: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // `pid (name) state parent …`, and the name may hold anything.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.next()?.parse().ok()
}

/// The server writes its own id and, once it takes connections, `ready` into this file.
pub(super) fn is_ready(file: &Path, id: &str) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().next() == Some(id) && text.lines().nth(7).map(str::trim_end) == Some("ready")
}

/// Removes the shared memory that a killed server leaves behind: its next start would do so, but there may be none. A
/// server that ended properly has removed it, and the file.
pub(super) fn remove_shared_memory(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // The line holds its key and its id.
    let Some(id) = text
        .lines()
        .nth(6)
        .and_then(|line| line.split_whitespace().nth(1))
    else {
        return Ok(());
    };
    Command::new("ipcrm")
        .args(["-m", id])
        .stderr(Stdio::null())
        .status()
        .context("run ipcrm")?;
    Ok(())
}
