//! A node from its configuration to serving, and back down in order.
//!
//! ```text
//! identity (load, bootstrap or join) -> Base -> Links -> Replicas -> Storage -> unlocked -> catalogs
//!   -> Cluster -> Objects -> gateways: admin, metrics, S3
//! ```
//!
//! Order matters: links come first so that peers find this node while it starts; whatever needs no key
//! comes before the root is waited for; gateways come last, when what they need answers. Each step is a module,
//! and what it makes is what the steps after it are given.

mod addresses;
mod base;
mod cluster;
mod gateways;
mod links;
mod listen;
mod objects;
mod replicas;
mod storage;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use holdfast_consensus::Consensus;
use holdfast_model::config::NodeConfig;
use holdfast_object::journal::Journal;
use holdfast_peer::PeerServer;
use holdfast_store::Shards;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use addresses::services;
pub use base::Pools;
pub(crate) use listen::listen;

use self::{
    base::Base, cluster::Cluster, gateways::open_gateways, links::Links, objects::Objects,
    replicas::Replicas, storage::Storage,
};
use crate::{
    clock,
    founding::{Founding, JOIN_PATIENCE, found_or_join, join_with},
    groups::LostLog,
    identity::Credentials,
    readmission,
};

/// How often a node that starts looks at what it waits for.
const STARTING_POLL: Duration = Duration::from_millis(100);

/// How long requests in progress may take when the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; the chain says what and with which file or address.
pub async fn run(config: NodeConfig) -> Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed before"))?;
    std::fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("creating {}", config.state_dir.display()))?;
    readmission::refuse_removed(&config.state_dir)?;
    readmission::take_up(&config.state_dir)?;
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let mut founding = match Credentials::load(&config.state_dir)? {
        Some(credentials) => Founding { credentials, keys: None, members: Vec::new() },
        None => found_or_join(&config, &stop).await?,
    };
    let outcome = loop {
        let credentials = founding.credentials.clone();
        match Node::start(config.clone(), founding, &stop).await {
            Ok(node) => {
                stop.cancelled().await;
                break node.shut_down().await;
            }
            Err(_) if stop.is_cancelled() => break Ok(()),
            Err(error) if error.is::<LostLog>() => {
                tracing::error!(%error, node = %credentials.identity.node);
                match join_again(&config, &credentials, &stop).await {
                    Ok(next) => founding = next,
                    Err(_) if stop.is_cancelled() => break Ok(()),
                    Err(error) => break Err(error.context("coming back under a new identity")),
                }
            }
            Err(error) => break Err(error),
        }
    };
    signals.abort();
    outcome
}

/// A node that lost its log takes its own place under a new identity.
async fn join_again(
    config: &NodeConfig,
    credentials: &Credentials,
    stop: &CancellationToken,
) -> Result<Founding> {
    let members = readmission::known_members(&config.state_dir).await;
    let (token, peers) =
        readmission::ask_for_token(config, credentials, &members, JOIN_PATIENCE, stop).await?;
    let next = join_with(config, &peers, &token, stop).await?;
    readmission::put_down(&config.state_dir, &next.credentials)?;
    readmission::take_up(&config.state_dir)?;
    Ok(next)
}

async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received; stop this node with SIGKILL");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
}

/// A node that serves.
struct Node {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    consensus: Arc<Consensus>,
    journal: Arc<Journal>,
    server: Arc<PeerServer>,
    shards: Arc<Shards>,
}

impl Node {
    async fn start(config: NodeConfig, founding: Founding, stop: &CancellationToken) -> Result<Self> {
        let mut base = Base::new(config, founding, stop.clone()).await?;
        let links = Links::open(&base).await?;
        let replicas = Replicas::open(&mut base, &links).await?;
        let storage = Storage::open(&base, &links, &replicas).await?;
        replicas.wait_for_keys(&mut base).await?;
        let catalogs = replicas.open_catalogs(&mut base, &links).await?;
        let cluster = Cluster::enter(&mut base, &links, &replicas).await?;
        clock::settle(&replicas.control.view().await?).await;
        base.tasks.spawn(Arc::clone(&storage.keeper).run());
        let objects = Objects::serve(&mut base, &links, &replicas, &storage, catalogs).await;
        open_gateways(&mut base, &links, &replicas, &storage, cluster, objects).await?;
        let listen = &base.config.listen;
        tracing::info!(s3 = %listen.s3, admin = %listen.admin, metrics = %listen.metrics, "serving");
        Ok(Self {
            stop: base.stop,
            tasks: base.tasks,
            consensus: replicas.consensus,
            journal: replicas.journal,
            server: links.server,
            shards: storage.shards,
        })
    }

    /// Gateways first, then groups, then drives: what is acknowledged is durable before each step.
    async fn shut_down(mut self) -> Result<()> {
        self.stop.cancel();
        let drain = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIMEOUT, drain).await.is_err() {
            tracing::warn!("requests in progress are cut off");
            self.tasks.abort_all();
        }
        self.journal.stop().await;
        self.server.shutdown().await;
        let log = self.consensus.shutdown().await;
        for drive in self.shards.local() {
            drive.close().await;
        }
        log.context("closing the log")?;
        tracing::info!("stopped");
        Ok(())
    }
}
