//! Spreads the leaders of groups over the nodes. Every node does it, for the groups it leads.
//!
//! A hand-over costs a group about a lease without a leader, so it is rare: one at a time, only in a
//! cluster that has been still for a while, and only from a node that leads at least two groups more than
//! another could. A node that leaves hands over everything it leads at once; one on which some group does
//! not run gives up the control group, so that a whole node sees to the cure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use futures::future::join_all;
use holdfast_consensus::{Consensus, GroupStatus, Role};
use holdfast_control::NodeState;
use holdfast_model::{GroupId, NodeId};
use holdfast_store::Health;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{control::Control, groups::Ward};

/// How often the leaders are counted.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long members and leaders must have been the same before one is moved.
const STILL_FOR: Duration = Duration::from_secs(3);

/// The same after moves that failed, at most; it doubles with each.
const STILL_FOR_MAX: Duration = Duration::from_secs(600);

/// A move of one group to another leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    group: GroupId,
    to: NodeId,
}

/// Which group `own` should hand over next, and to whom: to the able voter that leads least, when `own`
/// leads at least two more. `groups` are those with a leader: their leader, and who votes.
#[must_use]
pub fn next_move(
    own: NodeId,
    able: &BTreeSet<NodeId>,
    groups: &BTreeMap<GroupId, (NodeId, BTreeSet<NodeId>)>,
) -> Option<Move> {
    let mut led: BTreeMap<NodeId, usize> = able.iter().map(|node| (*node, 0)).collect();
    for (leader, _) in groups.values() {
        *led.entry(*leader).or_default() += 1;
    }
    let mine = *led.get(&own)?;
    groups
        .iter()
        .filter(|(_, (leader, _))| *leader == own)
        .filter_map(|(group, (_, voters))| {
            let to = voters.iter().filter(|node| able.contains(node)).min_by_key(|node| led[node])?;
            (led[to] + 2 <= mine).then_some((led[to], Move { group: *group, to: *to }))
        })
        .min_by_key(|(count, next)| (*count, std::cmp::Reverse(next.group)))
        .map(|(_, next)| next)
}

/// Spreads leaders.
#[derive(Debug)]
pub struct Leaders {
    /// The control group.
    pub control: Control,
    /// All groups.
    pub consensus: Arc<Consensus>,
    /// Who answers.
    pub health: Arc<Health>,
    /// Which groups do not run where.
    pub ward: Arc<Ward>,
    /// This node.
    pub own: NodeId,
}

impl Leaders {
    /// Runs until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut since) = (BTreeMap::new(), Instant::now());
        let mut still_for = STILL_FOR;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let now = self.led();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            let still = since.elapsed() >= still_for;
            match self.look(&seen, still).await {
                Ok(None) => {}
                Ok(Some(true)) => still_for = STILL_FOR,
                // Nodes that cannot hand over in time have other worries than who leads how much.
                Ok(Some(false)) => (since, still_for) = (Instant::now(), (still_for * 2).min(STILL_FOR_MAX)),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "leaders not looked at"),
            }
        }
    }

    /// Groups with a leader and nothing under way.
    fn led(&self) -> BTreeMap<GroupId, (NodeId, BTreeSet<NodeId>)> {
        let settled = |status: &GroupStatus| !status.changing;
        let statuses = self.consensus.groups().into_iter().filter_map(|group| self.consensus.status(group));
        statuses
            .filter(settled)
            .filter_map(|status| Some((status.group, (status.leader?, status.voters))))
            .collect()
    }

    /// Moves what has to be moved. Of a move made for balance alone, whether it succeeded.
    async fn look(
        &self,
        groups: &BTreeMap<GroupId, (NodeId, BTreeSet<NodeId>)>,
        still: bool,
    ) -> Result<Option<bool>> {
        if !groups.values().any(|(leader, _)| *leader == self.own) {
            return Ok(None);
        }
        let view = self.control.view().await?;
        let ailing = self.ward.ailing();
        let able: BTreeSet<NodeId> = view
            .nodes
            .values()
            .filter(|node| node.state == NodeState::Active && !ailing.contains(&node.node))
            .filter(|node| node.node == self.own || self.health.is_up(node.node))
            .map(|node| node.node)
            .collect();
        let leaving = view.nodes.get(&self.own).is_some_and(|node| node.state == NodeState::Leaving);
        if leaving {
            let all = groups.iter().filter(|(_, (leader, _))| *leader == self.own);
            let moves = all.filter_map(|(group, (_, voters))| {
                let able: Vec<_> =
                    voters.iter().filter(|node| able.contains(node) && **node != self.own).collect();
                let to = able.get(group.get() as usize % able.len().max(1))?;
                Some(Move { group: *group, to: **to })
            });
            join_all(moves.map(|next| self.hand_over(next, "this node leaves"))).await;
        } else if ailing.contains(&self.own) {
            if let Some((leader, voters)) = groups.get(&GroupId::CONTROL)
                && *leader == self.own
                && let Some(to) = voters.iter().find(|node| able.contains(node))
            {
                self.hand_over(Move { group: GroupId::CONTROL, to: *to }, "a group does not run here").await;
            }
        } else if still && let Some(next) = next_move(self.own, &able, groups) {
            return Ok(Some(self.hand_over(next, "this node leads more than others").await));
        }
        Ok(None)
    }

    /// True when `to` leads in the end.
    async fn hand_over(&self, Move { group, to }: Move, why: &str) -> bool {
        if self.consensus.status(group).is_none_or(|status| status.role != Role::Leader) {
            return false;
        }
        match self.consensus.hand_over(group, to).await {
            Ok(()) => tracing::info!(%group, %to, why, "leadership handed over"),
            // Looked at again; whoever leads now is seen then.
            Err(error) => {
                tracing::info!(%group, %to, why, %error, "leadership not handed over");
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId::new(*id)).collect()
    }

    #[test]
    fn moves_end_with_leaders_spread_evenly_and_then_stop() {
        for able in [nodes(&[1, 2, 3]), nodes(&[1, 3]), nodes(&[1, 2, 3, 4, 5])] {
            let mut groups: BTreeMap<GroupId, (NodeId, BTreeSet<NodeId>)> =
                (0..=8).map(|group| (GroupId::new(group), (NodeId::new(1), able.clone()))).collect();
            let mut moves = 0;
            while let Some(next) = able.iter().find_map(|node| next_move(*node, &able, &groups)) {
                groups.get_mut(&next.group).unwrap().0 = next.to;
                moves += 1;
                assert!(moves < 20, "{groups:?}");
            }
            let count = |node: &NodeId| groups.values().filter(|(leader, _)| leader == node).count();
            let counts: Vec<usize> = able.iter().map(count).collect();
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
    }

    #[test]
    fn nothing_moves_to_who_does_not_vote_or_is_not_able() {
        let groups: BTreeMap<GroupId, (NodeId, BTreeSet<NodeId>)> =
            (0..4).map(|group| (GroupId::new(group), (NodeId::new(1), nodes(&[1, 2])))).collect();
        assert_eq!(next_move(NodeId::new(1), &nodes(&[1, 3]), &groups), None);
        let next = next_move(NodeId::new(1), &nodes(&[1, 2, 3]), &groups).unwrap();
        assert_eq!(next.to, NodeId::new(2));
        assert_eq!(next_move(NodeId::new(2), &nodes(&[1, 2, 3]), &groups), None, "it leads nothing");
    }
}
