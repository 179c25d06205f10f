//! Tombstones: which records of the drive are dead.
//!
//! A tombstone names one record by where it lies: a life of a segment and a sector in it. So it kills
//! exactly one copy, and it is needed only as long as that life of the segment is on the drive.

use holdfast_model::{ClusterId, DriveId, Generation, ShardId, ShardIndex, StripeId};

use crate::{
    FormatError, Place, Sector, SegmentSequence, Sequence,
    bytes::{Extent, Kind, Reader, Writer},
};

pub(crate) const KIND: Kind =
    Kind { what: "tombstone block", magic: *b"HFTOMBS\0", version: 1, extent: Extent::Whole };

const ENTRIES_OFFSET: usize = 128;

/// One dead record, version 1: 40 bytes in a [`TombstoneBlock`] or a footer. Little-endian.
///
/// | offset | size | field      | meaning                              |
/// |-------:|-----:|------------|--------------------------------------|
/// |      0 |   16 | stripe     | the stripe of the dead record        |
/// |     16 |    1 | index      | its shard index                      |
/// |     17 |    3 | reserved   | zero, verified                       |
/// |     20 |    4 | generation | its generation                       |
/// |     24 |    4 | sector     | where its header lies in the segment |
/// |     28 |    4 | reserved   | zero, verified                       |
/// |     32 |    8 | life       | of the segment it lies in            |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tombstone {
    /// The shard.
    pub shard: ShardId,
    /// The generation that is dead.
    pub generation: Generation,
    /// Life of the segment the dead record lies in.
    pub life: SegmentSequence,
    /// Sector of its header in that segment.
    pub sector: u32,
}

impl Tombstone {
    /// Size in bytes.
    pub const SIZE: usize = 40;

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        let field: [u8; Self::SIZE] = r.array();
        let mut f = Reader::new("tombstone", &field);
        let stripe = StripeId::from_bytes(f.array());
        let index = ShardIndex::new(f.u8());
        f.reserved_until(20)?;
        let (generation, sector) = (Generation::new(f.u32()), f.u32());
        f.reserved_until(32)?;
        Ok(Self { shard: ShardId { stripe, index }, generation, sector, life: SegmentSequence::new(f.u64()) })
    }

    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        let mut field = [0; Self::SIZE];
        let mut f = Writer::new(&mut field);
        f.bytes(self.shard.stripe.as_bytes());
        f.u8(self.shard.index.get());
        f.reserved_until(20);
        f.u32(self.generation.get());
        f.u32(self.sector);
        f.reserved_until(32);
        f.u64(self.life.get());
        w.bytes(&field);
    }
}

/// Tombstone block, version 1: one sector among the records of a segment. Little-endian.
///
/// | offset | size | field            | meaning                                                      |
/// |-------:|-----:|------------------|--------------------------------------------------------------|
/// |      0 |    8 | magic            | `HFTOMBS` and a zero byte                                    |
/// |      8 |    2 | version          | 1                                                            |
/// |     10 |    2 | count            | entries, 1 to 99                                             |
/// |     12 |    4 | reserved         | zero, verified                                               |
/// |     16 |   16 | cluster          | as in the label                                              |
/// |     32 |   16 | drive            | as in the label                                              |
/// |     48 |    8 | sequence         | order of this block on the drive                             |
/// |     56 |    8 | durable sequence | everything up to this had been flushed when it was written   |
/// |     64 |    8 | life             | of the segment                                               |
/// |     72 |    4 | segment          | position of the segment                                      |
/// |     76 |    4 | sector           | position of this block in the segment                        |
/// |     80 |   48 | reserved         | zero, verified                                               |
/// |    128 | 3960 | entries          | 40 bytes each, see [`Tombstone`]; the rest zero              |
/// |   4088 |    4 | reserved         | zero, verified                                               |
/// |   4092 |    4 | checksum         | CRC-32C of bytes 0..4092                                     |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombstoneBlock {
    /// Where it lies.
    pub place: Place,
    /// Order on the drive.
    pub sequence: Sequence,
    /// Everything up to this had been flushed when the block was written.
    pub durable: Sequence,
    /// The dead records.
    pub entries: Vec<Tombstone>,
}

impl TombstoneBlock {
    /// Entries of one block at most.
    pub const ENTRIES_MAX: usize = (Extent::Whole.checksum_offset() - ENTRIES_OFFSET) / Tombstone::SIZE;

    /// Reads a block.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(sector: &Sector) -> Result<Self, FormatError> {
        let mut r = KIND.open(sector)?;
        let count = usize::from(r.u16());
        r.reserved_until(16)?;
        let cluster = ClusterId::from_bytes(r.array());
        let drive = DriveId::from_bytes(r.array());
        let (sequence, durable) = (r.sequence()?, r.sequence()?);
        let life = r.life()?;
        let (segment, sector_index) = (r.u32(), r.u32());
        r.reserved_until(ENTRIES_OFFSET)?;
        if count == 0 || count > Self::ENTRIES_MAX {
            return Err(r.impossible("count"));
        }
        let entries = (0..count).map(|_| Tombstone::parse(&mut r)).collect::<Result<_, _>>()?;
        r.reserved_until(KIND.extent.checksum_offset())?;
        let place = Place { cluster, drive, segment, sector: sector_index, life };
        Ok(Self { place, sequence, durable, entries })
    }

    /// Writes the block.
    ///
    /// # Panics
    /// When there are no entries, or more than [`Self::ENTRIES_MAX`].
    pub fn encode(&self, sector: &mut Sector) {
        assert!((1..=Self::ENTRIES_MAX).contains(&self.entries.len()), "a block has 1 to 99 tombstones");
        let mut w = KIND.start(sector);
        w.u16(u16::try_from(self.entries.len()).expect("at most 99"));
        w.reserved_until(16);
        w.bytes(self.place.cluster.as_bytes());
        w.bytes(self.place.drive.as_bytes());
        w.u64(self.sequence.get());
        w.u64(self.durable.get());
        w.u64(self.place.life.get());
        w.u32(self.place.segment);
        w.u32(self.place.sector);
        w.reserved_until(ENTRIES_OFFSET);
        for entry in &self.entries {
            entry.encode(&mut w);
        }
        KIND.seal(sector);
    }
}
