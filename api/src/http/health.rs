//! Whether the process lives, and whether it should be sent requests.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;

use crate::{App, http::json};

#[derive(Debug, Serialize)]
struct HealthBody {
    status: &'static str,
    problems: Vec<ProblemOf>,
}

#[derive(Debug, Serialize)]
struct ProblemOf {
    component: String,
    problem: String,
}

/// `GET /health/live`: the process answers.
pub(crate) async fn live() -> Response {
    let body = HealthBody {
        status: "live",
        problems: Vec::new(),
    };
    json(StatusCode::OK, &body)
}

/// `GET /health/ready`: no component has a problem, and the process is not about to stop.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    let mut problems: Vec<ProblemOf> = app
        .health
        .problems()
        .into_iter()
        .map(|(component, problem)| ProblemOf { component, problem })
        .collect();
    if app.stop.is_cancelled() {
        problems.push(ProblemOf {
            component: "process".to_owned(),
            problem: "is shutting down".to_owned(),
        });
    }
    let (status, word) = if problems.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    json(
        status,
        &HealthBody {
            status: word,
            problems,
        },
    )
}
