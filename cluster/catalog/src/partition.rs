//! One tenant partition's file, open for writing: its identity, its transaction, its counters.
//!
//! Invariants:
//! - the file's `next_index` commits together with the mutations of the entries below it, so an entry is
//!   applied once however often the log is replayed;
//! - a command decides before it mutates: a refusal leaves nothing behind in the transaction;
//! - the file is sealed under a key of its own, which its key file holds wrapped.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_crypt::FileKey;
use holdfast_model::{
    BucketId, DatabaseId, DriveId, PartitionId, TenantId, UnixMillis, limits::PART_SIZE_MIN,
};
use holdfast_sealed_sqlite::SealedFile;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use crate::{
    command::encode,
    events::{Notifications, Origin},
    hash_range::HashRange,
    key_file::KeyFile,
    keys::MetadataSeal,
    placements::Placed,
    sqlite::{self, Durability, FileMark, Form, Migration, io_error},
    used::{BucketRow, Limits, Stored},
};

/// The schema of a partition.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_initial", up: include_str!("../migrations/partition/0001_initial/up.sql") },
    Migration { name: "0002_split", up: include_str!("../migrations/partition/0002_split/up.sql") },
    Migration { name: "0003_events", up: include_str!("../migrations/partition/0003_events/up.sql") },
];

/// Which database a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The partition.
    pub partition: PartitionId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Random, chosen at creation.
    pub database_id: DatabaseId,
}

/// How much a partition holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Versions of objects.
    pub(crate) versions: u64,
    /// Bytes of these and of parts of uploads.
    pub(crate) bytes: u64,
}

/// A partition's file.
pub(crate) struct Partition {
    identity: Identity,
    connection: Connection,
    path: PathBuf,
    form: Form,
    key_file: KeyFile,
    key: Arc<FileKey>,
    /// Entries below this log index are applied and committed.
    next_index: u64,
    /// Changed since the last checkpoint.
    dirty: bool,
    open: Option<Open>,
    /// Committed since it was asked for last.
    placed: Placed,
    /// A split is decided and not done.
    splitting: bool,
    /// Bytes that every part of an upload but its last has at least.
    part_size_min: u64,
    /// The entry with which a simulation emptied it last.
    emptied_at: Option<u64>,
}

/// How far the rows that a split left behind are cleared away: columns of `meta`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clearing {
    /// 0: nothing is left.
    pub(crate) phase: i64,
    pub(crate) bucket: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) rank: Vec<u8>,
    /// When the split was, by the partition's clock.
    pub(crate) split_at: i64,
}

/// A partition that is to be split off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) into: PartitionId,
    pub(crate) database_id: DatabaseId,
}

/// What an open transaction holds in memory until it commits.
#[derive(Default)]
pub(crate) struct Open {
    next_index: u64,
    pub(crate) next_bucket: i64,
    pub(crate) next_content: i64,
    pub(crate) next_stale: i64,
    /// The partition's clock: never goes back.
    pub(crate) clock: i64,
    /// What the partition holds and may hold.
    pub(crate) total: Stored,
    pub(crate) quota: Limits,
    /// Buckets touched. `None`: looked for and not there.
    pub(crate) buckets: HashMap<BucketId, Option<BucketRow>>,
    pub(crate) drives: HashMap<DriveId, i64>,
    /// Shards that it places.
    pub(crate) placed: Placed,
    /// Which sharing of the tenant's quota `quota` is from.
    pub(crate) quota_shares: i64,
    /// A split that is decided and not carried out.
    pub(crate) split: Option<Split>,
    /// Which keys it holds.
    pub(crate) range: HashRange,
    /// How far the rows of other keys are cleared away.
    pub(crate) clearing: Clearing,
    pub(crate) next_event: i64,
    /// Events that wait to be told.
    pub(crate) events: i64,
    /// Events that were given up.
    pub(crate) events_dropped: i64,
    /// What buckets by their numbers ask to be told, as far as it was looked for.
    pub(crate) notifications: HashMap<i64, Option<Arc<Notifications>>>,
}

/// A partition inside its transaction, while one entry is applied: what the commands work on.
pub(crate) struct Writer<'a> {
    pub(crate) partition: PartitionId,
    pub(crate) db: &'a Connection,
    pub(crate) open: &'a mut Open,
    /// The entry's log index.
    pub(crate) index: u64,
    /// The partition's clock as the command sees it.
    pub(crate) now: UnixMillis,
    /// The request that the command comes from; empty when it does not say.
    pub(crate) origin: Origin,
    /// Bytes that every part of an upload but its last has at least.
    pub(crate) part_size_min: u64,
}

/// Name of a partition's file.
pub(crate) fn file_name(partition: PartitionId) -> String {
    format!("{partition}.sqlite")
}

/// The partition whose file has this name.
pub(crate) fn partition_of(name: &str) -> Option<PartitionId> {
    let number = name.strip_prefix('p')?.strip_suffix(".sqlite")?;
    number.parse().ok().map(PartitionId::new).filter(|id| file_name(*id) == name)
}

impl Partition {
    /// Creates the file of a new partition, by a command of entry `index`. What follows in the same entry
    /// is still to be applied.
    pub(crate) fn create(
        dir: &Path,
        identity: Identity,
        index: u64,
        seal: &MetadataSeal,
    ) -> io::Result<Self> {
        let key = Arc::new(FileKey::generate());
        let key_file = KeyFile::wrap(identity, &key, seal);
        key_file.store(dir)?;
        let path = dir.join(file_name(identity.partition));
        let form = Form::Sealed(SealedFile::new(Arc::clone(&key)));
        let connection = sqlite::open_writer(&path, &form, MIGRATIONS, Durability::AtCheckpoint)?;
        insert_meta(&connection, identity, index).map_err(|e| io_error("creating", &path, &e))?;
        Ok(Self {
            identity,
            connection,
            path,
            form,
            key_file,
            key,
            next_index: index,
            dirty: true,
            open: None,
            placed: Placed::default(),
            splitting: false,
            part_size_min: PART_SIZE_MIN,
            emptied_at: None,
        })
    }

    /// Opens an existing file with the key in its key file. `None` when the file was never finished: a crash
    /// came while it was created, so no checkpoint covers it and the log still has the command that makes it.
    pub(crate) fn open(path: &Path, key_file: KeyFile, seal: &MetadataSeal) -> io::Result<Option<Self>> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let key = key_file
            .unwrap(seal)
            .map_err(|error| invalid(format!("the key file of {}: {error}", path.display())))?;
        let form = Form::Sealed(SealedFile::new(Arc::clone(&key)));
        let connection = sqlite::open_writer(path, &form, MIGRATIONS, Durability::AtCheckpoint)?;
        let found = read_identity(&connection).map_err(|e| io_error("reading", path, &e))?;
        let Some((identity, next_index)) = found else { return Ok(None) };
        if identity != key_file.identity {
            return Err(invalid(format!("{} holds partition {}", path.display(), identity.partition)));
        }
        let path = path.to_owned();
        let splitting = connection
            .query_row("SELECT split_into IS NOT NULL FROM meta", [], |row| row.get(0))
            .map_err(|e| io_error("reading", &path, &e))?;
        Ok(Some(Self {
            identity,
            connection,
            path,
            form,
            key_file,
            key,
            next_index,
            dirty: true,
            open: None,
            placed: Placed::default(),
            splitting,
            part_size_min: PART_SIZE_MIN,
            emptied_at: None,
        }))
    }

    /// Empties the file, as if a command of entry `index` had just created it, unless nothing was applied since it was emptied.
    /// Connections and their statements stay.
    pub(crate) fn empty_for_simulation(&mut self, index: u64) -> io::Result<()> {
        self.roll_back();
        if self.emptied_at == Some(self.next_index) {
            return Ok(());
        }
        let (identity, path) = (self.identity, &self.path);
        let mut empty = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut tables =
                transaction.prepare_cached("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
            let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            drop(tables);
            for name in names {
                transaction.prepare_cached(&format!("DELETE FROM {name}"))?.execute([])?;
            }
            insert_meta(&transaction, identity, index)?;
            transaction.commit()?;
            // What comes next is written from the beginning of the write-ahead file.
            self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        };
        empty().map_err(|e| io_error("emptying", path, &e))?;
        (self.next_index, self.dirty, self.splitting) = (index, true, false);
        self.emptied_at = Some(index);
        Ok(())
    }

    /// See [`crate::CatalogMachine::admit_small_parts_for_simulation`].
    pub(crate) fn admit_small_parts_for_simulation(&mut self, part_size_min: u64) {
        self.part_size_min = part_size_min;
    }

    /// A file that a split has made, already named as it will be.
    pub(crate) fn adopt(
        dir: &Path,
        key_file: KeyFile,
        key: Arc<FileKey>,
        next_index: u64,
    ) -> io::Result<Self> {
        let path = dir.join(file_name(key_file.identity.partition));
        let form = Form::Sealed(SealedFile::new(Arc::clone(&key)));
        let connection = sqlite::open_writer(&path, &form, MIGRATIONS, Durability::AtCheckpoint)?;
        let identity = key_file.identity;
        let (open, splitting, part_size_min) = (None, false, PART_SIZE_MIN);
        let dirty = true;
        Ok(Self {
            identity,
            connection,
            path,
            form,
            key_file,
            key,
            next_index,
            dirty,
            open,
            placed: Placed::default(),
            splitting,
            part_size_min,
            emptied_at: None,
        })
    }

    /// A split is decided and not done.
    pub(crate) fn is_splitting(&self) -> bool {
        self.open.as_ref().map_or(self.splitting, |open| open.split.is_some())
    }

    /// The split that is decided and not done, as committed.
    pub(crate) fn decided_split(&self) -> io::Result<Option<Split>> {
        self.connection
            .query_row("SELECT split_into, split_base FROM meta", [], |row| split_from(row, 0))
            .map_err(|e| io_error("reading", &self.path, &e))
    }

    /// Carries on with what entries up to the last applied one came to.
    pub(crate) fn writer_after(&mut self) -> rusqlite::Result<Writer<'_>> {
        self.writer(self.next_index - 1, UnixMillis::new(0))
    }

    /// What is in all its buckets, as committed.
    pub(crate) fn size(&self) -> io::Result<Size> {
        let unsigned = |row: &Row<'_>, at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        self.connection
            .query_row("SELECT versions, bytes FROM meta", [], |row| {
                Ok(Size { versions: unsigned(row, 0)?, bytes: unsigned(row, 1)? })
            })
            .map_err(|e| io_error("reading", &self.path, &e))
    }

    /// What the file's pages are on the disk.
    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// The file with its key, wrapped.
    pub(crate) fn key_path(&self) -> PathBuf {
        self.path.with_file_name(crate::key_file::file_name(self.identity.partition))
    }

    /// Version of the tenant's key that wraps the file's.
    pub(crate) fn key_version(&self) -> u32 {
        self.key_file.key
    }

    /// Wraps the file's key anew; the old form is gone when this returns.
    pub(crate) fn rewrap(&mut self, seal: &MetadataSeal) -> io::Result<()> {
        let key_file = KeyFile::wrap(self.identity, &self.key, seal);
        let dir = self.path.parent().expect("a partition's file is in a directory");
        key_file.store(dir)?;
        self.key_file = key_file;
        Ok(())
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Entries below this log index are applied and committed.
    pub(crate) fn next_index(&self) -> u64 {
        self.next_index
    }

    pub(crate) fn mark(&self) -> FileMark {
        FileMark {
            name: file_name(self.identity.partition),
            database_id: *self.identity.database_id.as_bytes(),
            next_index: self.next_index,
        }
    }

    /// The partition as a command of entry `index`, proposed at `at`, works on it; begins a transaction when
    /// none is open.
    pub(crate) fn writer(&mut self, index: u64, at: UnixMillis) -> rusqlite::Result<Writer<'_>> {
        if self.open.is_none() {
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            self.dirty = true;
            // From here a failure is rolled back.
            self.open = Some(Open::default());
            self.open = Some(read_open(&self.connection)?);
        }
        let open = self.open.as_mut().expect("a transaction was opened above");
        open.next_index = index + 1;
        open.clock = open.clock.max(at.get().cast_signed());
        let now = UnixMillis::new(open.clock.cast_unsigned());
        let (partition, origin) = (self.identity.partition, Origin::default());
        let part_size_min = self.part_size_min;
        Ok(Writer { partition, db: &self.connection, open, index, now, origin, part_size_min })
    }

    /// Commits the open transaction, if any.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        write_back(&self.connection, &open).map_err(|e| {
            // Dropping the connection would roll back too; this frees the lock at once.
            let _ = self.connection.execute_batch("ROLLBACK");
            io_error("committing to", &self.path, &e)
        })?;
        self.next_index = open.next_index;
        self.splitting = open.split.is_some();
        for (drive, shards) in open.placed {
            *self.placed.entry(drive).or_default() += shards;
        }
        Ok(())
    }

    /// The shards that were placed, and committed, since this was asked last.
    pub(crate) fn take_placed(&mut self) -> Placed {
        std::mem::take(&mut self.placed)
    }

    /// Gives up the open transaction, if any.
    pub(crate) fn roll_back(&mut self) {
        if self.open.take().is_some() {
            // A failure leaves the transaction to be rolled back when the file is next opened.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// Makes every commit durable.
    pub(crate) fn checkpoint(&mut self) -> io::Result<()> {
        if self.dirty {
            sqlite::checkpoint(&self.connection, &self.path)?;
            self.dirty = false;
        }
        Ok(())
    }
}

/// The one row of a partition that was created by a command of entry `index`.
fn insert_meta(db: &Connection, identity: Identity, index: u64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO meta (one, partition, tenant, database_id, next_index, clock, next_bucket,
                           next_content, next_stale, versions, bytes)
         VALUES (1, ?1, ?2, ?3, ?4, 0, 1, 1, 1, 0, 0)",
    )?
    .execute(params![
        identity.partition.get().cast_signed(),
        identity.tenant.as_bytes(),
        identity.database_id.as_bytes(),
        index.cast_signed()
    ])?;
    Ok(())
}

/// A split from two columns.
fn split_from(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Split>> {
    let into: Option<i64> = row.get(first)?;
    let database: Option<[u8; DatabaseId::SIZE]> = row.get(first + 1)?;
    Ok(into.zip(database).map(|(into, database)| Split {
        into: PartitionId::new(into.cast_unsigned()),
        database_id: DatabaseId::from_bytes(database),
    }))
}

fn read_open(db: &Connection) -> rusqlite::Result<Open> {
    db.prepare_cached(
        "SELECT next_bucket, next_content, next_stale, clock, versions, bytes, quota_versions, quota_bytes,
                hash_from, hash_until, clearing, clear_bucket, clear_key, clear_rank, split_at, quota_shares,
                split_into, split_base, next_event, events, events_dropped
         FROM meta",
    )?
    .query_row([], |row| {
        Ok(Open {
            next_bucket: row.get(0)?,
            next_content: row.get(1)?,
            next_stale: row.get(2)?,
            clock: row.get(3)?,
            total: Stored { versions: row.get(4)?, bytes: row.get(5)? },
            quota: Limits { versions: row.get(6)?, bytes: row.get(7)? },
            range: HashRange { from: row.get(8)?, until: row.get(9)? },
            clearing: Clearing {
                phase: row.get(10)?,
                bucket: row.get(11)?,
                key: row.get(12)?,
                rank: row.get(13)?,
                split_at: row.get(14)?,
            },
            quota_shares: row.get(15)?,
            split: split_from(row, 16)?,
            next_event: row.get(18)?,
            events: row.get(19)?,
            events_dropped: row.get(20)?,
            ..Open::default()
        })
    })
}

fn write_back(db: &Connection, open: &Open) -> rusqlite::Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE buckets SET objects = ?2, bytes = ?3, old_versions = ?4, old_bytes = ?5, uploads = ?6,
                upload_bytes = ?7, versioning = ?8, object_lock = ?9, retention = ?10, quota_versions = ?11,
                quota_bytes = ?12, closed = ?13
         WHERE no = ?1",
    )?;
    let mut rows: Vec<&BucketRow> = open.buckets.values().flatten().collect();
    rows.sort_by_key(|row| row.no);
    for row in rows {
        update.execute(params![
            row.no,
            row.used.objects,
            row.used.bytes,
            row.used.old_versions,
            row.used.old_bytes,
            row.used.uploads,
            row.used.upload_bytes,
            row.versioning.column(),
            row.object_lock,
            row.retention.as_ref().map(|retention| encode(retention).to_vec()),
            row.quota.versions,
            row.quota.bytes,
            row.closed
        ])?;
    }
    db.prepare_cached(
        "UPDATE meta SET next_index = ?1, next_bucket = ?2, next_content = ?3, next_stale = ?4, clock = ?5,
                versions = ?6, bytes = ?7, quota_versions = ?8, quota_bytes = ?9, hash_from = ?10,
                hash_until = ?11, clearing = ?12, clear_bucket = ?13, clear_key = ?14, clear_rank = ?15,
                split_at = ?16, quota_shares = ?17, split_into = ?18, split_base = ?19, next_event = ?20,
                events = ?21, events_dropped = ?22",
    )?
    .execute(params![
        open.next_index.cast_signed(),
        open.next_bucket,
        open.next_content,
        open.next_stale,
        open.clock,
        open.total.versions,
        open.total.bytes,
        open.quota.versions,
        open.quota.bytes,
        open.range.from,
        open.range.until,
        open.clearing.phase,
        open.clearing.bucket,
        open.clearing.key,
        open.clearing.rank,
        open.clearing.split_at,
        open.quota_shares,
        open.split.map(|split| split.into.get().cast_signed()),
        open.split.map(|split| *split.database_id.as_bytes()),
        open.next_event,
        open.events,
        open.events_dropped
    ])?;
    db.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

/// Identity of the database and the log index below which entries are applied; `None` when it has none yet.
pub(crate) fn read_identity(db: &Connection) -> rusqlite::Result<Option<(Identity, u64)>> {
    db.query_row("SELECT partition, tenant, database_id, next_index FROM meta", [], |row| {
        let identity = Identity {
            partition: PartitionId::new(row.get::<_, i64>(0)?.cast_unsigned()),
            tenant: TenantId::from_bytes(row.get(1)?),
            database_id: DatabaseId::from_bytes(row.get(2)?),
        };
        Ok((identity, row.get::<_, i64>(3)?.cast_unsigned()))
    })
    .optional()
}
