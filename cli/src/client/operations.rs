//! `forebay operations`: one action on many tasks.

use std::time::Duration;

use forebay_client::{Client, NewOperation, Operation, OperationFilter};
use jiff::Timestamp;

use super::{
    connect,
    print::{Printer, table},
    show,
};
use crate::{
    args::{BeginOperation, Operations, OperationsCommand},
    exit::{Code, Result},
};

/// How often an operation is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) async fn operations(args: Operations) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    match args.command.unwrap_or(OperationsCommand::List) {
        OperationsCommand::List => list(&client, &mut out).await,
        OperationsCommand::Get(args) => {
            let operation = client.operation(&args.id).await?;
            shown(&mut out, &operation)
        }
        OperationsCommand::Retry(args) => begin(&client, &mut out, "retry", *args).await,
        OperationsCommand::Cancel(args) => begin(&client, &mut out, "cancel", *args).await,
        OperationsCommand::Delete(args) => begin(&client, &mut out, "delete", *args).await,
        OperationsCommand::Abort(args) => {
            let operation = client.abort_operation(&args.id).await?;
            told(&mut out, &operation)
        }
    }
}

async fn list(client: &Client, out: &mut Printer) -> Result<Code> {
    /// How many are shown.
    const SHOWN: usize = 50;
    let operations = client.operations(SHOWN).await?;
    let now = Timestamp::now();
    let rows = operations.iter().map(|operation| {
        vec![
            operation.id.clone(),
            operation.action.clone(),
            operation.state.clone(),
            progress(operation),
            filter(&operation.filter),
            show::ago(now, &operation.created_at),
        ]
    });
    let lines = table(&["ID", "ACTION", "STATE", "DONE", "FILTER", "CREATED"], rows);
    out.list(&operations, lines, "no operations yet")
}

async fn begin(client: &Client, out: &mut Printer, action: &str, args: BeginOperation) -> Result<Code> {
    let (is_dry, wait) = (args.dry_run, args.wait);
    let asked = asked(action, args);
    if is_dry {
        return counted(client, out, &asked).await;
    }
    let mut operation = client.begin_operation(&asked).await?;
    while wait && !operation.has_ended() {
        tokio::time::sleep(LOOK).await;
        operation = client.operation(&operation.id).await?;
    }
    told(out, &operation)
}

fn asked(action: &str, args: BeginOperation) -> NewOperation {
    let ago = |span: Duration| {
        let then = Timestamp::now().saturating_sub(span);
        then.unwrap_or(Timestamp::UNIX_EPOCH).to_string()
    };
    NewOperation {
        action: action.to_owned(),
        filter: OperationFilter {
            state: args.state.map(|state| state.to_string()),
            project: args.project,
            queue: args.queue,
            kind: args.kind,
            tag: args.tag,
            batch: args.batch,
            created_after: args.since.map(ago),
            created_before: args.before.map(ago),
            error_contains: args.error,
        },
        rate_per_second: args.rate,
        max: args.max,
    }
}

async fn counted(client: &Client, out: &mut Printer, asked: &NewOperation) -> Result<Code> {
    let matching = client.count_for_operation(asked).await?;
    if out.is_json() {
        out.json(&matching)?;
        return Ok(Code::Done);
    }
    let least = if matching.count_is_exact { "" } else { "at least " };
    let count = matching.count;
    out.line(format_args!("{} would be for {least}{count} tasks", asked.action))?;
    for id in &matching.sample {
        out.line(id)?;
    }
    if count > matching.sample.len() as u64 {
        out.line("…")?;
    }
    Ok(Code::Done)
}

/// What became of an operation, in a line.
fn told(out: &mut Printer, operation: &Operation) -> Result<Code> {
    out.json_or(operation, || {
        format!(
            "{}  {} is {}: {}",
            operation.id,
            operation.action,
            operation.state,
            progress(operation)
        )
    })?;
    Ok(Code::Done)
}

/// How much of it is done: `40 of 120, 2 skipped`.
fn progress(operation: &Operation) -> String {
    let least = if operation.expected_is_exact {
        ""
    } else {
        "at least "
    };
    let mut text = format!("{} of {least}{}", operation.progress.done, operation.expected);
    for (count, what) in [
        (operation.progress.skipped, "skipped"),
        (operation.progress.failed, "failed"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

/// What a filter says, in a few words.
fn filter(filter: &OperationFilter) -> String {
    let said = [
        ("state", &filter.state),
        ("project", &filter.project),
        ("queue", &filter.queue),
        ("kind", &filter.kind),
        ("tag", &filter.tag),
        ("batch", &filter.batch),
        ("after", &filter.created_after),
        ("before", &filter.created_before),
        ("error", &filter.error_contains),
    ];
    let said: Vec<String> = said
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
        .collect();
    show::cut(&said.join(" "), show::SHORT)
}

/// An operation as a person reads it.
fn shown(out: &mut Printer, operation: &Operation) -> Result<Code> {
    if out.is_json() {
        out.json(operation)?;
        return Ok(Code::Done);
    }
    let now = Timestamp::now();
    let when = |time: &String| format!("{time}  ({})", show::ago(now, time));
    let lines = [
        ("id", Some(operation.id.clone())),
        ("action", Some(operation.action.clone())),
        ("filter", Some(filter(&operation.filter))),
        ("state", Some(operation.state.clone())),
        ("done", Some(progress(operation))),
        (
            "rate",
            Some(format!("{} a second at most", operation.rate_per_second)),
        ),
        ("max", operation.max.map(|max| max.to_string())),
        ("created", Some(when(&operation.created_at))),
        ("updated", Some(when(&operation.updated_at))),
        ("finished", operation.finished_at.as_ref().map(when)),
    ];
    out.fields(lines)?;
    Ok(Code::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_told_in_what_it_says() {
        let asked = OperationFilter {
            state: Some("failed".into()),
            error_contains: Some("time\u{1b}out".into()),
            ..OperationFilter::default()
        };
        assert_eq!(filter(&asked), "state=failed error=time\u{fffd}out");
    }
}
