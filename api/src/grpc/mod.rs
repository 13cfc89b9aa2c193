//! The gRPC door: decode, call an operation, encode. The twin of `http`.

mod codec;
mod convert;
mod status;
mod tasks;
mod upload;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::Context as _;
use bytes::Bytes;
use forebay_proto::v1::task_service_server::{SERVICE_NAME, TaskServiceServer};
use tonic::{
    Request, Streaming,
    body::Body,
    codegen::{BoxFuture, http},
    server::{Grpc, NamedService},
};
use tonic_reflection::server::{Builder, v1, v1alpha};

use crate::App;

const SUBMIT_TASKS: &str = "/forebay.v1.TaskService/SubmitTasks";

/// The service that tasks are submitted to: the generated one, except for the stream of submissions, which has a codec
/// of its own.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    tasks: Arc<tasks::Tasks>,
    generated: TaskServiceServer<tasks::Tasks>,
}

/// The task service.
pub(crate) fn service(app: App) -> Service {
    let tasks = Arc::new(tasks::Tasks::new(app));
    Service {
        generated: TaskServiceServer::from_arc(Arc::clone(&tasks)),
        tasks,
    }
}

impl NamedService for Service {
    const NAME: &'static str = SERVICE_NAME;
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != SUBMIT_TASKS {
            return self.generated.call(request);
        }
        let tasks = Arc::clone(&self.tasks);
        Box::pin(async move {
            let method = tower::service_fn(move |request: Request<Streaming<Bytes>>| {
                let tasks = Arc::clone(&tasks);
                async move { tasks.submit_stream(request).await }
            });
            let grpc = Grpc::new(codec::Codec);
            let mut grpc = grpc.max_decoding_message_size(codec::MESSAGE_BYTES_MAX);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

/// Tells clients what services there are.
pub(crate) fn reflection() -> anyhow::Result<v1::ServerReflectionServer<impl v1::ServerReflection>> {
    described().build_v1().context("build gRPC reflection")
}

/// The same as many tools still ask for it.
pub(crate) fn reflection_v1alpha()
-> anyhow::Result<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>> {
    described()
        .build_v1alpha()
        .context("build gRPC reflection, v1alpha")
}

fn described() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(forebay_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
