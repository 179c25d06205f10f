//! Where labels and segments lie on a drive of a given size.

use holdfast_model::{
    ByteCount,
    limits::{RECORD_PAYLOAD_MAX, SECTOR_SIZE, SHARD_SIZE_MAX},
};

use crate::label::LABEL_COPIES;

/// Bytes set apart at the start and at the end of a drive for labels.
const LABEL_AREA_SIZE: u64 = 1 << 20;

/// Distance in bytes between the two labels of one end.
const LABEL_SPACING: u64 = 64 << 10;

/// Largest segment in bytes.
pub const SEGMENT_SIZE_MAX: u64 = 256 << 20;

/// Smallest segment in bytes.
pub const SEGMENT_SIZE_MIN: u64 = 1 << 20;

/// Segments a drive should have at least, so that reserve and reclaiming cost little of it.
const SEGMENTS_WANTED: u64 = 24;

/// Segments a drive must have: reserve, one open, some with data.
const SEGMENTS_MIN: u64 = 8;

/// Sectors of a segment taken by its header, in two equal copies.
pub const SEGMENT_HEADER_SECTORS: u32 = 2;

const SECTOR: u64 = SECTOR_SIZE as u64;

const _: () =
    assert!(SEGMENT_SIZE_MAX / SECTOR <= 1 << 16, "a sector of a segment fits 16 bits of the index");
const _: () =
    assert!(SEGMENT_SIZE_MIN > (SHARD_SIZE_MAX + 8 * SECTOR_SIZE) as u64, "a segment holds any shard");
const _: () = assert!(
    2 * SEGMENT_SIZE_MIN > (RECORD_PAYLOAD_MAX + 8 * SECTOR_SIZE) as u64,
    "all but the smallest hold any record"
);
const _: () = assert!(LABEL_SPACING + SECTOR <= LABEL_AREA_SIZE);

/// Why a drive cannot be laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Too few segments.
    #[error("a drive of {capacity} is too small; the least is {min}")]
    TooSmall {
        /// Size of the drive.
        capacity: ByteCount,
        /// Smallest size that works.
        min: ByteCount,
    },
    /// Not a power of two in range.
    #[error("segments of {segment_size} are not possible: a power of two from 1 MiB to 256 MiB is")]
    SegmentSize {
        /// What was asked for.
        segment_size: ByteCount,
    },
}

/// The geometry of a drive. Fixed when it is formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    capacity: u64,
    segment_size: u64,
    segments: u32,
}

impl Layout {
    /// The layout for a new drive of `capacity`: segments as large as leave at least 24 of them.
    ///
    /// # Errors
    /// [`LayoutError::TooSmall`] below 8 segments of 1 MiB.
    pub fn for_capacity(capacity: ByteCount) -> Result<Self, LayoutError> {
        let room = capacity.get().saturating_sub(2 * LABEL_AREA_SIZE);
        let mut segment_size = SEGMENT_SIZE_MAX;
        while segment_size > SEGMENT_SIZE_MIN && room / segment_size < SEGMENTS_WANTED {
            segment_size /= 2;
        }
        Self::with_segment_size(capacity, ByteCount::new(segment_size))
    }

    /// A layout with segments of a given size.
    ///
    /// # Errors
    /// [`LayoutError`] when fewer than 8 fit, or the size is not a power of two from 1 to 256 MiB.
    pub fn with_segment_size(capacity: ByteCount, segment_size: ByteCount) -> Result<Self, LayoutError> {
        let size = segment_size.get();
        if !size.is_power_of_two() || !(SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&size) {
            return Err(LayoutError::SegmentSize { segment_size });
        }
        let whole = capacity.get() / SECTOR * SECTOR;
        let segments = whole.saturating_sub(2 * LABEL_AREA_SIZE) / size;
        match u32::try_from(segments) {
            Ok(segments) if u64::from(segments) >= SEGMENTS_MIN => {
                Ok(Self { capacity: whole, segment_size: size, segments })
            }
            _ => {
                let min = ByteCount::new(2 * LABEL_AREA_SIZE + SEGMENTS_MIN * size);
                Err(LayoutError::TooSmall { capacity, min })
            }
        }
    }

    /// Bytes of the drive that are used: whole sectors.
    #[must_use]
    pub fn capacity(&self) -> ByteCount {
        ByteCount::new(self.capacity)
    }

    /// Number of segments.
    #[must_use]
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Sectors of one segment.
    #[must_use]
    pub fn segment_sectors(&self) -> u32 {
        u32::try_from(self.segment_size / SECTOR).expect("a segment is at most 256 MiB")
    }

    /// Bytes of one segment.
    #[must_use]
    pub fn segment_size(&self) -> ByteCount {
        ByteCount::new(self.segment_size)
    }

    /// Largest payload in bytes of a record on this drive: on drives with the smallest segments, which could
    /// not hold the largest, that of a shard.
    #[must_use]
    pub fn payload_max(&self) -> usize {
        if self.segment_size == SEGMENT_SIZE_MIN { SHARD_SIZE_MAX } else { RECORD_PAYLOAD_MAX }
    }

    /// Where on the drive, in bytes, a sector of a segment lies.
    ///
    /// # Panics
    /// When the drive has no such sector.
    #[must_use]
    pub fn offset(&self, segment: u32, sector: u32) -> u64 {
        assert!(
            segment < self.segments && sector < self.segment_sectors(),
            "no sector {sector} of {segment}"
        );
        LABEL_AREA_SIZE + u64::from(segment) * self.segment_size + u64::from(sector) * SECTOR
    }

    /// Where the copies of the label lie, in bytes.
    #[must_use]
    pub fn label_offsets(&self) -> [u64; LABEL_COPIES] {
        Self::label_offsets_for(ByteCount::new(self.capacity))
    }

    /// Where labels lie on any drive of `capacity`, before its layout is known.
    #[must_use]
    pub fn label_offsets_for(capacity: ByteCount) -> [u64; LABEL_COPIES] {
        let whole = capacity.get() / SECTOR * SECTOR;
        [0, LABEL_SPACING, whole.saturating_sub(LABEL_SPACING), whole.saturating_sub(SECTOR)]
    }

    /// The areas at both ends that must be zero on a blank drive, as (offset, length) in bytes.
    #[must_use]
    pub fn label_areas_for(capacity: ByteCount) -> [(u64, u64); 2] {
        let whole = capacity.get() / SECTOR * SECTOR;
        let length = LABEL_AREA_SIZE.min(whole);
        [(0, length), (whole - length, length)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn large_drives_have_large_segments_and_small_ones_enough_of_them() {
        let of = |mib| Layout::for_capacity(ByteCount::mib(mib)).unwrap();
        assert_eq!(of(4 << 20).segment_size(), ByteCount::mib(256));
        assert_eq!(of(1024).segment_size(), ByteCount::mib(32));
        assert!(of(64).segments() >= 24);
        assert_eq!(of(10).segments(), 8);
        assert!(matches!(Layout::for_capacity(ByteCount::mib(9)), Err(LayoutError::TooSmall { .. })));
        assert!(matches!(Layout::for_capacity(ByteCount::ZERO), Err(LayoutError::TooSmall { .. })));
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_all_lies_inside(capacity in (10u64 << 20)..(1 << 45)) {
            let layout = Layout::for_capacity(ByteCount::new(capacity)).unwrap();
            let labels = layout.label_offsets();
            let first = layout.offset(0, 0);
            let end = layout.offset(layout.segments() - 1, layout.segment_sectors() - 1) + SECTOR;
            prop_assert!(labels[0] < labels[1] && labels[1] + SECTOR <= first);
            prop_assert!(end <= labels[2] && labels[2] < labels[3] && labels[3] + SECTOR <= capacity);
            prop_assert!(labels.iter().all(|l| l.is_multiple_of(SECTOR)) && first.is_multiple_of(SECTOR));
        }
    }
}
