//! Limits with several workers, some of which are killed: by the handlers' own log no more run at once than may.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::OpenOptions,
    io::Write,
    path::Path,
};

use forebay_testkit::{broker::BrokerKind, wait};
use serde_json::{Value, json};

use crate::stack::{Forebay, PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    no_two_tasks_of_a_key_run_at_once
    no_more_run_at_once_than_may_although_workers_have_places_in_advance
    what_a_limit_holds_back_is_gated_and_goes_on_when_it_is_raised
}

/// Each writes a line as it begins and one as it ends, with its key, its id and its worker, into one file for all. One whose worker is
/// killed before it has got its payload has not begun.
const HANDLERS: &str = r#"
[[handler]]
kind = "keyed"
command = ["sh", "-c", "read key; [ $key ] || exit 1; echo start $key $FOREBAY_TASK_ID $PPID >> log; sleep 0.1; echo end $key $FOREBAY_TASK_ID $PPID >> log"]

[[handler]]
kind = "gate"
command = ["sh", "-c", "echo start >> log; until [ -e gate ]; do sleep 0.05; done"]
"#;

const KEYS: usize = 100;
const TASKS: usize = 600;
/// How many may run at once: more than one worker has slots, and fewer than all have.
const AT_ONCE: usize = 24;
const SLOTS: &str = "20";
/// A worker is killed each time when so many more have succeeded.
const KILL_EVERY: usize = 120;
const WORKERS: usize = 3;

fn configured(folder: &Path) -> String {
    let config = folder.join("forebay.toml");
    std::fs::write(&config, HANDLERS).unwrap();
    config.to_str().unwrap().to_owned()
}

async fn put(api: &Forebay, name: &str, limit: Value) {
    let url = format!("{}/v1/limits/{name}", api.http);
    let answer = reqwest::Client::new().put(url).json(&limit).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

async fn read(api: &Forebay, path: &str) -> Value {
    let answer = reqwest::get(format!("{}{path}", api.http)).await.unwrap();
    answer.json().await.unwrap()
}

/// Submits them in one request.
async fn submit_all(api: &Forebay, tasks: &[Value]) -> Vec<String> {
    let url = format!("{}/v1/tasks/batch", api.http);
    let answer = reqwest::Client::new().post(url).json(tasks).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let answer: Value = answer.json().await.unwrap();
    let results = answer["results"].as_array().unwrap().iter();
    results
        .map(|result| {
            result["id"]
                .as_str()
                .unwrap_or_else(|| panic!("{result}"))
                .to_owned()
        })
        .collect()
}

fn succeeded(stack: &Stack) -> usize {
    let sql = "SELECT count(*) FROM tasks WHERE state = 'succeeded'";
    stack.postgres.psql("postgres", sql).unwrap().parse().unwrap()
}

/// Kills a worker, writes that into the handlers' log, and starts it again. From then on nothing of it goes on: what it ran
/// is started elsewhere only after its lease.
fn kill(worker: &mut Forebay, log: &Path) {
    let id = worker.id();
    worker.kill();
    let mut log = OpenOptions::new().append(true).create(true).open(log).unwrap();
    log.write_all(format!("killed {id}\n").as_bytes()).unwrap();
    worker.start_again();
}

/// What the log says.
#[derive(Debug, Default)]
struct Seen {
    /// Those that live. A program may come to write that it has begun when its worker is dead already: nobody counts it any more, and it
    /// ends within a moment, too.
    workers: HashSet<String>,
    /// The tasks that run, with their keys and workers.
    open: HashMap<String, (String, String)>,
    /// Those whose workers were killed. Their programs end within a moment, and perhaps by themselves.
    dying: HashMap<(String, String), String>,
    of_key: BTreeMap<String, usize>,
    most: usize,
    starts: usize,
    /// How many were under way when their worker was killed.
    lost: usize,
}

impl Seen {
    /// Reads it from its beginning, and makes sure that never more ran at once than may. `workers` are all that there ever were.
    fn of(log: &str, workers: HashSet<String>) -> Self {
        let mut seen = Self {
            workers,
            ..Self::default()
        };
        for line in log.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["start", key, id, worker] => seen.start(key, id, worker, line),
                ["end", key, id, worker] => {
                    seen.end(key, id, worker, line);
                }
                ["killed", worker] => seen.killed(worker),
                _ => panic!("{line}"),
            }
        }
        seen
    }

    fn start(&mut self, key: &str, id: &str, worker: &str, line: &str) {
        self.starts += 1;
        if !self.workers.contains(worker) {
            self.lost += 1;
            self.dying
                .insert((id.to_owned(), worker.to_owned()), key.to_owned());
            return;
        }
        let of_key = self.of_key.entry(key.to_owned()).or_default();
        *of_key += 1;
        assert_eq!(*of_key, 1, "{line}: another one of its key runs: {:?}", self.open);
        let before = self
            .open
            .insert(id.to_owned(), (key.to_owned(), worker.to_owned()));
        assert_eq!(before, None, "{line}");
        self.most = self.most.max(self.open.len());
        assert!(self.open.len() <= AT_ONCE, "{line}: {} run", self.open.len());
    }

    fn end(&mut self, key: &str, id: &str, worker: &str, line: &str) {
        if self.dying.remove(&(id.to_owned(), worker.to_owned())).is_some() {
            assert_eq!(
                self.of_key.get(key).copied().unwrap_or(0),
                0,
                "{line}: another one of its key was started meanwhile"
            );
            return;
        }
        let ran = self.open.remove(id);
        assert_eq!(ran, Some((key.to_owned(), worker.to_owned())), "{line}");
        *self.of_key.get_mut(key).unwrap() -= 1;
    }

    fn killed(&mut self, worker: &str) {
        self.workers.remove(worker);
        let of_worker = self.open.extract_if(|_, (_, by)| by == worker);
        for (id, (key, by)) in of_worker {
            self.lost += 1;
            *self.of_key.get_mut(&key).unwrap() -= 1;
            self.dying.insert((id, by), key);
        }
    }
}

async fn no_two_tasks_of_a_key_run_at_once(kind: BrokerKind) {
    let per_key = json!({"kind": "keyed", "by_key": true, "concurrency": 1});
    let all = json!({"queue": "default", "concurrency": AT_ONCE});
    run_while_workers_die(kind, KEYS, &[("per-key", per_key), ("all", all)]).await;
}

/// Each of its own key, so that nothing but the one limit says how many.
async fn no_more_run_at_once_than_may_although_workers_have_places_in_advance(kind: BrokerKind) {
    let all = json!({"kind": "keyed", "concurrency": AT_ONCE});
    run_while_workers_die(kind, TASKS, &[("all", all)]).await;
}

async fn run_while_workers_die(kind: BrokerKind, keys: usize, limits: &[(&str, Value)]) {
    let stack = Stack::on(kind).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, log) = (configured(folder.path()), folder.path().join("log"));
    let api = stack.api().await;
    for (name, limit) in limits {
        put(&api, name, limit.clone()).await;
    }
    let args = ["--config", &config, "--lease", "2s", "--concurrency", SLOTS];
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(stack.worker(&args).await);
    }
    let task = |number: usize| {
        let key = number % keys;
        json!({"kind": "keyed", "payload": key, "limit_key": format!("key-{key}"), "max_attempts": 5})
    };
    let mut all_workers: HashSet<String> = workers.iter().map(|it| it.id().to_string()).collect();
    let ids = submit_all(&api, &(0..TASKS).map(task).collect::<Vec<_>>()).await;
    assert_eq!(ids.len(), TASKS);
    for (round, at) in (KILL_EVERY..TASKS).step_by(KILL_EVERY).enumerate() {
        wait::until("more tasks to succeed", PATIENCE, || async {
            let done = succeeded(&stack);
            if done >= at { Ok(true) } else { Err(done) }
        })
        .await;
        kill(&mut workers[round % WORKERS], &log);
        all_workers.insert(workers[round % WORKERS].id().to_string());
    }
    wait::until("all tasks to succeed", PATIENCE, || async {
        let states = "SELECT state, count(*) FROM tasks GROUP BY state";
        let states = stack.postgres.psql("postgres", states).unwrap();
        if states == format!("succeeded|{TASKS}") {
            Ok(true)
        } else {
            Err(states)
        }
    })
    .await;
    let seen = Seen::of(&std::fs::read_to_string(&log).unwrap(), all_workers);
    assert!(seen.open.is_empty(), "{seen:?}");
    assert!(seen.starts >= TASKS, "{} starts", seen.starts);
    assert!(seen.most > AT_ONCE / 2, "at most {} ran at once", seen.most);
    eprintln!(
        "{} starts, {} at once, {} lost with their workers",
        seen.starts, seen.most, seen.lost
    );
    for (name, _) in limits {
        wait::until("nothing to be counted any more", PATIENCE, || async {
            let limit = read(&api, &format!("/v1/limits/{name}")).await;
            match (&limit["running"], &limit["waiting"]) == (&json!(0), &json!(0)) {
                true => Ok(true),
                false => Err(limit),
            }
        })
        .await;
    }
}

async fn what_a_limit_holds_back_is_gated_and_goes_on_when_it_is_raised(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, log) = (configured(folder.path()), folder.path().join("log"));
    let (api, user) = (stack.api().await, User::default());
    put(&api, "few", json!({"kind": "gate", "concurrency": 2})).await;
    let _worker = stack.worker(&["--config", &config, "--lease", "2s"]).await;
    let tasks: Vec<Value> = (0..10).map(|_| json!({"kind": "gate"})).collect();
    let ids = submit_all(&api, &tasks).await;
    let figures = async |ready: u64, running: u64, gated: u64| {
        wait::until("the figures to be right", PATIENCE, || async {
            let found = read(&api, "/v1/queues/default/autoscale").await;
            let is_right = found["ready"] == ready && found["running"] == running && found["gated"] == gated;
            if is_right && found["scheduled"] == 0 {
                Ok(Some(found))
            } else {
                Err(found)
            }
        })
        .await
    };
    let held = figures(0, 2, 8).await;
    assert_eq!(
        held["desired_workers"], 1,
        "no worker is wanted for what may not run: {held}"
    );
    let throttled = read(&api, "/v1/tasks?state=throttled").await;
    assert_eq!(throttled["tasks"].as_array().unwrap().len(), 8);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "start\n".repeat(2));

    put(&api, "few", json!({"kind": "gate", "concurrency": 5})).await;
    figures(0, 5, 5).await;
    std::fs::write(folder.path().join("gate"), "").unwrap();
    for id in &ids {
        assert_eq!(user.finished(&api.http, id).await["state"], "succeeded");
    }
    figures(0, 0, 0).await;
}
