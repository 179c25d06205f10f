//! Where the memory of a buffer lies.

use holdfast_model::limits::SECTOR_SIZE;

use crate::{arena::Arena, space::Space};

/// Some contiguous sectors, owned. To be [given back](Room::give_back) to the space they were taken from.
#[derive(Debug)]
pub(crate) enum Room {
    /// A range of the pool's arena.
    Shared { start: usize, sectors: usize },
    /// Memory of its own, as all holes of the arena were too short. Devices take it as any memory, not as registered.
    /// Beside it the holes stay as they are: what is resident can exceed the budget by what they hold, while it lives.
    Apart { memory: Arena, sectors: usize },
}

impl Room {
    /// Takes room for `sectors`. `None` when fewer are free, or when the kernel has no memory: then whoever asks waits for
    /// a hole, which there is at the latest when all others have given back theirs.
    pub(crate) fn take(space: &mut Space, sectors: usize) -> Option<Self> {
        if let Some(start) = space.take(sectors) {
            return Some(Self::Shared { start, sectors });
        }
        if !space.lend(sectors) {
            return None;
        }
        match Arena::apart(sectors * SECTOR_SIZE) {
            Ok(memory) => Some(Self::Apart { memory, sectors }),
            Err(_) => {
                space.take_back(sectors);
                None
            }
        }
    }

    pub(crate) fn give_back(self, space: &mut Space) {
        match self {
            Self::Shared { start, sectors } => space.give_back(start, sectors),
            Self::Apart { sectors, .. } => space.take_back(sectors),
        }
    }

    /// The arena it lies in, `shared` being the pool's; where in it, in bytes; and how long it is, in bytes.
    pub(crate) fn lies_in<'a>(&'a self, shared: &'a Arena) -> (&'a Arena, usize, usize) {
        match self {
            Self::Shared { start, sectors } => (shared, start * SECTOR_SIZE, sectors * SECTOR_SIZE),
            Self::Apart { memory, sectors } => (memory, 0, sectors * SECTOR_SIZE),
        }
    }
}
