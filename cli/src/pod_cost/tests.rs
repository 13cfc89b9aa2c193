use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(30);

fn load(busy: usize, seconds: u64) -> Load {
    Load {
        busy,
        longest: Duration::from_secs(seconds),
    }
}

#[test]
fn what_is_busy_costs_and_what_is_long_costs_more() {
    for (busy, seconds, expected) in [
        (0, 0, 0),
        (0, 99, 0),
        (1, 0, 10),
        (1, 1, 10),
        (1, 2, 11),
        (1, 1_024, 20),
        (1, u64::MAX, 30),
        (7, 60, 75),
        (10_000, 0, 100_000),
        (usize::MAX, 1, COST_MAX),
    ] {
        assert_eq!(cost(load(busy, seconds)), expected, "{busy} for {seconds} s");
    }
}

#[test]
fn small_changes_are_no_news() {
    for (told, cost, expected) in [
        (0, 0, false),
        (0, 10, true),
        (10, 0, true),
        (10, 12, false),
        (10, 14, true),
        (1_000, 900, false),
        (1_000, 700, true),
        (i32::MIN, i32::MAX, true),
    ] {
        assert_eq!(is_news(told, cost), expected, "{told} -> {cost}");
    }
}

#[test]
fn what_is_missing_is_said_in_one_line() {
    let account = TempDir::new().unwrap();
    let error = Pod::from_variables(|_| None, account.path()).unwrap_err();
    for part in [
        "POD_NAME is",
        "POD_NAMESPACE is",
        "KUBERNETES_SERVICE_HOST",
        "token",
        "ca.crt",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains('\n'), "{error}");
    for file in ["token", "ca.crt"] {
        std::fs::write(account.path().join(file), "x").unwrap();
    }
    let variables = |name: &'static str| {
        move |key: &str| {
            Some(match key {
                "POD_NAME" => name.to_owned(),
                "KUBERNETES_SERVICE_HOST" => "fd00::1".to_owned(),
                "KUBERNETES_SERVICE_PORT" => "443".to_owned(),
                _ => "prod".to_owned(),
            })
        }
    };
    let pod = Pod::from_variables(variables("worker-1"), account.path()).unwrap();
    assert_eq!(
        pod.url,
        "https://[fd00::1]:443/api/v1/namespaces/prod/pods/worker-1"
    );
    let error = Pod::from_variables(variables("../other"), account.path()).unwrap_err();
    assert!(error.contains("is no name of Kubernetes"), "{error}");
}

/// What an API server keeps of one pod, and what was asked of it.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    annotations: BTreeMap<String, String>,
    /// The costs that were written.
    written: Vec<String>,
    tokens: Vec<String>,
    calls: usize,
    is_refusing: bool,
}

impl Server {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    fn answer(&self, headers: &HeaderMap, patch: Option<&Value>) -> (StatusCode, Json<Value>) {
        let mut kept = self.kept();
        kept.calls += 1;
        if kept.is_refusing {
            return (StatusCode::FORBIDDEN, Json(json!({"kind": "Status"})));
        }
        let token = headers["authorization"].to_str().unwrap().to_owned();
        kept.tokens.push(token);
        if let Some(patch) = patch {
            assert_eq!(headers["content-type"], "application/merge-patch+json");
            let cost = patch["metadata"]["annotations"][COST]
                .as_str()
                .unwrap()
                .to_owned();
            assert_eq!(
                *patch,
                json!({"metadata": {"annotations": {COST: cost}}}),
                "nothing else"
            );
            kept.written.push(cost.clone());
            kept.annotations.insert(COST.to_owned(), cost);
        }
        let metadata = match kept.annotations.is_empty() {
            true => json!({"name": "worker-1"}),
            false => json!({"name": "worker-1", "annotations": kept.annotations}),
        };
        (
            StatusCode::OK,
            Json(json!({"kind": "Pod", "metadata": metadata, "spec": {}})),
        )
    }

    fn routes(&self) -> Router {
        let read =
            |State(server): State<Self>, headers: HeaderMap| async move { server.answer(&headers, None) };
        let patch = |State(server): State<Self>, headers: HeaderMap, body: String| async move {
            let patch = serde_json::from_str(&body).unwrap();
            server.answer(&headers, Some(&patch))
        };
        Router::new()
            .route("/api/v1/namespaces/prod/pods/worker-1", get(read).patch(patch))
            .with_state(self.clone())
    }

    async fn sees(&self, what: &str, mut condition: impl FnMut(&Kept) -> bool) {
        let seen = async {
            while !condition(&self.kept()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, seen).await.is_ok(),
            "waited in vain: {what}"
        );
    }
}

struct TlsListener(TcpListener, TlsAcceptor);

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            if let Ok((stream, address)) = self.0.accept().await
                && let Ok(stream) = self.1.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A pod whose API server speaks TLS with a certificate that only the service account's folder knows.
async fn pod(server: &Server) -> (Pod, TempDir) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let account = TempDir::new().unwrap();
    std::fs::write(account.path().join("token"), "first\n").unwrap();
    std::fs::write(account.path().join("ca.crt"), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let listener = TlsListener(tcp, TlsAcceptor::from(Arc::new(config)));
    tokio::spawn(axum::serve(listener, server.routes()).into_future());
    let variable = move |key: &str| {
        Some(match key {
            "POD_NAME" => "worker-1".to_owned(),
            "POD_NAMESPACE" => "prod".to_owned(),
            "KUBERNETES_SERVICE_HOST" => "127.0.0.1".to_owned(),
            _ => port.to_string(),
        })
    };
    let mut pod = Pod::from_variables(variable, account.path()).unwrap();
    pod.interval = INTERVAL;
    (pod, account)
}

#[tokio::test]
async fn what_is_news_is_told_with_the_token_of_the_day() {
    let server = Server::default();
    let (pod, account) = pod(&server).await;
    let (sender, receiver) = watch::channel(Load::default());
    let stop = CancellationToken::new();
    let telling = tokio::spawn({
        let stop = stop.clone();
        async move { pod.tell(receiver, &stop).await }
    });
    server.sees("it asks what is there", |kept| kept.calls == 1).await;
    sender.send_replace(load(2, 4));
    server.sees("busy", |kept| kept.written == ["22"]).await;
    std::fs::write(account.path().join("token"), "second").unwrap();
    sender.send_replace(load(2, 8));
    sender.send_replace(load(0, 0));
    server.sees("idle", |kept| kept.written == ["22", "0"]).await;
    assert_eq!(
        server.kept().tokens,
        ["Bearer first", "Bearer first", "Bearer second"]
    );
    stop.cancel();
    tokio::time::timeout(PATIENCE, telling)
        .await
        .expect("it ends")
        .unwrap();
}

#[tokio::test]
async fn a_pod_that_karpenter_looks_after_is_left_alone() {
    let server = Server::default();
    server
        .kept()
        .annotations
        .insert(MANAGED.to_owned(), "true".to_owned());
    let (pod, _account) = pod(&server).await;
    let (_sender, receiver) = watch::channel(load(5, 5));
    let telling = pod.tell_on(receiver);
    tokio::time::timeout(PATIENCE, telling)
        .await
        .expect("it gives up");
    let kept = server.kept();
    assert_eq!((kept.calls, kept.written.len()), (1, 0));
}

#[tokio::test]
async fn a_refusal_is_tried_again_later_and_never_more_often() {
    let server = Server::default();
    server.kept().is_refusing = true;
    let (pod, _account) = pod(&server).await;
    let (sender, receiver) = watch::channel(load(1, 0));
    let began = std::time::Instant::now();
    let telling = tokio::spawn(async move { pod.tell_on(receiver).await });
    server.sees("it tries again", |kept| kept.calls >= 4).await;
    assert!(began.elapsed() >= INTERVAL * 3, "after {:?}", began.elapsed());
    server.kept().is_refusing = false;
    server
        .sees("it is told in the end", |kept| kept.written == ["10"])
        .await;
    drop(sender);
    tokio::time::timeout(PATIENCE, telling)
        .await
        .expect("it ends with the worker")
        .unwrap();
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let server = Server::default();
    let (pod, account) = pod(&server).await;
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(account.path().join("ca.crt"), other.cert.pem()).unwrap();
    let mut teller = Teller {
        pod: &pod,
        client: None,
        told: None,
        is_failing: false,
    };
    assert!(teller.attempt(None).await.is_none() && teller.is_failing);
    assert_eq!(server.kept().calls, 0);
}
