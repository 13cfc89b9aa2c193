//! A worker whose handlers are Rust functions, for a Forebay that runs on PostgreSQL and NATS.
//!
//! ```sh
//! export FOREBAY_DATABASE_URL=postgres://… FOREBAY_BROKER_URL=nats://…
//! cargo run -p example-rust-worker
//! forebay submit words.count '{"text": "to be or not to be"}' --queue examples --wait 10s
//! forebay submit payment.charge '{"account": "7", "cents": 1250}' --queue examples --wait 30s
//! ```
//!
//! Somewhere else there must be a recorder and a dispatcher: `forebay worker` is both. This process only executes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use clap::Parser;
use forebay_core::{RetryPolicy, SystemClock};
use forebay_runtime::{
    config::args::{BrokerArgs, DatabaseArgs, LogArgs},
    health::Health,
    metrics::Metrics,
    open, shutdown, telemetry,
};
use forebay_worker::{Execution, HandlerError, HandlerSettings, Handlers, Roles, Worker, WorkerOptions};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// Runs words.count and payment.charge.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let telemetry = telemetry::start(&args.log, "example-rust-worker")?;
    let stop = CancellationToken::new();
    shutdown::on_signals(stop.clone())?;
    let metrics = Arc::new(Metrics::new());
    let backends = open::backends(&args.database, &args.broker, &metrics).await?;
    let options = WorkerOptions {
        name: "example-rust-worker".to_owned(),
        queues: vec!["examples".parse()?],
        roles: Roles::EXECUTOR,
        concurrency: 20,
        ..WorkerOptions::default()
    };
    let worker = Worker::new(
        options,
        handlers()?,
        Arc::clone(&backends.store),
        Arc::clone(&backends.broker),
        Arc::new(SystemClock),
        metrics,
        Health::default(),
    );
    let ended = worker.run(stop).await;
    telemetry.shutdown().await;
    ended
}

/// What this worker can do.
fn handlers() -> anyhow::Result<Handlers> {
    let patient = HandlerSettings {
        timeout: Duration::from_secs(30),
        retry: RetryPolicy {
            attempts_max: 10,
            ..RetryPolicy::default()
        },
        concurrency: Some(4),
        ..HandlerSettings::default()
    };
    let handlers = Handlers::new()
        .function("words.count", HandlerSettings::default(), count_words)?
        .function("payment.charge", patient, charge)?;
    Ok(handlers)
}

/// The payload of `words.count`.
#[derive(Debug, Deserialize)]
struct Text {
    text: String,
}

/// The simplest case: the input is decoded, the output encoded, and nothing can go wrong in between.
async fn count_words(input: Text, _: Execution) -> Result<BTreeMap<String, usize>, HandlerError> {
    let mut counts = BTreeMap::new();
    for word in input.text.split_whitespace() {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    Ok(counts)
}

/// The payload of `payment.charge`.
#[derive(Debug, Deserialize)]
struct Charge {
    account: String,
    cents: i64,
}

/// The result of `payment.charge`.
#[derive(Debug, Serialize)]
struct Receipt {
    account: String,
    charged_cents: i64,
    /// The task's id: the same for all attempts, so that the bank can tell a repeated charge from a second one.
    reference: String,
}

/// What handlers usually meet: input that will never do, a service that is busy, and being told to stop.
async fn charge(input: Charge, execution: Execution) -> Result<Receipt, HandlerError> {
    if input.cents <= 0 {
        return Err(HandlerError::permanent("only more than nothing can be charged"));
    }
    execution.log.line(format_args!(
        "attempt {} of {}",
        execution.attempt, execution.max_attempts
    ));
    tokio::select! {
        answer = ask_the_bank(&input, execution.attempt) => answer?,
        _ = execution.stop.cancelled() => {
            return Err(HandlerError::retryable("stopped before the bank answered"));
        }
    }
    Ok(Receipt {
        account: input.account,
        charged_cents: input.cents,
        reference: execution.id.to_string(),
    })
}

/// A bank that is busy at first.
async fn ask_the_bank(charge: &Charge, attempt: u32) -> Result<(), HandlerError> {
    tokio::time::sleep(Duration::from_millis(200)).await;
    if attempt == 1 {
        let message = format!("the bank is too busy for account {}", charge.account);
        return Err(HandlerError::retry_after(Duration::from_secs(2), message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_registered() {
        let handlers = handlers().unwrap();
        let kinds: Vec<_> = handlers.kinds().map(ToString::to_string).collect();
        assert_eq!(kinds, ["payment.charge", "words.count"]);
    }
}
