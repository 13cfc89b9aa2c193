//! `TaskService`.

use std::{future::Future, pin::Pin, sync::Arc};

use forebay_core::TraceParent;
use forebay_proto::v1::{self, task_service_server::TaskService};
use futures::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tonic::{Request, Status, Streaming, metadata::MetadataMap};

use crate::{
    App,
    error::{ApiError, Code, Result},
    grpc::{
        call::{Answer, call},
        convert,
        explain::explanation,
        upload,
    },
    layers::limit::Pool,
    ops::{
        self,
        follow::{Cursor, Follow, Step},
    },
};

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

    async fn call<T, F, Fut>(
        &self,
        named: (Pool, &'static str),
        metadata: &MetadataMap,
        operation: F,
    ) -> Answer<T>
    where
        F: FnOnce(Option<TraceParent>) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        call(&self.app, named, metadata, operation).await
    }
}

/// A place for an answer that stays open.
fn stream_place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let place = Arc::clone(places).try_acquire_owned();
    place.map_err(|_| ApiError::of(Code::Overloaded))
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

    async fn explain_task(
        &self,
        request: Request<v1::ExplainTaskRequest>,
    ) -> Answer<v1::ExplainTaskResponse> {
        let (metadata, _, message) = request.into_parts();
        self.call((Pool::Reads, "ExplainTask"), &metadata, async |_| {
            let explained = ops::explain::explain(&self.app, ops::get::parse_id(&message.id)?).await?;
            Ok(v1::ExplainTaskResponse {
                explanation: Some(explanation(&explained)),
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
            let ends = Instant::now() + self.app.bounds.connection_age;
            let steps = stream::unfold((follow, place), move |(mut follow, place)| async move {
                let step = timeout_at(ends, follow.next()).await.ok().flatten()?;
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
        progress: step.progress.as_ref().map(convert::progress),
    }
}
