//! `forebay submit`: one task.

use std::{io::Read, time::Duration};

use forebay_client::{NewTask, SubmitOptions, Task};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{connect, print::Printer, show, upload};
use crate::{
    args::Submit,
    exit::{Code, Failure, Result},
};

/// The longest that a server holds an answer back; beyond, the task is looked at again and again.
const HELD_BACK_MAX: Duration = Duration::from_secs(30);

pub(crate) async fn submit(mut args: Submit) -> Result<Code> {
    if let Some(path) = args.file.take() {
        return upload::upload(&args, &path).await;
    }
    if args.ids.is_some() {
        // clap does not insist on --file where another argument excludes it.
        return Err(Failure::usage(
            "--ids is for --file: the id of a single task is printed",
        ));
    }
    let (client, mut out) = connect(&args.common)?;
    let options = SubmitOptions {
        idempotency_key: args.idempotency_key.take(),
        wait: args.wait.map(|wait| wait.min(HELD_BACK_MAX)),
    };
    let wait = args.wait;
    let began = std::time::Instant::now();
    let mut task = client.submit(&new_task(args)?, &options).await?;
    let Some(wait) = wait else {
        out.json_or(&task, || format!("{}  {}", task.id, show::state(&task)))?;
        return Ok(Code::Done);
    };
    let left = wait.saturating_sub(began.elapsed());
    if !task.is_final() && !left.is_zero() {
        // It is accepted, whatever becomes of the question how it does.
        if let Ok(Ok(seen)) = timeout(left, client.wait(&task.id, left)).await {
            task = seen;
        }
    }
    ended(&mut out, &task)
}

/// Shows how a task ended, and tells it in the exit code.
pub(super) fn ended(out: &mut Printer, task: &Task) -> Result<Code> {
    out.json_or(task, || {
        let (id, state) = (&task.id, show::state(task));
        match (&task.result, &task.error) {
            (Some(result), _) if task.has_succeeded() => format!("{id}  {state}\n{}", result.get()),
            (_, Some(error)) => format!("{id}  {state}: {}", show::cut(&error.message, 500)),
            _ => format!("{id}  {state}"),
        }
    })?;
    match (task.is_final(), task.has_succeeded()) {
        (_, true) => Ok(Code::Done),
        (true, false) => Ok(Code::Failed),
        (false, _) => Err(Failure::new(
            Code::Pending,
            format_args!("it has not ended yet; follow it with: forebay watch {}", task.id),
        )),
    }
}

fn new_task(args: Submit) -> Result<NewTask> {
    let (terms, run) = (args.task_terms, args.run_terms);
    Ok(NewTask {
        kind: args.kind.unwrap_or_default(),
        payload: args.payload.as_deref().map(payload).transpose()?,
        queue: args.queue,
        priority: args.priority.map(|priority| priority.to_string()),
        tags: args.tag,
        run_at: args.run_at.map(|at| at.to_string()),
        delay_seconds: args.delay.map(|delay| delay.as_secs_f64()),
        max_attempts: args.max_attempts,
        timeout_seconds: args.timeout.map(|timeout| timeout.as_secs_f64()),
        expires_at: terms.expires_at.map(|at| at.to_string()),
        schedule_to_start_timeout_seconds: terms.expires_in.map(|within| within.as_secs_f64()),
        heartbeat_timeout_seconds: run.heartbeat_timeout.map(|timeout| timeout.as_secs_f64()),
        retry: run.retry(),
        limit_key: run.limit_key,
        unique: terms.unique(),
        after: terms.after,
        on_dependency_failure: terms
            .on_dependency_failure
            .map(|policy| policy.as_str().to_owned()),
        notify: run.notify,
    })
}

/// The payload as it was given on the command line.
pub(super) fn payload(given: &str) -> Result<Box<RawValue>> {
    let text = match given {
        "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::usage(format_args!("cannot read the payload: {error}")))?;
            text
        }
        given => given.to_owned(),
    };
    serde_json::from_str(text.trim()).map_err(|error| {
        Failure::usage(format_args!(
            "the payload is not JSON: {error}; a text needs quotes of its own, as in '\"text\"'"
        ))
    })
}
