//! A leader has a quorum confirm that it still leads, past the Raft instances: on a follower these wait for its log's
//! flushes, and a read would wait behind the writes of others. Raft dissertation, section 6.4, with two things done here that
//! an instance does for itself:
//!
//! - **The index.** What any replica may have applied, and so shown to a reader, is within what this leader has
//!   applied or told it in an append ([`Told`]), both noted before anybody can see their effect. Only a leader that has
//!   applied an entry of its own term has caught up with the leaders before it.
//! - **The word of a voter.** It compares the leader's vote with the one that its log holds. A log holds a vote before
//!   the node answers a candidate: who confirms after an index was fixed had not elected anybody else before that. A node that
//!   answers with another log than before may have forgotten whom it elected, and does not count.
//!
//! The members may change meanwhile: the configuration that is asked is at most one step behind the one in force, and
//! quorums of neighbouring configurations meet.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use holdfast_model::{GroupId, NodeId};
use openraft::ServerState;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    context::Context,
    elect::is_quorum,
    log::store::GroupLog,
    network,
    transport::Transport,
    types::{LogId, Vote},
    wire::{AnswerV1, CallV1},
};

/// How long a quorum may take. Whoever is slower is asked by Raft itself.
const CONFIRM_MAX: Duration = Duration::from_millis(500);

/// The log that each peer was first seen with.
pub(crate) type Peers = Arc<Mutex<HashMap<NodeId, u64>>>;

/// The commit position that peers were told, as the number of entries up to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Arc<AtomicU64>);

impl Told {
    /// Before the message leaves.
    pub(crate) fn note(&self, committed: Option<LogId>) {
        self.0.fetch_max(committed.map_or(0, |id| id.index + 1), Ordering::SeqCst);
    }

    fn index(&self) -> Option<u64> {
        self.0.load(Ordering::SeqCst).checked_sub(1)
    }
}

/// Confirms the leadership of one group.
pub(crate) struct Confirmer {
    pub(crate) group: GroupId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) peers: Peers,
    pub(crate) told: Told,
    pub(crate) log: GroupLog,
}

impl Confirmer {
    /// The index that a reader must have applied, once a quorum has confirmed that this node leads. `None`: this cannot
    /// tell, Raft has to. `applied` is what this node has applied.
    pub(crate) async fn read_index(
        &self,
        context: &Context,
        applied: impl FnOnce() -> Option<u64>,
        deadline: Instant,
    ) -> Option<u64> {
        let (vote, voters) = {
            let metrics = context.raft.metrics();
            let metrics = metrics.borrow();
            let vote = metrics.vote;
            let caught_up = metrics.last_applied.is_some_and(|id| id.leader_id.term == vote.leader_id.term);
            let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
            if !leads || !caught_up {
                return None;
            }
            (vote, metrics.membership_config.membership().get_joint_config().clone())
        };
        let index = applied().max(self.told.index())?;
        if self.log.inspect(|index| index.vote) != Some(vote) {
            return None;
        }
        let me = context.node.get();
        let others: BTreeSet<u64> = voters.iter().flatten().copied().filter(|node| *node != me).collect();
        let deadline = deadline.min(Instant::now() + CONFIRM_MAX);
        let mut asked: FuturesUnordered<_> =
            others.into_iter().map(|node| self.follows(NodeId::new(node), vote, deadline)).collect();
        let mut following = BTreeSet::from([me]);
        while !is_quorum(&voters, &following) {
            following.extend(asked.next().await?);
        }
        Some(index)
    }

    /// The number of `peer`, if its log holds that vote.
    async fn follows(&self, peer: NodeId, vote: Vote, deadline: Instant) -> Option<u64> {
        let beats = CallV1::Beats { leading: vec![(self.group.get(), vote.into())] };
        let timeout = deadline.saturating_duration_since(Instant::now());
        let answer = network::call(self.transport.as_ref(), peer, self.group, beats, timeout).await;
        let (AnswerV1::Beats { heard }, log) = answer.ok()? else { return None };
        let known = *self.peers.lock().entry(peer).or_insert(log);
        (known == log && heard == [true]).then(|| peer.get())
    }
}
