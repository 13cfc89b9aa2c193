//! What is written can be read again, by people and by programs.

use serde_json::Value;

use crate::{
    fake::{Fake, Mischief},
    program::run,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_page_needs_nothing_else_and_can_be_made_again_from_the_json() {
    let fake = Fake::start(Mischief::default()).await;
    let outcome = run(&format!(
        "ramp --from 10 --to 200 --duration 2s --url {}",
        fake.url
    ))
    .await;
    assert_eq!(outcome.code, 0, "{}{}", outcome.printed, outcome.complaints);
    // The only address in it is that of the server, as text.
    let page = outcome.page.replace(&fake.url, "");
    for outside in [
        "http:", "https:", "src=", "href=", "url(", "@import", "fetch(", "import(",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("<svg") && page.contains("Throughput"));
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("a.json"), folder.path().join("a.html"));
    std::fs::write(&json, outcome.report.to_string()).unwrap();
    let report = |json: &std::path::Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_forebay-loadtest"));
        command
            .arg("report")
            .arg(json)
            .arg("--html")
            .arg(&html)
            .output()
            .unwrap()
    };
    let output = report(&json);
    assert!(output.status.success());
    assert!(
        std::fs::read_to_string(&html).unwrap() == outcome.page,
        "another page"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), outcome.printed);
    let mut newer = outcome.report;
    newer["version"] = Value::from(2);
    std::fs::write(&json, newer.to_string()).unwrap();
    let output = report(&json);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(2) && complaint.contains("version 2"),
        "{complaint}"
    );
}
