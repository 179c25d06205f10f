//! One group's Raft instance with what every part of it needs: who leads, and how to reach them.

use std::{sync::Arc, time::Duration};

use holdfast_model::{GroupId, NodeId};
use openraft::metrics::RaftServerMetrics;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    beat::{Answered, Pulse},
    handover::Until,
    host::Host,
    network::{self, CallError},
    options::SecondCopy,
    transport::Transport,
    types::Raft,
    wire::{AnswerV1, CallV1},
};

/// Pause before asking again when leadership is unclear and nothing announces a change.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// Who leads a group, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leader {
    Here,
    At(NodeId),
    Unknown,
}

#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    pub(crate) raft: Raft,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) second_copy: Option<Arc<dyn SecondCopy>>,
    pub(crate) host: Host,
    /// This node leads and keeps silent, so that another node can take over.
    pub(crate) silent: Until,
    /// Who answered this leader's heartbeats.
    pub(crate) answered: Answered,
    /// When this node looks at elections and heartbeats.
    pub(crate) pulse: Pulse,
    metrics: watch::Receiver<RaftServerMetrics<u64, openraft::EmptyNode>>,
}

impl Context {
    pub(crate) fn new(
        group: GroupId,
        node: NodeId,
        raft: Raft,
        transport: Arc<dyn Transport>,
        second_copy: Option<Arc<dyn SecondCopy>>,
        host: Host,
        pulse: Pulse,
    ) -> Self {
        let metrics = raft.server_metrics();
        Self {
            group,
            node,
            raft,
            transport,
            second_copy,
            host,
            silent: Until::default(),
            answered: Answered::default(),
            pulse,
            metrics,
        }
    }

    pub(crate) fn leader(&self) -> Leader {
        match self.metrics.borrow().current_leader {
            Some(node) if node == self.node.get() && self.silent.holds() => Leader::Unknown,
            Some(node) if node == self.node.get() => Leader::Here,
            Some(node) => Leader::At(NodeId::new(node)),
            None => Leader::Unknown,
        }
    }

    /// The term this node is in.
    pub(crate) fn term(&self) -> u64 {
        self.metrics.borrow().vote.leader_id.term
    }

    /// Why the group stopped, when it has.
    pub(crate) fn failure(&self) -> Option<String> {
        self.raft.metrics().borrow().running_state.as_ref().err().map(ToString::to_string)
    }

    /// Waits for news about the leader, for a short while, at most until `deadline`.
    pub(crate) async fn leader_news(&self, deadline: Instant) {
        let mut metrics = self.metrics.clone();
        metrics.mark_unchanged();
        // Either outcome is a reason to look again.
        let _ = timeout_at(deadline.min(Instant::now() + LEADER_PAUSE), metrics.changed()).await;
    }

    /// Asks another node about this group.
    pub(crate) async fn call(
        &self,
        to: NodeId,
        call: CallV1,
        deadline: Instant,
    ) -> Result<AnswerV1, CallError> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        network::call(self.transport.as_ref(), to, self.group, call, timeout).await.map(|(answer, _)| answer)
    }
}

/// Milliseconds left, for a message.
pub(crate) fn millis_left(deadline: Instant) -> u64 {
    u64::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX)
}
