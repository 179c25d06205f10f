//! What a catalog record begins with: a shard whose payload is a piece of the catalog itself.
//!
//! The catalog lives on system disks; so that it can be rebuilt from data drives alone, its journal and its
//! bases are kept there as well, as mirrored records of an owner that is no tenant. The drive's record
//! header frames them like any shard; this header says which piece of the catalog it is. What follows it is
//! sealed.

use holdfast_model::{ClusterId, GroupId, NodeId, TenantId, UnixMillis};

use crate::{
    FormatError,
    bytes::{Reader, Writer},
};

const WHAT: &str = "catalog record";
const MAGIC: [u8; 8] = *b"HFCATLG\0";
const VERSION: u16 = 1;
const CHECKSUM_OFFSET: usize = 124;

/// Owner of catalog records in the drives' records: no tenant has this id.
pub const CATALOG_OWNER: TenantId = TenantId::from_bytes([0; 16]);

/// Which piece of the catalog a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CatalogRecordKind {
    /// Commands that a group applied, from one log index to another.
    Journal,
    /// A piece of a file of a group's state.
    BasePiece,
    /// What a group's state consists of; written when all its pieces are durable.
    BaseRoot,
}

impl CatalogRecordKind {
    /// Its number on the drive.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Journal => 1,
            Self::BasePiece => 2,
            Self::BaseRoot => 3,
        }
    }

    /// The kind of that number.
    #[must_use]
    pub const fn of(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Journal),
            2 => Some(Self::BasePiece),
            3 => Some(Self::BaseRoot),
            _ => None,
        }
    }
}

/// Catalog record header, version 1: the first 128 bytes of the payload. Little-endian.
///
/// | offset | size | field    | meaning                                                                |
/// |-------:|-----:|----------|------------------------------------------------------------------------|
/// |      0 |    8 | magic    | `HFCATLG` and a zero byte                                              |
/// |      8 |    2 | version  | 1                                                                      |
/// |     10 |    2 | kind     | 1 journal, 2 piece of a base, 3 root of a base                         |
/// |     12 |    4 | group    | the Raft group                                                         |
/// |     16 |   16 | cluster  | as in the label                                                        |
/// |     32 |    8 | node     | who wrote it                                                           |
/// |     40 |    8 | first    | journal: log index of its first entry; base: zero                      |
/// |     48 |    8 | last     | journal: log index of its last entry; base: everything up to it is in  |
/// |     56 |    8 | begun    | Unix milliseconds, the same in all parts                               |
/// |     64 |    4 | part     | which part, from 0                                                     |
/// |     68 |    4 | parts    | journal: of how many; root: pieces of its base; piece: zero            |
/// |     72 |    4 | length   | bytes that follow this header                                          |
/// |     76 |   48 | reserved | zero, verified                                                         |
/// |    124 |    4 | checksum | CRC-32C of bytes 0..124                                                |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogRecordHeader {
    /// Which piece.
    pub kind: CatalogRecordKind,
    /// The Raft group.
    pub group: GroupId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Who wrote it.
    pub node: NodeId,
    /// Log index of the first entry.
    pub first: u64,
    /// Log index of the last entry.
    pub last: u64,
    /// When its writing began.
    pub begun: UnixMillis,
    /// Which part.
    pub part: u32,
    /// Of how many.
    pub parts: u32,
    /// Bytes that follow.
    pub length: u32,
}

impl CatalogRecordHeader {
    /// Bytes of the header.
    pub const SIZE: usize = 128;

    /// Reads the header and returns it with what follows.
    ///
    /// # Errors
    /// [`FormatError`]; `Impossible` when the payload is shorter than the header says.
    pub fn parse(payload: &[u8]) -> Result<(Self, &[u8]), FormatError> {
        let header = Self::of(payload)?;
        let body = payload[Self::SIZE..]
            .get(..header.length as usize)
            .ok_or(FormatError::Impossible { what: WHAT, field: "length" })?;
        Ok((header, body))
    }

    /// Reads the header alone; what follows it need not be there.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn of(payload: &[u8]) -> Result<Self, FormatError> {
        let impossible = |field| FormatError::Impossible { what: WHAT, field };
        let head = payload.get(..Self::SIZE).ok_or(impossible("size"))?;
        let mut r = Reader::new(WHAT, head);
        let magic: [u8; 8] = r.array();
        if magic != MAGIC {
            return Err(FormatError::Foreign { what: WHAT, magic });
        }
        let version = r.u16();
        if version != VERSION {
            return Err(FormatError::UnknownVersion { what: WHAT, version, known: VERSION });
        }
        let mut stored = Reader::new(WHAT, &head[CHECKSUM_OFFSET..]);
        if stored.u32() != crc32c::crc32c(&head[..CHECKSUM_OFFSET]) {
            return Err(FormatError::Checksum { what: WHAT });
        }
        let header = Self {
            kind: CatalogRecordKind::of(r.u16()).ok_or(impossible("kind"))?,
            group: GroupId::new(r.u32()),
            cluster: ClusterId::from_bytes(r.array()),
            node: NodeId::new(r.u64()),
            first: r.u64(),
            last: r.u64(),
            begun: UnixMillis::new(r.u64()),
            part: r.u32(),
            parts: r.u32(),
            length: r.u32(),
        };
        r.reserved_until(CHECKSUM_OFFSET)?;
        if header.first > header.last {
            return Err(impossible("range of entries"));
        }
        Ok(header)
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut w = Writer::new(&mut bytes);
        w.bytes(&MAGIC);
        w.u16(VERSION);
        w.u16(self.kind.number());
        w.u32(self.group.get());
        w.bytes(self.cluster.as_bytes());
        w.u64(self.node.get());
        w.u64(self.first);
        w.u64(self.last);
        w.u64(self.begun.get());
        w.u32(self.part);
        w.u32(self.parts);
        w.u32(self.length);
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM_OFFSET]);
        bytes[CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> CatalogRecordHeader {
        CatalogRecordHeader {
            kind: CatalogRecordKind::Journal,
            group: GroupId::new(3),
            cluster: ClusterId::from_bytes([0xC1; 16]),
            node: NodeId::new(2),
            first: 1000,
            last: 1016,
            begun: UnixMillis::new(1_750_000_000_123),
            part: 0,
            parts: 1,
            length: 5,
        }
    }

    #[test]
    fn every_damaged_byte_and_every_missing_one_is_noticed() {
        let mut whole = header().encode().to_vec();
        whole.extend_from_slice(b"abcde");
        assert_eq!(CatalogRecordHeader::parse(&whole), Ok((header(), &b"abcde"[..])));
        for at in 0..CatalogRecordHeader::SIZE {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            assert!(CatalogRecordHeader::parse(&bad).is_err(), "byte {at}");
        }
        for len in 0..whole.len() {
            assert!(CatalogRecordHeader::parse(&whole[..len]).is_err(), "cut at {len}");
        }
    }
}
