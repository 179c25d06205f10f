//! Runs stripe plans on local and remote drives.
//!
//! ```text
//! object ──> StripeWriter / StripeReader ──> Shards ──> this node's drives   (channel to their threads)
//!                                              └──────> other nodes' drives  (peer links)
//! peers  ──> ShardService ──> this node's drives
//! ```
//!
//! The store never sees the catalog: it is told which shards of which stripe to write or read, where.
//! [`Health`] knows which nodes answer and what their drives have free, and is what placement looks at.

#![forbid(unsafe_code)]

mod elsewhere;
mod findings;
mod health;
mod hedges;
mod memory;
mod peers;
mod reader;
mod rebuilder;
mod records;
mod service;
mod shards;
mod wire;
mod writer;

pub use findings::{BadShard, Fault, Findings, Found};
pub use health::{Health, NodeHealth};
pub use memory::{POOL_MIN as READ_MEMORY_MIN, ReadMemory, Reservation};
pub use peers::Peers;
pub use reader::{ReadFailed, StoredStripe, StripeReader};
pub use rebuilder::{Moved, RebuildFailed, Relocation, StripeRebuilder};
pub use records::JournalSpan;
pub use service::ShardService;
pub use shards::{GET_TIMEOUT as READ_TIMEOUT, ShardError, Shards};
pub use wire::{
    BucketLevelReport, DebtReport, DeviceReport, DeviceStanding, DriveReport, DriveReportState, LevelReport,
    NodeReport, WorkerReport,
};
pub use writer::{StripeDraft, WriteFailed, Written, write_stripe};

/// What the store has done since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Stripes written at their full level.
    pub stripes_written: std::sync::atomic::AtomicU64,
    /// Stripe ranges read.
    pub ranges_read: std::sync::atomic::AtomicU64,
    /// Stripe ranges of which at least one shard had to be rebuilt.
    pub degraded_reads: std::sync::atomic::AtomicU64,
    /// Shards that were late, so that others were asked to rebuild them meanwhile.
    pub hedged_reads: std::sync::atomic::AtomicU64,
    /// Of these, how many were rebuilt before they came.
    pub hedges_won: std::sync::atomic::AtomicU64,
    /// Shards found missing or damaged by a read.
    pub bad_shards: std::sync::atomic::AtomicU64,
    /// Shards that were bad and are whole again.
    pub shards_repaired: std::sync::atomic::AtomicU64,
    /// Stripe ranges refused because too few shards were readable or content did not open.
    pub unreadable: std::sync::atomic::AtomicU64,
    /// Stripes that did not reach their level and were given up.
    pub stripes_failed: std::sync::atomic::AtomicU64,
}
