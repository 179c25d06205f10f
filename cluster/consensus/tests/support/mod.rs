//! A cluster in one process: consensus on real files, messages over channels that a test can cut.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

pub mod machine;
pub mod network;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_consensus::{Consensus, ConsensusOptions, Role};
use holdfast_model::{GroupId, NodeId};

use machine::{KvMachine, KvState};
use network::Network;

pub const GROUP: GroupId = GroupId::new(1);

/// One node: what is on its disk, and what runs when it is up.
pub struct Node {
    pub id: NodeId,
    pub dir: PathBuf,
    pub up: Option<Running>,
}

pub struct Running {
    pub consensus: Arc<Consensus>,
    pub state: KvState,
}

pub struct Cluster {
    pub root: tempfile::TempDir,
    pub network: Network,
    pub nodes: Vec<Node>,
    pub tune: fn(&mut ConsensusOptions),
}

impl Cluster {
    /// Nodes `1..=count`, started, not yet members of anything.
    pub async fn start(count: u64) -> Self {
        Self::start_tuned(count, |_| {}).await
    }

    pub async fn start_tuned(count: u64, tune: fn(&mut ConsensusOptions)) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(
                tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into()),
            )
            .with_test_writer()
            .try_init();
        let root = tempfile::tempdir().unwrap();
        let mut cluster = Self { root, network: Network::default(), nodes: Vec::new(), tune };
        for id in 1..=count {
            let dir = cluster.root.path().join(format!("n{id}"));
            std::fs::create_dir_all(&dir).unwrap();
            cluster.nodes.push(Node { id: NodeId::new(id), dir, up: None });
            cluster.boot(id).await;
        }
        cluster
    }

    /// Nodes `1..=count`, all voters, with a leader.
    pub async fn formed(count: u64) -> Self {
        let cluster = Self::start(count).await;
        cluster.form(count).await;
        cluster
    }

    pub async fn form(&self, count: u64) {
        let voters: BTreeSet<NodeId> = (1..=count).map(NodeId::new).collect();
        self.consensus(1).initialize(GROUP, voters).await.unwrap();
        self.leader().await;
    }

    /// Starts (or starts again) a node from what is in its directory.
    pub async fn boot(&mut self, id: u64) {
        let (network, tune) = (self.network.clone(), self.tune);
        let node = self.node_mut(id);
        let mut options =
            ConsensusOptions::new(node.id, node.dir.join("raft"), Arc::new(network.endpoint(node.id)));
        std::fs::create_dir_all(&options.dir).unwrap();
        tune(&mut options);
        let consensus = Consensus::open(options).await.unwrap();
        let machine = KvMachine::open(&node.dir.join("machine")).unwrap();
        let state = machine.state();
        consensus.start_group(GROUP, Box::new(machine)).await.unwrap();
        network.attach(node.id, &consensus);
        node.up = Some(Running { consensus, state });
    }

    /// Stops a node in good order.
    pub async fn stop(&mut self, id: u64) {
        self.network.detach(NodeId::new(id));
        if let Some(running) = self.node_mut(id).up.take() {
            running.consensus.shutdown().await.unwrap();
        }
    }

    /// Kills a node: copies its files as they are at this moment, while it runs, and continues from the
    /// copy. The running instance is cut off first and thrown away.
    pub async fn kill(&mut self, id: u64) {
        self.network.detach(NodeId::new(id));
        // Records that nobody waits for are written up to 200 ms late; a copy taken file by file would
        // see half of such a write. Power cuts at any moment are tested inside the crate.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let node = self.node_mut(id);
        let copy = node
            .dir
            .with_extension(format!("{}", std::fs::read_dir(node.dir.parent().unwrap()).unwrap().count()));
        copy_tree(&node.dir, &copy);
        let old = node.up.take();
        node.dir = copy;
        if let Some(running) = old {
            running.consensus.shutdown().await.unwrap();
        }
    }

    pub fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id.get() == id).unwrap()
    }

    pub fn running(&self, id: u64) -> &Running {
        self.nodes.iter().find(|node| node.id.get() == id).unwrap().up.as_ref().unwrap()
    }

    pub fn consensus(&self, id: u64) -> Arc<Consensus> {
        Arc::clone(&self.running(id).consensus)
    }

    pub fn up(&self) -> Vec<u64> {
        self.nodes.iter().filter(|node| node.up.is_some()).map(|node| node.id.get()).collect()
    }

    /// Waits until a node leads and says so itself.
    pub async fn leader(&self) -> u64 {
        self.leader_among(&self.up()).await
    }

    pub async fn leader_among(&self, ids: &[u64]) -> u64 {
        eventually("a leader", || {
            ids.iter().copied().find(|&id| {
                let status = self.consensus(id).status(GROUP).unwrap();
                let quorum = status.quorum_answered_millis_ago.is_some_and(|ago| ago < 1000);
                status.role == Role::Leader && (quorum || status.voters.len() == 1)
            })
        })
        .await
    }

    pub async fn put(&self, through: u64, key: &str, value: &str) -> Bytes {
        self.consensus(through).propose(GROUP, machine::put(key, value)).await.unwrap()
    }
}

/// Polls until `look` finds something; gives up after a minute.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("gave up waiting for {what}");
}

pub fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            // A file may be renamed or removed between listing and copying, as in a real crash.
            let _ = std::fs::copy(entry.path(), target);
        }
    }
}
