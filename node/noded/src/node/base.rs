//! What every part of a node is given: who it is, its keys, its memory, and where its tasks go.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use holdfast_keyservice::Client;
use holdfast_model::{ByteCount, ClusterId, NodeId, config::NodeConfig};
use holdfast_ring::BufferPool;
use holdfast_store::READ_MEMORY_MIN;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    founding::{Founding, start_keys},
    identity::Credentials,
    keys::Holder,
};

/// Memory for catalog records at least: some of the largest ones at once.
const JOURNAL_MEMORY_MIN: ByteCount = ByteCount::mib(4);

/// See the module.
pub struct Base {
    /// How it was told to be.
    pub config: NodeConfig,
    /// Who it is.
    pub credentials: Credentials,
    /// Members it knows before it has the control state.
    pub members: Vec<(NodeId, SocketAddr)>,
    /// Its key service.
    pub keyring: Arc<Client>,
    /// The same, for what peers ask of it.
    pub holder: Arc<Holder>,
    /// Its memory.
    pub pools: Pools,
    /// Ends it.
    pub stop: CancellationToken,
    /// Everything that runs until it ends.
    pub tasks: JoinSet<()>,
}

impl Base {
    /// Starts the key service, and sets memory aside.
    ///
    /// # Errors
    /// When the keys of this node cannot be had, or there is not that much memory.
    pub async fn new(config: NodeConfig, founding: Founding, stop: CancellationToken) -> Result<Self> {
        let Founding { credentials, keys, members } = founding;
        let identity = &credentials.identity;
        tracing::info!(
            cluster = %identity.cluster, node = %identity.node, name = identity.name,
            version = env!("CARGO_PKG_VERSION"), "starting"
        );
        let keyring = match keys {
            Some(keys) => keys,
            None => {
                let (config, cluster, begins) = (config.clone(), identity.cluster, !members.is_empty());
                // argon2id takes its time.
                tokio::task::spawn_blocking(move || start_keys(&config, cluster, begins)).await??
            }
        };
        let keyring = Arc::new(keyring);
        let holder = Arc::new(Holder { keyring: Arc::clone(&keyring) });
        let pools = Pools::new(config.buffer_memory)?;
        Ok(Self { config, credentials, members, keyring, holder, pools, stop, tasks: JoinSet::new() })
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.credentials.identity.cluster
    }

    /// This node.
    #[must_use]
    pub fn own(&self) -> NodeId {
        self.credentials.identity.node
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.credentials.identity.name.clone()
    }
}

/// Payload memory by purpose. They are apart so that no wait for memory can close a circle over nodes:
/// a write holds `write` memory while it waits for another node's `peer` memory, never the other way.
#[derive(Debug, Clone)]
pub struct Pools {
    /// Stripes being filled by this node's gateways.
    pub write: BufferPool,
    /// Shards that come in from peers, and answers from them.
    pub peer: BufferPool,
    /// Shards read from this node's drives, and rebuilt ones.
    pub drive: BufferPool,
    /// Records of the catalog's second copy. Nothing that waits for a client holds any of it.
    pub journal: BufferPool,
}

impl Pools {
    fn new(memory: ByteCount) -> Result<Self> {
        let part = |share: u64| BufferPool::new(ByteCount::new(memory.get() * share / 16));
        Ok(Self {
            write: part(8).context("write buffers")?,
            peer: part(4).context("peer buffers")?,
            drive: BufferPool::new(ByteCount::new(memory.get() / 16 * 3).max(READ_MEMORY_MIN))
                .context("read buffers")?,
            journal: BufferPool::new(ByteCount::new(memory.get() / 16).max(JOURNAL_MEMORY_MIN))
                .context("journal buffers")?,
        })
    }
}
