//! What a group and the log look like from outside: for metrics, the console and placement.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_model::{GroupId, NodeId};
use openraft::{ServerState, metrics::RaftMetrics};
use serde::Serialize;

/// What a node is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes commands.
    Leader,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Serves nothing: see `failure`.
    Stopped,
}

/// One group as this node sees it. Indexes are log indexes, `None` before the first entry.
#[derive(Debug, Clone, Serialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// This node's role.
    pub role: Role,
    /// The leader, if one was heard of lately.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// Last entry in the log.
    pub last_log: Option<u64>,
    /// Last entry known to be held by a quorum.
    pub committed: Option<u64>,
    /// Last entry the machine has applied.
    pub applied: Option<u64>,
    /// Last entry the machine's durable state covers.
    pub checkpoint: Option<u64>,
    /// Last entry cut from the log.
    pub purged: Option<u64>,
    /// Nodes that vote. While a change is under way, those of the old and of the new set.
    pub voters: BTreeSet<NodeId>,
    /// Nodes that follow without a vote.
    pub learners: BTreeSet<NodeId>,
    /// A membership change is under way.
    pub changing: bool,
    /// Leader only: last entry known to be on each other node.
    pub replicated: BTreeMap<NodeId, Option<u64>>,
    /// Leader only: milliseconds since a quorum last answered.
    pub quorum_answered_millis_ago: Option<u64>,
    /// Why the group stopped, when it has.
    pub failure: Option<String>,
}

impl GroupStatus {
    pub(crate) fn new(
        group: GroupId,
        metrics: &RaftMetrics<u64, openraft::EmptyNode>,
        committed: Option<u64>,
        applied: Option<u64>,
        checkpoint: Option<u64>,
    ) -> Self {
        let membership = metrics.membership_config.membership();
        let nodes = |ids: &mut dyn Iterator<Item = u64>| ids.map(NodeId::new).collect::<BTreeSet<_>>();
        let failure = metrics.running_state.as_ref().err().map(ToString::to_string);
        let role = match metrics.state {
            _ if failure.is_some() => Role::Stopped,
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        };
        let replicated = metrics.replication.iter().flatten();
        Self {
            group,
            role,
            leader: metrics.current_leader.map(NodeId::new),
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            committed,
            applied,
            checkpoint,
            purged: metrics.purged.map(|id| id.index),
            voters: nodes(&mut membership.voter_ids()),
            learners: nodes(&mut membership.learner_ids()),
            changing: membership.get_joint_config().len() > 1,
            replicated: replicated.map(|(node, id)| (NodeId::new(*node), id.map(|id| id.index))).collect(),
            quorum_answered_millis_ago: metrics.millis_since_quorum_ack,
            failure,
        }
    }
}

/// Figures since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LogCounters {
    /// Flushes of the log; each covers whatever waited.
    pub flushes: u64,
    /// Bytes written to the log.
    pub bytes: u64,
    /// Entries appended, of all groups, own and replicated.
    pub entries: u64,
    /// Entries this node proposed as leader; each a batch of commands.
    pub proposals: u64,
    /// Commands in them.
    pub commands: u64,
    /// Batches sent to another leader.
    pub forwards: u64,
}
