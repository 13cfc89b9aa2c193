//! A short run through each door of a real Forebay.

use crate::program::{forebay, run};

#[tokio::test(flavor = "multi_thread")]
async fn each_transport_submits_to_forebay_and_the_account_is_right() {
    forebay();
    for transport in ["http", "ndjson", "grpc"] {
        let outcome = run(&format!(
            "burst --rate 40 --burst-rate 200 --burst-length 1s --every 2s --duration 2s --arrivals constant --start=dev \
             --transport {transport} --connections 4 --priorities high=1,default=2,low=1 --payload-bytes 1000"
        ))
        .await;
        assert_eq!(
            outcome.code, 0,
            "{transport}: {}{}",
            outcome.printed, outcome.complaints
        );
        assert_eq!(outcome.count("/account/succeeded"), 240, "{transport}");
        assert_eq!(outcome.count("/account/strangers"), 0, "{transport}");
        assert_eq!(outcome.count("/turnaround/count"), 240, "{transport}");
        assert!(outcome.number("/points/0/memory_mib/forebay dev") > 1.0);
    }
}
