//! `forebay schedules`: tasks by the clock.

use forebay_client::{Client, NewSchedule, Schedule, ScheduledTask};
use jiff::Timestamp;

use super::{
    connect, deleted, each,
    print::{Printer, table},
    show, submit, yes_or_no,
};
use crate::{
    args::{PutSchedule, Schedules, SchedulesCommand},
    exit::{Code, Result},
};

pub(crate) async fn schedules(args: Schedules) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    match args.command.unwrap_or(SchedulesCommand::List) {
        SchedulesCommand::List => list(&client, &mut out).await,
        SchedulesCommand::Get(args) => {
            let schedule = client.schedule(&args.name, Some(args.upcoming)).await?;
            shown(&mut out, &schedule)
        }
        SchedulesCommand::Put(args) => {
            let name = args.name.clone();
            let schedule = client.put_schedule(&name, &new_schedule(*args)?).await?;
            told(&mut out, &schedule)
        }
        SchedulesCommand::Pause(args) => told(&mut out, &client.pause_schedule(&args.name, true).await?),
        SchedulesCommand::Resume(args) => told(&mut out, &client.pause_schedule(&args.name, false).await?),
        SchedulesCommand::Delete(args) => {
            let delete = async |name: &str| client.delete_schedule(name).await;
            each(&args.names, delete, |name, ()| deleted(&mut out, name)).await
        }
    }
}

async fn list(client: &Client, out: &mut Printer) -> Result<Code> {
    let schedules = client.schedules().await?;
    let now = Timestamp::now();
    let when = |time: Option<&String>| time.map_or_else(|| "-".to_owned(), |time| show::ago(now, time));
    let rows = schedules.iter().map(|schedule| {
        vec![
            schedule.name.clone(),
            show::cut(&schedule.cron, show::SHORT),
            schedule.time_zone.clone(),
            schedule.task.kind.clone(),
            when(schedule.next.first()),
            when(schedule.last_tick.as_ref()),
            yes_or_no(schedule.paused).to_owned(),
        ]
    });
    let lines = table(&["NAME", "CRON", "ZONE", "KIND", "NEXT", "LAST", "PAUSED"], rows);
    out.list(&schedules, lines, "no schedules yet")
}

fn new_schedule(args: PutSchedule) -> Result<NewSchedule> {
    let run = args.run_terms;
    Ok(NewSchedule {
        cron: args.cron,
        time_zone: args.time_zone,
        task: ScheduledTask {
            kind: args.kind,
            queue: args.queue,
            project: None,
            priority: args.priority.map(|priority| priority.to_string()),
            payload: args.payload.as_deref().map(submit::payload).transpose()?,
            tags: args.tag,
            max_attempts: args.max_attempts,
            timeout_seconds: args.timeout.map(|timeout| timeout.as_secs_f64()),
            heartbeat_timeout_seconds: run.heartbeat_timeout.map(|timeout| timeout.as_secs_f64()),
            retry: run.retry(),
            limit_key: run.limit_key,
            notify: run.notify,
        },
        overlap: args.overlap.map(|overlap| overlap.to_string()),
        catch_up_seconds: args.catch_up.map(|span| span.as_secs_f64()),
        jitter_seconds: args.jitter.map(|span| span.as_secs_f64()),
        paused: args.paused,
    })
}

/// What became of a schedule, in a line.
fn told(out: &mut Printer, schedule: &Schedule) -> Result<Code> {
    out.json_or(schedule, || {
        let name = &schedule.name;
        match schedule.next.first() {
            _ if schedule.paused => format!("{name} is paused"),
            Some(next) => {
                format!("{name}  next {next} ({})", show::ago(Timestamp::now(), next))
            }
            None => format!("{name} has no next tick"),
        }
    })?;
    Ok(Code::Done)
}

/// A schedule as a person reads it.
fn shown(out: &mut Printer, schedule: &Schedule) -> Result<Code> {
    if out.is_json() {
        out.json(schedule)?;
        return Ok(Code::Done);
    }
    let now = Timestamp::now();
    let when = |time: &String| format!("{time}  ({})", show::ago(now, time));
    let task = &schedule.task;
    let or_default = |text: &Option<String>| text.clone().unwrap_or_else(|| "default".to_owned());
    let lines = [
        ("name", Some(schedule.name.clone())),
        (
            "cron",
            Some(format!(
                "{} in {}",
                show::cut(&schedule.cron, show::LONG),
                schedule.time_zone
            )),
        ),
        ("paused", schedule.paused.then(|| "yes".to_owned())),
        ("kind", Some(task.kind.clone())),
        (
            "queue",
            Some(format!(
                "{} ({} priority)",
                or_default(&task.queue),
                or_default(&task.priority)
            )),
        ),
        (
            "payload",
            task.payload
                .as_ref()
                .map(|json| show::cut(json.get(), show::LONG)),
        ),
        ("tags", (!task.tags.is_empty()).then(|| task.tags.join(", "))),
        ("attempts", task.max_attempts.map(|max| format!("{max} at most"))),
        (
            "timeout",
            task.timeout_seconds.map(|seconds| format!("{seconds} s")),
        ),
        (
            "heartbeat",
            task.heartbeat_timeout_seconds
                .map(|seconds| format!("at least every {seconds} s")),
        ),
        ("retry", task.retry.as_ref().map(show::retry)),
        ("limit key", show::said(task.limit_key.as_deref())),
        ("notify", show::said(Some(&task.notify.join(", ")))),
        ("overlap", Some(schedule.overlap.clone())),
        ("catch up", Some(format!("{} s", schedule.catch_up_seconds))),
        ("jitter", Some(format!("{} s", schedule.jitter_seconds))),
        ("created", Some(when(&schedule.created_at))),
        ("updated", Some(when(&schedule.updated_at))),
        ("last", schedule.last_tick.as_ref().map(when)),
        ("task", schedule.last_task_id.clone()),
    ];
    out.fields(lines)?;
    out.fields(schedule.next.iter().map(|next| ("next", Some(when(next)))))?;
    Ok(Code::Done)
}
