//! When a read asks elsewhere because its shard is late, and how often it may.
//!
//! A drive or node that is slow for a moment would hold up every read that needs one of its shards. So a read
//! that has waited several times as long as reads usually take rebuilds the shard from others meanwhile, and
//! goes on with whichever comes first ("The Tail at Scale", Dean and Barroso, 2013). Both costs are bounded:
//! the time a read waits before, and the share of reads that ask twice.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

/// A read waits at least this long for its shard before it asks elsewhere.
const PATIENCE_MIN: Duration = Duration::from_millis(25);

/// And at most this long.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// A read is late when it takes so many times as long as reads usually do.
const LATE_FACTOR: u32 = 8;

/// What a read is thought to take before any was measured.
const TYPICAL_AT_FIRST: Duration = Duration::from_millis(30);

/// Share of one measured read in what is typical: one in so many.
const TYPICAL_SHARE: i64 = 32;

/// What one read adds to the allowance, in hundredths of a hedge: one read in twenty may ask twice.
const EARNED: i64 = 5;

/// One hedge.
const COST: i64 = 100;

/// Hedges that may be saved up.
const SAVED_MAX: i64 = 20 * COST;

/// One read in so many goes to a drive that is slow, so that it is known when it no longer is.
const PROBE_INTERVAL: u64 = 32;

/// How long reads take, and how many may ask twice.
#[derive(Debug)]
pub(crate) struct Hedges {
    probes: AtomicU64,
    typical_micros: AtomicU64,
    allowance: AtomicI64,
}

impl Default for Hedges {
    fn default() -> Self {
        let typical = u64::try_from(TYPICAL_AT_FIRST.as_micros()).expect("a few milliseconds");
        Self {
            probes: AtomicU64::new(1),
            typical_micros: AtomicU64::new(typical),
            allowance: AtomicI64::new(SAVED_MAX),
        }
    }
}

impl Hedges {
    /// How long to wait for a shard before others are asked, on a drive that is known to be slow or not.
    pub(crate) fn patience(&self, slow: bool) -> Duration {
        if slow {
            return PATIENCE_MIN;
        }
        let typical = Duration::from_micros(self.typical_micros.load(Ordering::Relaxed));
        (typical * LATE_FACTOR).clamp(PATIENCE_MIN, PATIENCE_MAX)
    }

    /// Whether a drive that is slow is asked all the same, this once.
    pub(crate) fn is_probe(&self) -> bool {
        self.probes.fetch_add(1, Ordering::Relaxed).is_multiple_of(PROBE_INTERVAL)
    }

    /// A read was answered after this long, or was given up on after it.
    pub(crate) fn took(&self, time: Duration) {
        let took = i64::try_from(time.min(PATIENCE_MAX).as_micros()).expect("at most a second");
        // Two at once may lose one of them: it is an estimate.
        let typical = self.typical_micros.load(Ordering::Relaxed).cast_signed();
        let moved = typical + (took - typical) / TYPICAL_SHARE;
        self.typical_micros.store(moved.max(0).cast_unsigned(), Ordering::Relaxed);
        let saved = self.allowance.load(Ordering::Relaxed);
        if saved < SAVED_MAX {
            self.allowance.fetch_add(EARNED, Ordering::Relaxed);
        }
    }

    /// Whether a read that is late may ask elsewhere; takes it from the allowance.
    pub(crate) fn may_ask(&self) -> bool {
        let taken = self.allowance.fetch_sub(COST, Ordering::Relaxed) >= COST;
        if !taken {
            self.allowance.fetch_add(COST, Ordering::Relaxed);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_what_reads_take_and_stays_within_its_limits() {
        let hedges = Hedges::default();
        for _ in 0..1000 {
            hedges.took(Duration::from_millis(10));
        }
        let usual = hedges.patience(false);
        assert!((Duration::from_millis(70)..=Duration::from_millis(90)).contains(&usual), "{usual:?}");
        assert_eq!(hedges.patience(true), PATIENCE_MIN);
        for _ in 0..1000 {
            hedges.took(Duration::from_secs(10));
        }
        assert_eq!(hedges.patience(false), PATIENCE_MAX);
        for _ in 0..1000 {
            hedges.took(Duration::from_micros(50));
        }
        assert_eq!(hedges.patience(false), PATIENCE_MIN);
    }

    #[test]
    fn one_read_in_twenty_may_ask_twice_in_the_long_run() {
        let hedges = Hedges::default();
        let mut asked = 0;
        for _ in 0..10_000 {
            hedges.took(Duration::from_millis(1));
            asked += i64::from(hedges.may_ask());
        }
        assert!((500..=500 + SAVED_MAX / COST).contains(&asked), "{asked}");
    }
}
