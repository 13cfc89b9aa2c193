//! Events: what this process hears of tasks that changed, and what it tells. All of it is best effort; whoever
//! must know reads the store as well.

mod announce;
mod hub;

pub(crate) use announce::Announcer;
pub(crate) use hub::{Heard, Hub, News, Watch, event_id};
