//! Raw JetStream: what a synced publish costs, alone, pipelined and in bundles, and what ready messages cost.

use std::{collections::VecDeque, time::Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{
    self, Context,
    consumer::{AckPolicy, pull},
    context::PublishAckFuture,
    stream::{Config, PersistenceMode, StorageType, Stream},
};
use bytes::Bytes;
use futures::StreamExt;

use super::{BUNDLE, Gauge, IN_FLIGHT, READY_BYTES, SECTION, TASK_BYTES, name};
use crate::bench::{
    http::{histogram, micros},
    meter::Meter,
};

/// Messages of one pull.
const PULL: usize = 500;

/// The most ready messages that are published, and then pulled.
const READY_MAX: u64 = 400_000;

/// Measures everything on a server of one's own.
pub(crate) async fn measure(gauge: &mut Gauge<'_>, url: &str) -> Result<()> {
    let jetstream = jetstream::new(async_nats::connect(url).await?);
    make_stream(&jetstream, "synced", false).await?;
    alone(gauge, &jetstream, name::NATS_SINGLE, TASK_BYTES, 1).await?;
    alone(
        gauge,
        &jetstream,
        name::NATS_BUNDLE,
        TASK_BYTES * BUNDLE,
        BUNDLE as u64,
    )
    .await?;
    let body = Bytes::from(vec![b'x'; TASK_BYTES]);
    let meter = Meter::start()?;
    let count = pipelined(gauge, &jetstream, "synced", body, u64::MAX).await?;
    gauge
        .figures
        .note_work(SECTION, name::NATS_PIPELINED, count, &meter.stop()?);
    jetstream.delete_stream("synced").await?;

    let mut stream = make_stream(&jetstream, "ready", true).await?;
    let body = Bytes::from(vec![b'x'; READY_BYTES]);
    let meter = Meter::start()?;
    let count = pipelined(gauge, &jetstream, "ready", body, READY_MAX).await?;
    gauge
        .figures
        .note_work(SECTION, name::NATS_READY, count, &meter.stop()?);
    pull(gauge, &mut stream, count).await?;
    jetstream.delete_stream("ready").await?;
    Ok(())
}

/// Makes a stream whose subject is its name.
pub(super) async fn make_stream(jetstream: &Context, name: &str, unsynced: bool) -> Result<Stream> {
    let config = Config {
        name: name.to_owned(),
        subjects: vec![name.to_owned()],
        storage: StorageType::File,
        persist_mode: unsynced.then_some(PersistenceMode::Async),
        ..Config::default()
    };
    Ok(jetstream.create_stream(config).await?)
}

/// One message at a time, each of which holds `tasks`.
async fn alone(
    gauge: &mut Gauge<'_>,
    jetstream: &Context,
    row: &str,
    bytes: usize,
    tasks: u64,
) -> Result<()> {
    let body = Bytes::from(vec![b'x'; bytes]);
    let (mut count, mut took) = (0, histogram()?);
    let meter = Meter::start()?;
    let until = Instant::now() + gauge.window;
    while Instant::now() < until {
        let sent = Instant::now();
        jetstream.publish("synced", body.clone()).await?.await?;
        took.saturating_record(micros(sent.elapsed()));
        count += tasks;
    }
    gauge.figures.note_work(SECTION, row, count, &meter.stop()?);
    for (column, quantile) in [("p50 ms", 0.5), ("p99 ms", 0.99)] {
        let wait = took.value_at_quantile(quantile) as f64 / 1e3;
        gauge.figures.note(SECTION, row, column, wait);
    }
    Ok(())
}

async fn pipelined(
    gauge: &Gauge<'_>,
    jetstream: &Context,
    subject: &'static str,
    body: Bytes,
    most: u64,
) -> Result<u64> {
    let mut on_their_way: VecDeque<PublishAckFuture> = VecDeque::with_capacity(IN_FLIGHT);
    let mut count = 0;
    let until = Instant::now() + gauge.window;
    while Instant::now() < until && count < most {
        if on_their_way.len() == IN_FLIGHT {
            on_their_way.pop_front().context("the oldest")?.await?;
        }
        on_their_way.push_back(jetstream.publish(subject, body.clone()).await?);
        count += 1;
    }
    for one in on_their_way {
        one.await?;
    }
    Ok(count)
}

/// Pulls and acknowledges them all; ends when the server has worked through the acks.
async fn pull(gauge: &mut Gauge<'_>, stream: &mut Stream, count: u64) -> Result<()> {
    let config = pull::Config {
        durable_name: Some("all".to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: 10_000,
        ..pull::Config::default()
    };
    let mut consumer = stream.create_consumer(config).await?;
    let meter = Meter::start()?;
    let mut pulled = 0;
    while pulled < count {
        let mut batch = consumer.fetch().max_messages(PULL).messages().await?;
        let before = pulled;
        while let Some(message) = batch.next().await {
            let message = message.map_err(|error| anyhow::anyhow!("pull: {error}"))?;
            message
                .ack()
                .await
                .map_err(|error| anyhow::anyhow!("ack: {error}"))?;
            pulled += 1;
        }
        ensure!(pulled > before, "only {pulled} of {count} messages came");
    }
    let deadline = Instant::now() + std::time::Duration::from_secs(10);
    while consumer.info().await?.num_ack_pending > 0 {
        ensure!(Instant::now() < deadline, "the acks are not worked through");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    gauge
        .figures
        .note_work(SECTION, name::NATS_PULL, pulled, &meter.stop()?);
    Ok(())
}
