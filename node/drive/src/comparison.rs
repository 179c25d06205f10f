//! Which of a node's drives lag behind the others.
//!
//! A drive that begins to fail often still answers, ten times as late as its neighbours. No fixed limit tells
//! that apart from a machine under load, where all of them are late; the neighbours do. So drives are
//! compared in rounds: what operations took since the round before, kind by kind. One that takes several
//! times what is usual among the others, round after round, lags behind, until it has kept up for a while.
//!
//! Pure: counters in, names out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use holdfast_model::DriveId;

use crate::types::{DriveCounters, Latency};

/// Operations of one kind that a drive must have done in a round to be compared.
const OPERATIONS_MIN: u64 = 8;

/// Other drives there must be to be compared with.
const OTHERS_MIN: usize = 2;

/// A drive lags behind in a round when its operations take so many times what is usual among the others.
const LAG_FACTOR: f64 = 4.0;

/// And so long at least: differences below this are of no use to anyone.
const LAG_MIN: Duration = Duration::from_millis(10);

/// Rounds in a row in which a drive must lag before it is said to.
const ROUNDS_TO_LAG: u32 = 3;

/// Rounds in a row in which it must not, until that is taken back.
const ROUNDS_TO_RECOVER: u32 = 10;

/// What is known of each drive from the rounds so far.
#[derive(Debug, Default)]
pub struct Comparison {
    drives: BTreeMap<DriveId, Known>,
}

#[derive(Debug, Default)]
struct Known {
    before: [Latency; 3],
    lagged_rounds: u32,
    kept_up_rounds: u32,
    lags: bool,
}

impl Comparison {
    /// Ends a round: takes the counters of all drives, says which ones lag behind.
    pub fn round(&mut self, counters: &[(DriveId, DriveCounters)]) -> BTreeSet<DriveId> {
        self.drives.retain(|drive, _| counters.iter().any(|(other, _)| other == drive));
        let mut took: BTreeMap<DriveId, [Option<f64>; 3]> = BTreeMap::new();
        for (drive, counters) in counters {
            let now = [counters.read_latency, counters.write_latency, counters.flush_latency];
            let known = self.drives.entry(*drive).or_default();
            let before = std::mem::replace(&mut known.before, now);
            took.insert(*drive, std::array::from_fn(|kind| mean_micros(&before[kind], &now[kind])));
        }
        for (drive, known) in &mut self.drives {
            let lagged = (0..3).any(|kind| {
                let others = took.iter().filter(|(other, _)| *other != drive);
                let others: Vec<f64> = others.filter_map(|(_, took)| took[kind]).collect();
                took[drive][kind].is_some_and(|mine| lags(mine, others))
            });
            if lagged {
                known.lagged_rounds += 1;
                known.kept_up_rounds = 0;
            } else {
                known.lagged_rounds = 0;
                known.kept_up_rounds += 1;
            }
            known.lags = known.lagged_rounds >= ROUNDS_TO_LAG
                || known.lags && known.kept_up_rounds < ROUNDS_TO_RECOVER;
        }
        self.drives.iter().filter(|(_, known)| known.lags).map(|(drive, _)| *drive).collect()
    }
}

/// What an operation took on average in this round; `None` when there were too few.
fn mean_micros(before: &Latency, now: &Latency) -> Option<f64> {
    let count = now.count.saturating_sub(before.count);
    let total = now.total_micros.saturating_sub(before.total_micros);
    (count >= OPERATIONS_MIN).then(|| total as f64 / count as f64)
}

fn lags(mine: f64, mut others: Vec<f64>) -> bool {
    if others.len() < OTHERS_MIN || mine < LAG_MIN.as_micros() as f64 {
        return false;
    }
    others.sort_by(f64::total_cmp);
    mine > LAG_FACTOR * others[others.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drives whose reads take so many milliseconds each, ten a round.
    struct Node {
        counters: Vec<(DriveId, DriveCounters)>,
        comparison: Comparison,
    }

    impl Node {
        fn new(drives: u8) -> Self {
            let drive = |n| (DriveId::from_bytes([n; 16]), DriveCounters::default());
            Self { counters: (0..drives).map(drive).collect(), comparison: Comparison::default() }
        }

        fn round(&mut self, millis: &[u64], operations: u64) -> Vec<u8> {
            for ((_, counters), millis) in self.counters.iter_mut().zip(millis) {
                counters.read_latency.count += operations;
                counters.read_latency.total_micros += operations * millis * 1000;
            }
            self.comparison.round(&self.counters).into_iter().map(|drive| drive.as_bytes()[0]).collect()
        }
    }

    #[test]
    fn a_drive_lags_after_three_slow_rounds_and_recovers_after_ten_good_ones() {
        let mut node = Node::new(4);
        assert!(node.round(&[5, 5, 80, 5], 10).is_empty());
        assert!(node.round(&[5, 5, 80, 5], 10).is_empty());
        assert!(node.round(&[5, 5, 5, 5], 10).is_empty(), "not in a row");
        node.round(&[5, 5, 80, 5], 10);
        node.round(&[5, 5, 80, 5], 10);
        assert_eq!(node.round(&[5, 5, 80, 5], 10), [2]);
        for _ in 0..ROUNDS_TO_RECOVER - 1 {
            assert_eq!(node.round(&[5, 5, 6, 5], 10), [2]);
        }
        assert!(node.round(&[5, 5, 6, 5], 10).is_empty());
    }

    #[test]
    fn drives_that_are_all_late_do_not_lag_behind_each_other() {
        let mut node = Node::new(4);
        for _ in 0..20 {
            assert!(node.round(&[900, 800, 1000, 700], 10).is_empty());
        }
    }

    #[test]
    fn few_operations_small_differences_and_too_few_others_say_nothing() {
        for (drives, millis, operations) in
            [(4, [1, 1, 80, 1], 7), (4, [1, 1, 9, 1], 10), (2, [80, 1, 0, 0], 10)]
        {
            let mut node = Node::new(drives);
            for _ in 0..20 {
                assert!(node.round(&millis, operations).is_empty());
            }
        }
    }
}
