//! The client commands.

mod batches;
mod explain;
mod kinds;
mod limits;
mod operations;
pub(crate) mod print;
mod schedules;
mod show;
mod submit;
mod upload;
mod watch;
mod webhooks;

use forebay_client::{Client, Error, Task, TaskFilter};
use futures::{StreamExt, pin_mut};
use jiff::Timestamp;

use crate::{
    args::{Common, Get, Ids, List, Plain, QueueCommand, Rejects},
    exit::{Code, Failure, Result},
};
use print::{Printer, table};

pub(crate) use batches::batches;
pub(crate) use explain::explain;
pub(crate) use kinds::kinds;
pub(crate) use limits::limits;
pub(crate) use operations::operations;
pub(crate) use schedules::schedules;
pub(crate) use submit::submit;
pub(crate) use watch::watch;
pub(crate) use webhooks::webhooks;

fn connect(common: &Common) -> Result<(Client, Printer)> {
    Ok((Client::new(common.client.url.clone())?, Printer::new(common.json)))
}

pub(crate) async fn get(args: Get) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    let task = client.get(&args.id).await?;
    show::task(&mut out, &task)?;
    Ok(Code::Done)
}

pub(crate) async fn list(args: List) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    let created_after = args.since.map(|since| {
        Timestamp::now()
            .saturating_sub(since)
            .unwrap_or(Timestamp::UNIX_EPOCH)
            .to_string()
    });
    let tasks = client.list(TaskFilter {
        state: args.state.map(|state| state.to_string()),
        queue: args.queue,
        kind: args.kind,
        tag: args.tag,
        created_after,
        created_before: None,
        limit: usize::try_from(args.limit).ok(),
    });
    pin_mut!(tasks);
    let mut rows = Vec::new();
    while let Some(task) = tasks.next().await {
        let task = task?;
        if args.common.json {
            out.json(&task)?;
        } else {
            rows.push(show::row(&task));
        }
    }
    if args.common.json {
        return Ok(Code::Done);
    }
    if rows.is_empty() {
        out.line("no tasks")?;
        return Ok(Code::Done);
    }
    for line in table(&show::COLUMNS, rows) {
        out.line(line)?;
    }
    Ok(Code::Done)
}

pub(crate) async fn cancel(args: Ids) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    let cancel = async |id: &str| client.cancel(id).await;
    each(&args.ids, cancel, |id, task| changed(&mut out, id, &task)).await
}

pub(crate) async fn retry(args: Ids) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    let retry = async |id: &str| client.retry(id).await;
    each(&args.ids, retry, |id, task| changed(&mut out, id, &task)).await
}

fn changed(out: &mut Printer, id: &str, task: &Task) -> Result<()> {
    out.json_or(task, || format!("{id}  {}", show::state(task)))
}

fn deleted(out: &mut Printer, name: &str) -> Result<()> {
    let deleted = serde_json::json!({"name": name, "deleted": true});
    out.json_or(&deleted, || format!("{name} is deleted"))
}

/// Does the same to each, tells of it, and goes on past those that are refused.
async fn each<T>(
    names: &[String],
    change: impl AsyncFn(&str) -> std::result::Result<T, Error>,
    mut tell: impl FnMut(&str, T) -> Result<()>,
) -> Result<Code> {
    let mut code = Code::Done;
    for name in names {
        match change(name).await {
            Ok(changed) => tell(name, changed)?,
            Err(error @ Error::Refused(_)) if !error.is_unavailable() => {
                eprintln!("forebay: {name}: {error}");
                code = Code::Refused;
            }
            Err(error) => return Err(Failure::from(error)),
        }
    }
    Ok(code)
}

pub(crate) async fn queues(args: Plain) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    let queues = client.queues().await?;
    let count = |known: Option<u64>| known.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let rows = queues.iter().map(|queue| {
        vec![
            queue.name.clone(),
            count(queue.ready),
            count(queue.running),
            count(queue.scheduled),
            queue.paused.map_or("?", yes_or_no).to_owned(),
        ]
    });
    let lines = table(&["QUEUE", "READY", "RUNNING", "SCHEDULED", "PAUSED"], rows);
    out.list(&queues, lines, "no queues yet")
}

fn yes_or_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

/// Pauses a queue or resumes it.
pub(crate) async fn pause(args: QueueCommand, paused: bool) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    let queue = match paused {
        true => client.pause_queue(&args.queue).await?,
        false => client.resume_queue(&args.queue).await?,
    };
    let ready = queue
        .ready
        .map_or_else(|| "?".to_owned(), |count| count.to_string());
    out.json_or(&queue, || match paused {
        true => format!(
            "{} is paused: {ready} tasks wait, and workers stop starting them within about a second",
            queue.name
        ),
        false => format!("{} is resumed: {ready} tasks wait", queue.name),
    })?;
    Ok(Code::Done)
}

pub(crate) async fn workers(args: Plain) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    let workers = client.workers().await?;
    let now = Timestamp::now();
    let rows = workers.iter().map(|worker| {
        vec![
            worker.name.clone(),
            worker.id.clone(),
            worker.queues.join(","),
            format!("{}/{}", worker.busy.values().sum::<u32>(), worker.slots),
            if worker.draining { "draining" } else { "running" }.to_owned(),
            show::ago(now, &worker.started_at),
            show::ago(now, &worker.heartbeat_at),
        ]
    });
    let lines = table(
        &["NAME", "ID", "QUEUES", "BUSY", "STATE", "STARTED", "HEARD"],
        rows,
    );
    out.list(&workers, lines, "no workers")
}

pub(crate) async fn rejects(args: Rejects) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    let found = client.rejects(usize::try_from(args.limit).unwrap_or(1)).await?;
    let now = Timestamp::now();
    let rows = found.rejects.iter().map(|reject| {
        vec![
            show::ago(now, &reject.rejected_at),
            show::cut(&reject.subject, SUBJECT_SHOWN),
            reject.bytes.to_string(),
            show::cut(&reject.reason, show::SHORT),
            show::cut(&reject.excerpt, show::SHORT),
        ]
    });
    let lines = table(&["REJECTED", "SUBJECT", "BYTES", "REASON", "BODY"], rows);
    let code = out.list(&found.rejects, lines, "nothing was set aside")?;
    if !args.common.json && found.count > found.rejects.len() as u64 {
        out.line(format_args!(
            "and {} before them",
            found.count - found.rejects.len() as u64
        ))?;
    }
    Ok(code)
}

/// How much of a subject a line shows.
const SUBJECT_SHOWN: usize = 40;
