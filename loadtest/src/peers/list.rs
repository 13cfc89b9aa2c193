//! Who takes part, and how each is set up.

use std::process::Command;

use super::root;

/// What tells that a task has its outcome.
pub(crate) enum Counts {
    /// A count of the tasks that have none yet: finished ones are deleted.
    Left(&'static str),
    /// A count of those that have one.
    Done(&'static str),
}

/// One of them.
pub(crate) struct Peer {
    /// What it is called in tables, and by `--only`.
    pub(crate) name: &'static str,
    /// The program of its adapter: what to run, below the project's folder, and the adapter's file or first argument.
    program: &'static str,
    script: &'static str,
    /// Whether it has a call for many tasks.
    pub(crate) bulk: bool,
    /// Whether it needs RabbitMQ.
    pub(crate) rabbitmq: bool,
    /// How many tasks are drained.
    pub(crate) backlog: u64,
    /// The most tasks of the sustained run; so that the slow are not waited for.
    pub(crate) sustained: u64,
    /// How to see what is done.
    pub(crate) counts: Counts,
    /// What is kept of a finished task.
    pub(crate) outcome: &'static str,
    /// Whether that is an outcome at all.
    pub(crate) keeps_outcome: bool,
    /// How it is set up.
    pub(crate) settings: &'static str,
}

impl Peer {
    /// The command of its adapter.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(root().join(self.program));
        if self.script.contains('/') {
            command.arg(root().join(self.script));
        } else {
            command.arg(self.script);
        }
        command
    }
}

/// All of them.
pub(crate) const ALL: [Peer; 6] = [
    Peer {
        name: "Graphile Worker",
        program: ".tools/bench/bin/node",
        script: "loadtest/peers/node/graphile.mjs",
        bulk: true,
        rabbitmq: false,
        backlog: 100_000,
        sustained: 1_000_000,
        counts: Counts::Left("SELECT count(*) FROM graphile_worker._private_jobs"),
        outcome: "none, the row is deleted",
        keeps_outcome: false,
        settings: "one process, concurrentJobs 24, localQueue 500, completeJobBatchDelay 0",
    },
    Peer {
        name: "graphile_worker (Rust)",
        program: "target/peers/release/forebay-bench-peers",
        script: "graphile",
        bulk: true,
        rabbitmq: false,
        backlog: 100_000,
        sustained: 1_000_000,
        counts: Counts::Left("SELECT count(*) FROM graphile_worker._private_jobs"),
        outcome: "none, the row is deleted",
        keeps_outcome: false,
        settings: "one process, concurrency 32, local queue 500, completion batched for 1 ms",
    },
    Peer {
        name: "pg-boss",
        program: ".tools/bench/bin/node",
        script: "loadtest/peers/node/pg-boss.mjs",
        bulk: true,
        rabbitmq: false,
        backlog: 60_000,
        sustained: 1_000_000,
        counts: Counts::Done("SELECT count(*) FROM pgboss.job WHERE name = 'noop' AND state = 'completed'"),
        outcome: "state in PostgreSQL",
        keeps_outcome: true,
        settings: "one process, batchSize 200, localConcurrency 2, burstWhenBatchFull, LISTEN/NOTIFY",
    },
    Peer {
        name: "apalis",
        program: "target/peers/release/forebay-bench-peers",
        script: "apalis",
        bulk: true,
        rabbitmq: false,
        backlog: 60_000,
        sustained: 1_000_000,
        counts: Counts::Done("SELECT count(*) FROM apalis.jobs WHERE status = 'Done'"),
        outcome: "status and result in PostgreSQL",
        keeps_outcome: true,
        settings: "one process, two workers, batch_size 500, lock_tasks off, LISTEN/NOTIFY and a poll each 100 ms, parallelize(tokio::spawn)",
    },
    Peer {
        name: "Celery",
        program: ".tools/bench/bin/python",
        script: "loadtest/peers/python/celery_peer.py",
        bulk: false,
        rabbitmq: true,
        backlog: 4_000,
        sustained: 5_000,
        counts: Counts::Done("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'"),
        outcome: "row in PostgreSQL",
        keeps_outcome: true,
        settings: "RabbitMQ and a PostgreSQL result backend; prefork -c 4 -O fair, prefetch x64, acks_late, no gossip, mingle or heartbeat, confirm_publish, durable classic queue",
    },
    Peer {
        name: "Procrastinate",
        program: ".tools/bench/bin/python",
        script: "loadtest/peers/python/procrastinate_peer.py",
        bulk: true,
        rabbitmq: false,
        backlog: 3_000,
        sustained: 3_000,
        counts: Counts::Done("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"),
        outcome: "status in PostgreSQL",
        keeps_outcome: true,
        settings: "two processes, async, concurrency 20 each, LISTEN/NOTIFY",
    },
];
