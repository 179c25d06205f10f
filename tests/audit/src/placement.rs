//! Whether what the catalog places is there: each shard of each stripe that an object or a part is made of, sound, on the
//! drive and node that the catalog names, and no more of them together than the level allows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use anyhow::{Context, Result};
use holdfast_catalog::{PartitionReader, StripeRef};
use holdfast_drive::inspect::{Inspection, LiveShard, inspect};
use holdfast_format::CATALOG_OWNER;
use holdfast_model::{DriveId, Level, NodeId, ShardId, StripeId};

/// Owners of stripes looked at at once.
const PAGE: usize = 256;

/// Findings of one kind that are told in words; the rest is counted.
const SHOWN: usize = 20;

/// Every drive, as the inspector found it.
#[derive(Debug, Default)]
pub struct Drives {
    found: HashMap<DriveId, Inspection>,
    /// Whose directory each lay in.
    node: HashMap<DriveId, NodeId>,
}

impl Drives {
    /// Inspects a drive that lies in this node's directory.
    ///
    /// # Errors
    /// When it holds no drive.
    pub fn inspect(&mut self, node: NodeId, path: &Path) -> Result<&Inspection> {
        let found = inspect(path).with_context(|| format!("inspecting {}", path.display()))?;
        let drive = found.label.drive;
        self.node.insert(drive, node);
        Ok(self.found.entry(drive).insert_entry(found).into_mut())
    }

    /// The shard, if it is on that drive.
    #[must_use]
    pub fn shard(&self, drive: DriveId, shard: ShardId) -> Option<LiveShard> {
        self.found.get(&drive)?.live.get(&shard).copied()
    }
}

/// What an audit found.
#[derive(Debug, Default)]
pub struct Placement {
    /// Stripes that objects and parts are made of.
    pub stripes: usize,
    /// Their shards.
    pub shards: usize,
    /// Shards on drives that a catalog lists as garbage: to be swept.
    pub garbage: usize,
    /// Shards on drives of stripes that no catalog knows: of writes that were never finished.
    pub unfinished: usize,
    /// Records of the catalog's second copy on drives.
    pub second_copy: usize,
    /// What is not as it should be, in words: the first of each kind.
    pub findings: Vec<String>,
}

/// Audits the stripes of these partitions. `level` is what they must keep.
///
/// # Errors
/// When a catalog cannot be read.
pub fn audit<'a>(
    partitions: impl IntoIterator<Item = &'a PartitionReader>,
    drives: &Drives,
    level: Level,
) -> Result<Placement> {
    let mut placement = Placement::default();
    let mut live: BTreeSet<StripeId> = BTreeSet::new();
    let mut garbage: BTreeSet<(DriveId, ShardId)> = BTreeSet::new();
    let (mut missing, mut misplaced) = (Vec::new(), Vec::new());
    for partition in partitions {
        garbage.extend(garbage_of(partition)?);
        let mut after = None;
        loop {
            after = partition.visit_stripes(after, PAGE, |owner, stripe| {
                live.insert(stripe.id);
                placement.shards += stripe.places.len();
                missing.extend(lacks(stripe, drives).map(|what| format!("{}: {what}", owner.key)));
                misplaced.extend(misplaces(level, stripe).map(|what| format!("{}: {what}", owner.key)));
            })?;
            if after.is_none() {
                break;
            }
        }
    }
    placement.stripes = live.len();
    let on_drives = drives
        .found
        .iter()
        .flat_map(|(drive, found)| found.live.iter().map(move |(id, shard)| (*drive, *id, shard)));
    for (drive, id, shard) in on_drives {
        if shard.tenant == CATALOG_OWNER {
            placement.second_copy += 1;
        } else if garbage.contains(&(drive, id)) {
            placement.garbage += 1;
        } else if !live.contains(&id.stripe) {
            placement.unfinished += 1;
        }
    }
    for (kind, found) in [("shards are not where they are placed", missing), ("stripes lie wrong", misplaced)]
    {
        if !found.is_empty() {
            let shown = found.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
            placement.findings.push(format!("{} {kind}: {shown}", found.len()));
        }
    }
    Ok(placement)
}

/// What a catalog lists as garbage.
fn garbage_of(partition: &PartitionReader) -> Result<Vec<(DriveId, ShardId)>> {
    let (mut garbage, mut after) = (Vec::new(), None);
    loop {
        let (rows, next) = partition.garbage(after, PAGE)?;
        for row in rows {
            let shards = row.shards.iter();
            garbage.extend(
                shards.map(|(index, place)| (place.drive, ShardId { stripe: row.stripe, index: *index })),
            );
        }
        after = next;
        if after.is_none() {
            return Ok(garbage);
        }
    }
}

/// What is not there of a stripe, in words.
fn lacks<'a>(stripe: &'a StripeRef, drives: &'a Drives) -> impl Iterator<Item = String> + 'a {
    stripe.shards().filter_map(|(index, place)| {
        let of = format!("shard {index} of {}+{}", stripe.data, stripe.parity);
        let lies_at = drives.node.get(&place.drive);
        if lies_at != Some(&place.node) {
            return Some(match lies_at {
                None => format!("{of}: drive {} is not there", place.drive),
                Some(node) => format!("{of}: drive {} lies in node {node}, not {}", place.drive, place.node),
            });
        }
        match drives.shard(place.drive, ShardId { stripe: stripe.id, index }) {
            None => Some(format!("{of} is not on drive {}", place.drive)),
            Some(found) if !found.sound => Some(format!("{of} is damaged on drive {}", place.drive)),
            // It was written with a place that the stripe got later than the catalog says.
            Some(found) if found.generation > stripe.generation => {
                Some(format!("{of} has {}, the catalog {}", found.generation, stripe.generation))
            }
            Some(_) => None,
        }
    })
}

/// What is wrong with the places of a stripe, in words: two shards on one drive, or so many on what the level
/// survives the loss of that the rest would be too few.
#[must_use]
pub fn misplaces(level: Level, stripe: &StripeRef) -> Option<String> {
    let mut on_node: BTreeMap<NodeId, u8> = BTreeMap::new();
    let mut on_drive: BTreeMap<DriveId, u8> = BTreeMap::new();
    for place in &stripe.places {
        *on_node.entry(place.node).or_default() += 1;
        *on_drive.entry(place.drive).or_default() += 1;
    }
    let most = on_node.values().max().copied().unwrap_or(0);
    let survives = most * level.nodes_survived() <= stripe.parity && level.drives_survived() <= stripe.parity;
    let distinct = on_drive.values().all(|count| *count == 1);
    let what =
        || format!("{}+{} lies on {:?}", stripe.data, stripe.parity, on_node.values().collect::<Vec<_>>());
    (!survives || !distinct).then(what)
}

#[cfg(test)]
mod tests {
    use holdfast_model::{Generation, placement::Place};

    use super::*;

    fn stripe(data: u8, parity: u8, on: &[(u64, u8)]) -> StripeRef {
        let place = |(node, drive): &(u64, u8)| Place {
            node: NodeId::new(*node),
            drive: DriveId::from_bytes([*drive; DriveId::SIZE]),
        };
        StripeRef {
            id: StripeId::from_bytes([7; StripeId::SIZE]),
            number: 0,
            plain_len: 1,
            data,
            parity,
            generation: Generation::new(1),
            places: on.iter().map(place).collect(),
        }
    }

    #[test]
    fn a_stripe_that_its_level_does_not_allow_is_told_of() {
        let level = Level::PLUS_2D_1N;
        assert_eq!(misplaces(level, &stripe(4, 2, &[(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)])), None);
        let three_on_one = stripe(4, 2, &[(1, 1), (1, 2), (1, 3), (2, 4), (3, 5), (3, 6)]);
        assert!(misplaces(level, &three_on_one).is_some());
        let twice_on_a_drive = stripe(4, 2, &[(1, 1), (1, 1), (2, 3), (2, 4), (3, 5), (3, 6)]);
        assert!(misplaces(level, &twice_on_a_drive).is_some());
        let too_little_parity = stripe(4, 1, &[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
        assert!(misplaces(level, &too_little_parity).is_some());
    }

    #[test]
    fn a_shard_on_a_drive_that_is_not_there_is_missing() {
        let lost = stripe(1, 1, &[(1, 1), (2, 2)]);
        assert_eq!(lacks(&lost, &Drives::default()).count(), 2);
    }
}
