//! Counts requests by method, route and status.

use std::time::Instant;

use axum::{
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};

use crate::{App, layers::trace::route};

pub(crate) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = label(request.method());
    let route = route(&request);
    let response = next.run(request).await;
    app.metrics
        .http_request(method, &route, response.status().as_u16(), began.elapsed());
    response
}

/// A method's name. Clients may invent methods, and labels must stay few.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
