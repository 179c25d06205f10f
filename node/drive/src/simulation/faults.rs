//! Single faults: what the engine must do about each.

use std::collections::BTreeSet;

use holdfast_fault::{Cut, Fault, Manners};
use holdfast_model::limits::SECTOR_SIZE;

use super::{
    Pools, Rig, assert_no_buffer_is_lost, formatted,
    model::{bytes, shard},
};
use crate::{
    errors::{DeleteError, PutError},
    shared::Urgency,
    types::DriveState,
};

fn rig(pools: &Pools) -> Rig {
    Rig::mount(&formatted(), pools, 7, Manners::GOOD).unwrap()
}

#[test]
pub(super) fn a_failed_write_fences_for_good_and_reads_go_on() {
    let pools = Pools::new();
    let mut rig = rig(&pools);
    let first = rig.put(shard(1), 1, &bytes(1, 5000));
    rig.wait(first).unwrap();
    rig.disk.arrange(Fault::WriteFails(0, libc::EIO));
    let second = rig.put(shard(2), 1, &bytes(2, 5000));
    assert!(matches!(rig.wait(second), Err(PutError::Fenced { .. })));
    rig.disk.heal();
    let third = rig.put(shard(3), 1, &bytes(3, 5000));
    assert!(matches!(rig.wait(third), Err(PutError::Fenced { .. })), "a fence is final");
    let delete = rig.delete(shard(1), 1);
    assert!(matches!(rig.wait(delete), Err(DeleteError::Fenced { .. })));
    assert_eq!(rig.read(shard(1), 1, 5000), Ok(bytes(1, 5000)));
    assert_eq!(rig.state(), DriveState::Fenced);
    assert_eq!(rig.counters().write_errors, 1);
}

#[cfg_attr(test, test)]
pub(super) fn a_failed_flush_fences_for_good_and_the_label_says_so() {
    let pools = Pools::new();
    let mut rig = rig(&pools);
    let first = rig.put(shard(1), 1, &bytes(1, 5000));
    rig.wait(first).unwrap();
    let flushes = rig.counters().flushes;
    // Only this one flush fails: asking again would get a yes, and mean nothing.
    rig.disk.arrange(Fault::FlushFails(0));
    let waiting = [2, 3, 4].map(|n| rig.put(shard(n), 1, &bytes(u64::from(n), 5000)));
    for answer in waiting {
        assert!(matches!(rig.wait(answer), Err(PutError::Fenced { .. })));
    }
    for _ in 0..50 {
        rig.turn(1000);
    }
    assert_eq!((rig.counters().flushes, rig.counters().flush_errors), (flushes, 1));
    rig.disk.cut_power(Cut::Random(3));
    let mut rig = Rig::mount(&rig.disk.clone(), &pools, 8, Manners::GOOD).unwrap();
    assert!(rig.report.fenced, "the fence outlives a restart: {:?}", rig.report);
    assert_eq!(rig.state(), DriveState::Fenced);
    assert_eq!(rig.read(shard(1), 1, 5000), Ok(bytes(1, 5000)), "acknowledged before the fence");
    let put = rig.put(shard(9), 1, b"no");
    assert!(matches!(rig.wait(put), Err(PutError::Fenced { .. })));
    let before = rig.disk.peek(0, 12 << 20);
    rig.close();
    assert_eq!(rig.disk.peek(0, 12 << 20), before, "a fenced drive is not written to");
}

#[cfg_attr(test, test)]
pub(super) fn short_writes_are_finished_before_the_flush() {
    let pools = Pools::new();
    let manners = Manners { short: 60, again: 20, late: 50, single: false };
    let disk = formatted();
    for seed in 0..20 {
        let mut rig = Rig::mount(&disk, &pools, seed, manners).unwrap();
        let n = seed as u8;
        let answers = [n, n + 100].map(|n| rig.put(shard(n), 1, &bytes(u64::from(n), 90_000)));
        for answer in answers {
            rig.wait(answer).unwrap();
        }
        assert!(rig.counters().retries > 0 || seed > 0);
        drop(rig);
        disk.cut_power(Cut::None);
        let rig = Rig::mount(&disk, &pools, seed, Manners::GOOD).unwrap();
        for number in (0..=n).chain(100..=n + 100) {
            let entry = rig.shared.index.read().get(shard(number)).unwrap();
            assert_eq!(rig.peek(&entry), Ok(bytes(u64::from(number), 90_000)), "seed {seed}");
        }
        drop(rig);
        disk.cut_power(Cut::None);
    }
}

#[test]
pub(super) fn no_space_below_capacity_and_empty_reads_mean_that_the_device_is_gone() {
    let pools = Pools::new();
    for fault in [Fault::WriteFails(0, libc::ENOSPC), Fault::WriteFails(0, libc::ENODEV), Fault::Vanishes(0)]
    {
        let mut rig = rig(&pools);
        rig.disk.arrange(fault);
        let put = rig.put(shard(1), 1, b"x");
        assert!(matches!(rig.wait(put), Err(PutError::Gone { .. })), "{fault:?}");
        assert_eq!(rig.state(), DriveState::Gone);
    }
    let mut rig = rig(&pools);
    let put = rig.put(shard(1), 1, b"x");
    rig.wait(put).unwrap();
    rig.disk.arrange(Fault::Vanishes(0));
    assert!(rig.read(shard(1), 1, 1).is_err());
    assert_eq!(rig.state(), DriveState::Gone);
}

#[test]
pub(super) fn a_failed_read_is_an_error_of_that_read_only() {
    let pools = Pools::new();
    let mut rig = rig(&pools);
    let put = rig.put(shard(1), 1, b"precious");
    rig.wait(put).unwrap();
    rig.disk.arrange(Fault::ReadFails(0, libc::EIO));
    assert!(rig.read(shard(1), 1, 8).unwrap_err().contains("failed the read"));
    rig.disk.heal();
    assert_eq!(rig.read(shard(1), 1, 8).unwrap(), b"precious");
    assert_eq!(rig.state(), DriveState::Live);
    assert_eq!(rig.counters().read_errors, 1);
}

#[test]
fn a_drive_that_is_never_quiet_reads_in_the_background_too_but_one_at_a_time() {
    let pools = Pools::new();
    let mut rig = rig(&pools);
    let put = rig.put(shard(1), 1, &bytes(1, 5000));
    rig.wait(put).unwrap();
    rig.disk.arrange(Fault::Hangs(0));
    let before = rig.counters().reads;
    let busy: Vec<_> = (0..6).map(|_| rig.get(shard(1), 1, 5000)).collect();
    let later: Vec<_> = (0..2).map(|_| rig.get_with(Urgency::Background, shard(1), 1, 5000)).collect();
    rig.turn(1000);
    rig.turn(98_000);
    assert_eq!(rig.counters().reads - before, 6);
    rig.turn(2000);
    rig.turn(200_000);
    assert_eq!(rig.counters().reads - before, 7, "the second waits for the first");
    drop((busy, later));
}

#[test]
pub(super) fn a_hung_write_fences_after_its_time_and_its_buffer_is_never_reused() {
    let pools = Pools::new();
    let mut rig = rig(&pools);
    let before = pools.payload.available();
    rig.disk.arrange(Fault::Hangs(0));
    let mut put = rig.put(shard(1), 1, &bytes(1, 50_000));
    for _ in 0..20 {
        rig.turn(100_000);
    }
    assert!(put.try_recv().is_err(), "two seconds are slow, not dead");
    assert_eq!(rig.state(), DriveState::Slow);
    for _ in 0..320 {
        rig.turn(100_000);
    }
    assert!(matches!(put.try_recv(), Ok(Err(PutError::Fenced { .. }))));
    drop(rig);
    assert!(pools.payload.available() < before, "the kernel may still read that buffer");
}

#[test]
pub(super) fn a_hung_write_fences_although_a_read_that_was_sent_before_hangs_too() {
    let pools = Pools::new();
    let mut rig = rig(&pools);
    let first = rig.put(shard(1), 1, b"precious");
    rig.wait(first).unwrap();
    rig.disk.arrange(Fault::Hangs(0));
    let _read = rig.get(shard(1), 1, 8);
    rig.turn(100_000);
    let mut put = rig.put(shard(2), 1, &bytes(2, 50_000));
    for _ in 0..320 {
        rig.turn(100_000);
    }
    assert!(matches!(put.try_recv(), Ok(Err(PutError::Fenced { .. }))));
}

#[test]
pub(super) fn a_lost_write_and_a_misdirected_one_are_found_by_the_read() {
    let pools = Pools::new();
    for fault in [Fault::WriteLost(1), Fault::WriteMisdirected(1, 40)] {
        let mut rig = rig(&pools);
        // Write 0 is the segment's header, 1 the record.
        rig.disk.arrange(fault);
        let put = rig.put(shard(1), 1, &bytes(1, 5000));
        rig.wait(put).unwrap();
        assert!(rig.read(shard(1), 1, 5000).is_err(), "{fault:?}");
        let put = rig.put(shard(2), 1, &bytes(2, 5000));
        rig.wait(put).unwrap();
        assert_eq!(rig.read(shard(2), 1, 5000), Ok(bytes(2, 5000)));
    }
}

#[cfg_attr(test, test)]
pub(super) fn damage_to_an_acknowledged_record_is_reported_and_a_torn_tail_is_not() {
    let pools = Pools::new();
    let mut rig = rig(&pools);
    for n in 1..=3 {
        let put = rig.put(shard(n), 1, &bytes(u64::from(n), 5000));
        rig.wait(put).unwrap();
    }
    let place = |rig: &Rig, n| {
        let entry = rig.shared.index.read().get(shard(n)).unwrap();
        (1 << 20) * u64::from(entry.location.segment + 1)
            + u64::from(entry.location.sector) * SECTOR_SIZE as u64
    };
    let (payload_of_1, header_of_2) = (place(&rig, 1) + 4096 + 17, place(&rig, 2) + 90);
    // A fourth one that is not acknowledged: only its header reaches the disk.
    let torn = rig.put(shard(4), 1, &bytes(4, 9000));
    rig.turn(0);
    drop(torn);
    let count = rig.disk.unflushed();
    assert!(count >= 3, "header and payload of the fourth");
    rig.disk.cut_power(Cut::Only(0));
    rig.disk.rot(payload_of_1, 1);
    rig.disk.rot(header_of_2, 1);
    let disk = rig.disk.clone();
    drop(rig);
    for round in 0..2 {
        let mut rig = Rig::mount(&disk, &pools, 9, Manners::GOOD).unwrap();
        assert_eq!(rig.report.damaged.iter().map(|d| d.id).collect::<Vec<_>>(), [shard(1)], "round {round}");
        assert_eq!(rig.report.lost, 1, "the one whose header is unreadable, in round {round}");
        assert_eq!(rig.report.torn.len(), usize::from(round == 0), "the fourth, the first time");
        assert!(rig.read(shard(1), 1, 5000).unwrap_err().contains("checksum"));
        assert_eq!(rig.read(shard(3), 1, 5000), Ok(bytes(3, 5000)));
        assert!(rig.shared.index.read().get(shard(4)).is_none());
        rig.close();
        disk.cut_power(Cut::None);
    }
}

#[test]
pub(super) fn single_damaged_headers_footers_and_labels_lose_nothing() {
    let pools = Pools::new();
    let disk = formatted();
    let mut rig = Rig::mount(&disk, &pools, 1, Manners::GOOD).unwrap();
    for n in 0..40 {
        let put = rig.put(shard(n), 1, &bytes(u64::from(n), 60_000));
        rig.wait(put).unwrap();
    }
    let used: Vec<u32> = rig.index().iter().map(|e| e.location.segment).collect();
    rig.close();
    disk.cut_power(Cut::None);
    let segment = u64::from(used[0]);
    let start = (segment + 1) << 20;
    let mut offsets: Vec<u64> = vec![5, 100, 508, 4000, 65_536 + 9, (12 << 20) - 4096 + 9];
    offsets.extend([start + 3, start + 40, start + 4096 + 40, start + 2000]);
    offsets.extend([start + (1 << 20) - 4096 + 60, start + (1 << 20) - 3000, start + (1 << 20) - 8192 + 100]);
    for offset in offsets {
        let copy = disk.copy();
        copy.rot(offset, 0x20);
        let rig = Rig::mount(&copy, &pools, 1, Manners::GOOD).unwrap();
        assert!(rig.report.is_clean(), "byte {offset}: {:?}", rig.report);
        assert_eq!(rig.report.shards, 40);
        let noticed = !rig.report.findings.is_empty() || rig.report.segments_scanned > 0;
        assert!(noticed, "byte {offset} went unnoticed");
        for entry in rig.index() {
            assert!(rig.peek(&entry).is_ok());
        }
    }
    // Both copies of a segment header.
    disk.rot(start + 40, 1);
    disk.rot(start + 4096 + 40, 1);
    let mut rig = Rig::mount(&disk, &pools, 1, Manners::GOOD).unwrap();
    assert!(rig.report.is_clean() && rig.report.shards == 40, "{:?}", rig.report);
    rig.close();
    disk.cut_power(Cut::None);
    let rig = Rig::mount(&disk, &pools, 1, Manners::GOOD).unwrap();
    assert!(rig.report.findings.is_empty(), "what was damaged has been written again: {:?}", rig.report);
    drop(rig);
}

#[test]
pub(super) fn the_label_learns_what_is_durable_when_the_drive_is_quiet() {
    let pools = Pools::new();
    let mut rig = rig(&pools);
    let put = rig.put(shard(1), 1, &bytes(1, 5000));
    rig.wait(put).unwrap();
    for _ in 0..30 {
        rig.turn(100_000);
    }
    // The only record, in the last batch before the crash: damage, and not a torn tail.
    let entry = rig.shared.index.read().get(shard(1)).unwrap();
    let offset = (u64::from(entry.location.segment) + 1) << 20;
    let offset = offset + u64::from(entry.location.sector + 1) * SECTOR_SIZE as u64;
    rig.disk.cut_power(Cut::All);
    rig.disk.rot(offset, 2);
    let rig = Rig::mount(&rig.disk.clone(), &pools, 1, Manners::GOOD).unwrap();
    assert_eq!(rig.report.damaged.len(), 1, "{:?}", rig.report);
}

#[test]
pub(super) fn nothing_is_leaked_by_a_clean_life() {
    let pools = Pools::new();
    let mut rig = rig(&pools);
    for n in 0..60 {
        let put = rig.put(shard(n), 1, &bytes(u64::from(n), 100_000));
        // The last ones find the drive full.
        drop(rig.wait(put));
        assert!(n > 40 || rig.read(shard(n), 1, 100_000).is_ok());
        let delete = rig.delete(shard(n), 1);
        rig.wait(delete).unwrap();
    }
    rig.close();
    drop(rig);
    assert_no_buffer_is_lost(&pools);
}

#[test]
pub(super) fn a_full_drive_repairs_shards_in_place() {
    let pools = Pools::new();
    let mut rig = rig(&pools);
    let mut count = 0;
    loop {
        let put = rig.put(shard(count), 1, &bytes(u64::from(count), 100_000));
        match rig.wait(put) {
            Ok(_) => count += 1,
            Err(PutError::Full { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    // More than fit the segment that is kept for it: what is replaced makes room for the next.
    for n in 0..count.min(25) {
        let entry = rig.shared.index.read().get(shard(n)).unwrap();
        let at = ((u64::from(entry.location.segment) + 1) << 20)
            + u64::from(entry.location.sector + 1) * SECTOR_SIZE as u64;
        rig.disk.rot(at, 1);
        assert!(rig.read(shard(n), 1, 100_000).is_err());
        let repair = rig.put(shard(n), 2, &bytes(u64::from(n), 100_000));
        rig.wait(repair).unwrap_or_else(|error| panic!("repair {n} of {count}: {error}"));
        assert_eq!(rig.read(shard(n), 2, 100_000), Ok(bytes(u64::from(n), 100_000)));
    }
    let delete = rig.delete(shard(0), 2);
    assert_eq!(rig.wait(delete), Ok(true));
    rig.close();
}

/// Placement goes by what drives tell. Whoever chose one for room that a put does not get waited there for reclaiming.
#[test]
pub(super) fn a_drive_tells_of_no_room_that_a_put_does_not_get() {
    const LENGTH: usize = 100_000;
    let pools = Pools::new();
    let mut rig = rig(&pools);
    let mut count = 0;
    loop {
        let put = rig.put(shard(count), 1, &bytes(u64::from(count), LENGTH));
        match rig.wait(put) {
            Ok(_) => count += 1,
            Err(PutError::Full { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    // No segment can be emptied: one record of each cannot be read.
    let mut segments = BTreeSet::new();
    for entry in rig.index() {
        if segments.insert(entry.location.segment) {
            let at = ((u64::from(entry.location.segment) + 1) << 20)
                + u64::from(entry.location.sector + 1) * SECTOR_SIZE as u64;
            rig.disk.wear_out(at);
        }
    }
    // A repair opens one of the segments that are kept for repairs: most of it stays empty.
    let repair = rig.put(shard(count - 1), 2, &bytes(1, LENGTH));
    rig.wait(repair).unwrap();
    let put = rig.put(shard(count), 1, &bytes(2, LENGTH / 5));
    match rig.wait(put) {
        Err(PutError::Full { free, .. }) => assert_eq!(free.get(), 0, "for a put of {} bytes", LENGTH / 5),
        other => panic!("{other:?}"),
    }
    rig.turn(1000);
    assert_eq!(rig.shared.gauges.lock().free, 0);
}

#[cfg_attr(test, test)]
pub(super) fn what_was_replaced_does_not_come_back() {
    let pools = Pools::new();
    let disk = formatted();
    let mut rig = Rig::mount(&disk, &pools, 1, Manners::GOOD).unwrap();
    // Generation 1 in a segment that stays, 2 in one that is emptied by deleting.
    for n in 0..9 {
        let put = rig.put(shard(n), 1, &bytes(u64::from(n), 100_000));
        rig.wait(put).unwrap();
    }
    let put = rig.put(shard(0), 2, &bytes(99, 100_000));
    rig.wait(put).unwrap();
    let delete = rig.delete(shard(0), 2);
    assert_eq!(rig.wait(delete), Ok(true));
    for round in 0..30 {
        let put = rig.put(shard(100), 1 + round, &bytes(7, 100_000));
        rig.wait(put).unwrap();
        for _ in 0..20 {
            rig.turn(20_000);
        }
    }
    assert!(rig.counters().segments_reclaimed > 0);
    rig.disk.cut_power(Cut::None);
    let rig = Rig::mount(&disk, &pools, 1, Manners::GOOD).unwrap();
    assert!(rig.shared.index.read().get(shard(0)).is_none(), "a deleted shard came back");
}

#[cfg_attr(test, test)]
pub(super) fn a_record_of_another_place_or_shard_is_refused() {
    let pools = Pools::new();
    let mut rig = rig(&pools);
    for n in [1, 2] {
        let put = rig.put(shard(n), 1, &bytes(u64::from(n), 5000));
        rig.wait(put).unwrap();
    }
    // The second record's write goes over the first one: both are whole, and neither is where it should be.
    let [first, second] = [1, 2].map(|n| rig.shared.index.read().get(shard(n)).unwrap());
    let at = |e: &crate::index::Indexed| {
        ((u64::from(e.location.segment) + 1) << 20) + u64::from(e.location.sector) * 4096
    };
    let record = rig.disk.peek(at(&second), 3 * SECTOR_SIZE);
    rig.disk.poke(at(&first), &record);
    let refused = rig.read(shard(1), 1, 5000).unwrap_err();
    assert!(refused.contains("the record says"), "{refused}");
}
