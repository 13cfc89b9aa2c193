//! The `forebay` binary: its commands, and nothing that a library could hold.

mod api;
mod args;
mod client;
mod config;
mod dev;
mod exit;
mod handlers;
mod health;
mod migrate;
mod pod_cost;
mod process;
mod scaler;
mod worker;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::FromArgMatches;
use forebay_runtime::config::{LoadError, Loaded, load};

use crate::{
    args::{Called, Cli},
    exit::{Code, Failure, Result},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let loaded = match load(
        &args::command(),
        std::env::args_os().collect(),
        std::env::vars_os(),
    ) {
        Ok(loaded) => loaded,
        Err(LoadError::Usage(error)) => error.exit(),
        Err(LoadError::Problems(lines)) => {
            for line in lines {
                eprintln!("forebay: {line}");
            }
            return Code::Usage.into();
        }
    };
    match run(loaded) {
        Ok(code) => code.into(),
        Err(Failure { code, message }) => {
            if !message.is_empty() {
                eprintln!("forebay: {message}");
            }
            code.into()
        }
    }
}

fn run(loaded: Loaded) -> Result<Code> {
    let cli = Cli::from_arg_matches(&loaded.matches).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(Box::pin(call(cli.command, loaded)));
    // A read from a terminal's standard input can't be interrupted, and must not hold up the end.
    runtime.shutdown_background();
    code
}

async fn call(command: Called, loaded: Loaded) -> Result<Code> {
    match command {
        Called::Dev(args) => dev::run(args, loaded).await,
        Called::Api(args) => api::run(args, &loaded).await,
        Called::Worker(args) => worker::run(args, loaded).await,
        Called::Scaler(args) => scaler::run(args, &loaded).await,
        Called::Migrate(args) => migrate::run(args).await,
        Called::Health(args) => health::run(args).await,
        Called::Submit(args) => client::submit(*args).await,
        Called::Get(args) => client::get(args).await,
        Called::Explain(args) => client::explain(args).await,
        Called::List(args) => client::list(args).await,
        Called::Cancel(args) => client::cancel(args).await,
        Called::Retry(args) => client::retry(args).await,
        Called::Watch(args) => client::watch(args).await,
        Called::Workers(args) => client::workers(args).await,
        Called::Rejects(args) => client::rejects(args).await,
        Called::Operations(args) => client::operations(args).await,
        Called::Batches(args) => client::batches(args).await,
        Called::Schedules(args) => client::schedules(args).await,
        Called::Kinds(args) => client::kinds(args).await,
        Called::Limits(args) => client::limits(args).await,
        Called::Webhooks(args) => client::webhooks(args).await,
        Called::Queues(args) => client::queues(args).await,
        Called::Pause(args) => client::pause(args, true).await,
        Called::Resume(args) => client::pause(args, false).await,
        Called::Config(args) => config::run(&args, &loaded),
    }
}
