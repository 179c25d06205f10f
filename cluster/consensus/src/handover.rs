//! Handing leadership to another node, to spread leaders over nodes.
//!
//! openraft 0.9 has no transfer, and its voters refuse everybody for the length of a lease. So the
//! leader falls silent (no heartbeats, no new commands) and waits until the chosen node has its whole
//! log; then that node stands for election as soon as the lease is over, while the other voters stand
//! aside and vote for it. The group is without a leader for about a lease; nothing is lost, and commands
//! wait. A voter that did not hear of it in time may still win: then the caller is told.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::join_all;
use holdfast_model::NodeId;
use openraft::ServerState;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::{
    context::Leader,
    group::{Group, MembershipError},
    wire::{AnswerV1, CallV1},
};

/// Entries the chosen node may be behind: it catches up while the lease runs out.
const BEHIND_MAX: u64 = 64;

/// Between two looks at what has changed.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A time until which something holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Until(Arc<Mutex<Option<Instant>>>);

impl Until {
    pub(crate) fn set(&self, until: Instant) {
        *self.0.lock() = Some(until);
    }

    pub(crate) fn clear(&self) {
        *self.0.lock() = None;
    }

    pub(crate) fn holds(&self) -> bool {
        self.0.lock().is_some_and(|until| Instant::now() < until)
    }
}

impl Group {
    /// Has `to` lead instead of this node.
    pub(crate) async fn hand_over(&self, to: NodeId) -> Result<(), MembershipError> {
        let group = self.context.group;
        let invalid = |reason: String| MembershipError::Invalid { group, reason };
        if to == self.context.node {
            return Ok(());
        }
        let status = self.status();
        if self.context.leader() != Leader::Here {
            return Err(invalid(format!("this node does not lead; {:?} may", status.leader)));
        }
        if !status.voters.contains(&to) || status.changing {
            return Err(invalid(format!("node {to} is not a settled voter")));
        }
        let replicated = status.replicated.get(&to).copied().flatten();
        if replicated.map_or(0, |index| index + 1) + BEHIND_MAX < status.last_log.map_or(0, |index| index + 1)
        {
            return Err(invalid(format!(
                "node {to} is too far behind: {replicated:?} of {:?}",
                status.last_log
            )));
        }
        let started = Instant::now();
        let deadline = started + self.lease * 4;
        self.context.silent.set(deadline);
        let result = self.hand_over_silently(to, &status.voters, deadline).await;
        self.context.silent.clear();
        match result {
            Ok(Some(leader)) if leader == to => Ok(()),
            Ok(Some(leader)) => Err(invalid(format!("node {leader} was elected before node {to}"))),
            Ok(None) => Err(MembershipError::Timeout { group, waited: started.elapsed() }),
            Err(reason) => Err(invalid(reason)),
        }
    }

    /// Returns who leads in the end; `None` when nothing changed in time.
    async fn hand_over_silently(
        &self,
        to: NodeId,
        voters: &BTreeSet<NodeId>,
        deadline: Instant,
    ) -> Result<Option<NodeId>, String> {
        // A voter gives its vote only to a log that is as long as its own.
        let caught_up = || {
            let status = self.status();
            status.replicated.get(&to).copied().flatten() >= status.last_log
        };
        while !caught_up() {
            if Instant::now() >= deadline || !self.leads() {
                return Ok(None);
            }
            sleep(LOOK_INTERVAL).await;
        }
        let aside = voters.iter().copied().filter(|&node| node != to && node != self.context.node);
        let chosen = to.get();
        // Without their answers the chosen node is only less likely to be the first.
        join_all(aside.map(|node| {
            self.context.call(
                node,
                CallV1::Campaign { chosen },
                deadline.min(Instant::now() + self.lease / 2),
            )
        }))
        .await;
        match self.context.call(to, CallV1::Campaign { chosen }, deadline).await {
            Ok(AnswerV1::Changed) => {}
            other => return Err(format!("node {to} does not stand for election: {other:?}")),
        }
        while Instant::now() < deadline {
            match self.status().leader {
                Some(leader) if leader != self.context.node => return Ok(Some(leader)),
                _ => sleep(LOOK_INTERVAL).await,
            }
        }
        Ok(None)
    }

    fn leads(&self) -> bool {
        self.context.raft.metrics().borrow().state == ServerState::Leader
    }
}
