//! What clients ask.

use holdfast_fault::Random;
use serde::{Deserialize, Serialize};

/// Keys that clients write.
pub const KEYS: u64 = 6;

/// Keys that clients write in the bucket that keeps versions.
pub const VERSIONED_KEYS: u64 = 2;

/// Sizes of bodies: in the catalog, one cell, a few cells.
const SIZES: [usize; 6] = [700, 9_000, 20_000, 60_000, 70_000, 180_000];

/// Every part of an upload but its last has so many bytes at least, in a simulation.
pub const PART_SIZE_MIN: usize = 10_000;

/// Sizes of parts that need not be the last.
const PART_SIZES: [usize; 3] = [PART_SIZE_MIN, 20_000, 70_000];

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

/// What the clients of a plan mostly do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    /// Conditions, copies, uploads in parts.
    Joined,
    Versions,
}

pub(super) fn asks(random: &mut Random, style: Style) -> Vec<Ask> {
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

pub(super) fn size(random: &mut Random) -> usize {
    SIZES[random.below(SIZES.len() as u64) as usize]
}

pub(super) fn plain(random: &mut Random) -> Ask {
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

pub(super) fn joined(random: &mut Random) -> Ask {
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

pub(super) fn versioned(random: &mut Random) -> Versioned {
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
