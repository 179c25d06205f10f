//! What a run does: its cluster, what clients ask, what goes wrong and when. Follows from a seed, can be written down,
//! and can be made smaller.
//!
//! The budget of a plan that a correct cluster must survive, whatever else happens:
//! - drives that are hurt (rot, lost writes, failed flushes, gone, blank, put back to an older image): at most as many
//!   as the level survives, on nodes that keep enough drives for the level; or
//! - one node that never comes back;
//! - power cuts, partitions, stalls, changes of leaders, commands whose outcome is unknown: any number, at any time.

mod asks;
mod faults;

use holdfast_fault::Random;
use holdfast_model::Level;
use serde::{Deserialize, Serialize};

use crate::keys::KeyState;

pub use asks::{Ask, End, KEYS, PART_SIZE_MIN, Part, Upload, VERSIONED_KEYS, Versioned};
pub use faults::{Fault, Kept};

use self::{
    asks::{Style, asks},
    faults::{hurting, kept, some},
};

/// How late what a node says is at most because of a fault, in milliseconds.
const DELAY_MAX_MILLIS: u64 = 8_000;

/// Time in which clients work and things go wrong, in milliseconds.
const SAFETY_MILLIS: u64 = 12_000;

/// Of the plans within what the level survives, those in which drives and nodes come and go.
const MEMBERSHIP_PERCENT: u64 = 20;

/// Of the others, those with a second tenant.
const GUESTS_PERCENT: u64 = 20;

/// How late nodes hear of drives and members at most, in milliseconds.
const NEWS_LATE_MAX_MILLIS: u64 = 5_000;

/// One seed in this many is of a run in which more is broken than the level survives.
const BEYOND_INTERVAL: u64 = 8;

/// A run, from its seed or from a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Decides everything that the lists below do not.
    pub seed: u64,
    /// Nodes, those that join later among them.
    pub nodes: usize,
    /// Drives of each.
    pub drives: usize,
    /// More is broken than the level survives: only refusals and an exact report are right then.
    pub beyond: bool,
    /// Ends a day later, when nothing may be left of writes that were given up.
    pub day_later: bool,
    /// Nothing in it keeps a node from giving back what it does not need: nothing may be left over two minutes later.
    #[serde(default)]
    pub tidy: bool,
    /// So many of the nodes, the last ones, are no members at first.
    #[serde(default)]
    pub joining: usize,
    /// How late nodes hear at most of what was decided about drives and members, in milliseconds.
    #[serde(default)]
    pub news_late_max: u64,
    /// What each client asks, one after the other.
    pub clients: Vec<Vec<Ask>>,
    /// What clients of the second tenant ask; none: there is one tenant.
    #[serde(default)]
    pub guests: Vec<Vec<Ask>>,
    /// What goes wrong, in the order of time.
    pub faults: Vec<(u64, Fault)>,
}

impl Plan {
    /// The level of what is written.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::suggested(self.founders())
    }

    /// Nodes that are members from the start.
    #[must_use]
    pub fn founders(&self) -> usize {
        self.nodes - self.joining
    }

    /// The plan of a seed: of one in [`BEYOND_INTERVAL`] more is broken than the level survives.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        Self::of(seed, seed.is_multiple_of(BEYOND_INTERVAL))
    }

    /// The plan of a seed, within what the level survives or beyond.
    #[must_use]
    pub fn of(seed: u64, beyond: bool) -> Self {
        let mut random = Random::new(seed ^ 0x51_u64.rotate_left(40));
        let nodes = if random.chance(85) { 3 } else { 5 };
        let drives = if nodes == 3 { 4 } else { 3 };
        let style = [Style::Plain, Style::Plain, Style::Joined, Style::Versions][random.below(4) as usize];
        let clients = (0..2 + random.below(2)).map(|_| asks(&mut random, style)).collect();
        let mut plan = Self {
            seed,
            nodes,
            drives,
            beyond,
            day_later: false,
            tidy: false,
            joining: 0,
            news_late_max: 0,
            clients,
            guests: Vec::new(),
            faults: Vec::new(),
        };
        plan.day_later = !beyond && random.chance(2);
        plan.break_things(&mut random);
        // What a move left of which nobody learned whether it was decided is looked for as late as orphans.
        plan.day_later |= !beyond && plan.has_unknown_outcomes() && random.chance(8);
        if beyond {
            plan.break_too_much(&mut random);
        } else if random.chance(MEMBERSHIP_PERCENT) {
            plan.change_members(&mut random);
        } else if random.chance(GUESTS_PERCENT) {
            plan.have_guests(&mut random);
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan.tidy = !beyond && !plan.day_later && plan.faults.iter().all(|(_, fault)| fault.leaves_nothing());
        plan
    }

    /// Whether clients use the bucket that keeps versions.
    #[must_use]
    pub fn keeps_versions(&self) -> bool {
        self.clients.iter().flatten().any(|ask| matches!(ask, Ask::Versioned(_)))
    }

    /// Whether drives or nodes leave.
    #[must_use]
    pub fn changes_members(&self) -> bool {
        let leaves = |fault: &Fault| matches!(fault, Fault::Retire { .. } | Fault::Leave { .. });
        self.faults.iter().any(|(_, fault)| leaves(fault))
    }

    fn has_unknown_outcomes(&self) -> bool {
        self.faults.iter().any(|(_, fault)| matches!(fault, Fault::Unknown { .. }))
    }

    fn break_things(&mut self, random: &mut Random) {
        for _ in 0..random.below(5) {
            let fault = self.passing(random);
            self.faults.push((random.below(SAFETY_MILLIS), fault));
        }
        if random.chance(6) {
            let node = random.below(self.nodes as u64) as usize;
            self.faults.push((random.below(SAFETY_MILLIS), Fault::LoseNode { node }));
            return;
        }
        let hurt = random.below(u64::from(self.level().drives_survived()) + 1);
        let mut chosen: Vec<usize> = Vec::new();
        for _ in 0..hurt {
            let drive = random.below((self.nodes * self.drives) as u64) as usize;
            // Never more than one drive of a node: the others of that node take what it held.
            if chosen.iter().all(|other| other / self.drives != drive / self.drives) {
                chosen.push(drive);
                let (at, fault) = (random.below(SAFETY_MILLIS), hurting(random, drive));
                self.faults.push((at, fault));
            }
        }
    }

    /// There is a second tenant, whose key does not stay as it is.
    fn have_guests(&mut self, random: &mut Random) {
        self.guests = (0..1 + random.below(2)).map(|_| asks(random, Style::Plain)).collect();
        self.news_late_max = if random.chance(50) { 0 } else { NEWS_LATE_MAX_MILLIS };
        let first = random.below(SAFETY_MILLIS);
        let second = first + random.below(SAFETY_MILLIS / 2);
        let (early, late) = match random.below(5) {
            0 => (KeyState::Suspended, KeyState::Active),
            1 => (KeyState::Waits, KeyState::Active),
            2 => (KeyState::Suspended, KeyState::Shredding),
            _ => (KeyState::Active, KeyState::Shredding),
        };
        self.faults.push((first, Fault::Key(early)));
        self.faults.push((second, Fault::Key(late)));
    }

    /// Drives and nodes come and go. Whatever else is emptied stays: each node keeps enough drives.
    fn change_members(&mut self, random: &mut Random) {
        self.faults.retain(|(_, fault)| !matches!(fault, Fault::Drain { .. }));
        self.news_late_max = if random.chance(50) { 0 } else { NEWS_LATE_MAX_MILLIS };
        let drive = random.below((self.nodes * self.drives) as u64) as usize;
        let node = random.below(self.nodes as u64) as usize;
        let at = random.below(SAFETY_MILLIS);
        let hurt = |fault: &Fault| matches!(fault, Fault::LoseNode { .. }) || fault.drive_hurt().is_some();
        match random.below(10) {
            0..3 => self.faults.push((at, Fault::Retire { drive })),
            3..5 => {
                self.faults.push((random.below(SAFETY_MILLIS), Fault::Add { node }));
                self.faults.push((at, Fault::Retire { drive }));
            }
            5 if !self.faults.iter().any(|(_, fault)| hurt(fault)) => {
                self.faults.push((at, Fault::WriteOff { drive }));
            }
            _ if self.nodes == 3 => {
                self.nodes += 1;
                self.joining = 1;
                let at = random.below(SAFETY_MILLIS / 2);
                self.faults.push((at, Fault::Join { node: self.nodes - 1 }));
                if random.chance(60) {
                    self.faults.push((at + random.below(SAFETY_MILLIS), Fault::Leave { node }));
                }
            }
            _ => self.faults.push((at, Fault::Retire { drive })),
        }
    }

    fn break_too_much(&mut self, random: &mut Random) {
        let more = u64::from(self.level().drives_survived()) + 1 + random.below(3);
        let mut left: Vec<usize> = (0..self.nodes * self.drives).collect();
        for _ in 0..more {
            let drive = left.swap_remove(random.below(left.len() as u64) as usize);
            let fault = match random.below(4) {
                0 => Fault::Blank { drive },
                1 => Fault::Vanish { drive },
                2 => Fault::Stale { drive },
                _ => Fault::Rot { drive, sectors: 40 },
            };
            self.faults.push((SAFETY_MILLIS / 2 + random.below(SAFETY_MILLIS / 2), fault));
        }
    }

    fn passing(&self, random: &mut Random) -> Fault {
        let node = random.below(self.nodes as u64) as usize;
        let drive = random.below((self.nodes * self.drives) as u64) as usize;
        let millis = 200 + random.below(6000);
        match random.below(17) {
            0..4 => Fault::PowerCut { node, kept: kept(random), millis },
            4..6 => Fault::Blackout { kept: kept(random), millis: 200 + random.below(2000) },
            6..8 => Fault::Isolate { node, millis },
            8..10 => {
                let to = (node + 1 + random.below(self.nodes as u64 - 1) as usize) % self.nodes;
                Fault::Cut { from: node, to, millis }
            }
            10 => Fault::Stall { drive, millis },
            11 => Fault::Handover,
            12 => Fault::Unknown { millis, percent: if random.chance(50) { some() } else { 100 } },
            13 => Fault::Drain { drive },
            14 => {
                let to = (node + 1 + random.below(self.nodes as u64 - 1) as usize) % self.nodes;
                Fault::Delay { from: node, to, by: 100 + random.below(DELAY_MAX_MILLIS), millis }
            }
            _ => Fault::Scrub { node },
        }
    }
}
