//! The Erlang node that a RabbitMQ server is: its programs, its surroundings, and a way to ask it things.

use std::{
    fs::OpenOptions,
    io::Write,
    net::Ipv4Addr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::Setup;
use crate::process::{Process, find_program, free_port};

/// Where Debian keeps RabbitMQ's own scripts. Those on its `PATH` insist on a user of their own.
const DEBIAN: &str = "/usr/lib/rabbitmq/bin";

/// How long an answer of the node may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Few threads, none of which waits busily; connections between nodes on the loopback address alone; no second `epmd`.
/// Without `-noinput` the server would want a terminal, since it is told to allow input (see [`Node::command`]).
const ERLANG: &str = "-noinput +S 2:2 +SDio 4 +sbwt none +sbwtdcpu none +sbwtdio none -start_epmd false \
                      -kernel inet_dist_use_interface {127,0,0,1}";

/// What keeps a server small. Its disk alarm is out of the way unless a test asks for it. Quorum queues write and sync
/// as in production, only into smaller files.
const SETTINGS: &str = "disk_free_limit.absolute = 50MB\nraft.wal_max_size_bytes = 33554432\n";

/// A node's name, ports and folder: all that stays the same when it starts again.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) port: u16,
    distribution: u16,
    names: u16,
    cookie: String,
    folder: PathBuf,
    data: PathBuf,
    env: Vec<(String, String)>,
}

impl Node {
    /// A node of its own, with its configuration written into `folder`.
    pub(super) fn prepare(folder: &Path, setup: &Setup) -> Result<Self> {
        let random = folder
            .extension()
            .and_then(|end| end.to_str())
            .context("a temporary folder has a random name")?
            .to_owned();
        let node = Self {
            name: format!("forebay-{random}@localhost"),
            port: free_port()?,
            distribution: free_port()?,
            names: free_port()?,
            cookie: random,
            folder: folder.to_owned(),
            data: setup.data.clone().unwrap_or_else(|| folder.join("data")),
            env: setup.env.clone(),
        };
        for part in [&folder.join("home"), &folder.join("conf.d"), &node.data] {
            std::fs::create_dir_all(part).with_context(|| format!("create {}", part.display()))?;
        }
        node.write_cookie()?;
        std::fs::write(folder.join("enabled_plugins"), "[].\n")?;
        let listener = format!("listeners.tcp.local = 127.0.0.1:{}\n", node.port);
        std::fs::write(
            folder.join("rabbitmq.conf"),
            listener + SETTINGS + &setup.extra + "\n",
        )?;
        Ok(node)
    }

    /// The folder of its data.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// The command that runs it in the foreground.
    pub(super) fn command(&self) -> Result<Command> {
        let mut command = Command::new(server_program()?);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("RABBITMQ_") || text.starts_with("ERL_") {
                command.env_remove(name);
            }
        }
        let folder = |name: &str| self.folder.join(name);
        command
            .current_dir(&self.folder)
            .env("HOME", folder("home"))
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.names.to_string())
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("RABBITMQ_MNESIA_BASE", &self.data)
            .env("RABBITMQ_LOG_BASE", folder("logs"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_CONFIG_FILE", folder("rabbitmq.conf"))
            .env("RABBITMQ_CONFIG_FILES", folder("conf.d"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", folder("advanced.config"))
            .env("RABBITMQ_CONF_ENV_FILE", folder("rabbitmq-env.conf"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", folder("generated"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", folder("pid"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERLANG)
            // Makes the script become the server instead of waiting for it, so that its end is the server's end.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Starts the daemon that knows the node's name, as a child that stays in the foreground.
    pub(super) async fn start_names(&self) -> Result<Process> {
        let mut command = Command::new(find_program("epmd", "FOREBAY_EPMD")?);
        command
            .args(["-address", "127.0.0.1", "-port"])
            .arg(self.names.to_string());
        let log = self.folder.join("epmd.log");
        let mut names = Process::spawn_in(&self.folder, &mut command, &log)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.names))
            .await
            .is_err()
        {
            if !names.is_running() || Instant::now() > deadline {
                bail!("epmd did not start:\n{}", names.output());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(names)
    }

    /// Evaluates Erlang expressions, divided by commas, and returns the value of the last. A busy server may refuse the
    /// connection at first; then nothing was evaluated.
    pub(super) async fn eval(&self, expressions: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.eval_once(expressions).await {
                Err(error)
                    if error.to_string().contains("failed to connect") && Instant::now() < deadline =>
                {
                    sleep(Duration::from_millis(50)).await;
                }
                evaluated => return evaluated,
            }
        }
    }

    async fn eval_once(&self, expressions: &str) -> Result<String> {
        let mut call = tokio::process::Command::new(call_program()?)
            .args(["-sname", &self.name, "-c", &self.cookie, "-e"])
            .env("ERL_EPMD_PORT", self.names.to_string())
            .env("HOME", self.folder.join("home"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start erl_call")?;
        let mut input = call.stdin.take().context("the input of erl_call")?;
        let answer = async {
            input.write_all(format!("{expressions}.\n").as_bytes()).await?;
            drop(input);
            call.wait_with_output().await
        };
        let output = timeout(PATIENCE, answer)
            .await
            .context("the RabbitMQ server does not answer erl_call")?
            .context("run erl_call")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let value = text.strip_prefix("{ok, ").and_then(|rest| rest.strip_suffix('}'));
        value
            .map(str::to_owned)
            .with_context(|| format!("erl_call: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The secret that the server and `erl_call` share. Erlang refuses one that others may read.
    fn write_cookie(&self) -> Result<()> {
        OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o400)
            .open(self.folder.join("home/.erlang.cookie"))?
            .write_all(self.cookie.as_bytes())
            .context("write the cookie")
    }
}

fn server_program() -> Result<PathBuf> {
    let debian = Path::new(DEBIAN).join("rabbitmq-server");
    if std::env::var_os("FOREBAY_RABBITMQ_SERVER").is_none() && debian.is_file() {
        return Ok(debian);
    }
    find_program("rabbitmq-server", "FOREBAY_RABBITMQ_SERVER")
}

/// Comes with Erlang. Unlike `rabbitmqctl` it answers within milliseconds.
fn call_program() -> Result<PathBuf> {
    let beside = Path::new("/usr/lib/erlang/bin/erl_call");
    match find_program("erl_call", "FOREBAY_ERL_CALL") {
        Err(_) if beside.is_file() => Ok(beside.to_owned()),
        found => found,
    }
}
