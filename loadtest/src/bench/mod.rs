//! `forebay-loadtest bench`: the limits of the parts, Forebay, and its peers, in one run on one machine. Rounds are
//! interleaved, so that what else the machine does meets all alike.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use clap::{Args as ClapArgs, ValueEnum};
use forebay_testkit::{broker::BrokerKind, nats::Nats, rabbitmq::RabbitMq};

use crate::{
    limits::{self, Gauge},
    peers, stack,
};
use figures::{Failure, Figures};

pub(crate) mod figures;
pub(crate) mod forebay;
pub(crate) mod http;
mod limited;
mod machine;
pub(crate) mod meter;
mod note;
pub(crate) mod pace;
mod priorities;
mod ratios;
mod render;
mod scale;
mod stream;

/// Submissions a second where latency is measured: far below what the machine can do.
pub(crate) const RATE: u32 = 100;

/// Where results go, below the project's folder.
const RESULTS: &str = "target/bench";

/// What `bench` is told.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// How often each figure is taken; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measure only cases whose name has this in it, such as `limits`, `forebay/nats`, `peers/pg-boss`
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// One round with short windows and small backlogs; the page stays as it is
    #[arg(long)]
    quick: bool,
    /// Add the readings to those of the last whole run, in place of a run of its own
    #[arg(long)]
    append: bool,
    /// Measure with 10 million finished rows, a backlog of a million, and retention under load, instead
    #[arg(long)]
    scale: bool,
    /// How many finished rows --scale has
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// How many tasks are queued for --scale
    #[arg(long, default_value_t = 1_000_000)]
    backlog: u64,
    /// Measure nothing: put the tables of the last runs into BENCHMARKS.md
    #[arg(long)]
    render: bool,
    /// Name the cases, and measure nothing
    #[arg(long)]
    list: bool,
    /// Serve as a part of the bench, until killed
    #[arg(long, value_enum, hide = true)]
    serve: Option<Serve>,
    /// The broker of what is served
    #[arg(long, hide = true, default_value = "")]
    broker_url: String,
    /// The database of what is served
    #[arg(long, hide = true, default_value = "")]
    database_url: String,
}

/// Parts that run in a process of their own.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Serve {
    /// A route that parses JSON
    Bare,
    /// The thinnest path to a durable 202
    Thin,
    /// A worker whose handler notes how long its task waited
    Note,
}

/// How long things are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Rates of one part or one stage.
    pub(crate) window: Duration,
    /// Producers and workers at once.
    pub(crate) sustained: Duration,
    /// Latency at a low rate, after a second that does not count.
    pub(crate) latency: Duration,
    /// What backlogs are divided by.
    pub(crate) shrink: u64,
}

impl Pace {
    const FULL: Self = Self {
        window: Duration::from_secs(2),
        sustained: Duration::from_secs(10),
        latency: Duration::from_secs(8),
        shrink: 1,
    };
    const QUICK: Self = Self {
        window: Duration::from_secs(1),
        sustained: Duration::from_secs(3),
        latency: Duration::from_secs(3),
        shrink: 4,
    };
}

/// One thing to measure.
#[derive(Clone, Copy)]
enum Case {
    Postgres,
    Nats,
    RabbitMq,
    Http,
    Floor,
    Forebay(BrokerKind),
    Dev,
    Limited,
    Priorities,
    Peer(&'static peers::Peer),
}

impl Case {
    fn all() -> Vec<Self> {
        let mut all = vec![
            Self::Postgres,
            Self::Nats,
            Self::RabbitMq,
            Self::Http,
            Self::Floor,
            Self::Forebay(BrokerKind::Nats),
            Self::Forebay(BrokerKind::RabbitMq),
            Self::Dev,
            Self::Limited,
            Self::Priorities,
        ];
        all.extend(peers::ALL.iter().map(Self::Peer));
        all
    }

    fn name(self) -> String {
        match self {
            Self::Postgres => "limits/postgres".to_owned(),
            Self::Nats => "limits/nats".to_owned(),
            Self::RabbitMq => "limits/rabbitmq".to_owned(),
            Self::Http => "limits/http".to_owned(),
            Self::Floor => "limits/floor".to_owned(),
            Self::Forebay(BrokerKind::Nats) => "forebay/nats".to_owned(),
            Self::Forebay(BrokerKind::RabbitMq) => "forebay/rabbitmq".to_owned(),
            Self::Dev => "forebay/dev".to_owned(),
            Self::Limited => "forebay/limited".to_owned(),
            Self::Priorities => "forebay/priorities".to_owned(),
            Self::Peer(peer) => format!("peers/{}", peer.name),
        }
    }

    /// Measures it once. What failed of a case that went on is returned.
    async fn run(self, pace: Pace, figures: &mut Figures) -> Result<Vec<String>> {
        let window = pace.window;
        match self {
            Self::Forebay(kind) => return forebay::measure(kind, pace, figures).await,
            Self::Dev => return forebay::dev(pace, figures).await.map(|()| Vec::new()),
            Self::Limited => return limited::measure(pace, figures).await.map(|()| Vec::new()),
            Self::Priorities => return priorities::measure(pace, figures).await.map(|()| Vec::new()),
            Self::Peer(peer) => return peers::measure(peer, pace, figures).await,
            _ => {}
        }
        let mut gauge = Gauge { figures, window };
        match self {
            Self::Postgres => {
                let server = stack::postgres().await?;
                limits::postgres::measure(&mut gauge, &server.url()).await?;
            }
            Self::Nats => limits::nats::measure(&mut gauge, &Nats::start().await?.url()).await?,
            Self::RabbitMq => {
                let server = RabbitMq::start().await?;
                limits::rabbitmq::measure(&mut gauge, &server.fresh_vhost().await?).await?;
            }
            Self::Http => limits::http::measure(&mut gauge, &Nats::start().await?.url()).await?,
            _ => {
                let (nats, postgres) = (Nats::start().await?, stack::postgres().await?);
                limits::floor::measure(&mut gauge, &nats.url(), &postgres.url(), RATE).await?;
            }
        }
        Ok(Vec::new())
    }
}

/// Does what the arguments say.
pub(crate) async fn run(args: Args) -> Result<()> {
    match args.serve {
        Some(Serve::Bare) => return limits::http::serve_bare().await,
        Some(Serve::Thin) => return limits::http::serve_thin(&args.broker_url).await,
        Some(Serve::Note) => return note::serve(&args.database_url, &args.broker_url).await,
        None => {}
    }
    if args.render {
        return render::into_page(&page(), &results("bench.json"), &results("scale.json"));
    }
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| name.contains(only));
    let cases: Vec<Case> = Case::all()
        .into_iter()
        .filter(|case| wanted(&case.name()))
        .collect();
    if args.list {
        for case in &cases {
            println!("{}", case.name());
        }
        return Ok(());
    }
    if cases.is_empty() {
        bail!("no case has that in its name; --list names them");
    }
    let file = results(args.file());
    let mut figures = machine::describe(args.quick)?;
    if args.append && file.exists() {
        let last = Figures::read(&file)?;
        (figures.rows, figures.failures, figures.remarks) = (last.rows, last.failures, last.remarks);
    }
    if args.scale {
        scale::measure(args.rows, args.backlog, args.rounds(), &mut figures).await?;
    } else {
        rounds(&cases, &args, &mut figures).await;
    }
    figures.write(&file)?;
    println!("{}", render::markdown(&figures));
    Ok(())
}

impl Args {
    /// Where the results go. Only a whole run is for the page.
    fn file(&self) -> &'static str {
        if self.scale {
            "scale.json"
        } else if self.append || (!self.quick && self.only.is_none()) {
            "bench.json"
        } else {
            "part.json"
        }
    }

    fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.max(1) }
    }
}

async fn rounds(cases: &[Case], args: &Args, figures: &mut Figures) {
    let pace = if args.quick { Pace::QUICK } else { Pace::FULL };
    for round in 1..=args.rounds() {
        for case in cases {
            eprintln!("round {round} of {}: {}", args.rounds(), case.name());
            if let Ok(cores) = machine::wait_for_calm().await
                && cores >= machine::CALM
            {
                let remark = format!(
                    "{}, round {round}: others used {cores:.1} cores as it began",
                    case.name()
                );
                eprintln!("  {remark}");
                figures.remarks.push(remark);
            }
            let outcome = Box::pin(case.run(pace, figures)).await;
            let errors = outcome.unwrap_or_else(|error| vec![format!("{error:#}")]);
            for error in errors {
                eprintln!("  failed: {error}");
                figures.failures.push(Failure {
                    case: case.name(),
                    round,
                    error,
                });
            }
        }
    }
}

fn results(file: &str) -> PathBuf {
    peers::root().join(RESULTS).join(file)
}

fn page() -> PathBuf {
    peers::root().join("BENCHMARKS.md")
}
