//! Every path of the HTTP door, on one screen.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    BoxError, Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    handler::Handler,
    http::{self as web, Method, StatusCode, Uri},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use forebay_core::TraceParent;
use tower::Service;

use crate::{
    App,
    error::{ApiError, Code},
    http::{
        batch, batches, docs, events, explain, health, kinds, limits, operations, queues, rejects, schedules,
        tasks, webhooks, workers,
    },
    layers::{self, limit::Pool},
};

/// How much of an unknown path is shown.
const PATH_SHOWN: usize = 100;

/// The description of all paths, as it is served.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// Routes with a list of what they are, so that a test can hold the description against them.
struct Routes {
    router: Router<App>,
    list: Vec<(&'static str, &'static str)>,
}

/// What needs the broker, and not the store.
fn submissions() -> Routes {
    Routes::new()
        .post("/v1/tasks", tasks::submit)
        .post("/v1/tasks/batch", batch::submit)
        .post("/v1/batches", batches::open)
        .post("/v1/batches/{id}/tasks", batches::add)
}

fn changes() -> Routes {
    Routes::new()
        .post("/v1/tasks/{id}/cancel", tasks::cancel)
        .post("/v1/tasks/{id}/retry", tasks::retry)
        .post("/v1/batches/{id}/close", batches::close)
        .post("/v1/batches/{id}/cancel", batches::cancel)
        .post("/v1/queues/{queue}/pause", queues::pause)
        .post("/v1/queues/{queue}/resume", queues::resume)
        .post("/v1/operations", operations::begin)
        .post("/v1/operations/{operation}/abort", operations::abort)
        .put("/v1/schedules/{name}", schedules::put)
        .delete("/v1/schedules/{name}", schedules::delete)
        .post("/v1/schedules/{name}/pause", schedules::pause)
        .post("/v1/schedules/{name}/resume", schedules::resume)
        .put("/v1/kinds/{kind}/schema", kinds::put)
        .delete("/v1/kinds/{kind}/schema", kinds::delete)
        .put("/v1/limits/{name}", limits::put)
        .delete("/v1/limits/{name}", limits::delete)
        .put("/v1/webhooks/{name}", webhooks::put)
        .delete("/v1/webhooks/{name}", webhooks::delete)
        .post("/v1/webhooks/{name}/test", webhooks::test)
        .post("/v1/webhooks/{name}/replay", webhooks::replay)
}

fn reads() -> Routes {
    Routes::new()
        .get("/v1/tasks", tasks::list)
        .get("/v1/tasks/{id}", tasks::get)
        .get("/v1/tasks/{id}/explain", explain::get)
        .get("/v1/tasks/{id}/events", events::of_task)
        .get("/v1/events", events::all)
        .get("/v1/batches", batches::list)
        .get("/v1/batches/{id}", batches::get)
        .get("/v1/batches/{id}/tasks", batches::tasks)
        .get("/v1/queues", queues::list)
        .get("/v1/queues/{queue}", queues::get)
        .get("/v1/queues/{queue}/autoscale", queues::autoscale)
        .get("/v1/schedules", schedules::list)
        .get("/v1/schedules/{name}", schedules::get)
        .get("/v1/kinds", kinds::list)
        .get("/v1/kinds/{kind}/schema", kinds::get)
        .get("/v1/limits", limits::list)
        .get("/v1/limits/{name}", limits::get)
        .get("/v1/webhooks", webhooks::list)
        .get("/v1/webhooks/{name}", webhooks::get)
        .get("/v1/webhooks/{name}/deliveries", webhooks::deliveries)
        .get("/v1/operations", operations::list)
        .get("/v1/operations/{operation}", operations::get)
        .get("/v1/workers", workers::list)
        .get("/v1/rejects", rejects::list)
}

fn others() -> Routes {
    Routes::new()
        .get("/openapi.json", docs::openapi)
        .get("/docs", docs::page)
        .get("/docs/errors/{code}", docs::error_page)
        .get("/health/live", health::live)
        .get("/health/ready", health::ready)
}

/// The HTTP door as a service; [`crate::serve_http`] serves it.
pub fn router(app: App) -> Router {
    Router::new().fallback_service(door(app))
}

/// The HTTP door: the routes, and a short way for what is asked most.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    app: App,
    routes: Router,
}

pub(crate) fn door(app: App) -> Door {
    let limited = |routes: Routes, pool| {
        let limit = from_fn_with_state((app.clone(), pool), layers::limit::layer);
        routes.router.route_layer(limit)
    };
    let routes = limited(submissions(), Pool::Submissions)
        .merge(limited(changes(), Pool::Changes))
        .merge(limited(reads(), Pool::Reads))
        .merge(others().router)
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(unknown_path)
        .layer(from_fn_with_state(app.clone(), layers::layer))
        .with_state(app.clone());
    Door { app, routes }
}

impl Door {
    /// Whether it is the submission of one task, which is most of what comes, and needs no router.
    fn is_submission(request: &Request) -> bool {
        request.method() == Method::POST
            && request.uri().path() == "/v1/tasks"
            && request.uri().query().is_none()
    }

    async fn submit(app: &App, request: Request, traceparent: Option<TraceParent>) -> Response {
        let Ok(_place) = Pool::Submissions.place(app) else {
            return ApiError::of(Code::Overloaded).into_response();
        };
        let (head, body) = request.into_parts();
        let answer = tasks::submit_one(app, traceparent, &head.headers, body).await;
        answer.unwrap_or_else(IntoResponse::into_response)
    }
}

impl<B> Service<web::Request<B>> for Door
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routers are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: web::Request<B>) -> Self::Future {
        let request = request.map(Body::new);
        if !Self::is_submission(&request) {
            return Box::pin(self.routes.call(request));
        }
        let app = self.app.clone();
        Box::pin(async move {
            let submit = |request, traceparent| Self::submit(&app, request, traceparent);
            Ok(layers::submission(&app, request, submit).await)
        })
    }
}

/// Method and path of each route.
#[must_use]
pub fn routes() -> Vec<(&'static str, &'static str)> {
    let all = [submissions(), changes(), reads(), others()];
    all.into_iter().flat_map(|routes| routes.list).collect()
}

/// `OPTIONS` asks what is allowed, and the router adds the answer to either response.
async fn method_not_allowed(request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let detail = "the header Allow says which methods this path has";
    ApiError::new(Code::MethodNotAllowed, detail).into_response()
}

async fn unknown_path(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(PATH_SHOWN).collect();
    let detail = format!("there is nothing at {path}; /docs shows what there is");
    ApiError::new(Code::UnknownPath, detail)
}

impl Routes {
    fn new() -> Self {
        Self {
            router: Router::new(),
            list: Vec::new(),
        }
    }

    fn get<H: Handler<T, App>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.route("get", path, get(handler))
    }

    fn post<H: Handler<T, App>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.route("post", path, post(handler))
    }

    fn put<H: Handler<T, App>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.route("put", path, put(handler))
    }

    fn delete<H: Handler<T, App>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.route("delete", path, delete(handler))
    }

    fn route(mut self, method: &'static str, path: &'static str, handler: MethodRouter<App>) -> Self {
        self.list.push((method, path));
        self.router = self.router.route(path, handler);
        self
    }
}
