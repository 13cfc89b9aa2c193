//! What all requests share. From the outside in: request id, trace, metrics, security headers, problems, panics,
//! and for the API proper the number of requests at once, of each sort.

pub(crate) mod headers;
pub(crate) mod limit;
pub(crate) mod metrics;
pub(crate) mod panic;
pub(crate) mod problem;
pub(crate) mod request_id;
pub(crate) mod trace;
