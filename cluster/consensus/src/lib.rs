//! openraft behind our interface: one log per node for all groups, groups, batching, read barriers.
//!
//! [`Consensus`] is one node's part in all its groups. A group replicates the commands of a
//! [`StateMachine`]; messages travel by a [`Transport`]. Nothing of openraft shows through.
//!
//! | module | holds |
//! |---|---|
//! | `log` | the log store: segments, recovery, the writing thread |
//! | `apply` | a machine on its own thread, checkpoints |
//! | `propose`, `read` | batching of commands, read barriers |
//! | `elect`, `handover`, `maintain` | heartbeats and elections, moving leaders, checkpoints and purges |
//! | `consensus::starting` | groups start and stop, a log that failed is read back |
//! | `group` | one group: what peers ask, membership |
//! | `network`, `incoming`, `snapshot` | messages out, snapshots in and out |
//! | `host` | threads and randomness, which a simulation replaces |
//! | `codec`, `wire`, `log::record` | every byte on disk and wire |

mod apply;
mod beat;
mod codec;
mod confirm;
mod consensus;
mod context;
#[cfg(test)]
mod crash_tests;
mod elect;
mod group;
mod handover;
mod heard;
mod host;
mod incoming;
mod log;
pub mod machine;
mod maintain;
#[cfg(test)]
mod measure;
mod network;
pub mod options;
mod propose;
mod read;
#[cfg(test)]
mod simulation;
mod snapshot;
mod status;
pub mod transport;
mod types;
mod wire;

pub use consensus::{Consensus, ConsensusError, LogRenewal};
pub use group::MembershipError;
pub use log::{LogError, LogIdentity, LogPoisoned};
pub use machine::{Applied, FlushFailed, StateMachine};
pub use options::{COMMAND_BYTES_MAX, ConsensusOptions, SecondCopy};
pub use propose::ProposeError;
pub use read::ReadError;
pub use status::{GroupStatus, LogCounters, Role};
pub use transport::{Transport, TransportError};
pub use wire::MESSAGE_BYTES_MAX;
