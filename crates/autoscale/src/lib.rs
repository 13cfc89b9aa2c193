//! The scaling signal: what waits and what runs in each queue, and how many workers it takes. Computed here and nowhere
//! else, and offered by the api (lists of queues, `/autoscale`, metrics) and by the scaler (KEDA, metrics).
//!
//! An [`Observer`] counts all queues once a second, and anew for whoever asks where that is too long ago. What is not
//! known is an error that names what is away, and never a zero: a zero would let an autoscaler stop the workers in the
//! middle of an outage. The number of workers is [`desired`]'s, a pure function of what was seen in the last half
//! minute, so that every process that watches comes to the same figure without talking to the others.

mod count;
pub mod desired;
mod hear;
mod observer;
mod oldest;
mod unknown;

pub use count::{Count, QueueFigures};
pub use hear::Wakes;
pub use observer::{Bounds, Observer, QueueSample, Sources};
pub use unknown::Unknown;
