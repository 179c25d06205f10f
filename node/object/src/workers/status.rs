//! What the workers of this node are doing, and what they know of debt: for the admin API and metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_model::{PartitionId, TenantId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{absent::Verdict, control::Orders, events::PartitionEvents, levels::PartitionLevels};
use crate::directory::Directory;

/// A kind of worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Gives shards of lost drives new places.
    Rebuild,
    /// Moves shards off drives that are to be emptied.
    Smartfail,
    /// Repairs single shards that reads and scrubs found bad.
    Repair,
    /// Reads everything on this node's drives and compares it with the catalog.
    Scrub,
    /// Cuts anew what does not have its level, or was written while drives were away.
    Level,
    /// Moves shards from full drives to empty ones.
    Rebalance,
    /// Deletes shards that nothing refers to.
    Sweep,
    /// Gives back the segments of dead records; each drive does it for itself.
    Reclaim,
    /// Sends events to the targets that buckets name.
    Events,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Rebuild,
        Self::Smartfail,
        Self::Repair,
        Self::Scrub,
        Self::Level,
        Self::Rebalance,
        Self::Sweep,
        Self::Reclaim,
        Self::Events,
    ];

    /// As the admin API and the metrics name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::Smartfail => "smartfail",
            Self::Repair => "repair",
            Self::Scrub => "scrub",
            Self::Level => "level",
            Self::Rebalance => "rebalance",
            Self::Sweep => "sweep",
            Self::Reclaim => "reclaim",
            Self::Events => "events",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What one worker is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Stripes (rebuild, repair) or shards (scrub) dealt with in this run.
    pub done: u64,
    /// Those known to be left.
    pub left: u64,
    /// Those that could not be dealt with and are tried again.
    pub failed: u64,
    /// Bytes read and written for it.
    pub bytes: u64,
}

/// One worker, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// What it does.
    pub kind: Kind,
    /// Whether it is at work.
    pub working: bool,
    /// Whether an operator, or the hour, keeps it from taking up anything.
    pub held: bool,
    /// In this run, or the last one.
    pub progress: Progress,
    /// How long this run has taken so far, or the last one took.
    pub elapsed: Duration,
    /// What holds it up, when something does.
    pub trouble: Option<String>,
}

impl WorkerStatus {
    /// Bytes a second in this run.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        (self.progress.bytes as f64 / seconds) as u64
    }

    /// How long it will take at the rate so far.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let Progress { done, left, .. } = self.progress;
        (self.working && done > 0 && left > 0).then(|| {
            self.elapsed.mul_f64(left as f64 / done as f64).min(Duration::from_secs(u32::MAX.into()))
        })
    }
}

/// Stripes below their level, by how many of their shards cannot be read now.
pub type Debt = BTreeMap<u8, u64>;

/// The debt of one partition, as its group's leader counted it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDebt {
    /// Whose.
    pub tenant: TenantId,
    /// Stripes by lost shards.
    pub stripes: Debt,
    /// Of those, the ones with too few shards left to be read at all.
    pub unreadable: u64,
    /// Shards on drives that are to be emptied.
    pub draining: u64,
}

impl PartitionDebt {
    /// Stripes below their level.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.stripes.values().sum()
    }
}

#[derive(Debug)]
struct Run {
    begun: Instant,
    ended: Option<Instant>,
    progress: Progress,
    trouble: Option<String>,
}

/// All workers of this node.
#[derive(Debug)]
pub struct Board {
    directory: Arc<Directory>,
    runs: Mutex<BTreeMap<Kind, Run>>,
    held: Mutex<BTreeSet<Kind>>,
    debt: Mutex<BTreeMap<PartitionId, PartitionDebt>>,
    levels: Mutex<BTreeMap<PartitionId, PartitionLevels>>,
    homeless: Mutex<BTreeSet<PartitionId>>,
    verdict: Mutex<Option<Verdict>>,
    events: Mutex<BTreeMap<PartitionId, PartitionEvents>>,
    events_sent: AtomicU64,
    events_failed: AtomicU64,
}

impl Board {
    /// A board on which nothing has happened. What operators ask comes with `directory`.
    pub(crate) fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            runs: Mutex::default(),
            held: Mutex::default(),
            debt: Mutex::default(),
            levels: Mutex::default(),
            homeless: Mutex::default(),
            verdict: Mutex::default(),
            events: Mutex::default(),
            events_sent: AtomicU64::new(0),
            events_failed: AtomicU64::new(0),
        }
    }

    /// A run begins.
    pub(crate) fn begin(&self, kind: Kind, left: u64) {
        let progress = Progress { left, ..Progress::default() };
        self.runs.lock().insert(kind, Run { begun: Instant::now(), ended: None, progress, trouble: None });
    }

    /// Changes the figures of the run.
    pub(crate) fn update(&self, kind: Kind, change: impl FnOnce(&mut Progress)) {
        if let Some(run) = self.runs.lock().get_mut(&kind) {
            change(&mut run.progress);
        }
    }

    /// Says what holds the run up.
    pub(crate) fn trouble(&self, kind: Kind, what: impl Into<String>) {
        if let Some(run) = self.runs.lock().get_mut(&kind) {
            run.trouble = Some(what.into());
        }
    }

    /// The run is over.
    pub(crate) fn end(&self, kind: Kind) {
        if let Some(run) = self.runs.lock().get_mut(&kind) {
            run.ended.get_or_insert_with(Instant::now);
        }
    }

    /// Sets what is known of the partitions that this node's groups lead; forgets all others.
    pub(crate) fn set_debt(&self, debt: BTreeMap<PartitionId, PartitionDebt>) {
        *self.debt.lock() = debt;
    }

    /// Changes what is known of one partition.
    pub(crate) fn set_partition_debt(&self, partition: PartitionId, debt: PartitionDebt) {
        self.debt.lock().insert(partition, debt);
    }

    /// What operators ask of workers.
    #[must_use]
    pub fn orders(&self) -> Arc<Orders> {
        Arc::clone(&self.directory.snapshot().orders)
    }

    pub(crate) fn set_held(&self, kind: Kind, held: bool) {
        let mut kinds = self.held.lock();
        if held {
            kinds.insert(kind);
        } else {
            kinds.remove(&kind);
        }
    }

    /// Sets which drives are away or given up, as the rebuild judged last.
    pub(crate) fn set_verdict(&self, verdict: Verdict) {
        *self.verdict.lock() = Some(verdict);
    }

    /// Which drives are away or given up; `None` until that was judged.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.verdict.lock().clone()
    }

    /// Sets what was found of the levels of a partition's buckets; with `None`, forgets it.
    pub(crate) fn set_levels(&self, partition: PartitionId, found: Option<PartitionLevels>) {
        match found {
            Some(found) => self.levels.lock().insert(partition, found),
            None => self.levels.lock().remove(&partition),
        };
    }

    /// Shards of a partition have to move, and no drive can take them: its stripes are to be looked at.
    pub(crate) fn set_homeless(&self, partition: PartitionId) {
        self.homeless.lock().insert(partition);
    }

    /// Whether that was said since this was asked last.
    pub(crate) fn take_homeless(&self, partition: PartitionId) -> bool {
        self.homeless.lock().remove(&partition)
    }

    /// What this node found of the levels of buckets in the partitions whose groups it leads.
    #[must_use]
    pub fn levels(&self) -> BTreeMap<PartitionId, PartitionLevels> {
        self.levels.lock().clone()
    }

    /// What this node knows of debt: of the partitions whose groups it leads.
    #[must_use]
    pub fn debt(&self) -> BTreeMap<PartitionId, PartitionDebt> {
        self.debt.lock().clone()
    }

    /// Sets what is known of the events of partitions that this node's groups lead; forgets all others.
    pub(crate) fn set_events(&self, events: BTreeMap<PartitionId, PartitionEvents>) {
        *self.events.lock() = events;
    }

    /// Counts events that targets took, and an attempt that failed.
    pub(crate) fn count_events(&self, sent: u64, failed: bool) {
        self.events_sent.fetch_add(sent, Ordering::Relaxed);
        self.events_failed.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// What this node knows of events: of the partitions whose groups it leads.
    #[must_use]
    pub fn events(&self) -> BTreeMap<PartitionId, PartitionEvents> {
        self.events.lock().clone()
    }

    /// Events that targets took from this node since it started, and attempts that failed.
    #[must_use]
    pub fn event_counts(&self) -> (u64, u64) {
        (self.events_sent.load(Ordering::Relaxed), self.events_failed.load(Ordering::Relaxed))
    }

    /// All workers, whether they have run or not.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let runs = self.runs.lock();
        let held = self.held.lock();
        let status = |kind: Kind| {
            let run = runs.get(&kind);
            WorkerStatus {
                kind,
                working: run.is_some_and(|run| run.ended.is_none()),
                held: held.contains(&kind),
                progress: run.map(|run| run.progress).unwrap_or_default(),
                elapsed: run.map_or(Duration::ZERO, |run| {
                    run.ended.unwrap_or_else(Instant::now).duration_since(run.begun)
                }),
                trouble: run.and_then(|run| run.trouble.clone()),
            }
        };
        Kind::ALL.into_iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_time_follows_from_what_is_done() {
        let mut status = WorkerStatus {
            kind: Kind::Rebuild,
            working: true,
            held: false,
            progress: Progress { done: 10, left: 30, failed: 0, bytes: 40_000 },
            elapsed: Duration::from_secs(4),
            trouble: None,
        };
        assert_eq!(status.remaining(), Some(Duration::from_secs(12)));
        assert_eq!(status.rate(), 10_000);
        status.progress.done = 0;
        assert_eq!(status.remaining(), None);
    }
}
