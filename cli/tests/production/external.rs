//! A caller of `forebay scaler` that does what KEDA does: one trigger of one ScaledObject.

use std::time::Duration;

use forebay_proto::externalscaler::{
    GetMetricsRequest, IsActiveResponse, MetricSpec, ScaledObjectRef,
    external_scaler_client::ExternalScalerClient,
};
use tokio::time::timeout;
use tonic::{Request, Status, Streaming, transport::Channel};

/// How long KEDA waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// A trigger of type `external-push`. It connects when it has to, and again after an outage.
#[derive(Clone)]
pub(crate) struct Trigger {
    client: ExternalScalerClient<Channel>,
    object: ScaledObjectRef,
}

impl Trigger {
    /// On the scaler at `address`, such as `http://127.0.0.1:50051`, with this metadata.
    pub(crate) fn new(address: &str, metadata: &[(&str, &str)]) -> Self {
        let channel = Channel::from_shared(address.to_owned()).unwrap().connect_lazy();
        let address = ("scalerAddress", address);
        let metadata = metadata.iter().chain([&address]);
        Self {
            client: ExternalScalerClient::new(channel),
            object: ScaledObjectRef {
                name: "workers".into(),
                namespace: "default".into(),
                scaler_metadata: metadata
                    .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            },
        }
    }

    /// The metric, and how much of it one replica is to have.
    pub(crate) async fn spec(&self) -> Result<(String, f64), Status> {
        let answer = self
            .client
            .clone()
            .get_metric_spec(bounded(self.object.clone()))
            .await?;
        let [spec] = answer.into_inner().metric_specs.try_into().unwrap();
        let MetricSpec {
            metric_name,
            target_size,
            target_size_float,
        } = spec;
        Ok((metric_name, either(target_size_float, target_size)))
    }

    /// How much there is of the metric now, as KEDA asks for it: the spec first, and its metric after that.
    pub(crate) async fn value(&self) -> Result<f64, Status> {
        let (metric_name, _) = self.spec().await?;
        let request = GetMetricsRequest {
            scaled_object_ref: Some(self.object.clone()),
            metric_name,
        };
        let answer = self.client.clone().get_metrics(bounded(request)).await?;
        let [value] = answer.into_inner().metric_values.try_into().unwrap();
        Ok(either(value.metric_value_float, value.metric_value))
    }

    pub(crate) async fn is_active(&self) -> Result<bool, Status> {
        let answer = self
            .client
            .clone()
            .is_active(bounded(self.object.clone()))
            .await?;
        Ok(answer.into_inner().result)
    }

    /// Opens the stream on which the scaler pushes.
    pub(crate) async fn pushes(&self) -> Result<Pushes, Status> {
        let answer = self.client.clone().stream_is_active(self.object.clone()).await?;
        Ok(Pushes(answer.into_inner()))
    }
}

/// What the scaler pushes.
pub(crate) struct Pushes(Streaming<IsActiveResponse>);

impl Pushes {
    /// The next push; `None` where the stream ended with OK.
    pub(crate) async fn next(&mut self) -> Result<Option<bool>, Status> {
        let message = self.0.message().await?;
        Ok(message.map(|message| message.result))
    }

    /// The same, or `None` where nothing comes within this time.
    pub(crate) async fn next_within(&mut self, time: Duration) -> Option<Result<Option<bool>, Status>> {
        timeout(time, self.next()).await.ok()
    }
}

fn bounded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_MAX);
    request
}

/// The float counts where it is above zero.
fn either(float: f64, int: i64) -> f64 {
    if float > 0.0 { float } else { int as f64 }
}
