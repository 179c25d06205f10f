//! Messages over memory, with links that can be cut one way or both.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use holdfast_consensus::{Consensus, Transport, TransportError};
use holdfast_model::NodeId;
use parking_lot::Mutex;

#[derive(Default)]
struct Wires {
    nodes: HashMap<NodeId, Weak<Consensus>>,
    cut: HashSet<(NodeId, NodeId)>,
}

/// All nodes and the links between them.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<Wires>>);

impl Network {
    pub fn endpoint(&self, from: NodeId) -> Endpoint {
        Endpoint { from, network: self.clone() }
    }

    pub fn attach(&self, node: NodeId, consensus: &Arc<Consensus>) {
        self.0.lock().nodes.insert(node, Arc::downgrade(consensus));
    }

    pub fn detach(&self, node: NodeId) {
        self.0.lock().nodes.remove(&node);
    }

    /// Loses everything `from` sends to `to`.
    pub fn cut(&self, from: u64, to: u64) {
        self.0.lock().cut.insert((NodeId::new(from), NodeId::new(to)));
    }

    /// Cuts `node` off from `others`, both ways.
    pub fn isolate(&self, node: u64, others: &[u64]) {
        for &other in others.iter().filter(|&&other| other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    pub fn heal(&self) {
        self.0.lock().cut.clear();
    }

    fn target(&self, from: NodeId, to: NodeId) -> Result<Arc<Consensus>, bool> {
        let wires = self.0.lock();
        if wires.cut.contains(&(from, to)) {
            return Err(true);
        }
        wires.nodes.get(&to).and_then(Weak::upgrade).ok_or(false)
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.0.lock().cut.contains(&(from, to))
    }
}

pub struct Endpoint {
    from: NodeId,
    network: Network,
}

#[async_trait::async_trait]
impl Transport for Endpoint {
    async fn send(&self, to: NodeId, request: Bytes, timeout: Duration) -> Result<Bytes, TransportError> {
        let target = match self.network.target(self.from, to) {
            Ok(target) => target,
            Err(false) => return Err(TransportError::NotSent(to, "down".to_owned())),
            Err(true) => {
                // Lost on the way: nobody says so.
                tokio::time::sleep(timeout).await;
                return Err(TransportError::Timeout(to, timeout));
            }
        };
        let from = self.from;
        // As on a real link, the peer works on even when the sender stops waiting.
        let work = tokio::spawn(async move { target.handle(from, request).await });
        let answer =
            tokio::time::timeout(timeout, work).await.map_err(|_| TransportError::Timeout(to, timeout))?;
        if self.network.is_cut(to, from) {
            tokio::time::sleep(timeout).await;
            return Err(TransportError::Timeout(to, timeout));
        }
        let answer = answer.map_err(|error| TransportError::Unreachable(to, error.to_string()))?;
        answer.map_err(|text| TransportError::Refused(to, text))
    }
}
