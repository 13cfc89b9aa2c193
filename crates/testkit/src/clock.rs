//! A clock that can be put forward or back under running processes.

use std::{
    fs::{File, Permissions},
    os::unix::fs::{FileExt, PermissionsExt},
    process::Command,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::Cleaner;

/// What is preloaded. (libfaketime opens a file at each look, which deadlocks PostgreSQL, whose signal handlers look.)
const SOURCE: &str = include_str!("clock/leap.c");

/// The wall clock of all processes that are started with [`Self::env`]. Their monotonic clocks stay true, and so do the
/// lengths of their sleeps and timeouts.
///
/// Not for a program that waits on a condition variable of the C library with a deadline of the wall clock while the
/// clock leaps: it waits as long as such a program does on a machine whose clock leaps.
#[derive(Debug)]
pub struct FakeClock {
    /// The seconds by which it is wrong, as eight bytes, which the processes map.
    offset: File,
    folder: TempDir,
    _cleaner: Cleaner,
}

impl FakeClock {
    /// A clock that tells the truth, as yet.
    ///
    /// # Errors
    /// Where there is no C compiler; whoever builds Forebay has one.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("forebay-clock-").tempdir()?;
        // Servers that run as another user read it, too.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let (cleaner, _) = Cleaner::start(":", "rm -rf \"$1\"", &[folder.path().as_os_str()], &[])?;
        compile(&folder)?;
        let path = folder.path().join("offset");
        let offset = File::options().write(true).create_new(true).open(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        let clock = Self {
            offset,
            folder,
            _cleaner: cleaner,
        };
        clock.leap(0)?;
        Ok(clock)
    }

    /// Variables for the environment of a process that is to go by this clock. Its children go by it, too.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        let path = |name: &str| self.folder.path().join(name).to_string_lossy().into_owned();
        vec![
            ("LD_PRELOAD".to_owned(), path("leap.so")),
            ("FOREBAY_TEST_CLOCK".to_owned(), path("offset")),
        ]
    }

    /// From now on it shows the true time plus `seconds`, which may be negative; 0 is the truth. Processes see it the
    /// next time they look.
    ///
    /// # Errors
    /// Where it can't be written down.
    pub fn leap(&self, seconds: i64) -> Result<()> {
        // In place: the processes have it mapped.
        let written = self.offset.write_all_at(&seconds.to_ne_bytes(), 0);
        written.context("write the clock's offset")
    }
}

/// Makes the library.
fn compile(folder: &TempDir) -> Result<()> {
    let (source, library) = (folder.path().join("leap.c"), folder.path().join("leap.so"));
    std::fs::write(&source, SOURCE)?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(compiler)
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output()
        .context("run the C compiler")?;
    if !output.status.success() {
        bail!("the C compiler says: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(std::fs::set_permissions(&library, Permissions::from_mode(0o755))?)
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        sync::{Condvar, Mutex, PoisonError},
        time::{Duration, Instant, SystemTime},
    };

    use super::*;
    use crate::{postgres::Postgres, process::Process, wait};

    const PATIENCE: Duration = Duration::from_secs(20);
    const HOUR: i64 = 3600;

    fn now() -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        since.as_secs().cast_signed()
    }

    /// Whether two times are the same, by a clock that somebody looked at a moment ago.
    fn is_about(time: i64, expected: i64) -> bool {
        (time - expected).abs() < 60
    }

    #[tokio::test]
    async fn a_running_process_sees_each_leap() {
        let clock = FakeClock::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("bash");
        // One process that looks again and again.
        shell
            .args(["-c", "while sleep 0.01; do echo $EPOCHSECONDS; done"])
            .envs(clock.env());
        let process = Process::spawn(&mut shell, &folder.path().join("log")).unwrap();
        for seconds in [0, HOUR, -2 * HOUR, 0] {
            clock.leap(seconds).unwrap();
            wait::until("the process to see it", PATIENCE, async || {
                let time = process.output().lines().last()?.parse().ok()?;
                is_about(time, now() + seconds).then_some(())
            })
            .await;
        }
    }

    /// Runs on its own, and below with a clock that leaps meanwhile.
    #[test]
    fn timeouts_last_as_long_as_they_should() {
        let (span, most) = (Duration::from_millis(700), Duration::from_secs(10));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let begin = Instant::now();
        let (mutex, condition) = (Mutex::new(()), Condvar::new());
        let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        let (_guard, timeout) = condition.wait_timeout_while(guard, span, |()| true).unwrap();
        assert!(timeout.timed_out());
        assert!((span..most).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        let begin = Instant::now();
        runtime.block_on(async { tokio::time::sleep(span).await });
        assert!((span..most).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        println!("now {} end", now());
    }

    #[tokio::test]
    async fn timeouts_of_a_process_do_not_follow_a_leap() {
        let clock = FakeClock::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut this = Command::new(std::env::current_exe().unwrap());
        this.args(["--exact", "clock::tests::timeouts_last_as_long_as_they_should"])
            .arg("--nocapture")
            .envs(clock.env());
        let mut process = Process::spawn(&mut this, &folder.path().join("log")).unwrap();
        wait::until("its begin", PATIENCE, async || {
            process.output().contains("running 1 test")
        })
        .await;
        clock.leap(-HOUR).unwrap();
        wait::until("its end", PATIENCE, || {
            let ended = !process.is_running();
            async move { ended }
        })
        .await;
        let output = process.output();
        assert!(output.contains("1 passed"), "{output}");
        let (_, time) = output.split_once("now ").unwrap();
        let time = time.split(' ').next().unwrap().parse().unwrap();
        assert!(is_about(time, now() - HOUR), "{output}");
    }

    #[tokio::test]
    async fn a_database_goes_by_it_through_a_crash() {
        let clock = FakeClock::new().unwrap();
        let mut server = Postgres::start_in(clock.env()).await.unwrap();
        let shows = |server: &Postgres| -> i64 {
            let sql = "SELECT extract(epoch FROM clock_timestamp())::bigint";
            server.psql("postgres", sql).unwrap().parse().unwrap()
        };
        assert!(is_about(shows(&server), now()));
        clock.leap(HOUR).unwrap();
        assert!(is_about(shows(&server), now() + HOUR));
        server.kill().unwrap();
        server.start_again().await.unwrap();
        assert!(is_about(shows(&server), now() + HOUR));
        clock.leap(0).unwrap();
        assert!(is_about(shows(&server), now()));
    }

    #[tokio::test]
    async fn a_program_that_looks_in_its_signal_handlers_goes_on() {
        let clock = FakeClock::new().unwrap();
        let mut server = Postgres::start_in(clock.env()).await.unwrap();
        // Its timeouts are signals, and each statement here sets one that comes too late for it.
        let sql = "SET statement_timeout = '2ms'; DO $$ DECLARE n int := 0; BEGIN LOOP
            BEGIN PERFORM clock_timestamp() FROM generate_series(1, 100000);
            EXCEPTION WHEN query_canceled THEN n := n + 1; EXIT; END; END LOOP; END $$";
        for _ in 0..20 {
            // That it is broken off is the point; that it ends is the test.
            let _ = server.psql("postgres", sql);
        }
        assert_eq!(server.psql("postgres", "SELECT 1").unwrap(), "1");
        server.kill().unwrap();
    }

    #[test]
    fn it_leaves_nothing_behind() {
        let clock = FakeClock::new().unwrap();
        let folder = clock.folder.path().to_owned();
        assert!(folder.join("offset").exists() && folder.join("leap.so").exists());
        drop(clock);
        assert!(!folder.exists());
    }
}
