//! New keys in place of old ones, without rewriting data.
//!
//! ```text
//! root    deal shares of the new root ─> one command: everything wrapped anew ─> every member has it,
//!         control state copied under it ─> the old root is let go
//! tenant  one command: the key with one more version
//! ```
//!
//! Cut off between any two steps, both are as they were or both are in force: the command is applied whole
//! or not at all, what it replaces is named in it, and the old root stays until every member has the new one.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use holdfast_control::{Command, ControlView, KeyCommand, NodeState, Refusal, Rewrapped, Splitting};
use holdfast_crypt::Root;
use holdfast_keyring::Keyring;
use holdfast_model::{GroupId, RootEpoch};
use holdfast_object::journal::Journal;

use super::{KeySteward, KeyWatch};
use crate::control::{Control, now};

/// Why a key was not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum RollError {
    /// The one before is not finished.
    #[error(
        "the root before (epoch {}) is not let go yet: a node that is down has to get the new one first", epoch.get()
    )]
    Unfinished {
        /// Its epoch.
        epoch: RootEpoch,
    },
    /// No such tenant.
    #[error("no such tenant")]
    NoTenant,
    /// The control group refused.
    #[error("{0}")]
    Refused(Refusal),
    /// Not done, or not known to be done.
    #[error("{0:#}")]
    Undecided(#[from] anyhow::Error),
}

/// Puts a new root in the place of the current one.
///
/// # Errors
/// When one is being replaced already, shares cannot be dealt, or the control group does not decide.
pub async fn roll_root(steward: &KeySteward) -> Result<RootEpoch, RollError> {
    let view = steward.control.view().await?;
    let current = view.keys.current().context("no root is recorded yet")?;
    if let [old, _, ..] = view.keys.roots.as_slice() {
        return Err(RollError::Unfinished { epoch: old.epoch });
    }
    let keyring = &steward.holder.keyring;
    let root = Root::generate(keyring.cluster(), RootEpoch::new(current.epoch.get() + 1));
    let splitting = steward.deal(&root, &view, Some(current.splitting.split)).await?;
    let command = command_for(&view, keyring, &root, splitting)?;
    let epoch = root.epoch();
    // Before anybody may need it; a root that never comes into force is replaced by the one that does.
    keyring.add_root(root);
    match steward.control.propose(&Command::Keys(command)).await? {
        Ok(_) => {
            tracing::info!(target: "audit", epoch = epoch.get(), "a new root is in force");
            Ok(epoch)
        }
        Err(refusal) => Err(RollError::Refused(refusal)),
    }
}

/// The command that puts `root` in force: everything wrapped anew.
pub(super) fn command_for(
    view: &ControlView,
    keyring: &Keyring,
    root: &Root,
    splitting: Splitting,
) -> anyhow::Result<KeyCommand> {
    Ok(KeyCommand::Roll {
        epoch: root.epoch(),
        root: root.id(),
        splitting,
        cluster_key: root.wrap_cluster_key(&keyring.cluster_key().context("the cluster key")?),
        tenants: rewrapped(view, keyring, root)?,
        at: now(),
    })
}

fn rewrapped(
    view: &ControlView,
    keyring: &Keyring,
    root: &Root,
) -> anyhow::Result<BTreeMap<holdfast_model::TenantId, Rewrapped>> {
    let mut tenants = BTreeMap::new();
    for record in view.tenants.values() {
        let now = keyring
            .rewrap_tenant(record.tenant, &record.wrapped_key, root)
            .with_context(|| format!("opening the key of tenant {}", record.name))?;
        tenants.insert(record.tenant, Rewrapped { was: record.wrapped_key.clone(), now });
    }
    Ok(tenants)
}

/// Adds a version to a tenant's key.
///
/// # Errors
/// When there is no such tenant, its key has as many versions as it may have, or the control group does not
/// decide.
pub async fn rotate_tenant(control: &Control, keyring: &Keyring, name: &str) -> Result<u32, RollError> {
    let view = control.view().await?;
    let record = view.tenants.values().find(|record| record.name == name).ok_or(RollError::NoTenant)?;
    let key = keyring.tenant(record.tenant, &record.wrapped_key).context("opening its key")?;
    let next = key.rotated().context("adding a version")?;
    let key = Rewrapped {
        was: record.wrapped_key.clone(),
        now: keyring.wrap_tenant_as(record.tenant, &record.wrapped_key, &next).context("wrapping its key")?,
    };
    let command = Command::Keys(KeyCommand::SetTenantKey { tenant: record.tenant, key });
    match control.propose(&command).await? {
        Ok(_) => {
            tracing::info!(target: "audit", tenant = %record.tenant, version = next.version(), "tenant key rotated");
            Ok(next.version())
        }
        Err(refusal) => Err(RollError::Refused(refusal)),
    }
}

/// Lets the roots before the current one go, once nothing needs them. Run by the leader of the control group.
#[derive(Debug)]
pub struct Retirement {
    /// The control group.
    pub control: Control,
    /// What nodes say of their keys.
    pub watch: KeyWatch,
    /// Has the control state copied under the new root.
    pub journal: Arc<Journal>,
}

/// Members that do not have the current root and their share of it yet.
fn behind(view: &ControlView, watch: &KeyWatch) -> Vec<String> {
    let Some(current) = view.keys.current() else { return Vec::new() };
    let has_it = |node| {
        watch.of(node).is_some_and(|word| {
            word.epochs.contains(&current.epoch)
                && word.splits.is_some_and(|held| held.contains(&current.splitting.split))
        })
    };
    let members = view.nodes.values().filter(|node| node.state == NodeState::Active);
    members.filter(|node| !has_it(node.node)).map(|node| node.name.clone()).collect()
}

impl Retirement {
    /// One step further; `asked` holds the epoch for which the copy was asked for. Returns what it waits for.
    ///
    /// # Errors
    /// When the control group does not decide.
    pub async fn step(&self, asked: &mut Option<RootEpoch>) -> anyhow::Result<Option<String>> {
        let view = self.control.view().await?;
        let Some(current) = view.keys.current().filter(|_| view.keys.roots.len() > 1) else {
            *asked = None;
            return Ok(None);
        };
        let behind = behind(&view, &self.watch);
        if !behind.is_empty() {
            return Ok(Some(format!("{} to get the new root", behind.join(", "))));
        }
        if *asked != Some(current.epoch) {
            *asked = Some(current.epoch);
            self.journal.renew(GroupId::CONTROL);
        }
        if !self.journal.is_renewed(GroupId::CONTROL) {
            return Ok(Some("a copy of the control state under the new root".to_owned()));
        }
        let command = Command::Keys(KeyCommand::Retire { epoch: current.epoch });
        self.control.propose(&command).await?.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        tracing::info!(target: "audit", before = current.epoch.get(), "old root keys let go");
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_control::{KeysView, NodeRecord, RootRecord, ServiceAddresses};
    use holdfast_model::{KeyId, NodeId, SplitId, UnixMillis};

    use super::*;
    use crate::keys::KeyWord;

    #[test]
    fn an_old_root_stays_until_every_member_has_the_new_one_and_its_share() {
        let split = SplitId::from_bytes([2; 16]);
        let root = |epoch| RootRecord {
            epoch: RootEpoch::new(epoch),
            root: KeyId::from_bytes([1; 16]),
            splitting: Splitting { split, threshold: 2, holders: BTreeMap::new() },
            since: UnixMillis::new(0),
        };
        let node = |id| NodeRecord {
            node: NodeId::new(id),
            name: format!("n{id}"),
            peer: "127.0.0.1:1".parse().unwrap(),
            services: ServiceAddresses::default(),
            state: NodeState::Active,
            joined: UnixMillis::new(0),
            feature_level: 1,
        };
        let view = ControlView {
            keys: KeysView { roots: vec![root(1), root(2)], ..KeysView::default() },
            nodes: (1..=2).map(|id| (NodeId::new(id), node(id))).collect(),
            ..ControlView::default()
        };
        let watch = KeyWatch::default();
        let word = |epochs: &[u32], splits: Option<Vec<SplitId>>| KeyWord {
            epochs: epochs.iter().map(|epoch| RootEpoch::new(*epoch)).collect(),
            splits,
            ..KeyWord::default()
        };
        watch.heard(NodeId::new(1), word(&[1, 2], Some(vec![split])));
        assert_eq!(behind(&view, &watch), ["n2"], "it has not spoken");
        for incomplete in [word(&[1], Some(vec![split])), word(&[2], Some(vec![])), word(&[2], None)] {
            watch.heard(NodeId::new(2), incomplete);
            assert_eq!(behind(&view, &watch), ["n2"]);
        }
        watch.heard(NodeId::new(2), word(&[2], Some(vec![split])));
        assert!(behind(&view, &watch).is_empty());
    }
}
