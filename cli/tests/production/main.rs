//! The built binary against real servers, NATS JetStream and PostgreSQL, over its real ports: what a platform
//! engineer runs. Each test has servers of its own and may kill them.

mod faults;
mod promises;
mod stack;
