//! What goes wrong.

use holdfast_fault::Random;
use serde::{Deserialize, Serialize};

use crate::keys::KeyState;

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

/// Of commands whose outcome is unknown, when nothing else is said, in percent.
pub(super) const fn some() -> u64 {
    40
}

pub(super) fn hurting(random: &mut Random, drive: usize) -> Fault {
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

pub(super) fn kept(random: &mut Random) -> Kept {
    [Kept::Nothing, Kept::All, Kept::Some, Kept::Torn][random.below(4) as usize]
}
