//! `TaskService`.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Instant};

use forebay_core::TraceParent;
use forebay_proto::v1::{self, task_service_server::TaskService};
use futures::{FutureExt, Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};
use tracing::{Instrument, info_span};

use crate::{
    App,
    error::{ApiError, Code, Result},
    grpc::{convert, status, upload},
    layers::{limit::Pool, trace::join},
    ops::{
        self,
        follow::{Cursor, Follow, Step},
    },
};

type Answer<T> = std::result::Result<Response<T>, Status>;
/// The answers of a stream.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug)]
pub(crate) struct Tasks {
    app: App,
}

impl Tasks {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }

    /// Carries out one call: bounded in number, in a span of its own, counted, and safe from panics.
    async fn call<T, F, Fut>(
        &self,
        (pool, method): (Pool, &'static str),
        metadata: &MetadataMap,
        operation: F,
    ) -> Answer<T>
    where
        F: FnOnce(Option<TraceParent>) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let began = Instant::now();
        let span = info_span!("rpc_call", otel.kind = "server", method);
        let traceparent = join(&span, incoming(metadata));
        let result = match pool.place(&self.app) {
            Err(overloaded) => Err(overloaded),
            Ok(_place) => AssertUnwindSafe(operation(traceparent).instrument(span))
                .catch_unwind()
                .await
                .unwrap_or_else(|_| {
                    tracing::error!(method, "a call's handler panicked");
                    Err(ApiError::of(Code::Internal))
                }),
        };
        let code = result
            .as_ref()
            .map_or_else(|error| error.code.row().grpc, |_| tonic::Code::Ok);
        self.app
            .metrics
            .rpc_call(method, i32::from(code), began.elapsed());
        result.map(Response::new).map_err(|error| status::status(&error))
    }
}

/// A place for an answer that stays open.
fn stream_place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let place = Arc::clone(places).try_acquire_owned();
    place.map_err(|_| ApiError::of(Code::Overloaded))
}

fn incoming(metadata: &MetadataMap) -> Option<TraceParent> {
    TraceParent::parse(metadata.get("traceparent")?.to_str().ok()?)
}

#[tonic::async_trait]
impl TaskService for Tasks {
    async fn submit_task(&self, request: Request<v1::SubmitTaskRequest>) -> Answer<v1::SubmitTaskResponse> {
        let (metadata, _, message) = request.into_parts();
        self.call(
            (Pool::Submissions, "SubmitTask"),
            &metadata,
            async |traceparent| {
                let asked = convert::asked(message, traceparent);
                let accepted = ops::submit::submit(&self.app, asked).await?;
                Ok(v1::SubmitTaskResponse {
                    task: Some(convert::task(&accepted.task)),
                })
            },
        )
        .await
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Answer<v1::GetTaskResponse> {
        let (metadata, _, message) = request.into_parts();
        self.call((Pool::Reads, "GetTask"), &metadata, async |_| {
            let task = ops::get::get(&self.app, ops::get::parse_id(&message.id)?).await?;
            Ok(v1::GetTaskResponse {
                task: Some(convert::task(&task)),
            })
        })
        .await
    }

    async fn list_tasks(&self, request: Request<v1::ListTasksRequest>) -> Answer<v1::ListTasksResponse> {
        let (metadata, _, message) = request.into_parts();
        self.call((Pool::Reads, "ListTasks"), &metadata, async |_| {
            let listed = ops::list::list(&self.app, convert::wanted(message)?).await?;
            Ok(v1::ListTasksResponse {
                tasks: listed.tasks.iter().map(convert::task).collect(),
                next_page_token: listed.next.unwrap_or_default(),
            })
        })
        .await
    }

    async fn cancel_task(&self, request: Request<v1::CancelTaskRequest>) -> Answer<v1::CancelTaskResponse> {
        let (metadata, _, message) = request.into_parts();
        self.call((Pool::Changes, "CancelTask"), &metadata, async |_| {
            let task = ops::change::cancel(&self.app, ops::get::parse_id(&message.id)?).await?;
            Ok(v1::CancelTaskResponse {
                task: Some(convert::task(&task)),
            })
        })
        .await
    }

    async fn retry_task(&self, request: Request<v1::RetryTaskRequest>) -> Answer<v1::RetryTaskResponse> {
        let (metadata, _, message) = request.into_parts();
        self.call((Pool::Changes, "RetryTask"), &metadata, async |_| {
            let task = ops::change::retry(&self.app, ops::get::parse_id(&message.id)?).await?;
            Ok(v1::RetryTaskResponse {
                task: Some(convert::task(&task)),
            })
        })
        .await
    }

    type SubmitTasksStream = Answers<v1::SubmitTasksResponse>;

    async fn submit_tasks(
        &self,
        request: Request<Streaming<v1::SubmitTaskRequest>>,
    ) -> Answer<Self::SubmitTasksStream> {
        let (metadata, _, messages) = request.into_parts();
        self.call(
            (Pool::Submissions, "SubmitTasks"),
            &metadata,
            async |traceparent| {
                let place = stream_place(&self.app.places.uploads)?;
                Ok(upload::answers(self.app.clone(), messages, traceparent, place))
            },
        )
        .await
    }

    type WatchTaskStream = Answers<v1::WatchTaskResponse>;

    async fn watch_task(&self, request: Request<v1::WatchTaskRequest>) -> Answer<Self::WatchTaskStream> {
        let (metadata, _, message) = request.into_parts();
        self.call((Pool::Reads, "WatchTask"), &metadata, async |_| {
            let place = stream_place(&self.app.places.streams)?;
            let after = Some(message.after.as_str()).filter(|text| !text.is_empty());
            let after = after.map(|text| {
                Cursor::parse(text).ok_or_else(|| {
                    ApiError::at(
                        Code::InvalidParameter,
                        "/after",
                        "must be a cursor as it was given",
                    )
                })
            });
            let id = ops::get::parse_id(&message.id)?;
            let follow = Follow::open(&self.app, id, after.transpose()?).await?;
            let steps = stream::unfold((follow, place), |(mut follow, place)| async move {
                let step = follow.next().await?;
                Some((Ok(watched(&step)), (follow, place)))
            });
            Ok::<Self::WatchTaskStream, _>(Box::pin(steps))
        })
        .await
    }
}

fn watched(step: &Step) -> v1::WatchTaskResponse {
    v1::WatchTaskResponse {
        state: convert::task_state(step.cursor.state).into(),
        attempt: step.cursor.attempt,
        at: Some(convert::to_timestamp(step.cursor.at)),
        task: step.task.as_deref().map(convert::task),
        cursor: step.cursor.to_string(),
    }
}
