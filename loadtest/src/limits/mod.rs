//! What the parts can do by themselves, measured in the same run: the figures to hold Forebay's against.

use std::time::Duration;

use crate::bench::figures::Figures;

pub(crate) mod floor;
pub(crate) mod http;
pub(crate) mod nats;
pub(crate) mod postgres;
pub(crate) mod rabbitmq;

/// The table that they go to.
pub(crate) const SECTION: &str = "limits";

/// Tasks that travel in one message, as Forebay bundles them.
pub(crate) const BUNDLE: usize = 1_000;

/// How many messages are on their way at a time, where they are pipelined.
const IN_FLIGHT: usize = 512;

/// A task as it travels: a payload of about 256 bytes and what else it has.
const TASK_BYTES: usize = 300;

/// A message that only names a task.
const READY_BYTES: usize = 60;

/// What a limit is measured with.
pub(crate) struct Gauge<'a> {
    /// Where it is noted.
    pub(crate) figures: &'a mut Figures,
    /// How long each is measured.
    pub(crate) window: Duration,
}

/// The names under which tables and ratios find them.
pub(crate) mod name {
    pub(crate) const NATS_BUNDLE: &str = "NATS, synced publish of bundles of 1,000 tasks";
    pub(crate) const NATS_SINGLE: &str = "NATS, synced publish one by one";
    pub(crate) const NATS_PIPELINED: &str = "NATS, synced publish, 512 on their way";
    pub(crate) const NATS_READY: &str = "NATS, unsynced publish of ready messages";
    pub(crate) const NATS_PULL: &str = "NATS, pull and ack";
    pub(crate) const RABBIT_BUNDLE: &str = "RabbitMQ, confirmed publish of bundles of 1,000 tasks";
    pub(crate) const RABBIT_SINGLE: &str = "RabbitMQ, confirmed publish one by one";
    pub(crate) const RABBIT_READY: &str = "RabbitMQ, confirmed publish, 512 on their way";
    pub(crate) const RABBIT_CONSUME: &str = "RabbitMQ, consume, one ack for 64";
    pub(crate) const INSERT_1: &str = "PostgreSQL, insert of 1,000 a statement, 1 connection";
    pub(crate) const INSERT_2: &str = "PostgreSQL, insert of 1,000 a statement, 2 connections";
    pub(crate) const UPDATE_1: &str = "PostgreSQL, HOT update of 1,000 a statement, 1 connection";
    pub(crate) const UPDATE_2: &str = "PostgreSQL, HOT update of 1,000 a statement, 2 connections";
    pub(crate) const COMMITS: &str = "PostgreSQL, commits of a single row, 32 connections";
    pub(crate) const BARE_32: &str = "bare axum route, 32 connections";
    pub(crate) const BARE_256: &str = "bare axum route, 256 connections";
    pub(crate) const THIN_32: &str = "thinnest path, 32 connections";
    pub(crate) const THIN_256: &str = "thinnest path, 256 connections";
    pub(crate) const FLOOR: &str = "NATS synced publish, delivery, PostgreSQL commit, 100/s";
}
