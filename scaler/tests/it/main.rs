//! The scaler over the wire, as KEDA calls it, on figures that the tests make up.

#![expect(clippy::unwrap_used, reason = "what does not unwrap here is a failed test")]

mod bounds;
mod calls;
mod figures;
mod served;
mod streams;
mod tls;
