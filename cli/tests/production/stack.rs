//! A broker, PostgreSQL, and Forebay's processes, all of which a test may kill and start again.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use forebay_testkit::{
    broker::{BrokerKind, BrokerServer},
    postgres::Postgres,
    wait,
};
use serde_json::Value;

/// How long anything may take that the tests wait for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// One process of Forebay. It keeps its ports over restarts, and is killed when this is dropped.
pub(crate) struct Forebay {
    args: Vec<String>,
    env: Vec<(String, String)>,
    child: Child,
    logged: Arc<Mutex<String>>,
    pub(crate) http: String,
    /// Of an API or a scaler.
    pub(crate) grpc: String,
    admin: String,
}

impl Drop for Forebay {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Forebay {
    /// Starts it, without waiting for it.
    fn begin(args: &[&str], env: &[(&str, &str)]) -> Self {
        let ports: Vec<TcpListener> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let [http, grpc, admin] = [0, 1, 2].map(|n: usize| ports[n].local_addr().unwrap().to_string());
        drop(ports);
        let mut env: Vec<(String, String)> = env
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        env.push(("FOREBAY_ADMIN_ADDR".into(), admin.clone()));
        if args[0] == "api" {
            env.push(("FOREBAY_HTTP_ADDR".into(), http.clone()));
        }
        if ["api", "scaler"].contains(&args[0]) {
            env.push(("FOREBAY_GRPC_ADDR".into(), grpc.clone()));
        }
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let logged = Arc::default();
        let child = spawn(&args, &env, &logged);
        Self {
            args,
            env,
            child,
            logged,
            http: format!("http://{http}"),
            grpc: format!("http://{grpc}"),
            admin: format!("http://{admin}"),
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end in good order, as Kubernetes does, and waits for it.
    pub(crate) async fn terminate(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let child = &mut self.child;
        let mut ended = false;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !ended {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "it ended with {status} after SIGTERM");
                ended = true;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "it did not end after SIGTERM"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts it again with the same settings and ports, without waiting for it.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.args, &self.env, &self.logged);
    }

    /// Whether it has ended by itself, or was killed by somebody else.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ends(&mut self) -> ExitStatus {
        let child = Mutex::new(&mut self.child);
        wait::until("forebay to end by itself", PATIENCE, || async {
            child.lock().unwrap().try_wait().unwrap()
        })
        .await
    }

    /// What the operator's door answers: `live` or `ready`.
    pub(crate) async fn health(&self, of: &str) -> u16 {
        let answer = reqwest::get(format!("{}/health/{of}", self.admin)).await;
        answer.unwrap().status().as_u16()
    }

    /// Sends a signal to it, and not to its children.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub(crate) fn logged(&self) -> String {
        self.logged.lock().unwrap().clone()
    }

    /// The whole page of metrics.
    pub(crate) async fn metrics(&self) -> String {
        let page = reqwest::get(format!("{}/metrics", self.admin)).await;
        page.unwrap().text().await.unwrap()
    }

    /// The value of a metric without labels; 0 where it is not there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = self.metrics().await;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    pub(crate) async fn wait_until_ready(&self) {
        let url = format!("{}/health/ready", self.admin);
        wait::until("forebay to become ready", PATIENCE, || async {
            match reqwest::get(&url).await {
                Ok(answer) if answer.status().is_success() => Ok(true),
                Ok(answer) => Err(answer.text().await.unwrap_or_default()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }
}

fn spawn(args: &[String], env: &[(String, String)], logged: &Arc<Mutex<String>>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command
        .args(args)
        .env("FOREBAY_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.envs(env.iter().cloned()).spawn().unwrap();
    let (log, logged) = (child.stderr.take().unwrap(), Arc::clone(logged));
    // Shown as it comes, and kept. It ends with the process.
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            eprintln!("{line}");
            let mut logged = logged.lock().unwrap();
            logged.push_str(&line);
            logged.push('\n');
        }
    });
    child
}

/// Makes two tests of each of these functions, one on NATS and one on RabbitMQ.
macro_rules! on_every_broker {
    ($($case:ident)*) => {
        mod nats {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(forebay_testkit::broker::BrokerKind::Nats).await;
            })*
        }
        mod rabbitmq {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(forebay_testkit::broker::BrokerKind::RabbitMq).await;
            })*
        }
    };
}
pub(crate) use on_every_broker;

/// The servers, with nothing of Forebay started yet.
pub(crate) struct Stack {
    pub(crate) postgres: Postgres,
    pub(crate) broker: BrokerServer,
}

impl Stack {
    pub(crate) async fn on(kind: BrokerKind) -> Self {
        let postgres = Postgres::start().await.unwrap();
        let broker = BrokerServer::start(kind).await.unwrap();
        let stack = Self { postgres, broker };
        let migrated = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .arg("migrate")
            .env("FOREBAY_DATABASE_URL", stack.postgres.url())
            .output()
            .unwrap();
        assert!(
            migrated.status.success(),
            "{}",
            String::from_utf8_lossy(&migrated.stderr)
        );
        stack
    }

    pub(crate) async fn api(&self) -> Forebay {
        self.forebay(&["api"]).await
    }

    pub(crate) async fn scaler(&self) -> Forebay {
        self.forebay(&["scaler"]).await
    }

    pub(crate) async fn worker(&self, args: &[&str]) -> Forebay {
        let args: Vec<&str> = ["worker"].iter().chain(args).copied().collect();
        self.forebay(&args).await
    }

    /// A worker that may not live long enough to become ready.
    pub(crate) fn worker_without_waiting(&self, args: &[&str]) -> Forebay {
        let args: Vec<&str> = ["worker"].iter().chain(args).copied().collect();
        self.begin(&args)
    }

    pub(crate) async fn forebay(&self, args: &[&str]) -> Forebay {
        let forebay = self.begin(args);
        forebay.wait_until_ready().await;
        forebay
    }

    fn begin(&self, args: &[&str]) -> Forebay {
        let (database, broker) = (self.postgres.url(), self.broker.url());
        Forebay::begin(
            args,
            &[
                ("FOREBAY_DATABASE_URL", &database),
                ("FOREBAY_BROKER_URL", &broker),
            ],
        )
    }
}

/// A user of the API. It may talk to any replica.
#[derive(Clone, Default)]
pub(crate) struct User {
    client: reqwest::Client,
}

impl User {
    /// Submits a task; `None` where it was not accepted.
    pub(crate) async fn submit(&self, api: &str, body: &Value, key: Option<&str>) -> Option<String> {
        let mut request = self
            .client
            .post(format!("{api}/v1/tasks"))
            .json(body)
            .timeout(Duration::from_secs(10));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.ok()?;
        if answer.status() != 202 {
            return None;
        }
        let task: Value = answer.json().await.ok()?;
        task["id"].as_str().map(str::to_owned)
    }

    /// Submits a task, again and again while the machine is too slow to take it. Where the first answer was lost, there
    /// may be two of it, unless it has a key.
    pub(crate) async fn accepted(&self, api: &str, body: &Value, key: Option<&str>) -> String {
        wait::until("a task to be accepted", PATIENCE, || self.submit(api, body, key)).await
    }

    /// Reads a task; `None` where the answer is not 200.
    pub(crate) async fn get(&self, api: &str, id: &str) -> Option<Value> {
        let answer = self
            .client
            .get(format!("{api}/v1/tasks/{id}"))
            .timeout(PATIENCE)
            .send()
            .await
            .ok()?;
        if answer.status() == 200 {
            answer.json().await.ok()
        } else {
            None
        }
    }

    /// Waits until a task is final, and returns it.
    pub(crate) async fn finished(&self, api: &str, id: &str) -> Value {
        wait::until("the task to finish", PATIENCE, || async {
            let task = self.get(api, id).await.ok_or_else(|| "not readable".to_owned())?;
            match task["state"].as_str() {
                Some("succeeded" | "failed" | "cancelled" | "expired") => Ok(Some(task)),
                _ => Err(task.to_string()),
            }
        })
        .await
    }

    /// Counts the tasks with a tag, page by page.
    pub(crate) async fn count(&self, api: &str, tag: &str) -> usize {
        let (mut count, mut token) = (0, String::new());
        loop {
            let url = format!("{api}/v1/tasks?tag={tag}&page_size=200{token}");
            let page: Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
            count += page["tasks"].as_array().unwrap().len();
            match page["next_page_token"].as_str() {
                Some(next) => token = format!("&page_token={next}"),
                None => return count,
            }
        }
    }
}

/// Where the example's handlers are.
pub(crate) fn example() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/doc-hash")
}
