//! When this node last heard from a leader of a group, how long leaders are silent without being gone, and whom this
//! node helps to become the next.
//!
//! A lease is a guess about machines: that one which runs speaks before it is over. On a machine that is starved of its
//! processor, or emulated, the guess is wrong, and a leader is deposed that was only late; the election, and the next
//! one, are more work for machines that could not do the work they had. So the silences that a leader came back from
//! are remembered for a while, and the next is waited for as long and a little longer. What a restart, a partition or a
//! machine that stood still leaves behind is no measure of that: silences of more than [`SILENCE_LEASES_MAX`] do
//! not count, and nobody waits longer than [`PATIENCE_LEASES_MAX`].
//!
//! Who waits longer only stands for election, or lets others stand, later: nothing else is concluded from it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::Vote;

/// The longest silence, in leases, that a leader may come back from and have been merely slow.
const SILENCE_LEASES_MAX: u32 = 3;

/// The longest that is waited for a leader that is silent, in leases.
const PATIENCE_LEASES_MAX: u32 = 4;

/// How much longer than the longest silence of late is waited, in per cent of it.
const MARGIN_PERCENT: u32 = 25;

/// How long a silence is remembered: at least so long, at most twice that.
const MEMORY: Duration = Duration::from_secs(60);

/// What was heard, and when. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Heard(Arc<Mutex<Hearing>>);

#[derive(Debug)]
struct Hearing {
    lease: Duration,
    last: Instant,
    /// Whose word that was.
    leader: Option<Vote>,
    /// Who got this node's vote since then, itself perhaps, and when.
    backed: Option<(u64, Instant)>,
    /// The longest silence of this stretch of time and of the one before it.
    longest: [Duration; 2],
    since: Instant,
}

impl Heard {
    /// As if just heard: a node that starts gives the leader there may be time to speak.
    pub(crate) fn now(lease: Duration) -> Self {
        let now = Instant::now();
        let hearing = Hearing {
            lease,
            last: now,
            leader: None,
            backed: None,
            longest: [Duration::ZERO; 2],
            since: now,
        };
        Self(Arc::new(Mutex::new(hearing)))
    }

    /// The leader with this vote spoke.
    pub(crate) fn note(&self, leader: Vote) {
        let (mut hearing, now) = (self.0.lock(), Instant::now());
        if hearing.leader == Some(leader) {
            let silence = now - hearing.last;
            hearing.remember(silence, now);
        }
        hearing.leader = Some(leader);
        hearing.last = now;
        hearing.backed = None;
    }

    /// A leader spoke that this node does not follow any more: if it is the one heard last, it was late, not gone.
    pub(crate) fn note_late(&self, leader: Vote) {
        let (mut hearing, now) = (self.0.lock(), Instant::now());
        if hearing.leader == Some(leader) {
            let silence = now - hearing.last;
            hearing.remember(silence, now);
            hearing.leader = None;
        }
    }

    pub(crate) fn ago(&self) -> Duration {
        self.at().elapsed()
    }

    /// When that was.
    pub(crate) fn at(&self) -> Instant {
        self.0.lock().last
    }

    /// `candidate` got this node's vote now.
    pub(crate) fn back(&self, candidate: u64) {
        self.0.lock().backed = Some((candidate, Instant::now()));
    }

    /// Whether somebody else than `candidate` got this node's vote less than `within` ago and has not led since: it
    /// may yet be elected.
    pub(crate) fn backs_another(&self, candidate: u64, within: Duration) -> bool {
        let backed = self.0.lock().backed;
        backed.is_some_and(|(other, at)| other != candidate && at.elapsed() < within)
    }

    /// How long a leader may be silent before another is elected.
    pub(crate) fn patience(&self) -> Duration {
        let mut hearing = self.0.lock();
        hearing.turn_over(Instant::now());
        let [now, before] = hearing.longest;
        let longest = now.max(before) * (100 + MARGIN_PERCENT) / 100;
        longest.clamp(hearing.lease, hearing.lease * PATIENCE_LEASES_MAX)
    }
}

impl Hearing {
    fn remember(&mut self, silence: Duration, now: Instant) {
        self.turn_over(now);
        if silence <= self.lease * SILENCE_LEASES_MAX {
            self.longest[0] = self.longest[0].max(silence);
        }
    }

    /// Begins a new stretch of time when the one under way is over.
    fn turn_over(&mut self, now: Instant) {
        let passed = now - self.since;
        if passed >= MEMORY {
            let last = if passed < MEMORY * 2 { self.longest[0] } else { Duration::ZERO };
            (self.longest, self.since) = ([Duration::ZERO, last], now);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LEASE: Duration = Duration::from_millis(1200);

    fn vote(term: u64) -> Vote {
        Vote::new_committed(term, 1)
    }

    async fn silent_for(heard: &Heard, millis: u64) {
        advance(Duration::from_millis(millis)).await;
        heard.note(vote(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_was_slow_is_waited_for_and_the_lease_is_the_least() {
        let heard = Heard::now(LEASE);
        heard.note(vote(1));
        silent_for(&heard, 250).await;
        assert_eq!(heard.patience(), LEASE);
        silent_for(&heard, 2000).await;
        silent_for(&heard, 300).await;
        assert_eq!(heard.patience(), Duration::from_millis(2500));
        advance(MEMORY).await;
        assert_eq!(heard.patience(), Duration::from_millis(2500), "remembered");
        advance(MEMORY).await;
        assert_eq!(heard.patience(), LEASE, "and forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_was_deposed_and_lives_was_slow_and_the_next_one_is_waited_for() {
        let heard = Heard::now(LEASE);
        heard.note(vote(1));
        advance(Duration::from_millis(1800)).await;
        heard.note_late(vote(1));
        assert_eq!(heard.patience(), Duration::from_millis(2250));
        advance(Duration::from_millis(1000)).await;
        heard.note_late(vote(1));
        assert_eq!(heard.patience(), Duration::from_millis(2250), "counted once");
    }

    #[tokio::test(start_paused = true)]
    async fn who_got_the_vote_of_this_node_is_given_time_and_none_beyond_its_first_word() {
        let heard = Heard::now(LEASE);
        assert!(!heard.backs_another(1, LEASE));
        heard.back(2);
        assert!(heard.backs_another(1, LEASE) && !heard.backs_another(2, LEASE));
        advance(LEASE).await;
        assert!(!heard.backs_another(1, LEASE), "its votes are not waited for any more");
        heard.back(2);
        heard.note(Vote::new_committed(3, 2));
        assert!(!heard.backs_another(1, LEASE), "it leads");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_no_measure_of_slowness_nor_is_an_election() {
        let heard = Heard::now(LEASE);
        heard.note(vote(1));
        silent_for(&heard, 15_000).await;
        advance(Duration::from_millis(3000)).await;
        heard.note(vote(2));
        assert_eq!(heard.patience(), LEASE);
        advance(Duration::from_millis(3500)).await;
        heard.note(vote(2));
        assert_eq!(heard.patience(), Duration::from_millis(4375), "the most that counts");
        assert!(heard.patience() <= LEASE * PATIENCE_LEASES_MAX);
    }
}
