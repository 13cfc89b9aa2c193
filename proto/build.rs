//! Generates the code of the `.proto` files, with a compiler written in Rust: no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 2] = ["forebay/v1/task.proto", "forebay/wire/v1/wire.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("forebay.descriptors.bin");
    fs::write(out, prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        .bytes(".forebay")
        .compile_fds(descriptors)?;
    Ok(())
}
