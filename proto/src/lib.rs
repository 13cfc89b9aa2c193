//! The generated code of Forebay's `.proto` files, and nothing else.
#![allow(missing_docs, clippy::all, unreachable_pub, reason = "generated code")]

/// The public gRPC API.
pub mod v1 {
    tonic::include_proto!("forebay.v1");
}

/// What travels through the broker.
pub mod wire {
    tonic::include_proto!("forebay.wire.v1");
}

/// The compiled `.proto` files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/forebay.descriptors.bin"));
