//! The worker as a whole, against a store and a broker in memory that can be made to fail in every way that matters.

#![expect(clippy::unwrap_used, reason = "what does not unwrap here is a failed test")]

mod beating;
mod broker;
mod bulkheads;
mod chaos;
mod dispatching;
mod draining;
mod handoff;
mod intake;
mod once;
mod outages;
mod pausing;
mod priorities;
mod progress;
mod recording;
mod remote;
mod running;
#[cfg(feature = "sabotage")]
mod sabotage;
mod schedules;
mod starts;
mod store;
mod support;
mod timed;
