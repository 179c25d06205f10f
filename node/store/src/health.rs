//! Which nodes answer, and what their drives have free.
//!
//! Fed by a poller and by operations that fail: a node that refused a
//! connection just now is not asked to hold new shards until it has answered again.
//!
//! Invariant: candidates are drives of nodes whose last word is good and recent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use holdfast_model::{DriveId, NodeId, placement::Candidate};
use parking_lot::RwLock;

use crate::wire::{DriveReport, DriveReportState, NodeReport};

/// A node whose last report is older is down. Generous, for nodes under emulation.
pub const REPORT_AGE_MAX: Duration = Duration::from_secs(6);

/// What is known of one node.
#[derive(Debug, Clone)]
pub struct NodeHealth {
    /// Its last report.
    pub report: NodeReport,
    /// When it came.
    pub heard: Instant,
    /// Set when an operation found the node unreachable after `heard`.
    pub suspected: bool,
}

impl NodeHealth {
    fn up(&self, now: Instant) -> bool {
        !self.suspected && now.saturating_duration_since(self.heard) <= REPORT_AGE_MAX
    }
}

/// The view of all nodes, this one included.
#[derive(Debug, Default)]
pub struct Health {
    nodes: RwLock<BTreeMap<NodeId, NodeHealth>>,
    members: AtomicUsize,
    closed: RwLock<BTreeSet<DriveId>>,
}

impl Health {
    /// Takes a report that came at `now`.
    pub fn heard(&self, report: NodeReport, now: Instant) {
        let node = report.node;
        let fresh = NodeHealth { report, heard: now, suspected: false };
        let before = self.nodes.write().insert(node, fresh);
        if before.is_none_or(|before| !before.up(now)) {
            tracing::info!(%node, "node answers");
        }
    }

    /// An operation could not reach `node`.
    pub fn suspect(&self, node: NodeId) {
        if let Some(health) = self.nodes.write().get_mut(&node)
            && !health.suspected
        {
            health.suspected = true;
            tracing::warn!(%node, "node does not answer; no new shards go there until it does");
        }
    }

    /// The cluster has so many nodes, up or not. Until this is told nothing may be placed.
    pub fn set_members(&self, members: usize) {
        self.members.store(members, Ordering::Release);
    }

    /// Drives that take no new shards although they could: they are to be emptied, or have left.
    pub fn set_closed(&self, drives: BTreeSet<DriveId>) {
        *self.closed.write() = drives;
    }

    /// Drives that are to be emptied, or have left.
    #[must_use]
    pub fn closed(&self) -> BTreeSet<DriveId> {
        self.closed.read().clone()
    }

    /// Whether `drive` of `node` can be asked for something: the node answers and reports it usable.
    #[must_use]
    pub fn has_drive(&self, node: NodeId, drive: DriveId) -> bool {
        let now = Instant::now();
        self.nodes.read().get(&node).is_some_and(|health| {
            health.up(now)
                && health.report.drives.iter().any(|known| known.id == drive && known.state.readable())
        })
    }

    /// Whether `node` reports its `drive` as slower than it should be: reads prefer others.
    #[must_use]
    pub fn is_slow(&self, node: NodeId, drive: DriveId) -> bool {
        let slow = |known: &DriveReport| known.id == drive && known.state == DriveReportState::Slow;
        self.nodes.read().get(&node).is_some_and(|health| health.report.drives.iter().any(slow))
    }

    /// How many nodes the cluster has; `None` until it is known.
    #[must_use]
    pub fn members(&self) -> Option<usize> {
        Some(self.members.load(Ordering::Acquire)).filter(|members| *members > 0)
    }

    /// Forgets a node that left the cluster.
    pub fn forget(&self, node: NodeId) {
        self.nodes.write().remove(&node);
    }

    /// Whether `node` answers.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes.read().get(&node).is_some_and(|health| health.up(Instant::now()))
    }

    /// Everything known, by node, with whether it is up.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(NodeHealth, bool)> {
        let now = Instant::now();
        self.nodes.read().values().map(|health| (health.clone(), health.up(now))).collect()
    }

    /// Of `candidates`, those that are not slow.
    #[must_use]
    pub fn prompt(&self, candidates: &[Candidate]) -> Vec<Candidate> {
        let nodes = self.nodes.read();
        let slow: BTreeSet<DriveId> = nodes
            .values()
            .flat_map(|health| &health.report.drives)
            .filter(|drive| drive.state != DriveReportState::Live)
            .map(|drive| drive.id)
            .collect();
        candidates.iter().copied().filter(|candidate| !slow.contains(&candidate.drive)).collect()
    }

    /// Part of the bytes of all drives that may take new shards now which is free.
    #[must_use]
    pub fn free_share(&self) -> f64 {
        let now = Instant::now();
        let nodes = self.nodes.read();
        let drives = nodes.values().filter(|health| health.up(now)).flat_map(|health| &health.report.drives);
        let (free, capacity) = drives
            .filter(|drive| drive.state.writable())
            .fold((0, 0), |(free, all), drive| (free + drive.free_bytes, all + drive.capacity_bytes));
        if capacity == 0 { 0.0 } else { free as f64 / capacity as f64 }
    }

    /// Drives that may take new shards now.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        let now = Instant::now();
        let closed = self.closed.read();
        self.nodes
            .read()
            .values()
            .filter(|health| health.up(now))
            .flat_map(|health| {
                let node = health.report.node;
                health
                    .report
                    .drives
                    .iter()
                    .filter(|drive| drive.state.writable() && !closed.contains(&drive.id))
                    .map(move |drive| Candidate { drive: drive.id, node, free_bytes: drive.free_bytes })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use holdfast_model::DriveId;

    use super::*;

    fn report(node: u64, states: &[DriveReportState]) -> NodeReport {
        let drives = states
            .iter()
            .enumerate()
            .map(|(i, state)| DriveReport {
                id: DriveId::from_bytes([node as u8 * 16 + i as u8; 16]),
                path: String::new(),
                state: *state,
                capacity_bytes: 100,
                used_bytes: 0,
                live_bytes: 0,
                free_bytes: 100,
                shards: 0,
                errors: 0,
            })
            .collect();
        NodeReport {
            node: NodeId::new(node),
            name: format!("n{node}"),
            version: String::new(),
            uptime_seconds: 0,
            drives_open: true,
            drives,
            workers: Vec::new(),
            debts: Vec::new(),
            levels: Vec::new(),
        }
    }

    #[test]
    fn only_writable_drives_of_nodes_that_answer_are_candidates() {
        use DriveReportState::{Fenced, Gone, Live, Slow};
        let health = Health::default();
        let now = Instant::now();
        health.heard(report(1, &[Live, Fenced, Slow]), now);
        health.heard(report(2, &[Live, Gone]), now);
        assert_eq!(health.candidates().len(), 3);
        health.suspect(NodeId::new(2));
        assert!(!health.is_up(NodeId::new(2)));
        assert_eq!(health.candidates().len(), 2);
        health.heard(report(2, &[Live]), Instant::now());
        assert_eq!(health.candidates().len(), 3);
        let Some(old) = now.checked_sub(REPORT_AGE_MAX * 2) else { return };
        health.heard(report(1, &[Live]), old);
        assert!(!health.is_up(NodeId::new(1)));
    }
}
