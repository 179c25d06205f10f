//! Inventories: what a bucket holds, as CSV files that are put into another bucket once a day or a week.
//!
//! ```text
//! midnight ── Clerk of the node that leads the tenant ── versions, page by page ── rows ── gzip, bounded ── data files
//!                                                                                             └─ then the manifest
//! ```
//!
//! The manifest is put last and is named after the midnight it is for: it is what says that an inventory is complete,
//! and whoever leads next looks for it before it begins. A node that dies leaves data files that no manifest names.

mod clerk;
mod config;
mod rows;

use std::time::Duration;

pub(crate) use self::{
    clerk::Clerk,
    config::{Field, Frequency, Inventory},
};

/// Inventories of one bucket (S3: 1,000). The catalog keeps at most 1,024 documents of a bucket.
pub(crate) const CONFIGURATIONS_MAX: usize = 1000;

/// Configurations in one answer of a listing (S3: 100).
pub(crate) const CONFIGURATIONS_PAGE: usize = 100;

/// Longest id in bytes.
pub(crate) const ID_SIZE_MAX: usize = 64;

/// Longest prefix of what is delivered in bytes: what is added to it fits a key.
pub(crate) const PREFIX_SIZE_MAX: usize = 512;

/// Compressed bytes after which a data file ends and the next one begins; memory that an inventory takes.
const FILE_SIZE: usize = 16 << 20;

/// Versions read at once.
const PAGE: usize = 1000;

/// Rest after a page, so that clients come first.
const PAGE_PAUSE: Duration = Duration::from_millis(20);

/// Longest time between two looks at which inventories are due.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(300);

/// Shortest; what a test's day of some seconds comes to.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// Looks in a day, as far as the two bounds allow.
const LOOKS_A_DAY: u32 = 20;

/// How long one file may take to be put.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);

const _: () = assert!(PREFIX_SIZE_MAX + 63 + ID_SIZE_MAX + 64 <= holdfast_model::limits::KEY_SIZE_MAX);
