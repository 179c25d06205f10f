//! Asks every node for its report, each in its own task, and keeps [`Health`] current.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdfast_control::{ControlReader, DriveState, NodeState};
use holdfast_model::NodeId;
use holdfast_peer::{Method, PeerClient};
use holdfast_store::{Health, NodeReport};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::links::NodeService;

/// How often a node is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Keeps addresses and polls in step with the membership, until cancelled.
pub async fn run(
    control: ControlReader,
    peers: PeerClient,
    health: Arc<Health>,
    service: Arc<NodeService>,
    stop: CancellationToken,
) {
    let own = service.report().node;
    let mut tasks: BTreeMap<NodeId, JoinHandle<()>> = BTreeMap::new();
    let mut own_tick = interval(INTERVAL);
    own_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draining = BTreeSet::new();
    let mut changes = control.changes();
    changes.mark_changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = own_tick.tick() => {
                // Each time: a drive may have come up after the cluster said so.
                service.drain(&draining);
                health.heard(service.report(), Instant::now());
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    break;
                }
                let reader = control.clone();
                let Ok(Ok(view)) = tokio::task::spawn_blocking(move || reader.view()).await else { continue };
                let drains = view.drives.iter().filter(|(_, drive)| drive.state == DriveState::Draining);
                draining = drains.map(|(drive, _)| *drive).collect();
                health.set_members(view.nodes.values().filter(|node| node.state == NodeState::Active).count());
                for (node, record) in &view.nodes {
                    if *node == own {
                        continue;
                    }
                    if record.state == NodeState::Removed {
                        if let Some(task) = tasks.remove(node) {
                            task.abort();
                        }
                        peers.remove(*node);
                        health.forget(*node);
                        continue;
                    }
                    peers.set_address(*node, record.peer);
                    tasks.entry(*node).or_insert_with(|| {
                        tokio::spawn(poll(*node, peers.clone(), Arc::clone(&health), stop.clone()))
                    });
                }
            }
        }
    }
    for task in tasks.into_values() {
        task.abort();
    }
}

async fn poll(node: NodeId, peers: PeerClient, health: Arc<Health>, stop: CancellationToken) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match peers.call(node, Method::NodeStatus, Bytes::new(), None, TIMEOUT).await {
            Ok(reply) => match postcard::from_bytes::<NodeReport>(&reply.body) {
                Ok(report) if report.node == node => health.heard(report, Instant::now()),
                Ok(report) => {
                    tracing::error!(asked = %node, answered = %report.node, "a node answers as another")
                }
                Err(error) => tracing::warn!(%node, %error, "report does not parse; is it another release?"),
            },
            Err(error) => {
                tracing::debug!(%node, %error, "no report");
                health.suspect(node);
            }
        }
    }
}
