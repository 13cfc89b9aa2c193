//! `forebay-loadtest bench`: starts private servers and Forebay's own processes, loads them over loopback, and
//! prints what it measured. Every load is bounded in count and time, and every accepted task is accounted for.

mod bench;
mod limits;
mod load;
mod stack;

use clap::{Parser, Subcommand, ValueEnum};
use forebay_testkit::broker::BrokerKind;

#[derive(Parser)]
#[command(about = "Measures Forebay against private servers on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints tasks a second end to end, submit-to-start latency, and memory at rest, as a Markdown table
    Bench {
        /// Which broker tasks go through
        #[arg(long, value_enum, default_value = "nats")]
        broker: Broker,
        /// How often each figure is taken; the median is printed, with the range
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// How many tasks a bulk or drain round has
        #[arg(long, default_value_t = 60_000)]
        tasks: usize,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Broker {
    /// NATS JetStream, `sync_interval: always`
    Nats,
    /// RabbitMQ, quorum queues
    Rabbitmq,
}

impl From<Broker> for BrokerKind {
    fn from(broker: Broker) -> Self {
        match broker {
            Broker::Nats => Self::Nats,
            Broker::Rabbitmq => Self::RabbitMq,
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Bench {
            broker,
            rounds,
            tasks,
        } => bench::run(broker.into(), rounds.max(1), tasks).await,
    }
}
