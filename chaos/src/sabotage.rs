//! The suite's proof of itself: workers that acknowledge before the store has what they acknowledge lose tasks when they
//! die at the wrong moment, and the checker must see that. Honest workers, treated alike, must pass.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use forebay_chaos::{
    check::{self, Breach, Verdict, Violation},
    evidence::Injected,
};
use forebay_testkit::proxy::Mode;
use tokio::time::sleep;

use crate::{
    Backend,
    database::Which,
    driver::Driver,
    outcome::say,
    probe,
    scene::Scene,
    stack::{End, Role, beside},
};

/// How many submissions a second.
const RATE: u32 = 30;
/// How long everything works at first.
const BEFORE: Duration = Duration::from_secs(3);
/// For how long the workers are cut off from the store.
const CUT: Duration = Duration::from_secs(4);
/// How long what was accepted may take to end: longer than a broker waits for an acknowledgement before it delivers
/// again. What is lost never ends.
const END_MAX: Duration = Duration::from_secs(40);
/// How many violations are said.
const SAID_MAX: usize = 20;

/// Runs honest workers and then sabotaged ones; whether the checker can tell them apart.
pub(crate) async fn run(backend: Backend) -> Result<bool> {
    ensure!(
        backend != Backend::Embedded,
        "the embedded broker acknowledges nothing: choose nats or rabbitmq"
    );
    say(format_args!(
        "{}: honest workers and sabotaged ones, cut off from the store and killed",
        backend.title()
    ));
    let worker = beside("forebay-sabotaged-worker")?;
    let ((honest, _), (sabotaged, during)) =
        tokio::try_join!(suffer(backend, None), suffer(backend, Some(worker)))?;
    for violation in honest.violations.iter().take(SAID_MAX) {
        say(format_args!("HONEST WORKERS: {violation}"));
    }
    let lost = |verdict: &Verdict| verdict.totals.lost;
    // Not just late: there is no row of it, and no message any more that could make one.
    let gone = |it: &&Violation| matches!(it.breach, Breach::Lost { state: None });
    let (seen, elsewhere): (Vec<_>, Vec<_>) = sabotaged
        .violations
        .iter()
        .filter(gone)
        .partition(|it| it.at <= during.until);
    say(format_args!(
        "sabotaged workers lost {} of {} tasks, honest ones {} of {}",
        lost(&sabotaged),
        sabotaged.totals.accepted,
        lost(&honest),
        honest.totals.accepted,
    ));
    if let Some(first) = seen.first() {
        say(format_args!("such as: {first}"));
    }
    let passed = honest.holds() && !seen.is_empty() && elsewhere.is_empty();
    say(if passed {
        "the suite sees what it looks for"
    } else {
        "THE SUITE IS BLIND, or honest workers fail"
    });
    Ok(passed)
}

/// Cuts both workers off from the store while tasks are submitted, kills them, and lets everything heal.
async fn suffer(backend: Backend, worker: Option<PathBuf>) -> Result<(Verdict, Injected)> {
    let mut scene = Scene::prepare(backend, worker).await?;
    scene.start().await?;
    let (ledger, watch) = (Arc::clone(&scene.ledger), scene.watch);
    let driver = Driver::start(scene.stack.doors(), ledger, watch, 1, RATE);
    sleep(BEFORE).await;
    let from = watch.now();
    let cut = |mode: Mode| {
        let lines = scene
            .stack
            .of(Role::Worker)
            .filter_map(|worker| worker.line.as_ref());
        lines.for_each(|line| line.set(End::Postgres, mode));
    };
    cut(Mode::Cut);
    sleep(CUT).await;
    scene
        .stack
        .of(Role::Worker)
        .try_for_each(|worker| worker.kill())?;
    cut(Mode::Pass);
    scene
        .stack
        .of(Role::Worker)
        .try_for_each(|worker| worker.start())?;
    let until = watch.now();
    let stalled = probe::recovered(&driver, &scene.stack).await;
    ensure!(stalled.is_ok(), "nothing works again: {stalled:?}");
    let injected = Injected {
        fault: "cut, then kill -9".to_owned(),
        target: "worker–Postgres".to_owned(),
        from,
        until,
        recovered: watch.now(),
    };
    driver.stop().await?;
    let ids = scene.ledger.ids();
    scene
        .stack
        .database
        .wait_for(Which::Finished, ids, END_MAX, watch)
        .await;
    let evidence = scene.gather(vec![injected.clone()]).await?;
    Ok((check::check(&evidence), injected))
}
