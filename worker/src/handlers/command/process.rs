//! One run of a program, from its start to the death of its process group.

use std::{future::Future, io, pin::pin, process::ExitStatus, time::Duration};

use bytes::Bytes;
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::stderr::Stderr;
use crate::handlers::{Execution, RESULT_BYTES_MAX, Stop};

/// How long a program that was asked to end has for it, before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How long to wait for the end of the program's output once the program and its group are dead. Only a process
/// that left the group can still hold the pipes open.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// How long killed processes are looked after until they are gone.
const REAP_MAX: Duration = Duration::from_secs(2);

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// How a program ended, and what it wrote to stdout.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    /// It wrote more than a result may have, and was killed for it.
    pub(super) stdout_too_long: bool,
}

/// A running program, which leads a process group of its own. Dropping it kills the group.
pub(super) struct Process {
    /// `None` once it has been waited for.
    child: Option<Child>,
    group: Pid,
}

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Process {
    pub(super) fn start(mut command: Command) -> io::Result<Self> {
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let pid = child.id().expect("a child that was not waited for has an id");
        let group = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
        Ok(Self {
            child: Some(child),
            group,
        })
    }

    /// Feeds the program, collects what it writes, and waits for its end; ends it when the attempt should end. When
    /// this returns, no process is left in the group but such as are dying.
    pub(super) async fn run(mut self, execution: &Execution) -> io::Result<Ended> {
        let child = self.child.as_mut().expect("taken only below");
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut output = Output::default();
        let too_long = CancellationToken::new();
        let status = {
            let mut pumps = pin!(async {
                tokio::join!(
                    feed(stdin, execution.payload.to_bytes()),
                    collect(stdout, &mut output, &too_long),
                    listen(stderr, Stderr::new(&execution.log, &execution.progress))
                );
            });
            let status = lead_to_end(child, self.group, pumps.as_mut(), &too_long, &execution.stop).await?;
            // The leader is reaped: from here on its id could be given to another process, were the group empty.
            self.child = None;
            end_group(self.group);
            if status.pumps_are_open {
                // What was read until then is the output.
                let _ = timeout(DRAIN_MAX, pumps).await;
            }
            status.exit
        };
        Ok(Ended {
            status,
            stdout: output.bytes,
            stdout_too_long: output.too_long,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        kill(self.group, Signal::SIGKILL);
        let group = self.group;
        // Outside a runtime the child is reaped with tokio's other orphans, or by init.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Nothing to be done about an error: the child is killed either way.
                let _ = child.wait().await;
                reap(group).await;
            });
        }
    }
}

struct Exit {
    exit: ExitStatus,
    /// Whether the program's output may not have been read to its end.
    pumps_are_open: bool,
}

/// Drives the pumps until the leader exits. Asks the group to end when `stop` says so, and kills it when it does
/// not, or when its output is too long.
async fn lead_to_end(
    child: &mut Child,
    group: Pid,
    mut pumps: std::pin::Pin<&mut impl Future<Output = ()>>,
    too_long: &CancellationToken,
    stop: &Stop,
) -> io::Result<Exit> {
    let mut pumps_are_open = true;
    let mut kill_at = None;
    let mut killed = false;
    loop {
        tokio::select! {
            exit = child.wait() => return Ok(Exit { exit: exit?, pumps_are_open }),
            () = &mut pumps, if pumps_are_open => pumps_are_open = false,
            () = too_long.cancelled(), if !killed => {
                kill(group, Signal::SIGKILL);
                killed = true;
            }
            _ = stop.cancelled(), if kill_at.is_none() => {
                kill(group, Signal::SIGTERM);
                kill_at = Some(Instant::now() + GRACE);
            }
            () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() && !killed => {
                kill(group, Signal::SIGKILL);
                killed = true;
            }
        }
    }
}

/// Writes the payload, and ends the input. A program need not read it: a broken pipe is no error.
async fn feed(stdin: Option<ChildStdin>, payload: Bytes) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(&payload).await;
        let _ = stdin.shutdown().await;
    }
}

/// Reads stdout to its end, of which no more is kept than a result may have.
async fn collect(stdout: Option<impl AsyncRead + Unpin>, output: &mut Output, too_long: &CancellationToken) {
    read_chunks(stdout, |chunk| {
        if output.bytes.len() + chunk.len() <= RESULT_BYTES_MAX {
            output.bytes.extend_from_slice(chunk);
        } else {
            output.too_long = true;
            too_long.cancel();
        }
    })
    .await;
}

/// Reads stderr to its end.
async fn listen(pipe: Option<impl AsyncRead + Unpin>, mut stderr: Stderr<'_>) {
    read_chunks(pipe, |chunk| stderr.take(chunk)).await;
    stderr.finish();
}

async fn read_chunks(pipe: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(&[u8])) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    // A pipe that fails has ended.
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        take(&chunk[..count]);
    }
}

/// Kills what the leader left behind.
fn end_group(group: Pid) {
    // Mostly there is nothing left, and no signal to send.
    if kill(group, Signal::SIGKILL) {
        tokio::spawn(reap(group));
    }
}

/// Sends a signal to the group. Says whether anybody was there to get it.
fn kill(group: Pid, signal: Signal) -> bool {
    killpg(group, signal).is_ok()
}

/// Looks after a killed group, whose leader is reaped, until it is gone. Where the worker is the first process of
/// its container, orphans are its children, and nobody else would reap them.
async fn reap(group: Pid) {
    let members = Pid::from_raw(-group.as_raw());
    let give_up_at = Instant::now() + REAP_MAX;
    while Instant::now() < give_up_at {
        match waitpid(members, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => continue,
            // Not our children, or not yet: their parent may be dying, too.
            Err(_) if killpg(group, None) == Err(Errno::ESRCH) => return,
            Err(_) => {}
        }
        sleep(Duration::from_millis(5)).await;
    }
}
