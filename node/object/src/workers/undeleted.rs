//! Garbage of which some shards are deleted and others could not be: what is left is tried again, and what is done is not.
//!
//! A drive that is away or refuses keeps a shard of every other stripe from being deleted, for days perhaps. Each search for
//! garbage meets all these stripes again; it must not cost a request for every shard of them.

use std::collections::{BTreeSet, HashMap};

use holdfast_catalog::GarbageId;
use holdfast_model::DriveId;
use parking_lot::Mutex;

use super::Route;

/// Stripes that are remembered at most, some 50 bytes each. Of others every shard is deleted each time.
const REMEMBERED_MAX: usize = 1 << 18;

/// What is remembered between two searches.
#[derive(Debug, Default)]
pub(super) struct Undeleted(HashMap<(Route, GarbageId), u32>);

impl Undeleted {
    /// The shards that are deleted, bit by bit in the order of the row.
    pub(super) fn deleted(&self, route: Route, id: GarbageId) -> u32 {
        self.0.get(&(route, id)).copied().unwrap_or(0)
    }

    /// So many of them are deleted now.
    pub(super) fn remember(&mut self, route: Route, id: GarbageId, deleted: u32) {
        if deleted != 0 && (self.0.len() < REMEMBERED_MAX || self.0.contains_key(&(route, id))) {
            self.0.insert((route, id), deleted);
        }
    }

    /// The catalog knows it no more.
    pub(super) fn forget(&mut self, route: Route, id: GarbageId) {
        self.0.remove(&(route, id));
    }

    /// Others lead these partitions now, and may have swept them.
    pub(super) fn keep_only(&mut self, led: &[Route]) {
        self.0.retain(|(route, _), _| led.contains(route));
    }
}

/// Drives that failed a delete in this search: the rest of their shards waits for the next.
#[derive(Debug, Default)]
pub(super) struct Refusing(Mutex<BTreeSet<DriveId>>);

impl Refusing {
    /// A delete failed there. Whether it was the first.
    pub(super) fn note(&self, drive: DriveId) -> bool {
        self.0.lock().insert(drive)
    }

    /// Whether one failed there.
    pub(super) fn has(&self, drive: DriveId) -> bool {
        self.0.lock().contains(&drive)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_model::{GroupId, PartitionId};

    use super::*;

    #[test]
    fn what_is_deleted_is_remembered_until_the_stripe_is_gone_or_others_lead() {
        let route = |number| (PartitionId::new(number), GroupId::new(1));
        let id = GarbageId::Shards;
        let mut undeleted = Undeleted::default();
        undeleted.remember(route(1), id(7), 0b101);
        undeleted.remember(route(2), id(7), 0b1);
        undeleted.remember(route(1), id(8), 0);
        assert_eq!(undeleted.deleted(route(1), id(7)), 0b101);
        assert_eq!((undeleted.deleted(route(2), id(7)), undeleted.deleted(route(1), id(8))), (0b1, 0));
        undeleted.forget(route(1), id(7));
        assert_eq!(undeleted.deleted(route(1), id(7)), 0);
        undeleted.keep_only(&[route(1)]);
        assert_eq!(undeleted.deleted(route(2), id(7)), 0);
    }

    #[test]
    fn a_drive_refuses_for_the_first_time_once() {
        let (refusing, drive) = (Refusing::default(), DriveId::from_bytes([3; 16]));
        assert!(!refusing.has(drive));
        assert!(refusing.note(drive) && !refusing.note(drive) && refusing.has(drive));
    }
}
