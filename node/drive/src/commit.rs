//! The one way to an acknowledgement: a flush that came back clean.
//!
//! [`FlushTicket`] is made when a flush is submitted, from the writes that had completed by then.
//! Finishing it with the device's answer gives a [`CleanFlush`] or the error, and only a `CleanFlush`
//! makes a [`Durable`]. Their fields are private to this module, so no other code can make one.

use std::io;

use holdfast_model::{DriveId, Generation, ShardId};

/// Proof that a shard is on a drive and has passed a device flush.
///
/// Acknowledging a write needs one for every shard of it. It cannot be made by hand:
///
/// ```compile_fail,E0451
/// use holdfast_model::{DriveId, Generation, ShardId, ShardIndex, StripeId};
/// let id = ShardId { stripe: StripeId::from_bytes([0; 16]), index: ShardIndex::new(0) };
/// let forged = holdfast_drive::Durable { drive: DriveId::from_bytes([0; 16]), id, generation: Generation::new(1) };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    drive: DriveId,
    id: ShardId,
    generation: Generation,
}

impl Durable {
    /// The drive that holds the shard.
    #[must_use]
    pub fn drive(&self) -> DriveId {
        self.drive
    }

    /// The shard.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The generation that is durable.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

/// A flush on its way, with the writes it covers: those that had completed when it was submitted.
#[derive(Debug)]
pub(crate) struct FlushTicket<T> {
    drive: DriveId,
    covers: Vec<T>,
}

impl<T> FlushTicket<T> {
    /// `covers` must have completed whole and clean.
    pub(crate) fn new(drive: DriveId, covers: Vec<T>) -> Self {
        Self { drive, covers }
    }

    /// The flush was not submitted after all, or its answer is not waited for: the writes, unproven.
    pub(crate) fn give_back(self) -> Vec<T> {
        self.covers
    }

    /// Takes the device's answer: the proof and the writes, or the error and the writes.
    pub(crate) fn finish(
        self,
        outcome: io::Result<usize>,
    ) -> Result<(CleanFlush, Vec<T>), (io::Error, Vec<T>)> {
        match outcome {
            Ok(_) => Ok((CleanFlush { drive: self.drive }, self.covers)),
            Err(error) => Err((error, self.covers)),
        }
    }
}

/// Proof that a flush came back clean.
#[derive(Debug)]
pub(crate) struct CleanFlush {
    drive: DriveId,
}

impl CleanFlush {
    /// The proof for a write this flush covers, or for one that an earlier clean flush covered.
    pub(crate) fn mint(&self, id: ShardId, generation: Generation) -> Durable {
        Durable { drive: self.drive, id, generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_flush_proves_nothing() {
        let ticket = FlushTicket::new(DriveId::from_bytes([1; 16]), vec![7]);
        let (_, writes) = ticket.finish(Err(io::Error::from_raw_os_error(libc::EIO))).unwrap_err();
        assert_eq!(writes, vec![7]);
    }
}
