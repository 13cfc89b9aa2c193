//! The run: faults under a steady load, one after the other and overlapping.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use forebay_chaos::evidence::Injected;
use futures::future::join_all;
use tokio::time::sleep;

use crate::{
    Backend,
    driver::Driver,
    faults::{self, Fault, Strike, What},
    outcome::{self, Account, say},
    probe,
    scene::Scene,
    schedule::{self, Planned},
};

/// How many processes each role has; `forebay dev` is one.
const PROCESSES: usize = 2;
/// With more problems than this, further faults would say nothing.
const PROBLEMS_MAX: usize = 3;
/// For how long a broker is not killed after its lanes were made: RabbitMQ 3.10 writes down half a second later that a
/// quorum queue is its own to lead, and without that it leads it no more, whoever asks.
const LANES_WAIT: Duration = Duration::from_secs(2);
/// From when on it is said how long the processes took until they were ready again.
const SLOW: Duration = Duration::from_secs(3);
/// Further than any clock has leapt ahead.
const LATER: i64 = 4_000;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) backend: Backend,
    pub(crate) faults: usize,
    pub(crate) seed: u64,
    pub(crate) rate: u32,
    /// Texts of which a fault's name or target has one; none for all.
    pub(crate) only: Vec<String>,
}

/// Runs it, says what was found, and returns whether every promise was kept.
pub(crate) async fn run(options: &Options, report: Option<&Path>) -> Result<bool> {
    let table = faults::table(options.backend);
    let table: Vec<Fault> = table
        .into_iter()
        .filter(|fault| is_wanted(fault, &options.only))
        .collect();
    ensure!(
        !table.is_empty(),
        "no fault is called that: see `forebay-chaos faults`"
    );
    say(format_args!(
        "{}: {} faults of {} kinds, {} submissions a second, seed {}",
        options.backend.title(),
        options.faults,
        table.len(),
        options.rate,
        options.seed
    ));
    let mut scene = Scene::prepare(options.backend, None).await?;
    scene.start().await?;
    let (ledger, watch) = (Arc::clone(&scene.ledger), scene.watch);
    let driver = Driver::start(scene.stack.doors(), ledger, watch, options.seed, options.rate);
    let mut course = Course {
        scene: &scene,
        driver: &driver,
        problems: Vec::new(),
        faults: Vec::new(),
    };
    let processes = if options.backend == Backend::Embedded {
        1
    } else {
        PROCESSES
    };
    course.make_lanes().await;
    for group in schedule::plan(&table, options.faults, processes, options.seed) {
        course.strike(&group).await;
        if course.problems.len() > PROBLEMS_MAX {
            course.problem("too much is wrong: the other faults are left out".to_owned());
            break;
        }
    }
    let Course {
        mut problems, faults, ..
    } = course;
    if let Err(error) = driver.stop().await {
        problems.push(format!("{error:#}"));
    }
    reach_later(&scene, &faults)?;
    let began = watch.now();
    let unfinished = scene.settle().await;
    let settled = watch.now().saturating_sub(began);
    problems.extend(driver.problems());
    problems.extend(scene.panics());
    let evidence = scene.gather(faults).await?;
    let account = Account {
        title: options.backend.title().to_owned(),
        command: options.command(),
        seed: options.seed,
        rate: options.rate,
        notes: vec![format!(
            "{} of {} accepted tasks were not final {:.1} s after the last submission",
            unfinished.len(),
            scene.ledger.count(),
            settled.as_secs_f64()
        )],
        problems,
    };
    outcome::conclude(&scene, &evidence, account, report).await
}

impl Options {
    /// What makes the run again, after the program's name.
    fn command(&self) -> String {
        let Self {
            faults, seed, rate, ..
        } = self;
        let mut command = format!(
            "run --broker {} --faults {faults} --seed {seed} --rate {rate}",
            self.backend.option()
        );
        if !self.only.is_empty() {
            command.push_str(&format!(" --only '{}'", self.only.join(",")));
        }
        command
    }
}

/// A database's clock that leapt an hour ahead has put retries off by an hour of the right time. That is what it was
/// told to do, and an hour is too long to wait for, so the hour passes by its clock.
fn reach_later(scene: &Scene, faults: &[Injected]) -> Result<()> {
    let leapt = faults
        .iter()
        .any(|it| it.target == "Postgres" && it.fault.starts_with("clock +"));
    match &scene.stack.postgres_clock {
        Some(clock) if leapt => clock.leap(LATER),
        _ => Ok(()),
    }
}

fn is_wanted(fault: &Fault, only: &[String]) -> bool {
    let called = format!("{} · {}", fault.name(), fault.target());
    only.is_empty() || only.iter().any(|text| called.contains(text))
}

/// The faults as they are injected.
struct Course<'a> {
    scene: &'a Scene,
    driver: &'a Driver,
    /// Violations that are not about a task.
    problems: Vec<String>,
    faults: Vec<Injected>,
}

impl Course<'_> {
    /// Injects what belongs together, and waits until all of it is over. Of faults that overlap, each counts as undone
    /// when all are: before, one of them may be what keeps work from going on.
    async fn strike(&mut self, group: &[Planned]) {
        let mut struck = Vec::new();
        for one in join_all(group.iter().map(|planned| self.one(planned))).await {
            match one {
                Ok(injected) => struck.push(injected),
                Err(error) => self.problem(format!("{error:#}")),
            }
        }
        let until = self.scene.watch.now();
        let stalled = probe::recovered(self.driver, &self.scene.stack).await;
        let recovered = self.scene.watch.now();
        struck.sort_by_key(|injected| injected.from);
        for injected in struck {
            self.note(Injected {
                until,
                recovered,
                ..injected
            });
        }
        if let Err(stalled) = stalled {
            self.problem(format!("stall: {stalled}"));
        }
        self.ready().await;
        if group.iter().any(|planned| planned.fault.what == What::Wipe) {
            self.make_lanes().await;
        }
    }

    /// Has all lanes made, and leaves the broker the time to write them down.
    async fn make_lanes(&self) {
        self.driver.touch_all_lanes().await;
        sleep(LANES_WAIT).await;
    }

    /// Injects a fault, holds it, and undoes it.
    async fn one(&self, planned: &Planned) -> Result<Injected> {
        sleep(planned.after).await;
        let strike = Strike {
            fault: planned.fault,
            victim: planned.victim,
            stack: &self.scene.stack,
            driver: self.driver,
            ledger: &self.scene.ledger,
            watch: self.scene.watch,
        };
        let (fault, target) = (planned.fault.name(), planned.fault.target());
        let doing = |doing: &str| format!("{doing} {fault} of {target}");
        let prepared = strike.prepare().await.with_context(|| doing("prepare"))?;
        let from = self.scene.watch.now();
        let injected = strike.inject().await;
        if injected.is_ok() {
            sleep(planned.hold).await;
        }
        // What was begun is undone in any case, or nothing after it would work.
        strike.heal().await.with_context(|| doing("undo"))?;
        injected.with_context(|| doing("inject"))?;
        drop(prepared);
        let until = self.scene.watch.now();
        Ok(Injected {
            fault,
            target,
            from,
            until,
            recovered: until,
        })
    }

    fn note(&mut self, injected: Injected) {
        say(format_args!(
            "{:>7.1} s  {} · {}: {:.1} s, and works again {:.1} s later",
            injected.from.as_secs_f64(),
            injected.fault,
            injected.target,
            injected.until.saturating_sub(injected.from).as_secs_f64(),
            injected.recovered.saturating_sub(injected.until).as_secs_f64(),
        ));
        self.faults.push(injected);
    }

    /// Waits until all processes say that they are ready.
    async fn ready(&mut self) {
        let began = self.scene.watch.now();
        let last = match self.scene.ready().await {
            Ok(last) => last.unwrap_or_default(),
            Err(error) => return self.problem(format!("{error:#}")),
        };
        let took = self.scene.watch.now().saturating_sub(began);
        if took > SLOW {
            let took = took.as_secs_f64();
            say(format_args!(
                "           all are ready {took:.1} s later; the last was {last}"
            ));
        }
    }

    fn problem(&mut self, problem: String) {
        say(&problem);
        self.problems.push(problem);
    }
}
