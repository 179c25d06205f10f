//! Every layout on a data drive: byte tables, parse, encode. Pure: no I/O, no clock, no randomness.
//!
//! ```text
//! drive    | labels 0, 1 | segment 0 | segment 1 | ... | segment n-1 | labels 2, 3 |
//!           1 MiB                                                      1 MiB
//! segment  | header | header | record | tombstones | resume block, table | record | ... | footer: table, trailer |
//!           2 sectors, equal                                                           ends with the segment
//! record   | header, 1 sector | payload, padded to sectors |
//! ```
//!
//! Rules of every layout here:
//! - whole 4 KiB sectors, integers little-endian, magic first, then the version, both readable before
//!   anything else is trusted;
//! - a CRC-32C (Castagnoli, RFC 7143 section 13.1) over the structure, apart from those over payloads;
//! - reserved bytes are zero and verified;
//! - the identity (cluster, drive, segment, place) is inside, so that bytes that were misdirected, belong
//!   to another drive or to an earlier life of the segment are recognised;
//! - a published layout never changes: a change is a new version with its own golden file.
//!
//! Labels and segment headers keep everything in the first 512 bytes of their sector, so that they are
//! old or new, never mixed, even where a device writes atomically no more than that.

#![forbid(unsafe_code)]

mod bytes;
mod catalog_record;
mod damage;
mod error;
mod footer;
mod foreign;
mod label;
mod layout;
mod record;
mod resume;
mod segment;
mod tombstone;

pub use catalog_record::{CATALOG_OWNER, CatalogRecordHeader, CatalogRecordKind};
pub use damage::damage;
pub use error::FormatError;
pub use footer::{Footer, FooterRecord, FooterTrailer};
pub use foreign::recognise;
pub use label::{DriveLabel, LABEL_COPIES};
pub use layout::{Layout, LayoutError, SEGMENT_HEADER_SECTORS, SEGMENT_SIZE_MAX, SEGMENT_SIZE_MIN};
pub use record::{BLOCK_SIZE, BlockChecksums, RecordHeader, record_sectors};
pub use resume::ResumeBlock;
pub use segment::{SegmentHeader, SegmentState};
pub use tombstone::{Tombstone, TombstoneBlock};

use holdfast_model::{ClusterId, DriveId, limits::SECTOR_SIZE};

/// One sector.
pub type Sector = [u8; SECTOR_SIZE];

/// Mounts of one drive at most: one a second for 34 years.
pub const MOUNT_EPOCH_MAX: u64 = (1 << 30) - 1;

/// Order of everything written to a drive. Starts at 1; 0 means "none yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// Before the first.
    pub const NONE: Self = Self(0);

    /// The largest that is read from a drive: counting on from it never overflows.
    pub const MAX: Self = Self(u64::MAX >> 2);

    /// Wraps a number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Which life of a segment: each time a segment is opened it gets a number its drive never used before.
///
/// The mount epoch is in the upper 32 bits, a count in the lower. The epoch is on the drive before the
/// first segment is opened, so a number is not used again even when a crash lost every trace of its header:
/// what else survived of that life must not look like part of a later one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSequence(u64);

impl SegmentSequence {
    /// Before the first.
    pub const NONE: Self = Self(0);

    /// The largest that is read from a drive: that of the last mount of all.
    pub const MAX: Self = Self((MOUNT_EPOCH_MAX << 32) | u32::MAX as u64);

    /// Wraps a number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The first life of the mount with that epoch.
    ///
    /// # Panics
    /// Above `MOUNT_EPOCH_MAX + 1`; labels that say so are refused.
    #[must_use]
    pub const fn first_of_mount(epoch: u64) -> Self {
        assert!(epoch <= MOUNT_EPOCH_MAX + 1, "a drive is mounted fewer than 2^30 times");
        Self((epoch << 32) | 1)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Where a sector says it lies. Compared with where it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The cluster the drive belongs to.
    pub cluster: ClusterId,
    /// The drive.
    pub drive: DriveId,
    /// Position of the segment on the drive.
    pub segment: u32,
    /// Sector inside the segment.
    pub sector: u32,
    /// The life of the segment.
    pub life: SegmentSequence,
}
