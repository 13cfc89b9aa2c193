//! What a hostile or broken caller cannot do.

use tonic::Code;

use crate::served::{SILENCE, Served, in_time, object, quick, refused};

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let served = Served::start().await;
    let large = "a,".repeat(300 * 1024);
    let (code, _) = refused(
        served
            .client()
            .await
            .is_active(object(&[("queue", &large)]))
            .await,
    );
    assert_eq!(code, Code::OutOfRange);
    let longer = "a,".repeat(50 * 1024) + "a";
    let answer = served
        .client()
        .await
        .is_active(object(&[("queue", &longer)]))
        .await;
    assert!(answer.is_ok(), "one name is one queue, however often: {answer:?}");
}

#[tokio::test]
async fn connections_past_the_bound_wait_for_a_place() {
    let bounds = forebay_scaler::Bounds {
        connections: 1,
        ..quick()
    };
    let served = Served::with(bounds, None).await;
    let metadata = [("queue", "mail")];
    let mut first = served.client().await;
    first.is_active(object(&metadata)).await.unwrap();
    let mut second = served.client().await;
    let waits = tokio::time::timeout(SILENCE, second.is_active(object(&metadata))).await;
    assert!(waits.is_err(), "there was no place for it: {waits:?}");
    drop(first);
    in_time(second.is_active(object(&metadata))).await.unwrap();
}
