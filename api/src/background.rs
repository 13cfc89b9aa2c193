//! What goes on beside the requests: events are heard and told, queues are counted, dependencies are watched.

use std::time::Duration;

use anyhow::Context;
use forebay_core::Signal;
use forebay_runtime::{guard::Away, supervise::keep_running};
use futures::StreamExt;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{App, ops};

/// What is said of a broker that fails, of which nothing else is known.
const UNANSWERED: &str = "the broker does not answer";
/// For how long a report of the broker's health counts.
const REPORT_TTL: Duration = Duration::from_secs(15);

/// Hears and tells events, counts the queues and learns the schemas of kinds every second or so, and reports whether the broker can take tasks
/// and the schemas were read once, which is what readiness means here: without the store, submissions go on. Ends when `stop` is cancelled.
pub async fn background(app: App) {
    tokio::join!(
        hear(&app),
        tell(&app),
        app.observer.run(app.stop.clone()),
        watch_broker(&app),
        ops::kinds::follow(&app)
    );
}

async fn hear(app: &App) {
    keep_running("events", &app.stop, || async {
        let signals = timeout(app.bounds.ask, app.broker.signals()).await;
        let mut signals = signals
            .context("listen to signals")?
            .context("listen to signals")?;
        app.hub.gap();
        loop {
            tokio::select! {
                () = app.stop.cancelled() => return Ok(()),
                heard = signals.next() => match heard {
                    Some(Signal::Events(events)) => app.hub.hear(events),
                    Some(Signal::Progress(ids)) => app.hub.hear_progress(&ids),
                    Some(Signal::Cancel(_) | Signal::QueuesChanged | Signal::Due) => {}
                    None => anyhow::bail!("the connection for signals ended"),
                },
            }
        }
    })
    .await;
}

async fn tell(app: &App) {
    app.announcer.run(&*app.broker, &app.stop).await;
}

async fn watch_broker(app: &App) {
    let reporter = app.health.component("broker", REPORT_TTL);
    let mut ticks = interval(app.bounds.collect);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match timeout(app.bounds.ask, app.broker.check()).await {
            Ok(Ok(())) => reporter.ok(),
            Ok(Err(error)) => match error.source.downcast_ref::<Away>() {
                Some(away) => reporter.failing(away),
                None => reporter.failing(UNANSWERED),
            },
            Err(_) => reporter.failing(UNANSWERED),
        }
    }
}
