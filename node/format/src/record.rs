//! The record header, and the checksums of a payload.

use holdfast_model::{
    ClusterId, DriveId, Generation, ShardId, ShardIndex, StripeId, TenantId, UnixMillis,
    limits::{DATA_SHARDS_MAX, PARITY_SHARDS_MAX, RECORD_MANIFEST_SIZE_MAX, RECORD_PAYLOAD_MAX, SECTOR_SIZE},
};

use crate::{
    FormatError, Place, Sector, Sequence,
    bytes::{Extent, Kind},
};

pub(crate) const KIND: Kind =
    Kind { what: "record header", magic: *b"HFRECRD\0", version: 1, extent: Extent::Whole };

/// Bytes of payload under one checksum.
pub const BLOCK_SIZE: usize = 64 * 1024;

/// Checksums there is room for in the header.
const BLOCK_SLOTS: usize = 64;

const BLOCKS_OFFSET: usize = 256;
const MANIFEST_OFFSET: usize = BLOCKS_OFFSET + 4 * BLOCK_SLOTS;
const MANIFEST_END: usize = MANIFEST_OFFSET + RECORD_MANIFEST_SIZE_MAX;

const FLAG_MOVED: u16 = 1;

/// Checksums of the largest payload.
const BLOCKS_MAX: usize = RECORD_PAYLOAD_MAX.div_ceil(BLOCK_SIZE);

const _: () = assert!(BLOCKS_MAX <= BLOCK_SLOTS);
const _: () = assert!(MANIFEST_END <= Extent::Whole.checksum_offset());

/// Sectors of a record with `payload_len` bytes, header included.
#[must_use]
pub const fn record_sectors(payload_len: u32) -> u32 {
    1 + payload_len.div_ceil(SECTOR_SIZE as u32)
}

/// One CRC-32C for each started 64 KiB of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockChecksums([u32; BLOCKS_MAX]);

impl BlockChecksums {
    /// Computes them.
    ///
    /// # Panics
    /// When the payload is longer than any record's.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        let mut checksums = [0; BLOCKS_MAX];
        assert!(payload.len() <= RECORD_PAYLOAD_MAX, "a payload is no longer than the longest");
        for (checksum, block) in checksums.iter_mut().zip(payload.chunks(BLOCK_SIZE)) {
            *checksum = crc32c::crc32c(block);
        }
        Self(checksums)
    }

    /// Number of the first block in `blocks` that does not match, where `blocks` begins with block `first`.
    ///
    /// # Errors
    /// The number of that block.
    pub fn verify(&self, first: usize, blocks: &[u8]) -> Result<(), usize> {
        for (i, block) in blocks.chunks(BLOCK_SIZE).enumerate() {
            if self.0.get(first + i) != Some(&crc32c::crc32c(block)) {
                return Err(first + i);
            }
        }
        Ok(())
    }
}

/// Record header, version 1: the sector before a payload. Little-endian.
///
/// | offset | size | field            | meaning                                                      |
/// |-------:|-----:|------------------|--------------------------------------------------------------|
/// |      0 |    8 | magic            | `HFRECRD` and a zero byte                                    |
/// |      8 |    2 | version          | 1                                                            |
/// |     10 |    2 | flags            | bit 0: copied here from another segment; the others zero     |
/// |     12 |    1 | data shards      | k of the stripe                                              |
/// |     13 |    1 | parity shards    | m of the stripe                                              |
/// |     14 |    1 | index            | which shard of the stripe, below k + m                       |
/// |     15 |    1 | reserved         | zero, verified                                               |
/// |     16 |   16 | cluster          | as in the label                                              |
/// |     32 |   16 | drive            | as in the label                                              |
/// |     48 |   16 | tenant           | whose shard this is                                          |
/// |     64 |   16 | stripe           | the stripe                                                   |
/// |     80 |    4 | generation       | version of the shard's place                                 |
/// |     84 |    4 | payload length   | bytes, 1 to 1048576                                          |
/// |     88 |    8 | sequence         | order of this record on the drive                            |
/// |     96 |    8 | durable sequence | everything up to this had been flushed when it was written   |
/// |    104 |    8 | life             | of the segment                                               |
/// |    112 |    4 | segment          | position of the segment                                      |
/// |    116 |    4 | sector           | position of this header in the segment                       |
/// |    120 |    8 | written          | Unix milliseconds; kept when the record is moved             |
/// |    128 |    2 | manifest length  | bytes, up to 2048                                            |
/// |    130 |  126 | reserved         | zero, verified                                               |
/// |    256 |  256 | blocks           | CRC-32C of each started 64 KiB of payload; unused slots zero |
/// |    512 | 2048 | manifest         | sealed core of the object's manifest; the rest zero          |
/// |   2560 | 1532 | reserved         | zero, verified                                               |
/// |   4092 |    4 | checksum         | CRC-32C of bytes 0..4092                                     |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// Where it lies.
    pub place: Place,
    /// Order on the drive.
    pub sequence: Sequence,
    /// Everything up to this had been flushed when the record was written.
    pub durable: Sequence,
    /// The shard.
    pub shard: ShardId,
    /// Version of the shard's place.
    pub generation: Generation,
    /// Whose shard.
    pub tenant: TenantId,
    /// Data shards of the stripe.
    pub data: u8,
    /// Parity shards of the stripe.
    pub parity: u8,
    /// Copied here from another segment.
    pub moved: bool,
    /// When the shard was first written to this drive.
    pub written: UnixMillis,
    /// Payload bytes.
    pub payload_len: u32,
    /// Checksums of the payload.
    pub blocks: BlockChecksums,
    /// Sealed core of the object's manifest.
    pub manifest: Vec<u8>,
}

impl RecordHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(sector: &Sector) -> Result<Self, FormatError> {
        let mut r = KIND.open(sector)?;
        let flags = r.u16();
        let (data, parity, index) = (r.u8(), r.u8(), r.u8());
        r.reserved_until(16)?;
        let cluster = ClusterId::from_bytes(r.array());
        let drive = DriveId::from_bytes(r.array());
        let tenant = TenantId::from_bytes(r.array());
        let stripe = StripeId::from_bytes(r.array());
        let generation = Generation::new(r.u32());
        let payload_len = r.u32();
        let (sequence, durable) = (r.sequence()?, r.sequence()?);
        let life = r.life()?;
        let (segment, sector_index) = (r.u32(), r.u32());
        let written = UnixMillis::new(r.u64());
        let manifest_len = usize::from(r.u16());
        r.reserved_until(BLOCKS_OFFSET)?;
        if flags & !FLAG_MOVED != 0 {
            return Err(r.impossible("flags"));
        }
        if let Some(field) = impossible_shape(data, parity, index, payload_len as usize) {
            return Err(r.impossible(field));
        }
        if manifest_len > RECORD_MANIFEST_SIZE_MAX {
            return Err(r.impossible("manifest length"));
        }
        let mut blocks = BlockChecksums::of(&[]);
        let used = (payload_len as usize).div_ceil(BLOCK_SIZE);
        for checksum in &mut blocks.0[..used] {
            *checksum = r.u32();
        }
        r.reserved_until(MANIFEST_OFFSET)?;
        let manifest = r.take(manifest_len).to_vec();
        r.reserved_until(KIND.extent.checksum_offset())?;
        Ok(Self {
            place: Place { cluster, drive, segment, sector: sector_index, life },
            sequence,
            durable,
            shard: ShardId { stripe, index: ShardIndex::new(index) },
            generation,
            tenant,
            data,
            parity,
            moved: flags & FLAG_MOVED != 0,
            written,
            payload_len,
            blocks,
            manifest,
        })
    }

    /// Writes the header.
    ///
    /// # Panics
    /// When the header is not one that [`Self::check`] accepts.
    pub fn encode(&self, sector: &mut Sector) {
        self.check().expect("a header is checked before it is written");
        let mut w = KIND.start(sector);
        w.u16(if self.moved { FLAG_MOVED } else { 0 });
        w.u8(self.data);
        w.u8(self.parity);
        w.u8(self.shard.index.get());
        w.reserved_until(16);
        w.bytes(self.place.cluster.as_bytes());
        w.bytes(self.place.drive.as_bytes());
        w.bytes(self.tenant.as_bytes());
        w.bytes(self.shard.stripe.as_bytes());
        w.u32(self.generation.get());
        w.u32(self.payload_len);
        w.u64(self.sequence.get());
        w.u64(self.durable.get());
        w.u64(self.place.life.get());
        w.u32(self.place.segment);
        w.u32(self.place.sector);
        w.u64(self.written.get());
        w.u16(u16::try_from(self.manifest.len()).expect("a manifest is at most 2048 bytes"));
        w.reserved_until(BLOCKS_OFFSET);
        for checksum in &self.blocks.0[..(self.payload_len as usize).div_ceil(BLOCK_SIZE)] {
            w.u32(*checksum);
        }
        w.reserved_until(MANIFEST_OFFSET);
        w.bytes(&self.manifest);
        KIND.seal(sector);
    }

    /// Whether the header can be written: the same rules as [`Self::parse`] has.
    ///
    /// # Errors
    /// [`FormatError::Impossible`] naming the field.
    pub fn check(&self) -> Result<(), FormatError> {
        let impossible = |field| FormatError::Impossible { what: KIND.what, field };
        if let Some(field) =
            impossible_shape(self.data, self.parity, self.shard.index.get(), self.payload_len as usize)
        {
            return Err(impossible(field));
        }
        if self.manifest.len() > RECORD_MANIFEST_SIZE_MAX {
            return Err(impossible("manifest length"));
        }
        Ok(())
    }

    /// Sectors of the record, header included.
    #[must_use]
    pub fn sectors(&self) -> u32 {
        record_sectors(self.payload_len)
    }
}

/// The field that no shard has, if there is one.
fn impossible_shape(data: u8, parity: u8, index: u8, payload_len: usize) -> Option<&'static str> {
    if data == 0 || usize::from(data) > DATA_SHARDS_MAX {
        Some("number of data shards")
    } else if usize::from(parity) > PARITY_SHARDS_MAX {
        Some("number of parity shards")
    } else if index >= data + parity {
        Some("shard index")
    } else if payload_len == 0 || payload_len > RECORD_PAYLOAD_MAX {
        Some("payload length")
    } else {
        None
    }
}
