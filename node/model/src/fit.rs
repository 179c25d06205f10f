//! Whether a stripe has the level that is asked of it: judged from its shape and where its shards are.
//!
//! Pure. A level's geometry is taken on the drives that *stay*: those that are members, whether they answer
//! at this moment or not. A node that restarts changes nothing; one that is given up does.

use std::collections::{BTreeMap, BTreeSet};

use crate::{DriveId, Geometry, Level, NodeId, UnixMillis, level::ParityLevel, placement::Place};

/// A drive that stays in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StayingDrive {
    /// The drive.
    pub drive: DriveId,
    /// Its node.
    pub node: NodeId,
    /// Since when it is a member.
    pub since: UnixMillis,
}

/// A stripe as the catalog knows it, as far as its level goes.
#[derive(Debug, Clone, Copy)]
pub struct Laid<'a> {
    /// Data shards.
    pub data: u8,
    /// Parity shards.
    pub parity: u8,
    /// Where its shards are.
    pub places: &'a [Place],
    /// When it was written.
    pub written: UnixMillis,
}

/// How a stripe stands to a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It has the level.
    Right,
    /// It has the level, on fewer data shards than drives allowed when it was written (they were away), or
    /// than was asked for since.
    Narrow,
    /// It has another level.
    Wrong,
    /// Shards of it have lost their place, and no other drives can take them without breaking the level.
    Homeless,
}

/// A level on the drives that stay.
#[derive(Debug, Clone)]
pub struct Standard {
    level: Level,
    /// Stripes written before this are to be as wide as can be now.
    since: UnixMillis,
    drives: Vec<StayingDrive>,
    members: usize,
    geometry: Option<Geometry>,
}

impl Standard {
    /// What `level`, asked for at `since`, means on `drives` of a cluster of `members` nodes.
    #[must_use]
    pub fn new(level: Level, since: UnixMillis, drives: Vec<StayingDrive>, members: usize) -> Self {
        let geometry = geometry_on(level, drives.iter(), members);
        Self { level, since, drives, members, geometry }
    }

    /// The level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// What a stripe of it looks like; `None` when the level cannot be kept on these drives.
    #[must_use]
    pub fn geometry(&self) -> Option<Geometry> {
        self.geometry
    }

    /// How a stripe stands to it. Right when the level cannot be kept: nothing better can be made.
    #[must_use]
    pub fn judge(&self, stripe: Laid<'_>) -> Fit {
        let Some(geometry) = self.geometry else { return Fit::Right };
        if self.is_homeless(stripe, geometry) {
            return Fit::Homeless;
        }
        let mirrored = matches!(self.level, Level::Mirror { .. });
        if stripe.parity != geometry.parity
            || (mirrored && stripe.data != 1)
            || spread(stripe.places) > usize::from(geometry.per_node_max)
        {
            return Fit::Wrong;
        }
        if stripe.data >= geometry.data {
            return Fit::Right;
        }
        let could = if stripe.written < self.since {
            Some(geometry)
        } else {
            let then = self.drives.iter().filter(|drive| drive.since <= stripe.written);
            geometry_on(self.level, then, self.members)
        };
        if could.is_some_and(|could| stripe.data < could.data) { Fit::Narrow } else { Fit::Right }
    }

    fn is_homeless(&self, stripe: Laid<'_>, geometry: Geometry) -> bool {
        let staying: BTreeSet<DriveId> = self.drives.iter().map(|drive| drive.drive).collect();
        if stripe.places.iter().all(|place| staying.contains(&place.drive)) {
            return false;
        }
        let room: usize = by_node(self.drives.iter())
            .into_values()
            .map(|drives| drives.min(usize::from(geometry.per_node_max)))
            .sum();
        room < stripe.places.len()
    }
}

fn by_node<'a>(drives: impl Iterator<Item = &'a StayingDrive>) -> BTreeMap<NodeId, usize> {
    let mut nodes = BTreeMap::new();
    for drive in drives {
        *nodes.entry(drive.node).or_default() += 1;
    }
    nodes
}

fn geometry_on<'a>(
    level: Level,
    drives: impl Iterator<Item = &'a StayingDrive>,
    members: usize,
) -> Option<Geometry> {
    let nodes: Vec<usize> = by_node(drives).into_values().collect();
    if members > 1 && nodes.len() < 2 {
        return None;
    }
    level.geometry(&nodes)
}

/// The most shards that any one node holds.
#[must_use]
pub fn spread(places: &[Place]) -> usize {
    let on = |node| places.iter().filter(|place| place.node == node).count();
    places.iter().map(|place| on(place.node)).max().unwrap_or(0)
}

/// Shards of a stripe that one node may hold when some of them get new places: no more than now, and no
/// more than the stripe can lose.
#[must_use]
pub fn per_node_max(parity: u8, places: &[Place]) -> u8 {
    let now = u8::try_from(spread(places)).unwrap_or(u8::MAX);
    now.min(parity).max(1)
}

/// The strongest level that a stripe of this shape has; `None` when losing one node loses it.
#[must_use]
pub fn level_of(data: u8, parity: u8, places: &[Place]) -> Option<Level> {
    let spread = spread(places);
    if data == 1 && spread == 1 && (1..8).contains(&parity) {
        return Some(Level::Mirror { copies: parity + 1 });
    }
    let fits =
        |level: &Level| level.drives_survived() == parity && usize::from(level.shards_per_node()) >= spread;
    ParityLevel::every().map(Level::Parity).filter(fits).min_by_key(|level| level.shards_per_node())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::placement::{Candidate, place};

    fn drives(by_node: &[usize]) -> Vec<StayingDrive> {
        let mut all = Vec::new();
        for (node, count) in by_node.iter().enumerate() {
            for slot in 0..*count {
                let mut id = [0; 16];
                (id[0], id[1]) = (node as u8, slot as u8);
                let node = NodeId::new(node as u64 + 1);
                all.push(StayingDrive { drive: DriveId::from_bytes(id), node, since: UnixMillis::new(10) });
            }
        }
        all
    }

    fn candidates(drives: &[StayingDrive]) -> Vec<Candidate> {
        drives.iter().map(|d| Candidate { drive: d.drive, node: d.node, free_bytes: 1 << 40 }).collect()
    }

    fn standard(level: &str, drives: &[StayingDrive], members: usize) -> Standard {
        Standard::new(level.parse().unwrap(), UnixMillis::new(0), drives.to_vec(), members)
    }

    fn laid(geometry: Geometry, places: &[Place], written: u64) -> Laid<'_> {
        let written = UnixMillis::new(written);
        Laid { data: geometry.data, parity: geometry.parity, places, written }
    }

    proptest! {
        #[test]
        fn what_placement_gives_is_right_and_any_other_level_of_more_or_less_parity_is_wrong(
            nodes in prop::collection::vec(1..6usize, 1..12),
            level in prop::sample::select(vec!["+1n", "+2d:1n", "+2n", "+3d:1n1d", "+4d:2n", "2x", "3x"]),
            seed: u64,
        ) {
            let drives = drives(&nodes);
            let standard = standard(level, &drives, nodes.len());
            if let Ok((geometry, places)) = place(level.parse().unwrap(), &candidates(&drives), nodes.len(), 1, seed) {
                prop_assert_eq!(standard.judge(laid(geometry, &places, 20)), Fit::Right);
                let other = Geometry { parity: geometry.parity + 1, ..geometry };
                prop_assert_eq!(standard.judge(laid(other, &places, 20)), Fit::Wrong);
            }
        }
    }

    #[test]
    fn a_stripe_written_while_a_node_was_away_is_narrow_and_one_from_before_a_node_came_is_not() {
        let three = drives(&[4, 4, 4]);
        let away: Vec<Candidate> = candidates(&three[..8]);
        let (geometry, places) = place(Level::PLUS_2D_1N, &away, 3, 1, 1).unwrap();
        assert_eq!((geometry.data, geometry.parity), (2, 2));
        assert_eq!(standard("+2d:1n", &three, 3).judge(laid(geometry, &places, 20)), Fit::Narrow);

        // The third node came at 30: a stripe of 20 could not have been wider, one of 40 could.
        let mut grown = three;
        for drive in &mut grown[8..] {
            drive.since = UnixMillis::new(30);
        }
        let grown = standard("+2d:1n", &grown, 3);
        assert_eq!(grown.judge(laid(geometry, &places, 20)), Fit::Right);
        assert_eq!(grown.judge(laid(geometry, &places, 40)), Fit::Narrow);
        // Asked for anew at 50: everything older is to be as wide as can be.
        let asked = Standard { since: UnixMillis::new(50), ..grown };
        assert_eq!(asked.judge(laid(geometry, &places, 20)), Fit::Narrow);
    }

    #[test]
    fn a_stripe_that_lost_a_node_of_three_is_homeless_and_one_that_lost_a_drive_of_four_is_not() {
        let all = drives(&[4, 4, 4]);
        let (geometry, places) = place(Level::PLUS_2D_1N, &candidates(&all), 3, 1, 1).unwrap();
        let two = standard("+2d:1n", &all[..8], 2);
        assert_eq!(two.judge(laid(geometry, &places, 20)), Fit::Homeless);
        let lost = places[0].drive;
        let without: Vec<StayingDrive> = all.iter().copied().filter(|d| d.drive != lost).collect();
        assert_eq!(standard("+2d:1n", &without, 3).judge(laid(geometry, &places, 20)), Fit::Right);
        // Nothing better can be made while the level cannot be kept.
        assert_eq!(standard("+2d:1n", &all[..4], 3).judge(laid(geometry, &places, 20)), Fit::Right);
    }

    #[test]
    fn the_level_of_a_stripe_follows_from_its_shape() {
        let all = drives(&[4, 4, 4, 4, 4]);
        for level in ["+1n", "+2d:1n", "+2n", "+3d:1n", "+3d:1n1d", "+4d:1n", "+4d:2n", "2x", "4x"] {
            let (geometry, places) = place(level.parse().unwrap(), &candidates(&all), 5, 1, 3).unwrap();
            let found = level_of(geometry.data, geometry.parity, &places).unwrap();
            assert_eq!(found.to_string(), level);
            assert!(
                usize::from(per_node_max(geometry.parity, &places)) <= usize::from(geometry.per_node_max)
            );
        }
        let (geometry, places) = place(Level::PLUS_2D_1N, &candidates(&all[..4]), 1, 1, 3).unwrap();
        assert_eq!(level_of(geometry.data, geometry.parity, &places), None, "four on one node, two may go");
    }
}
