//! Reading the catalog from blocking threads while the machine writes it.
//!
//! A read sees every entry applied before it began, from one transaction. Connections are few per
//! partition ([`crate::sqlite::Pool`]), so a read waits when all are busy; it never waits for the writer.

mod buckets;
mod contents;
mod events;
mod layout;
mod list;
mod merge;
mod objects;
mod scan;
mod stripes;
mod uploads;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_model::{BucketId, DatabaseId, DriveId, PartitionId, TenantId, UnixMillis};
use parking_lot::RwLock;
use rusqlite::{OptionalExtension, Transaction, params};

pub use buckets::{Bucket, Document, Usage};
pub use contents::{ContentBody, ContentCursor, StripedContent};
pub use events::{EventQueue, EventQueues, QueuedEvent};
pub use layout::Layout;
pub use list::{ListPage, ListQuery, ListedObject};
pub use objects::{ObjectHead, ObjectPartRow, ObjectPartsPage, ObjectRow, PartContent};
pub use stripes::{GarbageCursor, GarbageRow, KnownStripe, ShardOnDrive};
pub use uploads::{LIST_UPLOADS_MAX, PartRow, UploadPage, UploadQuery, UploadRow};
pub use versions::{ListedVersion, Locked, VersionMarker, VersionPage, VersionQuery};

use crate::{
    digest, key_file,
    partition::{Identity, Partition, file_name, read_identity},
    placements::{Placed, Placements},
    response::VersionRef,
    sqlite::{Pool, copy_database, io_error},
    state_digest::{StateDigest, StateDigests},
};

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// This replica does not host the partition.
    #[error("partition {0} is not hosted by this replica")]
    NoSuchPartition(PartitionId),
    /// The tenant's key is not on this node.
    #[error("partition {0} is locked: the tenant's key is not on this node")]
    Locked(PartitionId),
    /// Another partition of the tenant holds the key.
    #[error("another partition holds the key")]
    Moved,
    /// No bucket of that name.
    #[error("no such bucket")]
    NoSuchBucket,
    /// No object at that key.
    #[error("no such key")]
    NoSuchKey,
    /// No version of that id.
    #[error("no such version")]
    NoSuchVersion,
    /// A delete marker is there instead of an object.
    #[error("a delete marker is there")]
    DeleteMarker {
        /// The marker.
        version: VersionRef,
        /// When it was made.
        modified: UnixMillis,
        /// The marker was asked for by its id; otherwise it is what is current.
        named: bool,
    },
    /// No such upload of that key.
    #[error("no such upload")]
    NoSuchUpload,
    /// The bucket has no such document.
    #[error("no such document")]
    NoSuchDocument,
    /// The file could not be read.
    #[error("reading {path}")]
    Storage {
        /// The partition's file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

pub(crate) type Hosted = BTreeMap<PartitionId, Arc<Source>>;

#[derive(Debug)]
pub(crate) struct Source {
    identity: Identity,
    /// `None` while the partition is locked.
    pool: Option<Pool>,
}

/// Reads all partitions of one group's replica.
#[derive(Debug, Clone)]
pub struct CatalogReader {
    hosted: Arc<RwLock<Hosted>>,
    digests: StateDigests,
    placements: Placements,
}

impl CatalogReader {
    pub(crate) fn new(hosted: Hosted, digests: StateDigests) -> Self {
        Self { hosted: Arc::new(RwLock::new(hosted)), digests, placements: Placements::default() }
    }

    /// The latest digests of this replica's whole state, oldest first: replicas take them after the same
    /// entries.
    #[must_use]
    pub fn state_digests(&self) -> Vec<StateDigest> {
        self.digests.latest()
    }

    pub(crate) fn source(partition: &Partition) -> Arc<Source> {
        let pool = Pool::new(partition.path(), partition.form().clone());
        Arc::new(Source { identity: partition.identity(), pool: Some(pool) })
    }

    pub(crate) fn locked(identity: Identity) -> Arc<Source> {
        Arc::new(Source { identity, pool: None })
    }

    pub(crate) fn host(&self, partition: &Partition) {
        self.hosted.write().insert(partition.identity().partition, Self::source(partition));
    }

    pub(crate) fn drop_partition(&self, partition: PartitionId) {
        self.hosted.write().remove(&partition);
    }

    pub(crate) fn replace(&self, hosted: Hosted) {
        *self.hosted.write() = hosted;
        self.placements.replace();
    }

    pub(crate) fn placed(&self, placed: Placed) {
        self.placements.add(placed);
    }

    /// A number that is larger than before whenever a shard was placed on one of `drives` meanwhile: what a
    /// read shows of them may then be new. Compares only with earlier answers for the same drives.
    #[must_use]
    pub fn placements_on(&self, drives: &BTreeSet<DriveId>) -> u64 {
        self.placements.on(drives)
    }

    /// The partitions hosted now, locked ones included, in order.
    #[must_use]
    pub fn partitions(&self) -> Vec<Identity> {
        self.hosted.read().values().map(|source| source.identity).collect()
    }

    /// Whose a partition is and which database; known also while it is locked.
    #[must_use]
    pub fn identity(&self, partition: PartitionId) -> Option<Identity> {
        self.hosted.read().get(&partition).map(|source| source.identity)
    }

    /// A handle for reading one partition. Take a new one for each request: a handle goes on showing
    /// the state it was made for when a snapshot is installed.
    ///
    /// # Errors
    /// [`ReadError::NoSuchPartition`], [`ReadError::Locked`].
    pub fn partition(&self, partition: PartitionId) -> Result<PartitionReader, ReadError> {
        let source = self.hosted.read().get(&partition).cloned();
        let source = source.ok_or(ReadError::NoSuchPartition(partition))?;
        if source.pool.is_none() {
            return Err(ReadError::Locked(partition));
        }
        Ok(PartitionReader { source })
    }
}

/// Reads one partition.
#[derive(Debug, Clone)]
pub struct PartitionReader {
    source: Arc<Source>,
}

/// The logical state of a partition, for comparing replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// The partition.
    pub partition: PartitionId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which database.
    pub database_id: DatabaseId,
    /// Log entries below this index are applied. Digests compare at equal indices only.
    pub next_index: u64,
    /// SHA-256 over every row.
    pub sha256: [u8; 32],
}

impl PartitionReader {
    /// Which database this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.source.identity
    }

    fn pool(&self) -> &Pool {
        self.source.pool.as_ref().expect("handles are given out for partitions that are open")
    }

    /// Runs `read` in one read transaction.
    fn read<T>(&self, read: impl FnOnce(&Transaction<'_>) -> Result<T, Stop>) -> Result<T, ReadError> {
        let outcome = self.pool().get().map_err(Stop::Sql).and_then(|mut connection| {
            let transaction = connection.transaction()?;
            let value = read(&transaction)?;
            transaction.finish()?;
            Ok(value)
        });
        outcome.map_err(|stop| match stop {
            Stop::Sql(source) => ReadError::Storage { path: self.pool().path().to_owned(), source },
            Stop::Answer(error) => error,
        })
    }

    /// Copies the partition's file, as of one moment and sealed as it is, and its key file into the
    /// directory `dir`. Blocks nobody. Returns the names of both.
    ///
    /// # Errors
    /// I/O.
    pub fn copy_to(&self, dir: &Path) -> io::Result<[String; 2]> {
        let pool = self.pool();
        let wrap = |e: rusqlite::Error| io_error("copying", pool.path(), &e);
        let partition = self.source.identity.partition;
        let names = [key_file::file_name(partition), file_name(partition)];
        // A key file that is replaced meanwhile holds the same key.
        std::fs::copy(pool.path().with_file_name(&names[0]), dir.join(&names[0]))?;
        let mut connection = pool.get().map_err(wrap)?;
        let transaction = connection.transaction().map_err(wrap)?;
        // The first read fixes the moment that the transaction shows.
        read_identity(&transaction).map_err(wrap)?;
        copy_database(&transaction, &dir.join(&names[1]), pool.form())?;
        transaction.finish().map_err(wrap)?;
        Ok(names)
    }

    /// A digest of every row, from one read transaction. Reads the whole file.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn digest(&self) -> Result<Digest, ReadError> {
        self.read(|db| {
            let (identity, next_index) =
                read_identity(db)?.ok_or(Stop::Sql(rusqlite::Error::QueryReturnedNoRows))?;
            let sha256 = digest::of_tables(db, digest::PARTITION_TABLES)?;
            let Identity { partition, tenant, database_id } = identity;
            Ok(Digest { partition, tenant, database_id, next_index, sha256 })
        })
    }
}

/// Why a read inside its transaction ends early.
pub(crate) enum Stop {
    Sql(rusqlite::Error),
    Answer(ReadError),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

fn count_from(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn time_from(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<UnixMillis> {
    count_from(row, column).map(UnixMillis::new)
}

/// The number and id of a bucket.
fn bucket_number(db: &Transaction<'_>, name: &str) -> Result<(i64, BucketId), Stop> {
    db.prepare_cached("SELECT no, id FROM buckets WHERE name = ?1")?
        .query_row(params![name], |row| Ok((row.get(0)?, BucketId::from_bytes(row.get(1)?))))
        .optional()?
        .ok_or(Stop::Answer(ReadError::NoSuchBucket))
}

/// The file of a partition, for tests that damage it.
impl PartitionReader {
    /// Where the partition's file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.pool().path()
    }
}
