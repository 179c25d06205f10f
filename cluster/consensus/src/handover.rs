//! Handing leadership to another node, to spread leaders over nodes.
//!
//! openraft 0.9 has no transfer, and its voters refuse everybody for the length of a lease. So the
//! leader falls silent (no heartbeats, no new commands), the chosen node stands for election as soon as
//! the lease is over, and the others, who wait a random time longer, vote for it. The group is without
//! a leader for about a lease; nothing is lost, and commands wait.

use std::{sync::Arc, time::Duration};

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
        let deadline = started + self.lease * 3;
        match self.context.call(to, CallV1::Campaign, deadline).await {
            Ok(AnswerV1::Changed) => {}
            other => return Err(invalid(format!("node {to} does not stand for election: {other:?}"))),
        }
        self.context.silent.set(deadline);
        while Instant::now() < deadline && self.leads() {
            sleep(Duration::from_millis(10)).await;
        }
        self.context.silent.clear();
        if self.leads() {
            return Err(MembershipError::Timeout { group, waited: started.elapsed() });
        }
        Ok(())
    }

    fn leads(&self) -> bool {
        self.context.raft.metrics().borrow().state == ServerState::Leader
    }
}
