//! What a worker is told, and how its stream ends.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use forebay_proto::v1::WorkResponse;
use futures::{Stream, task::AtomicWaker};
use tokio::sync::mpsc;
use tonic::Status;

/// How many messages may wait to be read by a worker. Attempts wait beyond.
const OUTBOUND_MAX: usize = 64;

/// The way to the worker. Its stream ends once nobody can say anything more.
pub(super) type Outbound = mpsc::Sender<WorkResponse>;

/// Why a stream ends that does not end in good order. It has its place beside the messages, since a worker that does not read
/// them is not to take its end for a good one.
#[derive(Default)]
pub(super) struct Fault {
    status: OnceLock<Status>,
    reader: AtomicWaker,
}

impl Fault {
    /// Ends the stream. What was said first holds.
    pub(super) fn say(&self, status: Status) {
        let _ = self.status.set(status);
        self.reader.wake();
    }

    fn heard(&self) -> Option<Result<WorkResponse, Status>> {
        self.status.get().cloned().map(Err)
    }
}

/// The worker's end.
pub(super) struct Answers {
    messages: mpsc::Receiver<WorkResponse>,
    fault: Arc<Fault>,
}

/// Both ends of a stream.
pub(super) fn answers() -> (Outbound, Arc<Fault>, Answers) {
    let (outbound, messages) = mpsc::channel(OUTBOUND_MAX);
    let fault = Arc::<Fault>::default();
    let answers = Answers {
        messages,
        fault: Arc::clone(&fault),
    };
    (outbound, fault, answers)
}

impl Stream for Answers {
    type Item = Result<WorkResponse, Status>;

    /// After a fault, the messages that wait are stale: what they start is taken back.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.fault.reader.register(context.waker());
        if let Some(fault) = self.fault.heard() {
            return Poll::Ready(Some(fault));
        }
        let message = ready!(self.messages.poll_recv(context));
        // The fault comes before the end.
        Poll::Ready(message.map(Ok).or_else(|| self.fault.heard()))
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use tonic::Code;

    use super::*;

    fn message() -> WorkResponse {
        WorkResponse { message: None }
    }

    #[tokio::test]
    async fn a_fault_does_not_wait_for_what_is_not_read() {
        let (outbound, fault, mut answers) = answers();
        while outbound.try_send(message()).is_ok() {}
        assert!(matches!(answers.next().now_or_never(), Some(Some(Ok(_)))));
        fault.say(Status::aborted("first"));
        fault.say(Status::internal("second"));
        let ended = answers.next().await.unwrap().unwrap_err();
        assert_eq!(ended.code(), Code::Aborted);
    }

    #[tokio::test]
    async fn a_fault_wakes_who_waits_for_messages() {
        let (_outbound, fault, mut answers) = answers();
        let waits = tokio::spawn(async move { answers.next().await });
        tokio::task::yield_now().await;
        fault.say(Status::aborted("now"));
        assert!(waits.await.unwrap().unwrap().is_err());
    }

    #[tokio::test]
    async fn in_good_order_all_is_read_before_the_end() {
        let (outbound, _fault, mut answers) = answers();
        outbound.try_send(message()).unwrap();
        drop(outbound);
        assert!(answers.next().await.unwrap().is_ok());
        assert!(answers.next().await.is_none());
    }
}
