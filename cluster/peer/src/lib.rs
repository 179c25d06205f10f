//! Mutual-TLS links between nodes: certificates, frames, shard transfer, Raft transport, join.
//!
//! ```text
//! store, consensus, control ──> PeerClient ══ TLS 1.3, frames ══> PeerServer ──> Service
//! a new node ──> join() ══ TLS 1.3, token, no certificate ══> PeerServer ──> JoinAuthority
//! ```
//!
//! - [`pki`]: the cluster CA and what it issues;
//! - [`frame`]: the bytes on a link;
//! - [`Method`] and [`Role`]: what may be asked, and by whom;
//! - [`PeerClient`], [`PeerServer`]: the two ends;
//! - [`join`]: how a node without a certificate gets one.
//!
//! A link knows nothing of what bodies mean: they are encoded and read by those who use it.

#![forbid(unsafe_code)]

mod client;
mod counters;
mod error;
pub mod frame;
pub mod join;
mod method;
pub mod pki;
mod server;
mod service;
mod stream;

pub use client::{
    Answer, BACKOFF_MAX, BACKOFF_MIN, BULK_IN_FLIGHT_MAX, CONNECT_TIMEOUT, PeerClient, URGENT_IN_FLIGHT_MAX,
};
pub use counters::PeerCounters;
pub use error::{ConnectError, PeerError};
pub use method::{Method, Role};
pub use server::{BindError, CONNECTIONS_MAX, CONNECTIONS_PER_NODE_MAX, PeerServer, STRANGERS_MAX};
pub use service::{PeerNode, Refusal, Reply, Service, SharedPayload};
pub use stream::{DEAD_AFTER, HEARTBEAT_EVERY};

/// Protocol name (RFC 7301) of links between nodes.
pub(crate) const ALPN_PEER: &[u8] = b"holdfast-peer/1";

/// Protocol name of a request for admission.
pub(crate) const ALPN_JOIN: &[u8] = b"holdfast-join/1";

/// Bytes read from the network at once, below TLS, per connection.
pub(crate) const READ_BUFFER_SIZE: usize = 128 * 1024;

/// Bytes encrypted before they are handed to the network, per connection. Twice the library's own limit:
/// fewer system calls a shard, still inside the processor's cache.
pub(crate) const WRITE_BUFFER_SIZE: usize = 128 * 1024;
