//! Rot: whatever bytes of a quiet drive turn, nothing that was acknowledged disappears without a word.

use std::collections::BTreeMap;

#[cfg(test)]
use proptest::prelude::*;

use super::{
    Pools, Rig, formatted,
    model::{bytes, shard},
};
use holdfast_fault::{Cut, Manners, Random};
use holdfast_format::Layout;
use holdfast_model::{ShardId, ShardIndex, StripeId};

/// What happens to the drive between the last request and the rot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is closed.
    Closed,
    /// It is quiet for a moment, then the power goes.
    Quiet,
}

fn check(seed: u64, count: u8, flips: &[(u64, u8)], end: End) -> Result<(), String> {
    let pools = Pools::new();
    let disk = formatted();
    let mut random = Random::new(seed);
    let mut rig = Rig::mount(&disk, &pools, seed, Manners::GOOD).unwrap();
    let mut expected = Vec::new();
    for number in 0..count {
        let length = 1 + random.below(60_000) as usize;
        let put = rig.put(shard(number), 1, &bytes(u64::from(number), length));
        rig.wait(put).unwrap();
        // Some are deleted again, and some remount in between.
        if random.chance(20) {
            let delete = rig.delete(shard(number), 1);
            rig.wait(delete).unwrap();
        } else {
            expected.push((number, length));
        }
        if random.chance(10) {
            rig.close();
            rig = Rig::mount(&disk, &pools, seed, Manners::GOOD).unwrap();
        }
    }
    match end {
        End::Closed => rig.close(),
        End::Quiet => {
            for _ in 0..20 {
                rig.turn(20_000);
            }
        }
    }
    drop(rig);
    disk.cut_power(Cut::None);
    // Labels have four copies and tests of their own; here everything between them.
    let area = (10u64 << 20) - 1;
    for (at, mask) in flips {
        // Half of the bytes near the start of a segment, where the records are.
        let at = if at.is_multiple_of(2) { at % area } else { ((at % 10) << 20) + (at / 10) % 200_000 };
        disk.rot((1 << 20) + at % area, mask | 1);
    }
    let rig = Rig::mount(&disk, &pools, seed, Manners::GOOD).map_err(|e| e.to_string())?;
    let mut missing = 0;
    for (number, length) in expected {
        match rig.shared.index.read().get(shard(number)) {
            None => missing += 1,
            Some(entry) => match rig.peek(&entry) {
                Ok(content) if content == bytes(u64::from(number), length) => {}
                Ok(_) => return Err(format!("shard {number} has wrong bytes")),
                // Refused, and so noticed.
                Err(_) => {}
            },
        }
    }
    if missing > rig.report.lost {
        return Err(format!("{missing} shards are gone, and the mount says: {:?}", rig.report));
    }
    Ok(())
}

/// A fixed set of seeds.
pub(super) fn some() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let flips: Vec<(u64, u8)> =
            (0..1 + random.below(40)).map(|_| (random.number(), random.number() as u8)).collect();
        let end = if random.chance(50) { End::Closed } else { End::Quiet };
        let count = 1 + random.below(60) as u8;
        check(seed, count, &flips, end).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

fn shard_of(number: u32) -> ShardId {
    let mut stripe = [0; StripeId::SIZE];
    stripe[..4].copy_from_slice(&number.to_be_bytes());
    ShardId { stripe: StripeId::from_bytes(stripe), index: ShardIndex::new(0) }
}

/// What is damaged cannot be moved, so with damage in every segment nothing becomes free by itself. What is deleted must all
/// the same become so, however full the drive was.
#[cfg_attr(test, test)]
pub(super) fn a_full_drive_with_damage_in_every_segment_can_be_emptied_and_filled_again() {
    let pools = Pools::new();
    for seed in 0..8 {
        let disk = formatted();
        let mut random = Random::new(seed);
        let mut rig = Rig::mount(&disk, &pools, seed, Manners::GOOD).unwrap();
        let layout = Layout::with_segment_size(rig.identity.capacity, rig.identity.segment_size).unwrap();
        let mut number = 0;
        let mut fill = |rig: &mut Rig| {
            let before = number;
            loop {
                let put = rig.put(shard_of(number), 1, &bytes(u64::from(number), 30_000));
                if rig.wait(put).is_err() {
                    return number - before;
                }
                number += 1;
            }
        };
        let first = fill(&mut rig);
        let mut damaged = BTreeMap::new();
        for _ in 0..12 {
            // Of each segment the last record that lives, more or less: what is before it would be moved first.
            for entry in rig.index().iter().rev() {
                let segment = entry.location.segment;
                if !damaged.contains_key(&segment) && random.chance(50) {
                    disk.rot(layout.offset(segment, entry.location.sector) + 5000, 1);
                    damaged.insert(segment, entry.shard);
                }
            }
            // Some of the rest dies, and new shards take what becomes free.
            for entry in rig.index() {
                if damaged.values().all(|kept| *kept != entry.shard) && random.chance(20) {
                    let delete = rig.delete(entry.shard, 1);
                    rig.wait(delete).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                }
            }
            for _ in 0..50 {
                rig.turn(20_000);
            }
            fill(&mut rig);
        }
        for entry in rig.index() {
            let delete = rig.delete(entry.shard, 1);
            rig.wait(delete).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        for _ in 0..200 {
            rig.turn(20_000);
        }
        assert!(fill(&mut rig) + 35 >= first, "seed {seed}: one segment less at most");
    }
}

#[cfg(test)]
proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_acknowledged_shard_disappears_silently(
        seed: u64,
        count in 1u8..60,
        flips in prop::collection::vec((any::<u64>(), any::<u8>()), 1..40),
        closed: bool,
    ) {
        let end = if closed { End::Closed } else { End::Quiet };
        if let Err(what) = check(seed, count, &flips, end) {
            return Err(TestCaseError::fail(what));
        }
    }
}
