//! Doing operations on a device one batch at a time, for mount, format and probe, which have nothing
//! else to do meanwhile. The engine proper never blocks like this.

use std::{
    io,
    time::{Duration, Instant},
};

use holdfast_model::limits::SECTOR_SIZE;
use holdfast_ring::{BlockDevice, Buffer, BufferPool, Completion, Kind, Operation};

/// Largest transfer in bytes of what is no record: tables, scans, zeros.
pub(crate) const TRANSFER_SIZE_MAX: usize = holdfast_model::limits::SHARD_SIZE_MAX;

/// Momentary refusals and short counts of one operation before it counts as failed.
pub(crate) const RETRIES_MAX: u32 = 16;

/// Whether to try again: the kernel had no memory for a moment, or a signal came between.
pub(crate) fn is_momentary(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR))
}

/// An operation of a mount, probe or format that has not come back after this long will not.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// How long to wait before looking at the time.
const PATIENCE: Duration = Duration::from_secs(1);

/// A device with the buffers for blocking work on it.
#[derive(Debug)]
pub(crate) struct Blocking<'a, D> {
    pub(crate) device: &'a mut D,
    pub(crate) pool: &'a BufferPool,
    /// Every operation has its own, so that one that comes back too late is not taken for another.
    next_token: u64,
}

impl<'a, D: BlockDevice> Blocking<'a, D> {
    pub(crate) fn new(device: &'a mut D, pool: &'a BufferPool) -> Self {
        Self { device, pool, next_token: 0 }
    }

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
        self.one(Operation::flush(0))?.outcome.map(drop)
    }

    /// Reads many ranges (offset, length) with several in flight; hands each to `each` as it comes, in any order.
    pub(crate) fn read_many(
        &mut self,
        ranges: &[(u64, usize)],
        each: impl FnMut(usize, io::Result<Buffer>),
    ) -> io::Result<()> {
        self.many(Kind::Read, ranges, each)
    }

    /// Writes zeros to many ranges (offset, length) with several in flight.
    pub(crate) fn zero_many(&mut self, ranges: &[(u64, usize)]) -> io::Result<()> {
        let mut failed = Ok(());
        self.many(Kind::Write, ranges, |_, result| {
            if let Err(error) = result {
                failed = Err(error);
            }
        })?;
        failed
    }

    fn many(
        &mut self,
        kind: Kind,
        ranges: &[(u64, usize)],
        mut each: impl FnMut(usize, io::Result<Buffer>),
    ) -> io::Result<()> {
        let first = self.next_token;
        self.next_token += ranges.len() as u64;
        let (mut next, mut pending) = (0, 0);
        // Cut short or refused for a moment: done again, one by one.
        let mut again = Vec::new();
        let mut completions = Vec::new();
        while next < ranges.len() || pending > 0 {
            while let Some(&(offset, length)) = ranges.get(next) {
                let Some(mut buffer) = self.pool.try_acquire(length - SECTOR_SIZE) else { break };
                let token = first + next as u64;
                let operation = if kind == Kind::Read {
                    Operation::read(token, offset, buffer, 0, length)
                } else {
                    buffer.framed_mut().fill(0);
                    Operation::write(token, offset, buffer, 0, length)
                };
                if self.device.submit(operation).is_err() {
                    break;
                }
                pending += 1;
                next += 1;
            }
            if pending == 0 {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.wait(&mut completions)?;
            for Completion { token, outcome, buffer, .. } in completions.drain(..) {
                let number = token.checked_sub(first).and_then(|n| usize::try_from(n).ok());
                let Some(number) = number.filter(|n| *n < ranges.len()) else { continue };
                pending -= 1;
                match (outcome, buffer) {
                    (Ok(count), Some(buffer)) if count == ranges[number].1 => each(number, Ok(buffer)),
                    (Err(error), _) if !is_momentary(&error) => each(number, Err(error)),
                    (_, Some(buffer)) => again.push((number, buffer)),
                    (_, None) => return Err(io::Error::other("the device kept the buffer")),
                }
            }
        }
        for (number, buffer) in again {
            each(number, self.run(kind, ranges[number].0, buffer));
        }
        Ok(())
    }

    fn run(&mut self, kind: Kind, offset: u64, mut buffer: Buffer) -> io::Result<Buffer> {
        let length = buffer.framed_len();
        let (mut done, mut refused) = (0, 0);
        while done < length {
            let operation = match kind {
                Kind::Read => Operation::read(0, offset + done as u64, buffer, done, length - done),
                _ => Operation::write(0, offset + done as u64, buffer, done, length - done),
            };
            let completion = self.one(operation)?;
            buffer = completion.buffer.ok_or_else(|| io::Error::other("the device kept the buffer"))?;
            let before = done;
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
            refused = if done > before { 0 } else { refused + 1 };
            if refused > RETRIES_MAX {
                return Err(io::Error::other("the device keeps refusing for a moment"));
            }
        }
        Ok(buffer)
    }

    fn one(&mut self, operation: Operation) -> io::Result<Completion> {
        let token = self.next_token;
        self.next_token += 1;
        let operation = operation.with_token(token);
        self.device.submit(operation).map_err(|_| io::Error::other("the device takes no operation"))?;
        let mut completions = Vec::new();
        loop {
            self.wait(&mut completions)?;
            if let Some(completion) = completions.drain(..).find(|completion| completion.token == token) {
                return Ok(completion);
            }
        }
    }

    /// Waits for at least one completion.
    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        let began = Instant::now();
        while completions.is_empty() {
            self.device.wait(Some(PATIENCE), completions)?;
            if completions.is_empty() && began.elapsed() > ANSWER_MAX {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the device does not answer"));
            }
        }
        Ok(())
    }
}
