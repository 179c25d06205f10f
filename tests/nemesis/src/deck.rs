//! What is done to the cluster, in an order that only the seed decides: a deck of all faults, shuffled, dealt to
//! its end, shuffled again. So every kind comes, and equally often.

use std::{fmt, time::Duration};

use holdfast_fault::Random;

/// One thing that goes wrong, until it is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL to one node, or a machine's power cut; it starts again later.
    Kill,
    /// One node stands still and goes on later: it wakes up and thinks that no time has passed.
    Pause,
    /// The same to every node at once.
    KillAll,
    /// Every node in turn is asked to stop, and starts again.
    RollingRestart,
    /// Every node in turn is stopped and started with another version of the program, and later with its own again.
    TwoVersions,
    /// One node has hardly more memory than it uses.
    MemoryLimit,
    /// One node and all others do not hear each other.
    Isolate,
    /// Two nodes do not hear each other; both hear the others.
    CutBetween,
    /// One node hears the others and is not heard.
    Mute,
    /// What nodes say to each other comes late.
    SlowLinks,
    /// What one node says and hears is lost in part.
    LossyLinks,
    /// Bytes on one drive turn while its node runs.
    Rot,
    /// A drive goes back to what it held a while ago.
    StaleDrive,
    /// A drive is replaced by a blank one.
    BlankDrive,
    /// A drive is pulled out while its node runs, and put back later.
    Unplug,
    /// A node's clock shows another time and later the right one again: a process's while it runs, a machine's from a
    /// start to its next.
    ClockStep,
    /// Drives are filled until writes are refused, then emptied.
    Full,
}

impl Kind {
    /// What can be done to virtual machines.
    pub const OF_MACHINES: [Self; 17] = [
        Self::Kill,
        Self::Pause,
        Self::KillAll,
        Self::RollingRestart,
        Self::TwoVersions,
        Self::MemoryLimit,
        Self::Isolate,
        Self::CutBetween,
        Self::Mute,
        Self::SlowLinks,
        Self::LossyLinks,
        Self::Rot,
        Self::StaleDrive,
        Self::BlankDrive,
        Self::Unplug,
        Self::ClockStep,
        Self::Full,
    ];

    /// What can be done to processes.
    pub const OF_PROCESSES: [Self; 16] = [
        Self::Kill,
        Self::Pause,
        Self::KillAll,
        Self::RollingRestart,
        Self::TwoVersions,
        Self::MemoryLimit,
        Self::Isolate,
        Self::CutBetween,
        Self::Mute,
        Self::SlowLinks,
        Self::LossyLinks,
        Self::Rot,
        Self::StaleDrive,
        Self::BlankDrive,
        Self::ClockStep,
        Self::Full,
    ];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "node killed",
            Self::Pause => "node paused",
            Self::KillAll => "all nodes killed at once",
            Self::RollingRestart => "rolling restart",
            Self::TwoVersions => "rolling restart to another version and back",
            Self::MemoryLimit => "node with hardly any memory left",
            Self::Isolate => "node cut off, both ways",
            Self::CutBetween => "two nodes cut off from each other",
            Self::Mute => "node heard no more, one way",
            Self::SlowLinks => "slow links",
            Self::LossyLinks => "lossy links",
            Self::Rot => "bytes of a drive turned",
            Self::StaleDrive => "drive put back to an older image",
            Self::BlankDrive => "drive replaced by a blank one",
            Self::Unplug => "drive pulled out, and put back later",
            Self::ClockStep => "clock of a node stepped, and back",
            Self::Full => "drives filled until writes are refused",
        }
    }

    /// Whether a drive loses what it held: the level says how many may, until all is whole again.
    #[must_use]
    pub const fn hurts_a_drive(self) -> bool {
        matches!(self, Self::Rot | Self::StaleDrive | Self::BlankDrive | Self::Unplug)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault, and whom it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// Which node, from 0.
    pub node: usize,
    /// Another node, from 0.
    pub other: usize,
    /// Which drive of the node, from 1.
    pub drive: u16,
    /// How long it lasts.
    pub lasts: Duration,
    /// How long before the next one.
    pub pause: Duration,
    /// For what the fault itself leaves to chance.
    pub seed: u64,
}

/// The deck.
#[derive(Debug)]
pub struct Deck {
    random: Random,
    nodes: usize,
    drives: u16,
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

impl Deck {
    /// A deck for a cluster of `nodes` with `drives` each, of the given kinds.
    ///
    /// # Panics
    /// When there are no kinds, fewer than two nodes, or no drives.
    #[must_use]
    pub fn new(seed: u64, nodes: usize, drives: u16, kinds: &[Kind]) -> Self {
        assert!(nodes >= 2 && drives >= 1 && !kinds.is_empty(), "something to hurt");
        Self { random: Random::new(seed), nodes, drives, kinds: kinds.to_vec(), left: Vec::new() }
    }

    /// The next fault.
    pub fn deal(&mut self) -> Event {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            for at in (1..self.left.len()).rev() {
                let other = self.random.below(at as u64 + 1) as usize;
                self.left.swap(at, other);
            }
        }
        let kind = self.left.pop().unwrap_or(Kind::Kill);
        let node = self.random.below(self.nodes as u64) as usize;
        let other = (node + 1 + self.random.below(self.nodes as u64 - 1) as usize) % self.nodes;
        // Short ones are noticed by nobody, long ones by everybody, and those between by some.
        let longest = if self.random.chance(30) { 15_000 } else { 4000 };
        Event {
            kind,
            node,
            other,
            drive: 1 + self.random.below(u64::from(self.drives)) as u16,
            lasts: Duration::from_millis(200 + self.random.below(longest)),
            pause: Duration::from_millis(500 + self.random.below(3000)),
            seed: self.random.number(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_alone_decides_and_every_kind_comes() {
        let deal = |seed| {
            let mut deck = Deck::new(seed, 3, 4, &Kind::OF_PROCESSES);
            (0..Kind::OF_PROCESSES.len() * 3).map(|_| deck.deal()).collect::<Vec<Event>>()
        };
        assert_eq!(deal(7), deal(7));
        assert_ne!(deal(7), deal(8));
        for kind in Kind::OF_PROCESSES {
            assert_eq!(deal(7).iter().filter(|event| event.kind == kind).count(), 3, "{kind}");
        }
        assert!(deal(7).iter().all(|event| event.node != event.other && event.other < 3));
    }
}
