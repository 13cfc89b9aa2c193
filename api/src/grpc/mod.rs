//! The gRPC door: decode, call an operation, encode. The twin of `http`.

mod convert;
mod status;
mod tasks;
mod upload;

use anyhow::Context;
use forebay_proto::v1::task_service_server::TaskServiceServer;
use tonic_reflection::server::{Builder, v1, v1alpha};

use crate::App;

/// The service that tasks are submitted to.
pub(crate) type Service = TaskServiceServer<tasks::Tasks>;

/// The task service.
pub(crate) fn service(app: App) -> Service {
    TaskServiceServer::new(tasks::Tasks::new(app))
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
