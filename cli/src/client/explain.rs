//! `forebay explain`: why a task is where it is.

use forebay_client::{Explanation, Hold};
use jiff::Timestamp;

use super::{connect, print::Printer, show};
use crate::{
    args::Get,
    exit::{Code, Result},
};

pub(crate) async fn explain(args: Get) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    let explained = client.explain(&args.id).await?;
    shown(&mut out, &explained)?;
    Ok(Code::Done)
}

fn shown(out: &mut Printer, explained: &Explanation) -> Result<()> {
    if out.is_json() {
        return out.json(explained);
    }
    let now = Timestamp::now();
    let when = |time: &String| format!("{time}  ({})", show::ago(now, time));
    let lines = [
        ("id", Some(explained.id.clone())),
        ("state", Some(explained.state.clone())),
        ("reason", Some(explained.reason.clone())),
        ("why", Some(show::cut(&explained.detail, show::LONG))),
        ("run at", explained.run_at.as_ref().map(when)),
        (
            "attempt",
            explained.next_attempt.map(|next| format!("{next} comes next")),
        ),
        (
            "ahead",
            explained
                .ahead
                .map(|ahead| ahead_of(ahead, explained.ahead_is_exact)),
        ),
        (
            "worker",
            explained
                .worker
                .as_ref()
                .map(|id| worker(id, explained.worker_name.as_ref())),
        ),
        ("limit", explained.limit.as_ref().map(limit)),
        ("batch", explained.batch.clone()),
    ];
    out.fields(lines)?;
    for task in &explained.blocked_on {
        out.line(format_args!("{:<9} {task}", "waits for"))?;
    }
    Ok(())
}

fn ahead_of(ahead: u64, is_exact: Option<bool>) -> String {
    match is_exact {
        Some(false) => format!("{ahead} or more"),
        _ => ahead.to_string(),
    }
}

fn worker(id: &str, name: Option<&String>) -> String {
    match name {
        Some(name) => format!("{} ({id})", show::cut(name, show::SHORT)),
        None => id.to_owned(),
    }
}

fn limit(hold: &Hold) -> String {
    let key = hold
        .key
        .as_ref()
        .map_or_else(String::new, |key| format!(" key {key},"));
    let most = hold
        .concurrency
        .map_or_else(String::new, |most| format!(" of {most}"));
    format!(
        "{}:{key} {}{most} running, {} held back before it",
        hold.name, hold.running, hold.ahead
    )
}
