//! Keeps groups in step with the membership. The leader of the control group does it, for all groups.
//!
//! Which nodes should vote is decided by [`desired_voters`], purely; it is recorded in the control state,
//! and then carried out group by group. Every other node is a learner, so that each node can answer
//! reads from its own replica.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use holdfast_consensus::Consensus;
use holdfast_control::{Command, ControlView, NodeState};
use holdfast_model::{GroupId, NodeId};
use holdfast_store::Health;
use tokio_util::sync::CancellationToken;

use crate::{control::Control, tenants::complete_creations};

/// How often the groups are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long one change of one group may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

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
    let mut voters: BTreeSet<NodeId> = now.intersection(members).take(wanted).copied().collect();
    let turn = group.get() as usize % members.len().max(1);
    for node in members.iter().cycle().skip(turn).take(members.len()) {
        if voters.len() >= wanted {
            break;
        }
        voters.insert(*node);
    }
    voters
}

/// Runs until cancelled; idle on nodes that do not lead the control group.
pub async fn run(
    control: Control,
    consensus: Arc<Consensus>,
    health: Arc<Health>,
    own: NodeId,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut completed_for = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let leads = consensus.status(GroupId::CONTROL).is_some_and(|status| status.leader == Some(own));
        if !leads {
            completed_for = None;
            continue;
        }
        let round = async {
            let view = control.view().await?;
            if completed_for != Some(view.tenants.len()) {
                complete_creations(&view, &consensus).await?;
                completed_for = Some(view.tenants.len());
            }
            reconcile(&view, &control, &consensus, &health, own).await
        };
        if let Err(error) = round.await {
            tracing::warn!(
                error = format!("{error:#}"),
                "groups not in step with the membership yet; will be tried again"
            );
        }
    }
}

async fn reconcile(
    view: &ControlView,
    control: &Control,
    consensus: &Consensus,
    health: &Health,
    own: NodeId,
) -> Result<()> {
    let members: BTreeSet<NodeId> = view
        .nodes
        .values()
        .filter(|node| match node.state {
            NodeState::Active => true,
            // Someone who is not there yet is not waited for.
            NodeState::Joining => node.node == own || health.is_up(node.node),
            NodeState::Removed => false,
        })
        .map(|node| node.node)
        .collect();
    let mut settled: BTreeMap<NodeId, bool> = members.iter().map(|node| (*node, true)).collect();
    for (group, recorded) in &view.groups {
        let desired = desired_voters(*group, &members, recorded);
        if desired != *recorded {
            let command = Command::SetGroupVoters { group: *group, voters: desired.clone() };
            control.propose(&command).await?.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        }
        let Some(status) = consensus.status(*group) else { continue };
        for node in &members {
            let known = status.voters.contains(node) || status.learners.contains(node);
            if !known && (health.is_up(*node) || *node == own) {
                tokio::time::timeout(CHANGE_TIMEOUT, consensus.add_learner(*group, *node))
                    .await
                    .with_context(|| {
                        format!("{node} did not catch up in group {group} in {CHANGE_TIMEOUT:?}")
                    })?
                    .with_context(|| format!("adding {node} to group {group}"))?;
                tracing::info!(%group, %node, "node follows the group");
            }
            if !known {
                settled.insert(*node, false);
            }
        }
        if status.voters != desired {
            tokio::time::timeout(CHANGE_TIMEOUT, consensus.change_voters(*group, desired.clone()))
                .await
                .with_context(|| format!("voters of group {group} not changed in {CHANGE_TIMEOUT:?}"))?
                .with_context(|| format!("changing the voters of group {group}"))?;
            tracing::info!(%group, voters = ?desired, "voters changed");
        }
    }
    for node in view.nodes.values() {
        if node.state == NodeState::Joining && settled.get(&node.node) == Some(&true) {
            control.propose(&Command::ActivateNode(node.node)).await?.map_err(|r| anyhow::anyhow!("{r}"))?;
            tracing::info!(node = %node.node, name = node.name, "node is a full member");
        }
    }
    Ok(())
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
    fn groups_spread_over_the_nodes() {
        let members = nodes(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let mut votes: BTreeMap<NodeId, usize> = BTreeMap::new();
        for group in 1..=10 {
            for node in desired_voters(GroupId::new(group), &members, &BTreeSet::new()) {
                *votes.entry(node).or_default() += 1;
            }
        }
        assert!(votes.values().all(|count| (3..=7).contains(count)), "{votes:?}");
    }
}
