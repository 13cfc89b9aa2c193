//! The packages for other languages: the examples of their READMEs, and workers that are killed in the middle of tasks.
//! What they do is in `sdk/*/tests`; here they meet a broker, PostgreSQL, and an API that runs nothing itself.

use std::{path::Path, time::Duration};

use forebay_testkit::broker::BrokerKind;
use tokio::{process::Command, time::timeout};

use crate::stack::{Stack, on_every_broker};

on_every_broker! {
    the_python_package_works
    the_typescript_package_works
}

/// How long the tests of one package may take, however busy the machine is.
const TESTS_MAX: Duration = Duration::from_secs(300);

async fn the_python_package_works(kind: BrokerKind) {
    the_package_works(kind, "python").await;
}

async fn the_typescript_package_works(kind: BrokerKind) {
    the_package_works(kind, "typescript").await;
}

async fn the_package_works(kind: BrokerKind, language: &str) {
    let stack = Stack::on(kind).await;
    let api = stack.api().await;
    let _clerk = stack.worker(&["--roles", "recorder,dispatcher"]).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test-sdk");
    let mut tests = Command::new(script);
    tests
        .args(["--against", &api.grpc, language])
        .env("FOREBAY_BIN", env!("CARGO_BIN_EXE_forebay"))
        .kill_on_drop(true);
    let output = timeout(TESTS_MAX, tests.output());
    let output = output.await.expect("the tests end in time").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{language}: {said}\n{complained}");
}
