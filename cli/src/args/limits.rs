//! `forebay limits`.

use std::{str::FromStr, time::Duration};

use clap::{Args, Subcommand};
use forebay_runtime::config::values::positive_duration;

use super::Common;

#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "\
Examples:
  forebay limits put database --queue imports --concurrency 20
  forebay limits put per-customer --by-key --concurrency 1
  forebay limits put mail --kind mail.send --rate 100/1m --burst 10
  forebay limits get per-customer

Without a command it lists."
)]
pub(crate) struct Limits {
    #[command(subcommand)]
    pub(crate) command: Option<LimitsCommand>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// List all limits, by name.
    List,
    /// Show a limit, how many tasks run that count to it, and how many it holds back.
    Get(LimitName),
    /// Make a limit, or replace the one of that name.
    Put(PutLimit),
    /// Delete limits. What they held back goes on.
    Delete(LimitNames),
}

#[derive(Debug, Args)]
pub(crate) struct LimitName {
    /// The limit.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct LimitNames {
    /// The limits.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay limits put database --queue imports --concurrency 20
  forebay limits put per-customer --by-key --concurrency 1
  forebay limits put mail --kind mail.send --rate 100/1m --burst 10

It holds for whatever is started a second later. All that is not given is as for a new limit: what
was there before is replaced as a whole.")]
pub(crate) struct PutLimit {
    /// Names it.
    pub(crate) name: String,
    /// Only tasks of this queue count; of all queues unless given.
    #[arg(long, value_name = "QUEUE")]
    pub(crate) queue: Option<String>,
    /// Only tasks of this kind count; of all kinds unless given.
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Count only tasks with a --limit-key, those of each key by themselves.
    #[arg(long)]
    pub(crate) by_key: bool,
    /// How many may run at a time.
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<u32>,
    /// How many may start in a time, such as 10/1s or 1000/1h.
    #[arg(long, value_name = "N/DURATION")]
    pub(crate) rate: Option<Rate>,
    /// How many may start at once after a rest; as many as the rate says unless given.
    #[arg(long, value_name = "N", requires = "rate")]
    pub(crate) burst: Option<u32>,
}

/// So many in such a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) count: u32,
    pub(crate) per: Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "must be a number and a time, such as 10/1s or 1000/1h".to_owned();
        let (count, per) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self {
            count: count.trim().parse().map_err(|_| wrong())?,
            per: positive_duration(per.trim()).map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_time() {
        let rate = |text: &str| text.parse::<Rate>();
        let minute = Rate {
            count: 100,
            per: Duration::from_secs(60),
        };
        assert_eq!((rate("100/1m"), rate("100 / 1m")), (Ok(minute), Ok(minute)));
        for wrong in [
            "", "100", "/1s", "100/", "100/0s", "-1/1s", "x/1s", "1/s", "1/1s/1s",
        ] {
            assert!(rate(wrong).unwrap_err().contains("10/1s"), "{wrong}");
        }
    }
}
