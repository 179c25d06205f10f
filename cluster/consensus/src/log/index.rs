//! What a group's log holds, in memory: one slot per entry, and the newest entries themselves.
//!
//! Invariants:
//! - slots are consecutive: slot `i` has the index `first_index + i`;
//! - `purged`, when set, is the id right before the first slot;
//! - cached entries are the newest ones without a hole, and an entry that has no place on disk yet
//!   is always cached;
//! - what a purge hides that is not written yet is kept: it is what a restart would find.

use std::{
    collections::VecDeque,
    ops::{Bound, RangeBounds},
};

use crate::types::{Entry, LogId, Vote};

/// Entries of one group kept decoded, in bytes of their encoded form. Older ones are read back.
pub(crate) const CACHE_BYTES_PER_GROUP: u64 = 8 * 1024 * 1024;

/// Where a record starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// An entry that is on disk and not in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) log_id: LogId,
    pub(crate) place: Place,
    /// Of the payload, in bytes.
    pub(crate) length: u32,
}

/// An entry, or where to read it.
#[derive(Debug)]
pub(crate) enum Found {
    Cached(Entry),
    Stored(Stored),
}

#[derive(Debug)]
struct Slot {
    log_id: LogId,
    length: u32,
    /// Payload bytes of this entry and all before it, since the index was built.
    bytes_before_end: u64,
    place: Option<Place>,
    cached: Option<Entry>,
}

/// A purge that is visible and not written.
#[derive(Debug)]
struct Deferred {
    upto: LogId,
    /// What was purged before.
    purged: Option<LogId>,
    /// What it hides, oldest first.
    hidden: VecDeque<Slot>,
}

/// The index of one group.
#[derive(Debug, Default)]
pub(crate) struct GroupIndex {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// Up to where the machine's durable state has come.
    pub(crate) covered: Option<LogId>,
    /// A purge that waits for `covered`.
    deferred: Option<Deferred>,
    /// The machine has failed: what waits for it waits in vain.
    abandoned: bool,
    slots: VecDeque<Slot>,
    bytes_total: u64,
    cached_bytes: u64,
    cached_count: usize,
}

impl GroupIndex {
    /// Index of the first entry there is, or would be.
    pub(crate) fn first_index(&self) -> u64 {
        self.slots.front().map_or_else(|| self.purged.map_or(0, |id| id.index + 1), |slot| slot.log_id.index)
    }

    /// The last entry's id; the last purged one's when there is none.
    pub(crate) fn last_log_id(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.log_id).or(self.purged)
    }

    /// Whether `previous` and, right behind it, entries with these ids are in the log as it is now.
    pub(crate) fn holds(&self, previous: Option<LogId>, ids: impl IntoIterator<Item = LogId>) -> bool {
        let known = match previous {
            None => self.purged.is_none(),
            Some(id) => self.purged == Some(id) || self.slot(id.index).is_some_and(|slot| slot.log_id == id),
        };
        let next = previous.map_or(0, |id| id.index + 1);
        known
            && (next..).zip(ids).all(|(index, id)| {
                id.index == index && self.slot(index).is_some_and(|slot| slot.log_id == id)
            })
    }

    pub(crate) fn has_entries(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Index an appended entry must have.
    pub(crate) fn next_index(&self) -> u64 {
        self.last_log_id().map_or(0, |id| id.index + 1)
    }

    /// Adds an entry that has no place yet.
    pub(crate) fn push(&mut self, entry: Entry, length: u32) {
        let slot = Slot {
            log_id: entry.log_id,
            length,
            bytes_before_end: self.bytes_total + u64::from(length),
            place: None,
            cached: Some(entry),
        };
        self.bytes_total = slot.bytes_before_end;
        self.cached_bytes += u64::from(length);
        self.cached_count += 1;
        self.slots.push_back(slot);
    }

    /// Adds an entry found on disk.
    pub(crate) fn push_stored(&mut self, stored: Stored) {
        debug_assert_eq!(self.cached_count, 0, "recovery runs before anything is cached");
        self.bytes_total += u64::from(stored.length);
        self.slots.push_back(Slot {
            log_id: stored.log_id,
            length: stored.length,
            bytes_before_end: self.bytes_total,
            place: Some(stored.place),
            cached: None,
        });
    }

    /// Notes where an entry was written. Ignored when the entry is gone since.
    pub(crate) fn set_place(&mut self, log_id: LogId, place: Place) {
        if let Some(slot) = self.slot_mut(log_id.index)
            && slot.log_id == log_id
        {
            slot.place = Some(place);
            return;
        }
        let hidden = self.deferred.iter_mut().flat_map(|deferred| &mut deferred.hidden);
        hidden.filter(|slot| slot.log_id == log_id).for_each(|slot| slot.place = Some(place));
    }

    /// Lets go of the oldest cached entries beyond `limit` bytes.
    pub(crate) fn evict(&mut self, limit: u64) {
        while self.cached_bytes > limit && self.cached_count > 1 {
            let at = self.slots.len() - self.cached_count;
            let slot = &mut self.slots[at];
            if slot.place.is_none() {
                return;
            }
            slot.cached = None;
            self.cached_bytes -= u64::from(slot.length);
            self.cached_count -= 1;
        }
    }

    /// Drops entries from `since` on.
    pub(crate) fn truncate(&mut self, since: u64) {
        while self.slots.back().is_some_and(|slot| slot.log_id.index >= since) {
            if let Some(slot) = self.slots.pop_back() {
                self.bytes_total -= u64::from(slot.length);
                self.forget_cached(&slot);
            }
        }
    }

    /// Drops entries up to `upto`, inclusive.
    pub(crate) fn purge(&mut self, upto: LogId) {
        drop(self.hide(upto));
    }

    /// Drops entries up to `upto`, inclusive. Whether that may be written: the machine's durable state covers it.
    /// Otherwise it waits for [`Self::cover`], and is taken back by [`Self::restore`].
    pub(crate) fn purge_when_covered(&mut self, upto: LogId) -> bool {
        let purged = self.purged;
        let hidden = self.hide(upto);
        if self.covered >= Some(upto) {
            return true;
        }
        let deferred = self.deferred.get_or_insert(Deferred { upto, purged, hidden: VecDeque::new() });
        deferred.upto = deferred.upto.max(upto);
        deferred.hidden.extend(hidden);
        false
    }

    /// The machine's durable state has come to `position`. The purge that may be written now.
    pub(crate) fn cover(&mut self, position: LogId) -> Option<LogId> {
        self.covered = self.covered.max(Some(position));
        self.deferred.take_if(|deferred| deferred.upto <= position).map(|deferred| deferred.upto)
    }

    /// The machine has failed: no purge that waits will be written.
    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
    }

    /// Whether a purge is visible and not written, and if so, whether it is waited for in vain.
    pub(crate) fn awaits_cover(&self) -> Option<bool> {
        self.deferred.as_ref().map(|_| self.abandoned)
    }

    /// Is again what a restart would find: what waits to be purged is back.
    pub(crate) fn restore(&mut self) {
        self.abandoned = false;
        let Some(Deferred { purged, mut hidden, upto }) = self.deferred.take() else { return };
        let follows =
            |slot: &Slot| hidden.back().is_none_or(|last| last.log_id.index + 1 == slot.log_id.index);
        let whole = self.slots.front().is_none_or(follows) && hidden.iter().all(|slot| slot.place.is_some());
        if !whole {
            self.deferred = Some(Deferred { purged, hidden, upto });
            return;
        }
        // Of cached entries there are only the newest.
        hidden.iter_mut().for_each(|slot| slot.cached = None);
        hidden.append(&mut self.slots);
        self.slots = hidden;
        self.purged = purged;
        if self.committed.is_some_and(|id| self.log_id(id.index) != Some(id)) {
            self.committed = None;
        }
    }

    fn hide(&mut self, upto: LogId) -> VecDeque<Slot> {
        let mut hidden = VecDeque::new();
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return hidden;
        }
        while self.slots.front().is_some_and(|slot| slot.log_id.index <= upto.index) {
            if let Some(slot) = self.slots.pop_front() {
                self.forget_cached(&slot);
                hidden.push_back(slot);
            }
        }
        self.purged = Some(upto);
        hidden
    }

    fn forget_cached(&mut self, slot: &Slot) {
        if slot.cached.is_some() {
            self.cached_bytes -= u64::from(slot.length);
            self.cached_count -= 1;
        }
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        let at = index.checked_sub(self.slots.front()?.log_id.index)?;
        self.slots.get(usize::try_from(at).ok()?)
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = index.checked_sub(self.slots.front()?.log_id.index)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    /// The id at `index`, also when it is the last purged one.
    pub(crate) fn log_id(&self, index: u64) -> Option<LogId> {
        self.slot(index).map(|slot| slot.log_id).or_else(|| self.purged.filter(|id| id.index == index))
    }

    /// Entries of `range` that exist, in order; stops before exceeding `bytes_max`, but returns at
    /// least one when there is one.
    pub(crate) fn find(&self, range: impl RangeBounds<u64>, bytes_max: u64) -> Vec<Found> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let mut found = Vec::new();
        let mut bytes = 0;
        for index in start.max(self.first_index())..end.min(self.next_index()) {
            let Some(slot) = self.slot(index) else { break };
            bytes += u64::from(slot.length);
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            let Slot { log_id, length, place, cached, .. } = slot;
            found.push(match (cached, place) {
                (Some(entry), _) => Found::Cached(entry.clone()),
                (None, Some(place)) => {
                    Found::Stored(Stored { log_id: *log_id, place: *place, length: *length })
                }
                (None, None) => unreachable!("an entry without a place stays cached"),
            });
        }
        found
    }

    /// Payload bytes of the entries after `index`.
    pub(crate) fn bytes_after(&self, index: Option<u64>) -> u64 {
        let Some(first) = self.slots.front() else { return 0 };
        let before = match index {
            Some(index) if index >= first.log_id.index => {
                self.slot(index).map_or(self.bytes_total, |slot| slot.bytes_before_end)
            }
            _ => first.bytes_before_end - u64::from(first.length),
        };
        self.bytes_total - before
    }

    /// Index up to which entries can go when the newest `entries_keep` and `bytes_keep` are wanted.
    pub(crate) fn purgeable(&self, entries_keep: u64, bytes_keep: u64) -> Option<u64> {
        let with_all_after = |slot: &Slot| self.bytes_total - slot.bytes_before_end + u64::from(slot.length);
        let by_bytes = self.slots.partition_point(|slot| with_all_after(slot) > bytes_keep);
        let by_count = self.slots.len().saturating_sub(usize::try_from(entries_keep).unwrap_or(usize::MAX));
        let gone = by_bytes.max(by_count);
        gone.checked_sub(1).and_then(|at| self.slots.get(at)).map(|slot| slot.log_id.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::EntryPayload;
    use openraft::CommittedLeaderId;

    fn id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(1, 1), index)
    }

    fn filled(count: u64) -> GroupIndex {
        let mut index = GroupIndex::default();
        for at in 0..count {
            index.push(Entry { log_id: id(at), payload: EntryPayload::Blank }, 10);
        }
        index
    }

    #[test]
    fn bytes_after_counts_what_is_left() {
        let mut index = filled(10);
        assert_eq!((index.bytes_after(None), index.bytes_after(Some(3))), (100, 60));
        index.purge(id(4));
        index.truncate(9);
        assert_eq!(
            (index.bytes_after(None), index.bytes_after(Some(2)), index.bytes_after(Some(8))),
            (40, 40, 0)
        );
        assert_eq!((index.first_index(), index.next_index()), (5, 9));
    }

    #[test]
    fn purgeable_keeps_what_is_asked_for() {
        let index = filled(10);
        assert_eq!(index.purgeable(3, 1000), Some(6));
        assert_eq!(index.purgeable(100, 20), Some(7));
        assert_eq!(index.purgeable(100, 1000), None);
    }

    #[test]
    fn a_purge_that_was_not_written_is_taken_back() {
        let mut index = filled(10);
        for at in 0..10 {
            index.set_place(id(at), Place { segment: 1, offset: at * 64 });
        }
        index.cover(id(2));
        assert!(index.purge_when_covered(id(2)));
        index.committed = Some(id(30));
        // One that hides some, then one that is ahead of all: as by snapshots of which none is installed.
        assert!(!index.purge_when_covered(id(5)) && !index.purge_when_covered(id(30)));
        assert_eq!((index.first_index(), index.last_log_id()), (31, Some(id(30))));
        assert_eq!(index.awaits_cover(), Some(false));
        index.abandon();
        assert_eq!(index.awaits_cover(), Some(true));
        index.restore();
        assert_eq!((index.purged, index.first_index(), index.next_index()), (Some(id(2)), 3, 10));
        assert_eq!((index.find(.., u64::MAX).len(), index.bytes_after(None)), (7, 70));
        assert_eq!((index.awaits_cover(), index.committed), (None, None));

        // One that is written is not.
        assert!(!index.purge_when_covered(id(5)));
        assert_eq!(index.cover(id(4)), None);
        assert_eq!(index.cover(id(7)), Some(id(5)));
        index.restore();
        assert_eq!((index.purged, index.find(.., u64::MAX).len()), (Some(id(5)), 4));
    }

    #[test]
    fn entries_without_a_place_are_never_evicted() {
        let mut index = filled(4);
        index.evict(0);
        assert_eq!(index.find(.., u64::MAX).len(), 4);
        for at in 0..4 {
            index.set_place(id(at), Place { segment: 1, offset: at * 64 });
        }
        index.evict(10);
        let cached =
            index.find(.., u64::MAX).iter().filter(|found| matches!(found, Found::Cached(_))).count();
        assert_eq!(cached, 1);
    }

    #[test]
    fn a_byte_limit_returns_at_least_one_entry() {
        let index = filled(4);
        assert_eq!(index.find(.., 0).len(), 1);
        assert_eq!(index.find(1.., 20).len(), 2);
    }
}
