//! The completion-based interface of a device, as io_uring has it.
//!
//! A POSIX-like trait would hide what a device really does: completions out of order, short counts,
//! `EAGAIN`, operations that finish late or never. Engines are written against this trait; tests give
//! them a device that misbehaves on purpose.

use std::{fmt, io, time::Duration};

use holdfast_model::{ByteCount, limits::SECTOR_SIZE};

use crate::{Buffer, Waker};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Device to buffer.
    Read,
    /// Buffer to device. Durable only after a later [`Kind::Flush`] that was submitted once this completed.
    Write,
    /// Makes every write that completed before its submission durable.
    Flush,
}

/// One operation, owning its buffer.
#[derive(Debug)]
pub struct Operation {
    token: u64,
    kind: Kind,
    offset: u64,
    buffer: Option<Buffer>,
    start: usize,
    length: usize,
}

impl Operation {
    /// Reads `length` bytes at `offset` of the device into the frame of `buffer`, from byte `start` of the
    /// frame on (byte 0 is the first of the headroom).
    ///
    /// # Panics
    /// When `offset`, `start` or `length` is not whole sectors, or the range is not inside the frame.
    #[must_use]
    pub fn read(token: u64, offset: u64, buffer: Buffer, start: usize, length: usize) -> Self {
        Self::transfer(Kind::Read, token, offset, buffer, start, length)
    }

    /// Writes `length` bytes of the frame of `buffer`, from byte `start` of the frame on, to `offset`.
    ///
    /// # Panics
    /// As [`Self::read`].
    #[must_use]
    pub fn write(token: u64, offset: u64, buffer: Buffer, start: usize, length: usize) -> Self {
        Self::transfer(Kind::Write, token, offset, buffer, start, length)
    }

    /// Flushes the device's cache.
    #[must_use]
    pub fn flush(token: u64) -> Self {
        Self { token, kind: Kind::Flush, offset: 0, buffer: None, start: 0, length: 0 }
    }

    fn transfer(kind: Kind, token: u64, offset: u64, buffer: Buffer, start: usize, length: usize) -> Self {
        let whole = |n: usize| n.is_multiple_of(SECTOR_SIZE);
        assert!(offset.is_multiple_of(SECTOR_SIZE as u64), "offset {offset} is not on a sector");
        assert!(whole(start) && whole(length) && length > 0, "{start}+{length} is not whole sectors");
        assert!(start + length <= buffer.framed_len(), "{start}+{length} is outside the buffer's frame");
        Self { token, kind, offset, buffer: Some(buffer), start, length }
    }

    /// The same operation under another name.
    #[must_use]
    pub fn with_token(self, token: u64) -> Self {
        Self { token, ..self }
    }

    /// The caller's name for this operation; comes back in the completion.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// What it does.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where on the device, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes to move.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The bytes to write, or the place for what is read. Empty for a flush.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |b| &b.framed()[self.start..self.start + self.length])
    }

    /// The place for what is read. Empty for a flush.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, length) = (self.start, self.length);
        self.buffer.as_mut().map_or(&mut [], |b| &mut b.framed_mut()[start..start + length])
    }

    /// Turns a finished operation into its completion.
    #[must_use]
    pub fn complete(self, outcome: Outcome) -> Completion {
        Completion { token: self.token, kind: self.kind, outcome, buffer: self.buffer }
    }
}

/// Bytes moved, which may be fewer than asked for, or the device's error.
pub type Outcome = io::Result<usize>;

/// The end of an operation. The buffer comes back with it.
#[derive(Debug)]
pub struct Completion {
    /// From the operation.
    pub token: u64,
    /// From the operation.
    pub kind: Kind,
    /// What happened.
    pub outcome: Outcome,
    /// The buffer of a read or write.
    pub buffer: Option<Buffer>,
}

/// A device with a submission and a completion side. Used by one thread.
pub trait BlockDevice: fmt::Debug {
    /// Size of the device.
    fn capacity(&self) -> ByteCount;

    /// Operations it holds at most.
    fn depth(&self) -> usize;

    /// Operations submitted and not yet reaped.
    fn in_flight(&self) -> usize;

    /// Takes an operation. It need not start before the next [`Self::wait`].
    ///
    /// # Errors
    /// Gives the operation back when `depth` are in flight.
    fn submit(&mut self, operation: Operation) -> Result<(), Operation>;

    /// Starts what was submitted and appends completions to `completions`. Returns once at least one came,
    /// the waker was used, or `timeout` is over; with a timeout of zero it only polls. May return early.
    ///
    /// # Errors
    /// When the device can no longer be used at all.
    fn wait(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()>;

    /// Ends a [`Self::wait`], from any thread.
    fn waker(&self) -> Waker;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BufferPool;

    fn buffer(len: usize) -> Buffer {
        BufferPool::new(ByteCount::mib(2)).unwrap().try_acquire(len).unwrap()
    }

    #[test]
    #[should_panic(expected = "not on a sector")]
    fn unaligned_offsets_are_a_bug() {
        let _ = Operation::read(1, 512, buffer(4096), 0, 4096);
    }

    #[test]
    #[should_panic(expected = "outside the buffer's frame")]
    fn ranges_past_the_frame_are_a_bug() {
        let _ = Operation::write(1, 0, buffer(4096), 4096, 8192);
    }
}
