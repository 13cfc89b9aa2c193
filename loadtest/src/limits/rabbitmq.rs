//! Raw RabbitMQ, quorum queues: what a confirmed publish costs, alone, pipelined and in bundles, and what consuming
//! costs.

use std::{collections::VecDeque, time::Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use super::{BUNDLE, Gauge, IN_FLIGHT, READY_BYTES, SECTION, TASK_BYTES, name};
use crate::bench::{
    http::{histogram, micros},
    meter::Meter,
};

/// How many messages one ack answers.
const ACK_EVERY: u64 = 64;

/// Measures everything in a virtual host of one's own.
pub(crate) async fn measure(gauge: &mut Gauge<'_>, url: &str) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    declare(&channel, "synced").await?;
    alone(gauge, &channel, name::RABBIT_SINGLE, TASK_BYTES, 1).await?;
    alone(
        gauge,
        &channel,
        name::RABBIT_BUNDLE,
        TASK_BYTES * BUNDLE,
        BUNDLE as u64,
    )
    .await?;
    channel
        .queue_delete("synced".into(), QueueDeleteOptions::default())
        .await?;
    declare(&channel, "ready").await?;
    let count = pipelined(gauge, &channel).await?;
    consume(gauge, &channel, count).await?;
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn declare(channel: &Channel, queue: &str) -> Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel.queue_declare(queue.into(), options, arguments).await?;
    Ok(())
}

async fn publish(
    channel: &Channel,
    queue: &str,
    body: &[u8],
) -> Result<impl Future<Output = lapin::Result<Confirmation>> + use<>> {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    Ok(channel
        .basic_publish("".into(), queue.into(), options, body, persistent)
        .await?)
}

async fn confirmed(answer: impl Future<Output = lapin::Result<Confirmation>>) -> Result<()> {
    ensure!(answer.await?.is_ack(), "a publish was refused");
    Ok(())
}

async fn alone(gauge: &mut Gauge<'_>, channel: &Channel, row: &str, bytes: usize, tasks: u64) -> Result<()> {
    let body = vec![b'x'; bytes];
    let (mut count, mut took) = (0, histogram()?);
    let meter = Meter::start()?;
    let until = Instant::now() + gauge.window;
    while Instant::now() < until {
        let sent = Instant::now();
        confirmed(publish(channel, "synced", &body).await?).await?;
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

async fn pipelined(gauge: &mut Gauge<'_>, channel: &Channel) -> Result<u64> {
    let body = [b'x'; READY_BYTES];
    let mut on_their_way = VecDeque::with_capacity(IN_FLIGHT);
    let mut count = 0;
    let meter = Meter::start()?;
    let until = Instant::now() + gauge.window;
    while Instant::now() < until {
        if on_their_way.len() == IN_FLIGHT {
            confirmed(on_their_way.pop_front().context("the oldest")?).await?;
        }
        on_their_way.push_back(publish(channel, "ready", &body).await?);
        count += 1;
    }
    for one in on_their_way {
        confirmed(one).await?;
    }
    gauge
        .figures
        .note_work(SECTION, name::RABBIT_READY, count, &meter.stop()?);
    Ok(count)
}

async fn consume(gauge: &mut Gauge<'_>, channel: &Channel, count: u64) -> Result<()> {
    channel.basic_qos(256, BasicQosOptions::default()).await?;
    let meter = Meter::start()?;
    let mut consumer = channel
        .basic_consume(
            "ready".into(),
            "limit".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let mut seen = 0;
    while seen < count {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), consumer.next()).await;
        let delivery = next.context("no delivery")?.context("the consumer ended")??;
        seen += 1;
        if seen % ACK_EVERY == 0 || seen == count {
            delivery.ack(BasicAckOptions { multiple: true }).await?;
        }
    }
    // The server has gone through all acks when it answers to this.
    channel.close(200, "done".into()).await?;
    gauge
        .figures
        .note_work(SECTION, name::RABBIT_CONSUME, count, &meter.stop()?);
    Ok(())
}
