//! Heartbeats. Every group that a node leads says so to its members, and what goes to one peer goes in one message:
//! the cost of an idle cluster grows with its nodes, not with its groups.
//!
//! A beat carries votes and nothing else, and no Raft instance sees it. The receiver compares the vote with the one
//! it holds: the same leader in the same term puts off the next election, anything else is answered with "no", and
//! the leader sends that group's members a real append, which settles who is right. Appends of that kind also go
//! out unasked every [`BEATS_PER_APPEND`] beats: they carry what a lost message may have left behind, the commit
//! position.
//!
//! Nothing is concluded from these beats but that nobody needs to stand for election. Reads ask a quorum themselves, with a
//! beat of their own that is sent after what they have to see was fixed ([`crate::confirm`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use holdfast_model::{GroupId, NodeId};
use openraft::ServerState;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::{
    codec::{self, VoteV1},
    consensus::Consensus,
    elect::is_quorum,
    group::GroupHandle,
    host::spawn,
    options::Timing,
    types::Vote,
    wire::{AnswerV1, CallV1, RequestV1, ResponseV1},
};

/// Beats until a group's leader sends an empty append as well.
pub(crate) const BEATS_PER_APPEND: u32 = 8;

/// The group named in a message that concerns many.
const NO_GROUP: u32 = u32::MAX;

/// Moments that all groups of a node share, so that it wakes once for all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    began: Instant,
    interval: Duration,
}

impl Pulse {
    pub(crate) fn starting_now(interval: Duration) -> Self {
        Self { began: Instant::now(), interval }
    }

    /// Waits for the next of the moments.
    pub(crate) async fn next(self) {
        let nanos = self.interval.as_nanos().max(1);
        let passed = self.began.elapsed().as_nanos() / nanos;
        let ahead = u64::try_from((passed + 1) * nanos).unwrap_or(u64::MAX);
        sleep_until(self.began + Duration::from_nanos(ahead)).await;
    }
}

/// When each member last answered this leader's beats: the time at which the beat was sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered(Arc<Mutex<HashMap<u64, Instant>>>);

impl Answered {
    fn note(&self, node: NodeId, sent: Instant) {
        self.0.lock().insert(node.get(), sent);
    }

    /// How long ago a quorum, with `me` in it, was last known to follow.
    pub(crate) fn quorum_ago(&self, voters: &[BTreeSet<u64>], me: u64) -> Option<Duration> {
        let mut times: Vec<_> = self.0.lock().iter().map(|(&node, &sent)| (sent, node)).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        let mut with = BTreeSet::from([me]);
        times.into_iter().find_map(|(sent, node)| {
            with.insert(node);
            is_quorum(voters, &with).then(|| sent.elapsed())
        })
    }
}

/// Sends the beats of all groups this node leads, until the node's part in consensus is gone.
pub(crate) async fn run(consensus: Weak<Consensus>, timing: Timing) {
    let pulse = Pulse::starting_now(timing.heartbeat);
    loop {
        pulse.next().await;
        let Some(consensus) = consensus.upgrade() else { return };
        for (peer, led) in led_by_peer(&consensus.handles()) {
            spawn(beat(Arc::clone(&consensus), peer, led, timing.append_timeout));
        }
    }
}

/// The groups led here, with their votes, by the peers that are members.
fn led_by_peer(groups: &[GroupHandle]) -> BTreeMap<NodeId, Vec<(GroupHandle, VoteV1)>> {
    let mut by_peer: BTreeMap<NodeId, Vec<(GroupHandle, VoteV1)>> = BTreeMap::new();
    for group in groups {
        let metrics = group.context.raft.metrics();
        let metrics = metrics.borrow();
        let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
        if !leads || group.context.silent.holds() {
            continue;
        }
        for (&node, _) in metrics.membership_config.membership().nodes() {
            if node != group.context.node.get() {
                let led = (Arc::clone(group), metrics.vote.into());
                by_peer.entry(NodeId::new(node)).or_default().push(led);
            }
        }
    }
    by_peer
}

async fn beat(consensus: Arc<Consensus>, peer: NodeId, led: Vec<(GroupHandle, VoteV1)>, timeout: Duration) {
    let leading = led.iter().map(|(group, vote)| (group.context.group.get(), *vote)).collect();
    let request = RequestV1 { group: NO_GROUP, call: CallV1::Beats { leading } };
    let sent = Instant::now();
    let answer = consensus.transport().send(peer, Bytes::from(codec::encode(&request)), timeout).await;
    let response = answer.ok().and_then(|answer| codec::decode::<ResponseV1>(&answer).ok());
    let Some(ResponseV1 { answer: AnswerV1::Beats { heard }, .. }) = response else { return };
    for ((group, _), heard) in led.into_iter().zip(heard) {
        if heard {
            group.context.answered.note(peer, sent);
        } else {
            // Fails only when the group has stopped.
            let _ = group.context.raft.trigger().heartbeat().await;
        }
    }
}

/// Answers a peer's beats: for each group, whether this node follows that very leader.
pub(crate) fn take(leading: &[(u32, VoteV1)], group: impl Fn(GroupId) -> Option<GroupHandle>) -> AnswerV1 {
    let heard = leading.iter().map(|&(id, vote)| {
        group(GroupId::new(id)).is_some_and(|group| {
            let mine = group.log.inspect(|index| index.vote);
            let follows = mine == Some(Vote::from(vote)) && group.context.failure().is_none();
            if follows {
                group.heard.note(vote.into());
            } else {
                group.heard.note_late(vote.into());
            }
            follows
        })
    });
    AnswerV1::Beats { heard: heard.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_quorum_is_as_old_as_the_last_answer_it_needs() {
        let (answered, voters) = (Answered::default(), [BTreeSet::from([1, 2, 3, 4, 5])]);
        assert_eq!(answered.quorum_ago(&voters, 1), None);
        let begun = Instant::now();
        for (node, at) in [(2, 0), (3, 100), (4, 400), (9, 500)] {
            answered.note(NodeId::new(node), begun + Duration::from_millis(at));
        }
        tokio::time::advance(Duration::from_millis(1000)).await;
        // 1 itself, 4 and 3; node 9 is no voter.
        assert_eq!(answered.quorum_ago(&voters, 1), Some(Duration::from_millis(900)));
        let both = [voters[0].clone(), BTreeSet::from([1, 6, 7])];
        assert_eq!(answered.quorum_ago(&both, 1), None, "both sets must agree while membership changes");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pulse_keeps_its_moments_however_late_one_comes() {
        let pulse = Pulse::starting_now(Duration::from_millis(100));
        let begun = Instant::now();
        tokio::time::advance(Duration::from_millis(130)).await;
        pulse.next().await;
        assert_eq!(begun.elapsed().as_millis() / 10, 20);
        pulse.next().await;
        assert_eq!(begun.elapsed().as_millis() / 10, 30);
    }
}
