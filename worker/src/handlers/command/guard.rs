//! Kills the programs of a worker that was itself killed: by `SIGKILL`, or for using too much memory.
//!
//! `PR_SET_PDEATHSIG` would be the kernel's way, but it reaches the leader alone and not its children, it is sent
//! when the *thread* that started the program ends, and it needs code between fork and exec. Instead, a small
//! shell script waits at the end of a pipe whose other end only this process holds. When the pipe closes, which
//! the kernel sees to whatever the process dies of, it kills every process that has the mark of this worker in
//! its environment. That costs a task nothing, and finds grandchildren too, in whatever group or session they are.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{LazyLock, Mutex, PoisonError},
};

use tracing::warn;

/// The environment variable that carries the mark. Not one of the `FOREBAY_*` settings, so that a Forebay process
/// among the programs does not take it for one.
pub(super) const MARK: &str = "_FOREBAY_WORKER_MARK";

/// Looks for processes three times, since a program may be in the middle of being started, or of starting others.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
while read -r _; do :; done
for round in 1 2 3; do
    for file in $(grep -lF -- "$1" /proc/[0-9]*/environ 2>/dev/null); do
        pid=${file#/proc/}
        kill -KILL "${pid%/environ}" 2>/dev/null
    done
    sleep 1
done
"#;

struct Guard {
    mark: String,
    /// Its stdin is the pipe: it stays open for as long as this process lives. `None` where there is no guard.
    child: Mutex<Option<Child>>,
}

static GUARD: LazyLock<Guard> = LazyLock::new(|| {
    let mark = format!("{:032x}", rand::random::<u128>());
    let child = Mutex::new(start(&mark));
    Guard { mark, child }
});

/// Makes sure that the guard of this process is there, and returns the mark to give to a program.
pub(super) fn watch() -> &'static str {
    let guard = &*GUARD;
    let mut child = guard.child.lock().unwrap_or_else(PoisonError::into_inner);
    let has_died = child
        .as_mut()
        .is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
    if has_died {
        *child = start(&guard.mark);
    }
    &guard.mark
}

fn start(mark: &str) -> Option<Child> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let started = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "forebay-guard", mark])
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .current_dir("/")
        // What ends the worker's group, such as Ctrl-C, must not end the guard before it has done its work.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started
        .inspect_err(|error| {
            warn!(%error, "no shell to guard commands with: if this worker is killed, what they run lives on");
        })
        .ok()
}
