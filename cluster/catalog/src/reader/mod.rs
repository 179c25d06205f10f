//! Reading the catalog from blocking threads while the machine writes it.
//!
//! A read sees every entry applied before it began, from one transaction. Connections are few per
//! partition ([`crate::sqlite::Pool`]), so a read waits when all are busy; it never waits for the writer.

mod list;
mod objects;
mod stripes;
mod uploads;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_model::{BucketId, DatabaseId, PartitionId, TenantId, UnixMillis};
use parking_lot::RwLock;
use rusqlite::{OptionalExtension, Transaction, params};

pub use list::{ListPage, ListQuery, ListedObject};
pub use objects::{ObjectHead, ObjectRow, PartContent};
pub use stripes::{GarbageCursor, GarbageRow, KnownStripe, ShardOnDrive};
pub use uploads::{PartRow, UploadRow};

use crate::{
    digest,
    partition::{Identity, Partition, read_identity},
    sqlite::Pool,
};

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// This replica does not host the partition.
    #[error("partition {0} is not hosted by this replica")]
    NoSuchPartition(PartitionId),
    /// No bucket of that name.
    #[error("no such bucket")]
    NoSuchBucket,
    /// No object at that key.
    #[error("no such key")]
    NoSuchKey,
    /// No such upload of that key.
    #[error("no such upload")]
    NoSuchUpload,
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
    pool: Pool,
}

/// Reads all partitions of one group's replica.
#[derive(Debug, Clone)]
pub struct CatalogReader {
    hosted: Arc<RwLock<Hosted>>,
}

impl CatalogReader {
    pub(crate) fn new(hosted: Hosted) -> Self {
        Self { hosted: Arc::new(RwLock::new(hosted)) }
    }

    pub(crate) fn source(partition: &Partition) -> Arc<Source> {
        Arc::new(Source { identity: partition.identity(), pool: Pool::new(partition.path()) })
    }

    pub(crate) fn host(&self, partition: &Partition) {
        self.hosted.write().insert(partition.identity().partition, Self::source(partition));
    }

    pub(crate) fn replace(&self, hosted: Hosted) {
        *self.hosted.write() = hosted;
    }

    /// The partitions hosted now, in order.
    #[must_use]
    pub fn partitions(&self) -> Vec<Identity> {
        self.hosted.read().values().map(|source| source.identity).collect()
    }

    /// A handle for reading one partition. Take a new one for each request: a handle goes on showing
    /// the state it was made for when a snapshot is installed.
    ///
    /// # Errors
    /// [`ReadError::NoSuchPartition`].
    pub fn partition(&self, partition: PartitionId) -> Result<PartitionReader, ReadError> {
        let source = self.hosted.read().get(&partition).cloned();
        source.map(|source| PartitionReader { source }).ok_or(ReadError::NoSuchPartition(partition))
    }
}

/// Reads one partition.
#[derive(Debug, Clone)]
pub struct PartitionReader {
    source: Arc<Source>,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its id.
    pub id: BucketId,
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: UnixMillis,
    /// Exact counts of what it holds.
    pub usage: Usage,
}

/// Exact counts, kept with every write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects.
    pub objects: u64,
    /// Bytes of their plaintext.
    pub bytes: u64,
    /// Multipart uploads in progress.
    pub uploads: u64,
    /// Bytes of plaintext of their parts.
    pub upload_bytes: u64,
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

    /// Runs `read` in one read transaction.
    fn read<T>(&self, read: impl FnOnce(&Transaction<'_>) -> Result<T, Stop>) -> Result<T, ReadError> {
        let outcome = self.source.pool.get().map_err(Stop::Sql).and_then(|mut connection| {
            let transaction = connection.transaction()?;
            let value = read(&transaction)?;
            transaction.finish()?;
            Ok(value)
        });
        outcome.map_err(|stop| match stop {
            Stop::Sql(source) => ReadError::Storage { path: self.source.pool.path().to_owned(), source },
            Stop::Answer(error) => error,
        })
    }

    /// A bucket by name.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::Storage`].
    pub fn get_bucket(&self, name: &str) -> Result<Bucket, ReadError> {
        self.read(|db| {
            let sql = format!("SELECT {BUCKET_COLUMNS} FROM buckets WHERE name = ?1");
            let found = db.prepare_cached(&sql)?.query_row(params![name], bucket_from).optional()?;
            found.ok_or(Stop::Answer(ReadError::NoSuchBucket))
        })
    }

    /// All buckets in the order of their names.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn list_buckets(&self) -> Result<Vec<Bucket>, ReadError> {
        self.read(|db| {
            let sql = format!("SELECT {BUCKET_COLUMNS} FROM buckets ORDER BY name");
            Ok(db.prepare_cached(&sql)?.query_map([], bucket_from)?.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Exact counts of the partition.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn usage(&self) -> Result<Usage, ReadError> {
        self.read(|db| {
            let sql = "SELECT coalesce(sum(objects), 0), coalesce(sum(bytes), 0),
                              coalesce(sum(uploads), 0), coalesce(sum(upload_bytes), 0) FROM buckets";
            Ok(db.prepare_cached(sql)?.query_row([], |row| usage_from(row, 0))?)
        })
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

const BUCKET_COLUMNS: &str = "id, name, created, objects, bytes, uploads, upload_bytes";

fn bucket_from(row: &rusqlite::Row<'_>) -> rusqlite::Result<Bucket> {
    Ok(Bucket {
        id: BucketId::from_bytes(row.get(0)?),
        name: row.get(1)?,
        created: time_from(row, 2)?,
        usage: usage_from(row, 3)?,
    })
}

fn usage_from(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Usage> {
    Ok(Usage {
        objects: count_from(row, first)?,
        bytes: count_from(row, first + 1)?,
        uploads: count_from(row, first + 2)?,
        upload_bytes: count_from(row, first + 3)?,
    })
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
        self.source.pool.path()
    }
}
