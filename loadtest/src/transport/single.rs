//! One POST for each task. A connection has one request under way, and is kept open.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use serde::Deserialize;
use tokio::time::timeout;
use uuid::Uuid;

use super::{Context, cause, refused};
use crate::tally::Answer;

type Sender = SendRequest<Full<Bytes>>;

/// Submits until there is no more to submit.
pub(super) async fn run(context: Arc<Context>) {
    let path = format!("{}/v1/tasks", context.target.path);
    let Ok(uri) = path.parse::<Uri>() else {
        return;
    };
    let headers = headers(&context.target.authority, "application/json");
    let mut sender = None;
    let mut taken = Vec::with_capacity(1);
    loop {
        taken.clear();
        context.take(1, &mut taken).await;
        let Some(shot) = taken.pop() else {
            return;
        };
        let mut body = Vec::with_capacity(context.shape.bytes());
        context.shape.write(shot.number, &mut body);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        let answer = match timeout(context.timeout, exchange(&context, &mut sender, request)).await {
            Ok(answer) => answer,
            Err(_) => Answer::Unanswered("no answer in time".to_owned()),
        };
        if matches!(answer, Answer::Unanswered(_)) {
            sender = None;
        }
        context.settle(shot, answer);
    }
}

/// The headers of every request.
pub(super) fn headers(authority: &str, kind: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    if let Ok(host) = HeaderValue::from_str(authority) {
        headers.insert(header::HOST, host);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers
}

async fn exchange(context: &Context, kept: &mut Option<Sender>, request: Request<Full<Bytes>>) -> Answer {
    let mut request = Some(request);
    while let Some(unsent) = request.take() {
        let mut sender = match kept.take() {
            Some(sender) => sender,
            None => match connect(context).await {
                Ok(sender) => sender,
                Err(why) => return Answer::Failed(why),
            },
        };
        match sender.try_send_request(unsent).await {
            Ok(response) => {
                let answer = read(response).await;
                // Ready at once, unless the server closes it.
                if sender.ready().await.is_ok() {
                    *kept = Some(sender);
                }
                return answer;
            }
            Err(mut error) => match error.take_message() {
                // The server had closed the connection; another one will do.
                Some(unsent) => request = Some(unsent),
                None => return Answer::Unanswered(cause(error.error())),
            },
        }
    }
    Answer::Failed("not sent".to_owned())
}

async fn connect(context: &Context) -> Result<Sender, String> {
    let wire = context.target.connect().await.map_err(|error| cause(&error))?;
    let (sender, connection) = handshake(wire).await.map_err(|error| cause(&error))?;
    // Ends with the sender, or when the server closes it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Answer {
    let status = response.status();
    let after = retry_after(response.headers());
    match response.into_body().collect().await {
        Ok(body) => answer(status, after, &body.to_bytes()),
        Err(error) => Answer::Unanswered(cause(&error)),
    }
}

/// What `Retry-After` says.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[derive(Deserialize)]
struct Task {
    id: Uuid,
}

#[derive(Deserialize)]
struct Problem<'a> {
    #[serde(default)]
    code: &'a str,
}

/// What a response says of a task.
pub(super) fn answer(status: StatusCode, after: Option<Duration>, body: &[u8]) -> Answer {
    if status.is_success() {
        return match serde_json::from_slice::<Task>(body) {
            Ok(task) => Answer::Accepted(task.id.into_bytes()),
            Err(_) => Answer::Unanswered(format!("{} without an id", status.as_u16())),
        };
    }
    let code = serde_json::from_slice::<Problem<'_>>(body).map_or("", |problem| problem.code);
    let why = format!("{} {code}", status.as_u16()).trim_end().to_owned();
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => refused(why, after),
        _ => Answer::Failed(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_acceptance_refusal_and_failure_apart() {
        let id = Uuid::from_u128(7);
        let body = format!(r#"{{"id":"{id}","kind":"echo","payload":{{"id":"not this"}}}}"#);
        let accepted = answer(StatusCode::ACCEPTED, None, body.as_bytes());
        assert_eq!(accepted, Answer::Accepted(id.into_bytes()));
        let after = Some(Duration::from_secs(3));
        let full = answer(
            StatusCode::SERVICE_UNAVAILABLE,
            after,
            br#"{"code":"backlog_full"}"#,
        );
        assert_eq!(full, refused("503 backlog_full", after));
        let wrong = answer(StatusCode::BAD_REQUEST, None, br#"{"code":"invalid_body"}"#);
        assert_eq!(wrong, Answer::Failed("400 invalid_body".into()));
        let html = answer(StatusCode::BAD_GATEWAY, None, b"<html>");
        assert_eq!(html, Answer::Failed("502".into()));
        assert!(matches!(answer(StatusCode::OK, None, b""), Answer::Unanswered(_)));
    }
}
