//! The calls that KEDA makes at every poll.

use forebay_proto::externalscaler::GetMetricsRequest;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::served::{Served, asks_for, in_time, object, refused, until};

/// The one value of a metric, in both its fields.
async fn value(served: &Served, metric: &str, metadata: &[(&str, &str)]) -> (i64, f64) {
    let answer = served
        .client()
        .await
        .get_metrics(asks_for(metric, metadata))
        .await;
    let [value] = answer.unwrap().into_inner().metric_values.try_into().unwrap();
    assert_eq!(value.metric_name, metric, "the name comes back as it was given");
    (value.metric_value, value.metric_value_float)
}

#[tokio::test]
async fn ready_and_running_tasks_of_all_named_queues_count() {
    let served = Served::start().await;
    served.figures.set("mail", 70, 3, 5);
    served.figures.set("reports", 20, 7, 2);
    served.figures.set("other", 1_000, 1_000, 1_000);
    let both = [("queue", " mail , reports,mail")];
    assert_eq!(
        value(&served, "forebay-tasks", &[("queue", "mail")]).await,
        (73, 73.0)
    );
    assert_eq!(value(&served, "forebay-tasks", &both).await, (100, 100.0));
    let workers = [("queue", "mail,reports"), ("mode", "desired_workers")];
    assert_eq!(
        value(&served, "forebay-desired-workers", &workers).await,
        (7, 7.0)
    );
    let unheard = [("queue", "unheard-of")];
    assert_eq!(value(&served, "forebay-tasks", &unheard).await, (0, 0.0));
}

#[tokio::test]
async fn a_metrics_name_may_have_a_prefix_or_be_unknown() {
    let served = Served::start().await;
    served.figures.set("mail", 70, 3, 5);
    let by_tasks = [("queue", "mail")];
    let by_workers = [("queue", "mail"), ("mode", "desired_workers")];
    assert_eq!(value(&served, "s0-forebay-tasks", &by_tasks).await.0, 73);
    assert_eq!(value(&served, "whatever", &by_tasks).await.0, 73);
    assert_eq!(value(&served, "whatever", &by_workers).await.0, 5);
    // The mode was changed, and the autoscaler still divides by the former target.
    assert_eq!(value(&served, "forebay-tasks", &by_workers).await.0, 73);
}

#[tokio::test]
async fn active_is_what_has_ready_or_running_tasks() {
    let served = Served::start().await;
    let active = async |metadata: &[(&str, &str)]| {
        let answer = served.client().await.is_active(object(metadata)).await;
        answer.unwrap().into_inner().result
    };
    served.figures.set("idle", 0, 0, 0);
    served.figures.set("waits", 1, 0, 1);
    served.figures.set("runs", 0, 1, 1);
    assert!(!active(&[("queue", "idle")]).await);
    assert!(active(&[("queue", "waits")]).await);
    assert!(active(&[("queue", "runs")]).await);
    assert!(active(&[("queue", "idle,runs")]).await);
    // It is about tasks in every mode: workers may be wanted for what is to come.
    served.figures.set("idle", 0, 0, 3);
    assert!(!active(&[("queue", "idle"), ("mode", "desired_workers")]).await);
}

#[tokio::test]
async fn what_is_not_known_is_unavailable_with_the_reason_and_never_zero() {
    let served = Served::start().await;
    let metadata = [("queue", "mail")];
    let mut client = served.client().await;
    served.figures.unknown(Some("the broker is not available"));
    let unavailable = (Code::Unavailable, "the broker is not available".to_owned());
    assert_eq!(refused(client.is_active(object(&metadata)).await), unavailable);
    let asked = asks_for("forebay-tasks", &metadata);
    assert_eq!(refused(client.get_metrics(asked.clone()).await), unavailable);
    // What KEDA needs to fall back is there.
    let spec = client
        .get_metric_spec(object(&metadata))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(spec.metric_specs[0].target_size, 100);

    served.figures.unknown(None);
    assert!(
        !client
            .is_active(object(&metadata))
            .await
            .unwrap()
            .into_inner()
            .result
    );
    served.figures.hang();
    let (code, message) = refused(in_time(client.get_metrics(asked)).await);
    assert_eq!(code, Code::Unavailable);
    assert!(message.contains("did not come within 200ms"), "{message}");
    assert!(served.counted("forebay_scaler_requests_total{method=\"GetMetrics\",code=\"unavailable\"} 2"));
    assert!(served.counted("forebay_scaler_requests_total{method=\"IsActive\",code=\"ok\"} 1"));
}

#[tokio::test]
async fn metadata_at_fault_is_refused_and_still_has_a_spec() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for (metadata, says) in [
        (vec![], "queue is missing: set it"),
        (vec![("queue", "not a name")], "\"not a name\""),
        (
            vec![("queue", "mail"), ("mode", "cpu")],
            "set it to tasks or desired_workers",
        ),
        (
            vec![("queue", "mail"), ("target_per_worker", "-3")],
            "target_per_worker is \"-3\": set it",
        ),
    ] {
        let metadata = metadata.as_slice();
        let object = || object(metadata);
        for (code, message) in [
            refused(client.is_active(object()).await),
            refused(client.get_metrics(asks_for("forebay-tasks", metadata)).await),
            refused(client.stream_is_active(object()).await),
        ] {
            assert_eq!(code, Code::InvalidArgument);
            assert!(message.contains(says), "{message:?} does not say {says:?}");
        }
        let spec = client.get_metric_spec(object()).await.unwrap().into_inner();
        let [spec] = spec.metric_specs.try_into().unwrap();
        assert_eq!(
            (spec.metric_name.as_str(), spec.target_size_float),
            ("forebay-tasks", 100.0)
        );
    }
    let nothing = GetMetricsRequest::default();
    assert_eq!(
        refused(client.get_metrics(nothing).await).0,
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn the_spec_is_made_of_the_metadata_alone() {
    let served = Served::start().await;
    served.figures.hang();
    let mut client = served.client().await;
    let mut spec = async |metadata: &[(&str, &str)]| {
        let answer = client
            .get_metric_spec(object(metadata))
            .await
            .unwrap()
            .into_inner();
        let [spec] = answer.metric_specs.try_into().unwrap();
        (spec.metric_name, spec.target_size, spec.target_size_float)
    };
    let named = |name: &str, whole, exact| (name.to_owned(), whole, exact);
    assert_eq!(spec(&[("queue", "a")]).await, named("forebay-tasks", 100, 100.0));
    let fractional = [("queue", "a"), ("target_per_worker", "2.5")];
    assert_eq!(spec(&fractional).await, named("forebay-tasks", 3, 2.5));
    let workers = [
        ("queue", "a"),
        ("mode", "desired_workers"),
        ("target_per_worker", "50"),
    ];
    assert_eq!(spec(&workers).await, named("forebay-desired-workers", 1, 1.0));
}

#[tokio::test]
async fn readiness_follows_the_figures_and_grpc_health_the_process() {
    let served = Served::start().await;
    let ready = async || served.health.problems().is_empty();
    until("ready", ready).await;
    served.figures.unknown(Some("the store is not available"));
    until("not ready", async || !ready().await).await;
    let [(component, problem)] = served.health.problems().try_into().unwrap();
    assert_eq!(
        (component.as_str(), problem.as_str()),
        ("figures", "the store is not available")
    );
    let mut health = HealthClient::new(served.channel().await);
    let request = HealthCheckRequest {
        service: "externalscaler.ExternalScaler".into(),
    };
    let answer = health.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    served.figures.unknown(None);
    until("ready again", ready).await;
}

#[tokio::test]
async fn tells_what_services_there_are() {
    let served = Served::start().await;
    let mut names = services(served.channel().await).await;
    names.sort();
    assert_eq!(
        names,
        [
            "externalscaler.ExternalScaler",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection"
        ]
    );
}

async fn services(channel: Channel) -> Vec<String> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let requests = futures::stream::iter([request]);
    let mut answers = client
        .server_reflection_info(requests)
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|service| service.name).collect()
        }
        other => panic!("{other:?}"),
    }
}
