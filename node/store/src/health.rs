//! Which nodes answer, and what their drives have free.
//!
//! Fed by a poller and by operations that fail: a node that refused a
//! connection just now is not asked to hold new shards until it has answered again.
//!
//! Invariant: candidates are drives of nodes whose last word is good and recent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_model::{DriveId, NodeId, placement::Candidate, spare::Spare};
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
    /// Bytes that this node placed there after `heard`.
    placed: Arc<AtomicU64>,
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
    /// How many drives' space an operator wants set aside.
    spare: RwLock<Option<u8>>,
}

impl Health {
    /// Takes a report that came at `now`.
    pub fn heard(&self, report: NodeReport, now: Instant) {
        let node = report.node;
        let fresh = NodeHealth { report, heard: now, suspected: false, placed: Arc::default() };
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
        let now = now();
        self.nodes.read().get(&node).is_some_and(|health| {
            health.up(now)
                && health.report.drives.iter().any(|known| known.id == drive && known.state.readable())
        })
    }

    /// The node that answers and has `drive` open, readable, if one does.
    #[must_use]
    pub fn holder(&self, drive: DriveId) -> Option<NodeId> {
        let now = now();
        let open = |known: &DriveReport| known.id == drive && known.state != DriveReportState::Gone;
        self.nodes
            .read()
            .iter()
            .find(|(_, health)| health.up(now) && health.report.drives.iter().any(open))
            .map(|(node, _)| *node)
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
        self.nodes.read().get(&node).is_some_and(|health| health.up(now()))
    }

    /// Everything known, by node, with whether it is up.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(NodeHealth, bool)> {
        let now = now();
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
        let now = now();
        let nodes = self.nodes.read();
        let drives = nodes.values().filter(|health| health.up(now)).flat_map(|health| &health.report.drives);
        let (free, capacity) = drives
            .filter(|drive| drive.state.writable())
            .fold((0, 0), |(free, all), drive| (free + drive.free_bytes, all + drive.capacity_bytes));
        if capacity == 0 { 0.0 } else { free as f64 / capacity as f64 }
    }

    /// Bytes of all drives of `node` that can be written; 0 while it does not answer.
    #[must_use]
    pub fn capacity(&self, node: NodeId) -> u64 {
        let now = now();
        let nodes = self.nodes.read();
        let drives = nodes.get(&node).filter(|health| health.up(now)).map(|health| &health.report.drives);
        let writable = drives.into_iter().flatten().filter(|drive| drive.state.writable());
        writable.map(|drive| drive.capacity_bytes).sum()
    }

    /// How many drives' space is to be set aside for rebuilding; `None`: as is usual.
    pub fn set_spare(&self, drives: Option<u8>) {
        *self.spare.write() = drives;
    }

    /// This node is about to write so many bytes to the drives of `node`, which has not reported them yet.
    pub fn placed(&self, node: NodeId, bytes: u64) {
        if let Some(health) = self.nodes.read().get(&node) {
            health.placed.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// What is set aside for rebuilding, on the drives that may take new shards now.
    ///
    /// What this node placed since the last reports is no longer free, and the other nodes are taken to have placed as
    /// much: between two reports nodes know nothing of each other's clients.
    #[must_use]
    pub fn spare(&self) -> Spare {
        let now = now();
        let members = self.members.load(Ordering::Acquire).max(1) as u64;
        let (closed, nodes) = (self.closed.read(), self.nodes.read());
        let drives: Vec<(u64, u64)> = nodes
            .values()
            .filter(|health| health.up(now))
            .flat_map(|health| &health.report.drives)
            .filter(|drive| drive.state.writable() && !closed.contains(&drive.id))
            .map(|drive| (drive.capacity_bytes, room(drive)))
            .collect();
        let up = nodes.values().filter(|health| health.up(now));
        let placed: u64 = up.map(|health| health.placed.load(Ordering::Relaxed)).sum();
        let mut spare = Spare::new(&drives, *self.spare.read());
        spare.free_bytes = spare.free_bytes.saturating_sub(placed.saturating_mul(members));
        spare
    }

    /// Drives that may take new shards now.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        let now = now();
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
                    .filter(|drive| {
                        let open = !closed.contains(&drive.id) || holdfast_planted::is("ClosedTakesNew");
                        drive.state.writable() && open
                    })
                    .map(move |drive| Candidate { drive: drive.id, node, free_bytes: drive.free_bytes })
            })
            .collect()
    }
}

/// Bytes that are free on a drive, or dead: it reclaims those when it is short of room. An eighth of the drive is
/// left out, for what it keeps free for itself and for segments that are nearly all alive.
fn room(drive: &DriveReport) -> u64 {
    let usable = drive.capacity_bytes - drive.capacity_bytes / 8;
    drive.free_bytes.max(usable.saturating_sub(drive.live_bytes))
}

/// The clock: tokio's, which a simulation stops.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
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
                serial: String::new(),
                reason: String::new(),
                locate_until: None,
            })
            .collect();
        NodeReport {
            node: NodeId::new(node),
            name: format!("n{node}"),
            version: String::new(),
            uptime_seconds: 0,
            drives_open: true,
            drives,
            devices: Vec::new(),
            workers: Vec::new(),
            debts: Vec::new(),
            levels: Vec::new(),
        }
    }

    #[test]
    fn what_is_dead_counts_as_room_and_what_is_set_aside_is_the_largest_drive() {
        use DriveReportState::{Fenced, Live};
        let health = Health::default();
        let mut told = report(1, &[Live, Live, Live, Live, Live, Fenced]);
        for drive in &mut told.drives {
            (drive.capacity_bytes, drive.used_bytes, drive.live_bytes, drive.free_bytes) =
                (800, 790, 100, 10);
        }
        health.heard(told.clone(), Instant::now());
        let spare = health.spare();
        assert_eq!((spare.drives, spare.reserved_bytes, spare.free_bytes), (1, 800, 5 * 600));
        health.set_spare(Some(0));
        assert_eq!(health.spare().reserved_bytes, 0);

        // What was written since counts at once, three times where three nodes write; a new report knows of it.
        health.set_members(3);
        health.placed(NodeId::new(1), 200);
        assert_eq!(health.spare().free_bytes, 5 * 600 - 3 * 200);
        health.heard(told, Instant::now());
        assert_eq!(health.spare().free_bytes, 5 * 600);
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
