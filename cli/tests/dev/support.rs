//! Starts the built binary, and asks it.

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// How long anything may take before a test gives up.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The binary, in a folder, without what the environment of the tests says of Forebay.
pub(crate) fn forebay(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOREBAY_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// `forebay dev` in a folder. Killed when dropped.
pub(crate) struct Dev {
    child: Child,
    /// Held open: it may say more.
    _says: Option<BufReader<ChildStdout>>,
    folder: PathBuf,
    pub(crate) url: String,
    pub(crate) admin: String,
    /// What it said at the start.
    pub(crate) welcome: String,
}

impl Dev {
    /// Starts it on free ports, and waits until it is ready.
    pub(crate) fn start(folder: &Path, flags: &[&str]) -> Self {
        let anywhere = ["--http-addr", "--grpc-addr", "--admin-addr"].map(|flag| [flag, "127.0.0.1:0"]);
        let mut child = forebay(folder)
            .arg("dev")
            .args(anywhere.as_flattened())
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut welcome = String::new();
        while !welcome.contains("Stop with Ctrl-C") {
            assert_ne!(
                lines.read_line(&mut welcome).unwrap(),
                0,
                "it ended after saying {welcome:?}"
            );
        }
        let url_after = |label: &str| {
            let line = welcome
                .lines()
                .find(|line| line.trim().starts_with(label))
                .unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        Self {
            url: url_after("HTTP"),
            admin: url_after("metrics"),
            child,
            _says: Some(lines),
            folder: folder.to_owned(),
            welcome,
        }
    }

    /// Starts it with nobody at the other end of its standard output, and waits until it answers.
    pub(crate) fn start_unread(folder: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let http = free.local_addr().unwrap().to_string();
        drop(free);
        let mut child = forebay(folder)
            .args([
                "dev",
                "--http-addr",
                &http,
                "--grpc-addr",
                "127.0.0.1:0",
                "--admin-addr",
                "127.0.0.1:0",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let dev = Self {
            child,
            _says: None,
            folder: folder.to_owned(),
            url: format!("http://{http}"),
            admin: String::new(),
            welcome: String::new(),
        };
        let began = Instant::now();
        while !dev.call(&["queues"]).status.success() {
            assert!(began.elapsed() < WITHIN, "it does not answer");
            pause();
        }
        dev
    }

    /// Calls a client command.
    pub(crate) fn call(&self, args: &[&str]) -> Output {
        forebay(&self.folder)
            .args(args)
            .env("FOREBAY_URL", &self.url)
            .ended()
    }

    /// Calls a client command that must succeed, and returns the JSON lines that it prints.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        let output = self.call(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until a task is in one of `states`.
    pub(crate) fn wait_for(&self, id: &str, states: &[&str]) -> Value {
        let began = Instant::now();
        loop {
            let task = self.json(&["get", id]).remove(0);
            if states.iter().any(|state| task["state"] == *state) {
                return task;
            }
            assert!(began.elapsed() < WITHIN, "not {states:?} in time: {task}");
            pause();
        }
    }

    /// Waits until a client command prints something that will do.
    pub(crate) fn json_until(&self, args: &[&str], will_do: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let values = self.json(args);
            if will_do(&values) {
                return values;
            }
            assert!(began.elapsed() < WITHIN, "{args:?} in time: {values:?}");
            pause();
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Kills it as a crash of the machine would.
    pub(crate) fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        within(&mut self.child, "forebay dev")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that ends by itself.
pub(crate) trait Ended {
    /// Runs it to its end, which must come in time.
    fn ended(&mut self) -> Output;
}

impl Ended for Command {
    fn ended(&mut self) -> Output {
        let mut child = self
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        within(&mut child, &format!("{self:?}"));
        child.wait_with_output().unwrap()
    }
}

fn within(child: &mut Child, name: &str) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > WITHIN {
            child.kill().unwrap();
            panic!("{name} did not end in time");
        }
        pause();
    }
}

/// Between two looks at something that can only be looked at.
#[expect(
    clippy::disallowed_methods,
    reason = "a plain thread of a test; there is no runtime to block"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// The only value of a JSON answer over plain HTTP, without a client of ours.
pub(crate) fn http_get(url: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, answer)
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
