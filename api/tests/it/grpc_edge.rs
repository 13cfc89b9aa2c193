//! Deadlines, cancellations, connections and what tonic answers by itself, as a stranger's client sees them.

use std::{sync::Arc, time::Duration};

use forebay_api::Bounds;
use forebay_proto::v1;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    door::{Door, eventually, quick},
    fake::Mood,
    grpc::{code_of, fields_of},
    grpc_stranger::{PATIENCE, Sent, Stranger, framed, serve},
};

const SUBMIT: &str = "/forebay.v1.TaskService/SubmitTask";
const SUBMIT_ALL: &str = "/forebay.v1.TaskService/SubmitTasks";
const GET: &str = "/forebay.v1.TaskService/GetTask";
const WATCH: &str = "/forebay.v1.TaskService/WatchTask";
const SOON: (&str, &str) = ("grpc-timeout", "100m");

/// One place of each sort, and nothing that would end a call but its deadline.
fn patient() -> Bounds {
    let long = Duration::from_secs(60);
    Bounds {
        submissions: 1,
        reads: 1,
        streams: 1,
        uploads: 1,
        submit: long,
        read: long,
        ask: long,
        recording: long,
        body: long,
        ..quick()
    }
}

fn get(id: &impl ToString) -> Sent {
    Sent::message(&v1::GetTaskRequest { id: id.to_string() })
}

fn watch(id: &impl ToString) -> Sent {
    Sent::message(&v1::WatchTaskRequest {
        id: id.to_string(),
        ..Default::default()
    })
}

fn echo() -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest {
        kind: "echo".into(),
        ..Default::default()
    }
}

#[track_caller]
fn assert_late(status: &Status) {
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(
        (info.domain.as_str(), info.reason.as_str()),
        ("forebay", "deadline_exceeded")
    );
}

fn counted(door: &Door, method: &str, code: Code, times: u32) -> bool {
    let code = i32::from(code);
    let line =
        format!("rpc_server_call_duration_seconds_count{{method=\"{method}\",code=\"{code}\"}} {times}");
    door.app.metrics.encode().lines().any(|known| known == line)
}

#[tokio::test]
async fn a_deadline_is_kept_and_leaves_nothing_behind() {
    let door = Door::bounded(patient());
    let (address, _server) = serve(&door).await;
    let client = Stranger::connect(&address).await;
    let id = door.submit().await.id();
    // The first has the only place; the second would be refused if that were not free again.
    door.fake.lock().store = Mood::Hangs;
    for _ in 0..2 {
        assert_late(&client.call(GET, &[SOON], get(&id)).await.status);
    }
    door.fake.lock().store = Mood::Up;
    assert_eq!(client.call(GET, &[SOON], get(&id)).await.status.code(), Code::Ok);
    // One that waits for its row.
    door.fake.lock().lagging = true;
    let unrecorded = door.submit().await.id();
    for _ in 0..2 {
        assert_late(&client.call(GET, &[SOON], get(&unrecorded)).await.status);
    }
    door.fake.lock().broker = Mood::Hangs;
    for _ in 0..2 {
        assert_late(&client.call(SUBMIT, &[SOON], Sent::message(&echo())).await.status);
    }
    assert!(counted(&door, "GetTask", Code::DeadlineExceeded, 4));
    assert!(counted(&door, "SubmitTask", Code::DeadlineExceeded, 2));
}

#[tokio::test]
async fn a_deadline_that_is_long_changes_nothing_and_none_at_all_is_late_at_once() {
    let door = Door::new();
    let (address, _server) = serve(&door).await;
    let client = Stranger::connect(&address).await;
    let submit = async |within: &str| {
        let sent = Sent::message(&echo());
        client
            .call(SUBMIT, &[("grpc-timeout", within)], sent)
            .await
            .status
    };
    for long in ["10S", "99999999H"] {
        assert_eq!(submit(long).await.code(), Code::Ok, "{long}");
    }
    door.fake.lock().broker = Mood::Hangs;
    assert_late(&submit("0n").await);
    let refused = submit("soon").await;
    assert_eq!(code_of(&refused), "invalid_parameter");
    assert_eq!(fields_of(&refused), ["grpc-timeout"]);
}

/// Where tonic's own alarm and ours go off together, ours is heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_that_he_cancelled_what_was_late() {
    let door = Door::bounded(Bounds {
        reads: 1_000,
        ..patient()
    });
    let (address, _server) = serve(&door).await;
    let client = Stranger::connect(&address).await;
    let id = door.submit().await.id();
    door.fake.lock().store = Mood::Hangs;
    for round in 0..5 {
        let deadline = format!("{}m", 20 + round);
        let headers = [("grpc-timeout", deadline.as_str())];
        let calls = (0..100).map(|_| client.call(GET, &headers, get(&id)));
        for answered in futures::future::join_all(calls).await {
            assert_late(&answered.status);
        }
    }
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_too() {
    let door = Door::bounded(patient());
    let (address, _server) = serve(&door).await;
    let client = Stranger::connect(&address).await;
    let id = door.submit().await.id();
    for _ in 0..2 {
        let watched = client.call(WATCH, &[SOON], watch(&id)).await;
        assert!(!watched.data.is_empty(), "it has begun");
        assert_late(&watched.status);
    }
    for _ in 0..2 {
        let submitted = client.call(SUBMIT_ALL, &[SOON], Sent::nothing_yet()).await;
        assert_late(&submitted.status);
    }
}

#[tokio::test]
async fn a_call_that_is_cancelled_leaves_nothing_behind() {
    let door = Door::bounded(patient());
    let (address, _server) = serve(&door).await;
    let client = Arc::new(Stranger::connect(&address).await);
    let id = door.submit().await.id();
    door.fake.lock().store = Mood::Hangs;
    let asked = door.fake.lock().store_asked;
    let one = Arc::clone(&client);
    let given_up = tokio::spawn(async move { one.call(GET, &[], get(&id)).await });
    eventually("it has the only place", async || {
        door.fake.lock().store_asked > asked
    })
    .await;
    let refused = async || {
        let answered = client.call(GET, &[SOON], get(&id)).await;
        answered.status.code() == Code::Unavailable
    };
    assert!(refused().await);
    given_up.abort();
    eventually("its place is free", async || !refused().await).await;
    assert!(counted(&door, "GetTask", Code::Cancelled, 1));

    door.fake.lock().store = Mood::Up;
    let mut watched = client.begin(WATCH, &[], watch(&id)).await;
    assert!(watched.next().await.is_some());
    let overloaded = client.call(WATCH, &[], watch(&id)).await;
    assert_eq!(code_of(&overloaded.status), "overloaded");
    drop(watched);
    eventually("its place is free", async || {
        let again = client.call(WATCH, &[SOON], watch(&id)).await;
        again.status.code() == Code::DeadlineExceeded
    })
    .await;
}

#[tokio::test]
async fn a_message_that_never_comes_is_not_waited_for() {
    let door = Door::bounded(Bounds {
        call: Duration::from_millis(100),
        ..quick()
    });
    let (address, _server) = serve(&door).await;
    let client = Stranger::connect(&address).await;
    for path in [GET, SUBMIT, "/forebay.v1.QueueService/ListQueues"] {
        let answered = client.call(path, &[], Sent::nothing_yet()).await;
        assert_eq!(code_of(&answered.status), "body_timeout", "{path}");
    }
}

type Headers = Vec<(&'static str, &'static str)>;

/// What tonic answers before any of our code is asked: path, headers, body, and the code that it is given.
fn unreadable() -> Vec<(&'static str, Headers, Vec<u8>, &'static str)> {
    let good = framed(&[]);
    let too_long = [&[0][..], &u32::to_be_bytes(5 * 1024 * 1024)].concat();
    let plain = Vec::new;
    vec![
        ("/", plain(), good.clone(), "unknown_path"),
        ("/no.such.Service/Method", plain(), good.clone(), "unknown_path"),
        (
            "/forebay.v1.TaskService/Nothing",
            plain(),
            good.clone(),
            "unknown_path",
        ),
        (
            "/grpc.health.v1.Health/Nothing",
            plain(),
            good.clone(),
            "unknown_path",
        ),
        // A kind that is not UTF-8.
        (SUBMIT, plain(), framed(&[0x0a, 0x01, 0xff]), "invalid_body"),
        (GET, plain(), framed(b"{\"id\":1}"), "invalid_body"),
        (GET, plain(), Vec::new(), "invalid_body"),
        (GET, plain(), vec![0, 0, 0, 0, 9, 1], "invalid_body"),
        (GET, plain(), vec![7, 0, 0, 0, 0], "invalid_body"),
        (GET, plain(), vec![1, 0, 0, 0, 0], "invalid_body"),
        (GET, plain(), too_long.clone(), "body_too_large"),
        (
            "/forebay.v1.QueueService/GetQueue",
            plain(),
            too_long.clone(),
            "body_too_large",
        ),
        (
            "/grpc.health.v1.Health/Check",
            plain(),
            too_long,
            "body_too_large",
        ),
        (
            GET,
            vec![("grpc-encoding", "gzip")],
            good.clone(),
            "unsupported_media_type",
        ),
        (
            GET,
            vec![("content-type", "application/json")],
            good,
            "unsupported_media_type",
        ),
    ]
}

#[tokio::test]
async fn what_tonic_answers_has_details_too() {
    let door = Door::new();
    let (address, _server) = serve(&door).await;
    let client = Stranger::connect(&address).await;
    for (path, headers, body, expected) in unreadable() {
        let answering = client.begin(path, &headers, Sent::bytes(body)).await;
        let (http_status, head) = (answering.http_status, answering.head.clone());
        let status = answering.end().await.status;
        assert!(!status.message().is_empty(), "{path}: {expected}");
        if headers.is_empty() {
            assert_eq!(code_of(&status), expected, "{path}");
            assert_eq!(http_status, 200, "{path}");
            continue;
        }
        // The protocol has a say in these.
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, expected, "{headers:?}");
        if headers[0].0 == "grpc-encoding" {
            assert_eq!(status.code(), Code::Unimplemented);
            assert_eq!(head["grpc-accept-encoding"], "identity");
        } else {
            assert_eq!((code_of(&status), http_status), (expected, 415));
        }
    }
}

#[tokio::test]
async fn a_stream_says_what_was_wrong_with_it() {
    let door = Door::new();
    let (address, _server) = serve(&door).await;
    let client = Stranger::connect(&address).await;
    let good = framed(&echo().encode_to_vec());
    for (bad, expected) in [
        (framed(&[0x0a, 0x01, 0xff]), "invalid_body"),
        (vec![0, 0, 0], "invalid_body"),
        ([&[0][..], &u32::MAX.to_be_bytes()].concat(), "body_too_large"),
    ] {
        let sent = Sent::bytes([&good[..], &bad].concat());
        let answered = client.call(SUBMIT_ALL, &[], sent).await;
        assert!(!answered.data.is_empty(), "what came before is answered");
        assert_eq!(code_of(&answered.status), expected);
    }
}

/// Health has a protocol of its own, which knows no details.
#[tokio::test]
async fn what_others_specify_is_left_alone() {
    let door = Door::new();
    let (address, _server) = serve(&door).await;
    let client = Stranger::connect(&address).await;
    let unknown = tonic_health::pb::HealthCheckRequest {
        service: "nobody".into(),
    };
    let answered = client.call("/grpc.health.v1.Health/Check", &[], Sent::message(&unknown));
    let status = answered.await.status;
    assert_eq!(
        (status.code(), status.details().is_empty()),
        (Code::NotFound, true)
    );
}

#[tokio::test]
async fn a_connection_ends_for_its_age_and_its_streams_in_good_order() {
    let door = Door::bounded(Bounds {
        connection_age: Duration::from_secs(2),
        ..quick()
    });
    let (address, _server) = serve(&door).await;
    let client = Stranger::connect(&address).await;
    let id = door.submit().await.id();
    let watched = client.begin(WATCH, &[], watch(&id)).await;
    let submitted = client.begin(SUBMIT_ALL, &[], Sent::nothing_yet()).await;
    for stream in [watched, submitted] {
        assert_eq!(stream.end().await.status.code(), Code::Ok);
    }
    let ended = timeout(PATIENCE, client.connection).await;
    ended.expect("the connection is ended").unwrap().unwrap();
    // Whoever comes again goes on.
    let again = Stranger::connect(&address).await;
    let answered = again.call(GET, &[], get(&id)).await;
    assert_eq!(answered.status.code(), Code::Ok);
}

#[tokio::test]
async fn connections_are_bounded_and_those_beyond_wait() {
    let door = Door::bounded(Bounds {
        connections: 1,
        ..quick()
    });
    let (address, _server) = serve(&door).await;
    let id = door.submit().await.id();
    let first = Stranger::connect(&address).await;
    assert_eq!(first.call(GET, &[], get(&id)).await.status.code(), Code::Ok);
    let second = Stranger::connect(&address).await;
    let mut waits = Box::pin(second.call(GET, &[], get(&id)));
    let early = timeout(Duration::from_millis(200), &mut waits).await;
    assert!(early.is_err(), "{early:?}");
    first.connection.abort();
    assert_eq!(waits.await.status.code(), Code::Ok);
}

/// What it had said is all the same. Who has begun is not asked again.
#[tokio::test]
async fn a_connection_that_does_not_begin_gives_its_place_back() {
    let door = Door::bounded(Bounds {
        connections: 2,
        head: Duration::from_millis(100),
        ..quick()
    });
    let (address, _server) = serve(&door).await;
    let id = door.submit().await.id();
    let first = Stranger::connect(&address).await;
    assert_eq!(first.call(GET, &[], get(&id)).await.status.code(), Code::Ok);
    for said in ["", "PRI * HTTP/2.0\r\n"] {
        let mut silent = TcpStream::connect(&address).await.unwrap();
        silent.write_all(said.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        let closed = timeout(PATIENCE, silent.read_to_end(&mut heard)).await;
        // Whether it is closed or reset is all the same.
        drop(closed.expect("it is closed"));
    }
    let second = Stranger::connect(&address).await;
    for client in [second, first] {
        assert_eq!(client.call(GET, &[], get(&id)).await.status.code(), Code::Ok);
    }
}

/// A client that does not answer to pings: its machine is gone, say.
#[tokio::test]
async fn a_dead_client_is_noticed() {
    let door = Door::bounded(Bounds {
        ping: Duration::from_millis(50),
        pong: Duration::from_millis(50),
        ..quick()
    });
    let (address, _server) = serve(&door).await;
    let mut silent = TcpStream::connect(&address).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    silent
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    silent.write_all(&settings).await.unwrap();
    let mut said = Vec::new();
    let closed = timeout(PATIENCE, silent.read_to_end(&mut said)).await;
    // Whether it is closed or reset is all the same.
    drop(closed.expect("it is closed"));
    assert!(!said.is_empty());
}
