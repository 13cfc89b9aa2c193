//! `forebay-chaos`: injects faults into Forebay's processes, servers, lines and clocks under load, and proves that
//! nothing that was accepted was lost. What a run leaves behind is judged by the library beside it.

mod database;
mod driver;
mod endpoint;
mod faults;
mod ledger;
mod outcome;
mod probe;
mod run;
mod sabotage;
mod scene;
mod schedule;
mod stack;
mod watch;
mod wipe;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(about = "Injects faults into Forebay, and proves that nothing accepted is lost")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Injects faults under a steady load, and checks what became of every accepted task
    Run {
        /// What Forebay runs on
        #[arg(long, default_value = "nats")]
        broker: Backend,
        /// How many faults
        #[arg(long, default_value_t = 12)]
        faults: usize,
        /// Of which the order, the targets and the load are made; the same seed makes the same
        #[arg(long)]
        seed: Option<u64>,
        /// How many submissions a second
        #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        rate: u32,
        /// Only faults whose name or target contains this text; `,` divides several
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Writes what was found to this file, for `report`
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// Wipes the broker under many queued tasks, and measures how long it takes until all have finished
    Wipe {
        /// NATS or RabbitMQ
        #[arg(long, default_value = "nats")]
        broker: Backend,
        /// How many tasks are queued
        #[arg(long, default_value_t = 10_000)]
        tasks: usize,
        /// Writes what was found to this file, for `report`
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// Runs workers that acknowledge too early, and succeeds only if the checker sees what they lose
    Sabotage {
        /// NATS or RabbitMQ
        #[arg(long, default_value = "nats")]
        broker: Backend,
    },
    /// Lists the faults that `run` injects
    Faults {
        /// What Forebay runs on
        #[arg(long, default_value = "nats")]
        broker: Backend,
    },
    /// Renders the reports of several runs into a page, between its markers
    Report {
        /// What `--report` wrote
        #[arg(required = true)]
        reports: Vec<PathBuf>,
        /// The page
        #[arg(long, default_value = "docs/reliability.md")]
        page: PathBuf,
    },
    /// What the tasks of kind `chaos-command` run: calls the endpoint, as the other tasks do directly
    #[command(hide = true)]
    Handle {
        /// Where the endpoint listens
        #[arg(long)]
        port: u16,
    },
}

/// What Forebay runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// NATS and PostgreSQL.
    Nats,
    /// RabbitMQ and PostgreSQL.
    Rabbitmq,
    /// `forebay dev`: the embedded broker and SQLite.
    Embedded,
}

impl Backend {
    /// What it is called in reports.
    fn title(self) -> &'static str {
        match self {
            Self::Nats => "NATS + PostgreSQL",
            Self::Rabbitmq => "RabbitMQ + PostgreSQL",
            Self::Embedded => "embedded + SQLite",
        }
    }
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    if let Command::Handle { port } = cli.command {
        return endpoint::handle(port);
    }
    tokio::runtime::Runtime::new()?.block_on(called(cli.command))
}

async fn called(command: Command) -> Result<ExitCode> {
    let passed = match command {
        Command::Run {
            broker,
            faults,
            seed,
            rate,
            only,
            report,
        } => {
            let seed = seed.unwrap_or_else(rand::random);
            let options = run::Options {
                backend: broker,
                faults,
                seed,
                rate,
                only,
            };
            run::run(&options, report.as_deref()).await?
        }
        Command::Wipe {
            broker,
            tasks,
            report,
        } => wipe::run(broker, tasks, report.as_deref()).await?,
        Command::Sabotage { broker } => sabotage::run(broker).await?,
        Command::Faults { broker } => {
            for fault in faults::table(broker) {
                outcome::say(format_args!("{} · {}", fault.name(), fault.target()));
            }
            true
        }
        Command::Report { reports, page } => outcome::render(&reports, &page)?,
        Command::Handle { port } => return endpoint::handle(port),
    };
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
