//! Which of several clocks is believed.
//!
//! All numbers are milliseconds. A clock is known by its offset: what it shows, less this process's monotonic time at the
//! same moment. A clock that goes right has the same offset for ever; one that is set has another afterwards.

use std::collections::BTreeMap;

use holdfast_model::NodeId;

/// Clocks that differ by no more agree: ten seconds. A reply that takes the four seconds it may take tells the
/// time to within two, and a certificate, a signature or a retention is no matter of seconds.
pub const AGREEMENT: i64 = 10_000;

/// A clock that was not heard for longer has no say: six seconds, which a node that is asked every second
/// has to be silent for to be down.
pub const SILENCE_MAX: i64 = 6_000;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The offset to go by.
    pub offset: i64,
    /// By how much this node's clock is ahead of that; negative when it is behind.
    pub own_ahead: i64,
    /// The same of every other node that was heard.
    pub ahead: BTreeMap<NodeId, i64>,
    /// Whether more than half of the clocks agree.
    pub agreed: bool,
}

impl Judgement {
    /// By how much the clock of `node` is ahead, when it is so much that it is not believed.
    #[must_use]
    pub fn wrong(&self, node: NodeId) -> Option<i64> {
        self.ahead.get(&node).copied().filter(|ahead| !agree(*ahead, 0))
    }

    /// By how much this node's clock is ahead, when it is so much that it is not believed.
    #[must_use]
    pub fn own_wrong(&self) -> Option<i64> {
        Some(self.own_ahead).filter(|ahead| !agree(*ahead, 0))
    }
}

/// A clock of another node.
#[derive(Debug, Clone, Copy)]
struct Known {
    offset: i64,
    heard: i64,
}

/// Knows what clocks show.
#[derive(Debug, Default)]
pub struct Judge {
    others: BTreeMap<NodeId, Known>,
    last: Option<Judgement>,
}

impl Judge {
    /// The clock of `node` has this offset; that was found out at the monotonic time `heard`.
    pub fn heard(&mut self, node: NodeId, offset: i64, heard: i64) {
        self.others.insert(node, Known { offset, heard });
    }

    /// `node` has no clock that counts.
    pub fn forget(&mut self, node: NodeId) {
        self.others.remove(&node);
    }

    /// What was found last.
    #[must_use]
    pub fn last(&self) -> Option<&Judgement> {
        self.last.as_ref()
    }

    /// Finds out what to go by at the monotonic time `now`, when this node's clock has the offset `own`.
    ///
    /// This node's own clock as long as most agree with it, and what most have otherwise. Where most agree on nothing, which
    /// of two that differ is so, what was gone by before is kept as long as any clock agrees with it: the one that was
    /// set is wrong. Without that, this node's own.
    pub fn judge(&mut self, own: i64, now: i64) -> Judgement {
        let fresh = |known: &&Known| now.saturating_sub(known.heard) <= SILENCE_MAX;
        let mut offsets: Vec<i64> = self.others.values().filter(fresh).map(|known| known.offset).collect();
        offsets.push(own);
        offsets.sort_unstable();
        // Of an even number the earlier of the two in the middle: a retention that ends late is the lesser harm.
        let median = offsets[(offsets.len() - 1) / 2];
        let with = |offset: i64| offsets.iter().filter(|other| agree(**other, offset)).count();
        let agreed = with(median) * 2 > offsets.len();
        let offset = if agreed {
            if agree(own, median) { own } else { median }
        } else {
            let before = self.last.as_ref().map(|last| last.offset);
            match before.filter(|before| with(*before) > 0) {
                // Its own, as it goes now, if it is the one that agrees.
                Some(before) if agree(own, before) => own,
                Some(before) => before,
                None => own,
            }
        };
        let ahead = self.others.iter().filter(|(_, known)| fresh(known));
        let judgement = Judgement {
            offset,
            own_ahead: own.saturating_sub(offset),
            ahead: ahead.map(|(node, known)| (*node, known.offset.saturating_sub(offset))).collect(),
            agreed,
        };
        self.tell(&judgement);
        self.last = Some(judgement.clone());
        judgement
    }

    /// Logs what has changed.
    fn tell(&self, found: &Judgement) {
        let before = self.last.as_ref();
        match (before.and_then(Judgement::own_wrong), found.own_wrong()) {
            (None, Some(ahead)) => tracing::error!(
                ahead_seconds = ahead / 1000,
                "this node's clock is wrong: the cluster's time is used instead; set it"
            ),
            (Some(_), None) => tracing::info!("this node's clock is right again"),
            _ => {}
        }
        if before.is_none_or(|before| before.agreed) && !found.agreed {
            tracing::error!(ahead_millis = ?found.ahead, "clocks of nodes differ, and there is no time that most agree on");
        }
    }
}

fn agree(one: i64, other: i64) -> bool {
    one.saturating_sub(other).saturating_abs() <= AGREEMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;
    const RIGHT: i64 = 1_800_000_000_000;

    /// A judge that hears the nodes 2, 3, ... at time 0.
    fn judge(others: &[i64]) -> Judge {
        let mut judge = Judge::default();
        hear(&mut judge, others, 0);
        judge
    }

    fn hear(judge: &mut Judge, others: &[i64], at: i64) {
        for (number, offset) in (2..).zip(others) {
            judge.heard(NodeId::new(number), *offset, at);
        }
    }

    #[test]
    fn a_clock_that_goes_with_most_is_gone_by() {
        let found = judge(&[RIGHT + 900, RIGHT - 2000]).judge(RIGHT, 0);
        assert_eq!((found.offset, found.own_ahead, found.agreed), (RIGHT, 0, true));
        assert_eq!(found.ahead.into_values().collect::<Vec<_>>(), [900, -2000]);
        let slow = judge(&[RIGHT; 4]).judge(RIGHT + AGREEMENT, 0);
        assert_eq!(slow.own_wrong(), None, "so much is allowed");
    }

    #[test]
    fn one_that_is_alone_is_not() {
        for wrong in [3 * DAY, -3 * DAY, AGREEMENT + 6, i64::MAX - RIGHT, -RIGHT] {
            let found = judge(&[RIGHT, RIGHT + 5]).judge(RIGHT + wrong, 0);
            assert!((found.offset - RIGHT).abs() <= 5, "{wrong}: {found:?}");
            assert_eq!(found.own_wrong(), Some(RIGHT + wrong - found.offset));
            let found = judge(&[RIGHT + wrong, RIGHT]).judge(RIGHT, 0);
            assert_eq!((found.offset, found.own_wrong()), (RIGHT, None), "another node's does not matter");
            assert_eq!(found.wrong(NodeId::new(2)), Some(wrong));
            assert_eq!(found.wrong(NodeId::new(3)), None);
        }
        let found = judge(&[RIGHT + DAY, RIGHT - DAY, RIGHT, RIGHT]).judge(RIGHT, 0);
        assert_eq!((found.offset, found.agreed), (RIGHT, true), "nor do those of two of five");
    }

    #[test]
    fn of_two_the_one_that_was_set_is_wrong() {
        let mut judge = judge(&[RIGHT]);
        judge.judge(RIGHT, 0);
        let own_was_set = judge.judge(RIGHT + DAY, 1);
        assert_eq!((own_was_set.offset, own_was_set.own_ahead, own_was_set.agreed), (RIGHT, DAY, false));
        let again = judge.judge(RIGHT + DAY, 2);
        assert_eq!(again.offset, RIGHT, "it stays so");
        hear(&mut judge, &[RIGHT + DAY], 3);
        assert_eq!(judge.judge(RIGHT + DAY, 3).offset, RIGHT + DAY, "both were set: so it is");
        hear(&mut judge, &[RIGHT], 4);
        let other_was_set = judge.judge(RIGHT + DAY + 40, 4);
        assert_eq!(other_was_set.offset, RIGHT + DAY + 40, "its own goes on");
        assert_eq!(other_was_set.wrong(NodeId::new(2)), Some(-DAY - 40));
    }

    #[test]
    fn who_has_nobody_to_ask_goes_by_its_own() {
        let mut judge = judge(&[RIGHT, RIGHT]);
        assert_eq!(judge.judge(RIGHT, SILENCE_MAX).offset, RIGHT);
        assert_eq!(judge.judge(RIGHT + DAY, SILENCE_MAX).offset, RIGHT);
        let alone = judge.judge(RIGHT + DAY, SILENCE_MAX + 1);
        assert_eq!((alone.offset, alone.agreed), (RIGHT + DAY, true), "what was heard is too old");
        let differing = super::Judge::default().judge(RIGHT, 0);
        assert_eq!((differing.offset, differing.ahead.len()), (RIGHT, 0));
    }

    #[test]
    fn without_a_time_that_most_agree_on_nothing_is_changed() {
        let mut judge = judge(&[RIGHT, RIGHT]);
        judge.judge(RIGHT, 0);
        hear(&mut judge, &[RIGHT + DAY, RIGHT + 2 * DAY], 1);
        let found = judge.judge(RIGHT, 1);
        assert_eq!((found.offset, found.agreed), (RIGHT, false));
        hear(&mut judge, &[RIGHT, RIGHT + 2 * DAY], 2);
        let found = judge.judge(RIGHT + DAY, 2);
        assert_eq!((found.offset, found.agreed), (RIGHT, false), "one of the three still agrees");
        hear(&mut judge, &[RIGHT + 3 * DAY, RIGHT + 2 * DAY], 3);
        let found = judge.judge(RIGHT + DAY, 3);
        assert_eq!((found.offset, found.agreed), (RIGHT + DAY, false), "none does");
    }

    #[test]
    fn most_may_be_set_one_after_the_other() {
        let mut judge = judge(&[RIGHT, RIGHT]);
        let set = RIGHT + DAY;
        assert_eq!(judge.judge(RIGHT, 0).offset, RIGHT);
        hear(&mut judge, &[set, RIGHT], 1);
        assert_eq!(judge.judge(RIGHT, 1).offset, RIGHT, "one of three");
        hear(&mut judge, &[set, set], 2);
        assert_eq!(judge.judge(RIGHT, 2).offset, set, "two of three");
        assert_eq!(judge.judge(set, 3).own_wrong(), None, "all");
    }

    #[test]
    fn a_node_that_is_forgotten_has_no_say() {
        let mut judge = judge(&[RIGHT + DAY, RIGHT + DAY]);
        judge.forget(NodeId::new(2));
        judge.forget(NodeId::new(3));
        let found = judge.judge(RIGHT, 0);
        assert_eq!((found.offset, found.ahead.len()), (RIGHT, 0));
    }
}
