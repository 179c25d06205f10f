//! The times that commands carry.
//!
//! A partition's clock is the greatest time that any command told it, never goes back, and refuses commands that are much
//! older, because each could be a repetition. After one node's clock was ahead for a moment, every command of the others
//! would be too old until time has caught up with it. So a node that is told so looks how far ahead the partition is, and
//! from then on goes on from there, until its own clock is further.

use std::collections::HashMap;

use holdfast_model::{PartitionId, UnixMillis};
use parking_lot::Mutex;

use crate::host::now;

/// What the clocks of partitions show that are ahead of this node's.
#[derive(Debug, Default)]
pub(crate) struct Stamps(Mutex<HashMap<PartitionId, UnixMillis>>);

impl Stamps {
    /// The time of the next command: this node's, or a millisecond after the latest that is known of a partition that is
    /// ahead. It is not the same again, because a partition forgets requests by its clock, which therefore must go on.
    pub(crate) fn next(&self, partition: PartitionId) -> UnixMillis {
        let now = now();
        let mut ahead = self.0.lock();
        let Some(known) = ahead.get_mut(&partition) else { return now };
        if *known < now {
            ahead.remove(&partition);
            return now;
        }
        *known = UnixMillis::new(known.get().saturating_add(1));
        *known
    }

    /// A partition's clock shows `clock`, and took this node's for too old.
    pub(crate) fn learn(&self, partition: PartitionId, clock: UnixMillis) {
        let now = now();
        let ahead_seconds = clock.get().saturating_sub(now.get()) / 1000;
        tracing::warn!(%partition, ahead_seconds, "a partition's clock is ahead of this node's: a node's clock is or was wrong");
        let mut ahead = self.0.lock();
        let known = ahead.entry(partition).or_insert(clock);
        *known = clock.max(*known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_on_from_a_clock_that_is_ahead_until_time_has_caught_up() {
        let (stamps, partition, other) = (Stamps::default(), PartitionId::new(1), PartitionId::new(2));
        let begun = now();
        assert!(stamps.next(partition) >= begun, "nobody is ahead");
        let ahead = UnixMillis::new(begun.get() + 60_000);
        stamps.learn(partition, ahead);
        let stamped: Vec<u64> = (0..3).map(|_| stamps.next(partition).get()).collect();
        assert_eq!(stamped, [ahead.get() + 1, ahead.get() + 2, ahead.get() + 3]);
        stamps.learn(partition, ahead);
        assert_eq!(stamps.next(partition).get(), ahead.get() + 4, "what it told itself counts");
        assert!(stamps.next(other) < ahead, "another partition's clock is its own");
        stamps.0.lock().insert(partition, begun);
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(stamps.next(partition) > begun && stamps.0.lock().is_empty(), "it has caught up");
    }
}
