//! `noded recover`: the catalog, the control state and new Raft logs from the drives alone.
//!
//! For the day on which the system state of every node is gone but identities, keys and data drives are
//! there. Offline: no node runs meanwhile. All drives that can be reached are read from where this runs,
//! together, because each holds a part of the second copy only.
//!
//! ```text
//! drives ─> bases and journal ─> control state ─> tenants' keys ─> catalog groups ─> images
//!                                                                                      └> new state of each node
//! ```
//!
//! Invariants:
//! - nothing is written over: a node that still has a log, control state or catalog is refused;
//! - a node's new state is complete before the program says so; cut off, it is removed by hand and made again;
//! - what could not be recovered is named, and the program then ends with status 2.

mod state;
mod verdict;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use holdfast_catalog::{CatalogMachine, CatalogReader};
use holdfast_consensus::{Applied, StateMachine, Transport, TransportError};
use holdfast_control::{ControlMachine, ControlView};
use holdfast_crypt::random_array;
use holdfast_drive::{Drive, DriveOptions};
use holdfast_keyring::{Gathering, Keyring, Seal, ShareStore, recovery};
use holdfast_model::{
    ByteCount, ClusterId, GroupId, NodeId,
    config::{DriveSelection, NodeConfig},
};
use holdfast_object::journal::FoundRecords;
use holdfast_ring::BufferPool;
use zeroize::Zeroizing;

use crate::{
    drives::{devices, open_existing},
    founding::protector,
    identity::{Credentials, Identity},
    keys::passphrase_of,
    second_copy::RecoveryKeys,
};
use state::{Restored, install, restore};
use verdict::{Verdict, examine};

/// Memory for what is read from drives.
const READ_MEMORY: ByteCount = ByteCount::mib(128);

/// Where states are put together, in the first node's state directory.
const WORK_DIR: &str = "recover.tmp";

/// A node whose state is to be made anew.
struct LostNode {
    config: NodeConfig,
    identity: Identity,
}

/// What is started with.
#[derive(Debug, clap::Args)]
pub struct Recover {
    /// Configuration documents of the nodes whose state is lost and whose identity and keys are there
    #[arg(long = "config", required = true)]
    configs: Vec<PathBuf>,
    /// Further drives, of nodes that are gone for example
    #[arg(long = "drive")]
    drives: Vec<PathBuf>,
    /// A file with operators' recovery shares, one a line, when the nodes named hold too few shares of the root
    #[arg(long)]
    recovery_shares: Option<PathBuf>,
    /// Say what would be recovered and write no node's state
    #[arg(long)]
    dry_run: bool,
}

impl Recover {
    /// Recovers and prints what was recovered and what was not.
    ///
    /// # Errors
    /// When nothing can be recovered, or a node's state is not gone.
    pub async fn run(self) -> Result<ExitCode> {
        let nodes = self.configs.iter().map(|path| lost_node(path)).collect::<Result<Vec<_>>>()?;
        let first = nodes.first().context("no node named")?;
        let cluster = first.identity.cluster;
        for node in &nodes {
            ensure!(node.identity.cluster == cluster, "the nodes named are of different clusters");
            if !self.dry_run {
                refuse_living(&node.config)?;
            }
        }
        let keyring = Arc::new(unlock(&nodes, cluster, self.recovery_shares.as_deref())?);
        let (drives, unopened) = self.open_drives(&nodes, cluster).await?;
        println!("drives     {} open, {} not", drives.len(), unopened.len());
        let work = first.config.state_dir.join(WORK_DIR);
        empty(&work)?;

        let mut verdict = Verdict::default();
        verdict.unopened = unopened;
        let found = FoundRecords::on(cluster, drives.clone());
        println!("records    {} of the catalog", found.len());
        let mut keys = RecoveryKeys::new(keyring);
        let (control, control_state) = {
            let dir = work.join("control");
            let (machine, reader) = ControlMachine::open(&dir.join("state"), random_array())?;
            let restored = restore(&found, GroupId::CONTROL, machine, &keys, &dir).await?;
            (reader.view().context("reading the control state")?, restored)
        };
        ensure!(
            control.cluster.as_ref().is_some_and(|record| record.id == cluster),
            "no control state of cluster {cluster} is on these drives: tenants and keys are not known. {}",
            control_state.words()
        );
        verdict.problems.extend(keys.learn(&control));
        for (tenant, service) in keys.waiting(&control) {
            println!(
                "external   tenant {tenant} is recovered without it; its contents are read once {service} allows it"
            );
        }
        let keys = Arc::new(keys);
        let mut catalogs: Vec<(Restored, CatalogReader)> = Vec::new();
        for number in 1..=first.identity.catalog_groups {
            let group = GroupId::new(number);
            let dir = work.join(group.to_string());
            let machine = CatalogMachine::open(&dir.join("state"), Arc::clone(&keys) as _)?;
            let reader = machine.reader();
            let restored = restore(&found, group, machine, &keys, &dir).await?.without_destroyed(&control);
            catalogs.push((restored, reader));
        }
        verdict.groups.push(control_state.summary());
        verdict.groups.extend(catalogs.iter().map(|(restored, _)| restored.summary()));
        let readers: Vec<CatalogReader> = catalogs.iter().map(|(_, reader)| reader.clone()).collect();
        examine(&control, &readers, &drives, &mut verdict)?;

        let mut restored: Vec<Restored> = vec![control_state];
        restored.extend(catalogs.into_iter().map(|(restored, _)| restored));
        if self.dry_run {
            println!("dry run    no state written");
        } else {
            for node in &nodes {
                install(node, &control, &restored, &keys)
                    .await
                    .with_context(|| format!("state of {}", node.identity.name))?;
                println!(
                    "state      of {} written in {}",
                    node.identity.name,
                    node.config.state_dir.display()
                );
            }
        }
        for drive in &drives {
            drive.close().await;
        }
        std::fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
        print!("{verdict}");
        Ok(if verdict.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(2) })
    }

    async fn open_drives(&self, nodes: &[LostNode], cluster: ClusterId) -> Result<(Vec<Drive>, Vec<String>)> {
        let mut paths = self.drives.clone();
        for node in nodes {
            match &node.config.drives {
                DriveSelection::Paths(named) => paths.extend(named.iter().cloned()),
                DriveSelection::Directory(_) => {
                    paths.extend(devices(&node.config.drives).into_iter().map(|device| device.path));
                }
                DriveSelection::AllBlank => paths.extend(holdfast_appliance::data_drives()),
            }
        }
        paths.sort();
        paths.dedup();
        let pool = BufferPool::new(READ_MEMORY).context("memory for reading drives")?;
        tokio::task::spawn_blocking(move || {
            let options = DriveOptions::new(pool);
            let mut drives: Vec<Drive> = Vec::new();
            let mut unopened = Vec::new();
            for path in paths {
                match open_existing(&path, cluster, &options) {
                    Ok(drive) if drives.iter().any(|other| other.id() == drive.id()) => {
                        unopened.push(format!("{}: a copy of a drive that is open", path.display()));
                    }
                    Ok(drive) => drives.push(drive),
                    Err(error) => unopened.push(format!("{}: {error:#}", path.display())),
                }
            }
            ensure!(
                !drives.is_empty(),
                "no drive of cluster {cluster} could be opened: {}",
                unopened.join("; ")
            );
            Ok((drives, unopened))
        })
        .await?
    }
}

/// The roots that the shares of the nodes named give, or operators' shares.
fn unlock(nodes: &[LostNode], cluster: ClusterId, recovery_shares: Option<&Path>) -> Result<Keyring> {
    let keyring = Keyring::locked(cluster);
    if let Some(path) = recovery_shares {
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        keyring.add_root(recovery::recover(cluster, &lines)?);
    }
    let mut gathering = Gathering::default();
    for node in nodes {
        let passphrase = passphrase_of(&node.config.unlock)?;
        let passphrase = passphrase.as_ref().map(|passphrase| passphrase.as_slice());
        let store = ShareStore::open(&node.config.state_dir, cluster, protector(&node.config, passphrase))
            .with_context(|| format!("shares of {}", node.identity.name))?;
        match store.shares() {
            Ok(shares) => shares.shares().iter().for_each(|share| gathering.add(share.clone())),
            Err(error) => match store.seal() {
                Some(Seal::Tpm { why, .. }) => println!("shares     of {}: {why}", node.identity.name),
                _ => println!("shares     of {}: {error}", node.identity.name),
            },
        }
    }
    gathering.roots(cluster).into_iter().for_each(|root| keyring.add_root(root));
    if keyring.is_locked() {
        let found = gathering.progress().map_or_else(
            || "none is there".to_owned(),
            |progress| format!("{} of {} are there", progress.have, progress.need),
        );
        bail!(
            "the nodes named do not hold enough shares of the root key ({found}): name more nodes, or a file \
             with operators' recovery shares (--recovery-shares)"
        );
    }
    Ok(keyring)
}

fn lost_node(path: &Path) -> Result<LostNode> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let config: NodeConfig = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a configuration document", path.display()))?;
    let identity = Credentials::load(&config.state_dir)?
        .with_context(|| format!("{} holds no identity: restore it first", config.state_dir.display()))?
        .identity;
    Ok(LostNode { config, identity })
}

/// Recovery never replaces state: two histories of one cluster must not meet.
fn refuse_living(config: &NodeConfig) -> Result<()> {
    for name in ["raft", "control", "catalog"] {
        let dir = config.state_dir.join(name);
        let used = std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some());
        if used {
            bail!(
                "{} is not empty: recovery is for nodes whose state is lost. Move it away, on every node, if it is",
                dir.display()
            );
        }
    }
    Ok(())
}

fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("emptying {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))
}

/// No node runs while a cluster is recovered.
struct Nobody;

#[async_trait::async_trait]
impl Transport for Nobody {
    async fn send(&self, to: NodeId, _request: Bytes, _timeout: Duration) -> Result<Bytes, TransportError> {
        Err(TransportError::NotSent(to, "recovery talks to nobody".to_owned()))
    }
}

/// Gives entries to a machine outside of any group.
fn apply_all(machine: &mut dyn StateMachine, entries: &[(u64, Vec<Bytes>)]) -> std::io::Result<()> {
    let applied: Vec<Applied<'_>> =
        entries.iter().map(|(index, commands)| Applied { index: *index, commands }).collect();
    machine.apply(&applied).map(drop)
}

/// Voters of a group as the control state has them, and everybody else.
fn members(
    control: &ControlView,
    group: GroupId,
) -> (std::collections::BTreeSet<NodeId>, std::collections::BTreeSet<NodeId>) {
    let all: std::collections::BTreeSet<NodeId> = control
        .nodes
        .values()
        .filter(|node| node.state != holdfast_control::NodeState::Removed)
        .map(|node| node.node)
        .collect();
    let recorded = control.groups.get(&group).cloned().unwrap_or_default();
    let voters = if recorded.is_empty() { all.clone() } else { recorded };
    let learners = all.difference(&voters).copied().collect();
    (voters, learners)
}
