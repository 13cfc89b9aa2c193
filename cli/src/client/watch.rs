//! `forebay watch`: what happens, as it happens.

use forebay_client::{Client, Event, EventFilter, Heard};
use futures::{StreamExt, pin_mut};

use super::{connect, print::Printer, show, submit::ended};
use crate::{
    args::Watch,
    exit::{Code, Result},
};

pub(crate) async fn watch(args: Watch) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    match args.id {
        Some(id) => watch_task(&client, &mut out, &id).await,
        None => {
            let filter = EventFilter {
                task: None,
                queue: args.queue,
                kind: args.kind,
            };
            watch_all(&client, &mut out, filter).await
        }
    }
}

async fn watch_all(client: &Client, out: &mut Printer, filter: EventFilter) -> Result<Code> {
    let heard = client.events(filter).await?;
    pin_mut!(heard);
    while let Some(heard) = heard.next().await {
        tell(out, &heard?)?;
    }
    Ok(Code::Done)
}

/// Looks first, which waits for a task that is not recorded yet. What happens in between is told: a stream begins
/// with the present state.
async fn watch_task(client: &Client, out: &mut Printer, id: &str) -> Result<Code> {
    let mut task = client.get(id).await?;
    if !task.is_final() {
        let filter = EventFilter {
            task: Some(id.to_owned()),
            ..EventFilter::default()
        };
        let heard = client.events(filter).await?;
        pin_mut!(heard);
        while let Some(heard) = heard.next().await {
            tell(out, &heard?)?;
        }
        task = client.get(id).await?;
    }
    ended(out, &task)
}

fn tell(out: &mut Printer, heard: &Heard) -> Result<()> {
    match heard {
        Heard::Event(event) => out.json_or(event, || line(event)),
        Heard::Gap => {
            eprintln!("forebay: some events may have been missed");
            Ok(())
        }
        Heard::Lost(reason) => {
            eprintln!("forebay: {reason}; connecting again");
            Ok(())
        }
    }
}

fn line(event: &Event) -> String {
    let mut line = format!(
        "{:<27}  {:<9}  {}  attempt {}",
        event.at, event.state, event.id, event.attempt
    );
    for more in [&event.queue, &event.kind].into_iter().flatten() {
        line.push_str("  ");
        line.push_str(more);
    }
    if let Some(progress) = &event.progress {
        line.push_str("  ");
        line.push_str(&show::progress(progress));
    }
    line
}
