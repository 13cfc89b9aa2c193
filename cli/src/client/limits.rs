//! `forebay limits`: how many tasks run, or start, at a time.

use forebay_client::{Client, Limit, NewLimit, Rate};
use jiff::Timestamp;

use super::{
    connect, deleted, each,
    print::{Printer, table},
    show, yes_or_no,
};
use crate::{
    args::{Limits, LimitsCommand, PutLimit},
    exit::{Code, Result},
};

pub(crate) async fn limits(args: Limits) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    match args.command.unwrap_or(LimitsCommand::List) {
        LimitsCommand::List => list(&client, &mut out).await,
        LimitsCommand::Get(args) => shown(&mut out, &client.limit(&args.name).await?),
        LimitsCommand::Put(args) => {
            let name = args.name.clone();
            let limit = client.put_limit(&name, &new_limit(args)).await?;
            out.json_or(&limit, || format!("{name}: {}", in_words(&limit)))?;
            Ok(Code::Done)
        }
        LimitsCommand::Delete(args) => {
            let delete = async |name: &str| client.delete_limit(name).await;
            each(&args.names, delete, |name, ()| deleted(&mut out, name)).await
        }
    }
}

async fn list(client: &Client, out: &mut Printer) -> Result<Code> {
    let limits = client.limits().await?;
    let or_all = |name: &Option<String>| name.clone().unwrap_or_else(|| "all".to_owned());
    let rows = limits.iter().map(|limit| {
        vec![
            limit.name.clone(),
            or_all(&limit.queue),
            or_all(&limit.kind),
            yes_or_no(limit.by_key).to_owned(),
            limit
                .concurrency
                .map_or_else(|| "-".to_owned(), |count| count.to_string()),
            limit.rate.as_ref().map_or_else(|| "-".to_owned(), rate),
        ]
    });
    let lines = table(&["NAME", "QUEUE", "KIND", "BY KEY", "AT A TIME", "RATE"], rows);
    out.list(&limits, lines, "no limits yet")
}

fn new_limit(args: PutLimit) -> NewLimit {
    let burst = args.burst;
    NewLimit {
        queue: args.queue,
        kind: args.kind,
        by_key: args.by_key,
        concurrency: args.concurrency,
        rate: args.rate.map(|rate| Rate {
            count: rate.count,
            per_seconds: rate.per.as_secs_f64(),
            burst,
        }),
    }
}

fn rate(rate: &Rate) -> String {
    format!("{}/{}s", rate.count, rate.per_seconds)
}

/// What it says, in a line.
fn in_words(limit: &Limit) -> String {
    let mut parts = Vec::new();
    if let Some(count) = limit.concurrency {
        parts.push(format!("{count} at a time"));
    }
    if let Some(rate) = &limit.rate {
        parts.push(format!("{} in {} s", rate.count, rate.per_seconds));
    }
    let each = if limit.by_key { " of each key" } else { "" };
    format!("{}{each}", parts.join(", "))
}

/// A limit as a person reads it.
fn shown(out: &mut Printer, limit: &Limit) -> Result<Code> {
    if out.is_json() {
        out.json(limit)?;
        return Ok(Code::Done);
    }
    let now = Timestamp::now();
    let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let lines = [
        ("name", Some(limit.name.clone())),
        ("queue", limit.queue.clone()),
        ("kind", limit.kind.clone()),
        ("allows", Some(in_words(limit))),
        (
            "burst",
            limit
                .rate
                .as_ref()
                .and_then(|rate| rate.burst)
                .map(|burst| burst.to_string()),
        ),
        ("running", limit.concurrency.map(|_| count(limit.running))),
        ("waiting", Some(count(limit.waiting))),
        ("created", Some(show::ago(now, &limit.created_at))),
        ("updated", Some(show::ago(now, &limit.updated_at))),
    ];
    out.fields(lines)?;
    Ok(Code::Done)
}
