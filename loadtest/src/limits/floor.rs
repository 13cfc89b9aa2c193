//! The least that submit to start can take, with what Forebay promises: a synced publish, its delivery to who waits for
//! it, and a commit; at 100 a second.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use async_nats::jetstream::{self, consumer::pull};
use futures::StreamExt;

use super::{
    Gauge, SECTION, TASK_BYTES, name,
    nats::make_stream,
    postgres::{connect, insert_one, make_table, single},
};
use crate::bench::{
    http::{histogram, unix_micros},
    pace::ticks,
};

/// Measures it.
pub(crate) async fn measure(gauge: &mut Gauge<'_>, nats: &str, postgres: &str, rate: u32) -> Result<()> {
    let jetstream = jetstream::new(async_nats::connect(nats).await?);
    let stream = make_stream(&jetstream, "floor", false).await?;
    let consumer = stream
        .create_consumer(pull::Config {
            durable_name: Some("floor".to_owned()),
            ..pull::Config::default()
        })
        .await?;
    let client = connect(postgres).await?;
    make_table(&client).await?;
    let statement = single(&client).await?;
    let count = rate * u32::try_from(gauge.window.as_secs().max(1) * 2)?;

    let mut messages = consumer.stream().max_messages_per_batch(1).messages().await?;
    let worker = tokio::spawn(async move {
        let (mut waits, payload) = (histogram()?, "x".repeat(256));
        for number in 0..count + rate {
            let message = messages.next().await.context("the stream ended")??;
            insert_one(&client, &statement, &payload).await?;
            let sent: [u8; 8] = message.payload[..8].try_into().context("the time it was sent")?;
            if number >= rate {
                waits.saturating_record(unix_micros().saturating_sub(u64::from_be_bytes(sent)));
            }
            message
                .ack()
                .await
                .map_err(|error| anyhow::anyhow!("ack: {error}"))?;
        }
        anyhow::Ok(waits)
    });
    let (sender, due) = mpsc::sync_channel(1024);
    std::thread::spawn(move || ticks(rate, count + rate, |sent| sender.send(sent).is_ok()));
    let runtime = tokio::runtime::Handle::current();
    let publishing = tokio::task::spawn_blocking(move || {
        let mut answers = Vec::new();
        while let Ok(sent) = due.recv() {
            let mut body = vec![b'x'; TASK_BYTES];
            body[..8].copy_from_slice(&u64::to_be_bytes(sent));
            let jetstream = jetstream.clone();
            answers.push(runtime.spawn(async move { jetstream.publish("floor", body.into()).await?.await }));
        }
        answers
    });
    let began = Instant::now();
    for answer in publishing.await? {
        answer.await??;
    }
    let left = Duration::from_secs(20).saturating_sub(began.elapsed());
    let waits = tokio::time::timeout(left + Duration::from_secs(5), worker)
        .await
        .context("not all were delivered")???;
    for (column, quantile) in [("p50 ms", 0.5), ("p99 ms", 0.99)] {
        let wait = waits.value_at_quantile(quantile) as f64 / 1e3;
        gauge.figures.note(SECTION, name::FLOOR, column, wait);
    }
    Ok(())
}
