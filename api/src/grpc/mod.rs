//! The gRPC door: decode, call an operation, encode. The twin of `http`.

mod call;
mod convert;
mod explain;
mod limits;
mod queues;
mod schedules;
pub(crate) mod status;
mod tasks;
mod terms;
mod upload;

use anyhow::Context;
use forebay_proto::v1::{
    limit_service_server::{self, LimitServiceServer},
    queue_service_server::{self, QueueServiceServer},
    schedule_service_server::{self, ScheduleServiceServer},
    task_service_server::{self, TaskServiceServer},
};
use tonic::service::Routes;
use tonic_reflection::server::{Builder, v1, v1alpha};

use crate::App;

/// The names of the services of [`routes`], for health.
pub(crate) const NAMES: [&str; 4] = [
    task_service_server::SERVICE_NAME,
    queue_service_server::SERVICE_NAME,
    schedule_service_server::SERVICE_NAME,
    limit_service_server::SERVICE_NAME,
];

/// The services: tasks, queues, schedules, limits; beside others that the door serves.
pub(crate) fn routes(app: &App, others: Routes) -> Routes {
    others
        .add_service(TaskServiceServer::new(tasks::Tasks::new(app.clone())))
        .add_service(QueueServiceServer::new(queues::Queues::new(app.clone())))
        .add_service(ScheduleServiceServer::new(schedules::Schedules::new(app.clone())))
        .add_service(LimitServiceServer::new(limits::Limits::new(app.clone())))
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
