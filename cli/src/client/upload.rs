//! `forebay submit --file`: a file of tasks, as one stream.

use std::{
    io::{BufWriter, IsTerminal, Write},
    path::Path,
    time::Duration,
};

use forebay_client::ItemResult;
use futures::{StreamExt, pin_mut};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::AsyncRead;

use super::{connect, print::Printer};
use crate::{
    args::Submit,
    exit::{Code, Failure, Result},
};

/// How many refusals are shown one by one.
const REFUSALS_SHOWN: u64 = 10;
/// Where there is no terminal: a line of progress after so many tasks.
const LINE_EVERY: u64 = 10_000;

pub(super) async fn upload(args: &Submit, path: &Path) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    let mut ids = args.ids.as_deref().map(IdFile::create).transpose()?;
    let (input, size) = open(path).await?;
    let bar = progress(size);
    let results = client.submit_ndjson(bar.wrap_async_read(input)).await?;
    pin_mut!(results);
    let mut count = Count::default();
    let broken = loop {
        match results.next().await {
            Some(Ok(item)) => {
                if let (Some(ids), Some(id)) = (&mut ids, &item.id) {
                    ids.add(id)?;
                }
                count.add(&item, &bar, &mut out)?;
            }
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    bar.finish_and_clear();
    // Whatever happened: what was accepted is accepted, and its ids are on disk.
    if let Some(ids) = ids {
        ids.finish()?;
    }
    if let Some(error) = broken {
        let Failure { code, message } = error.into();
        let so_far = format!(
            "{message}; {} tasks were accepted before, perhaps some more",
            count.accepted
        );
        return Err(Failure::new(code, so_far));
    }
    count.told(&mut out)
}

async fn open(path: &Path) -> Result<(Box<dyn AsyncRead + Send + Unpin>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    let unreadable = |error| Failure::usage(format_args!("cannot read {}: {error}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let about = file.metadata().await.map_err(unreadable)?;
    if about.is_dir() {
        return Err(unreadable(std::io::ErrorKind::IsADirectory.into()));
    }
    Ok((Box::new(file), Some(about.len())))
}

/// A bar on a terminal, and nothing otherwise.
fn progress(size: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{wide_bar} {bytes}/{total_bytes} {msg} {eta}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg} {elapsed}"),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style)
}

#[derive(Default)]
struct Count {
    accepted: u64,
    refused: u64,
    /// Whether the server could not take some that it might take later.
    unavailable: bool,
}

impl Count {
    fn add(&mut self, item: &ItemResult, bar: &ProgressBar, out: &mut Printer) -> Result<()> {
        if out.is_json() {
            out.json(item)?;
        }
        match &item.error {
            None => self.accepted += 1,
            Some(problem) => {
                self.refused += 1;
                self.unavailable |= matches!(problem.status, 408 | 429 | 503);
                if self.refused <= REFUSALS_SHOWN && !out.is_json() {
                    bar.suspend(|| eprintln!("forebay: line {}: {problem}", item.index + 1));
                }
            }
        }
        let seen = self.accepted + self.refused;
        bar.set_message(format!("{} accepted, {} refused", self.accepted, self.refused));
        if bar.is_hidden() && seen.is_multiple_of(LINE_EVERY) && !out.is_json() {
            out.line(format_args!(
                "{} accepted, {} refused so far",
                self.accepted, self.refused
            ))?;
        }
        Ok(())
    }

    fn told(&self, out: &mut Printer) -> Result<Code> {
        if !out.is_json() {
            out.line(format_args!(
                "{} accepted, {} refused",
                self.accepted, self.refused
            ))?;
        }
        Ok(match (self.refused, self.unavailable) {
            (0, _) => Code::Done,
            (_, true) => Code::Unreachable,
            (_, false) => Code::Refused,
        })
    }
}

/// The file that `--ids` names.
struct IdFile(BufWriter<std::fs::File>);

impl IdFile {
    fn create(path: &Path) -> Result<Self> {
        match std::fs::File::create(path) {
            Ok(file) => Ok(Self(BufWriter::new(file))),
            Err(error) => Err(Failure::usage(format_args!(
                "cannot write {}: {error}",
                path.display()
            ))),
        }
    }

    fn add(&mut self, id: &str) -> Result<()> {
        Ok(writeln!(self.0, "{id}")?)
    }

    fn finish(self) -> Result<()> {
        let file = self
            .0
            .into_inner()
            .map_err(|error| Failure::from(error.into_error()))?;
        Ok(file.sync_all()?)
    }
}
