//! This node's replicas: the log of all groups, the control state, and, once keys are here, the catalogs.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use holdfast_catalog::{CatalogMachine, CatalogReader, MetadataKeys};
use holdfast_consensus::{Consensus, ConsensusError, ConsensusOptions, LogError};
use holdfast_control::ControlMachine;
use holdfast_crypt::random_array;
use holdfast_model::GroupId;
use holdfast_object::journal::{Journal, Owner};
use holdfast_store::Health;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{base::Base, links::Links};
use crate::{
    comparison::{Comparison, States},
    control::Control,
    groups::{Groups, LostLog, Ward},
    keys::{Front, KeyWatch, Unlocker},
    links::RaftTransport,
    metadata_keys::LiveMetadataKeys,
    poller::Poller,
    readmission,
    second_copy::{CatalogFiles, ControlFiles, owner_of},
    tls,
};

/// How long a node waits for its keys in silence, before it answers clients that it is locked.
const LOCKED_AFTER: Duration = Duration::from_secs(1);

/// See the module.
pub struct Replicas {
    /// The second copy of what groups hold, on drives.
    pub journal: Arc<Journal>,
    /// The log.
    pub consensus: Arc<Consensus>,
    /// The control state.
    pub control: Control,
    /// Which nodes and drives answer.
    pub health: Arc<Health>,
    /// What else peers say of themselves.
    pub ward: Arc<Ward>,
    /// What peers say of their keys.
    pub watch: KeyWatch,
    /// Waits for the root.
    pub unlocker: Arc<Unlocker>,
    /// What runs here.
    pub groups: Arc<Groups>,
    /// What catalogs are sealed under.
    pub metadata_keys: Arc<LiveMetadataKeys>,
    /// Whether states of groups are those of other nodes.
    pub comparison: Arc<Comparison>,
}

impl Replicas {
    /// Opens the log and the control state; peers are served both from then on.
    ///
    /// # Errors
    /// [`LostLog`] when the log is not this node's any more; else when something cannot be read. Nothing is left open.
    pub async fn open(base: &mut Base, links: &Links) -> Result<Self> {
        let all_groups = (0..=base.credentials.identity.catalog_groups).map(GroupId::new);
        let journal = Journal::new(base.cluster(), base.own(), all_groups);
        let consensus = open_log(base, links, &journal).await?;
        let (machine, reader) = {
            let dir = base.config.state_dir.join("control");
            tokio::task::spawn_blocking(move || ControlMachine::open(&dir, random_array())).await??
        };
        let control = Control::new(Arc::clone(&consensus), reader.clone());
        let unlocker = Unlocker {
            holder: Arc::clone(&base.holder),
            peers: links.peers.clone(),
            control: reader.clone(),
            members: base.members.iter().map(|(node, _)| *node).collect(),
            own: base.own(),
            name: base.name(),
            state: Mutex::default(),
            wake: Notify::new(),
        };
        let replicas = Self {
            groups: Arc::new(Groups::new(Arc::clone(&consensus), base.config.state_dir.clone())),
            metadata_keys: LiveMetadataKeys::new(Arc::clone(&base.keyring), reader.clone()),
            unlocker: Arc::new(unlocker),
            health: Arc::new(Health::default()),
            ward: Arc::new(Ward::default()),
            comparison: Arc::new(Comparison::default()),
            watch: KeyWatch::default(),
            journal,
            consensus,
            control,
        };
        replicas.listen_to_peers(base, links).await?;
        let (keys, stop) = (Arc::clone(&replicas.metadata_keys), base.stop.clone());
        base.tasks.spawn(async move {
            stop.cancelled().await;
            keys.close();
        });
        let files = Arc::new(ControlFiles(reader));
        let machine = replicas.journal.keep(GroupId::CONTROL, machine, |_| Some(Owner::Cluster), files);
        if let Err(error) = replicas.groups.start(GroupId::CONTROL, machine).await {
            return Err(replicas.give_up(base, links, error).await);
        }
        links.service.serve_consensus(Arc::clone(&replicas.consensus), Arc::clone(&replicas.groups));
        base.tasks.spawn(Arc::clone(&replicas.groups).watch(base.stop.clone()));
        Ok(replicas)
    }

    async fn listen_to_peers(&self, base: &mut Base, links: &Links) -> Result<()> {
        let poller = Poller {
            peers: links.peers.clone(),
            server: Arc::clone(&links.server),
            health: Arc::clone(&self.health),
            ward: Arc::clone(&self.ward),
            comparison: Arc::clone(&self.comparison),
            keys: self.watch.clone(),
            service: Arc::clone(&links.service),
            // An appliance's machine has nobody else who would.
            sets_clock: base.config.network.is_some(),
        };
        poller.cut_off_removed(&self.control.view().await?);
        base.tasks.spawn(poller.run(self.control.reader().clone(), base.stop.clone()));
        Ok(())
    }

    /// Closes what is open after an error, which is the one to tell.
    async fn give_up(&self, base: &mut Base, links: &Links, error: anyhow::Error) -> anyhow::Error {
        base.tasks.shutdown().await;
        links.server.shutdown().await;
        let _ = self.consensus.shutdown().await;
        error
    }

    /// Waits for the root. Peers have been served since their parts came up; clients hear that this node is locked.
    ///
    /// # Errors
    /// When this node is stopped meanwhile, or cannot tell clients.
    pub async fn wait_for_keys(&self, base: &mut Base) -> Result<()> {
        let (unlocker, config) = (&self.unlocker, &base.config);
        base.tasks.spawn(Arc::clone(unlocker).run(base.stop.clone()));
        if tokio::time::timeout(LOCKED_AFTER, unlocker.unlocked(&base.stop)).await.is_err() {
            tracing::warn!(waits_for = unlocker.status().detail, "this node is locked");
            let certificate = tls::last_shown(&base.credentials, &config.state_dir)?;
            let front = Front::open(unlocker, &config.listen, &Arc::new(certificate.server_config())).await?;
            let unlocked = unlocker.unlocked(&base.stop).await;
            front.close().await;
            unlocked?;
        }
        Ok(())
    }

    /// Opens the catalogs: their files open with tenants' keys.
    ///
    /// # Errors
    /// As [`Replicas::open`].
    pub async fn open_catalogs(
        &self,
        base: &mut Base,
        links: &Links,
    ) -> Result<HashMap<GroupId, CatalogReader>> {
        let count = base.credentials.identity.catalog_groups;
        let keys = Arc::clone(&self.metadata_keys);
        let opened = start_catalogs(&self.groups, &self.journal, &base.config.state_dir, count, keys as _);
        let catalogs = match opened.await {
            Ok(catalogs) => catalogs,
            Err(error) => return Err(self.give_up(base, links, error).await),
        };
        let states = States { control: self.control.reader().clone(), catalogs: catalogs.clone() };
        links.service.serve_states(states.clone());
        let (consensus, groups) = (Arc::clone(&self.consensus), Arc::clone(&self.groups));
        let comparison = Arc::clone(&self.comparison);
        base.tasks.spawn(comparison.run(base.own(), consensus, groups, states, base.stop.clone()));
        Ok(catalogs)
    }
}

async fn open_log(base: &Base, links: &Links, journal: &Arc<Journal>) -> Result<Arc<Consensus>> {
    let transport = Arc::new(RaftTransport(links.peers.clone()));
    let mut options = ConsensusOptions::new(base.own(), base.config.state_dir.join("raft"), transport);
    options.second_copy = Some(Arc::clone(journal) as _);
    let consensus = match Consensus::open(options).await {
        Ok(consensus) => consensus,
        // It cannot be told whose the damaged records are: as good as lost.
        Err(error @ ConsensusError::Log(LogError::Damaged { .. })) => {
            tracing::error!(%error, "the log of all groups is damaged");
            links.server.shutdown().await;
            return Err(LostLog.into());
        }
        Err(error) => return Err(error).context("opening the log"),
    };
    if readmission::is_other_log(&base.config.state_dir, consensus.log_identity())? {
        links.server.shutdown().await;
        consensus.shutdown().await.context("closing the log")?;
        return Err(LostLog.into());
    }
    Ok(consensus)
}

async fn start_catalogs(
    groups: &Groups,
    journal: &Journal,
    state_dir: &Path,
    count: u32,
    keys: Arc<dyn MetadataKeys>,
) -> Result<HashMap<GroupId, CatalogReader>> {
    let mut readers = HashMap::new();
    for number in 1..=count {
        let group = GroupId::new(number);
        let dir = state_dir.join("catalog").join(group.to_string());
        let keys = Arc::clone(&keys);
        let machine = tokio::task::spawn_blocking(move || CatalogMachine::open(&dir, keys))
            .await?
            .with_context(|| format!("opening catalog group {group}"))?;
        let reader = machine.reader();
        readers.insert(group, reader.clone());
        let files = Arc::new(CatalogFiles(reader.clone()));
        let machine = journal.keep(group, machine, move |command| owner_of(&reader, command), files);
        groups.start(group, machine).await?;
    }
    Ok(readers)
}
