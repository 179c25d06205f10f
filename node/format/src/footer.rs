//! The footer of a sealed segment: what is in it, so that a mount need not read it through.
//!
//! A footer is written only once every record it lists has been flushed. It is a shortcut: when it is
//! damaged, the segment is scanned instead.

use holdfast_model::{
    ClusterId, DriveId, Generation, ShardId, ShardIndex, StripeId, TenantId, UnixMillis,
    limits::{RECORD_PAYLOAD_MAX, SECTOR_SIZE},
};

use crate::{
    FormatError, SEGMENT_HEADER_SECTORS, Sector, SegmentSequence, Sequence,
    bytes::{Extent, Kind, Reader, Writer},
    record::record_sectors,
    tombstone::Tombstone,
};

pub(crate) const KIND: Kind =
    Kind { what: "segment footer", magic: *b"HFFOOTR\0", version: 1, extent: Extent::Small };

const FLAG_DAMAGED: u16 = 1;

/// One record of a sealed segment, version 1: 64 bytes. Little-endian.
///
/// | offset | size | field          | meaning                                                |
/// |-------:|-----:|----------------|--------------------------------------------------------|
/// |      0 |   16 | stripe         | as in the record                                       |
/// |     16 |   16 | tenant         | as in the record                                       |
/// |     32 |    8 | sequence       | as in the record                                       |
/// |     40 |    8 | written        | as in the record                                       |
/// |     48 |    4 | generation     | as in the record                                       |
/// |     52 |    4 | payload length | as in the record                                       |
/// |     56 |    4 | sector         | where its header lies in the segment                   |
/// |     60 |    1 | index          | as in the record                                       |
/// |     61 |    1 | reserved       | zero, verified                                         |
/// |     62 |    2 | flags          | bit 0: found damaged by the recovery that sealed this  |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FooterRecord {
    /// The shard.
    pub shard: ShardId,
    /// Version of the shard's place.
    pub generation: Generation,
    /// Whose shard.
    pub tenant: TenantId,
    /// Order on the drive.
    pub sequence: Sequence,
    /// When the shard was first written to this drive.
    pub written: UnixMillis,
    /// Payload bytes.
    pub payload_len: u32,
    /// Where its header lies in the segment.
    pub sector: u32,
    /// Its payload did not match when the segment was sealed.
    pub damaged: bool,
}

impl FooterRecord {
    /// Size in bytes.
    pub const SIZE: usize = 64;

    fn parse(r: &mut Reader<'_>, segment_sectors: u32) -> Result<Self, FormatError> {
        let field: [u8; Self::SIZE] = r.array();
        let mut f = Reader::new(KIND.what, &field);
        let stripe = StripeId::from_bytes(f.array());
        let tenant = TenantId::from_bytes(f.array());
        let (sequence, written) = (Sequence::new(f.u64()), UnixMillis::new(f.u64()));
        let generation = Generation::new(f.u32());
        let (payload_len, sector) = (f.u32(), f.u32());
        let index = ShardIndex::new(f.u8());
        f.reserved_until(62)?;
        let flags = f.u16();
        if flags & !FLAG_DAMAGED != 0 {
            return Err(f.impossible("flags of a record"));
        }
        if payload_len == 0 || payload_len as usize > RECORD_PAYLOAD_MAX {
            return Err(f.impossible("payload length of a record"));
        }
        let end = u64::from(sector) + u64::from(record_sectors(payload_len));
        if sector < SEGMENT_HEADER_SECTORS || end > u64::from(segment_sectors) {
            return Err(f.impossible("place of a record"));
        }
        let (shard, damaged) = (ShardId { stripe, index }, flags & FLAG_DAMAGED != 0);
        Ok(Self { shard, generation, tenant, sequence, written, payload_len, sector, damaged })
    }

    fn encode(&self, w: &mut Writer<'_>) {
        let mut field = [0; Self::SIZE];
        let mut f = Writer::new(&mut field);
        f.bytes(self.shard.stripe.as_bytes());
        f.bytes(self.tenant.as_bytes());
        f.u64(self.sequence.get());
        f.u64(self.written.get());
        f.u32(self.generation.get());
        f.u32(self.payload_len);
        f.u32(self.sector);
        f.u8(self.shard.index.get());
        f.reserved_until(62);
        f.u16(if self.damaged { FLAG_DAMAGED } else { 0 });
        w.bytes(&field);
    }
}

/// Sectors of a table with so many entries.
fn table_sectors(records: u64, tombstones: u64) -> u64 {
    (records * FooterRecord::SIZE as u64 + tombstones * Tombstone::SIZE as u64).div_ceil(SECTOR_SIZE as u64)
}

/// Records, then tombstones, then zeros to a sector.
pub(crate) fn encode_table(records: &[FooterRecord], tombstones: &[Tombstone]) -> Vec<u8> {
    let sectors = table_sectors(records.len() as u64, tombstones.len() as u64);
    let mut bytes =
        vec![0; usize::try_from(sectors).expect("a segment has at most 65536 sectors") * SECTOR_SIZE];
    let mut w = Writer::new(&mut bytes);
    for record in records {
        record.encode(&mut w);
    }
    for tombstone in tombstones {
        tombstone.encode(&mut w);
    }
    bytes
}

/// What a sector says about the table beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableInfo {
    pub(crate) records: u32,
    pub(crate) tombstones: u32,
    pub(crate) checksum: u32,
}

impl TableInfo {
    pub(crate) fn of(records: usize, tombstones: usize, table: &[u8]) -> Self {
        let count = |n| u32::try_from(n).expect("they fit a segment");
        Self { records: count(records), tombstones: count(tombstones), checksum: crc32c::crc32c(table) }
    }

    pub(crate) fn sectors(&self) -> u64 {
        table_sectors(u64::from(self.records), u64::from(self.tombstones))
    }

    pub(crate) fn parse(
        &self,
        what: &'static str,
        segment_sectors: u32,
        table: &[u8],
    ) -> Result<(Vec<FooterRecord>, Vec<Tombstone>), FormatError> {
        if table.len() as u64 != self.sectors() * SECTOR_SIZE as u64 || crc32c::crc32c(table) != self.checksum
        {
            return Err(FormatError::Checksum { what });
        }
        let mut r = Reader::new(what, table);
        let records = (0..self.records)
            .map(|_| FooterRecord::parse(&mut r, segment_sectors))
            .collect::<Result<_, _>>()?;
        let tombstones = (0..self.tombstones).map(|_| Tombstone::parse(&mut r)).collect::<Result<_, _>>()?;
        r.reserved_until(table.len())?;
        Ok((records, tombstones))
    }
}

/// Footer trailer, version 1: the last sector of a sealed segment. The table lies right before it: the
/// records, 64 bytes each, then the tombstones, 40 bytes each, then zeros to a sector. Little-endian.
///
/// | offset | size | field          | meaning                                                        |
/// |-------:|-----:|----------------|----------------------------------------------------------------|
/// |      0 |    8 | magic          | `HFFOOTR` and a zero byte                                      |
/// |      8 |    2 | version        | 1                                                              |
/// |     10 |    6 | reserved       | zero, verified                                                 |
/// |     16 |   16 | cluster        | as in the label                                                |
/// |     32 |   16 | drive          | as in the label                                                |
/// |     48 |    4 | segment        | position of the segment                                        |
/// |     52 |    4 | sectors        | size of the segment                                            |
/// |     56 |    8 | life           | of the segment                                                 |
/// |     64 |    8 | first sequence | as in the segment header                                       |
/// |     72 |    8 | last sequence  | highest sequence in the segment; all of them had been flushed  |
/// |     80 |    4 | records        | entries of the table                                           |
/// |     84 |    4 | tombstones     | entries of the table                                           |
/// |     88 |    4 | lost           | acknowledged records the recovery that sealed this could not read |
/// |     92 |    4 | table checksum | CRC-32C of the table, padding included                         |
/// |     96 |  412 | reserved       | zero, verified                                                 |
/// |    508 |    4 | checksum       | CRC-32C of bytes 0..508                                        |
/// |    512 | 3584 | reserved       | zero, verified                                                 |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FooterTrailer {
    /// The cluster.
    pub cluster: ClusterId,
    /// The drive.
    pub drive: DriveId,
    /// Position of the segment.
    pub segment: u32,
    /// Size of the segment in sectors.
    pub sectors: u32,
    /// Life of the segment.
    pub life: SegmentSequence,
    /// Sequence of the first record.
    pub first: Sequence,
    /// Highest sequence in the segment.
    pub last: Sequence,
    /// Acknowledged records that could not be read any more when the segment was sealed.
    pub lost: u32,
    table: TableInfo,
}

impl FooterTrailer {
    /// Reads a trailer.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(sector: &Sector) -> Result<Self, FormatError> {
        let mut r = KIND.open(sector)?;
        r.reserved_until(16)?;
        let cluster = ClusterId::from_bytes(r.array());
        let drive = DriveId::from_bytes(r.array());
        let (segment, sectors) = (r.u32(), r.u32());
        let life = r.life()?;
        let (first, last) = (r.sequence()?, r.sequence()?);
        let (records, tombstones, lost, checksum) = (r.u32(), r.u32(), r.u32(), r.u32());
        r.reserved_until(KIND.extent.checksum_offset())?;
        let table = TableInfo { records, tombstones, checksum };
        if u64::from(SEGMENT_HEADER_SECTORS) + table.sectors() + 1 > u64::from(sectors) {
            return Err(r.impossible("size of the table"));
        }
        Ok(Self { cluster, drive, segment, sectors, life, first, last, lost, table })
    }

    /// Sectors of the table before this trailer.
    #[must_use]
    pub fn table_sectors(&self) -> u32 {
        u32::try_from(self.table.sectors()).expect("`parse` checked that the table fits its segment")
    }
}

/// A footer: what is in a sealed segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The cluster.
    pub cluster: ClusterId,
    /// The drive.
    pub drive: DriveId,
    /// Position of the segment.
    pub segment: u32,
    /// Size of the segment in sectors.
    pub sectors: u32,
    /// Life of the segment.
    pub life: SegmentSequence,
    /// Sequence of the first record.
    pub first: Sequence,
    /// Highest sequence in the segment.
    pub last: Sequence,
    /// Acknowledged records that could not be read any more when the segment was sealed.
    pub lost: u32,
    /// The records, dead ones included.
    pub records: Vec<FooterRecord>,
    /// The tombstones that lie in this segment.
    pub tombstones: Vec<Tombstone>,
}

impl Footer {
    /// Sectors of a footer with so many entries, trailer included.
    #[must_use]
    pub fn sectors_for(records: usize, tombstones: usize) -> u32 {
        u32::try_from(table_sectors(records as u64, tombstones as u64) + 1)
            .expect("a segment has 65536 sectors at most")
    }

    /// Reads the table that belongs to `trailer`.
    ///
    /// # Errors
    /// [`FormatError::Checksum`] when it is damaged or not of that trailer, otherwise an impossible entry.
    pub fn parse(trailer: &FooterTrailer, table: &[u8]) -> Result<Self, FormatError> {
        let (records, tombstones) = trailer.table.parse(KIND.what, trailer.sectors, table)?;
        let FooterTrailer { cluster, drive, segment, sectors, life, first, last, lost, .. } = *trailer;
        Ok(Self { cluster, drive, segment, sectors, life, first, last, lost, records, tombstones })
    }

    /// Table and trailer, whole sectors, to be written so that they end with the segment.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = encode_table(&self.records, &self.tombstones);
        let table = TableInfo::of(self.records.len(), self.tombstones.len(), &bytes);
        let at = bytes.len();
        bytes.resize(at + SECTOR_SIZE, 0);
        let sector: &mut Sector = (&mut bytes[at..]).try_into().expect("the rest is one sector");
        let mut w = KIND.start(sector);
        w.reserved_until(16);
        w.bytes(self.cluster.as_bytes());
        w.bytes(self.drive.as_bytes());
        w.u32(self.segment);
        w.u32(self.sectors);
        w.u64(self.life.get());
        w.u64(self.first.get());
        w.u64(self.last.get());
        w.u32(table.records);
        w.u32(table.tombstones);
        w.u32(self.lost);
        w.u32(table.checksum);
        KIND.seal(sector);
        bytes
    }
}
