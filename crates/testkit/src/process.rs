//! Child processes that never outlive the test that started them.

use std::{
    ffi::OsStr,
    fs::File,
    hash::{BuildHasher, Hasher, RandomState},
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// How long a process may take to stop.
const STOPS_MAX: Duration = Duration::from_secs(5);

/// Where [`free_port`] looks: below the ports that kernels give to connections, so that none takes a server's port
/// while the server is down, nor ends up connected to itself in the attempt to reach it.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// How many ports are tried before one is left to the kernel's choice.
const PORT_ATTEMPTS_MAX: usize = 100;

/// Waits for the end of the test process, however it ends (the pipe to its standard input closes), then kills the
/// group and removes its folder, where one is given.
const WATCHDOG: &str = r#"
read -r _
kill -s KILL -- "-$1"
if [ -n "$2" ]; then rm -rf "$2" || rm -rf "$2"; fi
"#;

/// A port of the loopback address that was free a moment ago.
///
/// # Errors
/// Where none can be had.
pub fn free_port() -> Result<u16> {
    let random = RandomState::new();
    let candidates = (0..PORT_ATTEMPTS_MAX as u64).map(|attempt| {
        let mut hasher = random.build_hasher();
        hasher.write_u64(attempt);
        PORTS.start + (hasher.finish() % PORTS.len() as u64) as u16
    });
    let listener = candidates
        .chain([0])
        .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .context("look for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Deletes all that is in a folder. The folder itself stays: it may be where a disk is mounted.
///
/// # Errors
/// Where something in it can't be deleted.
pub(crate) fn empty_folder(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        }
        .with_context(|| format!("delete {}", path.display()))?;
    }
    Ok(())
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
        Self::spawn_with(command, log, None)
    }

    /// Like [`Self::spawn`], for a process with a folder of its own, which is removed, too, where the test process
    /// ends without dropping it.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn spawn_in(folder: &Path, command: &mut Command, log: &Path) -> Result<Self> {
        Self::spawn_with(command, log, Some(folder))
    }

    fn spawn_with(command: &mut Command, log: &Path, folder: Option<&Path>) -> Result<Self> {
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
        let watchdog = watch_over(child.id(), folder)?;
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

    /// Makes it and its children hang, and waits until none of their threads does anything any more: the signal alone is
    /// heard by a thread that runs only when it next enters the kernel.
    ///
    /// # Errors
    /// Where it may not be stopped, or does not stop within seconds.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let deadline = Instant::now() + STOPS_MAX;
        while is_active(self.group())? {
            if Instant::now() > deadline {
                bail!("a process that was told to stop goes on");
            }
            std::thread::yield_now();
        }
        Ok(())
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

    /// What the kernel does to our end of the watchdog's pipe when the test process is killed.
    #[cfg(test)]
    pub(crate) fn abandon(&mut self) {
        drop(self.watchdog.stdin.take());
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

/// Whether a thread of these processes is not stopped yet. One that waits in the kernel for a disk stops when it leaves it.
fn is_active(group: Pid) -> Result<bool> {
    for entry in std::fs::read_dir("/proc").context("list processes")? {
        let process = entry?.path();
        if !is_of(&process, group) {
            continue;
        }
        // What has ended meanwhile does nothing.
        let Ok(threads) = std::fs::read_dir(process.join("task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let state = stat(&thread.path()).and_then(|fields| fields.chars().next());
            if matches!(state, Some('R' | 'S')) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn is_of(process: &Path, group: Pid) -> bool {
    let fields = stat(process);
    let found = fields
        .as_deref()
        .and_then(|fields| fields.split_whitespace().nth(2));
    found.and_then(|found| found.parse().ok()) == Some(group.as_raw())
}

/// `state parent group …`: what is said of a process or a thread after its name, which may hold anything.
fn stat(of: &Path) -> Option<String> {
    let stat = std::fs::read_to_string(of.join("stat")).ok()?;
    stat.rsplit(')')
        .next()
        .map(|fields| fields.trim_start().to_owned())
}

fn watch_over(id: u32, folder: Option<&Path>) -> Result<Child> {
    Command::new("sh")
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(id.to_string())
        .args(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start the watchdog of a process")
}

/// A shell that waits for the end of this process, however it ends, or until it is dropped, and then cleans up.
#[derive(Debug)]
pub(crate) struct Cleaner {
    shell: Child,
}

impl Cleaner {
    /// Starts it; `script` runs once the time has come, with `arguments`. What `announce`, which is a script, too,
    /// prints at once, is returned.
    pub(crate) fn start(
        announce: &str,
        script: &str,
        arguments: &[&OsStr],
        env: &[(String, String)],
    ) -> Result<(Self, String)> {
        let mut shell = Command::new("sh")
            .arg("-c")
            .arg(format!("{announce}\necho\nexec >&-\nread -r _\n{script}"))
            .arg("cleaner")
            .args(arguments)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start a cleaner")?;
        let mut announced = String::new();
        let output = shell.stdout.take().context("the output of a cleaner")?;
        let cleaner = Self { shell };
        BufReader::new(output)
            .read_line(&mut announced)
            .context("read what a cleaner says")?;
        Ok((cleaner, announced.trim().to_owned()))
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        // Nothing can be done about an error here.
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Whether a process runs. One that was killed and whose parent did not wait for it yet is a zombie: it does not.
#[cfg(test)]
pub(crate) fn is_alive(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;

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
        process.abandon();
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
