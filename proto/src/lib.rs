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

/// What KEDA asks of an external scaler.
pub mod externalscaler {
    tonic::include_proto!("externalscaler");
}

/// The compiled `.proto` files of Forebay's own, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/forebay.descriptors.bin"));

/// The compiled `.proto` file of [`externalscaler`], for gRPC reflection.
pub const SCALER_DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/externalscaler.descriptors.bin"));
