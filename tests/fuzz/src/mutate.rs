//! Changing inputs: bits, bytes, fields, sectors, pieces of other inputs. From a seed, the same each time.

use holdfast_fault::Random;
use holdfast_model::limits::SECTOR_SIZE;

use crate::corpus::INPUT_SIZE_MAX;

/// Changes made to one input at most.
const CHANGES_MAX: u64 = 8;

/// Bytes of an entry in the table of a footer or resume block.
const RECORD_SIZE: usize = 64;
const TOMBSTONE_SIZE: usize = 40;

/// Where a footer and a resume block keep the checksum of their table.
const TABLE_CHECKSUM_OFFSET: [usize; 2] = [92, 88];

/// Values at which arithmetic and limits go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x1_0000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    u64::MAX,
];

/// A changed copy of `input`, with pieces of `other` in it now and then.
#[must_use]
pub fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(CHANGES_MAX) {
        change(&mut bytes, other, random);
    }
    bytes.truncate(INPUT_SIZE_MAX);
    // A CRC over garbage refuses it, and nothing behind it is tried: so most inputs get a right one.
    if random.chance(85) {
        mend(&mut bytes);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let somewhere = |random: &mut Random, length: usize| random.below(length.max(1) as u64) as usize;
    // Fields are at the front of a sector: half of all changes are among its first 160 bytes.
    let place = |random: &mut Random, length: usize| {
        let at = somewhere(random, length);
        if random.chance(50) { at / SECTOR_SIZE * SECTOR_SIZE + somewhere(random, 160) } else { at }
    };
    let length = bytes.len();
    match random.below(10) {
        0 | 1 if length > 0 => {
            let at = place(random, length).min(length - 1);
            bytes[at] ^= 1 << random.below(8);
        }
        2 if length > 0 => {
            let at = place(random, length).min(length - 1);
            bytes[at] = random.number() as u8;
        }
        3..=5 => {
            let width = 1 << random.below(4);
            let at = place(random, length) / width * width;
            let edge = EDGES[somewhere(random, EDGES.len())];
            let value = edge.wrapping_add(random.below(3)).wrapping_sub(1);
            if let Some(field) = bytes.get_mut(at..at + width) {
                field.copy_from_slice(&value.to_le_bytes()[..width]);
            }
        }
        6 => {
            let (from, to) = (somewhere(random, other.len()), somewhere(random, length));
            let count =
                somewhere(random, 64).min(other.len() - from.min(other.len())).min(length - to.min(length));
            bytes[to..to + count].copy_from_slice(&other[from..from + count]);
        }
        7 => {
            // A whole sector of another input.
            let sectors = other.len() / SECTOR_SIZE;
            if sectors > 0 {
                let from = somewhere(random, sectors) * SECTOR_SIZE;
                let to = somewhere(random, length / SECTOR_SIZE + 1) * SECTOR_SIZE;
                let rest = bytes.split_off(to.min(length));
                bytes.extend_from_slice(&other[from..from + SECTOR_SIZE]);
                bytes.extend_from_slice(rest.get(SECTOR_SIZE..).unwrap_or_default());
            }
        }
        8 => bytes.truncate(somewhere(random, length)),
        _ => {
            let count = somewhere(random, 2 * SECTOR_SIZE);
            bytes.resize(length + count, random.number() as u8);
        }
    }
}

/// Writes the checksum of the table beside a footer or resume block, where input and counts allow it.
fn mend_tables(bytes: &mut [u8]) {
    for number in 0..bytes.len() / SECTOR_SIZE {
        let at = number * SECTOR_SIZE;
        let behind = match &bytes[at..at + 7] {
            b"HFFOOTR" => false,
            b"HFRESUM" => true,
            _ => continue,
        };
        let count = |offset| {
            let field = bytes[at + offset..].first_chunk().copied().unwrap_or_default();
            u32::from_le_bytes(field) as usize
        };
        let length = (count(80) * RECORD_SIZE + count(84) * TOMBSTONE_SIZE).next_multiple_of(SECTOR_SIZE);
        let start = if behind { Some(at + SECTOR_SIZE) } else { at.checked_sub(length) };
        let Some(table) = start.and_then(|start| bytes.get(start..start + length)) else { continue };
        let checksum = crc32c::crc32c(table);
        bytes[at + TABLE_CHECKSUM_OFFSET[usize::from(behind)]..][..4]
            .copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Writes right checksums where a structure of ours has them: behind 508 bytes, or at a sector's end.
pub fn mend(bytes: &mut [u8]) {
    mend_tables(bytes);
    for sector in bytes.chunks_exact_mut(SECTOR_SIZE) {
        // Segments' and labels' structures are small; records and tombstones fill their sector.
        let small = matches!(&sector[..7], b"HFDRIVE" | b"HFSEGMT" | b"HFFOOTR" | b"HFRESUM");
        let whole = matches!(&sector[..7], b"HFRECRD" | b"HFTOMBS");
        let end = if small { 508 } else { SECTOR_SIZE - 4 };
        if small || whole {
            let checksum = crc32c::crc32c(&sector[..end]);
            sector[end..end + 4].copy_from_slice(&checksum.to_le_bytes());
        }
    }
}
