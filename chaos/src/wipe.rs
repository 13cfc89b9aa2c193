//! The broker is wiped under many queued tasks.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use forebay_chaos::evidence::Injected;

use crate::{
    Backend,
    database::Which,
    driver::Driver,
    outcome::{self, Account, say},
    probe,
    scene::Scene,
    stack::{Role, worker_command},
};

/// Within what all must have finished, once the broker is back.
const FINISHED_MAX: Duration = Duration::from_secs(60);
/// Within what all must be recorded.
const RECORDED_MAX: Duration = Duration::from_secs(60);
/// How many tasks one stream has.
const STREAM: usize = 1_000;

/// Queues `tasks`, wipes the broker under them, and measures; returns whether every promise was kept, in time.
pub(crate) async fn run(backend: Backend, tasks: usize, report: Option<&Path>) -> Result<bool> {
    ensure!(
        backend != Backend::Embedded,
        "the embedded broker has no disk of its own: choose nats or rabbitmq"
    );
    say(format_args!(
        "{}: the broker is wiped under {tasks} queued tasks",
        backend.title()
    ));
    let mut scene = Scene::prepare(backend, None).await?;
    // Recorded, but not executed yet.
    for worker in scene.stack.of(Role::Worker) {
        worker.next_args(worker_command(&scene.folder, "recorder"));
    }
    scene.start().await?;
    let watch = scene.watch;
    let driver = Driver::idle(scene.stack.doors(), std::sync::Arc::clone(&scene.ledger), watch);
    submit(&driver, tasks).await?;
    let database = &scene.stack.database;
    let missing = database
        .wait_for(Which::Recorded, scene.ledger.ids(), RECORDED_MAX, watch)
        .await;
    ensure!(missing.is_empty(), "{} tasks are not recorded", missing.len());
    for worker in scene.stack.of(Role::Worker) {
        worker.stop().await?;
        worker.next_args(worker_command(&scene.folder, "recorder,executor"));
    }
    let from = watch.now();
    scene.stack.broker().await?.wipe()?;
    scene.stack.broker().await?.restart().await?;
    let until = watch.now();
    scene
        .stack
        .of(Role::Worker)
        .try_for_each(|worker| worker.start())?;
    let ids = scene.ledger.ids();
    let unfinished = database
        .wait_for(Which::Finished, ids, 2 * FINISHED_MAX, watch)
        .await;
    let took = watch.now().saturating_sub(until);
    let measured = format!(
        "{} of {tasks} tasks had finished {:.1} s after the wiped broker's return",
        tasks.saturating_sub(unfinished.len()),
        took.as_secs_f64()
    );
    let mut problems: Vec<String> = probe::recovered(&driver, &scene.stack)
        .await
        .err()
        .into_iter()
        .collect();
    if took > FINISHED_MAX {
        problems.push(format!("it took {took:?}, and may take {FINISHED_MAX:?}"));
    }
    let injected = Injected {
        fault: "disk wiped".to_owned(),
        target: "broker".to_owned(),
        from,
        until,
        recovered: until,
    };
    problems.extend(scene.panics());
    let evidence = scene.gather(vec![injected]).await?;
    let account = Account {
        title: format!("{}: the disk wiped under {tasks} queued tasks", backend.title()),
        command: format!("wipe --broker {} --tasks {tasks}", backend.option()),
        seed: 0,
        rate: 0,
        notes: vec![measured],
        problems,
    };
    outcome::conclude(&scene, &evidence, account, report).await
}

async fn submit(driver: &Driver, tasks: usize) -> Result<()> {
    let mut accepted = 0;
    while accepted < tasks {
        let sent = driver.stream(STREAM.min(tasks - accepted)).await;
        ensure!(sent > 0, "only {accepted} of {tasks} tasks are accepted");
        accepted += sent;
    }
    Ok(())
}
