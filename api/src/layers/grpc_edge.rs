//! Around every gRPC service, health and reflection included: deadlines are kept, and what tonic answers by itself is
//! said in our words.
//!
//! tonic looks at a deadline only until the answer begins, and then says CANCELLED, which is the caller's word. A message
//! that it cannot read, a method that it does not know and the like it answers without details, and partly with codes
//! that say that the server is at fault.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body, service::Routes};
use tower::{Service, layer::LayerFn, layer::layer_fn};

use crate::{
    App,
    error::{ApiError, Code},
    grpc::status,
    layers::grpc_deadline,
};

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
const DETAILS: &str = "grpc-status-details-bin";

/// Puts the edge around all services of a server.
pub(crate) fn layer(app: &App) -> LayerFn<impl Fn(Routes) -> Edge + Clone + use<>> {
    let patience = app.bounds.call;
    layer_fn(move |services| Edge { services, patience })
}

/// The services, and what is around them.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    services: Routes,
    /// How long a call without a deadline may take until its answer begins.
    patience: Duration,
}

impl Service<Request<Body>> for Edge {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.services, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let began = Instant::now();
        if !is_grpc(request.headers()) {
            return answered(not_grpc());
        }
        let deadline = match grpc_deadline::of(request.headers()) {
            Ok(within) => within.map(|within| began + within),
            Err(refused) => return answered(status::status(&refused).into_http()),
        };
        let patience = began + self.patience;
        let answer = self.services.call(request);
        Box::pin(async move {
            let limit = deadline.map_or(patience, |deadline| deadline.min(patience));
            Ok(match until(limit, answer).await {
                Some(Ok(response)) => explained(response, deadline),
                None if deadline == Some(limit) => status::late().into_http(),
                None => status::status(&ApiError::of(Code::BodyTimeout)).into_http(),
            })
        })
    }
}

fn answered(response: Response<Body>) -> <Edge as Service<Request<Body>>>::Future {
    Box::pin(std::future::ready(Ok(response)))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE);
    media_type.is_some_and(|media_type| media_type.as_bytes().starts_with(b"application/grpc"))
}

/// As the protocol wants it, by HTTP's status, too.
fn not_grpc() -> Response<Body> {
    let detail = "this is a gRPC port: the content type must be application/grpc";
    let refused = ApiError::new(Code::UnsupportedMediaType, detail);
    let mut response = status::status(&refused).into_http();
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// What it gives; `None` once it is too late, when it has been dropped.
async fn until<F: Future>(limit: Instant, answer: F) -> Option<F::Output> {
    let mut answer = pin!(answer);
    let mut alarm = pin!(sleep_until(limit));
    poll_fn(|context| {
        if let Poll::Ready(given) = answer.as_mut().poll(context) {
            return Poll::Ready(Some(given));
        }
        is_late(limit, alarm.as_mut(), context).map(|()| None)
    })
    .await
}

/// tonic's own alarm is set to a moment after ours, and may be the one that wakes us; so the clock decides.
fn is_late(limit: Instant, alarm: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<()> {
    match alarm.poll(context) {
        Poll::Pending if Instant::now() < limit => Poll::Pending,
        _ => Poll::Ready(()),
    }
}

/// An error of tonic's in our words; and the same, and the deadline, for the answers that are still to come.
fn explained(response: Response<Body>, deadline: Option<Instant>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if head.headers.contains_key(STATUS) {
        explain(&mut head.headers);
        return Response::from_parts(head, body);
    }
    let alarm = deadline.map(|deadline| (deadline, Box::pin(sleep_until(deadline))));
    Response::from_parts(head, Body::new(Answers { body, alarm }))
}

/// Puts our words into the place of tonic's.
fn explain(trailers: &mut HeaderMap) {
    let is_fine = trailers.get(STATUS).is_none_or(|code| code == "0");
    if is_fine || trailers.contains_key(DETAILS) {
        return;
    }
    let Some(ours) = Status::from_header_map(trailers).and_then(|status| status::of_tonic(&status)) else {
        return;
    };
    trailers.remove(MESSAGE);
    // It fails where a message can't be a header's value, and it is percent-encoded.
    let _ = ours.add_header(trailers);
}

/// The answers of a call.
struct Answers {
    body: Body,
    alarm: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl http_body::Body for Answers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(mut frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &mut frame
                && let Some(trailers) = frame.trailers_mut()
            {
                explain(trailers);
            }
            return Poll::Ready(frame);
        }
        let Some((deadline, alarm)) = &mut self.alarm else {
            return Poll::Pending;
        };
        if is_late(*deadline, alarm.as_mut(), context).is_pending() {
            return Poll::Pending;
        }
        // Whatever makes the answers, and the place that it has, is dropped here and now.
        (self.body, self.alarm) = (Body::empty(), None);
        let mut trailers = HeaderMap::new();
        let written = status::late().add_header(&mut trailers);
        Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
