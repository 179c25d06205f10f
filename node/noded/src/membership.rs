//! Keeps groups in step with the membership. The leader of the control group does it, for all groups.
//!
//! Which nodes should vote is decided by [`desired_voters`], purely; it is recorded in the control state,
//! and then carried out group by group, each on its own: one that cannot be changed now holds up no other.
//! Every other node is a learner, so that each node can answer reads from its own replica.
//!
//! A replica whose part of the log is damaged is taken out of its group, told to begin anew, and comes back
//! like any node that joins. A node that leaves is taken out of all groups, and then removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use futures::future::join_all;
use holdfast_consensus::{Consensus, GroupStatus, MembershipError};
use holdfast_control::{Command, ControlView, NodeState};
use holdfast_model::{GroupId, NodeId};
use holdfast_peer::PeerClient;
use holdfast_store::Health;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    access_keys::reserve_journals,
    control::Control,
    groups::{Ailment, Ward},
    orders::{self, Order},
    poller,
    tenants::complete_creations,
};

/// How often the groups are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long one change of one group may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a node that leaves may take to hand its groups over, before it is taken out of them leading.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(15);

/// Voters of a group in clusters of fewer than five nodes.
const VOTERS: usize = 3;

/// Voters of a group from five nodes on: two may be lost.
const VOTERS_OF_FIVE: usize = 5;

/// Which nodes should vote in `group`. Nodes that vote now stay, so that nothing moves without need; the
/// rest is drawn in turn, so that groups spread over the nodes.
#[must_use]
pub fn desired_voters(
    group: GroupId,
    members: &BTreeSet<NodeId>,
    now: &BTreeSet<NodeId>,
) -> BTreeSet<NodeId> {
    let wanted = if members.len() >= VOTERS_OF_FIVE { VOTERS_OF_FIVE } else { VOTERS.min(members.len()) };
    let turn = group.get() as usize % members.len().max(1);
    let in_turn = || members.iter().cycle().skip(turn).take(members.len());
    let staying = in_turn().filter(|node| now.contains(node));
    let coming = in_turn().filter(|node| !now.contains(node));
    staying.chain(coming).take(wanted).copied().collect()
}

/// Keeps the groups in step.
#[derive(Debug)]
pub struct Steward {
    /// The control group.
    pub control: Control,
    /// All groups.
    pub consensus: Arc<Consensus>,
    /// Who answers.
    pub health: Arc<Health>,
    /// Which groups do not run where.
    pub ward: Arc<Ward>,
    /// Links to the others.
    pub peers: PeerClient,
    /// This node.
    pub own: NodeId,
    /// Since when nodes are seen leaving.
    pub leaving: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Steward {
    /// Runs until cancelled; idle on nodes that do not lead the control group.
    pub async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut completed_for = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let status = self.consensus.status(GroupId::CONTROL);
            if status.is_none_or(|status| status.leader != Some(self.own)) {
                completed_for = None;
                continue;
            }
            let round = async {
                let view = self.control.view().await?;
                if completed_for != Some(view.tenants.len()) {
                    // A group that cannot decide now must not keep the others from being mended.
                    match complete_creations(&view, &self.consensus).await {
                        Ok(()) => completed_for = Some(view.tenants.len()),
                        Err(error) => tracing::warn!(error = format!("{error:#}"), "partitions not complete"),
                    }
                }
                if let Err(error) = reserve_journals(&view, &self.control).await {
                    tracing::warn!(error = format!("{error:#}"), "journal addresses not complete");
                }
                self.reconcile(&view).await
            };
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = round => outcome,
            };
            if let Err(error) = outcome {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "groups not in step with the membership yet; will be tried again"
                );
            }
        }
    }

    async fn reconcile(&self, view: &ControlView) -> Result<()> {
        let members: BTreeSet<NodeId> = view
            .nodes
            .values()
            .filter(|node| match node.state {
                NodeState::Active => true,
                // Someone who is not there yet is not waited for.
                NodeState::Joining => node.node == self.own || self.health.is_up(node.node),
                NodeState::Leaving | NodeState::Removed => false,
            })
            .map(|node| node.node)
            .collect();
        let leaving: BTreeSet<NodeId> = {
            let mut since = self.leaving.lock();
            let leaving = view.nodes.values().filter(|node| node.state == NodeState::Leaving);
            let leaving: BTreeSet<NodeId> = leaving.map(|node| node.node).collect();
            since.retain(|node, _| leaving.contains(node));
            for node in &leaving {
                since.entry(*node).or_insert_with(Instant::now);
            }
            leaving
        };
        let groups = view.groups.iter();
        let settling = groups.map(|(group, recorded)| self.settle(*group, recorded, &members, &leaving));
        let mut outsiders: BTreeMap<NodeId, bool> = view.nodes.keys().map(|node| (*node, true)).collect();
        let mut insiders = outsiders.clone();
        let mut failed = Vec::new();
        for (group, outcome) in view.groups.keys().zip(join_all(settling).await) {
            let known = match outcome {
                Ok(known) => known,
                Err(error) => {
                    failed.push(format!("{group}: {error:#}"));
                    None
                }
            };
            for (node, inside) in &mut insiders {
                *inside &= known.as_ref().is_some_and(|known| known.contains(node));
            }
            for (node, outside) in &mut outsiders {
                *outside &= known.as_ref().is_some_and(|known| !known.contains(node));
            }
        }
        for node in view.nodes.values() {
            match node.state {
                NodeState::Joining if insiders[&node.node] => {
                    self.decide(&Command::ActivateNode(node.node)).await?;
                    tracing::info!(node = %node.node, name = node.name, "node is a full member");
                }
                NodeState::Leaving if outsiders[&node.node] => {
                    // Without it the node only learns of it from nobody answering any more.
                    if let Err(error) = orders::give(&self.peers, node.node, &Order::Farewell).await {
                        tracing::info!(node = %node.node, error = format!("{error:#}"), "no farewell taken");
                    }
                    self.decide(&Command::RemoveNode(node.node)).await?;
                    tracing::warn!(target: "audit", node = %node.node, name = node.name, "node removed");
                }
                _ => {}
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(anyhow!("{}", failed.join("; "))) }
    }

    async fn decide(&self, command: &Command) -> Result<()> {
        self.control.propose(command).await?.map(drop).map_err(|refusal| anyhow!("{refusal}"))
    }

    /// Brings one group a step nearer to what it should be. Returns who is in it, once it is settled.
    async fn settle(
        &self,
        group: GroupId,
        recorded: &BTreeSet<NodeId>,
        members: &BTreeSet<NodeId>,
        leaving: &BTreeSet<NodeId>,
    ) -> Result<Option<BTreeSet<NodeId>>> {
        let desired = desired_voters(group, members, recorded);
        if desired != *recorded {
            self.decide(&Command::SetGroupVoters { group, voters: desired.clone() }).await?;
        }
        // Damaged here: another node is to lead the control group (`leaders`), and sees to it.
        let Some(status) = self.consensus.status(group) else { return Ok(None) };
        let Some(leader) = status.leader else { return Ok(None) };
        if status.changing {
            return Ok(None);
        }
        if leaving.contains(&leader) && self.may_still_hand_over(leader) {
            return Ok(None);
        }
        let ailing = self.ailing(group, members).await;
        let unwanted = |node: &NodeId| !members.contains(node) || ailing.contains_key(node);
        if !ailing.is_empty() || status.voters.iter().chain(&status.learners).any(unwanted) {
            self.take_out(&status, &desired, unwanted).await?;
            for (node, ailment) in &ailing {
                let order = Order::BeginAnew { group, ailment: ailment.id };
                let answer = orders::give(&self.peers, *node, &order).await;
                tracing::warn!(%group, %node, ?answer, what = ailment.what, "damaged replica begins anew");
                answer.with_context(|| format!("having {node} begin group {group} anew"))?;
            }
            return Ok(None);
        }
        let mut known: BTreeSet<NodeId> = status.voters.union(&status.learners).copied().collect();
        for node in members.difference(&known.clone()) {
            if !self.health.is_up(*node) && *node != self.own {
                continue;
            }
            self.change(self.consensus.add_learner(group, *node))
                .await
                .with_context(|| format!("adding {node} to group {group}"))?;
            tracing::info!(%group, %node, "node follows the group");
            known.insert(*node);
        }
        let voters: BTreeSet<NodeId> = desired.intersection(&known).copied().collect();
        if !voters.is_empty() && status.voters != voters {
            self.change(self.consensus.demote_others(group, voters.clone()))
                .await
                .with_context(|| format!("changing the voters of group {group}"))?;
            tracing::info!(%group, ?voters, "voters changed");
        }
        Ok(Some(known))
    }

    /// Takes every `unwanted` node out of the group: first its vote, then the rest.
    async fn take_out(
        &self,
        status: &GroupStatus,
        desired: &BTreeSet<NodeId>,
        unwanted: impl Fn(&NodeId) -> bool,
    ) -> Result<()> {
        let group = status.group;
        let mut voters: BTreeSet<NodeId> =
            status.voters.iter().copied().filter(|node| !unwanted(node)).collect();
        // Who is to vote instead and follows already does so at once: the group is not left with fewer.
        voters.extend(desired.iter().filter(|node| status.learners.contains(node) && !unwanted(node)));
        if voters.is_empty() {
            return Err(anyhow!("no voter of group {group} is left that could go on"));
        }
        if voters != status.voters {
            self.change(self.consensus.demote_others(group, voters.clone()))
                .await
                .with_context(|| format!("taking votes from nodes of group {group}"))?;
            tracing::warn!(%group, ?voters, "voters taken out");
        }
        for node in status.voters.union(&status.learners).filter(|node| unwanted(node)) {
            self.change(self.consensus.remove_learner(group, *node))
                .await
                .with_context(|| format!("taking {node} out of group {group}"))?;
        }
        Ok(())
    }

    async fn change(&self, change: impl Future<Output = Result<(), MembershipError>>) -> Result<()> {
        tokio::time::timeout(CHANGE_TIMEOUT, change)
            .await
            .map_err(|_| anyhow!("not done in {CHANGE_TIMEOUT:?}"))?
            .map_err(Into::into)
    }

    fn may_still_hand_over(&self, node: NodeId) -> bool {
        self.leaving.lock().get(&node).is_some_and(|since| since.elapsed() < HAND_OVER_PATIENCE)
    }

    /// Members whose replica of `group` is to be taken out, by their own word of just now.
    async fn ailing(&self, group: GroupId, members: &BTreeSet<NodeId>) -> BTreeMap<NodeId, Ailment> {
        let mut found = BTreeMap::new();
        for (node, ailment) in self.ward.of(group) {
            if !ailment.curable || !members.contains(&node) || node == self.own {
                continue;
            }
            // The ward may be a second old, and the ailment cured since.
            match poller::ask(&self.peers, node).await {
                Ok(word) => {
                    let now = word.ailments.into_iter().find(|now| now.group == group && now.curable);
                    found.extend(now.map(|now| (node, now)));
                }
                Err(error) => tracing::info!(%node, error = format!("{error:#}"), "an ailing node is silent"),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId::new(*id)).collect()
    }

    #[test]
    fn small_clusters_vote_whole_and_large_ones_in_fives() {
        let group = GroupId::new(1);
        assert_eq!(desired_voters(group, &nodes(&[1]), &nodes(&[1])), nodes(&[1]));
        assert_eq!(desired_voters(group, &nodes(&[1, 2, 3]), &nodes(&[1])), nodes(&[1, 2, 3]));
        assert_eq!(desired_voters(group, &nodes(&[1, 2, 3, 4]), &nodes(&[1, 2, 3])).len(), 3);
        assert_eq!(
            desired_voters(group, &nodes(&[1, 2, 3, 4, 5]), &nodes(&[1, 2, 3])),
            nodes(&[1, 2, 3, 4, 5])
        );
    }

    #[test]
    fn a_removed_voter_is_replaced_and_the_others_stay() {
        let now = nodes(&[1, 2, 3]);
        let after = desired_voters(GroupId::new(2), &nodes(&[1, 3, 4]), &now);
        assert_eq!(after, nodes(&[1, 3, 4]));
    }

    #[test]
    fn groups_spread_over_the_nodes_when_they_grow_and_when_they_shrink() {
        let spread = |members: &BTreeSet<NodeId>, now: &BTreeSet<NodeId>| {
            let mut votes: BTreeMap<NodeId, usize> = BTreeMap::new();
            for group in 1..=10 {
                for node in desired_voters(GroupId::new(group), members, now) {
                    *votes.entry(node).or_default() += 1;
                }
            }
            votes
        };
        let ten = nodes(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let grown = spread(&ten, &BTreeSet::new());
        assert!(grown.values().all(|count| (3..=7).contains(count)), "{grown:?}");
        // One of five leaves: three vote in each group, and not the same three everywhere.
        let shrunk = spread(&nodes(&[1, 2, 3, 4]), &nodes(&[1, 2, 3, 4, 5]));
        assert!(shrunk.len() == 4 && shrunk.values().all(|count| (6..=9).contains(count)), "{shrunk:?}");
    }
}
