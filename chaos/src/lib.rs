//! The proof of a run: what it leaves behind, how that is gathered from the databases, judged and told. It knows
//! nothing of how faults are injected, so that it can be tested without any.

pub mod audit;
pub mod check;
pub mod evidence;
pub mod report;
mod table;
