//! The layout of log segments: a header, then records to the end of what was written, then zeros.
//!
//! Pure: bytes in, bytes out. Integers are little-endian, records start on multiples of 8 bytes.
//!
//! Segment header, version 1:
//!
//! | offset | size | field       | meaning                                                 |
//! |-------:|-----:|-------------|---------------------------------------------------------|
//! |      0 |    8 | magic       | `HFLOGSEG`                                              |
//! |      8 |    2 | version     | 1                                                       |
//! |     10 |    6 | reserved    | zero, verified                                          |
//! |     16 |   16 | log         | random, chosen when this log was created                |
//! |     32 |    8 | node        | the node that writes this log                           |
//! |     40 |    8 | number      | of this segment, counting up without holes              |
//! |     48 |    8 | first batch | number of the first batch in this segment               |
//! |     56 |    4 | reserved    | zero, verified                                          |
//! |     60 |    4 | checksum    | CRC-32C of bytes 0..60                                  |
//!
//! Record, version 1:
//!
//! | offset | size | field    | meaning                                                    |
//! |-------:|-----:|----------|------------------------------------------------------------|
//! |      0 |    4 | magic    | `HFLR`                                                     |
//! |      4 |    1 | version  | 1                                                          |
//! |      5 |    1 | kind     | see [`Kind`]                                               |
//! |      6 |    1 | flags    | bit 0: last record of its batch; others zero               |
//! |      7 |    1 | reserved | zero, verified                                             |
//! |      8 |    4 | group    | the Raft group the record belongs to                       |
//! |     12 |    4 | length   | of the payload in bytes                                    |
//! |     16 |    8 | batch    | number of the write this record was part of                |
//! |     24 |    8 | index    | log index the record is about; zero for votes              |
//! |     32 |    4 | payload  | CRC-32C of the payload                                     |
//! |     36 |    4 | header   | CRC-32C of bytes 0..36                                     |
//! |     40 |    n | payload  | encoded value, then zeros up to a multiple of 8            |
//!
//! Both record checksums start from a seed derived from the log's random id. So a record of another
//! log is not taken for one of this log, and neither are bytes a client chose to store.
//!
//! A batch is what one write and one flush made durable. The batch number lets recovery prove that a
//! damaged record had been flushed: the next batch is written only after the flush of the one before.

use holdfast_model::{GroupId, NodeId};

/// Size of a segment header in bytes.
pub(crate) const SEGMENT_HEADER_SIZE: usize = 64;
/// Size of a record header in bytes.
pub(crate) const RECORD_HEADER_SIZE: usize = 40;
/// Records start on multiples of this many bytes.
pub(crate) const RECORD_ALIGNMENT: usize = 8;

const SEGMENT_MAGIC: &[u8; 8] = b"HFLOGSEG";
const SEGMENT_VERSION: u16 = 1;
const RECORD_MAGIC: &[u8; 4] = b"HFLR";
const RECORD_VERSION: u8 = 1;
const FLAG_LAST: u8 = 1;

const _: () = assert!(SEGMENT_HEADER_SIZE.is_multiple_of(RECORD_ALIGNMENT));
const _: () = assert!(RECORD_HEADER_SIZE.is_multiple_of(RECORD_ALIGNMENT));

/// The identity of one log: 16 random bytes. A log that was lost and created anew has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIdentity(pub [u8; 16]);

impl LogIdentity {
    /// Short form for messages.
    pub(crate) fn short(&self) -> u64 {
        u64::from_le_bytes(array(&self.0[..8]))
    }

    /// Where record checksums start.
    fn seed(&self) -> u32 {
        crc32c::crc32c(&self.0)
    }
}

impl std::fmt::Display for LogIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An entry; `index` is its log index.
    Entry,
    /// The node's vote.
    Vote,
    /// Entries from `index` on are gone: a leader had others in their place.
    Truncate,
    /// Entries up to `index` are gone: a durable checkpoint covers them. Payload: the last one's id.
    Purge,
    /// Entries up to `index` are committed. A hint; the truth is what a quorum holds.
    Committed,
    /// The group has left this node; everything before is void.
    Forget,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::Vote => 2,
            Self::Truncate => 3,
            Self::Purge => 4,
            Self::Committed => 5,
            Self::Forget => 6,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::Committed,
            6 => Self::Forget,
            _ => return None,
        })
    }
}

/// The header of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log: LogIdentity,
    pub(crate) node: NodeId,
    pub(crate) number: u64,
    pub(crate) first_batch: u64,
}

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("too short for a header")]
    Short,
    #[error("no header here")]
    NotAHeader,
    #[error("checksum or reserved bytes of the header are wrong")]
    Damaged,
    #[error("layout version {0} is of a newer release")]
    UnknownVersion(u16),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_SIZE] {
        let mut bytes = [0; SEGMENT_HEADER_SIZE];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..10].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.log.0);
        bytes[32..40].copy_from_slice(&self.node.get().to_le_bytes());
        bytes[40..48].copy_from_slice(&self.number.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.first_batch.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.get(..SEGMENT_HEADER_SIZE).ok_or(HeaderError::Short)?;
        if &bytes[..8] != SEGMENT_MAGIC {
            return Err(HeaderError::NotAHeader);
        }
        let version = u16::from_le_bytes(array(&bytes[8..10]));
        if version != SEGMENT_VERSION {
            return Err(HeaderError::UnknownVersion(version));
        }
        let intact = crc32c::crc32c(&bytes[..60]) == u32::from_le_bytes(array(&bytes[60..]));
        if !intact || bytes[10..16].iter().chain(&bytes[56..60]).any(|byte| *byte != 0) {
            return Err(HeaderError::Damaged);
        }
        Ok(Self {
            log: LogIdentity(array(&bytes[16..32])),
            node: NodeId::new(u64::from_le_bytes(array(&bytes[32..40]))),
            number: u64::from_le_bytes(array(&bytes[40..48])),
            first_batch: u64::from_le_bytes(array(&bytes[48..56])),
        })
    }
}

/// The header of one record. Its existence says nothing about the payload's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) kind: Kind,
    pub(crate) last: bool,
    pub(crate) group: GroupId,
    pub(crate) length: u32,
    pub(crate) batch: u64,
    pub(crate) index: u64,
    payload_checksum: u32,
}

impl RecordHeader {
    /// Bytes from the start of this record to the start of the next.
    pub(crate) fn size(&self) -> usize {
        record_size(self.length as usize)
    }

    pub(crate) fn parse(log: &LogIdentity, bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.get(..RECORD_HEADER_SIZE).ok_or(HeaderError::Short)?;
        if &bytes[..4] != RECORD_MAGIC {
            return Err(HeaderError::NotAHeader);
        }
        let checksum = crc32c::crc32c_append(log.seed(), &bytes[..36]);
        if checksum != u32::from_le_bytes(array(&bytes[36..])) {
            return Err(HeaderError::Damaged);
        }
        if bytes[4] != RECORD_VERSION {
            return Err(HeaderError::UnknownVersion(u16::from(bytes[4])));
        }
        let kind = Kind::from_code(bytes[5]).ok_or(HeaderError::UnknownVersion(u16::from(bytes[4])))?;
        if bytes[6] & !FLAG_LAST != 0 || bytes[7] != 0 {
            return Err(HeaderError::Damaged);
        }
        Ok(Self {
            kind,
            last: bytes[6] & FLAG_LAST != 0,
            group: GroupId::new(u32::from_le_bytes(array(&bytes[8..12]))),
            length: u32::from_le_bytes(array(&bytes[12..16])),
            batch: u64::from_le_bytes(array(&bytes[16..24])),
            index: u64::from_le_bytes(array(&bytes[24..32])),
            payload_checksum: u32::from_le_bytes(array(&bytes[32..36])),
        })
    }

    /// The payload, when `record` holds all of it and its checksum and padding are right.
    pub(crate) fn payload<'a>(&self, log: &LogIdentity, record: &'a [u8]) -> Option<&'a [u8]> {
        let end = RECORD_HEADER_SIZE + self.length as usize;
        let payload = record.get(RECORD_HEADER_SIZE..end)?;
        let padding = record.get(end..self.size())?;
        let intact = crc32c::crc32c_append(log.seed(), payload) == self.payload_checksum;
        (intact && padding.iter().all(|byte| *byte == 0)).then_some(payload)
    }
}

/// Bytes that a record with `payload_length` bytes takes.
pub(crate) const fn record_size(payload_length: usize) -> usize {
    (RECORD_HEADER_SIZE + payload_length).next_multiple_of(RECORD_ALIGNMENT)
}

/// One record before it has a place.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) index: u64,
    pub(crate) payload: Vec<u8>,
}

impl Record {
    /// Appends this record's bytes to `out`.
    pub(crate) fn encode(
        &self,
        log: &LogIdentity,
        group: GroupId,
        batch: u64,
        last: bool,
        out: &mut Vec<u8>,
    ) {
        let length = u32::try_from(self.payload.len()).expect("entries are bounded far below 4 GiB");
        let start = out.len();
        out.extend_from_slice(RECORD_MAGIC);
        out.extend_from_slice(&[RECORD_VERSION, self.kind.code(), if last { FLAG_LAST } else { 0 }, 0]);
        out.extend_from_slice(&group.get().to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&batch.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c_append(log.seed(), &self.payload).to_le_bytes());
        let checksum = crc32c::crc32c_append(log.seed(), &out[start..]);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&self.payload);
        out.resize(start + record_size(self.payload.len()), 0);
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller slices exactly N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogIdentity = LogIdentity([7; 16]);

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let record = Record { kind: Kind::Entry, index: 42, payload: b"payload".to_vec() };
        record.encode(&LOG, GroupId::new(3), 9, true, &mut out);
        out
    }

    #[test]
    fn records_survive_encoding() {
        let bytes = sample();
        let header = RecordHeader::parse(&LOG, &bytes).unwrap();
        assert_eq!((header.kind, header.index, header.batch, header.last), (Kind::Entry, 42, 9, true));
        assert_eq!((header.group, header.size()), (GroupId::new(3), bytes.len()));
        assert_eq!(header.payload(&LOG, &bytes), Some(&b"payload"[..]));
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let good = sample();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let seen =
                RecordHeader::parse(&LOG, &bytes).ok().and_then(|h| h.payload(&LOG, &bytes).map(|_| ()));
            assert_eq!(seen, None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_log_is_not_ours() {
        let other = LogIdentity([8; 16]);
        assert_eq!(RecordHeader::parse(&other, &sample()), Err(HeaderError::Damaged));
    }

    #[test]
    fn version_1_layouts_stay_readable() {
        let segment = SegmentHeader { log: LOG, node: NodeId::new(2), number: 5, first_batch: 77 };
        let golden = include_bytes!("../../golden/log_v1.bin");
        assert_eq!(SegmentHeader::parse(golden), Ok(segment));
        assert_eq!(golden[..SEGMENT_HEADER_SIZE], segment.encode());
        assert_eq!(golden[SEGMENT_HEADER_SIZE..], sample());
    }
}
