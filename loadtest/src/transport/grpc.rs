//! Streams of gRPC's `SubmitTasks`: a message for each task, and a message for each answer, in order.

use std::time::Duration;

use forebay_proto::v1::{
    Problem, SubmitTaskRequest, SubmitTasksResponse, submit_tasks_response::Result as Outcome,
    task_service_client::TaskServiceClient,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::{CHUNK_TASKS, Context, Pending, STREAM_IDLE, cause, refused};
use crate::{feed::Shot, tally::Answer};

async fn connect(context: &Context) -> Result<Channel, Answer> {
    let failed = |error: &(dyn std::error::Error + 'static)| Answer::Failed(cause(error));
    let endpoint = Endpoint::from_shared(context.target.url.clone()).map_err(|error| failed(&error))?;
    let target = context.target.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let target = target.clone();
        async move { target.connect().await }
    });
    let endpoint = endpoint.connect_timeout(context.timeout);
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| failed(&error))
}

pub(super) async fn stream(context: &Context, pending: &Pending, first: &[Shot]) -> Result<(), Answer> {
    let mut client = TaskServiceClient::new(connect(context).await?);
    let (messages, stream) = mpsc::channel::<SubmitTaskRequest>(CHUNK_TASKS);
    let exchange = async {
        let answers = client.submit_tasks(ReceiverStream::new(stream)).await;
        let mut answers = answers.map_err(|status| of_status(&status))?.into_inner();
        while let Some(answer) = answers.message().await.map_err(|status| of_status(&status))? {
            let Some(shot) = pending.answered(answer.index) else {
                return Err(Answer::Unanswered("an answer to nothing".to_owned()));
            };
            context.settle(shot, of_answer(answer));
        }
        Ok(())
    };
    let writing = write(context, pending, first, messages);
    tokio::pin!(exchange, writing);
    let mut written = false;
    loop {
        tokio::select! {
            outcome = &mut exchange => return outcome,
            () = &mut writing, if !written => written = true,
            () = pending.silence(context.timeout) => {
                return Err(Answer::Unanswered("no answer in time".to_owned()));
            },
        }
    }
}

async fn write(
    context: &Context,
    pending: &Pending,
    first: &[Shot],
    messages: mpsc::Sender<SubmitTaskRequest>,
) {
    let mut shots = first.to_vec();
    while !shots.is_empty() {
        for shot in &shots {
            if messages.send(context.shape.message(shot.number)).await.is_err() {
                return;
            }
        }
        shots.clear();
        if timeout(STREAM_IDLE, context.take(CHUNK_TASKS, &mut shots))
            .await
            .is_err()
        {
            return;
        }
        pending.sent(&shots);
    }
}

fn of_answer(answer: SubmitTasksResponse) -> Answer {
    match answer.result {
        Some(Outcome::Accepted(receipt)) => match receipt.id.parse::<Uuid>() {
            Ok(id) => Answer::Accepted(id.into_bytes()),
            Err(_) => Answer::Unanswered("an answer without an id".to_owned()),
        },
        Some(Outcome::Problem(problem)) => of_problem(&problem),
        None => Answer::Unanswered("neither a receipt nor a problem".to_owned()),
    }
}

/// Over HTTP these are the codes with `Retry-After`.
fn of_problem(problem: &Problem) -> Answer {
    match &problem.retry_after {
        Some(after) => {
            let after = u64::try_from(after.seconds).ok().map(Duration::from_secs);
            refused(problem.code.clone(), after)
        }
        None => Answer::Failed(problem.code.clone()),
    }
}

fn of_status(status: &Status) -> Answer {
    let why = format!("{:?}: {}", status.code(), status.message());
    // The server says when to try again only where nothing was accepted.
    if let Some(info) = status.get_details_retry_info() {
        return refused(why, info.retry_delay);
    }
    match status.code() {
        Code::ResourceExhausted => refused(why, None),
        Code::InvalidArgument | Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied => {
            Answer::Failed(why)
        }
        _ => Answer::Unanswered(why),
    }
}
