//! Heartbeats and elections of one group.
//!
//! openraft 0.9 raises its term whenever its timer runs out, so a node that was cut off deposes a
//! healthy leader when it comes back. Here a node asks first, changing nothing: would a quorum give it
//! a vote? Voters that hear a leader say no (pre-vote: Ongaro, "Consensus: Bridging Theory and
//! Practice", section 9.6). Heartbeats are our own too ([`crate::beat`]): openraft sends them group by group, and
//! ties their interval to how long it waits for the answer to an append.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use holdfast_model::NodeId;
use openraft::ServerState;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    beat::BEATS_PER_APPEND,
    codec::VoteV1,
    context::Context,
    handover::Until,
    log::store::GroupLog,
    options::Timing,
    types::LogId,
    wire::{AnswerV1, CallV1},
};

/// When this node last heard from a leader of the group.
#[derive(Clone, Debug)]
pub(crate) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    /// As if just heard: a node that starts gives the leader there may be time to speak.
    pub(crate) fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(crate) fn note(&self) {
        *self.0.lock() = Instant::now();
    }

    pub(crate) fn ago(&self) -> Duration {
        self.0.lock().elapsed()
    }
}

/// Runs until the group stops.
pub(crate) async fn run(
    context: Context,
    log: GroupLog,
    heard: Heard,
    (campaign, aside): (Until, Until),
    timing: Timing,
) {
    let mut next_attempt = Instant::now();
    let mut patience = timing.lease + jitter(timing.spread);
    let mut next_append = Instant::now();
    loop {
        context.pulse.next().await;
        let (state, voters) = {
            let metrics = context.raft.metrics();
            let metrics = metrics.borrow();
            if metrics.running_state.is_err() {
                return;
            }
            (metrics.state, metrics.membership_config.membership().get_joint_config().clone())
        };
        let now = Instant::now();
        if campaign.holds() {
            (patience, next_attempt) = (timing.lease, now);
        }
        let me = context.node.get();
        let alone = voters.iter().all(|config| config.len() == 1 && config.contains(&me));
        match state {
            ServerState::Leader if now >= next_append && !context.silent.holds() => {
                campaign.clear();
                next_append = now + timing.heartbeat * BEATS_PER_APPEND;
                // Fails only when the group has stopped: seen at the top of the loop.
                let _ = context.raft.trigger().heartbeat().await;
            }
            ServerState::Follower | ServerState::Candidate
                if alone || heard.ago() >= patience && now >= next_attempt && !aside.holds() =>
            {
                if alone || quorum_would_vote(&context, &log, &voters, timing.lease / 2).await {
                    tracing::info!(group = %context.group, silence = ?heard.ago(), "standing for election");
                    let _ = context.raft.trigger().elect().await;
                }
                patience = timing.lease + jitter(timing.spread);
                next_attempt = Instant::now() + timing.heartbeat + jitter(timing.spread);
            }
            _ => {}
        }
    }
}

/// Asks the other voters whether they would vote for this node now.
async fn quorum_would_vote(
    context: &Context,
    log: &GroupLog,
    voters: &[BTreeSet<u64>],
    wait: Duration,
) -> bool {
    let me = context.node.get();
    let term = context.raft.metrics().borrow().current_term;
    let last = log.inspect(|index| index.last_log_id());
    let deadline = Instant::now() + wait;
    let others: BTreeSet<u64> = voters.iter().flatten().copied().filter(|node| *node != me).collect();
    let mut answers: FuturesUnordered<_> = others
        .into_iter()
        .map(|node| async move {
            let vote = VoteV1 { term: term + 1, node: me, committed: false };
            let call = CallV1::PreVote { vote, last: last.map(Into::into) };
            let answer = context.call(NodeId::new(node), call, deadline).await;
            (node, matches!(answer, Ok(AnswerV1::PreVote { granted: true })))
        })
        .collect();
    let mut granted = BTreeSet::from([me]);
    while !is_quorum(voters, &granted) {
        match answers.next().await {
            Some((node, true)) => drop(granted.insert(node)),
            Some((_, false)) => {}
            None => return false,
        }
    }
    true
}

/// A majority of each set of voters; there are two sets while membership changes.
pub(crate) fn is_quorum(voters: &[BTreeSet<u64>], granted: &BTreeSet<u64>) -> bool {
    !voters.is_empty() && voters.iter().all(|config| config.intersection(granted).count() * 2 > config.len())
}

/// Whether this node would vote for a candidate whose log ends with `last`.
pub(crate) fn would_vote(
    context: &Context,
    log: &GroupLog,
    heard: &Heard,
    lease: Duration,
    last: Option<LogId>,
) -> bool {
    let leads = {
        let metrics = context.raft.metrics();
        let metrics = metrics.borrow();
        let voters = metrics.membership_config.membership().get_joint_config();
        let appends = metrics.millis_since_quorum_ack.map(Duration::from_millis);
        let beats = context.answered.quorum_ago(voters, context.node.get());
        let fresh = [appends, beats].into_iter().flatten().any(|ago| ago < lease);
        metrics.state == ServerState::Leader && fresh
    };
    !leads && heard.ago() >= lease && last >= log.inspect(|index| index.last_log_id())
}

/// A random part of `spread`, so that nodes do not stand for election at the same moment.
fn jitter(spread: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without randomness the nodes only collide more often.
    let _ = getrandom::fill(&mut bytes);
    spread.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_membership_changes_both_sets_must_agree() {
        let (old, new) = (BTreeSet::from([1, 2, 3]), BTreeSet::from([3, 4, 5]));
        let both = [old.clone(), new];
        assert!(is_quorum(&[old], &BTreeSet::from([1, 2])));
        assert!(!is_quorum(&both, &BTreeSet::from([1, 2, 3])));
        assert!(is_quorum(&both, &BTreeSet::from([1, 3, 4])));
        assert!(!is_quorum(&[], &BTreeSet::from([1])));
    }
}
