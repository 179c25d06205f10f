//! How much room there is for the files of a node's machine.

use std::{io, sync::Arc};

use parking_lot::Mutex;

/// What still fits on the disk with the machine's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Space {
    /// Everything.
    #[default]
    Plenty,
    /// Commands, but no checkpoint, no snapshot and none that is to be installed.
    Little,
    /// Nothing.
    None,
}

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The effect of a command.
    Command,
    /// The whole state.
    Image,
}

/// The disk with the files of one node's machine, through all runs of the node. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    space: Space,
    refused: u64,
}

impl Room {
    pub(crate) fn set(&self, space: Space) {
        self.0.lock().space = space;
    }

    /// Pieces that found no room so far.
    pub(crate) fn refused(&self) -> u64 {
        self.0.lock().refused
    }

    /// Takes room for a piece.
    pub(crate) fn take(&self, piece: Piece) -> io::Result<()> {
        let mut kept = self.0.lock();
        let fits = match kept.space {
            Space::Plenty => true,
            Space::Little => piece == Piece::Command,
            Space::None => false,
        };
        kept.refused += u64::from(!fits);
        if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}
