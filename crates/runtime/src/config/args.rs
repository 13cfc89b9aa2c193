//! The settings, each declared once: flag, variable, default, and the line that documents it. The key in
//! `forebay.toml` is the variable without its prefix, in small letters.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args};
use forebay_core::QueueName;

use super::values::{
    BrokerUrl, ByteSize, DatabaseUrl, List, ListenAddr, LogFormat, Network, Role, log_filter, otlp_endpoint,
    positive_duration, server_url, yes_or_no,
};

/// The drivers tell every step of a reconnection at info; what matters of it is told by Forebay's own crates.
const DEFAULT_LOG: &str = "info,async_nats=warn,lapin=off,sqlx=warn,tokio_postgres=warn";

/// Where tasks are stored.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// Where tasks are stored: postgres://USER:PASSWORD@HOST/DATABASE. (SQLite is for `forebay dev`.)
    #[arg(long, env = "FOREBAY_DATABASE_URL", value_name = "URL", required = true)]
    pub database_url: DatabaseUrl,
    /// Connections for claiming, recording and completing tasks.
    #[arg(long, env = "FOREBAY_DATABASE_HOT_CONNECTIONS", value_name = "N", default_value = "8",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub database_hot_connections: u32,
    /// Connections for everything else: reads, lists, operators' commands.
    #[arg(long, env = "FOREBAY_DATABASE_READ_CONNECTIONS", value_name = "N", default_value = "8",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub database_read_connections: u32,
}

/// Where ready tasks wait.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Broker")]
pub struct BrokerArgs {
    /// Where ready tasks wait: nats://HOST:4222 or amqp://USER:PASSWORD@HOST:5672/VHOST, or several of a kind separated
    /// by commas. (The embedded broker is for `forebay dev`.)
    #[arg(long, env = "FOREBAY_BROKER_URL", value_name = "URL", required = true)]
    pub broker_url: BrokerUrl,
    /// How much the NATS stream of submissions may hold. Past it, they are refused with 429 until the recorders catch
    /// up. The stream of the lanes may hold a quarter of it; what does not fit waits in the database.
    #[arg(
        long,
        env = "FOREBAY_NATS_STREAM_MAX_BYTES",
        value_name = "SIZE",
        default_value = "4GiB"
    )]
    pub nats_stream_max_bytes: ByteSize,
    /// On how many NATS servers each message is stored: 1, 3 or 5.
    #[arg(long, env = "FOREBAY_NATS_REPLICAS", value_name = "N", default_value = "1",
        value_parser = clap::value_parser!(u8).range(1..=5))]
    pub nats_replicas: u8,
    /// How much a RabbitMQ queue may hold when Forebay declares it. Past it, submissions are refused with 429 until the
    /// recorders catch up; what does not fit into a lane waits in the database.
    #[arg(
        long,
        env = "FOREBAY_RABBITMQ_QUEUE_MAX_BYTES",
        value_name = "SIZE",
        default_value = "4GiB"
    )]
    pub rabbitmq_queue_max_bytes: ByteSize,
}

/// The HTTP door.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listening")]
pub struct HttpArgs {
    /// Where the HTTP API listens. Port 0 lets the system choose one.
    #[arg(
        long,
        env = "FOREBAY_HTTP_ADDR",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080"
    )]
    pub http_addr: ListenAddr,
}

/// The gRPC door.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listening")]
pub struct GrpcArgs {
    /// Where the gRPC API listens.
    #[arg(
        long,
        env = "FOREBAY_GRPC_ADDR",
        value_name = "ADDRESS",
        default_value = ":50051"
    )]
    pub grpc_addr: ListenAddr,
}

/// The clients of the gRPC door.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listening")]
pub struct GrpcClientsArgs {
    /// How often a gRPC client is asked whether it lives. Without an answer for 20s its connection is closed.
    #[arg(long, env = "FOREBAY_GRPC_KEEPALIVE", value_name = "DURATION", default_value = "30s",
        value_parser = positive_duration)]
    pub grpc_keepalive: Duration,
    /// After how long a gRPC client is asked to connect anew, give or take a tenth, so that it finds replicas that are new.
    /// What is under way is finished; a stream of submissions, or one that watches a task, lasts as long at most.
    #[arg(long, env = "FOREBAY_GRPC_MAX_CONNECTION_AGE", value_name = "DURATION", default_value = "1h",
        value_parser = positive_duration)]
    pub grpc_max_connection_age: Duration,
}

/// The operator's door.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listening")]
pub struct AdminArgs {
    /// Where /metrics, /health/live and /health/ready are served.
    #[arg(
        long,
        env = "FOREBAY_ADMIN_ADDR",
        value_name = "ADDRESS",
        default_value = ":9464"
    )]
    pub admin_addr: ListenAddr,
}

/// Logs and traces.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs and traces")]
pub struct LogArgs {
    /// How log lines are written to standard error: text or json.
    #[arg(
        long,
        env = "FOREBAY_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
    /// What is logged: a level, or directives such as info,forebay_worker=debug.
    #[arg(long, env = "FOREBAY_LOG", value_name = "FILTER", default_value = DEFAULT_LOG, value_parser = log_filter)]
    pub log: String,
    /// Where traces are sent: an OTLP/gRPC receiver such as http://127.0.0.1:4317. No traces unless set.
    #[arg(long, env = "FOREBAY_OTLP_ENDPOINT", value_name = "URL", value_parser = otlp_endpoint)]
    pub otlp_endpoint: Option<String>,
}

/// What a worker does, and how much of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Worker")]
pub struct WorkerArgs {
    /// What this process does: any of recorder, executor, dispatcher, separated by commas. Nothing runs without a
    /// recorder somewhere.
    #[arg(
        long,
        env = "FOREBAY_ROLES",
        value_name = "ROLES",
        default_value = "recorder,executor,dispatcher"
    )]
    pub roles: List<Role>,
    /// Whose tasks it runs: queues, separated by commas.
    #[arg(
        long,
        env = "FOREBAY_QUEUES",
        value_name = "QUEUES",
        default_value = "default",
        value_parser = super::values::queues
    )]
    pub queues: List<QueueName>,
    /// How many tasks it runs at once.
    #[arg(long, env = "FOREBAY_CONCURRENCY", value_name = "N", default_value = "100",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub concurrency: u32,
    /// How long running tasks may take to end once the worker is told to stop. What is left is handed back.
    #[arg(long, env = "FOREBAY_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "30s",
        value_parser = super::values::duration)]
    pub drain_timeout: Duration,
    #[expect(missing_docs, reason = "documented at its type")]
    #[command(flatten)]
    pub lease: LeaseArgs,
    /// What the worker is called in lists and logs; the host's name unless set.
    #[arg(long, env = "FOREBAY_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// After how many days finished tasks are forgotten; never unless set.
    #[arg(long, env = "FOREBAY_RETENTION_DAYS", value_name = "DAYS",
        value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub retention_days: Option<u32>,
    /// To which networks or addresses that are not public webhooks are delivered nevertheless, separated by commas. A
    /// part of dispatching. None unless set.
    #[arg(long, env = "FOREBAY_WEBHOOK_ALLOW_PRIVATE", value_name = "NETWORKS")]
    pub webhook_allow_private: Option<List<Network>>,
}

/// How long workers live without a sign of life.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Worker")]
pub struct LeaseArgs {
    /// How long a worker may be silent before its tasks are given to others. The same on all workers, and on the APIs that
    /// remote workers connect to.
    #[arg(long, env = "FOREBAY_LEASE", value_name = "DURATION", default_value = "30s",
        value_parser = positive_duration)]
    pub lease: Duration,
}

/// The workers that connect to an API.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Worker")]
pub struct RemoteArgs {
    /// How many remote workers may be connected to this process at once, over gRPC; 0 for none.
    #[arg(long, env = "FOREBAY_REMOTE_WORKERS_MAX", value_name = "N", default_value = "1000",
        value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub remote_workers_max: u32,
}

/// How a worker ends by itself, and how Kubernetes is to choose among workers that it must end.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Worker")]
pub struct ScaleInArgs {
    /// End with 0 once its queues have nothing ready and what it ran is done: for KEDA ScaledJobs. It is an executor and
    /// nothing else then.
    #[arg(long = "once", env = "FOREBAY_WORKER_ONCE", value_name = "BOOL", default_value = "false",
        num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set,
        value_parser = yes_or_no)]
    pub worker_once: bool,
    /// End with 0 after so many tasks, and start no more than these. It is an executor and nothing else then.
    #[arg(long = "max-tasks", env = "FOREBAY_WORKER_MAX_TASKS", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub worker_max_tasks: Option<u32>,
    /// Tell Kubernetes what it would cost to delete this pod, so that idle workers are deleted first. Needs POD_NAME and
    /// POD_NAMESPACE in the environment, and leave to get and patch the pod.
    #[arg(long = "pod-deletion-cost", env = "FOREBAY_WORKER_POD_DELETION_COST", value_name = "BOOL",
        default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = yes_or_no)]
    pub worker_pod_deletion_cost: bool,
}

/// How the scaler speaks TLS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Scaler")]
pub struct ScalerArgs {
    /// The certificate of the scaler, with those between it and its authority: a PEM file. In the clear unless set.
    #[arg(
        id = "scaler_tls_cert",
        long = "tls-cert",
        env = "FOREBAY_SCALER_TLS_CERT",
        value_name = "PATH"
    )]
    pub scaler_tls_cert: Option<PathBuf>,
    /// The key of that certificate: a PEM file.
    #[arg(
        id = "scaler_tls_key",
        long = "tls-key",
        env = "FOREBAY_SCALER_TLS_KEY",
        value_name = "PATH"
    )]
    pub scaler_tls_key: Option<PathBuf>,
    /// The authority that the certificates of clients must come from: a PEM file. Clients need none unless set.
    #[arg(
        id = "scaler_tls_client_ca",
        long = "tls-client-ca",
        env = "FOREBAY_SCALER_TLS_CLIENT_CA",
        value_name = "PATH"
    )]
    pub scaler_tls_client_ca: Option<PathBuf>,
}

/// Which server the client commands talk to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Client")]
pub struct ClientArgs {
    /// The server's HTTP address.
    #[arg(long, env = "FOREBAY_URL", value_name = "URL", default_value = "http://127.0.0.1:8080",
        value_parser = server_url)]
    pub url: url::Url,
}

/// Every setting of every command: what `forebay config` prints and docs/configuration.md lists.
#[derive(Debug, Clone, Args)]
#[expect(missing_docs, reason = "each is documented at its type")]
pub struct AllArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub broker: BrokerArgs,
    #[command(flatten)]
    pub http: HttpArgs,
    #[command(flatten)]
    pub grpc: GrpcArgs,
    #[command(flatten)]
    pub grpc_clients: GrpcClientsArgs,
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub log: LogArgs,
    #[command(flatten)]
    pub worker: WorkerArgs,
    #[command(flatten)]
    pub remote: RemoteArgs,
    #[command(flatten)]
    pub scale_in: ScaleInArgs,
    #[command(flatten)]
    pub scaler: ScalerArgs,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// The defaults that `forebay dev` has in place of the general ones: it is for one machine.
pub const DEV_DEFAULTS: [(&str, &str); 3] = [
    ("http_addr", "127.0.0.1:8080"),
    ("grpc_addr", "127.0.0.1:50051"),
    ("admin_addr", "127.0.0.1:9464"),
];

/// Puts [`DEV_DEFAULTS`] into a command that has these settings.
#[must_use]
pub fn with_dev_defaults(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let dev = DEV_DEFAULTS.iter().find(|(id, _)| arg.get_id() == *id);
        match dev {
            Some((_, value)) => arg.default_value(*value),
            None => arg,
        }
    })
}
