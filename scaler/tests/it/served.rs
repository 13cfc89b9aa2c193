//! A scaler that is served, and a client of it.

use std::{future::Future, sync::Arc, time::Duration};

use forebay_proto::externalscaler::{
    GetMetricsRequest, IsActiveResponse, ScaledObjectRef, external_scaler_client::ExternalScalerClient,
};
use forebay_runtime::{health::Health, metrics::Metrics};
use forebay_scaler::{Bounds, Parts, Tls, serve};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};

use crate::figures::MadeUp;

/// How long anything may take that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing must happen, where something would at once.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// Short times, so that tests are quick.
pub(crate) fn quick() -> Bounds {
    Bounds {
        answer: Duration::from_millis(200),
        poll: Duration::from_millis(50),
        quiet: Duration::ZERO,
        drain: PATIENCE,
        ..Bounds::default()
    }
}

pub(crate) struct Served {
    pub(crate) figures: Arc<MadeUp>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Health,
    pub(crate) stop: CancellationToken,
    pub(crate) port: u16,
    pub(crate) server: JoinHandle<anyhow::Result<()>>,
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::with(quick(), None).await
    }

    pub(crate) async fn with(bounds: Bounds, tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (figures, metrics) = (MadeUp::new(), Arc::new(Metrics::new()));
        let (health, stop) = (Health::default(), CancellationToken::new());
        let parts = Parts {
            figures: Arc::clone(&figures) as _,
            metrics: Arc::clone(&metrics),
            health: health.clone(),
            stop: stop.clone(),
            bounds,
            tls,
        };
        let server = tokio::spawn(serve(parts, listener));
        Self {
            figures,
            metrics,
            health,
            stop,
            port,
            server,
        }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let address = format!("http://127.0.0.1:{}", self.port);
        Channel::from_shared(address).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn client(&self) -> ExternalScalerClient<Channel> {
        ExternalScalerClient::new(self.channel().await)
    }

    /// Opens a stream on a queue.
    pub(crate) async fn stream(&self, metadata: &[(&str, &str)]) -> Streaming<IsActiveResponse> {
        let stream = self.client().await.stream_is_active(object(metadata)).await;
        stream.unwrap().into_inner()
    }

    pub(crate) fn counted(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|counted| counted == line)
    }
}

/// A ScaledObject with this metadata, and with what KEDA adds.
pub(crate) fn object(metadata: &[(&str, &str)]) -> ScaledObjectRef {
    let given = metadata
        .iter()
        .chain(&[("scalerAddress", "forebay-scaler:50051")]);
    ScaledObjectRef {
        name: "workers".into(),
        namespace: "default".into(),
        scaler_metadata: given
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    }
}

pub(crate) fn asks_for(metric: &str, metadata: &[(&str, &str)]) -> GetMetricsRequest {
    GetMetricsRequest {
        scaled_object_ref: Some(object(metadata)),
        metric_name: metric.into(),
    }
}

/// The next message of a stream; `None` where it ended with OK.
pub(crate) async fn next(stream: &mut Streaming<IsActiveResponse>) -> Option<bool> {
    let message = in_time(stream.message()).await;
    message
        .expect("no stream ends with an error")
        .map(|message| message.result)
}

pub(crate) async fn is_silent(stream: &mut Streaming<IsActiveResponse>) -> bool {
    timeout(SILENCE, stream.message()).await.is_err()
}

pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("in time")
}

/// Waits until `holds`.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let looked = timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(looked.await.is_ok(), "waited for: {what}");
}

/// What a call was refused with.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> (tonic::Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}
