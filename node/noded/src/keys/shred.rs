//! Destroys tenants, step by step.
//!
//! ```text
//! begun      the tenant is suspended, its access keys are gone
//!   leader   its partitions leave their groups, each at one entry of the group's log
//! destroyed  its row is gone from the control state, and with it the only wrapped form of its key
//!   leader   a new root takes the place of the one that wrapped it, which is let go (`roll`)
//!   nodes    forget what they have in memory; renew their logs; bases replace what drives hold of before
//! confirmed  by every member
//!   leader   writes the certificate
//! finished
//! ```
//!
//! Where it stands is in the control state, so that whoever leads goes on there after any crash; each step may be
//! repeated. Nothing here decides: that an operator may destroy a tenant was checked before it begun.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use holdfast_catalog::{CatalogReader, Command as CatalogCommand, Op, decode_outcome};
use holdfast_consensus::LogRenewal;
use holdfast_control::{Command, ControlView, Destroyed, NodeRecord, NodeState, ShredCommand, ShredRecord};
use holdfast_keyring::certificate::Destruction;
use holdfast_model::{GroupId, TenantId};
use holdfast_object::journal::Journal;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Holder, KeySteward, roll_root};
use crate::{control::now, metadata_keys::LiveMetadataKeys};

/// How often a step is tried.
const INTERVAL: Duration = Duration::from_secs(1);

/// Destroys tenants: this node's part of it, and while this node leads the control group, the rest.
pub struct Shredder {
    /// Rolls the root; knows the control group, the links and this node's keys.
    pub steward: Arc<KeySteward>,
    /// The catalog's second copy.
    pub journal: Arc<Journal>,
    /// This node's replicas.
    pub catalogs: HashMap<GroupId, CatalogReader>,
    /// Metadata keys in memory.
    pub metadata_keys: Arc<LiveMetadataKeys>,
    /// Renewals of the log that were begun for a tenant.
    pub renewals: Mutex<BTreeMap<TenantId, LogRenewal>>,
}

/// Nodes that have to confirm: all that ever held a share and were not removed.
fn members(view: &ControlView) -> impl Iterator<Item = &NodeRecord> {
    view.nodes.values().filter(|node| node.state != NodeState::Removed)
}

/// Whether a root that may have wrapped the key is still in force somewhere.
fn old_root_stays(view: &ControlView, destroyed: &Destroyed) -> bool {
    view.keys.roots.iter().any(|root| root.epoch <= destroyed.epoch)
}

/// What a node holds that opens the destroyed key, or is that key.
pub(super) fn keeps_key(
    view: &ControlView,
    tenant: TenantId,
    destroyed: &Destroyed,
    holder: &Holder,
) -> Result<Option<&'static str>> {
    if old_root_stays(view, destroyed) || holder.keyring.epochs().iter().any(|e| *e <= destroyed.epoch) {
        return Ok(Some("the root that wrapped it"));
    }
    let shares = holder.keyring.state().shares.context("this node's shares of the root are sealed")?;
    if shares.iter().any(|(_, epoch)| *epoch <= destroyed.epoch) {
        return Ok(Some("a share of the root that wrapped it"));
    }
    Ok(holder.keyring.remembers(tenant)?.then_some("the key, in memory"))
}

/// What a tenant's destruction waits for, in words for operators. `None` when it is finished.
#[must_use]
pub fn waits_for(view: &ControlView, record: &ShredRecord) -> Option<String> {
    if record.finished.is_some() {
        return None;
    }
    let Some(destroyed) = &record.destroyed else {
        return Some("its partitions of the catalog to leave their groups".to_owned());
    };
    if old_root_stays(view, destroyed) {
        return Some(format!("the root of epoch {} to be let go by every node", destroyed.epoch.get()));
    }
    let missing: Vec<&str> = members(view)
        .filter(|node| !record.confirmed.contains_key(&node.node))
        .map(|node| node.name.as_str())
        .collect();
    Some(match missing.as_slice() {
        [] => "its certificate to be written".to_owned(),
        names => format!("{} to purge what they hold", names.join(", ")),
    })
}

impl Shredder {
    /// Runs until cancelled; idle while nothing is to be destroyed or the node is locked.
    pub async fn run(self, stop: CancellationToken) {
        let mut said: BTreeMap<TenantId, String> = BTreeMap::new();
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if self.steward.holder.keyring.is_locked() {
                continue;
            }
            let view = match self.steward.control.view().await {
                Ok(view) => view,
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "the control state could not be read");
                    continue;
                }
            };
            for (tenant, record) in view.shreds.iter().filter(|(_, record)| record.finished.is_none()) {
                let (failed, waits) = match self.step(&view, *tenant, record).await {
                    Ok(Some(waits)) => (false, waits),
                    Ok(None) => continue,
                    Err(error) => (true, format!("{error:#}")),
                };
                if said.get(tenant) == Some(&waits) {
                    continue;
                }
                if failed {
                    tracing::warn!(%tenant, error = waits, "destroying a tenant goes no further; tried again");
                } else {
                    tracing::info!(%tenant, waits_for = waits, "a tenant is being destroyed");
                }
                said.insert(*tenant, waits);
            }
        }
    }

    /// One step further with one tenant; what this node waits for, if anything.
    async fn step(
        &self,
        view: &ControlView,
        tenant: TenantId,
        record: &ShredRecord,
    ) -> Result<Option<String>> {
        let own = self.steward.own;
        let leads = self.leads(GroupId::CONTROL);
        if leads {
            self.lead(view, tenant, record).await?;
        }
        let Some(destroyed) = &record.destroyed else { return Ok(None) };
        if record.confirmed.contains_key(&own) {
            return Ok(None);
        }
        if let Some(holds) = self.holds(view, tenant, record, destroyed).await? {
            return Ok(Some(holds));
        }
        self.decide(ShredCommand::Confirm { tenant, node: own, at: now() }).await?;
        tracing::info!(target: "audit", %tenant, "this node holds nothing of a destroyed tenant's key");
        self.renewals.lock().remove(&tenant);
        Ok(None)
    }

    /// What only the leader of the control group does.
    async fn lead(&self, view: &ControlView, tenant: TenantId, record: &ShredRecord) -> Result<()> {
        let Some(destroyed) = &record.destroyed else {
            let through = self.drop_partitions(view, tenant, record).await?;
            self.decide(ShredCommand::Destroy { tenant, through, at: now() }).await?;
            tracing::warn!(target: "audit", %tenant, name = record.name, "a tenant's wrapped key is removed");
            return Ok(());
        };
        let current = view.keys.current().context("no root is recorded")?;
        if current.epoch <= destroyed.epoch {
            // One that is being let go first has wrapped it as well.
            if view.keys.roots.len() == 1 {
                roll_root(&self.steward).await?;
            }
            return Ok(());
        }
        let confirmed = members(view).all(|node| record.confirmed.contains_key(&node.node));
        if old_root_stays(view, destroyed) || !confirmed {
            return Ok(());
        }
        let certificate = self.certificate(view, tenant, record, destroyed)?;
        self.decide(ShredCommand::Finish { tenant, certificate, at: now() }).await?;
        tracing::warn!(target: "audit", %tenant, name = record.name, "a tenant is destroyed");
        Ok(())
    }

    /// Has every partition of the tenant leave its group; the entries up to which groups may hold something of it.
    async fn drop_partitions(
        &self,
        view: &ControlView,
        tenant: TenantId,
        record: &ShredRecord,
    ) -> Result<BTreeMap<GroupId, u64>> {
        let row = view.tenants.get(&tenant).context("the tenant's row is gone")?;
        let consensus = &self.steward.consensus;
        let mut through = BTreeMap::new();
        for (partition, group) in &record.partitions {
            let op = Op::DropPartition { tenant, database_id: row.database_of(*partition) };
            let command = CatalogCommand { partition: *partition, at: now(), request: None, op };
            let answer = consensus.propose(*group, command.encode()).await?;
            decode_outcome(&answer)?
                .map_err(|refusal| anyhow::anyhow!("catalog group {group}: {refusal}"))?;
            consensus.read_barrier(*group).await?;
            let applied = consensus.status(*group).and_then(|status| status.applied);
            through.insert(*group, applied.context("the group has applied nothing")?);
        }
        Ok(through)
    }

    /// What this node still holds of the tenant's key; `None` when there is nothing.
    async fn holds(
        &self,
        view: &ControlView,
        tenant: TenantId,
        record: &ShredRecord,
        destroyed: &Destroyed,
    ) -> Result<Option<String>> {
        let holds = |what: &str| Ok(Some(what.to_owned()));
        if let Some(kept) = keeps_key(view, tenant, destroyed, &self.steward.holder)? {
            return holds(kept);
        }
        if self.metadata_keys.remembers(tenant) {
            return holds("a key derived from it, in memory");
        }
        for (partition, group) in &record.partitions {
            let hosted = self.catalogs.get(group).is_some_and(|reader| reader.identity(*partition).is_some());
            if hosted {
                return holds("a partition of its catalog");
            }
        }
        let consensus = &self.steward.consensus;
        for (group, through) in &destroyed.through {
            let applied = consensus.status(*group).and_then(|status| status.applied);
            if applied < Some(*through) {
                return holds("a replica that has not come as far");
            }
        }
        let begun = self.renewals.lock().get(&tenant).copied();
        let renewal = match begun {
            Some(renewal) => renewal,
            None => {
                let renewal = consensus.renew_log().await?;
                self.renewals.lock().insert(tenant, renewal);
                renewal
            }
        };
        // Both are begun, whichever is done first.
        let purged: Vec<bool> = destroyed
            .through
            .iter()
            .map(|(group, through)| self.journal.is_purged(*group, *through, self.leads(*group)))
            .collect();
        if !consensus.has_renewed(renewal) {
            return holds("old entries of its log");
        }
        if purged.contains(&false) {
            return holds("old records of the catalog on its drives");
        }
        Ok(None)
    }

    fn leads(&self, group: GroupId) -> bool {
        self.steward.consensus.status(group).is_some_and(|status| status.leader == Some(self.steward.own))
    }

    fn certificate(
        &self,
        view: &ControlView,
        tenant: TenantId,
        record: &ShredRecord,
        destroyed: &Destroyed,
    ) -> Result<String> {
        let cluster = view.cluster.as_ref().context("no cluster")?;
        let current = view.keys.current().context("no root is recorded")?;
        ensure!(current.epoch > destroyed.epoch, "the root that wrapped it is in force");
        let paper = view.keys.recovery.iter().filter(|set| set.epoch <= destroyed.epoch);
        let name_of = |node| view.nodes.get(node).map_or_else(String::new, |node| node.name.clone());
        let destruction = Destruction {
            cluster: cluster.id,
            cluster_name: cluster.name.clone(),
            tenant,
            tenant_name: record.name.clone(),
            keys: record.keys.clone(),
            wrapped_by: (destroyed.epoch, destroyed.root),
            root: (current.epoch, current.root),
            paper: paper.map(|set| (set.set, set.epoch, set.threshold, set.count)).collect(),
            external: record.external.clone(),
            by: record.by.clone(),
            overridden: record.overridden.clone(),
            begun: record.begun,
            destroyed: destroyed.at,
            nodes: record.confirmed.iter().map(|(node, at)| (node.get(), name_of(node), *at)).collect(),
            finished: now(),
        };
        Ok(self.steward.holder.keyring.certify(destruction)?)
    }

    async fn decide(&self, command: ShredCommand) -> Result<()> {
        let outcome = self.steward.control.propose(&Command::Shred(command)).await?;
        outcome.map(drop).map_err(|refusal| anyhow::anyhow!("{refusal}"))
    }
}
