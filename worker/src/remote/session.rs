//! One stream, from the worker's Hello to the end of its executor.

use std::{future::pending, sync::Arc, time::Duration};

use forebay_core::WorkerId;
use forebay_proto::v1::{Drain, Welcome, WorkRequest, WorkResponse, work_request::Message, work_response};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use super::{
    Common,
    answers::{Fault, Outbound},
    hello::{self, Accepted},
    starts::{Remote, Starts},
    status,
};
use crate::{Handler, Handlers, executor::Executor};

/// How long is waited for the answer to a registration that nobody needs any more.
const REGISTERS_MAX: Duration = Duration::from_secs(2);

/// A stream whose worker has said nothing yet.
pub(super) struct Session {
    pub(super) common: Arc<Common>,
    pub(super) messages: Streaming<WorkRequest>,
    pub(super) outbound: Outbound,
    pub(super) fault: Arc<Fault>,
}

/// A worker that is not taken.
struct Refused {
    status: Status,
    /// Which the store may know already.
    executor: Option<Box<Executor>>,
}

/// A worker that is connected, and its executor, which runs.
struct Connected {
    common: Arc<Common>,
    messages: Streaming<WorkRequest>,
    outbound: Outbound,
    fault: Arc<Fault>,
    starts: Arc<Starts>,
    run: AbortOnDropHandle<anyhow::Result<()>>,
    /// Drains the executor.
    drain: CancellationToken,
    /// Ends it at once: the worker is dead.
    gone: CancellationToken,
    _slots: OwnedSemaphorePermit,
}

impl Session {
    pub(super) async fn run(mut self) {
        let (outbound, fault) = (self.outbound.clone(), Arc::clone(&self.fault));
        let connected = match self.welcome().await {
            Ok((accepted, slots)) => self.connect(accepted, slots).await,
            Err(status) => Err(Refused {
                status,
                executor: None,
            }),
        };
        match connected {
            Ok(connected) => {
                // Else the stream would not end with the session.
                drop(outbound);
                connected.run().await;
            }
            Err(Refused { status, executor }) => {
                debug!(code = ?status.code(), reason = status.message(), "a remote worker was not taken");
                fault.say(status);
                if let Some(executor) = executor {
                    end_unused(*executor).await;
                }
            }
        }
    }

    /// Hears who it is.
    async fn welcome(&mut self) -> Result<(Accepted, OwnedSemaphorePermit), Status> {
        let limit = self.common.options.hello_max;
        let first = tokio::select! {
            first = timeout(limit, self.messages.message()) => first,
            () = self.common.stop.cancelled() => return Err(status::shutting_down()),
        };
        let first = first.map_err(|_| status::silent(limit))?;
        let first = first.map_err(status::unreadable)?;
        let Some(Message::Hello(hello)) = first.and_then(|request| request.message) else {
            return Err(status::out_of_order("Hello comes first"));
        };
        let accepted = hello::accept(hello)?;
        let slots = Arc::clone(&self.common.slots);
        let wanted = u32::try_from(accepted.slots).unwrap_or(u32::MAX);
        let slots = slots.try_acquire_many_owned(wanted).map_err(|_| {
            status::overloaded(format!(
                "the workers of this server have so many slots already that there is no room for {wanted}"
            ))
        })?;
        Ok((accepted, slots))
    }

    /// Starts its executor, and welcomes it once the store knows it.
    async fn connect(self, hello: Accepted, slots: OwnedSemaphorePermit) -> Result<Connected, Refused> {
        let Self {
            common,
            messages,
            outbound,
            fault,
        } = self;
        let starts = Arc::new(Starts::new(&outbound, Arc::clone(&common.clock)));
        let shared = common.shared(&hello, handlers(&hello, &starts));
        let (drain, gone) = (CancellationToken::new(), CancellationToken::new());
        let executor = Executor::new(Arc::new(shared), &drain);
        let registered = tokio::select! {
            registered = timeout(common.options.hello_max, executor.registered()) => {
                registered.ok().flatten().ok_or_else(status::unregistered)
            }
            () = common.stop.cancelled() => Err(status::shutting_down()),
            () = outbound.closed() => Err(Status::cancelled("the worker is gone")),
        };
        let worker = match registered {
            Ok(worker) => worker,
            Err(status) => {
                return Err(Refused {
                    status,
                    executor: Some(Box::new(executor)),
                });
            }
        };
        info!(%worker, name = hello.name, sdk = hello.sdk, slots = hello.slots, "a remote worker is connected");
        // There is room for the first message.
        let _ = outbound.send(welcome(&common, worker)).await;
        let run = executor.run_until_gone(
            drain.clone(),
            patience(&common),
            gone.clone().cancelled_owned(),
            {
                let starts = Arc::clone(&starts);
                move || starts.waiting()
            },
        );
        Ok(Connected {
            run: AbortOnDropHandle::new(tokio::spawn(run)),
            common,
            messages,
            outbound,
            fault,
            starts,
            drain,
            gone,
            _slots: slots,
        })
    }
}

impl Connected {
    /// Until its executor has ended: since it drained, or since the worker is gone.
    async fn run(mut self) {
        let _counted = self.common.metrics.remote_worker();
        let farewell = tell(&self.common, &self.starts, &self.drain, &self.outbound);
        let conversation = converse(&self.common, &mut self.messages, &self.starts, &self.drain);
        // What the worker has said before it was gone is heard.
        let ended = tokio::select! {
            biased;
            ended = &mut self.run => Ok(ended),
            status = conversation => Err(status),
            () = self.outbound.closed() => Err(Some(Status::cancelled("nobody reads the stream any more"))),
            () = farewell => return,
        };
        let ended = match ended {
            Ok(ended) => ended,
            Err(status) => {
                self.gone.cancel();
                self.drain.cancel();
                if let Some(status) = status {
                    info!(reason = status.message(), "a remote worker is gone");
                    self.fault.say(status);
                }
                (&mut self.run).await
            }
        };
        let problem = match ended {
            Ok(Ok(())) => return,
            Ok(Err(problem)) => format!("{problem:#}"),
            Err(panic) => panic.to_string(),
        };
        warn!(
            error = problem,
            "the executor of a remote worker did not end in good order"
        );
        self.fault.say(status::internal());
    }
}

/// Obeys the worker until it is gone, and says what was wrong with that: nothing, where it had wanted no more tasks and
/// had none.
async fn converse(
    common: &Common,
    messages: &mut Streaming<WorkRequest>,
    starts: &Starts,
    drain: &CancellationToken,
) -> Option<Status> {
    let limit = common.options.silence_max;
    loop {
        let message = match timeout(limit, messages.message()).await {
            Err(_) => return Some(status::silent(limit)),
            Ok(Err(status)) => return Some(status::unreadable(status)),
            Ok(Ok(None)) if drain.is_cancelled() && starts.waiting() == 0 => return None,
            Ok(Ok(None)) => {
                return Some(status::out_of_order(
                    "the stream ended before Drain, or before its tasks",
                ));
            }
            Ok(Ok(Some(request))) => request.message,
        };
        match message {
            // Something that a newer worker says.
            None => {}
            Some(Message::Heartbeat(said)) => starts.alive(said.alive),
            Some(Message::Hello(_)) => return Some(status::out_of_order("Hello comes once")),
            Some(Message::Progress(said)) => starts.progress(said),
            Some(Message::LogLines(said)) => starts.log(&said),
            Some(Message::Finish(finish)) => starts.finish(finish),
            Some(Message::Drain(_)) => drain.cancel(),
        }
    }
}

/// Tells the worker what is to end: tasks, and this server. Never returns.
async fn tell(common: &Common, starts: &Starts, drain: &CancellationToken, outbound: &Outbound) {
    tokio::join!(starts.say_stops(), farewell(common, drain, outbound));
}

/// Tells the worker when this server is about to end. Never returns.
async fn farewell(common: &Common, drain: &CancellationToken, outbound: &Outbound) {
    common.stop.cancelled().await;
    drain.cancel();
    let _ = outbound
        .send(answer(work_response::Message::Drain(Drain {})))
        .await;
    pending::<()>().await;
}

/// How long a drain may take: as long as the worker likes, until this server is about to end.
fn patience(common: &Common) -> impl Future<Output = ()> + Send + 'static {
    let (stop, limit) = (common.stop.clone(), common.options.executor.drain_timeout);
    async move {
        stop.cancelled().await;
        sleep(limit).await;
    }
}

fn handlers(hello: &Accepted, starts: &Arc<Starts>) -> Handlers {
    let remote: Arc<dyn Handler> = Arc::new(Remote(Arc::clone(starts)));
    let mut handlers = Handlers::new();
    for (kind, settings) in &hello.kinds {
        handlers
            .register_shared(kind.clone(), settings.clone(), Arc::clone(&remote))
            .expect("each kind is accepted once");
    }
    handlers
}

fn welcome(common: &Common, worker: WorkerId) -> WorkResponse {
    answer(work_response::Message::Welcome(Welcome {
        worker_id: worker.to_string(),
        heartbeat_interval: common.options.heartbeat.try_into().ok(),
        silence_max: common.options.silence_max.try_into().ok(),
    }))
}

fn answer(message: work_response::Message) -> WorkResponse {
    WorkResponse {
        message: Some(message),
    }
}

/// Ends an executor that has run nothing. Its registration may be under way: what the store has noted is undone, so that
/// nobody is listed who never worked.
async fn end_unused(executor: Executor) {
    let _ = timeout(REGISTERS_MAX, executor.registered()).await;
    let stop = CancellationToken::new();
    stop.cancel();
    if let Err(problem) = executor.run(stop).await {
        warn!(
            error = format!("{problem:#}"),
            "the executor of a remote worker broke, its lease runs out"
        );
    }
}
