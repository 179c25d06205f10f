//! Ten thousand flipped bits in data, parity and headers: no read gives a wrong byte, a scrub finds every
//! damaged shard, and all of them are rebuilt.

use std::collections::BTreeMap;

use holdfast_drive::GetError;
use holdfast_fault::Random;
use holdfast_model::{
    ByteCount, Generation, Level, ShardId, ShardIndex,
    limits::SECTOR_SIZE,
    placement::{Candidate, replace},
};
use holdfast_store::{Relocation, StripeRebuilder};

use crate::cluster::{Cluster, open};

const FLIPS: usize = 10_000;
const STRIPES: u32 = 400;
const SEED: u64 = 20_261_127;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_flipped_bits_are_found_and_repaired_and_no_read_is_wrong() {
    let mut cluster = Cluster::new(3, 4, ByteCount::mib(64));
    let view = cluster.without(|_| false);
    let mut stored = Vec::new();
    for number in 0..STRIPES {
        stored.push(cluster.write(&view, Level::PLUS_2D_1N, 100_000, number).await);
    }
    drop(view);

    // At most two shards of a stripe are hit, which is what its level survives; each of them many times.
    let mut random = Random::new(SEED);
    let mut hit: BTreeMap<ShardId, usize> = BTreeMap::new();
    let mut areas = Vec::new();
    for stored in &stored {
        for _ in 0..2 {
            let at = random.below(stored.stripe.places.len() as u64) as usize;
            let id = ShardId { stripe: stored.stripe.id, index: ShardIndex::new(at as u8) };
            areas.push((id, stored.stripe.places[at].drive));
        }
    }
    let records = record_areas(&cluster);
    for flip in 0..FLIPS {
        let (id, drive) = areas[flip % areas.len()];
        let (_, _, disk) = cluster.drives.iter().find(|(place, _, _)| place.drive == drive).unwrap();
        let (start, length) = records[&id];
        // Header and payload alike; the header's first sector is one of eight.
        disk.rot(start + random.below(length), 1 << random.below(8));
        *hit.entry(id).or_default() += 1;
    }
    println!("{FLIPS} flips in {} shards of {STRIPES} stripes, seed {SEED}", hit.len());

    // The drives are opened anew, as after a restart: damaged headers are met by the mount.
    let pool = cluster.pool.clone();
    for (_, drive, disk) in &mut cluster.drives {
        drive.close().await;
        *drive = open(disk, &pool);
    }
    let view = cluster.without(|_| false);
    for stored in &stored {
        assert_eq!(view.read(cluster.key.key(), stored).await.as_ref(), Some(&stored.content));
    }

    // Scrub: what reads as damaged, and what the drive does not know any more.
    let mut bad: Vec<(usize, ShardIndex)> = Vec::new();
    for (at, stored) in stored.iter().enumerate() {
        for (index, place) in stored.stripe.places.iter().enumerate() {
            let index = ShardIndex::new(index as u8);
            let id = ShardId { stripe: stored.stripe.id, index };
            let (_, drive, _) = cluster.drives.iter().find(|(p, _, _)| p == place).unwrap();
            if !drive.holds(id) {
                bad.push((at, index));
            }
        }
    }
    for (_, drive, _) in &cluster.drives {
        let mut after = None;
        loop {
            let scrubbed = drive.scrub(after, 256).await;
            for finding in &scrubbed.findings {
                assert!(matches!(finding.error, GetError::Damaged { .. }), "{:?}", finding.error);
                let at = stored.iter().position(|s| s.stripe.id == finding.id.stripe).unwrap();
                bad.push((at, finding.id.index));
            }
            after = scrubbed.next;
            if scrubbed.finished {
                break;
            }
        }
    }
    let found: std::collections::BTreeSet<ShardId> =
        bad.iter().map(|(at, index)| ShardId { stripe: stored[*at].stripe.id, index: *index }).collect();
    // Flips may undo each other, and padding behind a payload holds nothing: no flip there is damage.
    assert!(found.iter().all(|id| hit.contains_key(id)), "a shard was named that nobody touched");
    println!("{} damaged shards found", found.len());
    assert!(found.len() * 100 >= hit.len() * 97, "{} found of {}", found.len(), hit.len());

    // Repair, as the worker does: elsewhere, from the others, read back.
    let rebuilder = StripeRebuilder {
        shards: view.shards.clone(),
        health: view.health.clone(),
        memory: view.reader.memory.clone(),
    };
    for (at, stored) in stored.iter_mut().enumerate() {
        let lost: Vec<ShardIndex> = bad.iter().filter(|(b, _)| *b == at).map(|(_, index)| *index).collect();
        if lost.is_empty() {
            continue;
        }
        let stripe = &mut stored.stripe;
        let leaves = |index: usize| lost.iter().any(|l| usize::from(l.get()) == index);
        let kept: Vec<_> =
            stripe.places.iter().enumerate().filter(|(i, _)| !leaves(*i)).map(|(_, p)| *p).collect();
        let avoid: Vec<_> = stripe.places.iter().map(|place| place.drive).collect();
        let candidates: Vec<Candidate> = cluster.candidates();
        let to = replace(&kept, lost.len(), Some(2), &candidates, &avoid, SECTOR_SIZE as u64, at as u64);
        assert_eq!(to.len(), lost.len(), "three nodes of four have room");
        let relocations: Vec<Relocation> = lost
            .iter()
            .zip(&to)
            .map(|(index, to)| Relocation { index: *index, readable: false, to: *to })
            .collect();
        let generation = Generation::new(2);
        rebuilder.relocate(crate::cluster::TENANT, stripe, &relocations, generation).await.unwrap();
        stripe.generation = generation;
        for (index, to) in lost.iter().zip(to) {
            stripe.places[usize::from(index.get())] = to;
        }
    }
    // Whole again: any two drives may go.
    let mut degraded = cluster.without(|place| place.drive == cluster.drives[0].0.drive);
    for stored in &stored {
        assert_eq!(degraded.read(cluster.key.key(), stored).await.as_ref(), Some(&stored.content));
    }
    assert!(degraded.found.try_recv().is_err(), "nothing is damaged any more");
}

/// Where each shard's record lies on its device.
fn record_areas(cluster: &Cluster) -> BTreeMap<ShardId, (u64, u64)> {
    let mut areas = BTreeMap::new();
    for (_, _, disk) in &cluster.drives {
        for offset in disk.used() {
            let bytes: [u8; SECTOR_SIZE] = disk.peek(offset, SECTOR_SIZE).try_into().unwrap();
            if let Ok(header) = holdfast_format::RecordHeader::parse(&bytes) {
                let payload = u64::from(header.payload_len).next_multiple_of(SECTOR_SIZE as u64);
                areas.insert(header.shard, (offset, SECTOR_SIZE as u64 + payload));
            }
        }
    }
    areas
}
