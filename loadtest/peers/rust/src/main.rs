//! The Rust peers: `forebay-bench-peers <apalis|graphile> <command> <numbers>`. The protocol is in ../README.md.

mod apalis_peer;
mod graphile_peer;
mod produce;

use anyhow::{Context, Result, bail};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [peer, command, numbers @ ..] = arguments.as_slice() else {
        bail!("usage: forebay-bench-peers <peer> <command> <numbers>");
    };
    let numbers = numbers
        .iter()
        .map(|number| Ok(number.parse()?))
        .collect::<Result<Vec<u64>>>()?;
    let database = std::env::var("BENCH_DATABASE").context("BENCH_DATABASE says where the database is")?;
    let connections = if command == "work" { 10 } else { 32 };
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(connections)
        .connect(&database)
        .await?;
    match (peer.as_str(), command.as_str()) {
        ("apalis", "prepare") => apalis_peer::prepare(&pool).await,
        ("apalis", "work") => apalis_peer::work(pool).await,
        ("apalis", command) => produce::run(apalis_peer::Producer(pool), command, &numbers).await,
        ("graphile", "prepare") => graphile_peer::prepare(pool).await,
        ("graphile", "work") => graphile_peer::work(pool).await,
        ("graphile", command) => {
            let producer = graphile_peer::Producer::open(pool).await?;
            produce::run(producer, command, &numbers).await
        }
        (peer, _) => bail!("there is no peer {peer}"),
    }
}
