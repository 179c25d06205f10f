//! openraft behind our interface: one log per node for all groups, groups, batching, read barriers.

pub mod machine;
pub mod transport;

pub use machine::{Applied, StateMachine};
pub use transport::{Transport, TransportError};
