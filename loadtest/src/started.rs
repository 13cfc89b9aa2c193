//! `--start`: private servers for one run, so that anyone can try it with one command.

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    args::{ServerArgs, Start},
    live::Live,
    stack::{Forebay, Stack},
};

/// What was started; it ends when this is dropped.
pub(crate) enum Started {
    /// Servers, an api and workers.
    Stack {
        /// The workers; first, as they are to end before what they work with.
        workers: Vec<Forebay>,
        /// The servers, and the api.
        stack: Box<Stack>,
    },
    /// One process.
    Dev {
        /// The process.
        forebay: Box<Forebay>,
        /// Its data.
        _folder: TempDir,
    },
}

impl Started {
    /// Starts what was asked for, and waits until it is ready.
    pub(crate) async fn start(start: Start, args: &ServerArgs, live: &Live) -> Result<Self> {
        live.note(&format!(
            "Starting {}",
            start.describe(args.workers, args.concurrency)
        ));
        let concurrency = args.concurrency.to_string();
        let Some(broker) = start.broker() else {
            let folder = tempfile::tempdir()?;
            let data = folder.path().join("data").display().to_string();
            let dev = ["dev", "--data", &data, "--concurrency", &concurrency];
            return Ok(Self::Dev {
                forebay: Box::new(Forebay::start(&dev, &[]).await?),
                _folder: folder,
            });
        };
        let stack = Box::new(Stack::start(broker).await?);
        let mut workers = Vec::new();
        for _ in 0..args.workers {
            workers.push(stack.worker(&concurrency).await?);
        }
        Ok(Self::Stack { stack, workers })
    }

    /// Directs the load to it.
    pub(crate) fn aim(&self, args: &mut ServerArgs) {
        let api = match self {
            Self::Stack { stack, .. } => {
                args.database_url = Some(stack.postgres.url());
                &stack.api
            }
            Self::Dev { forebay, .. } => {
                args.database_url = None;
                forebay
            }
        };
        args.url.clone_from(&api.http);
        args.grpc_url.clone_from(&api.grpc);
    }

    /// The processes, by name and id.
    pub(crate) fn processes(&self) -> Vec<(String, u32)> {
        match self {
            Self::Dev { forebay, .. } => vec![("forebay dev".to_owned(), forebay.pid())],
            Self::Stack { stack, workers } => {
                let named = (1..)
                    .zip(workers)
                    .map(|(number, worker)| (format!("worker {number}"), worker.pid()));
                [("api".to_owned(), stack.api.pid())]
                    .into_iter()
                    .chain(named)
                    .collect()
            }
        }
    }
}
