//! GUID partition table (UEFI 2.10, section 5.3), for disks with 512-byte logical sectors.
//!
//! Layout of a disk of `n` sectors:
//!
//! | sectors        | content                                            |
//! |----------------|----------------------------------------------------|
//! | 0              | protective MBR                                     |
//! | 1              | primary header                                     |
//! | 2..34          | 128 entries of 128 bytes                           |
//! | 2048..n-33     | partitions, each starting on a multiple of 1 MiB   |
//! | n-33..n-1      | copy of the entries                                |
//! | n-1            | backup header                                      |
//!
//! Header: signature `EFI PART`, revision 1.0, size 92, CRC-32 of itself (with the field zero),
//! reserved, own LBA, other LBA, first and last usable LBA, disk id, LBA of the entries, their number,
//! size and CRC-32. Entry: type, id, first LBA, last LBA, attributes, name (36 UTF-16 units).

use crate::Extent;
use crate::bytes::{align_up, crc32, put, u32_at, u64_at};

/// Bytes of a logical sector.
pub const SECTOR_SIZE: u64 = 512;
/// Sectors at the start that hold MBR, header and entries.
pub const HEAD_SECTORS: u64 = 2 + ENTRIES_SECTORS;
/// Sectors at the end that hold the copy.
pub const TAIL_SECTORS: u64 = 1 + ENTRIES_SECTORS;

const ENTRIES: usize = 128;
const ENTRY_SIZE: usize = 128;
const ENTRIES_SECTORS: u64 = (ENTRIES * ENTRY_SIZE) as u64 / SECTOR_SIZE;
const HEADER_SIZE: usize = 92;
const NAME_UNITS_MAX: usize = 36;
const ALIGNMENT_SECTORS: u64 = (1 << 20) / SECTOR_SIZE;

/// A GUID; written in text as UUIDs are, on disk with its first three fields little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guid(u128);

impl Guid {
    /// From the text form read as one big-endian number.
    pub const fn from_u128(value: u128) -> Self {
        Self(value)
    }

    fn to_disk(self) -> [u8; 16] {
        let mut bytes = self.0.to_be_bytes();
        bytes[0..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        bytes
    }

    fn from_disk(mut bytes: [u8; 16]) -> Self {
        bytes[0..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        Self(u128::from_be_bytes(bytes))
    }
}

impl std::fmt::Display for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            v >> 96,
            (v >> 80) & 0xffff,
            (v >> 64) & 0xffff,
            (v >> 48) & 0xffff,
            v & 0xffff_ffff_ffff
        )
    }
}

/// A partition to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Name, at most 36 characters.
    pub name: &'a str,
    /// Partition type.
    pub kind: Guid,
    /// Unique id.
    pub id: Guid,
    /// Size in bytes, rounded up to 1 MiB.
    pub size: u64,
}

/// A placed partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Name.
    pub name: String,
    /// Partition type.
    pub kind: Guid,
    /// Unique id.
    pub id: Guid,
    /// First sector.
    pub first_lba: u64,
    /// Last sector, inclusive.
    pub last_lba: u64,
}

impl Partition {
    /// Bytes from the start of the disk.
    pub fn offset(&self) -> u64 {
        self.first_lba * SECTOR_SIZE
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        (self.last_lba - self.first_lba + 1) * SECTOR_SIZE
    }
}

/// A partitioned disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Unique id.
    pub id: Guid,
    /// Size of the disk.
    pub sectors: u64,
    /// Partitions in the order of the table.
    pub partitions: Vec<Partition>,
}

/// Why a table was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GptError {
    /// More partitions or a longer name than the table holds.
    #[error("partition {0:?} does not fit the table (128 entries, names of 36 characters)")]
    DoesNotFit(String),
    /// No table.
    #[error("no GUID partition table of revision 1.0")]
    NotGpt,
    /// Checksum or geometry wrong.
    #[error("the partition table is damaged: {0}")]
    Damaged(&'static str),
}

impl Disk {
    /// Places partitions one after another on the smallest disk that holds them.
    ///
    /// # Errors
    /// `DoesNotFit`.
    pub fn plan(id: Guid, requests: &[Request<'_>]) -> Result<Self, GptError> {
        let mut next = ALIGNMENT_SECTORS;
        let mut partitions = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            if index == ENTRIES || request.name.encode_utf16().count() > NAME_UNITS_MAX || request.size == 0 {
                return Err(GptError::DoesNotFit(request.name.to_owned()));
            }
            let sectors = align_up(request.size.div_ceil(SECTOR_SIZE), ALIGNMENT_SECTORS);
            partitions.push(Partition {
                name: request.name.to_owned(),
                kind: request.kind,
                id: request.id,
                first_lba: next,
                last_lba: next + sectors - 1,
            });
            next += sectors;
        }
        Ok(Self { id, sectors: next + ALIGNMENT_SECTORS, partitions })
    }

    /// A partition by name.
    pub fn partition(&self, name: &str) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.name == name)
    }

    /// The sectors of the table: head and tail of the disk.
    pub fn encode(&self) -> Vec<Extent> {
        let mut entries = vec![0; ENTRIES * ENTRY_SIZE];
        for (partition, entry) in self.partitions.iter().zip(entries.chunks_exact_mut(ENTRY_SIZE)) {
            put(entry, 0, &partition.kind.to_disk());
            put(entry, 16, &partition.id.to_disk());
            put(entry, 32, &partition.first_lba.to_le_bytes());
            put(entry, 40, &partition.last_lba.to_le_bytes());
            for (index, unit) in partition.name.encode_utf16().enumerate() {
                put(entry, 56 + index * 2, &unit.to_le_bytes());
            }
        }
        let last = self.sectors - 1;
        let mut head = protective_mbr(self.sectors).to_vec();
        head.extend_from_slice(&self.header(1, last, 2, &entries));
        head.extend_from_slice(&entries);
        let mut tail = entries.clone();
        tail.extend_from_slice(&self.header(last, 1, last - ENTRIES_SECTORS, &entries));
        vec![
            Extent { offset: 0, bytes: head },
            Extent { offset: (self.sectors - TAIL_SECTORS) * SECTOR_SIZE, bytes: tail },
        ]
    }

    fn header(&self, own: u64, other: u64, entries_lba: u64, entries: &[u8]) -> [u8; SECTOR_SIZE as usize] {
        let mut header = [0; SECTOR_SIZE as usize];
        put(&mut header, 0, b"EFI PART");
        put(&mut header, 8, &0x0001_0000_u32.to_le_bytes());
        put(&mut header, 12, &(HEADER_SIZE as u32).to_le_bytes());
        put(&mut header, 24, &own.to_le_bytes());
        put(&mut header, 32, &other.to_le_bytes());
        put(&mut header, 40, &HEAD_SECTORS.to_le_bytes());
        put(&mut header, 48, &(self.sectors - TAIL_SECTORS - 1).to_le_bytes());
        put(&mut header, 56, &self.id.to_disk());
        put(&mut header, 72, &entries_lba.to_le_bytes());
        put(&mut header, 80, &(ENTRIES as u32).to_le_bytes());
        put(&mut header, 84, &(ENTRY_SIZE as u32).to_le_bytes());
        put(&mut header, 88, &crc32(entries).to_le_bytes());
        let crc = crc32(&header[..HEADER_SIZE]);
        put(&mut header, 16, &crc.to_le_bytes());
        header
    }

    /// Reads the head of a disk: at least the first `HEAD_SECTORS`.
    ///
    /// # Errors
    /// `NotGpt`, `Damaged`.
    pub fn parse(head: &[u8]) -> Result<Self, GptError> {
        let sector = SECTOR_SIZE as usize;
        let header = head.get(sector..2 * sector).ok_or(GptError::NotGpt)?;
        let table = head.get(2 * sector..HEAD_SECTORS as usize * sector).ok_or(GptError::NotGpt)?;
        let field = |offset| u64_at(header, offset).expect("the header is a whole sector");
        let half = |offset| u32_at(header, offset).expect("the header is a whole sector");
        if !header.starts_with(b"EFI PART") || half(8) != 0x0001_0000 {
            return Err(GptError::NotGpt);
        }
        let mut zeroed = header[..HEADER_SIZE].to_vec();
        put(&mut zeroed, 16, &[0; 4]);
        if half(12) as usize != HEADER_SIZE || crc32(&zeroed) != half(16) {
            return Err(GptError::Damaged("header checksum"));
        }
        if half(80) as usize != ENTRIES || half(84) as usize != ENTRY_SIZE || field(72) != 2 {
            return Err(GptError::Damaged("an entry table of another shape"));
        }
        if crc32(table) != half(88) {
            return Err(GptError::Damaged("entries checksum"));
        }
        let (first_usable, last_usable) = (field(40), field(48));
        let mut partitions = Vec::new();
        for entry in table.chunks_exact(ENTRY_SIZE).filter(|entry| entry[..16] != [0; 16]) {
            partitions.push(parse_entry(entry, first_usable, last_usable)?);
        }
        let sectors = field(32).checked_add(1).ok_or(GptError::Damaged("backup header address"))?;
        let id = Guid::from_disk(header[56..72].try_into().expect("16 bytes"));
        Ok(Self { id, sectors, partitions })
    }
}

fn parse_entry(entry: &[u8], first_usable: u64, last_usable: u64) -> Result<Partition, GptError> {
    let guid = |at: usize| Guid::from_disk(entry[at..at + 16].try_into().expect("16 bytes"));
    let lba = |at| u64_at(entry, at).expect("an entry is 128 bytes");
    let (first_lba, last_lba) = (lba(32), lba(40));
    if first_lba < first_usable || last_lba > last_usable || first_lba > last_lba {
        return Err(GptError::Damaged("a partition outside the usable sectors"));
    }
    let units = entry[56..56 + 2 * NAME_UNITS_MAX].chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let name = char::decode_utf16(units.take_while(|&unit| unit != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    Ok(Partition { name, kind: guid(0), id: guid(16), first_lba, last_lba })
}

fn protective_mbr(sectors: u64) -> [u8; SECTOR_SIZE as usize] {
    let mut mbr = [0; SECTOR_SIZE as usize];
    let covered = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    put(&mut mbr, 446, &[0, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff]);
    put(&mut mbr, 454, &1_u32.to_le_bytes());
    put(&mut mbr, 458, &covered.to_le_bytes());
    put(&mut mbr, 510, &[0x55, 0xaa]);
    mbr
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    fn disk() -> Disk {
        let request = |name, kind, id, size| Request { name, kind, id, size };
        Disk::plan(
            names::DISK_ID,
            &[
                request(names::PARTITION_ESP, names::TYPE_ESP, names::ESP_ID, 64 << 20),
                request(names::PARTITION_META, names::TYPE_META, names::META_ID, 2 << 20),
                request(names::PARTITION_STATE, names::TYPE_STATE, names::STATE_ID, (128 << 20) + 1),
            ],
        )
        .unwrap()
    }

    #[test]
    fn a_table_reads_back() {
        let extents = disk().encode();
        assert_eq!(Disk::parse(&extents[0].bytes).unwrap(), disk());
    }

    #[test]
    fn partitions_are_aligned_and_apart() {
        let disk = disk();
        let mut end = HEAD_SECTORS;
        for partition in &disk.partitions {
            assert!(partition.first_lba >= end && partition.offset() % (1 << 20) == 0);
            end = partition.last_lba + 1;
        }
        assert!(end <= disk.sectors - TAIL_SECTORS);
        assert_eq!(disk.partition(names::PARTITION_STATE).unwrap().size(), 129 << 20);
    }

    #[test]
    fn any_flipped_bit_of_the_table_is_noticed() {
        let head = disk().encode().remove(0).bytes;
        let covered = (512..512 + HEADER_SIZE).chain(1024..1024 + 3 * ENTRY_SIZE);
        for byte in covered {
            let mut damaged = head.clone();
            damaged[byte] ^= 1;
            assert!(Disk::parse(&damaged).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn guids_have_the_mixed_byte_order_of_efi() {
        assert_eq!(names::TYPE_ESP.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(names::TYPE_ESP.to_disk()[..8], [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11]);
    }
}
