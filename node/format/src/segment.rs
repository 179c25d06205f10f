//! The segment header.

use holdfast_model::{ClusterId, DriveId, UnixMillis};

use crate::{
    FormatError, Sector, SegmentSequence, Sequence,
    bytes::{Extent, Kind},
};

const KIND: Kind = Kind { what: "segment header", magic: *b"HFSEGMT\0", version: 1, extent: Extent::Small };

/// Whether a segment holds records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentState {
    /// It holds records, and a footer once it is sealed.
    Used,
    /// Everything in it was dead or moved away; it may be opened again.
    Free,
}

/// Segment header, version 1: sectors 0 and 1 of a segment, equal. Little-endian.
///
/// | offset | size | field            | meaning                                                       |
/// |-------:|-----:|------------------|---------------------------------------------------------------|
/// |      0 |    8 | magic            | `HFSEGMT` and a zero byte                                     |
/// |      8 |    2 | version          | 1                                                             |
/// |     10 |    1 | state            | 1 used, 2 free                                                |
/// |     11 |    5 | reserved         | zero, verified                                                |
/// |     16 |   16 | cluster          | as in the label                                               |
/// |     32 |   16 | drive            | as in the label                                               |
/// |     48 |    4 | segment          | position on the drive                                         |
/// |     52 |    4 | sectors          | size of the segment                                           |
/// |     56 |    8 | life             | which life of the segment this is                             |
/// |     64 |    8 | first sequence   | sequence of the first record written after opening            |
/// |     72 |    8 | durable sequence | everything up to this had been flushed when it was written    |
/// |     80 |    8 | mount epoch      | of the mount that wrote this                                  |
/// |     88 |    8 | written          | Unix milliseconds, for display                                |
/// |     96 |  412 | reserved         | zero, verified                                                |
/// |    508 |    4 | checksum         | CRC-32C of bytes 0..508                                       |
/// |    512 | 3584 | reserved         | zero, verified                                                |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The cluster.
    pub cluster: ClusterId,
    /// The drive.
    pub drive: DriveId,
    /// Position on the drive.
    pub segment: u32,
    /// Size in sectors.
    pub sectors: u32,
    /// Used or free.
    pub state: SegmentState,
    /// Which life of the segment.
    pub life: SegmentSequence,
    /// Sequence of the first record written after opening.
    pub first: Sequence,
    /// Everything up to this had been flushed when the header was written.
    pub durable: Sequence,
    /// Mount that wrote it.
    pub mount_epoch: u64,
    /// When it was written.
    pub written: UnixMillis,
}

impl SegmentHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// [`FormatError`]; `Blank` when the segment was never used.
    pub fn parse(sector: &Sector) -> Result<Self, FormatError> {
        let mut r = KIND.open(sector)?;
        let state = r.u8();
        r.reserved_until(16)?;
        let cluster = ClusterId::from_bytes(r.array());
        let drive = DriveId::from_bytes(r.array());
        let (segment, sectors) = (r.u32(), r.u32());
        let life = r.life()?;
        let (first, durable) = (r.sequence()?, r.sequence()?);
        let (mount_epoch, written) = (r.u64(), UnixMillis::new(r.u64()));
        r.reserved_until(KIND.extent.checksum_offset())?;
        let state = match state {
            1 => SegmentState::Used,
            2 => SegmentState::Free,
            _ => return Err(r.impossible("state")),
        };
        if life == SegmentSequence::NONE {
            return Err(r.impossible("life"));
        }
        Ok(Self { cluster, drive, segment, sectors, state, life, first, durable, mount_epoch, written })
    }

    /// Writes the header.
    pub fn encode(&self, sector: &mut Sector) {
        let mut w = KIND.start(sector);
        w.u8(match self.state {
            SegmentState::Used => 1,
            SegmentState::Free => 2,
        });
        w.reserved_until(16);
        w.bytes(self.cluster.as_bytes());
        w.bytes(self.drive.as_bytes());
        w.u32(self.segment);
        w.u32(self.sectors);
        w.u64(self.life.get());
        w.u64(self.first.get());
        w.u64(self.durable.get());
        w.u64(self.mount_epoch);
        w.u64(self.written.get());
        KIND.seal(sector);
    }
}
