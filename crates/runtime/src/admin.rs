//! The operator's door: metrics and health, on an address of its own.

use std::{future::Future, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::{health::Health, metrics::Metrics};

/// The content type of what [`Metrics::encode`] writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    health: Health,
}

/// Serves until `stop` resolves.
///
/// # Errors
/// Where the listener breaks.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: Health,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, routes(metrics, health))
        .with_graceful_shutdown(stop)
        .await
}

/// `/metrics`, `/health/live` and `/health/ready`.
pub fn routes(metrics: Arc<Metrics>, health: Health) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .with_state(Admin { metrics, health })
}

async fn metrics_text(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], admin.metrics.encode())
}

/// That this is answered at all is the answer.
async fn live() -> Json<Answer> {
    Json(Answer {
        status: "live",
        problems: Vec::new(),
    })
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    let problems: Vec<Problem> = admin
        .health
        .problems()
        .into_iter()
        .map(|(component, problem)| Problem { component, problem })
        .collect();
    let (code, status) = match problems.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    (code, Json(Answer { status, problems }))
}

#[derive(Serialize)]
struct Answer {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    component: String,
    problem: String,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;

    async fn get_from(routes: &Router, path: &str) -> (StatusCode, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = routes.clone().oneshot(request).await.unwrap();
        let kind = answer.headers()[header::CONTENT_TYPE]
            .to_str()
            .unwrap()
            .to_owned();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_says_what_is_wrong_and_live_does_not_care() {
        let health = Health::default();
        let broker = health.component("broker", Duration::from_secs(60));
        let routes = routes(Arc::new(Metrics::new()), health);
        broker.failing("unreachable");
        let (status, _, body) = get_from(&routes, "/health/ready").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            body.contains("\"component\":\"broker\"") && body.contains("unreachable"),
            "{body}"
        );
        assert_eq!(get_from(&routes, "/health/live").await.0, StatusCode::OK);
        broker.ok();
        assert_eq!(get_from(&routes, "/health/ready").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let routes = routes(Arc::new(Metrics::new()), Health::default());
        let (status, kind, body) = get_from(&routes, "/metrics").await;
        assert_eq!((status, kind.as_str()), (StatusCode::OK, OPENMETRICS));
        assert!(
            body.contains("forebay_build_info") && body.ends_with("# EOF\n"),
            "{body}"
        );
    }
}
