//! The load generator from outside, as the program that people run: against a server that misbehaves on purpose, and
//! against Forebay.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod accounting;
mod doors;
mod fake;
mod k6;
mod program;
mod results;
