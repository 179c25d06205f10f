//! A drive: append-only segments on one device, one thread with one ring, group commit, recovery.
//!
//! ```text
//! callers ──put/get/delete──> queue ──> engine thread ──operations──> BlockDevice (io_uring)
//!    └────────list/status──> index, counters  ▲ │
//!                                             └─┴─ completions: written, then flushed, then acknowledged
//! ```
//!
//! A put's life: checksums (caller's task) -> place in the open segment, header into the buffer's headroom
//! -> one write -> whole and clean -> one flush for all that wait -> index -> [`Durable`] -> caller.
//!
//! Invariants:
//! - a [`Durable`] exists only after a clean flush that was submitted when the write had completed;
//! - a failed write or flush fences the drive for good, in the label too where that can still be written;
//! - every dead record copy has a tombstone until its segment is free, so nothing deleted comes back;
//! - segments are freed by a flushed header before they are used again;
//! - what is read is verified by header identity and block checksums before it is returned;
//! - changes to one shard happen one after another.

#![forbid(unsafe_code)]

mod blocking;
mod commit;
mod comparison;
mod engine;
mod errors;
mod handle;
mod index;
pub mod inspect;
mod labels;
mod mount;
mod planted;
mod probe;
mod scan;
mod segments;
mod settle;
mod shared;
mod survey;
mod types;

#[cfg(any(test, feature = "simulation"))]
pub mod simulation;

pub use commit::Durable;
pub use comparison::Comparison;
pub use engine::META_POOL_SIZE;
pub use errors::{DeleteError, FormatDriveError, GetError, OpenError, ProbeError, PutError};
pub use handle::{Drive, DriveSteps};
pub use probe::{erase, format, format_simulated, probe};
pub use types::{
    DamagedRecord, DriveCounters, DriveIdentity, DriveOptions, DriveState, DriveStatus, Finding,
    FormatParams, Latency, MountReport, Probe, ScrubFinding, Scrubbed, ShardInfo, ShardWrite, TornRecord,
};
