//! The resume block: where a mount goes on in a segment that was being filled when the drive was last used.
//!
//! It settles what lies before it: what its table lists is there, everything else before it was torn and
//! is void. So a segment can be filled across any number of mounts, and torn records of one crash are
//! not taken for damage after the next.

use holdfast_model::limits::SECTOR_SIZE;

use crate::{
    ClusterId, DriveId, FooterRecord, FormatError, Place, SEGMENT_HEADER_SECTORS, Sector, Sequence,
    Tombstone,
    bytes::{Extent, Kind},
    footer::{TableInfo, encode_table},
};

pub(crate) const KIND: Kind =
    Kind { what: "resume block", magic: *b"HFRESUM\0", version: 1, extent: Extent::Small };

/// Resume block, version 1: one sector among the records of a segment, followed by its table: the records,
/// 64 bytes each, then the tombstones, 40 bytes each, then zeros to a sector. Little-endian.
///
/// | offset | size | field          | meaning                                                          |
/// |-------:|-----:|----------------|------------------------------------------------------------------|
/// |      0 |    8 | magic          | `HFRESUM` and a zero byte                                        |
/// |      8 |    2 | version        | 1                                                                |
/// |     10 |    6 | reserved       | zero, verified                                                   |
/// |     16 |   16 | cluster        | as in the label                                                  |
/// |     32 |   16 | drive          | as in the label                                                  |
/// |     48 |    8 | life           | of the segment                                                   |
/// |     56 |    4 | segment        | position of the segment                                          |
/// |     60 |    4 | sector         | position of this block in the segment                            |
/// |     64 |    4 | sectors        | size of the segment                                              |
/// |     68 |    4 | lost           | acknowledged records before this that could not be read any more |
/// |     72 |    8 | next sequence  | the next record after this block has this one or a higher one    |
/// |     80 |    4 | records        | entries of the table                                             |
/// |     84 |    4 | tombstones     | entries of the table                                             |
/// |     88 |    4 | table checksum | CRC-32C of the table, padding included                           |
/// |     92 |  416 | reserved       | zero, verified                                                   |
/// |    508 |    4 | checksum       | CRC-32C of bytes 0..508                                          |
/// |    512 | 3584 | reserved       | zero, verified                                                   |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeBlock {
    /// Where it lies.
    pub place: Place,
    /// Size of the segment in sectors.
    pub sectors: u32,
    /// Acknowledged records before this block that could not be read any more when it was written.
    pub lost: u32,
    /// The next record after this block has this sequence or a higher one.
    pub next: Sequence,
    table: TableInfo,
}

impl ResumeBlock {
    /// Reads a block.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(sector: &Sector) -> Result<Self, FormatError> {
        let mut r = KIND.open(sector)?;
        r.reserved_until(16)?;
        let cluster = ClusterId::from_bytes(r.array());
        let drive = DriveId::from_bytes(r.array());
        let life = r.life()?;
        let (segment, sector_index, sectors, lost) = (r.u32(), r.u32(), r.u32(), r.u32());
        let next = r.sequence()?;
        let (records, tombstones, checksum) = (r.u32(), r.u32(), r.u32());
        r.reserved_until(KIND.extent.checksum_offset())?;
        let table = TableInfo { records, tombstones, checksum };
        let end = u64::from(sector_index) + 1 + table.sectors();
        if sector_index < SEGMENT_HEADER_SECTORS || end > u64::from(sectors) {
            return Err(r.impossible("place of the table"));
        }
        let place = Place { cluster, drive, segment, sector: sector_index, life };
        Ok(Self { place, sectors, lost, next, table })
    }

    /// Sectors of the table after this block.
    #[must_use]
    pub fn table_sectors(&self) -> u32 {
        u32::try_from(self.table.sectors()).expect("`parse` checked that the table fits its segment")
    }

    /// Reads the table after this block.
    ///
    /// # Errors
    /// [`FormatError::Checksum`] when it is damaged, otherwise an impossible entry.
    pub fn parse_table(&self, table: &[u8]) -> Result<(Vec<FooterRecord>, Vec<Tombstone>), FormatError> {
        self.table.parse(KIND.what, self.sectors, table)
    }

    /// Block and table, whole sectors, to be written at `place`.
    #[must_use]
    pub fn encode(
        place: Place,
        sectors: u32,
        lost: u32,
        next: Sequence,
        records: &[FooterRecord],
        tombstones: &[Tombstone],
    ) -> Vec<u8> {
        let table_bytes = encode_table(records, tombstones);
        let table = TableInfo::of(records.len(), tombstones.len(), &table_bytes);
        let mut bytes = vec![0; SECTOR_SIZE];
        let sector: &mut Sector = bytes.as_mut_slice().try_into().expect("one sector");
        let mut w = KIND.start(sector);
        w.reserved_until(16);
        w.bytes(place.cluster.as_bytes());
        w.bytes(place.drive.as_bytes());
        w.u64(place.life.get());
        w.u32(place.segment);
        w.u32(place.sector);
        w.u32(sectors);
        w.u32(lost);
        w.u64(next.get());
        w.u32(table.records);
        w.u32(table.tombstones);
        w.u32(table.checksum);
        KIND.seal(sector);
        bytes.extend_from_slice(&table_bytes);
        bytes
    }
}
