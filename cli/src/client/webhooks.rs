//! `forebay webhooks`: who hears of the ends of tasks.

use forebay_client::{Client, NewWebhook, Webhook, WebhookReplay, WebhookReplayed};
use jiff::Timestamp;

use super::{
    connect, deleted, each,
    print::{Printer, table},
    show, yes_or_no,
};
use crate::{
    args::{ListDeliveries, PutWebhook, ReplayWebhook, Webhooks, WebhooksCommand},
    exit::{Code, Failure, Result},
};

pub(crate) async fn webhooks(args: Webhooks) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    match args.command.unwrap_or(WebhooksCommand::List) {
        WebhooksCommand::List => list(&client, &mut out).await,
        WebhooksCommand::Get(args) => shown(&mut out, &client.webhook(&args.name).await?),
        WebhooksCommand::Put(args) => {
            let name = args.name.clone();
            shown(&mut out, &client.put_webhook(&name, &new_webhook(args)?).await?)
        }
        WebhooksCommand::Test(args) => told(&mut out, &client.test_webhook(&args.name).await?),
        WebhooksCommand::Deliveries(args) => deliveries(&client, &mut out, &args).await,
        WebhooksCommand::Replay(args) => replay(&client, &mut out, args).await,
        WebhooksCommand::Delete(args) => {
            let delete = async |name: &str| client.delete_webhook(name).await;
            each(&args.names, delete, |name, ()| deleted(&mut out, name)).await
        }
    }
}

async fn list(client: &Client, out: &mut Printer) -> Result<Code> {
    let webhooks = client.webhooks().await?;
    let now = Timestamp::now();
    let rows = webhooks.iter().map(|webhook| {
        vec![
            webhook.name.clone(),
            show::cut(&webhook.url, show::LONG),
            webhook.states.join(","),
            yes_or_no(webhook.disabled).to_owned(),
            webhook
                .failing_since
                .as_ref()
                .map_or_else(|| "-".to_owned(), |since| show::ago(now, since)),
        ]
    });
    let lines = table(&["NAME", "URL", "STATES", "DISABLED", "FAILING SINCE"], rows);
    out.list(&webhooks, lines, "no webhooks yet")
}

async fn deliveries(client: &Client, out: &mut Printer, args: &ListDeliveries) -> Result<Code> {
    let deliveries = client.deliveries(&args.name, args.limit as usize).await?;
    let now = Timestamp::now();
    let or_none = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_owned());
    let rows = deliveries.iter().map(|delivery| {
        vec![
            or_none(delivery.id.as_ref()),
            delivery.kind.clone(),
            or_none(delivery.task_id.as_ref()),
            delivery.state.clone(),
            delivery.attempt.to_string(),
            show::ago(now, &delivery.created_at),
            delivery
                .error
                .as_ref()
                .map_or_else(|| "-".to_owned(), |error| show::cut(error, show::LONG)),
        ]
    });
    let lines = table(
        &["ID", "TYPE", "TASK", "STATE", "ATTEMPT", "CREATED", "ERROR"],
        rows,
    );
    out.list(&deliveries, lines, "no deliveries yet")
}

/// Goes on until there is no more of what there was when it began: what fails again is not told again.
async fn replay(client: &Client, out: &mut Printer, args: ReplayWebhook) -> Result<Code> {
    let what = match (args.task, args.since) {
        (Some(task), _) => WebhookReplay::Task(task),
        (None, Some(since)) => WebhookReplay::Missed {
            since: since.to_string(),
            until: Some(Timestamp::now().to_string()),
        },
        (None, None) => return Err(Failure::usage("give --task or --since")),
    };
    let mut all = client.replay_webhook(&args.name, &what).await?;
    while all.more {
        let next = client.replay_webhook(&args.name, &what).await?;
        all.deliveries.extend(next.deliveries);
        all.more = next.more;
    }
    told(out, &all)
}

fn told(out: &mut Printer, replayed: &WebhookReplayed) -> Result<Code> {
    out.json_or(replayed, || match &replayed.deliveries[..] {
        [] => "there was nothing to tell".to_owned(),
        ids => ids.join("\n"),
    })?;
    Ok(Code::Done)
}

fn new_webhook(args: PutWebhook) -> Result<NewWebhook> {
    let secret = match args.secret {
        Some(secret) if secret == "-" => Some(std::io::read_to_string(std::io::stdin())?.trim().to_owned()),
        secret => secret,
    };
    Ok(NewWebhook {
        url: args.endpoint,
        secret,
        states: (!args.state.is_empty()).then_some(args.state),
        include_result: args.include_result,
        disabled: args.disabled,
    })
}

/// A webhook as a person reads it.
fn shown(out: &mut Printer, webhook: &Webhook) -> Result<Code> {
    if out.is_json() {
        out.json(webhook)?;
        return Ok(Code::Done);
    }
    let now = Timestamp::now();
    let lines = [
        ("name", Some(webhook.name.clone())),
        ("url", Some(webhook.url.clone())),
        (
            "secret",
            webhook
                .secret
                .as_ref()
                .map(|secret| format!("{secret}  (shown this once)")),
        ),
        ("states", Some(webhook.states.join(", "))),
        ("results", webhook.include_result.then(|| "are told".to_owned())),
        ("disabled", webhook.disabled.then(|| "yes".to_owned())),
        ("reason", webhook.disabled_reason.clone()),
        (
            "failing",
            webhook
                .failing_since
                .as_ref()
                .map(|since| format!("since {since}")),
        ),
        (
            "rotating",
            webhook
                .previous_secret_until
                .clone()
                .map(|until| format!("until {until}")),
        ),
        ("created", Some(show::ago(now, &webhook.created_at))),
        ("updated", Some(show::ago(now, &webhook.updated_at))),
    ];
    out.fields(lines)?;
    Ok(Code::Done)
}
