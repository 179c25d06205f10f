//! Shards whose repair failed, to be tried again: what kept one from being read, written or decided has mostly passed soon,
//! and the next scrub may be two weeks away.

use std::{collections::BTreeMap, time::Duration};

use holdfast_model::{DriveId, ShardIndex, StripeId};
use holdfast_store::{BadShard, Fault};
use tokio::time::Instant;

/// The first pause; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(10);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Tries of one shard, over an hour and a half; then it is left to the next read or scrub.
const TRIES_MAX: u32 = 14;

/// Shards that are remembered (some 100 bytes each). Of more, the next scrub finds the rest.
const REMEMBERED_MAX: usize = 4096;

/// Each shard's findings are one, and in an order that does not depend on chance.
pub(super) type Name = (StripeId, ShardIndex, DriveId, bool);

pub(super) fn name(bad: &BadShard) -> Name {
    (bad.stripe, bad.index, bad.place.drive, bad.fault == Fault::DoesNotOpen)
}

#[derive(Debug)]
struct Waiting {
    bad: BadShard,
    tries: u32,
    /// `None` while it is tried.
    due: Option<Instant>,
}

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Later(BTreeMap<Name, Waiting>);

impl Later {
    /// A try failed. In how long the next one is due; `None` when there will be none.
    pub(super) fn failed(&mut self, bad: BadShard) -> Option<Duration> {
        let known = self.0.len();
        let name = name(&bad);
        if !self.0.contains_key(&name) && known >= REMEMBERED_MAX {
            return None;
        }
        let waiting = self.0.entry(name).or_insert(Waiting { bad, tries: 0, due: None });
        waiting.tries += 1;
        if waiting.tries >= TRIES_MAX {
            self.0.remove(&name);
            return None;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << (waiting.tries - 1)).min(PAUSE_MAX);
        waiting.due = Some(Instant::now() + pause);
        Some(pause)
    }

    /// It is repaired, or nothing to be repaired any more.
    pub(super) fn done(&mut self, bad: &BadShard) {
        self.0.remove(&name(bad));
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().filter_map(|waiting| waiting.due).min()
    }

    /// Those that are due, to be tried now.
    pub(super) fn take_due(&mut self) -> Vec<BadShard> {
        let now = Instant::now();
        let due = self.0.values_mut().filter(|waiting| waiting.due.is_some_and(|due| due <= now));
        due.map(|waiting| {
            waiting.due = None;
            waiting.bad
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use holdfast_model::{NodeId, placement::Place};

    use super::*;

    fn bad(n: u16) -> BadShard {
        let mut stripe = [0; 16];
        stripe[..2].copy_from_slice(&n.to_be_bytes());
        BadShard {
            stripe: StripeId::from_bytes(stripe),
            index: ShardIndex::new(1),
            place: Place { node: NodeId::new(1), drive: DriveId::from_bytes([7; 16]) },
            fault: Fault::Unreadable,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_is_tried_again_ever_later_and_then_left_to_the_scrub() {
        let mut later = Later::default();
        let mut pauses = Vec::new();
        while let Some(pause) = later.failed(bad(1)) {
            assert!(later.take_due().is_empty());
            assert_eq!(later.next(), Some(Instant::now() + pause));
            tokio::time::advance(pause).await;
            assert_eq!(later.take_due(), [bad(1)]);
            assert_eq!((later.next(), later.take_due()), (None, vec![]), "it is being tried");
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600, 600, 600]);
        // Found again, it begins anew.
        assert_eq!(later.failed(bad(1)), Some(PAUSE_MIN));
        later.done(&bad(1));
        assert_eq!(later.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_is_said() {
        let mut later = Later::default();
        for n in 0..REMEMBERED_MAX {
            assert!(later.failed(bad(u16::try_from(n).unwrap())).is_some());
        }
        assert_eq!(later.failed(bad(u16::MAX)), None);
        assert_eq!(later.failed(bad(3)), Some(PAUSE_MIN * 2), "one that is known");
        tokio::time::advance(PAUSE_MIN).await;
        assert_eq!(later.take_due().len(), REMEMBERED_MAX - 1);
    }
}
