//! An auditor of a stopped cluster, who asks no node: it opens what lies in state directories and on drives.
//!
//! ```text
//! shares of the root in all state directories ─> keys ─> catalogs of every node ─> replicas compared
//!                                                              │
//!        every record on every drive ─> what is there ─────────┴──────────────> placement
//! ```
//!
//! - [`keys`]: the keys that open the catalogs.
//! - [`replicas`]: the catalogs of all nodes, and whether replicas are the same.
//! - [`placement`]: whether each shard of each stripe is, sound, on the drive that the catalog names, and whether the
//!   stripes lie as their level asks for.
//!
//! Drives are read by the offline inspector, which shares nothing with the engine but the layouts.

#![forbid(unsafe_code)]

pub mod keys;
pub mod placement;
pub mod replicas;
