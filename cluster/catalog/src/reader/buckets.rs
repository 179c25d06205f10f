//! Buckets with their settings, documents and counters.

use bytes::Bytes;
use holdfast_model::{BucketId, UnixMillis};
use rusqlite::{OptionalExtension, Row, params};

use super::{PartitionReader, ReadError, Stop, bucket_number, count_from, time_from};
use crate::{
    apply::{BUCKET_ROW_COLUMNS, bucket_row},
    protect::DefaultRetention,
    settings::{DocumentKind, Quota, Versioning},
    used::{Limits, Used},
};

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
    /// Whether it keeps what is overwritten and deleted.
    pub versioning: Versioning,
    /// Whether objects in it can be locked.
    pub object_lock: bool,
    /// What new objects are retained by when they do not say.
    pub retention: Option<DefaultRetention>,
    /// What it may hold.
    pub quota: Quota,
    /// It is being deleted by who knows this token.
    pub closed: Option<[u8; 16]>,
}

/// Exact counts, kept with every write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Current objects.
    pub objects: u64,
    /// Bytes of their plaintext.
    pub bytes: u64,
    /// Noncurrent versions and delete markers.
    pub old_versions: u64,
    /// Bytes of their plaintext.
    pub old_bytes: u64,
    /// Multipart uploads in progress.
    pub uploads: u64,
    /// Bytes of plaintext of their parts.
    pub upload_bytes: u64,
}

/// A named document of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Tells several of a kind apart.
    pub id: String,
    /// When it was stored.
    pub changed: UnixMillis,
    /// The document.
    pub body: Bytes,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.objects += more.objects;
        self.bytes += more.bytes;
        self.old_versions += more.old_versions;
        self.old_bytes += more.old_bytes;
        self.uploads += more.uploads;
        self.upload_bytes += more.upload_bytes;
    }
}

impl From<Used> for Usage {
    fn from(used: Used) -> Self {
        Self {
            objects: used.objects.cast_unsigned(),
            bytes: used.bytes.cast_unsigned(),
            old_versions: used.old_versions.cast_unsigned(),
            old_bytes: used.old_bytes.cast_unsigned(),
            uploads: used.uploads.cast_unsigned(),
            upload_bytes: used.upload_bytes.cast_unsigned(),
        }
    }
}

impl PartitionReader {
    /// A bucket by name.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::Storage`].
    pub fn get_bucket(&self, name: &str) -> Result<Bucket, ReadError> {
        self.read(|db| {
            let sql = format!("SELECT id, name, created, {BUCKET_ROW_COLUMNS} FROM buckets WHERE name = ?1");
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
            let sql = format!("SELECT id, name, created, {BUCKET_ROW_COLUMNS} FROM buckets ORDER BY name");
            Ok(db.prepare_cached(&sql)?.query_map([], bucket_from)?.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// A document of a bucket.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::NoSuchDocument`], [`ReadError::Storage`].
    pub fn document(&self, bucket: &str, kind: DocumentKind, id: &str) -> Result<Document, ReadError> {
        let found = self.documents(bucket, kind)?.into_iter().find(|document| document.id == id);
        found.ok_or(ReadError::NoSuchDocument)
    }

    /// All documents of one kind, in the order of their ids.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::Storage`].
    pub fn documents(&self, bucket: &str, kind: DocumentKind) -> Result<Vec<Document>, ReadError> {
        self.read(|db| {
            let (bucket, _) = bucket_number(db, bucket)?;
            Ok(db
                .prepare_cached(
                    "SELECT id, changed, body FROM documents WHERE bucket = ?1 AND kind = ?2 ORDER BY id",
                )?
                .query_map(params![bucket, kind.column()], |row| {
                    Ok(Document {
                        id: row.get(0)?,
                        changed: time_from(row, 1)?,
                        body: row.get::<_, Vec<u8>>(2)?.into(),
                    })
                })?
                .collect::<rusqlite::Result<_>>()?)
        })
    }

    /// A bucket and its documents of these kinds, as of one moment. Those with an id of their own are left out.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::Storage`].
    pub fn bucket_with(
        &self,
        name: &str,
        kinds: &[DocumentKind],
    ) -> Result<(Bucket, Vec<(DocumentKind, Bytes)>), ReadError> {
        self.read(|db| {
            let sql = format!("SELECT id, name, created, {BUCKET_ROW_COLUMNS} FROM buckets WHERE name = ?1");
            let found = db
                .prepare_cached(&sql)?
                .query_row(params![name], |row| Ok((row.get::<_, i64>("no")?, bucket_from(row)?)))
                .optional()?;
            let (no, bucket) = found.ok_or(Stop::Answer(ReadError::NoSuchBucket))?;
            let rows = db
                .prepare_cached("SELECT kind, body FROM documents WHERE bucket = ?1 AND id = ''")?
                .query_map(params![no], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let wanted = rows.into_iter().filter_map(|(column, body)| {
                let kind = kinds.iter().find(|kind| kind.column() == column)?;
                Some((*kind, Bytes::from(body)))
            });
            Ok((bucket, wanted.collect()))
        })
    }

    /// The document of one kind, with an empty id, of every bucket that has it: by the buckets' names.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn documents_of_all(&self, kind: DocumentKind) -> Result<Vec<(String, Bytes)>, ReadError> {
        self.read(|db| {
            Ok(db
                .prepare_cached(
                    "SELECT b.name, d.body FROM documents d JOIN buckets b ON b.no = d.bucket
                     WHERE d.kind = ?1 AND d.id = '' ORDER BY b.name",
                )?
                .query_map(params![kind.column()], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?.into())))?
                .collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Buckets that have documents of one kind, whatever their ids, by name.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn buckets_with(&self, kind: DocumentKind) -> Result<Vec<String>, ReadError> {
        self.read(|db| {
            Ok(db
                .prepare_cached(
                    "SELECT DISTINCT b.name FROM documents d JOIN buckets b ON b.no = d.bucket
                     WHERE d.kind = ?1 ORDER BY b.name",
                )?
                .query_map(params![kind.column()], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Exact counts of the partition.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn usage(&self) -> Result<Usage, ReadError> {
        self.read(|db| {
            let sum = |column| format!("coalesce(sum({column}), 0)");
            let columns =
                ["objects", "bytes", "old_versions", "old_bytes", "uploads", "upload_bytes"].map(sum);
            let sql = format!("SELECT {} FROM buckets", columns.join(", "));
            Ok(db.prepare_cached(&sql)?.query_row([], |row| {
                Ok(Usage {
                    objects: count_from(row, 0)?,
                    bytes: count_from(row, 1)?,
                    old_versions: count_from(row, 2)?,
                    old_bytes: count_from(row, 3)?,
                    uploads: count_from(row, 4)?,
                    upload_bytes: count_from(row, 5)?,
                })
            })?)
        })
    }

    /// What the partition may hold.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn quota(&self) -> Result<Quota, ReadError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT quota_versions, quota_bytes FROM meta")?;
            Ok(statement
                .query_row([], |row| Ok(Limits { versions: row.get(0)?, bytes: row.get(1)? }.quota()))?)
        })
    }

    /// The partition's clock: the greatest time of any command. Retentions end by it.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn clock(&self) -> Result<UnixMillis, ReadError> {
        self.read(|db| {
            Ok(db.prepare_cached("SELECT clock FROM meta")?.query_row([], |row| time_from(row, 0))?)
        })
    }
}

fn bucket_from(row: &Row<'_>) -> rusqlite::Result<Bucket> {
    let of_writer = bucket_row(row, 3)?;
    Ok(Bucket {
        id: BucketId::from_bytes(row.get(0)?),
        name: row.get(1)?,
        created: time_from(row, 2)?,
        usage: of_writer.used.into(),
        versioning: of_writer.versioning,
        object_lock: of_writer.object_lock,
        retention: of_writer.retention,
        quota: of_writer.quota.quota(),
        closed: of_writer.closed,
    })
}
