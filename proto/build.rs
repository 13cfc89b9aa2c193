//! Generates the code of the `.proto` files, with a compiler written in Rust: no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

/// Forebay's own API and messages.
const OURS: [&str; 6] = [
    "forebay/v1/task.proto",
    "forebay/v1/queue.proto",
    "forebay/v1/schedule.proto",
    "forebay/v1/limit.proto",
    "forebay/v1/worker.proto",
    "forebay/wire/v1/wire.proto",
];
/// What KEDA asks of a scaler. Apart from ours, since the API does not serve it and must not say that it does.
const SCALER: [&str; 1] = ["externalscaler/externalscaler.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    generate(&OURS, "forebay.descriptors.bin")?;
    generate(&SCALER, "externalscaler.descriptors.bin")
}

fn generate(files: &[&str], descriptors_file: &str) -> Result<(), Box<dyn Error>> {
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join(descriptors_file);
    fs::write(out, prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        .bytes(".forebay")
        .compile_fds(descriptors)?;
    Ok(())
}
