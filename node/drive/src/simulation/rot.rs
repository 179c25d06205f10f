//! Rot: whatever bytes of a quiet drive turn, nothing that was acknowledged disappears without a word.

use std::collections::BTreeMap;

#[cfg(test)]
use proptest::prelude::*;

use super::{
    Pools, Rig, formatted,
    model::{bytes, shard},
};
use holdfast_fault::{Cut, FaultDisk, Manners, Random};
use holdfast_format::Layout;
use holdfast_model::{ShardId, ShardIndex, StripeId, limits::SECTOR_SIZE};

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

/// What cannot be read cannot be moved, so with such a record in every segment nothing becomes free by itself. What is
/// deleted must all the same become so, however full the drive was.
#[cfg_attr(test, test)]
pub(super) fn a_full_drive_with_unreadable_records_in_every_segment_can_be_emptied_and_filled_again() {
    let pools = Pools::new();
    for seed in 0..8 {
        let mut full = Full::new(&pools, seed, |disk, record| disk.wear_out(record + 5000));
        full.hurt_and_fill(12);
        full.empty();
        let again = full.fill();
        assert!(again + 35 >= full.first, "seed {seed}: one segment less at most, {again} of {}", full.first);
    }
}

/// Damage in every segment of a full drive keeps none of them from becoming free: what is whole can be deleted, and as much
/// be written again. Whole headers keep their records, which are as damaged as before.
#[cfg_attr(test, test)]
pub(super) fn damage_in_every_segment_keeps_no_room() {
    let pools = Pools::new();
    for seed in 0..8 {
        // The payload of every second one, the header of the others.
        let turn = |disk: &FaultDisk, record: u64| {
            disk.rot(record + if (record / SECTOR_SIZE as u64).is_multiple_of(2) { 5000 } else { 100 }, 1);
        };
        let mut full = Full::new(&pools, seed, turn);
        full.hurt_and_fill(3);
        let hurt: Vec<ShardId> = full.hurt.values().copied().collect();
        for entry in full.rig.index() {
            if !hurt.contains(&entry.shard) {
                full.delete(entry.shard);
            }
        }
        full.rest();
        let again = full.fill();
        let kept = full.rig.index().iter().filter(|entry| hurt.contains(&entry.shard)).count() as u32;
        assert!(again + kept + 35 >= full.first, "seed {seed}: {again} of {}, {kept} damaged", full.first);
        for entry in full.rig.index().iter().filter(|entry| hurt.contains(&entry.shard)) {
            assert!(full.rig.peek(entry).is_err(), "seed {seed}: {} is whole", entry.shard);
        }
        // And it stays so when the drive is mounted again.
        let before: Vec<_> = full.rig.index().iter().map(|entry| entry.shard).collect();
        full.rig.close();
        full.rig = Rig::mount(&full.disk, &pools, seed, Manners::GOOD).unwrap();
        let after: Vec<_> = full.rig.index().iter().map(|entry| entry.shard).collect();
        assert_eq!(before, after, "seed {seed}");
    }
}

/// A drive that is filled to the brim, and hurt.
struct Full<F> {
    disk: FaultDisk,
    rig: Rig,
    layout: Layout,
    random: Random,
    seed: u64,
    /// Number of the next shard.
    number: u32,
    /// Shards that fit a blank drive.
    first: u32,
    /// Hurts the record at that byte.
    damage: F,
    /// A hurt shard in each segment.
    hurt: BTreeMap<u32, ShardId>,
}

impl<F: Fn(&FaultDisk, u64)> Full<F> {
    fn new(pools: &Pools, seed: u64, damage: F) -> Self {
        let disk = formatted();
        let rig = Rig::mount(&disk, pools, seed, Manners::GOOD).unwrap();
        let layout = Layout::with_segment_size(rig.identity.capacity, rig.identity.segment_size).unwrap();
        let (random, hurt) = (Random::new(seed), BTreeMap::new());
        let mut full = Self { disk, rig, layout, random, seed, number: 0, first: 0, damage, hurt };
        full.first = full.fill();
        full
    }

    /// Writes shards until there is no room. How many.
    fn fill(&mut self) -> u32 {
        let before = self.number;
        loop {
            let put = self.rig.put(shard_of(self.number), 1, &bytes(u64::from(self.number), 30_000));
            if self.rig.wait(put).is_err() {
                return self.number - before;
            }
            self.number += 1;
        }
    }

    fn delete(&mut self, shard: ShardId) {
        let delete = self.rig.delete(shard, 1);
        let seed = self.seed;
        self.rig.wait(delete).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }

    fn rest(&mut self) {
        for _ in 0..200 {
            self.rig.turn(20_000);
        }
    }

    /// Again and again hurts a record in segments that have none, deletes some others, and fills the drive.
    fn hurt_and_fill(&mut self, times: u32) {
        for _ in 0..times {
            // Of each segment the last record that lives, more or less: what is before it would be moved first.
            for entry in self.rig.index().iter().rev() {
                let segment = entry.location.segment;
                let is_hurt = self.hurt.values().any(|hurt| *hurt == entry.shard);
                if !is_hurt && !self.hurt.contains_key(&segment) && self.random.chance(50) {
                    (self.damage)(&self.disk, self.layout.offset(segment, entry.location.sector));
                    self.hurt.insert(segment, entry.shard);
                }
            }
            for entry in self.rig.index() {
                if self.hurt.values().all(|kept| *kept != entry.shard) && self.random.chance(20) {
                    self.delete(entry.shard);
                }
            }
            self.rest();
            self.fill();
        }
    }

    fn empty(&mut self) {
        for entry in self.rig.index() {
            self.delete(entry.shard);
        }
        self.rest();
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
