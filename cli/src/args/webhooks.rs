use clap::{Args, Subcommand};

use super::Common;

#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "\
Examples:
  forebay webhooks put billing https://example.com/hook --state failed --state expired
  forebay webhooks test billing
  forebay webhooks deliveries billing
  forebay webhooks replay billing --since 2026-11-22T00:00:00Z

Without a command it lists."
)]
pub(crate) struct Webhooks {
    #[command(subcommand)]
    pub(crate) command: Option<WebhooksCommand>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WebhooksCommand {
    /// List all webhooks, by name.
    List,
    /// Show a webhook, without its secret.
    Get(WebhookArg),
    /// Make a webhook, or replace the one of that name.
    Put(PutWebhook),
    /// Send a trial event to a webhook.
    Test(WebhookArg),
    /// List what a webhook was told, the latest first.
    Deliveries(ListDeliveries),
    /// Tell a webhook again: of one task, or all that has not arrived since a time.
    Replay(ReplayWebhook),
    /// Delete webhooks.
    Delete(WebhookNames),
}

#[derive(Debug, Args)]
pub(crate) struct WebhookArg {
    /// The webhook.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct WebhookNames {
    /// The webhooks.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Where no secret is given, a new webhook gets one that is made for it, which is printed this once;
one that is replaced keeps its own. Where another is given, both sign for a day.

All else that is not given is as for a new webhook: what was there before is replaced as a whole.")]
pub(crate) struct PutWebhook {
    /// Names it: what tasks say with --notify.
    pub(crate) name: String,
    /// Where events are posted to.
    #[arg(value_name = "URL")]
    pub(crate) endpoint: String,
    /// What events are signed with: whsec_ and the base64 of 24 to 64 bytes; or - to read it from standard input.
    #[arg(long, value_name = "SECRET|-")]
    pub(crate) secret: Option<String>,
    /// Which ends it hears of: succeeded, failed, cancelled or expired; may be given several times. All unless given.
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Vec<String>,
    /// Put the task's result into the event.
    #[arg(long)]
    pub(crate) include_result: bool,
    /// Let it rest. What it would have heard of is noted, and can be replayed.
    #[arg(long)]
    pub(crate) disabled: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListDeliveries {
    /// The webhook.
    pub(crate) name: String,
    /// How many at the most.
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayWebhook {
    /// The webhook.
    pub(crate) name: String,
    /// Tell the end of this task again.
    #[arg(
        long,
        value_name = "ID",
        required_unless_present = "since",
        conflicts_with = "since"
    )]
    pub(crate) task: Option<String>,
    /// Tell all that has not arrived since then, such as 2026-11-22T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    pub(crate) since: Option<jiff::Timestamp>,
}
