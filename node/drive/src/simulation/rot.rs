//! Rot: whatever bytes of a quiet drive turn, nothing that was acknowledged disappears without a word.

#[cfg(test)]
use proptest::prelude::*;

use super::{
    Pools, Rig, formatted,
    model::{bytes, shard},
};
use holdfast_fault::{Cut, Manners, Random};

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
