//! `forebay batches`: tasks that are submitted together and looked at together.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
};

use forebay_client::{Batch, Client, MoreTasks, NewBatch, NewTask};
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{
    connect,
    print::{Printer, table},
    show, submit,
};
use crate::{
    args::{AddToBatch, Batches, BatchesCommand, Latest, OpenBatch},
    exit::{Code, Failure, Result},
};

/// The most tasks of one request, which the server says as well.
const TASKS_MAX: usize = 1_000;
/// The longest input that is read, in bytes.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub(crate) async fn batches(args: Batches) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    let out = &mut out;
    match args.command.unwrap_or(BatchesCommand::List(Latest::default())) {
        BatchesCommand::List(args) => list(&client, out, args.limit).await,
        BatchesCommand::Get(args) => shown(out, &client.batch(&args.id).await?),
        BatchesCommand::Tasks(args) => tasks(&client, out, &args.id, args.latest.limit).await,
        BatchesCommand::Open(args) => open(&client, out, *args).await,
        BatchesCommand::Add(args) => add(&client, out, args).await,
        BatchesCommand::Close(args) => told(out, &client.close_batch(&args.id).await?),
        BatchesCommand::Cancel(args) => told(out, &client.cancel_batch(&args.id).await?),
    }
}

async fn list(client: &Client, out: &mut Printer, limit: u32) -> Result<Code> {
    let batches = client
        .batches(usize::try_from(limit).unwrap_or(usize::MAX))
        .await?;
    let now = Timestamp::now();
    let rows = batches.iter().map(|batch| {
        vec![
            batch.id.clone(),
            show::cut(batch.name.as_deref().unwrap_or("-"), show::SHORT),
            batch.state.clone(),
            format!("{}/{}", batch.ended, batch.total),
            show::ago(now, &batch.created_at),
        ]
    });
    let lines = table(&["ID", "NAME", "STATE", "ENDED", "OPENED"], rows);
    out.list(&batches, lines, "no batches yet")
}

async fn tasks(client: &Client, out: &mut Printer, id: &str, limit: u32) -> Result<Code> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let tasks = client.batch_tasks(id, limit).await?;
    let lines = table(&show::COLUMNS, tasks.iter().map(show::row));
    out.list(&tasks, lines, "no tasks yet")
}

async fn open(client: &Client, out: &mut Printer, args: OpenBatch) -> Result<Code> {
    let payload = args
        .on_complete_payload
        .as_deref()
        .map(submit::payload)
        .transpose()?;
    let batch = NewBatch {
        name: args.name,
        tasks: lines(args.file.as_deref(), args.open)?,
        chain: args.chain,
        on_complete: args.on_complete.map(|kind| NewTask {
            kind,
            payload,
            ..NewTask::default()
        }),
        open: args.open,
    };
    told(
        out,
        &client.open_batch(&batch, args.idempotency_key.as_deref()).await?,
    )
}

async fn add(client: &Client, out: &mut Printer, args: AddToBatch) -> Result<Code> {
    let tasks = MoreTasks {
        tasks: lines(args.file.as_deref(), false)?,
        chain: args.chain,
    };
    told(
        out,
        &client
            .add_to_batch(&args.id, &tasks, &args.idempotency_key)
            .await?,
    )
}

/// A task a line. A batch that stays open may begin without any: then nobody is kept waiting at a terminal.
fn lines(file: Option<&Path>, may_be_none: bool) -> Result<Vec<Box<RawValue>>> {
    use std::io::IsTerminal;
    let input: Box<dyn Read> = match file.filter(|file| *file != Path::new("-")) {
        Some(file) => Box::new(
            std::fs::File::open(file)
                .map_err(|error| Failure::new(Code::Usage, format!("{}: {error}", file.display())))?,
        ),
        None if may_be_none && std::io::stdin().is_terminal() => return Ok(Vec::new()),
        None => Box::new(std::io::stdin()),
    };
    let mut tasks = Vec::new();
    for (number, line) in (1_u64..).zip(BufReader::new(input.take(INPUT_BYTES_MAX)).lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        if tasks.len() >= TASKS_MAX {
            let told =
                format!("at most {TASKS_MAX} tasks at a time: open the batch with --open, and add the rest");
            return Err(Failure::new(Code::Usage, told));
        }
        let task = RawValue::from_string(line)
            .map_err(|error| Failure::new(Code::Usage, format!("line {number} is not JSON: {error}")))?;
        tasks.push(task);
    }
    Ok(tasks)
}

/// What became of a batch, in a line.
fn told(out: &mut Printer, batch: &Batch) -> Result<Code> {
    out.json_or(batch, || {
        let Batch {
            id,
            state,
            ended,
            total,
            ..
        } = batch;
        format!("{id}  {state}  {ended} of {total} ended")
    })?;
    Ok(Code::Done)
}

/// A batch as a person reads it.
fn shown(out: &mut Printer, batch: &Batch) -> Result<Code> {
    if out.is_json() {
        out.json(batch)?;
        return Ok(Code::Done);
    }
    let now = Timestamp::now();
    let when = |time: &String| format!("{time}  ({})", show::ago(now, time));
    let counts = batch.counts.iter().flatten().filter(|(_, count)| **count > 0);
    let counts: Vec<String> = counts.map(|(state, count)| format!("{count} {state}")).collect();
    let lines = [
        ("id", Some(batch.id.clone())),
        ("name", batch.name.clone()),
        ("state", Some(batch.state.clone())),
        (
            "ended",
            Some(format!(
                "{} of {} ({:.0} %)",
                batch.ended,
                batch.total,
                batch.progress * 100.0
            )),
        ),
        ("tasks", Some(counts.join(", ")).filter(|text| !text.is_empty())),
        ("then", batch.completion_task_id.clone()),
        ("opened", Some(when(&batch.created_at))),
        ("closed", batch.closed_at.as_ref().map(when)),
        ("cancelled", batch.cancelled_at.as_ref().map(when)),
        ("completed", batch.completed_at.as_ref().map(when)),
    ];
    for (name, text) in lines {
        if let Some(text) = text {
            out.line(format!("{name:<10} {text}"))?;
        }
    }
    Ok(Code::Done)
}
