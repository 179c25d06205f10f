//! Asks every node for its word and what its clock shows, each in its own task, and keeps [`Health`] and [`Ward`] current. Nodes that
//! were removed are cut off: their links closed, their knocking refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use holdfast_control::{ControlReader, ControlView, DriveState, NodeState};
use holdfast_model::NodeId;
use holdfast_peer::{Method, PeerClient, PeerServer};
use holdfast_store::Health;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{self, ClockKeeper},
    comparison::Comparison,
    groups::Ward,
    keys::KeyWatch,
    links::{NodeService, Word},
};

/// How often a node is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(4);

/// What the poller keeps current.
#[derive(Debug, Clone)]
pub struct Poller {
    /// Links out.
    pub peers: PeerClient,
    /// Links in.
    pub server: Arc<PeerServer>,
    /// Who answers, with which drives.
    pub health: Arc<Health>,
    /// Which groups do not run where.
    pub ward: Arc<Ward>,
    /// Which states the replicas have.
    pub comparison: Arc<Comparison>,
    /// Where words about shares go.
    pub keys: KeyWatch,
    /// This node's own word.
    pub service: Arc<NodeService>,
    /// Whether the machine's clock is this program's to set.
    pub sets_clock: bool,
}

impl Poller {
    /// Refuses the nodes that are known to be removed: before anything else, and after every start.
    pub fn cut_off_removed(&self, view: &ControlView) {
        for node in view.nodes.values().filter(|node| node.state == NodeState::Removed) {
            self.server.revoke(node.node);
        }
    }

    /// Keeps addresses and polls in step with the membership, until cancelled.
    pub async fn run(self, control: ControlReader, stop: CancellationToken) {
        let own = self.service.report().node;
        let mut own_leaves = false;
        let mut tasks: BTreeMap<NodeId, JoinHandle<()>> = BTreeMap::new();
        let mut own_tick = interval(INTERVAL);
        own_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut draining = BTreeSet::new();
        let mut clock = ClockKeeper::new(self.sets_clock);
        let mut changes = control.changes();
        changes.mark_changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = own_tick.tick() => {
                    // Each time: a drive may have come up after the cluster said so.
                    self.service.drain(&draining);
                    self.service.compare_drives();
                    clock.look();
                    self.hear(self.service.word(), own_leaves);
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let reader = control.clone();
                    let Ok(Ok(view)) = tokio::task::spawn_blocking(move || reader.view()).await else { continue };
                    let drains = view.drives.iter().filter(|(_, drive)| drive.state == DriveState::Draining);
                    draining = drains.map(|(drive, _)| *drive).collect();
                    own_leaves = view.nodes.get(&own).is_some_and(|node| node.state == NodeState::Leaving);
                    if own_leaves {
                        self.health.forget(own);
                    }
                    self.follow(&view, own, &mut tasks, &stop);
                }
            }
        }
        for task in tasks.into_values() {
            task.abort();
        }
    }

    fn hear(&self, word: Word, leaves: bool) {
        self.keys.heard(word.report.node, word.keys);
        self.ward.heard(word.report.node, word.ailments);
        self.comparison.heard(word.report.node, word.digests);
        // Whoever leaves takes no new shards.
        if !leaves {
            self.health.heard(word.report, Instant::now());
        }
    }

    fn follow(
        &self,
        view: &ControlView,
        own: NodeId,
        tasks: &mut BTreeMap<NodeId, JoinHandle<()>>,
        stop: &CancellationToken,
    ) {
        self.cut_off_removed(view);
        let active = view.nodes.values().filter(|node| node.state == NodeState::Active).count();
        self.health.set_members(active);
        for (node, record) in view.nodes.iter().filter(|(node, _)| **node != own) {
            match record.state {
                NodeState::Joining | NodeState::Active => {
                    self.peers.set_address(*node, record.peer);
                    tasks
                        .entry(*node)
                        .or_insert_with(|| tokio::spawn(self.clone().poll(*node, stop.clone())));
                }
                NodeState::Leaving | NodeState::Removed => {
                    if let Some(task) = tasks.remove(node) {
                        task.abort();
                    }
                    self.health.forget(*node);
                    self.ward.forget(*node);
                    self.comparison.forget(*node);
                    self.keys.forget(*node);
                    holdfast_clock::forget(*node);
                    if record.state == NodeState::Removed {
                        self.peers.remove(*node);
                    } else {
                        self.peers.set_address(*node, record.peer);
                    }
                }
            }
        }
    }

    async fn poll(self, node: NodeId, stop: CancellationToken) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            match ask(&self.peers, node).await {
                Ok(word) if word.report.node == node => {
                    self.hear(word, false);
                    clock::ask(&self.peers, node, TIMEOUT).await;
                }
                Ok(word) => {
                    tracing::error!(asked = %node, answered = %word.report.node, "a node answers as another");
                }
                Err(error) => {
                    tracing::debug!(%node, error = format!("{error:#}"), "no report");
                    self.health.suspect(node);
                }
            }
        }
    }
}

/// Asks a node for its word.
///
/// # Errors
/// When it does not answer, or with something of another release.
pub async fn ask(peers: &PeerClient, node: NodeId) -> Result<Word> {
    let reply = peers.call(node, Method::NodeStatus, Bytes::new(), None, TIMEOUT).await?;
    Ok(postcard::from_bytes(&reply.body)?)
}
