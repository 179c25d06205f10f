//! How fast background work may go: so many bytes a second, at most one second's worth saved up.

use std::time::{Duration, Instant};

use holdfast_model::limits::{RECORD_PAYLOAD_MAX, SECTOR_SIZE};

/// The largest single piece of background work in bytes: one record. It is allowed however low the rate.
const PIECE_MAX: u64 = (RECORD_PAYLOAD_MAX + SECTOR_SIZE) as u64;

/// An allowance of bytes that fills up with time.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    allowance: u64,
    reckoned: Option<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), allowance: 0, reckoned: None }
    }

    /// Takes `bytes` from the allowance. When there is not enough yet: how long until there is.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) -> Result<(), Duration> {
        let most = self.bytes_per_second.max(PIECE_MAX);
        let since = self
            .reckoned
            .replace(now)
            .map_or(Duration::from_secs(1), |then| now.saturating_duration_since(then));
        let earned = (since.as_secs_f64().min(1.0) * self.bytes_per_second as f64) as u64;
        self.allowance = (self.allowance + earned).min(most);
        match self.allowance.checked_sub(bytes) {
            Some(rest) => {
                self.allowance = rest;
                Ok(())
            }
            None => {
                let missing = (bytes - self.allowance) as f64;
                Err(Duration::from_secs_f64(missing / self.bytes_per_second as f64)
                    .max(Duration::from_millis(1)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_the_rate_is_kept() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000_000);
        let (mut now, mut taken) = (start, 0u64);
        while now < start + Duration::from_secs(20) {
            match pace.take(300_000, now) {
                Ok(()) => taken += 300_000,
                Err(pause) => now += pause,
            }
        }
        assert!((19_000_000..=21_500_000).contains(&taken), "{taken} bytes in 20 s at 1 MB/s");
    }
}
