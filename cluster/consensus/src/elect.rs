//! Heartbeats and elections of one group.
//!
//! openraft 0.9 raises its term whenever its timer runs out, so a node that was cut off deposes a
//! healthy leader when it comes back. Here a node asks first, changing nothing: would a quorum give it
//! a vote? Voters that hear a leader say no (pre-vote: Ongaro, "Consensus: Bridging Theory and
//! Practice", section 9.6). Heartbeats are our own too ([`crate::beat`]): openraft sends them group by group, and
//! ties their interval to how long it waits for the answer to an append.
//!
//! Voters stand one after the other: each has a rank, another one in each group, and waits the longer the higher it
//! is. Two that stand at once would take votes from each other. How long all of them wait is the lease, or as long as
//! the leader there is was silent of late and yet alive ([`crate::heard`]). An election that ends without a leader makes its
//! candidate wait twice as long before the next: on nodes too busy to vote in time, candidates must not be what
//! keeps them busy.
//!
//! A candidature outdates all votes that were asked for before it. So one at a time is given the time that votes are
//! waited for, a lease: who stands does not stand again before it is over, not even when it is handed the lead; who gave its
//! vote to another neither stands nor lets a third stand; and who asked whether it would be elected stands only if it has
//! heard of nobody else since.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use holdfast_model::NodeId;
use openraft::ServerState;
use tokio::time::Instant;

use crate::{
    beat::BEATS_PER_APPEND,
    codec::VoteV1,
    context::Context,
    handover::Until,
    heard::Heard,
    host::Host,
    log::store::GroupLog,
    options::Timing,
    types::{LogId, Vote},
    wire::{AnswerV1, CallV1},
};

/// Longest pause between two elections in which the same node stands.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// Runs until the group stops.
pub(crate) async fn run(
    context: Context,
    log: GroupLog,
    heard: Heard,
    (campaign, aside): (Until, Until),
    timing: Timing,
) {
    let mut next_attempt = Instant::now();
    let mut failed_attempts = 0;
    // Votes that this node asked for may come in until then.
    let mut votes_until = Instant::now();
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
        let me = context.node.get();
        if heard.ago() < timing.lease {
            failed_attempts = 0;
        }
        let turn = turn(&context.host, &voters, me, context.group.get(), timing.spread);
        let (patience, back_for) = if campaign.holds() {
            (timing.lease, timing.lease)
        } else {
            (heard.patience() + turn, timing.lease + turn)
        };
        // Not at the next pulse: nodes whose pulses coincide would stand together.
        tokio::time::sleep(due_soon(state, patience.saturating_sub(heard.ago()), timing)).await;
        let now = Instant::now();
        let due = if campaign.holds() { now >= votes_until } else { now >= next_attempt };
        let alone = voters.iter().all(|config| config.len() == 1 && config.contains(&me));
        match state {
            ServerState::Leader if now >= next_append && !context.silent.holds() => {
                campaign.clear();
                next_append = now + timing.heartbeat * BEATS_PER_APPEND;
                // Fails only when the group has stopped: seen at the top of the loop.
                let _ = context.raft.trigger().heartbeat().await;
            }
            ServerState::Follower | ServerState::Candidate
                if alone
                    || due
                        && heard.ago() >= patience
                        && !heard.backs_another(me, back_for)
                        && !aside.holds() =>
            {
                let lease = timing.lease;
                if alone || would_be_elected(&context, &log, &heard, &voters, lease).await && !aside.holds() {
                    tracing::info!(
                        group = %context.group, silence = ?heard.ago(), ?patience, failed_attempts,
                        "standing for election"
                    );
                    heard.back(me);
                    let _ = context.raft.trigger().elect().await;
                    // Votes are asked for once this node's own is on its disk.
                    if vote(&context).await.is_some_and(|vote| vote.leader_id.node_id == me) {
                        heard.back(me);
                    }
                    votes_until = Instant::now() + lease;
                    next_attempt = Instant::now() + turn + pause(failed_attempts, lease);
                    failed_attempts += 1;
                } else {
                    next_attempt = Instant::now() + turn + timing.heartbeat;
                }
            }
            _ => {}
        }
    }
}

/// Whether this node would be elected if it stood now. Asks for half a lease at most.
async fn would_be_elected(
    context: &Context,
    log: &GroupLog,
    heard: &Heard,
    voters: &[BTreeSet<u64>],
    lease: Duration,
) -> bool {
    let spoke = heard.at();
    let Some(mine) = vote(context).await else { return false };
    quorum_would_vote(context, log, voters, mine.leader_id.term, lease / 2).await
        // Another may have been elected while this node asked: it would be deposed.
        && vote(context).await == Some(mine)
        && heard.at() == spoke
        && !heard.backs_another(context.node.get(), lease)
}

/// This node's vote, after everything that the Raft instance was asked before; `None` when it has stopped.
async fn vote(context: &Context) -> Option<Vote> {
    context.raft.with_raft_state(|state| *state.vote_ref()).await.ok()
}

/// Asks the other voters whether they would vote for this node now, in the term after `term`.
async fn quorum_would_vote(
    context: &Context,
    log: &GroupLog,
    voters: &[BTreeSet<u64>],
    term: u64,
    wait: Duration,
) -> bool {
    let me = context.node.get();
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
    // A node that stood still meanwhile has answers that are older than what it has yet to hear.
    Instant::now() <= deadline
}

/// A majority of each set of voters; there are two sets while membership changes.
pub(crate) fn is_quorum(voters: &[BTreeSet<u64>], granted: &BTreeSet<u64>) -> bool {
    !voters.is_empty() && voters.iter().all(|config| config.intersection(granted).count() * 2 > config.len())
}

/// Whether this node would vote for `candidate`, whose log ends with `last`, after a silence of `patience`.
pub(crate) fn would_vote(
    context: &Context,
    log: &GroupLog,
    heard: &Heard,
    (lease, patience): (Duration, Duration),
    (candidate, last): (u64, Option<LogId>),
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
    !leads
        && heard.ago() >= patience
        && !heard.backs_another(candidate, lease)
        && last >= log.inspect(|index| index.last_log_id())
}

/// How long after the lease it is this node's turn to stand: by its rank among the voters, which differs between
/// groups, so that one node does not become the leader of all; and by a little chance, for nodes that disagree about
/// who votes.
fn turn(host: &Host, voters: &[BTreeSet<u64>], me: u64, group: u32, spread: Duration) -> Duration {
    let all: BTreeSet<u64> = voters.iter().flatten().copied().collect();
    let (Some(place), Ok(count)) = (all.iter().position(|node| *node == me), u32::try_from(all.len())) else {
        return spread;
    };
    let place = u32::try_from(place).unwrap_or(0);
    let rank = (place + count - group % count) % count;
    let step = spread / count;
    step * rank + jitter(host, step / 4)
}

/// Between an election without an outcome and the next: doubles from `first`.
fn pause(failed_attempts: u32, first: Duration) -> Duration {
    first.saturating_mul(1 << failed_attempts.min(16)).min(PAUSE_MAX)
}

/// The rest of the wait when a follower's turn comes before the next pulse.
fn due_soon(state: ServerState, left: Duration, timing: Timing) -> Duration {
    let follows = matches!(state, ServerState::Follower | ServerState::Candidate);
    if follows && left < timing.heartbeat / 2 { left } else { Duration::ZERO }
}

/// A random part of `spread`, so that nodes do not stand for election at the same moment.
fn jitter(host: &Host, spread: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without randomness the nodes only collide more often.
    let _ = host.fill(&mut bytes);
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

    #[test]
    fn voters_stand_one_after_the_other_and_another_first_in_each_group() {
        let (voters, spread) = ([BTreeSet::from([3, 7, 8])], Duration::from_millis(600));
        let mut first = BTreeSet::new();
        for group in 0..3 {
            let mut turns: Vec<_> = [3, 7, 8]
                .iter()
                .map(|node| (turn(&Host::Machine, &voters, *node, group, spread), *node))
                .collect();
            turns.sort_unstable();
            assert!(turns.windows(2).all(|pair| pair[1].0 - pair[0].0 >= spread / 5), "{turns:?}");
            assert!(turns[2].0 < spread, "{turns:?}");
            first.insert(turns[0].1);
        }
        assert_eq!(first, voters[0]);
    }

    #[test]
    fn elections_without_an_outcome_become_rare_but_never_end() {
        let pauses: Vec<_> = (0..40).map(|failed| pause(failed, Duration::from_millis(750))).collect();
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
        assert_eq!((pauses[0], pauses[39]), (Duration::from_millis(750), PAUSE_MAX));
    }
}
