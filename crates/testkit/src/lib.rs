//! Private servers for tests, the faults that befall them (a bad network, a full disk, a clock that leaps), and waiting
//! without sleeping.
//!
//! Each server listens on a free port of the loopback address (or a socket file), keeps its data in a temporary
//! folder, and is gone when its handle is dropped, when the test panics, and even when the test process is killed.
//! A server program that is not installed is an error that says how to install it, never a skipped test.

pub mod broker;
pub mod clock;
pub mod disk;
pub mod nats;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod rabbitmq;
pub mod wait;
