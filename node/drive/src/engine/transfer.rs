//! Judging a transfer that came back: whole, to be gone on with, or failed.

use std::io;

use holdfast_model::limits::SECTOR_SIZE;

use crate::blocking::{RETRIES_MAX, is_momentary};

/// What to do with an operation after its completion.
pub(super) enum Progress {
    Done,
    /// Bytes done so far; go on from there.
    Again(usize),
    Failed(io::Error),
}

/// Judges a transfer of `length` bytes of which `done` were done before this completion.
pub(super) fn progress(
    outcome: io::Result<usize>,
    done: usize,
    length: usize,
    retries: &mut u32,
) -> Progress {
    let now_done = match outcome {
        Ok(0) => {
            return Progress::Failed(io::Error::new(io::ErrorKind::UnexpectedEof, "it transferred nothing"));
        }
        Ok(count) if done + count >= length => return Progress::Done,
        // A short count may end inside a sector; direct I/O goes on at the sector's start.
        Ok(count) => done + count / SECTOR_SIZE * SECTOR_SIZE,
        Err(error) if is_momentary(&error) => done,
        Err(error) => return Progress::Failed(error),
    };
    // Only what brings it no further is counted.
    *retries = if now_done > done { 0 } else { *retries + 1 };
    if *retries > RETRIES_MAX {
        return Progress::Failed(io::Error::other("it keeps refusing for a moment"));
    }
    Progress::Again(now_done)
}
