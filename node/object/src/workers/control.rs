//! What operators ask of workers: pause, impact, hours. Kept by the control group, so that neither a restart
//! nor a change of leaders forgets it, and handed to every node with the directory.
//!
//! A worker asks before each stripe or object it takes up ([`Board::leave`]) and rests after it as its impact
//! says. It never holds anything while it waits.

use std::{collections::BTreeMap, time::Duration};

use holdfast_model::UnixMillis;
use serde::{Deserialize, Serialize};

use super::status::{Board, Kind};
use crate::host::now;

/// How often a worker that may not run looks whether it may.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// How much longer than a piece of work the rest after it is, at low impact.
const LOW_RESTS: u32 = 19;

/// The longest rest after one piece of work.
const REST_MAX: Duration = Duration::from_secs(5);

const HOUR_MILLIS: u64 = 3_600_000;

/// How much of the drives' and processors' time a worker may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Impact {
    /// One thing at a time, and a rest nineteen times as long after it: a twentieth of one stream.
    Low,
    /// Four at once.
    #[default]
    Medium,
    /// Eight at once.
    High,
}

impl Impact {
    /// Pieces of work at once.
    #[must_use]
    pub const fn parallel(self) -> usize {
        match self {
            Self::Low => 1,
            Self::Medium => 4,
            Self::High => 8,
        }
    }

    /// The rest after a piece of work that took so long.
    #[must_use]
    pub fn rest(self, took: Duration) -> Duration {
        match self {
            Self::Low => (took * LOW_RESTS).min(REST_MAX),
            Self::Medium | Self::High => Duration::ZERO,
        }
    }

    /// Rests so long.
    pub(crate) async fn rested(self, took: Duration) {
        let rest = self.rest(took);
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}

/// The hours of a day (UTC) in which a worker may run: from the first up to, not including, the second. May
/// go past midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    /// 0 to 23.
    pub from: u8,
    /// 0 to 23. Equal to `from`: all day.
    pub until: u8,
}

impl Hours {
    /// Whether `at` is in them.
    #[must_use]
    pub fn contain(self, at: UnixMillis) -> bool {
        let hour = (at.get() / HOUR_MILLIS % 24) as u8;
        match self.from.cmp(&self.until) {
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Less => (self.from..self.until).contains(&hour),
            std::cmp::Ordering::Greater => hour >= self.from || hour < self.until,
        }
    }
}

/// What is asked of one kind of worker, on all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// It takes up nothing new.
    pub paused: bool,
    /// How much it may take.
    pub impact: Impact,
    /// When it may run; `None` is always.
    pub hours: Option<Hours>,
}

impl Order {
    /// What a kind does when nobody asked for anything else.
    #[must_use]
    pub const fn usual(kind: Kind) -> Self {
        let impact = match kind {
            Kind::Rebuild | Kind::Repair | Kind::Smartfail | Kind::Sweep | Kind::Level | Kind::Events => {
                Impact::Medium
            }
            Kind::Scrub | Kind::Rebalance | Kind::Reclaim => Impact::Low,
        };
        Self { paused: false, impact, hours: None }
    }

    /// Whether it may take something up now.
    #[must_use]
    pub fn allows(&self, at: UnixMillis) -> bool {
        !self.paused && self.hours.is_none_or(|hours| hours.contain(at))
    }
}

/// What is asked of all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// By kind; a kind that is not named does as usual.
    pub kinds: BTreeMap<Kind, Order>,
    /// Stripes written before this are to be as wide as the drives allow now.
    #[serde(default)]
    pub widen_before: Option<UnixMillis>,
    /// Drives whose space is set aside for rebuilding; `None`: as is usual.
    #[serde(default)]
    pub spare_drives: Option<u8>,
}

impl Orders {
    /// How much a scrub may take. One that an operator asks for does not rest, unless operators said what scrubs may
    /// take: somebody waits for it.
    #[must_use]
    pub fn of_scrub(&self, asked: bool) -> Impact {
        match self.kinds.get(&Kind::Scrub) {
            None if asked => Impact::Medium,
            _ => self.of(Kind::Scrub).impact,
        }
    }

    /// What is asked of one kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> Order {
        self.kinds.get(&kind).copied().unwrap_or_else(|| Order::usual(kind))
    }
}

impl Board {
    /// Waits until a worker of this kind may take something up; returns how much it may take.
    pub(crate) async fn leave(&self, kind: Kind) -> Impact {
        loop {
            if self.may_run(kind) {
                return self.orders().of(kind).impact;
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }

    /// Whether a worker of this kind may take something up now, for those that have other work meanwhile.
    pub(crate) fn may_run(&self, kind: Kind) -> bool {
        let allowed = self.orders().of(kind).allows(now());
        self.set_held(kind, !allowed);
        allowed
    }

    /// Rests after a piece of work that took so long.
    pub(crate) async fn rest(&self, kind: Kind, took: Duration) {
        self.orders().of(kind).impact.rested(took).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: u64) -> UnixMillis {
        UnixMillis::new(20_000 * 24 * HOUR_MILLIS + hour * HOUR_MILLIS + 5)
    }

    #[test]
    fn hours_may_go_past_midnight() {
        let night = Hours { from: 22, until: 6 };
        let open: Vec<u64> = (0..24).filter(|hour| night.contain(at(*hour))).collect();
        assert_eq!(open, [0, 1, 2, 3, 4, 5, 22, 23]);
        let day = Hours { from: 6, until: 22 };
        assert!((0..24).all(|hour| day.contain(at(hour)) != night.contain(at(hour))));
        assert!((0..24).all(|hour| Hours { from: 3, until: 3 }.contain(at(hour))));
    }

    #[test]
    fn what_is_asked_survives_text_and_what_is_not_is_usual() {
        let mut orders = Orders::default();
        assert!(orders.of(Kind::Rebuild).allows(at(3)));
        let night = Order { paused: false, impact: Impact::High, hours: Some(Hours { from: 22, until: 6 }) };
        orders.kinds.insert(Kind::Rebalance, night);
        orders.kinds.insert(Kind::Scrub, Order { paused: true, ..Order::usual(Kind::Scrub) });
        let text = serde_json::to_string(&orders).unwrap();
        let orders: Orders = serde_json::from_str(&text).unwrap();
        assert!(orders.of(Kind::Rebalance).allows(at(23)) && !orders.of(Kind::Rebalance).allows(at(12)));
        assert!(!orders.of(Kind::Scrub).allows(at(23)));
        assert_eq!(orders.of(Kind::Level), Order::usual(Kind::Level));
    }

    #[test]
    fn a_scrub_that_is_asked_for_does_not_rest_unless_operators_say_so() {
        let mut orders = Orders::default();
        assert_eq!((orders.of_scrub(false), orders.of_scrub(true)), (Impact::Low, Impact::Medium));
        orders.kinds.insert(Kind::Scrub, Order::usual(Kind::Scrub));
        assert_eq!(orders.of_scrub(true), Impact::Low);
    }

    #[test]
    fn low_impact_works_a_twentieth_of_the_time() {
        let took = Duration::from_millis(100);
        assert_eq!(Impact::Low.rest(took), 19 * took);
        assert_eq!((Impact::Low.parallel(), Impact::High.rest(took)), (1, Duration::ZERO));
        assert_eq!(Impact::Low.rest(Duration::from_secs(60)), REST_MAX);
    }
}
