//! `QueueService`: the twin of `http/queues.rs`.

use forebay_autoscale::QueueSample;
use forebay_core::QueueName;
use forebay_proto::v1::{self, queue_service_server::QueueService};
use tonic::Request;

use crate::{
    App,
    error::{ApiError, Code, Result},
    grpc::{
        call::{Answer, call},
        convert::to_timestamp,
    },
    layers::limit::Pool,
    ops::{
        self,
        queues::{Count, QueueFigures, is_stale, problem},
    },
};

/// The service.
#[derive(Debug)]
pub(crate) struct Queues {
    app: App,
}

impl Queues {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }

    /// A queue as a message.
    fn queue(&self, queue: &QueueFigures, counted: &Count) -> v1::Queue {
        v1::Queue {
            name: queue.name.to_string(),
            ready: queue.waiting(),
            running: queue.running,
            scheduled: queue.scheduled,
            paused: queue.paused,
            at: Some(to_timestamp(counted.at)),
            stale: is_stale(&self.app, counted),
            problem: problem(counted).unwrap_or_default().to_owned(),
        }
    }

    async fn set_paused(&self, name: &str, paused: bool) -> Result<v1::Queue> {
        let (queue, counted) = ops::pause::set_paused(&self.app, &named(name)?, paused).await?;
        Ok(self.queue(&queue, &counted))
    }
}

fn named(name: &str) -> Result<QueueName> {
    name.parse()
        .map_err(|error| ApiError::at(Code::InvalidParameter, "/name", error))
}

fn sampled(sample: &QueueSample) -> v1::GetAutoscaleResponse {
    v1::GetAutoscaleResponse {
        queue: sample.queue.to_string(),
        ready: sample.ready,
        running: sample.running,
        gated: sample.gated,
        scheduled: sample.scheduled,
        oldest_ready_age_seconds: sample.oldest_ready_age.map(|age| age.as_secs_f64()),
        desired_workers: sample.desired_workers,
        at: Some(to_timestamp(sample.at)),
    }
}

#[tonic::async_trait]
impl QueueService for Queues {
    async fn list_queues(&self, request: Request<v1::ListQueuesRequest>) -> Answer<v1::ListQueuesResponse> {
        let (metadata, _, _) = request.into_parts();
        call(&self.app, (Pool::Reads, "ListQueues"), &metadata, async |_| {
            let counted = ops::queues::queues(&self.app).await?;
            let queues = counted.queues.iter();
            Ok(v1::ListQueuesResponse {
                queues: queues.map(|queue| self.queue(queue, &counted)).collect(),
                at: Some(to_timestamp(counted.at)),
                stale: is_stale(&self.app, &counted),
                problem: problem(&counted).unwrap_or_default().to_owned(),
            })
        })
        .await
    }

    async fn get_queue(&self, request: Request<v1::GetQueueRequest>) -> Answer<v1::GetQueueResponse> {
        let (metadata, _, message) = request.into_parts();
        call(&self.app, (Pool::Reads, "GetQueue"), &metadata, async |_| {
            let (queue, counted) = ops::queues::queue(&self.app, &named(&message.name)?).await?;
            Ok(v1::GetQueueResponse {
                queue: Some(self.queue(&queue, &counted)),
            })
        })
        .await
    }

    async fn pause_queue(&self, request: Request<v1::PauseQueueRequest>) -> Answer<v1::PauseQueueResponse> {
        let (metadata, _, message) = request.into_parts();
        call(&self.app, (Pool::Changes, "PauseQueue"), &metadata, async |_| {
            let queue = self.set_paused(&message.name, true).await?;
            Ok(v1::PauseQueueResponse { queue: Some(queue) })
        })
        .await
    }

    async fn resume_queue(
        &self,
        request: Request<v1::ResumeQueueRequest>,
    ) -> Answer<v1::ResumeQueueResponse> {
        let (metadata, _, message) = request.into_parts();
        call(&self.app, (Pool::Changes, "ResumeQueue"), &metadata, async |_| {
            let queue = self.set_paused(&message.name, false).await?;
            Ok(v1::ResumeQueueResponse { queue: Some(queue) })
        })
        .await
    }

    async fn get_autoscale(
        &self,
        request: Request<v1::GetAutoscaleRequest>,
    ) -> Answer<v1::GetAutoscaleResponse> {
        let (metadata, _, message) = request.into_parts();
        call(&self.app, (Pool::Reads, "GetAutoscale"), &metadata, async |_| {
            let sample = ops::queues::autoscale(&self.app, &named(&message.name)?).await?;
            Ok(sampled(&sample))
        })
        .await
    }
}
