//! Child processes that never outlive the test that started them.

use std::{
    fs::File,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// A port of the loopback address that was free a moment ago.
///
/// # Errors
/// Where none can be had.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("look for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// The program `name`: what the environment variable `variable` names, else the project's own under
/// `.tools/venv/bin`, else the one on `PATH`.
///
/// # Errors
/// Where it is not installed; the message says how to install it.
pub fn find_program(name: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../.tools/venv/bin")
        .join(name);
    let search = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(own)
        .chain(std::env::split_paths(&search).map(|folder| folder.join(name)))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not installed: run `make test-tools`, or set {variable}"))
}

/// A process with all its children. Dropping it kills them.
#[derive(Debug)]
pub struct Process {
    child: Child,
    watchdog: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own; what it prints is appended to the file `log`.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let watchdog = watch_over(child.id())?;
        Ok(Self {
            child,
            watchdog,
            log: log.to_owned(),
        })
    }

    /// Its process id, which is that of its group.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal to it and its children.
    ///
    /// # Errors
    /// Where it may not be sent. That the process is gone already is no error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match killpg(self.group(), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).context("signal a process"),
        }
    }

    /// Kills it and its children, as a crash would, and waits for its end.
    ///
    /// # Errors
    /// Where it can't be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait().context("wait for a killed process")?;
        Ok(())
    }

    /// Asks it to end by `signal`, and waits for that.
    ///
    /// # Errors
    /// Where it still runs after `within`.
    pub async fn stop(&mut self, signal: Signal, within: Duration) -> Result<()> {
        self.signal(signal)?;
        let deadline = tokio::time::Instant::now() + within;
        while self.is_running() {
            if tokio::time::Instant::now() > deadline {
                bail!("process {} still runs {within:?} after {signal}", self.id());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done about an error here, and the watchdog is the second line of defence.
        let _ = self.kill();
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
    }
}

/// A shell that waits for the end of this process, however it ends, and kills the group `id` then: the pipe to its
/// standard input closes with us.
fn watch_over(id: u32) -> Result<Child> {
    Command::new("sh")
        .args(["-c", "read -r _; kill -s KILL -- \"-$1\"", "watchdog"])
        .arg(id.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start the watchdog of a process")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;

    fn is_alive(id: u32) -> bool {
        // A killed process whose parent did not wait for it yet is a zombie: not alive.
        std::fs::read_to_string(format!("/proc/{id}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
    }

    fn sleeper(folder: &Path) -> Process {
        let mut command = Command::new("sh");
        // A child of its own, which must go with it.
        command.args(["-c", "sleep 1000 & echo $!; wait"]);
        Process::spawn(&mut command, &folder.join("log")).unwrap()
    }

    async fn grandchild(process: &Process) -> u32 {
        wait::until("the child's id", Duration::from_secs(5), || async {
            process.output().trim().parse::<u32>().ok()
        })
        .await
    }

    #[tokio::test]
    async fn dropping_a_process_ends_its_children_too() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path());
        let (id, child) = (process.id(), grandchild(&process).await);
        assert!(is_alive(id) && is_alive(child));
        drop(process);
        wait::until("the end of both", Duration::from_secs(5), || async {
            !is_alive(id) && !is_alive(child)
        })
        .await;
    }

    #[tokio::test]
    async fn the_end_of_the_test_process_ends_them_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = sleeper(folder.path());
        let child = grandchild(&process).await;
        // What the kernel does to our end of the pipe when this process is killed.
        drop(process.watchdog.stdin.take());
        wait::until("the end of the process", Duration::from_secs(5), || {
            let ended = !process.is_running() && !is_alive(child);
            async move { ended }
        })
        .await;
    }

    #[test]
    fn a_missing_program_is_an_error_that_says_what_to_do() {
        let error = find_program("no-such-program", "FOREBAY_NO_SUCH_PROGRAM").unwrap_err();
        assert!(error.to_string().contains("make test-tools"), "{error}");
    }
}
