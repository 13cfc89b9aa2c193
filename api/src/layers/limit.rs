//! How many requests may be under way. Past it the answer is 503 at once: nothing queues in memory.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    App,
    error::{ApiError, Code},
};

pub(crate) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    match app.places.requests.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => ApiError::of(Code::Overloaded).into_response(),
    }
}
