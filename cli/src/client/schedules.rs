//! `forebay schedules`: tasks by the clock.

use forebay_client::{Client, Error, NewSchedule, Schedule, ScheduledTask};
use jiff::Timestamp;

use super::{
    connect,
    print::{Printer, table},
    show, submit, yes_or_no,
};
use crate::{
    args::{PutSchedule, Schedules, SchedulesCommand},
    exit::{Code, Failure, Result},
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
        SchedulesCommand::Pause(args) => set_paused(&client, &mut out, &args.name, true).await,
        SchedulesCommand::Resume(args) => set_paused(&client, &mut out, &args.name, false).await,
        SchedulesCommand::Delete(args) => delete(&client, &mut out, &args.names).await,
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

/// Changes one member of a schedule and leaves the others.
async fn set_paused(client: &Client, out: &mut Printer, name: &str, paused: bool) -> Result<Code> {
    let mut schedule = NewSchedule::from(client.schedule(name, Some(0)).await?);
    schedule.paused = paused;
    told(out, &client.put_schedule(name, &schedule).await?)
}

/// Deletes each, and goes on past those that are refused.
async fn delete(client: &Client, out: &mut Printer, names: &[String]) -> Result<Code> {
    let mut code = Code::Done;
    for name in names {
        match client.delete_schedule(name).await {
            Ok(()) => {
                let deleted = serde_json::json!({"name": name, "deleted": true});
                out.json_or(&deleted, || format!("{name} is deleted"))?;
            }
            Err(error @ Error::Refused(_)) if !error.is_unavailable() => {
                eprintln!("forebay: {name}: {error}");
                code = Code::Refused;
            }
            Err(error) => return Err(Failure::from(error)),
        }
    }
    Ok(code)
}

fn new_schedule(args: PutSchedule) -> Result<NewSchedule> {
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
        ("overlap", Some(schedule.overlap.clone())),
        ("catch up", Some(format!("{} s", schedule.catch_up_seconds))),
        ("jitter", Some(format!("{} s", schedule.jitter_seconds))),
        ("created", Some(when(&schedule.created_at))),
        ("updated", Some(when(&schedule.updated_at))),
        ("last", schedule.last_tick.as_ref().map(when)),
        ("task", schedule.last_task_id.clone()),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            out.line(format_args!("{name:<9} {value}"))?;
        }
    }
    for next in &schedule.next {
        out.line(format_args!("{:<9} {}", "next", when(next)))?;
    }
    Ok(Code::Done)
}
