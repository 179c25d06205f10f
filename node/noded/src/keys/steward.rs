//! Splits the root anew when members come or go, the threshold changes, or a member misses its share. The
//! leader of the control group does it.
//!
//! A splitting is dealt to every member that answers, each of which keeps it durably before it says so; then
//! the control group is told. Until then the splitting before it is in force, and its shares are kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use holdfast_consensus::Consensus;
use holdfast_control::{Command, ControlView, HOLDERS_MAX, KeyCommand, NodeState, Splitting};
use holdfast_crypt::random_array;
use holdfast_keyring::HeldShare;
use holdfast_model::{GroupId, NodeId, RootEpoch, SplitId};
use holdfast_peer::PeerClient;
use holdfast_store::Health;
use tokio_util::sync::CancellationToken;

use super::{Holder, KeyWatch, Retirement};
use crate::{
    control::Control,
    orders::{self, Answer, Order},
};

/// How often the splitting is compared with the members.
const INTERVAL: Duration = Duration::from_secs(1);

/// Keeps the splitting in step with the members.
#[derive(Debug)]
pub struct KeySteward {
    /// The control group.
    pub control: Control,
    /// All groups.
    pub consensus: Arc<Consensus>,
    /// Who answers.
    pub health: Arc<Health>,
    /// What nodes say of their shares.
    pub watch: KeyWatch,
    /// Links to the others.
    pub peers: PeerClient,
    /// Shares and keys of this node.
    pub holder: Arc<Holder>,
    /// Lets old roots go.
    pub retirement: Retirement,
    /// This node.
    pub own: NodeId,
}

/// Why the root is split anew, if it is to be.
fn reason(
    view: &ControlView,
    members: &BTreeSet<NodeId>,
    misses_share: impl Fn(NodeId, SplitId) -> bool,
) -> Option<String> {
    let splitting = &view.keys.current()?.splitting;
    let threshold = view.keys.threshold_for(members.len());
    let holders: BTreeSet<NodeId> = splitting.holders.keys().copied().collect();
    if holders != *members {
        return Some(format!("the members are {members:?}, shares were dealt to {holders:?}"));
    }
    if splitting.threshold != threshold {
        return Some(format!("{threshold} shares are wanted, not {}", splitting.threshold));
    }
    let missing = members.iter().find(|node| misses_share(**node, splitting.split))?;
    Some(format!("{missing} has no share of the splitting in force"))
}

/// Members that hold shares.
fn members_of(view: &ControlView) -> BTreeSet<NodeId> {
    let active = view.nodes.values().filter(|node| node.state == NodeState::Active);
    active.map(|node| node.node).take(HOLDERS_MAX).collect()
}

impl KeySteward {
    /// Runs until cancelled; idle on nodes that do not lead the control group or are locked.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut asked = None;
        let mut waited = None;
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let leads =
                self.consensus.status(GroupId::CONTROL).is_some_and(|status| status.leader == Some(self.own));
            if !leads || self.holder.keyring.is_locked() {
                continue;
            }
            if let Err(error) = self.keep_in_step().await {
                tracing::warn!(error = format!("{error:#}"), "the root is not split as it should be yet");
            }
            match self.retirement.step(&mut asked).await {
                Ok(waits_for) if waits_for != waited => {
                    if let Some(waits_for) = &waits_for {
                        tracing::info!(waits_for, "the old root is kept");
                    }
                    waited = waits_for;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the old root is not let go yet"),
            }
        }
    }

    async fn keep_in_step(&self) -> Result<()> {
        let view = self.control.view().await?;
        let members = members_of(&view);
        let misses_share = |node: NodeId, split: SplitId| {
            self.health.is_up(node)
                && self.watch.of(node).and_then(|word| word.splits).is_some_and(|held| !held.contains(&split))
        };
        let Some(why) = reason(&view, &members, misses_share) else { return Ok(()) };
        let current = view.keys.current().context("no root is recorded")?;
        let replaces = current.splitting.split;
        let splitting = self.deal(current.epoch, &view, Some(replaces)).await?;
        let (split, threshold) = (splitting.split, splitting.threshold);
        let command = KeyCommand::Split { epoch: current.epoch, replaces, splitting };
        self.control
            .propose(&Command::Keys(command))
            .await?
            .map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        tracing::info!(target: "audit", %split, threshold, holders = members.len(), why, "root split anew");
        Ok(())
    }

    /// Deals shares of a root to all members. Every member that answers holds its share durably when this
    /// returns, and those that hold one are enough.
    ///
    /// # Errors
    /// When a member that is up does not take its share, or too few do.
    pub async fn deal(
        &self,
        epoch: RootEpoch,
        view: &ControlView,
        replaces: Option<SplitId>,
    ) -> Result<Splitting> {
        let members = members_of(view);
        let threshold = view.keys.threshold_for(members.len());
        let count = u8::try_from(members.len()).context("more members than there can be shares")?;
        let split = SplitId::from_bytes(random_array());
        let shares = self.holder.keyring.deal(epoch, split, replaces, threshold, count)?;
        let holders: BTreeMap<NodeId, u8> =
            members.iter().zip(&shares).map(|(node, share)| (*node, share.x())).collect();
        let giving = members.iter().copied().zip(shares).map(|(node, share)| self.give(node, share));
        let mut taken = 0;
        for (node, outcome) in members.iter().zip(join_all(giving).await) {
            match outcome {
                Ok(()) => taken += 1,
                // One whose own shares are sealed takes none until its passphrase has been entered.
                Err(error) if self.health.is_up(*node) && !self.is_sealed(*node) => {
                    return Err(error.context(format!("dealing a share to {node}")));
                }
                Err(error) => tracing::info!(%node, error = format!("{error:#}"), "takes no share now"),
            }
        }
        ensure!(taken >= usize::from(threshold), "{taken} of {threshold} shares could be dealt");
        Ok(Splitting { split, threshold, holders })
    }

    fn is_sealed(&self, node: NodeId) -> bool {
        self.watch.of(node).is_some_and(|word| word.splits.is_none())
    }

    async fn give(&self, node: NodeId, share: HeldShare) -> Result<()> {
        if node == self.own {
            return self.holder.take(self.own, share);
        }
        match orders::give(&self.peers, node, &Order::TakeShare(share)).await? {
            Answer::Done => Ok(()),
            other => bail!("answered {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_control::{KeysView, RootRecord};
    use holdfast_model::{KeyId, UnixMillis};

    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId::new(*id)).collect()
    }

    #[test]
    fn the_root_is_split_anew_when_members_the_threshold_or_a_share_are_not_as_they_should_be() {
        let splitting = Splitting {
            split: SplitId::from_bytes([1; 16]),
            threshold: 2,
            holders: (1..).zip([1, 2, 3]).map(|(id, x)| (NodeId::new(id), x)).collect(),
        };
        let root = RootRecord {
            epoch: RootEpoch::new(1),
            root: KeyId::from_bytes([1; 16]),
            splitting,
            since: UnixMillis::new(0),
        };
        let view = |threshold| ControlView {
            keys: KeysView { roots: vec![root.clone()], threshold, ..KeysView::default() },
            ..ControlView::default()
        };
        let whole = |_: NodeId, _: SplitId| false;
        assert_eq!(reason(&view(None), &nodes(&[1, 2, 3]), whole), None);
        assert!(reason(&view(None), &nodes(&[1, 2, 3, 4]), whole).is_some());
        assert!(reason(&view(None), &nodes(&[1, 2]), whole).is_some());
        assert!(reason(&view(Some(3)), &nodes(&[1, 2, 3]), whole).is_some());
        assert!(reason(&view(None), &nodes(&[1, 2, 3]), |node, _| node.get() == 2).is_some());
        assert_eq!(reason(&ControlView::default(), &nodes(&[1]), whole), None, "not founded");
    }
}
