//! Digests of a group's whole state, taken at the same log entries on every replica, so that replicas can be
//! compared.
//!
//! Which entries is decided by the entries' indices and the size of the state, which replicas share; a replica
//! that is still busy with one digest leaves out the next. The state is read by connections that stay at the
//! moment of their entry, on a thread of its own: applying waits only until they are there.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use crate::{
    digest::{PARTITION_TABLES, of_tables},
    partition::{Identity, MIGRATIONS, Partition, read_identity},
    sqlite::{io_error, open_reader},
};

/// Entries between two digests at least. A power of two.
pub const DIGEST_ENTRIES_MIN: u64 = 512;

/// Rows per entry between two digests: the larger the state, the rarer it is read.
const ROWS_PER_ENTRY: u64 = 16;

/// Bytes of objects for which a row is expected: a stripe has about ten, and holds 1 MiB or more of what is large.
const BYTES_PER_ROW: u64 = 128 * 1024;

/// Version of a partition's tables.
const SCHEMA: u32 = MIGRATIONS.len() as u32;

/// Digests that are remembered.
const KEPT: usize = 8;

const _: () = assert!(DIGEST_ENTRIES_MIN.is_power_of_two());

/// The state of a group after one log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateDigest {
    /// Index of the entry.
    pub index: u64,
    /// Version of the tables: digests compare only between equal ones.
    pub schema: u32,
    /// SHA-256 over every row of every partition.
    pub sha256: [u8; 32],
}

/// The latest digests of a group on this node. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct StateDigests {
    latest: Arc<Mutex<VecDeque<StateDigest>>>,
    busy: Arc<AtomicBool>,
}

/// Whether replicas that hold about so many rows take a digest after entry `index`.
fn is_due(index: u64, rows: u64) -> bool {
    let interval = (rows / ROWS_PER_ENTRY).next_power_of_two().max(DIGEST_ENTRIES_MIN);
    index.is_multiple_of(interval)
}

impl StateDigests {
    /// The latest, oldest first.
    pub(crate) fn latest(&self) -> Vec<StateDigest> {
        self.latest.lock().iter().copied().collect()
    }

    /// The state was replaced.
    pub(crate) fn clear(&self) {
        self.latest.lock().clear();
    }

    /// Whether a digest may be due after entry `index`, before anything is looked up for it.
    pub(crate) fn may_be_due(index: u64) -> bool {
        index.is_multiple_of(DIGEST_ENTRIES_MIN)
    }

    /// Takes a digest after entry `index` if it is due and the state is that of this entry. `partitions` are all of the group, with everything
    /// up to that entry committed and nothing after it begun.
    pub(crate) fn take<'a>(
        &self,
        index: u64,
        partitions: impl Iterator<Item = &'a Partition> + Clone,
    ) -> io::Result<()> {
        let mut rows = 0;
        for partition in partitions.clone() {
            // The entry is replayed, and the file is ahead of it: this is not the state after it.
            if partition.next_index() > index + 1 {
                return Ok(());
            }
            let size = partition.size()?;
            rows += size.versions + size.bytes / BYTES_PER_ROW;
        }
        if !is_due(index, rows) || self.busy.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let mut moments = Vec::new();
        for partition in partitions {
            moments.push(Moment::of(partition).inspect_err(|_| self.busy.store(false, Ordering::Release))?);
        }
        let (latest, busy) = (Arc::clone(&self.latest), Arc::clone(&self.busy));
        let hashing = move || {
            let begun = Instant::now();
            match digest(&moments) {
                Ok(sha256) => {
                    let mut latest = latest.lock();
                    if latest.len() == KEPT {
                        latest.pop_front();
                    }
                    latest.push_back(StateDigest { index, schema: SCHEMA, sha256 });
                    tracing::debug!(index, rows, took = ?begun.elapsed(), "digest of the catalog's state");
                }
                Err(error) => tracing::error!(%error, index, "no digest of the catalog's state"),
            }
            busy.store(false, Ordering::Release);
        };
        holdfast_background::spawn("catalog-digest", hashing)
    }
}

/// A partition as it was after an entry.
struct Moment {
    identity: Identity,
    connection: Connection,
    path: std::path::PathBuf,
}

impl Moment {
    fn of(partition: &Partition) -> io::Result<Self> {
        let path = partition.path().to_owned();
        let wrap = |e: rusqlite::Error| io_error("reading", &path, &e);
        let connection = open_reader(&path, partition.form()).map_err(wrap)?;
        connection.execute_batch("BEGIN").map_err(wrap)?;
        // The first read fixes the moment.
        read_identity(&connection).map_err(wrap)?;
        Ok(Self { identity: partition.identity(), connection, path })
    }
}

fn digest(moments: &[Moment]) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    for moment in moments {
        let rows = of_tables(&moment.connection, PARTITION_TABLES)
            .map_err(|e| io_error("reading", &moment.path, &e))?;
        hash.update(moment.identity.partition.get().to_le_bytes());
        hash.update(rows);
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_rarer_the_more_there_is_to_read() {
        let due = |rows| (1..=1 << 20u64).filter(|index| is_due(*index, rows)).count() as u64;
        assert_eq!(due(0), (1 << 20) / DIGEST_ENTRIES_MIN);
        assert_eq!(due(10_000_000), 1);
        // What is due is among what is looked at.
        assert!((0..5000).all(|index| !is_due(index, 100_000) || StateDigests::may_be_due(index)));
    }
}
