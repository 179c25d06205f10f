//! Every single byte of every structure, flipped one at a time: never a panic, never wrong bytes, and always
//! a report that names the drive, the segment and the offset.

use holdfast_fault::{Cut, FaultDisk, Manners};
use holdfast_format::{
    FooterTrailer, FormatError, LABEL_COPIES, Layout, RecordHeader, ResumeBlock, Sector, SegmentHeader,
    TombstoneBlock,
};
use holdfast_model::{ByteCount, limits::SECTOR_SIZE};

use super::{
    CLUSTER, DRIVE, Pools, Rig, formatted_with,
    model::{bytes, shard},
    peek,
};
use crate::{errors::GetError, handle::damaged, index::Indexed, mount::mount, types::MountReport};

/// A few segments of 1 MiB: a mount reads all of them, and there are tens of thousands of mounts.
const CAPACITY: ByteCount = ByteCount::mib(10);

/// What lies in a sector of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum What {
    Label,
    SegmentHeader,
    RecordHeader,
    Tombstones,
    ResumeBlock,
    ResumeTable,
    FooterTable,
    Footer,
}

/// A drive with one of everything: a sealed segment; an open one with a resume block, records and
/// tombstones behind it. Quiet, so that the label knows what is durable.
fn drive_with_everything(pools: &Pools) -> (FaultDisk, Vec<(u8, Vec<u8>)>) {
    let disk = formatted_with(CAPACITY);
    let mut expected = Vec::new();
    let mut rig = Rig::mount(&disk, pools, 1, Manners::GOOD).unwrap();
    let mut put = |rig: &mut Rig, number: u8, length: usize| {
        let content = bytes(u64::from(number), length);
        let answer = rig.put(shard(number), 1, &content);
        rig.wait(answer).unwrap();
        expected.push((number, content));
    };
    // Fills the first segment and begins the second.
    for number in 0..9 {
        put(&mut rig, number, 130_000 + usize::from(number));
    }
    rig.close();
    disk.cut_power(Cut::All);
    let mut rig = Rig::mount(&disk, pools, 2, Manners::GOOD).unwrap();
    for number in 20..23 {
        put(&mut rig, number, 5000);
    }
    let delete = rig.delete(shard(21), 1);
    rig.wait(delete).unwrap();
    put(&mut rig, 24, 3000);
    expected.retain(|(number, _)| *number != 21);
    for _ in 0..20 {
        rig.turn(20_000);
    }
    disk.cut_power(Cut::None);
    drop(rig);
    (disk, expected)
}

/// The structures of the disk: what, segment, sector's offset. Found by what the sectors say they are.
fn structures(disk: &FaultDisk, layout: &Layout) -> Vec<(What, Option<u32>, u64)> {
    let mut found: Vec<_> =
        layout.label_offsets().into_iter().map(|offset| (What::Label, None, offset)).collect();
    assert_eq!(found.len(), LABEL_COPIES);
    for segment in 0..layout.segments() {
        let mut table_until = 0;
        for number in 0..layout.segment_sectors() {
            let offset = layout.offset(segment, number);
            let sector: Sector = disk.peek(offset, SECTOR_SIZE).try_into().unwrap();
            let mut add = |what, offset| found.push((what, Some(segment), offset));
            if number < table_until {
                add(What::ResumeTable, offset);
            } else if SegmentHeader::parse(&sector).is_ok() {
                add(What::SegmentHeader, offset);
            } else if RecordHeader::parse(&sector).is_ok() {
                add(What::RecordHeader, offset);
            } else if TombstoneBlock::parse(&sector).is_ok() {
                add(What::Tombstones, offset);
            } else if let Ok(block) = ResumeBlock::parse(&sector) {
                add(What::ResumeBlock, offset);
                table_until = number + 1 + block.table_sectors();
            } else if let Ok(trailer) = FooterTrailer::parse(&sector) {
                (1..=trailer.table_sectors()).for_each(|back| {
                    add(What::FooterTable, offset - u64::from(back) * SECTOR_SIZE as u64);
                });
                add(What::Footer, offset);
            }
        }
    }
    found
}

/// Mounts the disk with one byte changed; returns an error that says what was not as it should be.
fn check(
    pools: &Pools,
    disk: &FaultDisk,
    expected: &[(u8, Vec<u8>)],
    (what, segment, offset): (What, Option<u32>, u64),
) -> Result<(), String> {
    let mut device = disk.connect(0, Manners::GOOD);
    let mounted = mount(&mut device, &pools.meta, "flipped", CLUSTER).map_err(|e| e.to_string())?;
    let (report, identity) = (mounted.report, mounted.label.into());
    let index: Vec<Indexed> = mounted.state.index.list(None, usize::MAX);
    let mut reported = is_named(&report, segment, offset);
    let mut missing = 0;
    for (number, expected) in expected {
        let Some(entry) = index.iter().find(|entry| entry.shard == shard(*number)) else {
            missing += 1;
            continue;
        };
        match peek(disk, &identity, entry) {
            Ok(content) if content == *expected => {}
            Ok(_) => return Err(format!("shard {number} has wrong bytes")),
            // What a caller gets: typed, with the place.
            Err(why) => match damaged(&identity, entry, why) {
                GetError::Damaged { drive: DRIVE, segment: s, offset: o, .. } => {
                    reported |= (Some(s), o) == (segment, offset);
                }
                other => return Err(format!("reported as {other}")),
            },
        }
    }
    if missing > report.lost || (missing > 0 && what != What::RecordHeader) {
        return Err(format!("{missing} shards are gone: {report:?}"));
    }
    if index.iter().any(|entry| entry.shard == shard(21)) && what != What::Tombstones {
        return Err("what was deleted is back".to_owned());
    }
    if !reported {
        return Err(format!("nobody says so: {report:?}"));
    }
    Ok(())
}

fn is_named(report: &MountReport, segment: Option<u32>, offset: u64) -> bool {
    // A table is one thing: its first sector is named, or the block in front of it.
    let near = |named: u64| named <= offset && offset - named <= 2 * SECTOR_SIZE as u64;
    report.findings.iter().any(|f| f.drive == DRIVE && f.segment == segment && near(f.offset))
        || report.damaged.iter().any(|d| d.drive == DRIVE && Some(d.segment) == segment && near(d.offset))
}

#[test]
fn every_single_byte_flipped_is_reported_with_drive_segment_and_offset() {
    let pools = Pools::new();
    let (disk, expected) = drive_with_everything(&pools);
    let layout = Layout::with_segment_size(CAPACITY, ByteCount::mib(1)).unwrap();
    let structures = structures(&disk, &layout);
    let mut flips: std::collections::BTreeMap<What, u64> = std::collections::BTreeMap::new();
    let mut seen = std::collections::BTreeMap::<(What, Option<u32>), u32>::new();
    for structure in structures {
        let (what, segment, offset) = structure;
        // Of each kind one in every segment that has it, of labels all copies.
        let before = seen.entry((what, segment)).or_default();
        *before += 1;
        if what != What::Label && *before > 1 {
            continue;
        }
        for at in offset..offset + SECTOR_SIZE as u64 {
            let flipped = disk.copy();
            flipped.rot(at, 1 << (at % 8));
            if let Err(problem) = check(&pools, &flipped, &expected, structure) {
                panic!("{what:?} at {offset}, byte {}: {problem}", at - offset);
            }
            *flips.entry(what).or_default() += 1;
        }
    }
    println!("{} bytes flipped, one at a time, each reported: {flips:?}", flips.values().sum::<u64>());
    assert_eq!(flips.len(), 8, "a drive with everything has one of everything: {flips:?}");
    assert!(flips.values().all(|count| *count >= SECTOR_SIZE as u64));
}

#[test]
fn damage_is_recognised_for_reports_and_payload_is_not_taken_for_it() {
    let pools = Pools::new();
    let (disk, _) = drive_with_everything(&pools);
    let layout = Layout::with_segment_size(CAPACITY, ByteCount::mib(1)).unwrap();
    for (what, _, offset) in structures(&disk, &layout) {
        let mut sector: Sector = disk.peek(offset, SECTOR_SIZE).try_into().unwrap();
        assert_eq!(holdfast_format::damage(&sector), None, "{what:?}");
        if matches!(what, What::Label | What::SegmentHeader | What::ResumeTable | What::FooterTable) {
            continue;
        }
        sector[3] ^= 1;
        assert!(matches!(holdfast_format::damage(&sector), Some(FormatError::Beginning { .. })), "{what:?}");
        sector[300] ^= 1;
        assert_eq!(holdfast_format::damage(&sector), None, "nothing of it is left to go by");
    }
}
