//! The command line. Settings are declared in `forebay_runtime::config::args`; what is only a command's own is here.

mod batches;
mod kinds;
mod limits;
mod terms;
mod webhooks;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Command, CommandFactory, Parser, Subcommand};
use forebay_core::{Overlap, Priority, State};
use forebay_runtime::config::{
    args::{
        AdminArgs, AllArgs, BrokerArgs, ClientArgs, DatabaseArgs, GrpcArgs, GrpcClientsArgs, HttpArgs,
        LeaseArgs, LogArgs, RemoteArgs, ScaleInArgs, ScalerArgs, WorkerArgs, with_dev_defaults,
    },
    values::{duration, positive_duration},
};

pub(crate) use batches::{AddToBatch, Batches, BatchesCommand, Latest, OpenBatch};
pub(crate) use kinds::{Kinds, KindsCommand, PutKind};
pub(crate) use limits::{Limits, LimitsCommand, PutLimit};
pub(crate) use terms::{RunTerms, TaskTerms};
pub(crate) use webhooks::{ListDeliveries, PutWebhook, ReplayWebhook, Webhooks, WebhooksCommand};

const EXIT_CODES: &str = "\
Exit codes of the client commands:
  0  done
  1  the task did not succeed (submit --wait, watch ID)
  2  the command line or the configuration is wrong
  3  the server cannot be reached, or cannot serve at the moment
  4  the server refused
  5  the task had not ended when the time was over (submit --wait)

Settings come from flags, over FOREBAY_* variables, over forebay.toml, over defaults;
`forebay config` shows what is in effect.";

/// A durable task server: what it has accepted is executed, whatever breaks.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, after_help = EXIT_CODES, arg_required_else_help = true,
    subcommand_required = true, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Read settings from this file instead of ./forebay.toml.
    #[arg(long, global = true, env = "FOREBAY_CONFIG", value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Called,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Called {
    /// Run everything in one process: API, worker and storage. Needs no other server.
    Dev(Dev),
    /// Run the HTTP and gRPC API.
    Api(Api),
    /// Run a worker: it records submissions, executes tasks, and dispatches what becomes due.
    Worker(Worker),
    /// Tell KEDA how many workers are wanted, and when: its external scaler.
    Scaler(Scaler),
    /// Bring the database schema up to date. Safe to run twice and side by side.
    Migrate(Migrate),
    /// Ask the Forebay on this machine whether it is ready: for health checks of containers.
    Health(Health),
    /// Submit a task, or a file of them.
    Submit(Box<Submit>),
    /// Show a task.
    Get(Get),
    /// Say why a task is where it is: the one thing that it waits for.
    Explain(Get),
    /// List tasks, newest first.
    List(List),
    /// Cancel tasks.
    Cancel(Ids),
    /// Bring back tasks that have failed or were cancelled.
    Retry(Ids),
    /// Watch tasks change, live.
    Watch(Watch),
    /// Show the workers that are alive.
    Workers(Plain),
    /// Show the queues and what is in them.
    Queues(Plain),
    /// Pause a queue: tasks are accepted and recorded, and none is started until it is resumed.
    Pause(QueueCommand),
    /// Resume a queue that was paused.
    Resume(QueueCommand),
    /// Retry, cancel or delete many tasks: begin, show and abort operations.
    Operations(Operations),
    /// Submit tasks together and look at them together: batches and chains.
    Batches(Batches),
    /// Submit tasks by the clock: make, show and delete schedules.
    Schedules(Schedules),
    /// Say what payloads must look like, by kind: register, show and delete JSON Schemas.
    Kinds(Kinds),
    /// Say how many tasks run, or start, at a time: make, show and delete limits.
    Limits(Limits),
    /// Say who hears of the ends of tasks: make, try and delete webhooks, and tell them again.
    Webhooks(Webhooks),
    /// Show messages that nobody could decode; they were set aside.
    Rejects(Rejects),
    /// Show the effective configuration, and where each value comes from.
    Config(Config),
}

/// The command line with what its declarations alone cannot say.
pub(crate) fn command() -> Command {
    Cli::command()
        .mut_subcommand("dev", with_dev_defaults)
        // What all client commands have, whether it stands before a command below it or after.
        .mut_subcommand("schedules", |schedules| {
            schedules.mut_args(|arg| arg.global(true))
        })
        .mut_subcommand("batches", |batches| batches.mut_args(|arg| arg.global(true)))
        .mut_subcommand("kinds", |kinds| kinds.mut_args(|arg| arg.global(true)))
        .mut_subcommand("limits", |limits| limits.mut_args(|arg| arg.global(true)))
        .mut_subcommand("webhooks", |webhooks| webhooks.mut_args(|arg| arg.global(true)))
        .mut_subcommand("operations", |operations| {
            operations.mut_args(|arg| arg.global(true))
        })
        // It shows every setting, and none is required to be shown.
        .mut_subcommand("config", |config| {
            let about = config.get_about().cloned().unwrap_or_default();
            AllArgs::augment_args(config)
                .about(about)
                .mut_args(|arg| arg.required(false))
        })
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay dev
  forebay dev --data /tmp/try --http-addr 127.0.0.1:9000

Built-in handlers, to try things out: echo, sleep, fail, cpu. Handlers of your own are [[handler]]
tables in forebay.toml:
  [[handler]]
  kind = \"thumbnail\"
  command = [\"python3\", \"thumb.py\"]   # payload on stdin, result on stdout")]
pub(crate) struct Dev {
    /// Where the data is kept, over restarts too.
    #[arg(long, value_name = "DIR", default_value = "./forebay-data")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
    #[command(flatten)]
    pub(crate) grpc: GrpcArgs,
    #[command(flatten)]
    pub(crate) grpc_clients: GrpcClientsArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  export FOREBAY_DATABASE_URL=postgres://forebay:secret@db/forebay
  export FOREBAY_BROKER_URL=nats://nats:4222
  forebay migrate && forebay api")]
pub(crate) struct Api {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
    #[command(flatten)]
    pub(crate) grpc: GrpcArgs,
    #[command(flatten)]
    pub(crate) grpc_clients: GrpcClientsArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) lease: LeaseArgs,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay worker --queues default,reports --concurrency 50
  forebay worker --roles recorder,dispatcher
  forebay worker --roles executor --queues thumbnails
  forebay worker --once --queues films --concurrency 1 --max-tasks 1    one task, then it ends

Handlers are [[handler]] tables in forebay.toml. SIGTERM drains: the worker takes nothing new, lets
running tasks end within --drain-timeout, and hands the rest back at once.")]
pub(crate) struct Worker {
    /// Also run the built-in handlers echo, sleep, fail and cpu, as `forebay dev` does: to try out, and to load.
    #[arg(long)]
    pub(crate) builtin_handlers: bool,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
    #[command(flatten)]
    pub(crate) scale_in: ScaleInArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example of a trigger of a ScaledObject:
  - type: external-push
    metadata:
      scalerAddress: forebay-scaler:50051
      queue: default             # one, or several separated by commas: their sum
      mode: tasks                # ready and running tasks; or desired_workers
      target_per_worker: \"100\"   # for mode tasks: how many of them for each worker

With --tls-cert and --tls-key it speaks TLS, and with --tls-client-ca only to clients with a
certificate of that authority. The files are read at the start.")]
pub(crate) struct Scaler {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    #[command(flatten)]
    pub(crate) grpc: GrpcArgs,
    #[command(flatten)]
    pub(crate) scaler: ScalerArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 0 if it is ready and with 1 if not, or if nobody answers; the reasons are on standard error.

Examples:
  forebay health
  forebay health --live --admin-addr :9464 --timeout 500ms")]
pub(crate) struct Health {
    /// Ask whether the process is alive, whatever has become of its dependencies.
    #[arg(long)]
    pub(crate) live: bool,
    /// How long the answer may take.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = positive_duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// What all client commands have.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Print JSON, one value a line, for programs to read.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay submit echo '{\"hello\": \"world\"}' --wait 10s
  forebay submit report --queue slow --delay 5m --tag customer=17
  jq -n '{user: 17}' | forebay submit welcome-mail - --idempotency-key welcome-17
  forebay submit invoice '{\"order\": 7}' --unique-key order-7 --expires-in 1h --retry-delays 1s,10s,1m
  forebay submit publish --after \"$DRAFT\",\"$REVIEW\" --limit-key site-3 --notify billing
  forebay submit --file tasks.ndjson --ids accepted.txt

A line of such a file is a task as in POST /v1/tasks: {\"kind\": \"echo\", \"payload\": 1}")]
pub(crate) struct Submit {
    /// What to do: the kind that a worker has a handler for.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub(crate) kind: Option<String>,
    /// The handler's input as JSON, or - to read it from standard input; null unless given.
    #[arg(value_name = "JSON|-", allow_negative_numbers = true)]
    pub(crate) payload: Option<String>,
    /// Submit each line of this file, or of standard input where it is -.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["payload", "queue", "priority", "delay", "run_at", "tag",
        "max_attempts", "timeout", "idempotency_key", "wait", "RunTerms", "TaskTerms"])]
    pub(crate) file: Option<PathBuf>,
    /// With --file: write the ids of the accepted tasks to this file, one a line.
    #[arg(long, value_name = "PATH")]
    pub(crate) ids: Option<PathBuf>,
    /// Which pool of workers does it.
    #[arg(long, value_name = "QUEUE")]
    pub(crate) queue: Option<String>,
    /// How urgent it is within its queue: high, default or low.
    #[arg(long)]
    pub(crate) priority: Option<Priority>,
    /// Not before this long from now, such as 30s, 5m or 2d.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "run_at")]
    pub(crate) delay: Option<Duration>,
    /// Not before this time, such as 2030-01-01T09:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) run_at: Option<jiff::Timestamp>,
    /// A label to find it by; may be given several times.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// How many attempts it may have.
    #[arg(long, value_name = "N")]
    pub(crate) max_attempts: Option<u32>,
    /// How long one attempt may take.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Your own name for the task: submitting it again with the same name does nothing.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Wait for the task to end, up to this long, and show its result.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) task_terms: TaskTerms,
    #[command(flatten)]
    pub(crate) run_terms: RunTerms,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The task.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay list --state failed --kind report
  forebay list --since 1h --limit 1000 --json | jq -r .id
  forebay retry $(forebay list --state failed --limit 1000 --json | jq -r .id)")]
pub(crate) struct List {
    /// Only in this state: scheduled, queued, running, retrying, succeeded, failed, cancelled, …
    #[arg(long)]
    pub(crate) state: Option<State>,
    /// Only of this queue.
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Only of this kind.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only with this label.
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Only created within this long, such as 30m.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// How many at the most.
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Ids {
    /// The tasks.
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay watch --queue default
  forebay watch 0198c4d2-7c9e-7cc3-9d4e-0a1b2c3d4e5f    ends when the task ends")]
pub(crate) struct Watch {
    /// Only this task, until it ends.
    pub(crate) id: Option<String>,
    /// Only this queue.
    #[arg(long, conflicts_with = "id")]
    pub(crate) queue: Option<String>,
    /// Only this kind.
    #[arg(long, conflicts_with = "id")]
    pub(crate) kind: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Rejects {
    /// How many at the most, the latest first.
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "\
Examples:
  forebay schedules put nightly '0 3 * * *' report '{\"days\": 1}' --time-zone Europe/Berlin
  forebay schedules
  forebay schedules get nightly --upcoming 10
  forebay schedules pause nightly

Without a command it lists."
)]
pub(crate) struct Schedules {
    #[command(subcommand)]
    pub(crate) command: Option<SchedulesCommand>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SchedulesCommand {
    /// List all schedules, by name.
    List,
    /// Show a schedule and its next ticks.
    Get(GetSchedule),
    /// Make a schedule, or replace the one of that name.
    Put(Box<PutSchedule>),
    /// Let a schedule rest. Ticks meanwhile are not made up for.
    Pause(ScheduleName),
    /// Let a schedule that was paused go on, from the next tick.
    Resume(ScheduleName),
    /// Delete schedules. The tasks that they have submitted stay.
    Delete(ScheduleNames),
}

#[derive(Debug, Args)]
pub(crate) struct GetSchedule {
    /// The schedule.
    pub(crate) name: String,
    /// How many of its next ticks to show.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) upcoming: u32,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay schedules put nightly '0 3 * * *' report --time-zone Europe/Berlin
  forebay schedules put poll '*/10 * * * * *' poll '{\"feed\": 7}' --overlap queue --jitter 2s

All that is not given is as for a new schedule: what was there before is replaced as a whole.")]
pub(crate) struct PutSchedule {
    /// Names it.
    pub(crate) name: String,
    /// When: minute, hour, day of month, month, day of week, in quotes; or six fields, with seconds first.
    pub(crate) cron: String,
    /// What to do at each tick: the kind that a worker has a handler for.
    pub(crate) kind: String,
    /// The handler's input as JSON, or - to read it from standard input; null unless given.
    #[arg(value_name = "JSON|-", allow_negative_numbers = true)]
    pub(crate) payload: Option<String>,
    /// Whose wall clock: an IANA name such as Europe/Berlin; UTC unless given.
    #[arg(long, value_name = "ZONE")]
    pub(crate) time_zone: Option<String>,
    /// At a tick while a task of an earlier one is unfinished: skip it, queue it, or allow it; skip unless given.
    #[arg(long, value_name = "POLICY")]
    pub(crate) overlap: Option<Overlap>,
    /// How late a tick may still be fired, after an outage say, up to a day; a minute unless given.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) catch_up: Option<Duration>,
    /// Move each tick by up to this, always by the same, up to an hour.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) jitter: Option<Duration>,
    /// Let it rest until it is resumed.
    #[arg(long)]
    pub(crate) paused: bool,
    /// Which pool of workers does it.
    #[arg(long, value_name = "QUEUE")]
    pub(crate) queue: Option<String>,
    /// How urgent its tasks are within their queue: high, default or low.
    #[arg(long)]
    pub(crate) priority: Option<Priority>,
    /// A label to find its tasks by; may be given several times.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// How many attempts a task may have.
    #[arg(long, value_name = "N")]
    pub(crate) max_attempts: Option<u32>,
    /// How long one attempt may take.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) run_terms: RunTerms,
}

#[derive(Debug, Args)]
pub(crate) struct ScheduleName {
    /// The schedule.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct ScheduleNames {
    /// The schedules.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "\
Examples:
  forebay operations retry --kind report --error timeout --dry-run    counts, and names some
  forebay operations retry --kind report --error timeout --rate 50
  forebay operations cancel --queue slow --wait
  forebay operations delete --state failed --before 30d
  forebay operations abort 0198c4d2-7c9e-7cc3-9d4e-0a1b2c3d4e5f

Without a command it lists."
)]
pub(crate) struct Operations {
    #[command(subcommand)]
    pub(crate) command: Option<OperationsCommand>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperationsCommand {
    /// List the latest operations.
    List,
    /// Show an operation and how far it is.
    Get(OperationArg),
    /// Bring back all tasks that a filter means: the failed ones, unless another state is given.
    Retry(Box<BeginOperation>),
    /// Cancel all tasks that a filter means and that have not ended.
    Cancel(Box<BeginOperation>),
    /// Delete all tasks that a filter means and that have ended.
    Delete(Box<BeginOperation>),
    /// End an operation. What was done stays.
    Abort(OperationArg),
}

#[derive(Debug, Args)]
pub(crate) struct OperationArg {
    /// The operation.
    pub(crate) id: String,
}

/// Which tasks, how fast, and how many.
#[derive(Debug, Args)]
pub(crate) struct BeginOperation {
    /// Only count the tasks, and name some.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Only in this state.
    #[arg(long)]
    pub(crate) state: Option<State>,
    /// Only of this project.
    #[arg(long, value_name = "PROJECT")]
    pub(crate) project: Option<String>,
    /// Only of this queue.
    #[arg(long, value_name = "QUEUE")]
    pub(crate) queue: Option<String>,
    /// Only of this kind.
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only with this label.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Only of this batch.
    #[arg(long, value_name = "ID")]
    pub(crate) batch: Option<String>,
    /// Only created within this long, such as 30m.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Only created longer ago than this, such as 30d.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) before: Option<Duration>,
    /// Only where the latest error has this text in it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) error: Option<String>,
    /// How many tasks a second at most; 100 unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rate: Option<u32>,
    /// How many tasks in all at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    /// Wait until it has ended.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct QueueCommand {
    /// The queue.
    #[arg(value_name = "QUEUE")]
    pub(crate) queue: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Plain {
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Print JSON, for programs to read.
    #[arg(long)]
    pub(crate) json: bool,
}

fn time(text: &str) -> Result<jiff::Timestamp, &'static str> {
    text.parse()
        .map_err(|_| "must be an RFC 3339 time, such as 2030-01-01T09:00:00Z")
}
