//! Placement of a stripe's shards on drives.
//!
//! Pure: takes the drives that may be written now and a seed, returns a plan; `store` carries it out.
//!
//! Invariants of every plan:
//! - the shards of a stripe are on distinct drives;
//! - no node holds more shards of a stripe than the level can lose (`per_node_max`);
//! - a drive without room for the shard is not chosen.

use serde::{Deserialize, Serialize};

use crate::{DriveId, Geometry, Level, NodeId};

/// A drive that may take a shard now: its node answers and the drive is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The drive.
    pub drive: DriveId,
    /// The node that owns it.
    pub node: NodeId,
    /// Room left for new shards, in bytes, reserve already taken off.
    pub free_bytes: u64,
}

/// Where one shard goes or is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The node that owns the drive.
    pub node: NodeId,
    /// The drive.
    pub drive: DriveId,
}

/// Why no plan exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("level {level} needs more than the {drives} writable drives on {nodes} nodes that answer")]
pub struct Unplaceable {
    /// The level asked for.
    pub level: Level,
    /// Drives that could be written.
    pub drives: usize,
    /// Nodes that own them.
    pub nodes: usize,
}

/// The widest geometry that keeps `level` on `candidates`, and a drive for each shard, data shards first.
///
/// `members` is how many nodes the cluster has, up or not: only in a cluster of one may a stripe lie on
/// one node. A node that sees nobody else for a moment must not take itself for the whole cluster.
///
/// Drives with more room are chosen more often: each drive draws a number from `seed` raised to the
/// inverse of its room (weighted sampling without replacement, Efraimidis and Spirakis 2006).
///
/// # Errors
/// [`Unplaceable`] when the promise cannot be kept on what is writable.
pub fn place(
    level: Level,
    candidates: &[Candidate],
    members: usize,
    shard_bytes: u64,
    seed: u64,
) -> Result<(Geometry, Vec<Place>), Unplaceable> {
    let mut roomy: Vec<Candidate> =
        candidates.iter().copied().filter(|c| c.free_bytes >= shard_bytes.max(1)).collect();
    roomy.sort_by_key(|c| c.drive);
    roomy.dedup_by_key(|c| c.drive);

    let mut nodes: Vec<NodeId> = roomy.iter().map(|c| c.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let by_node: Vec<usize> = nodes.iter().map(|n| roomy.iter().filter(|c| c.node == *n).count()).collect();
    let refused = Unplaceable { level, drives: roomy.len(), nodes: nodes.len() };
    if members > 1 && nodes.len() < 2 {
        return Err(refused);
    }
    let geometry = level.geometry(&by_node).ok_or(refused)?;

    let mut places = Vec::with_capacity(geometry.shards());
    for c in drawn(&roomy, seed) {
        let on_node = places.iter().filter(|p: &&Place| p.node == c.node).count();
        if places.len() < geometry.shards() && on_node < usize::from(geometry.per_node_max) {
            places.push(Place { node: c.node, drive: c.drive });
        }
    }
    if places.len() < geometry.shards() {
        return Err(refused);
    }
    Ok((geometry, places))
}

/// New places for `missing` shards of a stripe whose other shards are at `kept`: as [`place`] would choose
/// them, and never on a drive in `avoid` (one that holds, or held, another shard of the stripe).
///
/// `per_node_max` is the level's ([`Level::shards_per_node`]); `None` in a cluster of one node. Returns as
/// many places as there are, which may be fewer than `missing`: each shard that finds a place is one more
/// that can be lost.
#[must_use]
pub fn replace(
    kept: &[Place],
    missing: usize,
    per_node_max: Option<u8>,
    candidates: &[Candidate],
    avoid: &[DriveId],
    shard_bytes: u64,
    seed: u64,
) -> Vec<Place> {
    let mut roomy: Vec<Candidate> = candidates
        .iter()
        .copied()
        .filter(|c| c.free_bytes >= shard_bytes.max(1))
        .filter(|c| !avoid.contains(&c.drive) && kept.iter().all(|place| place.drive != c.drive))
        .collect();
    roomy.sort_by_key(|c| c.drive);
    roomy.dedup_by_key(|c| c.drive);
    let mut chosen: Vec<Place> = Vec::with_capacity(missing);
    for c in drawn(&roomy, seed) {
        let on_node = kept.iter().chain(&chosen).filter(|place| place.node == c.node).count();
        if chosen.len() < missing && per_node_max.is_none_or(|max| on_node < usize::from(max)) {
            chosen.push(Place { node: c.node, drive: c.drive });
        }
    }
    chosen
}

/// Candidates in the order in which `seed` draws them, those with more room more often first.
fn drawn(roomy: &[Candidate], seed: u64) -> impl Iterator<Item = Candidate> {
    let mut drawn: Vec<(f64, Candidate)> = roomy
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let uniform = (mix(seed, i as u64) >> 11) as f64 / (1u64 << 53) as f64;
            (uniform.max(f64::MIN_POSITIVE).ln() / c.free_bytes as f64, *c)
        })
        .collect();
    drawn.sort_by(|a, b| b.0.total_cmp(&a.0));
    drawn.into_iter().map(|(_, candidate)| candidate)
}

/// SplitMix64 (Steele, Lea and Flood 2014): a fixed mapping, the same on every node.
fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drives(sizes_by_node: &[Vec<u64>]) -> Vec<Candidate> {
        let mut all = Vec::new();
        for (node, sizes) in sizes_by_node.iter().enumerate() {
            for (slot, free_bytes) in sizes.iter().enumerate() {
                let mut id = [0; 16];
                id[0] = node as u8;
                id[1] = slot as u8;
                all.push(Candidate {
                    drive: DriveId::from_bytes(id),
                    node: NodeId::new(node as u64 + 1),
                    free_bytes: *free_bytes,
                });
            }
        }
        all
    }

    proptest! {
        #[test]
        fn plans_keep_their_invariants(
            sizes in prop::collection::vec(prop::collection::vec(0..1_000_000u64, 1..8), 1..64),
            level in prop::sample::select(vec!["+1n", "+2d:1n", "+2n", "+3d:1n", "+3d:1n1d", "+3n", "+4d:1n", "+4d:2n", "+4n", "2x", "3x"]),
            seed: u64,
        ) {
            let level: Level = level.parse().unwrap();
            let candidates = drives(&sizes);
            if let Ok((geometry, places)) = place(level, &candidates, sizes.len(), 4096, seed) {
                prop_assert_eq!(places.len(), geometry.shards());
                for (i, place) in places.iter().enumerate() {
                    prop_assert!(places[..i].iter().all(|other| other.drive != place.drive));
                    let on_node = places.iter().filter(|p| p.node == place.node).count();
                    prop_assert!(on_node <= usize::from(geometry.per_node_max));
                    let room = candidates.iter().find(|c| c.drive == place.drive).unwrap().free_bytes;
                    prop_assert!(room >= 4096);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn shards_that_lost_their_place_get_one_that_keeps_the_invariants(
            sizes in prop::collection::vec(prop::collection::vec(1..1_000_000u64, 1..8), 1..24),
            level in prop::sample::select(vec!["+1n", "+2d:1n", "+2n", "+3d:1n1d", "+4d:2n", "2x", "3x"]),
            lost in 1..5usize,
            seed: u64,
        ) {
            let level: Level = level.parse().unwrap();
            let candidates = drives(&sizes);
            let per_node_max = (sizes.len() > 1).then(|| level.shards_per_node());
            if let Ok((_, places)) = place(level, &candidates, sizes.len(), 1, seed) {
                let lost = lost.min(places.len());
                let (gone, kept) = places.split_at(lost);
                let avoid: Vec<DriveId> = gone.iter().map(|place| place.drive).collect();
                let found = replace(kept, lost, per_node_max, &candidates, &avoid, 1, seed ^ 1);
                prop_assert!(found.len() <= lost);
                let all: Vec<Place> = kept.iter().chain(&found).copied().collect();
                for (i, place) in all.iter().enumerate() {
                    prop_assert!(all[..i].iter().all(|other| other.drive != place.drive));
                    let on_node = all.iter().filter(|p| p.node == place.node).count();
                    prop_assert!(per_node_max.is_none_or(|max| on_node <= usize::from(max)));
                }
                prop_assert!(found.iter().all(|place| !avoid.contains(&place.drive)));
                // Fewer than asked for only when no drive is left that may take one.
                if found.len() < lost {
                    let could = candidates.iter().any(|c| {
                        let on_node = all.iter().filter(|p| p.node == c.node).count();
                        !avoid.contains(&c.drive)
                            && all.iter().all(|p| p.drive != c.drive)
                            && per_node_max.is_none_or(|max| on_node < usize::from(max))
                    });
                    prop_assert!(!could);
                }
            }
        }
    }

    #[test]
    fn a_drive_with_twice_the_room_takes_about_twice_the_shards() {
        let mut sizes = vec![vec![1_000_000u64]; 8];
        sizes[0] = vec![2_000_000];
        let candidates = drives(&sizes);
        let level: Level = "2x".parse().unwrap();
        let big = candidates[0].drive;
        let hits = (0..10_000u64)
            .filter(|seed| place(level, &candidates, 8, 1, *seed).unwrap().1.iter().any(|p| p.drive == big))
            .count();
        // Expected share without replacement: 2/9 + 7/9 * 2/8 = 0.417.
        assert!((3_900..4_450).contains(&hits), "{hits}");
    }

    #[test]
    fn one_node_of_several_is_not_a_cluster_of_one() {
        let candidates = drives(&[vec![1_000_000; 6]]);
        let level = Level::PLUS_2D_1N;
        assert!(place(level, &candidates, 1, 4096, 7).is_ok());
        assert!(place(level, &candidates, 3, 4096, 7).is_err());
    }
}
