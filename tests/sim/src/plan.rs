//! What a run does: its cluster, what clients ask, what goes wrong and when. Follows from a seed, can be written down,
//! and can be made smaller.
//!
//! The budget of a plan that a correct cluster must survive, whatever else happens:
//! - drives that are hurt (rot, lost writes, failed flushes, gone, blank, put back to an older image): at most as many
//!   as the level survives, on nodes that keep enough drives for the level; or
//! - one node that never comes back;
//! - power cuts, partitions, stalls, changes of leaders, commands whose outcome is unknown: any number, at any time.

use holdfast_fault::Random;
use holdfast_model::Level;
use serde::{Deserialize, Serialize};

use crate::keys::KeyState;

/// Keys that clients write.
pub const KEYS: u64 = 6;

/// Keys that clients write in the bucket that keeps versions.
pub const VERSIONED_KEYS: u64 = 2;

/// Time in which clients work and things go wrong, in milliseconds.
const SAFETY_MILLIS: u64 = 12_000;

/// Of the plans within what the level survives, those in which drives and nodes come and go.
const MEMBERSHIP_PERCENT: u64 = 20;

/// Of the others, those with a second tenant.
const GUESTS_PERCENT: u64 = 20;

/// How late nodes hear of drives and members at most, in milliseconds.
const NEWS_LATE_MAX_MILLIS: u64 = 5_000;

/// How late what a node says is at most because of a fault, in milliseconds.
const DELAY_MAX_MILLIS: u64 = 8_000;

/// One seed in this many is of a run in which more is broken than the level survives.
const BEYOND_INTERVAL: u64 = 8;

/// Sizes of bodies: in the catalog, one cell, a few cells.
const SIZES: [usize; 6] = [700, 9_000, 20_000, 60_000, 70_000, 180_000];

/// Every part of an upload but its last has so many bytes at least, in a simulation.
pub const PART_SIZE_MIN: usize = 10_000;

/// Sizes of parts that need not be the last.
const PART_SIZES: [usize; 3] = [PART_SIZE_MIN, 20_000, 70_000];

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

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Writes an object.
    Put {
        /// Which key.
        key: u64,
        /// Bytes.
        size: usize,
    },
    /// Reads an object.
    Get {
        /// Which key.
        key: u64,
    },
    /// Reads a part of an object.
    Range {
        /// Which key.
        key: u64,
        /// First byte.
        first: u64,
        /// Bytes.
        count: u64,
    },
    /// Deletes an object.
    Delete {
        /// Which key.
        key: u64,
    },
    /// Lists all objects.
    List,
    /// Writes an object when a condition holds.
    PutIf {
        /// Which key.
        key: u64,
        /// Bytes.
        size: usize,
        /// `If-None-Match: *`; otherwise `If-Match` with what a look has just found.
        absent: bool,
    },
    /// Copies an object to a key with a larger number: so no two objects of a key have the same ETag, but copies.
    Copy {
        /// From which key.
        from: u64,
        /// To which.
        to: u64,
    },
    /// Writes an object in parts.
    Upload(Upload),
    /// Something in the bucket that keeps versions.
    Versioned(Versioned),
    /// Waits, in milliseconds.
    Wait(u64),
}

impl Ask {
    /// Requests it takes at most.
    #[must_use]
    pub fn requests(&self) -> u32 {
        match self {
            Self::PutIf { .. } | Self::Copy { .. } => 2,
            Self::Upload(upload) => 8 + 3 * upload.parts.len() as u32,
            _ => 1,
        }
    }
}

/// An upload in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Which key.
    pub key: u64,
    /// Its parts, in the order of their numbers.
    pub parts: Vec<Part>,
    /// The last part is sent first.
    pub backwards: bool,
    /// The first part is sent twice, with other bytes at first.
    pub again: bool,
    /// A part is sent that the object is not made of.
    pub unnamed: bool,
    /// How it ends.
    pub end: End,
}

/// A part of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// So many bytes.
    Bytes(usize),
    /// What a key holds; left out when that is nothing.
    CopyOf(u64),
}

/// How an upload ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It becomes an object.
    Complete,
    /// It becomes one if none is there.
    CompleteIfAbsent,
    /// It is aborted.
    Abort,
    /// It is left as it is.
    Leave,
}

/// What is done in the bucket that keeps versions. `nth` chooses among the versions of the key that clients know of, the newest
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Versioned {
    /// Writes a version.
    Put { key: u64, size: usize },
    /// Puts a delete marker in front.
    Mark { key: u64 },
    /// Removes a version for good.
    Remove { key: u64, nth: usize },
    /// Removes the null version for good.
    RemoveNull { key: u64 },
    /// Reads a version.
    Get { key: u64, nth: usize },
    /// Reads the null version.
    GetNull { key: u64 },
    /// Reads the current version.
    Current { key: u64 },
    /// Lists all versions of all keys.
    List,
    /// Suspends versioning, or enables it again.
    Suspend(bool),
}

/// What survives of what was not flushed when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// Everything.
    All,
    /// Some sectors.
    Some,
    /// Pieces of sectors.
    Torn,
}

/// What goes wrong. Nodes and drives by number; lengths in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The power of a node goes, and comes back later.
    PowerCut {
        /// Which node.
        node: usize,
        /// What its drives keep.
        kept: Kept,
        /// For how long.
        millis: u64,
    },
    /// The power of all nodes goes at once.
    Blackout {
        /// What drives keep.
        kept: Kept,
        /// For how long.
        millis: u64,
    },
    /// A node hears nothing and is not heard.
    Isolate {
        /// Which node.
        node: usize,
        /// For how long.
        millis: u64,
    },
    /// What one node says to another does not arrive.
    Cut {
        /// Who says it.
        from: usize,
        /// To whom.
        to: usize,
        /// For how long.
        millis: u64,
    },
    /// What one node says to another is late, by more than anything takes otherwise.
    Delay {
        /// Who says it.
        from: usize,
        /// To whom.
        to: usize,
        /// By how much.
        by: u64,
        /// For how long such things are said.
        millis: u64,
    },
    /// A drive answers nothing for a while.
    Stall {
        /// Which drive.
        drive: usize,
        /// For how long.
        millis: u64,
    },
    /// Another node leads.
    Handover,
    /// For a while, outcomes of commands are unknown: committed or not.
    Unknown {
        /// For how long.
        millis: u64,
        /// Of how many, in percent.
        #[serde(default = "some")]
        percent: u64,
    },
    /// Of the next shards that other nodes send to a node, a bit turns before the drive gets them: memory that fails, which
    /// neither the link's checksum nor the record's sees. A move reads back what it wrote; a write of a client does not, so
    /// clients should write nothing meanwhile.
    Garble {
        /// Which node.
        node: usize,
        /// So many shards.
        count: u64,
    },
    /// A node scrubs now.
    Scrub {
        /// Which node.
        node: usize,
    },
    /// Bits turn in sectors that hold something.
    Rot {
        /// Which drive.
        drive: usize,
        /// So many sectors.
        sectors: u64,
    },
    /// Writes fail from now on.
    WritesFail {
        /// Which drive.
        drive: usize,
    },
    /// A flush fails; what it was to write may be gone.
    FlushFails {
        /// Which drive.
        drive: usize,
    },
    /// Reads fail from now on.
    ReadsFail {
        /// Which drive.
        drive: usize,
    },
    /// The drive is not there any more.
    Vanish {
        /// Which drive.
        drive: usize,
    },
    /// The drive answers nothing any more.
    Hang {
        /// Which drive.
        drive: usize,
    },
    /// A write is acknowledged and not done.
    LoseWrite {
        /// Which drive.
        drive: usize,
        /// How many writes from now.
        after: u64,
    },
    /// A write goes elsewhere.
    MisdirectWrite {
        /// Which drive.
        drive: usize,
        /// How many writes from now.
        after: u64,
        /// Sectors further.
        by: u64,
    },
    /// The drive is put back to what it was at the start, while its node is off.
    Stale {
        /// Which drive.
        drive: usize,
    },
    /// The drive is replaced by a blank one.
    Blank {
        /// Which drive.
        drive: usize,
    },
    /// The node never comes back.
    LoseNode {
        /// Which node.
        node: usize,
    },
    /// Somebody changes a bit of each data shard on the drive, and makes its checksums anew.
    Alter {
        /// Which drive.
        drive: usize,
    },
    /// A drive is to be emptied.
    Drain {
        /// Which drive.
        drive: usize,
    },
    /// A drive is emptied and leaves for good.
    Retire {
        /// Which drive.
        drive: usize,
    },
    /// A drive leaves at once, with all that is on it.
    WriteOff {
        /// Which drive.
        drive: usize,
    },
    /// A drive is put into a further bay.
    Add {
        /// Of which node.
        node: usize,
    },
    /// A node becomes a member, with its drives.
    Join {
        /// Which node.
        node: usize,
    },
    /// The key of the second tenant stands otherwise. When it is to be destroyed it is, once all nodes have heard of it.
    Key(KeyState),
    /// A node's drives are emptied, and it leaves for good.
    Leave {
        /// Which node.
        node: usize,
    },
}

impl Fault {
    /// The drive that may lose something by it.
    #[must_use]
    pub fn drive_hurt(&self) -> Option<usize> {
        match *self {
            Self::Rot { drive, .. }
            | Self::WritesFail { drive }
            | Self::FlushFails { drive }
            | Self::ReadsFail { drive }
            | Self::Vanish { drive }
            | Self::Hang { drive }
            | Self::LoseWrite { drive, .. }
            | Self::MisdirectWrite { drive, .. }
            | Self::Stale { drive }
            | Self::Blank { drive }
            | Self::WriteOff { drive }
            | Self::Alter { drive } => Some(drive),
            _ => None,
        }
    }

    /// Whether whoever meets it can clean up after itself at once.
    #[must_use]
    pub fn leaves_nothing(&self) -> bool {
        matches!(
            self,
            Self::Handover
                | Self::Scrub { .. }
                | Self::Rot { .. }
                | Self::WritesFail { .. }
                | Self::Drain { .. }
                | Self::Retire { .. }
                | Self::WriteOff { .. }
                | Self::Add { .. }
                | Self::Join { .. }
                | Self::Leave { .. }
                | Self::Key(_)
                | Self::Stall { .. }
        )
    }
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

/// Of commands whose outcome is unknown, when nothing else is said, in percent.
const fn some() -> u64 {
    40
}

fn hurting(random: &mut Random, drive: usize) -> Fault {
    match random.below(16) {
        0..4 => Fault::Rot { drive, sectors: 1 + random.below(60) },
        4 => Fault::WritesFail { drive },
        5 | 6 => Fault::FlushFails { drive },
        7 => Fault::ReadsFail { drive },
        8 => Fault::Vanish { drive },
        9 => Fault::Hang { drive },
        10 | 11 => Fault::LoseWrite { drive, after: random.below(6) },
        12 => Fault::MisdirectWrite { drive, after: random.below(6), by: 1 + random.below(300) },
        13 => Fault::Stale { drive },
        _ => Fault::Blank { drive },
    }
}

fn kept(random: &mut Random) -> Kept {
    [Kept::Nothing, Kept::All, Kept::Some, Kept::Torn][random.below(4) as usize]
}

/// What the clients of a plan mostly do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    /// Conditions, copies, uploads in parts.
    Joined,
    Versions,
}

fn asks(random: &mut Random, style: Style) -> Vec<Ask> {
    let mut asks = Vec::new();
    for _ in 0..4 + random.below(6) {
        asks.push(match style {
            Style::Joined if random.chance(50) => joined(random),
            Style::Versions if random.chance(75) => Ask::Versioned(versioned(random)),
            _ => plain(random),
        });
        if random.chance(40) {
            asks.push(Ask::Wait(random.below(1500)));
        }
    }
    asks
}

fn size(random: &mut Random) -> usize {
    SIZES[random.below(SIZES.len() as u64) as usize]
}

fn plain(random: &mut Random) -> Ask {
    let key = random.below(KEYS);
    match random.below(20) {
        0..9 => Ask::Put { key, size: size(random) },
        9..13 => Ask::Get { key },
        13 => Ask::Range { key, first: random.below(20_000), count: 1 + random.below(70_000) },
        14..17 => Ask::Delete { key },
        17 => Ask::List,
        _ => Ask::Wait(random.below(2000)),
    }
}

fn joined(random: &mut Random) -> Ask {
    let key = random.below(KEYS);
    match random.below(8) {
        0 | 1 => Ask::PutIf { key, size: size(random), absent: true },
        2 => Ask::PutIf { key, size: size(random), absent: false },
        3 => {
            let from = random.below(KEYS - 1);
            Ask::Copy { from, to: from + 1 + random.below(KEYS - 1 - from) }
        }
        _ => {
            let part = |random: &mut Random| match random.below(5) {
                0 => Part::CopyOf(random.below(KEYS)),
                1 => Part::Bytes(size(random)),
                _ => Part::Bytes(PART_SIZES[random.below(PART_SIZES.len() as u64) as usize]),
            };
            Ask::Upload(Upload {
                key,
                parts: (0..1 + random.below(3)).map(|_| part(random)).collect(),
                backwards: random.chance(30),
                again: random.chance(30),
                unnamed: random.chance(30),
                end: match random.below(10) {
                    0..6 => End::Complete,
                    6 => End::CompleteIfAbsent,
                    7 | 8 => End::Abort,
                    _ => End::Leave,
                },
            })
        }
    }
}

fn versioned(random: &mut Random) -> Versioned {
    let (key, nth) = (random.below(VERSIONED_KEYS), random.below(4) as usize);
    match random.below(16) {
        0..5 => Versioned::Put { key, size: size(random) },
        5 | 6 => Versioned::Mark { key },
        7 | 8 => Versioned::Remove { key, nth },
        9 => Versioned::RemoveNull { key },
        10 => Versioned::Get { key, nth },
        11 => Versioned::GetNull { key },
        12 => Versioned::Current { key },
        13 => Versioned::List,
        _ => Versioned::Suspend(random.chance(50)),
    }
}
