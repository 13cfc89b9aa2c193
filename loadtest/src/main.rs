//! `forebay-loadtest run` puts load on a Forebay and proves what became of it; `bench` measures Forebay beside the parts it
//! is made of and beside other task queues, on private servers. Every load is bounded in count and time, and every
//! accepted task is accounted for.

mod args;
mod audit;
mod bench;
mod database;
mod feed;
mod ledger;
mod limits;
mod live;
mod pacer;
mod peers;
mod report;
mod run;
mod sample;
mod schedule;
mod server;
mod shape;
mod stack;
mod started;
mod tally;
mod transport;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// All was well, but a promise was broken.
const BROKEN: u8 = 1;
/// It could not be done.
const IMPOSSIBLE: u8 = 2;

#[derive(Parser)]
#[command(
    about = "Puts load on Forebay, measures it, and proves what became of every task",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Submits tasks at the times of a schedule, waits for their end, and accounts for every one
    ///
    /// Exits with 0 where every accepted task has exactly one outcome, with 1 where one was lost, doubled or not final
    /// in time (or none was accepted), and with 2 where the load could not be made.
    Run(Box<args::RunArgs>),
    /// Prints a report that was written before, and writes it as a page
    Report(args::ReportArgs),
    /// Measures the parts, Forebay and other task queues in one run, and prints tables, ratios first
    Bench(bench::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(*args).await,
        Command::Report(args) => args.write(),
        Command::Bench(args) => bench::run(args).await.map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(error) => {
            eprintln!("forebay-loadtest: {error:#}");
            ExitCode::from(IMPOSSIBLE)
        }
    }
}
