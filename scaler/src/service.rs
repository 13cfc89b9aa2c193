//! The calls.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration, time::Instant};

use forebay_core::QueueName;
use forebay_proto::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricValue,
    ScaledObjectRef, external_scaler_server::ExternalScaler,
};
use forebay_runtime::metrics::Metrics;
use futures::{Stream, StreamExt, future::try_join_all, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use crate::{
    Bounds, Demand, Figures, Unknown,
    activity::{Activity, age},
    metadata::{Metadata, UnknownKeys, spec},
};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The methods and codes that are counted from the start, so that an alert on a rise sees the first one.
pub(crate) const METHODS: [&str; 5] = [
    "IsActive",
    "StreamIsActive",
    "GetMetricSpec",
    "StreamMetricSpec",
    "GetMetrics",
];
pub(crate) const CODES: [&str; 4] = ["ok", "invalid_argument", "resource_exhausted", "unavailable"];

/// The service, and what its calls share.
pub(crate) struct Scaler {
    figures: Arc<dyn Figures>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    bounds: Bounds,
    streams: Arc<Semaphore>,
    unknown_keys: UnknownKeys,
}

impl Scaler {
    pub(crate) fn new(
        figures: Arc<dyn Figures>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
        bounds: Bounds,
    ) -> Self {
        Self {
            figures,
            metrics,
            stop,
            streams: Arc::new(Semaphore::new(bounds.streams)),
            bounds,
            unknown_keys: UnknownKeys::default(),
        }
    }

    /// Counts a call that was answered.
    fn counted<T>(
        &self,
        method: &'static str,
        began: Instant,
        result: Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.metrics.scaler_request(method, label(code));
        self.metrics.rpc_call(method, i32::from(code), began.elapsed());
        if let Err(status) = &result {
            tracing::debug!(method, code = label(code), message = status.message(), "refused");
        }
        result.map(Response::new)
    }

    fn metadata(&self, metadata: &HashMap<String, String>) -> Result<Metadata, Status> {
        self.unknown_keys.note(metadata);
        Metadata::parse(metadata).map_err(Status::invalid_argument)
    }

    async fn demand(&self, queues: &[QueueName]) -> Result<Demand, Status> {
        let demand = ask(&*self.figures, queues, self.bounds.answer).await;
        demand.map_err(|unknown| Status::unavailable(unknown.0))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.streams).try_acquire_owned();
        place.map_err(|_| {
            Status::resource_exhausted(format!("{} streams are open already", self.bounds.streams))
        })
    }

    async fn is_active(&self, object: ScaledObjectRef) -> Result<IsActiveResponse, Status> {
        let wanted = self.metadata(&object.scaler_metadata)?;
        let demand = self.demand(&wanted.queues).await?;
        Ok(IsActiveResponse {
            result: demand.tasks() > 0,
        })
    }

    async fn metrics(&self, request: GetMetricsRequest) -> Result<GetMetricsResponse, Status> {
        let object = request.scaled_object_ref.unwrap_or_default();
        let wanted = self.metadata(&object.scaler_metadata)?;
        let demand = self.demand(&wanted.queues).await?;
        let value = wanted.metric(&request.metric_name).of(&demand);
        Ok(GetMetricsResponse {
            metric_values: vec![MetricValue {
                metric_name: request.metric_name,
                metric_value: i64::try_from(value).unwrap_or(i64::MAX),
                metric_value_float: value as f64,
            }],
        })
    }

    fn activity(&self, object: &ScaledObjectRef) -> Result<Answers<IsActiveResponse>, Status> {
        let wanted = self.metadata(&object.scaler_metadata)?;
        let open = Open::new(self.place()?, &self.metrics);
        let (figures, stop) = (Arc::clone(&self.figures), self.stop.clone());
        let activity = Activity::new(figures, wanted.queues, &self.bounds, stop, open);
        Ok(Box::pin(stream::unfold(activity, |mut activity| async move {
            let result = activity.next().await?;
            Some((Ok(IsActiveResponse { result }), activity))
        })))
    }

    /// Metadata that changes comes with a new stream, so the first answer is the last.
    fn spec_stream(&self, object: &ScaledObjectRef) -> Result<Answers<GetMetricSpecResponse>, Status> {
        let place = self.place()?;
        let (stop, age) = (self.stop.clone(), age(self.bounds.stream_age));
        let end = stream::once(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(age) => {}
            }
            drop(place);
        });
        let answers = stream::iter([Ok(specs(object))]);
        Ok(Box::pin(answers.chain(end.filter_map(|()| async { None }))))
    }
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        let began = Instant::now();
        let result = self.is_active(request.into_inner()).await;
        self.counted("IsActive", began, result)
    }

    type StreamIsActiveStream = Answers<IsActiveResponse>;

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let began = Instant::now();
        self.counted("StreamIsActive", began, self.activity(request.get_ref()))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let began = Instant::now();
        self.counted("GetMetricSpec", began, Ok(specs(request.get_ref())))
    }

    type StreamMetricSpecStream = Answers<GetMetricSpecResponse>;

    async fn stream_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamMetricSpecStream>, Status> {
        let began = Instant::now();
        self.counted("StreamMetricSpec", began, self.spec_stream(request.get_ref()))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let began = Instant::now();
        let result = self.metrics(request.into_inner()).await;
        self.counted("GetMetrics", began, result)
    }
}

fn specs(object: &ScaledObjectRef) -> GetMetricSpecResponse {
    GetMetricSpecResponse {
        metric_specs: vec![spec(&object.scaler_metadata)],
    }
}

/// What all these queues want together. Known only where it is known of each.
pub(crate) async fn ask(
    figures: &dyn Figures,
    queues: &[QueueName],
    within: Duration,
) -> Result<Demand, Unknown> {
    let all = try_join_all(queues.iter().map(|queue| figures.demand(queue)));
    let demands = timeout(within, all).await.map_err(|_| {
        Unknown(format!(
            "the figures of the queues did not come within {within:?}"
        ))
    })??;
    Ok(demands.into_iter().fold(Demand::default(), Demand::and))
}

fn label(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::InvalidArgument => "invalid_argument",
        Code::ResourceExhausted => "resource_exhausted",
        Code::Unavailable => "unavailable",
        // This service has no others.
        _ => "other",
    }
}

/// An open stream of `StreamIsActive`: its place, and that it is counted.
pub(crate) struct Open {
    metrics: Arc<Metrics>,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(place: OwnedSemaphorePermit, metrics: &Arc<Metrics>) -> Self {
        metrics.scaler_stream_opened();
        Self {
            metrics: Arc::clone(metrics),
            _place: place,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.scaler_stream_closed();
    }
}
