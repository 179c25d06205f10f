//! How much of what the drives hold has to move for all of them to be equally full.
//!
//! Pure. Equally full means the same share of each drive's capacity, so that unequal drives are used wholly.

use std::collections::BTreeMap;

use crate::{DriveId, NodeId};

/// Shares of two drives may differ by this much before anything is moved.
pub const IMBALANCE_MAX: f64 = 0.05;

/// What one drive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// The drive.
    pub drive: DriveId,
    /// Its node.
    pub node: NodeId,
    /// Bytes it offers.
    pub capacity_bytes: u64,
    /// Bytes in live records.
    pub live_bytes: u64,
}

impl Fill {
    fn share(&self) -> f64 {
        if self.capacity_bytes == 0 { 0.0 } else { self.live_bytes as f64 / self.capacity_bytes as f64 }
    }
}

/// What has to move.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Balance {
    /// Bytes above the mean share, by drive.
    pub excess: BTreeMap<DriveId, u64>,
    /// Bytes below it.
    pub deficit: BTreeMap<DriveId, u64>,
}

/// How far apart the fullest and the emptiest drive are: 0 to 1.
#[must_use]
pub fn imbalance(fills: &[Fill]) -> f64 {
    let shares = || fills.iter().map(Fill::share);
    (shares().fold(0.0, f64::max) - shares().fold(1.0, f64::min)).max(0.0)
}

/// What has to move for every drive to have the mean share: nothing while they are close enough.
#[must_use]
pub fn balance(fills: &[Fill]) -> Balance {
    let mut balance = Balance::default();
    if imbalance(fills) <= IMBALANCE_MAX {
        return balance;
    }
    let sum = |of: fn(&Fill) -> u64| fills.iter().map(|fill| u128::from(of(fill))).sum::<u128>();
    let (live, capacity) = (sum(|fill| fill.live_bytes), sum(|fill| fill.capacity_bytes).max(1));
    for fill in fills {
        let due = u64::try_from(u128::from(fill.capacity_bytes) * live / capacity).unwrap_or(u64::MAX);
        match fill.live_bytes.cmp(&due) {
            std::cmp::Ordering::Greater => balance.excess.insert(fill.drive, fill.live_bytes - due),
            std::cmp::Ordering::Less => balance.deficit.insert(fill.drive, due - fill.live_bytes),
            std::cmp::Ordering::Equal => None,
        };
    }
    balance
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fills(drives: &[(u64, u64)]) -> Vec<Fill> {
        let fill = |(i, (capacity, live)): (usize, &(u64, u64))| Fill {
            drive: DriveId::from_bytes([i as u8; 16]),
            node: NodeId::new(i as u64),
            capacity_bytes: *capacity,
            live_bytes: (*live).min(*capacity),
        };
        drives.iter().enumerate().map(fill).collect()
    }

    proptest! {
        #[test]
        fn carried_out_it_makes_shares_equal_and_moves_no_more_than_that_takes(
            drives in prop::collection::vec((1_000_000..9_000_000u64, 0..9_000_000u64), 2..40),
        ) {
            let mut fills = fills(&drives);
            let balance = balance(&fills);
            let (out, within): (u64, u64) = (balance.excess.values().sum(), balance.deficit.values().sum());
            prop_assert!(within.abs_diff(out) <= fills.len() as u64);
            for fill in &mut fills {
                fill.live_bytes -= balance.excess.get(&fill.drive).unwrap_or(&0);
                fill.live_bytes += balance.deficit.get(&fill.drive).unwrap_or(&0);
            }
            prop_assert!(imbalance(&fills) <= IMBALANCE_MAX);
            let balance = super::balance(&fills);
            prop_assert!(balance.excess.is_empty(), "once balanced nothing moves");
        }
    }

    #[test]
    fn an_empty_drive_among_full_ones_takes_its_share_and_close_ones_are_left_alone() {
        let balance = balance(&fills(&[(1000, 400), (1000, 400), (1000, 400), (1000, 0)]));
        assert_eq!(balance.excess.values().collect::<Vec<_>>(), [&100, &100, &100]);
        assert_eq!(balance.deficit.values().collect::<Vec<_>>(), [&300]);
        assert_eq!(super::balance(&fills(&[(1000, 400), (2000, 720), (500, 205)])), Balance::default());
        assert_eq!(super::balance(&[]), Balance::default());
    }
}
