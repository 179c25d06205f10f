//! Doing operations on a device one batch at a time, for mount, format and probe, which have nothing
//! else to do meanwhile. The engine proper never blocks like this.

use std::io;

use holdfast_model::limits::SECTOR_SIZE;
use holdfast_ring::{BlockDevice, Buffer, BufferPool, Completion, Kind, Operation};

/// Largest transfer in bytes: what the largest buffer's frame holds without its headroom.
pub(crate) const TRANSFER_SIZE_MAX: usize = holdfast_model::limits::SHARD_SIZE_MAX;

/// Momentary refusals and short counts of one operation before it counts as failed.
pub(crate) const RETRIES_MAX: u32 = 16;

/// Whether to try again: the kernel had no memory for a moment, or a signal came between.
pub(crate) fn is_momentary(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR))
}

/// A device with the buffers for blocking work on it.
#[derive(Debug)]
pub(crate) struct Blocking<'a, D> {
    pub(crate) device: &'a mut D,
    pub(crate) pool: &'a BufferPool,
}

impl<D: BlockDevice> Blocking<'_, D> {
    /// A buffer whose frame is `length` bytes long.
    pub(crate) fn frame(&self, length: usize) -> io::Result<Buffer> {
        self.pool.try_acquire(length - SECTOR_SIZE).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Reads `length` bytes (whole sectors, at most one transfer and one sector) into the frame of a buffer.
    pub(crate) fn read(&mut self, offset: u64, length: usize) -> io::Result<Buffer> {
        let buffer = self.frame(length)?;
        self.run(Kind::Read, offset, buffer)
    }

    /// Writes the frame of `buffer`.
    pub(crate) fn write(&mut self, offset: u64, buffer: Buffer) -> io::Result<Buffer> {
        self.run(Kind::Write, offset, buffer)
    }

    /// Flushes everything written before.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let completion = self.one(Operation::flush(0))?;
        completion.outcome.map(drop)
    }

    /// Reads many ranges (offset, length) with several in flight; hands each to `each` as it comes, in any order.
    pub(crate) fn read_many(
        &mut self,
        ranges: &[(u64, usize)],
        mut each: impl FnMut(usize, io::Result<Buffer>),
    ) -> io::Result<()> {
        let (mut next, mut pending) = (0, 0);
        // Cut short or refused for a moment: read again, one by one.
        let mut again = Vec::new();
        let mut completions = Vec::new();
        while next < ranges.len() || pending > 0 {
            while let Some(&(offset, length)) = ranges.get(next) {
                let Some(buffer) = self.pool.try_acquire(length - SECTOR_SIZE) else { break };
                if self.device.submit(Operation::read(next as u64, offset, buffer, 0, length)).is_err() {
                    break;
                }
                pending += 1;
                next += 1;
            }
            if pending == 0 {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.device.wait(None, &mut completions)?;
            for Completion { token, outcome, buffer, .. } in completions.drain(..) {
                pending -= 1;
                let number = usize::try_from(token).expect("tokens are positions in the list");
                match (outcome, buffer) {
                    (Ok(count), Some(buffer)) if count == ranges[number].1 => each(number, Ok(buffer)),
                    (Err(error), _) if !is_momentary(&error) => each(number, Err(error)),
                    _ => again.push(number),
                }
            }
        }
        for number in again {
            let (offset, length) = ranges[number];
            each(number, self.read(offset, length));
        }
        Ok(())
    }

    fn run(&mut self, kind: Kind, offset: u64, mut buffer: Buffer) -> io::Result<Buffer> {
        let length = buffer.framed_len();
        let (mut done, mut retries) = (0, 0);
        while done < length {
            let operation = match kind {
                Kind::Read => Operation::read(0, offset + done as u64, buffer, done, length - done),
                _ => Operation::write(0, offset + done as u64, buffer, done, length - done),
            };
            let completion = self.one(operation)?;
            buffer = completion.buffer.ok_or_else(|| io::Error::other("the device kept the buffer"))?;
            match completion.outcome {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the device transferred nothing",
                    ));
                }
                Ok(count) => done += count.min(length - done) / SECTOR_SIZE * SECTOR_SIZE,
                Err(error) if is_momentary(&error) => {}
                Err(error) => return Err(error),
            }
            retries += 1;
            if done < length && retries > RETRIES_MAX {
                return Err(io::Error::other("the device keeps cutting the transfer short"));
            }
        }
        Ok(buffer)
    }

    fn one(&mut self, operation: Operation) -> io::Result<Completion> {
        self.device.submit(operation).map_err(|_| io::Error::other("the device takes no operation"))?;
        let mut completions = Vec::new();
        while completions.is_empty() {
            self.device.wait(None, &mut completions)?;
        }
        completions.pop().ok_or_else(|| io::Error::other("no completion"))
    }
}
