//! Which sectors of an arena are free. Pure bookkeeping: no memory is touched here.
//!
//! Buffers of up to [`SMALL_MAX`] sectors come from the high end and larger ones from the low end, so that
//! many short-lived small buffers do not cut the room of large ones into pieces.
//!
//! Free sectors may lie in holes that are all too short. Then as many are lent to memory that lies elsewhere, and
//! count as taken; so a request fails only when too few are free, wherever they are.
//!
//! Invariants: holes are disjoint, never adjacent (they are joined on return) and lie inside the arena; they
//! hold the free sectors and the lent ones.

use std::collections::BTreeMap;

/// Sectors up to which a request counts as small.
const SMALL_MAX: usize = 16;

/// Free sectors as a map from the start of a hole to its length.
#[derive(Debug)]
pub(crate) struct Space {
    holes: BTreeMap<usize, usize>,
    free: usize,
    lent: usize,
    total: usize,
}

impl Space {
    /// `total` sectors, all free.
    pub(crate) fn new(total: usize) -> Self {
        let holes = if total == 0 { BTreeMap::new() } else { BTreeMap::from([(0, total)]) };
        Self { holes, free: total, lent: 0, total }
    }

    /// Free sectors, contiguous or not.
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// Sectors managed.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Takes `count` contiguous sectors and returns the first, or `None` when no hole is that long.
    pub(crate) fn take(&mut self, count: usize) -> Option<usize> {
        debug_assert!(count > 0, "a buffer has at least one sector");
        if count > self.free {
            return None;
        }
        let small = count <= SMALL_MAX;
        let fits = |(_, length): &(&usize, &usize)| **length >= count;
        let hole = if small { self.holes.iter().rev().find(fits) } else { self.holes.iter().find(fits) };
        let (&start, &length) = hole?;
        let rest = length - count;
        let taken = if small {
            match self.holes.get_mut(&start) {
                Some(length) if rest > 0 => *length = rest,
                _ => drop(self.holes.remove(&start)),
            }
            start + rest
        } else {
            self.holes.remove(&start);
            if rest > 0 {
                self.holes.insert(start + count, rest);
            }
            start
        };
        self.free -= count;
        Some(taken)
    }

    /// Takes `count` sectors that are free, wherever they are, for memory that lies elsewhere. Whether there are so many.
    pub(crate) fn lend(&mut self, count: usize) -> bool {
        let enough = count <= self.free;
        if enough {
            self.free -= count;
            self.lent += count;
        }
        enough
    }

    /// Returns `count` sectors that were lent.
    pub(crate) fn take_back(&mut self, count: usize) {
        assert!(count <= self.lent, "{count} sectors were not lent");
        self.lent -= count;
        self.free += count;
    }

    /// Returns `count` sectors from `start` on, joining them with free neighbours.
    pub(crate) fn give_back(&mut self, start: usize, count: usize) {
        assert!(count > 0 && start + count <= self.total, "sectors {start}+{count} are not of this arena");
        let before = self.holes.range(..start).next_back().map(|(&s, &l)| (s, l));
        let after = self.holes.range(start..).next().map(|(&s, &l)| (s, l));
        assert!(before.is_none_or(|(s, l)| s + l <= start), "sectors {start}+{count} were free already");
        assert!(after.is_none_or(|(s, _)| s >= start + count), "sectors {start}+{count} were free already");
        let (mut first, mut length) = (start, count);
        if let Some((s, l)) = before.filter(|(s, l)| s + l == start) {
            (first, length) = (s, l + length);
        }
        if let Some((s, l)) = after.filter(|(s, _)| *s == start + count) {
            self.holes.remove(&s);
            length += l;
        }
        self.holes.insert(first, length);
        self.free += count;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_space_gives_nothing_and_returns_join() {
        let mut space = Space::new(64);
        let a = space.take(32).unwrap();
        let b = space.take(32).unwrap();
        assert_eq!((space.take(1), space.free()), (None, 0));
        space.give_back(a, 32);
        space.give_back(b, 32);
        assert_eq!(space.take(64), Some(0));
    }

    #[test]
    fn what_is_free_in_pieces_can_be_lent() {
        let mut space = Space::new(256);
        let starts: Vec<usize> = (0..8).map(|_| space.take(32).unwrap()).collect();
        for start in starts.iter().step_by(2) {
            space.give_back(*start, 32);
        }
        assert_eq!((space.free(), space.take(64)), (128, None));
        assert!(space.lend(64) && space.lend(40) && !space.lend(32));
        // There is a hole, and nothing left to give.
        assert_eq!((space.free(), space.take(32)), (24, None));
        space.take_back(64);
        space.take_back(40);
        assert_eq!(space.take(32), Some(0));
    }

    #[test]
    #[should_panic(expected = "free already")]
    fn returning_twice_is_caught() {
        let mut space = Space::new(8);
        let a = space.take(4).unwrap();
        space.give_back(a, 4);
        space.give_back(a, 4);
    }

    proptest! {
        #[test]
        fn taken_ranges_never_overlap_and_all_comes_back(ops in prop::collection::vec((1usize..40, any::<bool>()), 1..200)) {
            let mut space = Space::new(256);
            let mut held: Vec<(usize, usize)> = Vec::new();
            let mut lent: Vec<usize> = Vec::new();
            for (count, release) in ops {
                if release && !held.is_empty() {
                    let (start, count) = held.swap_remove(count % held.len());
                    space.give_back(start, count);
                } else if release && let Some(count) = lent.pop() {
                    space.take_back(count);
                } else if let Some(start) = space.take(count) {
                    prop_assert!(start + count <= 256);
                    prop_assert!(held.iter().all(|(s, c)| start + count <= *s || s + c <= start));
                    held.push((start, count));
                } else if space.lend(count) {
                    lent.push(count);
                }
                let taken = held.iter().map(|h| h.1).chain(lent.iter().copied()).sum::<usize>();
                prop_assert_eq!(space.free() + taken, 256);
            }
            lent.into_iter().for_each(|count| space.take_back(count));
            for (start, count) in held {
                space.give_back(start, count);
            }
            prop_assert_eq!(space.take(256), Some(0));
        }
    }
}
