//! Golden files: every layout of this and earlier releases stays readable, byte for byte, and every
//! single damaged byte is noticed.
//!
//! To add the files of a new version, run once with `HOLDFAST_WRITE_GOLDEN=1`; existing files never change.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{fmt::Debug, path::PathBuf};

use holdfast_format::*;
use holdfast_model::{
    ByteCount, ClusterId, DriveId, Generation, GroupId, NodeId, ShardId, ShardIndex, StripeId, TenantId,
    UnixMillis, limits::SECTOR_SIZE,
};

/// Every byte is flipped; under Miri, which is thousands of times slower, every 509th.
const FLIP_STEP: usize = if cfg!(miri) { 509 } else { 1 };

fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(path).unwrap()
}

fn place(sector: u32) -> Place {
    Place {
        cluster: ClusterId::from_bytes([0xC1; 16]),
        drive: DriveId::from_bytes([0xD7; 16]),
        segment: 5,
        sector,
        life: SegmentSequence::new(77),
    }
}

fn label() -> DriveLabel {
    DriveLabel {
        cluster: place(0).cluster,
        drive: place(0).drive,
        node: NodeId::new(3),
        layout: Layout::for_capacity(ByteCount::mib(4096)).unwrap(),
        formatted: UnixMillis::new(1_750_000_000_123),
        fenced: true,
        mount_epoch: 9,
        counter: 41,
        durable: Sequence::new(123_456),
    }
}

fn segment() -> SegmentHeader {
    SegmentHeader {
        cluster: place(0).cluster,
        drive: place(0).drive,
        segment: 5,
        sectors: 32768,
        state: SegmentState::Used,
        life: SegmentSequence::new(77),
        first: Sequence::new(1000),
        durable: Sequence::new(999),
        mount_epoch: 9,
        written: UnixMillis::new(1_750_000_000_456),
    }
}

fn shard(index: u8) -> ShardId {
    ShardId {
        stripe: StripeId::new(UnixMillis::new(1_750_000_000_000), [8; 10]),
        index: ShardIndex::new(index),
    }
}

fn payload() -> Vec<u8> {
    (0..100_000u32).map(|i| (i % 253) as u8).collect()
}

fn record() -> RecordHeader {
    RecordHeader {
        place: place(130),
        sequence: Sequence::new(1004),
        durable: Sequence::new(1001),
        shard: shard(3),
        generation: Generation::new(2),
        tenant: TenantId::from_bytes([0x7E; 16]),
        data: 4,
        parity: 2,
        moved: true,
        written: UnixMillis::new(1_750_000_000_789),
        payload_len: 100_000,
        blocks: BlockChecksums::of(&payload()),
        manifest: (0..300u32).map(|i| i as u8).collect(),
    }
}

fn tombstone(index: u8) -> Tombstone {
    Tombstone {
        shard: shard(index),
        generation: Generation::new(1),
        life: SegmentSequence::new(70),
        sector: 2,
    }
}

fn tombstones() -> TombstoneBlock {
    TombstoneBlock {
        place: place(200),
        sequence: Sequence::new(1005),
        durable: Sequence::new(1004),
        entries: (0..3).map(tombstone).collect(),
    }
}

fn footer() -> Footer {
    let entry = |index: u8| FooterRecord {
        shard: shard(index),
        generation: Generation::new(2),
        tenant: TenantId::from_bytes([0x7E; 16]),
        sequence: Sequence::new(1000 + u64::from(index)),
        written: UnixMillis::new(1_750_000_000_789),
        payload_len: 5000,
        sector: 2 + 3 * u32::from(index),
        damaged: index == 4,
    };
    Footer {
        cluster: place(0).cluster,
        drive: place(0).drive,
        segment: 5,
        sectors: 32768,
        life: SegmentSequence::new(77),
        first: Sequence::new(1000),
        last: Sequence::new(1069),
        lost: 1,
        records: (0..70).map(entry).collect(),
        tombstones: (0..5).map(tombstone).collect(),
    }
}

fn sector(encode: impl FnOnce(&mut Sector)) -> Sector {
    // Dirty on purpose: encoding must not let anything show through.
    let mut sector = [0xEE; SECTOR_SIZE];
    encode(&mut sector);
    sector
}

/// The golden file is what we write today and reads as `value`; its damaged twin is an error; and so is
/// every other change of a single byte.
fn check<T: PartialEq + Debug>(
    name: &str,
    value: T,
    encoded: &Sector,
    parse: impl Fn(&Sector) -> Result<T, FormatError>,
) {
    assert_eq!(golden(&format!("{name}.bin"), encoded), encoded, "{name} is written differently now");
    assert_eq!(parse(encoded), Ok(value));
    let mut damaged = *encoded;
    damaged[33] ^= 0x10;
    let damaged: Sector = golden(&format!("{name}_damaged.bin"), &damaged).try_into().unwrap();
    assert!(matches!(parse(&damaged), Err(FormatError::Checksum { .. })));
    for offset in (0..SECTOR_SIZE).step_by(FLIP_STEP) {
        for flip in [0x01, 0x80, 0xFF] {
            let mut damaged = *encoded;
            damaged[offset] ^= flip;
            assert!(parse(&damaged).is_err(), "{name}: byte {offset} ^ {flip:#x} went unnoticed");
        }
    }
    assert!(matches!(parse(&[0; SECTOR_SIZE]), Err(FormatError::Blank { .. })));
    assert!(matches!(parse(&[b'x'; SECTOR_SIZE]), Err(FormatError::Foreign { .. })));
    let mut newer = *encoded;
    newer[8] = 2;
    assert!(matches!(parse(&newer), Err(FormatError::UnknownVersion { version: 2, known: 1, .. })));
}

#[test]
fn version_1_labels_stay_readable_and_damage_is_noticed() {
    let encoded = sector(|s| label().encode(2, s));
    check("drive_label_v1", (label(), 2), &encoded, DriveLabel::parse);
}

#[test]
fn version_1_segment_headers_stay_readable_and_damage_is_noticed() {
    check("segment_header_v1", segment(), &sector(|s| segment().encode(s)), SegmentHeader::parse);
}

#[test]
fn version_1_record_headers_stay_readable_and_damage_is_noticed() {
    check("record_header_v1", record(), &sector(|s| record().encode(s)), RecordHeader::parse);
}

#[test]
fn version_1_tombstones_stay_readable_and_damage_is_noticed() {
    check("tombstones_v1", tombstones(), &sector(|s| tombstones().encode(s)), TombstoneBlock::parse);
}

fn parse_footer(bytes: &[u8]) -> Result<Footer, FormatError> {
    let (table, trailer) = bytes.split_last_chunk::<SECTOR_SIZE>().unwrap();
    Footer::parse(&FooterTrailer::parse(trailer)?, table)
}

#[test]
fn version_1_footers_stay_readable_and_damage_is_noticed() {
    let encoded = footer().encode();
    assert_eq!(encoded.len(), Footer::sectors_for(70, 5) as usize * SECTOR_SIZE);
    assert_eq!(golden("segment_footer_v1.bin", &encoded), encoded);
    assert_eq!(parse_footer(&encoded), Ok(footer()));
    let mut damaged = encoded.clone();
    damaged[33] ^= 0x10;
    assert!(parse_footer(&golden("segment_footer_v1_damaged.bin", &damaged)).is_err());
    for offset in (0..encoded.len()).step_by(FLIP_STEP) {
        let mut damaged = encoded.clone();
        damaged[offset] ^= 0x04;
        assert!(parse_footer(&damaged).is_err(), "footer: byte {offset} went unnoticed");
    }
}

#[test]
fn version_1_resume_blocks_stay_readable_and_damage_is_noticed() {
    let Footer { records, tombstones, .. } = footer();
    let encoded = ResumeBlock::encode(place(300), 32768, 1, Sequence::new(1070), &records, &tombstones);
    let (block, table) = encoded.split_first_chunk::<SECTOR_SIZE>().unwrap();
    let parsed = ResumeBlock::parse(block).unwrap();
    assert_eq!((parsed.place, parsed.lost, parsed.next), (place(300), 1, Sequence::new(1070)));
    check("resume_block_v1", parsed, block, ResumeBlock::parse);
    assert_eq!(golden("resume_table_v1.bin", table), table);
    assert_eq!(table.len(), parsed.table_sectors() as usize * SECTOR_SIZE);
    assert_eq!(parsed.parse_table(table), Ok((records, tombstones)));
    for offset in (0..table.len()).step_by(FLIP_STEP) {
        let mut damaged = table.to_vec();
        damaged[offset] ^= 0x04;
        assert!(parsed.parse_table(&damaged).is_err(), "resume table: byte {offset} went unnoticed");
    }
}

#[test]
fn every_damaged_payload_byte_is_noticed() {
    let (header, mut bytes) = (record(), payload());
    assert_eq!(header.blocks.verify(0, &bytes), Ok(()));
    for offset in
        (0..bytes.len()).step_by(if cfg!(miri) { 40_009 } else { 997 }).chain([0, 65_535, 65_536, 99_999])
    {
        bytes[offset] ^= 0x40;
        assert_eq!(header.blocks.verify(0, &bytes), Err(offset / BLOCK_SIZE));
        bytes[offset] ^= 0x40;
    }
    assert_eq!(header.blocks.verify(1, &bytes[BLOCK_SIZE..]), Ok(()));
    assert_eq!(header.blocks.verify(0, &bytes[..99_999]), Err(1), "a shorter payload is another payload");
}

#[test]
fn fields_that_no_shard_has_are_refused_even_under_a_good_checksum() {
    for (change, field) in [
        (Box::new(|s: &mut Sector| s[12] = 0) as Box<dyn Fn(&mut Sector)>, "number of data shards"),
        (Box::new(|s: &mut Sector| s[13] = 200), "number of parity shards"),
        (Box::new(|s: &mut Sector| s[14] = 6), "shard index"),
        (Box::new(|s: &mut Sector| s[84..88].fill(0)), "payload length"),
        (Box::new(|s: &mut Sector| s[84..88].fill(0xFF)), "payload length"),
        (Box::new(|s: &mut Sector| s[128..130].fill(0xFF)), "manifest length"),
        (Box::new(|s: &mut Sector| s[10] = 2), "flags"),
    ] {
        let mut bytes = sector(|s| record().encode(s));
        change(&mut bytes);
        let checksum = crc32c::crc32c(&bytes[..4092]);
        bytes[4092..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(
            RecordHeader::parse(&bytes),
            Err(FormatError::Impossible { what: "record header", field })
        );
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_sectors_never_panic(seed: [u8; 32], magic in 0usize..6, length in 0usize..4) {
        let magics: [&[u8; 8]; 6] = [b"HFRESUM\0", b"HFDRIVE\0", b"HFSEGMT\0", b"HFRECRD\0", b"HFTOMBS\0", b"HFFOOTR\0"];
        let mut bytes = [0u8; SECTOR_SIZE];
        for (i, byte) in bytes.iter_mut().enumerate().skip(10) {
            *byte = seed[(i * 7 + i / 32) % 32];
        }
        bytes[..8].copy_from_slice(magics[magic]);
        bytes[8] = 1;
        // With a good checksum, so that the fields themselves are looked at.
        for end in [508, 4092] {
            let checksum = crc32c::crc32c(&bytes[..end]);
            let mut bytes = bytes;
            if end == 508 { bytes[512..].fill(0); }
            bytes[end..end + 4].copy_from_slice(&checksum.to_le_bytes());
            let _ = DriveLabel::parse(&bytes);
            let _ = SegmentHeader::parse(&bytes);
            let _ = RecordHeader::parse(&bytes);
            let _ = TombstoneBlock::parse(&bytes);
            if let Ok(resume) = ResumeBlock::parse(&bytes) {
                let _ = resume.parse_table(&vec![0; length * SECTOR_SIZE]);
            }
            if let Ok(trailer) = FooterTrailer::parse(&bytes) {
                let _ = Footer::parse(&trailer, &vec![0; length * SECTOR_SIZE]);
            }
        }
    }
}

#[test]
fn version_1_catalog_records_stay_readable() {
    let header = CatalogRecordHeader {
        kind: CatalogRecordKind::BaseRoot,
        group: GroupId::new(7),
        cluster: place(0).cluster,
        node: NodeId::new(3),
        first: 0,
        last: 123_456,
        begun: UnixMillis::new(1_750_000_000_789),
        part: 4,
        parts: 5,
        length: 0,
    };
    let bytes = golden("catalog_record_v1.bin", &header.encode());
    assert_eq!(CatalogRecordHeader::parse(&bytes).unwrap().0, header);
    assert_eq!(bytes, header.encode());
}
