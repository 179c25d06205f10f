//! What a group replicates: a deterministic state machine, seen from the log.
//!
//! The log is the truth between checkpoints. [`StateMachine::apply`] may leave its work in caches;
//! [`StateMachine::checkpoint`] makes all of it durable together with the position, and only what a
//! checkpoint covers may be cut from the log. After a restart the group replays from the last
//! checkpoint, so a machine skips what one of its files already holds.

use std::{io, path::Path};

use bytes::Bytes;

/// One log entry's commands, in order. Many proposals share one entry.
#[derive(Debug, Clone)]
pub struct Applied<'a> {
    /// Raft log index of the entry.
    pub index: u64,
    /// Encoded commands of the entry. Empty for blank and membership entries.
    pub commands: &'a [Bytes],
}

/// A flush of a machine's files failed: what is on the disk is unknown, and what reads back may be in memory only. To be
/// found in the [`io::Error`] of a machine that can tell.
#[derive(Debug, thiserror::Error)]
#[error("a flush failed, and what the files hold on the disk is unknown: {0}")]
pub struct FlushFailed(pub String);

impl FlushFailed {
    /// Whether `error` is one.
    #[must_use]
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// A deterministic state machine. Called by one thread at a time, in log order.
pub trait StateMachine: Send + 'static {
    /// Applies entries in order; returns one encoded response per command, in the same order.
    ///
    /// The outcome may depend on nothing but earlier commands: no clock, no randomness, no iteration
    /// order. A command that is refused (a condition that does not hold, say) is a response, not an error.
    ///
    /// # Errors
    /// I/O of the machine's own files. The group stops: a replica that cannot apply must not answer.
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>>;

    /// Makes everything applied so far durable, then stores `position` durably.
    ///
    /// # Errors
    /// As for [`StateMachine::apply`]; [`FlushFailed`]: the same files must not be tried again as if they were as they read.
    fn checkpoint(&mut self, position: &[u8]) -> io::Result<()>;

    /// The position stored by the last checkpoint or installed snapshot; `None` for a new machine.
    fn position(&self) -> Option<Vec<u8>>;

    /// Writes a consistent image of the state to the new file `path` and flushes it.
    ///
    /// # Errors
    /// As for [`StateMachine::apply`].
    fn snapshot(&mut self, path: &Path) -> io::Result<()>;

    /// Replaces the whole state by the image at `path` and stores `position`, durably and all or nothing.
    ///
    /// # Errors
    /// A damaged image (`InvalidData`) leaves the old state in place.
    fn install(&mut self, path: &Path, position: &[u8]) -> io::Result<()>;

    /// Puts the whole state aside and begins with none: it is not what the other replicas have. Called while
    /// the group does not run.
    ///
    /// # Errors
    /// I/O; `Unsupported` by machines that cannot.
    fn discard(&mut self) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this state cannot be discarded"))
    }
}
