//! How often shards were placed on each drive since the replica was opened.
//!
//! Kept in memory, and only ever compared with an earlier answer: whoever counts what lies on drives learns
//! from it that a count is out of date, without reading the index by drive.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use holdfast_model::DriveId;
use parking_lot::Mutex;

/// Shards placed, by drive.
pub(crate) type Placed = HashMap<DriveId, u64>;

/// Those of one group's replica.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placements(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    placed: Placed,
    /// Times the whole state became another one.
    replaced: u64,
}

impl Placements {
    /// Adds what was committed.
    pub(crate) fn add(&self, placed: Placed) {
        let mut counts = self.0.lock();
        for (drive, shards) in placed {
            *counts.placed.entry(drive).or_default() += shards;
        }
    }

    /// The state became another one: any drive may hold what it did not.
    pub(crate) fn replace(&self) {
        self.0.lock().replaced += 1;
    }

    /// Grows whenever a shard is placed on one of `drives`.
    pub(crate) fn on(&self, drives: &BTreeSet<DriveId>) -> u64 {
        let counts = self.0.lock();
        let placed = drives.iter().filter_map(|drive| counts.placed.get(drive)).sum::<u64>();
        counts.replaced + placed
    }
}
