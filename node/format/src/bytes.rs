//! Reading and writing fields in order, and the frame that every structure shares.
//!
//! Invariant: offsets never leave the slice. Tables are fixed, so a reader that ran out would be a bug of
//! this crate, not of the bytes; structures of variable size check their size before they read.

use holdfast_model::limits::SECTOR_SIZE;

use crate::{FormatError, Sector, SegmentSequence, Sequence};

/// Bytes of a small structure: the unit every device writes atomically.
const SMALL_SIZE: usize = 512;

/// Bytes of the checksum at the end of a structure.
const CHECKSUM_SIZE: usize = 4;

/// Bytes of magic and version.
const BEGINNING_SIZE: usize = 10;

/// Bytes of magic and version that may be wrong in what is still taken for a damaged structure.
const STRANGE_BYTES_MAX: usize = 2;

/// How much of a sector a structure covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Fields and checksum in the first 512 bytes, the rest zero.
    Small,
    /// Fields in 4092 bytes, checksum in the last four.
    Whole,
}

impl Extent {
    pub(crate) const fn checksum_offset(self) -> usize {
        match self {
            Self::Small => SMALL_SIZE - CHECKSUM_SIZE,
            Self::Whole => SECTOR_SIZE - CHECKSUM_SIZE,
        }
    }
}

/// What a structure is called and how it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) what: &'static str,
    pub(crate) magic: [u8; 8],
    pub(crate) version: u16,
    pub(crate) extent: Extent,
}

impl Kind {
    /// Checks magic, version, checksum and the zero rest; the reader stands behind the version.
    pub(crate) fn open<'a>(&self, sector: &'a Sector) -> Result<Reader<'a>, FormatError> {
        let what = self.what;
        let mut reader = Reader { what, bytes: sector, at: 0 };
        let magic: [u8; 8] = reader.array();
        if magic == [0; 8] {
            return Err(FormatError::Blank { what });
        }
        if magic != self.magic {
            return Err(FormatError::Foreign { what, magic });
        }
        let version = reader.u16();
        if version != self.version {
            return Err(FormatError::UnknownVersion { what, version, known: self.version });
        }
        let end = self.extent.checksum_offset();
        let mut stored = Reader { what, bytes: sector, at: end };
        if stored.u32() != crc32c::crc32c(&sector[..end]) {
            return Err(FormatError::Checksum { what });
        }
        stored.reserved_until(SECTOR_SIZE)?;
        Ok(reader)
    }

    /// What is wrong with a sector that begins like this structure, or nearly so, and is none.
    pub(crate) fn damage(&self, sector: &Sector) -> Option<FormatError> {
        let mut beginning = [0; BEGINNING_SIZE];
        beginning[..8].copy_from_slice(&self.magic);
        beginning[8..].copy_from_slice(&self.version.to_le_bytes());
        let strange = beginning.iter().zip(sector).filter(|(ours, found)| ours != found).count();
        if strange > STRANGE_BYTES_MAX {
            return None;
        }
        match self.open(sector) {
            Ok(_) => None,
            Err(error @ (FormatError::Checksum { .. } | FormatError::Reserved { .. })) => Some(error),
            Err(_) => {
                let mut restored = *sector;
                restored[..BEGINNING_SIZE].copy_from_slice(&beginning);
                self.open(&restored).ok().map(|_| FormatError::Beginning { what: self.what })
            }
        }
    }

    /// Clears `sector` and writes magic and version; the writer stands behind the version.
    pub(crate) fn start<'a>(&self, sector: &'a mut Sector) -> Writer<'a> {
        sector.fill(0);
        let mut writer = Writer { bytes: sector, at: 0 };
        writer.bytes(&self.magic);
        writer.u16(self.version);
        writer
    }

    /// Writes the checksum.
    pub(crate) fn seal(&self, sector: &mut Sector) {
        let end = self.extent.checksum_offset();
        let checksum = crc32c::crc32c(&sector[..end]);
        sector[end..end + CHECKSUM_SIZE].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Reads fields in order.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let field = *self.bytes[self.at..].first_chunk().expect("a table does not exceed its structure");
        self.at += N;
        field
    }

    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let field = &self.bytes[self.at..self.at + count];
        self.at += count;
        field
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A sequence; no drive ever gets near the largest.
    pub(crate) fn sequence(&mut self) -> Result<Sequence, FormatError> {
        let sequence = Sequence::new(self.u64());
        if sequence <= Sequence::MAX { Ok(sequence) } else { Err(self.impossible("sequence")) }
    }

    /// The life of a segment.
    pub(crate) fn life(&mut self) -> Result<SegmentSequence, FormatError> {
        let life = SegmentSequence::new(self.u64());
        if life <= SegmentSequence::MAX { Ok(life) } else { Err(self.impossible("life of a segment")) }
    }

    /// Checks that everything up to `end` is zero and goes there.
    pub(crate) fn reserved_until(&mut self, end: usize) -> Result<(), FormatError> {
        let start = self.at;
        let what = self.what;
        match self.take(end - start).iter().position(|b| *b != 0) {
            Some(i) => Err(FormatError::Reserved { what, offset: start + i }),
            None => Ok(()),
        }
    }

    pub(crate) fn impossible(&self, field: &'static str) -> FormatError {
        FormatError::Impossible { what: self.what, field }
    }
}

/// Writes fields in order into zeroed bytes.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn bytes(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Leaves zeros up to `end`.
    pub(crate) fn reserved_until(&mut self, end: usize) {
        debug_assert!(end >= self.at, "fields overlap");
        self.at = end;
    }
}
