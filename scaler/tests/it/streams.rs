//! The streams that KEDA keeps open.

use std::time::Duration;

use forebay_scaler::Bounds;
use tokio::time::Instant;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::served::{PATIENCE, SILENCE, Served, in_time, is_silent, next, object, quick, refused, until};

const MAIL: [(&str, &str); 1] = [("queue", "mail")];

/// Polls never come in time: what is told was heard of.
fn deaf_to_polls() -> Bounds {
    Bounds {
        poll: 10 * PATIENCE,
        ..quick()
    }
}

#[tokio::test]
async fn the_present_state_comes_at_once_be_it_idle_or_busy() {
    let served = Served::with(deaf_to_polls(), None).await;
    assert_eq!(next(&mut served.stream(&MAIL).await).await, Some(false));
    served.figures.set("mail", 0, 1, 1);
    assert_eq!(next(&mut served.stream(&MAIL).await).await, Some(true));
}

#[tokio::test]
async fn while_nothing_is_known_the_first_state_is_waited_for() {
    let served = Served::start().await;
    served.figures.unknown(Some("the broker is not available"));
    let mut stream = served.stream(&MAIL).await;
    assert!(
        is_silent(&mut stream).await,
        "nothing is known, so nothing is told"
    );
    served.figures.unknown(None);
    assert_eq!(next(&mut stream).await, Some(false));
}

#[tokio::test]
async fn the_first_task_is_told_by_its_wake_within_a_second() {
    let served = Served::with(deaf_to_polls(), None).await;
    let mut stream = served.stream(&MAIL).await;
    assert_eq!(next(&mut stream).await, Some(false));
    served.figures.set("mail", 1, 0, 1);
    served.figures.wake("other");
    assert!(is_silent(&mut stream).await, "another queue's wake is no news");
    let woken = Instant::now();
    served.figures.wake("mail");
    assert_eq!(next(&mut stream).await, Some(true));
    assert!(woken.elapsed() < Duration::from_secs(1), "{:?}", woken.elapsed());
}

#[tokio::test]
async fn where_no_wake_comes_the_poll_tells() {
    let bounds = Bounds {
        poll: Bounds::default().poll,
        ..quick()
    };
    let served = Served::with(bounds, None).await;
    let mut stream = served.stream(&MAIL).await;
    assert_eq!(next(&mut stream).await, Some(false));
    served.figures.set("mail", 1, 0, 1);
    let began = Instant::now();
    assert_eq!(next(&mut stream).await, Some(true));
    assert!(
        began.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn only_the_way_up_is_told_and_each_time() {
    let served = Served::start().await;
    let mut stream = served.stream(&MAIL).await;
    assert_eq!(next(&mut stream).await, Some(false));
    for _ in 0..3 {
        served.figures.set("mail", 5, 0, 1);
        served.figures.wake("mail");
        assert_eq!(next(&mut stream).await, Some(true));
        served.figures.set("mail", 4, 1, 1);
        served.figures.wake("mail");
        assert!(is_silent(&mut stream).await, "busy is told once");
        served.figures.set("mail", 0, 0, 0);
        assert!(is_silent(&mut stream).await, "idle is not told");
    }
}

#[tokio::test]
async fn what_wakes_again_soon_is_told_once_in_a_while() {
    let quiet = Duration::from_secs(2);
    let served = Served::with(Bounds { quiet, ..quick() }, None).await;
    let mut stream = served.stream(&MAIL).await;
    assert_eq!(next(&mut stream).await, Some(false));
    served.figures.set("mail", 1, 0, 1);
    assert_eq!(next(&mut stream).await, Some(true));
    let told = Instant::now();
    for ready in [0, 1, 0, 1] {
        served.figures.set("mail", ready, 0, ready);
        let asked = served.figures.asked();
        until("it has looked", async || served.figures.asked() > asked + 1).await;
    }
    assert_eq!(next(&mut stream).await, Some(true));
    // A little less, since the time is taken where it arrives.
    assert!(
        told.elapsed() > quiet - Duration::from_millis(100),
        "{:?}",
        told.elapsed()
    );
    assert!(is_silent(&mut stream).await);
}

#[tokio::test]
async fn an_outage_ends_no_stream_and_what_came_in_it_is_told_after_it() {
    let served = Served::start().await;
    let mut stream = served.stream(&MAIL).await;
    assert_eq!(next(&mut stream).await, Some(false));
    served.figures.unknown(Some("the store is not available"));
    served.figures.set("mail", 9, 0, 1);
    served.figures.wake("mail");
    assert!(is_silent(&mut stream).await);
    served.figures.unknown(None);
    assert_eq!(next(&mut stream).await, Some(true));
}

#[tokio::test]
async fn figures_that_hang_hold_up_neither_the_recovery_nor_the_shutdown() {
    let served = Served::with(
        Bounds {
            answer: 10 * PATIENCE,
            ..quick()
        },
        None,
    )
    .await;
    served.figures.hang();
    let mut stream = served.stream(&MAIL).await;
    assert!(is_silent(&mut stream).await);
    served.stop.cancel();
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test]
async fn several_queues_are_one_state() {
    let served = Served::start().await;
    let mut stream = served.stream(&[("queue", "mail,reports")]).await;
    assert_eq!(next(&mut stream).await, Some(false));
    served.figures.set("reports", 1, 0, 1);
    served.figures.wake("reports");
    assert_eq!(next(&mut stream).await, Some(true));
    served.figures.set("mail", 1, 0, 1);
    served.figures.wake("mail");
    assert!(is_silent(&mut stream).await, "it was busy already");
}

#[tokio::test]
async fn all_streams_are_told_and_counted() {
    let served = Served::start().await;
    let mut streams = [served.stream(&MAIL).await, served.stream(&MAIL).await];
    for stream in &mut streams {
        assert_eq!(next(stream).await, Some(false));
    }
    assert!(served.counted("forebay_scaler_streams{} 2"));
    assert!(served.counted("forebay_scaler_requests_total{method=\"StreamIsActive\",code=\"ok\"} 2"));
    served.figures.set("mail", 1, 0, 1);
    served.figures.wake("mail");
    for stream in &mut streams {
        assert_eq!(next(stream).await, Some(true));
    }
    drop(streams);
    until("none is counted", async || {
        served.counted("forebay_scaler_streams{} 0")
    })
    .await;
}

#[tokio::test]
async fn at_shutdown_every_stream_ends_with_ok_and_the_server_too() {
    let served = Served::start().await;
    let mut health = HealthClient::new(served.channel().await);
    let mut busy = served.stream(&MAIL).await;
    assert_eq!(next(&mut busy).await, Some(false));
    served.figures.unknown(Some("the broker is not available"));
    let mut waiting = served.stream(&MAIL).await;
    let mut client = served.client().await;
    let mut specs = client
        .stream_metric_spec(object(&MAIL))
        .await
        .unwrap()
        .into_inner();
    assert!(in_time(specs.message()).await.unwrap().is_some());
    let watched = health.watch(HealthCheckRequest {
        service: "externalscaler.ExternalScaler".into(),
    });
    let mut watched = watched.await.unwrap().into_inner();
    let first = in_time(watched.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);

    served.stop.cancel();
    assert_eq!(next(&mut busy).await, None);
    assert_eq!(next(&mut waiting).await, None);
    assert!(in_time(specs.message()).await.unwrap().is_none());
    let then = in_time(watched.message()).await.unwrap().unwrap();
    assert_eq!(then.status(), ServingStatus::NotServing);
    drop((watched, health, client, specs, busy, waiting));
    in_time(served.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_old_stream_ends_with_ok_and_the_next_one_begins_with_the_state() {
    let bounds = Bounds {
        stream_age: SILENCE,
        ..quick()
    };
    let served = Served::with(bounds, None).await;
    let mut stream = served.stream(&MAIL).await;
    let mut specs = served.client().await.stream_metric_spec(object(&MAIL)).await;
    let specs = specs.as_mut().unwrap().get_mut();
    assert_eq!(next(&mut stream).await, Some(false));
    assert_eq!(next(&mut stream).await, None);
    assert!(in_time(specs.message()).await.unwrap().is_some());
    assert!(in_time(specs.message()).await.unwrap().is_none());
    served.figures.set("mail", 1, 0, 1);
    assert_eq!(next(&mut served.stream(&MAIL).await).await, Some(true));
}

#[tokio::test]
async fn an_old_connection_takes_no_more_calls_and_its_streams_go_on() {
    let bounds = Bounds {
        connection_age: SILENCE,
        ..quick()
    };
    let served = Served::with(bounds, None).await;
    let mut stream = served.stream(&MAIL).await;
    assert_eq!(next(&mut stream).await, Some(false));
    tokio::time::sleep(2 * SILENCE).await;
    served.figures.set("mail", 1, 0, 1);
    assert_eq!(next(&mut stream).await, Some(true));
}

#[tokio::test]
async fn the_spec_is_sent_once_and_its_stream_stays_open() {
    let served = Served::start().await;
    served.figures.hang();
    let mut client = served.client().await;
    let metadata = [("queue", "mail"), ("target_per_worker", "20")];
    let mut stream = client
        .stream_metric_spec(object(&metadata))
        .await
        .unwrap()
        .into_inner();
    let sent = in_time(stream.message()).await.unwrap().unwrap();
    let asked = client
        .get_metric_spec(object(&metadata))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(sent, asked);
    assert!(tokio::time::timeout(SILENCE, stream.message()).await.is_err());
}

#[tokio::test]
async fn too_many_streams_are_refused_until_one_is_closed() {
    let served = Served::with(
        Bounds {
            streams: 2,
            ..quick()
        },
        None,
    )
    .await;
    let first = served.stream(&MAIL).await;
    let mut client = served.client().await;
    let _specs = client.stream_metric_spec(object(&MAIL)).await.unwrap();
    let (code, message) = refused(client.stream_is_active(object(&MAIL)).await);
    assert_eq!(
        (code, message.as_str()),
        (Code::ResourceExhausted, "2 streams are open already")
    );
    assert!(client.is_active(object(&MAIL)).await.is_ok(), "calls are none");
    drop(first);
    let opens = async || client.clone().stream_is_active(object(&MAIL)).await.is_ok();
    until("there is a place again", opens).await;
}
