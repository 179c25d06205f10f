//! One object with all that is needed to read its bytes, from one read transaction.

use std::ops::Range;

use bytes::Bytes;
use holdfast_model::{BucketId, UnixMillis, UploadId, VersionId};
use rusqlite::{OptionalExtension, Transaction, params};

use super::{PartitionReader, ReadError, Stop, count_from, layout::expect_key, time_from};
use crate::{
    apply::rank,
    body::BodyRef,
    command::VersionSelector,
    protect::{Flags, Retention},
    response::VersionRef,
    rows::{STRIPE_COLUMNS, malformed, stripe_from},
    settings::Versioning,
};

/// An object without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// The bucket it is in.
    pub bucket: BucketId,
    /// The version.
    pub version: VersionRef,
    /// Bytes of plaintext.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// When it was stored.
    pub modified: UnixMillis,
    /// Opaque here.
    pub attributes: Bytes,
    /// Opaque here; empty is none.
    pub tags: Bytes,
    /// Opaque here; empty is none.
    pub acl: Bytes,
    /// What keeps it from being deleted for a time. May have ended.
    pub retention: Option<Retention>,
    /// What keeps it from being deleted until it is lifted.
    pub legal_hold: bool,
    /// A legal hold is or was set, or was lifted.
    pub hold_known: bool,
    /// The multipart upload that made it.
    pub upload: Option<UploadId>,
    /// Versioning of the bucket.
    pub versioning: Versioning,
}

/// Parts of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPartsPage {
    /// The version they are of.
    pub version: VersionRef,
    /// How many it has; 0 when it was put whole.
    pub count: usize,
    /// Those asked for, in the order of their numbers.
    pub parts: Vec<ObjectPartRow>,
}

/// One part of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPartRow {
    /// The number it was uploaded as.
    pub number: u32,
    /// Where it begins in the object, in bytes.
    pub offset: u64,
    /// Bytes of plaintext.
    pub size: u64,
    /// Opaque here.
    pub checksums: Bytes,
}

/// An object with where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRow {
    /// The object.
    pub head: ObjectHead,
    /// Its parts in order: one for an object that was put whole.
    pub content: Vec<PartContent>,
}

/// A run of bytes of an object under one wrapped key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartContent {
    /// Number of the part it was uploaded as; 0 when the object was put whole.
    pub number: u32,
    /// Where it begins in the object, in bytes.
    pub offset: u64,
    /// Bytes of plaintext in it.
    pub size: u64,
    /// Its key, wrapped. Opaque here.
    pub wrapped_key: Bytes,
    /// Where its bytes are. When only a range of the object was asked for: the stripes that hold it.
    pub body: BodyRef,
    /// Bytes of the part before the first stripe in `body`.
    pub skipped: u64,
}

impl PartitionReader {
    /// An object without its content: the current one, or a version.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::NoSuchKey`], [`ReadError::NoSuchVersion`],
    /// [`ReadError::DeleteMarker`], [`ReadError::Storage`].
    pub fn head_object(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
    ) -> Result<ObjectHead, ReadError> {
        self.read(|db| Ok(find(db, bucket, key, version)?.0))
    }

    /// Parts of an object with numbers above `after`, `limit` at most.
    ///
    /// # Errors
    /// As [`PartitionReader::head_object`].
    pub fn object_parts(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
        after: u32,
        limit: usize,
    ) -> Result<ObjectPartsPage, ReadError> {
        self.read(|db| {
            let version = find(db, bucket, key, version)?.0.version;
            let id = version.id.as_bytes();
            let count: i64 = db
                .prepare_cached("SELECT count(*) FROM object_parts WHERE version = ?1")?
                .query_row(params![id], |row| row.get(0))?;
            // Numbers ascend with the offsets, which are the key of the table.
            let parts = db
                .prepare_cached(
                    "SELECT number, start, size, checksums FROM object_parts
                     WHERE version = ?1 AND number > ?2 ORDER BY start LIMIT ?3",
                )?
                .query_map(params![id, after, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                    Ok(ObjectPartRow {
                        number: row.get(0)?,
                        offset: count_from(row, 1)?,
                        size: count_from(row, 2)?,
                        checksums: row.get::<_, Vec<u8>>(3)?.into(),
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(ObjectPartsPage { version, count: usize::try_from(count).unwrap_or(0), parts })
        })
    }

    /// An object with its whole content.
    ///
    /// # Errors
    /// As [`PartitionReader::head_object`].
    pub fn get_object(&self, bucket: &str, key: &str) -> Result<ObjectRow, ReadError> {
        self.get_object_range(bucket, key, None, |head| 0..head.size)
    }

    /// An object with the parts and stripes that hold a range of its bytes, chosen by `select` when the
    /// object is known. A large object is read in windows this way, with bounded memory.
    ///
    /// # Errors
    /// As [`PartitionReader::head_object`].
    pub fn get_object_range(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
        select: impl FnOnce(&ObjectHead) -> Range<u64>,
    ) -> Result<ObjectRow, ReadError> {
        self.read(|db| {
            let (head, content) = find(db, bucket, key, version)?;
            let range = select(&head);
            let parts = match content {
                0 => parts_of(db, head.version.id, &range)?,
                content => vec![(0, 0, content)],
            };
            let mut found = Vec::with_capacity(parts.len());
            for (number, offset, content) in parts {
                found.push(content_of(db, number, offset, content, &range)?);
            }
            Ok(ObjectRow { head, content: found })
        })
    }
}

const HEAD_COLUMNS: &str =
    "version, size, modified, content, flags, etag, retain_until, upload, tags, acl, attributes";

/// A row of either table: the object, whether it is a delete marker, its content number.
fn head_from(
    row: &rusqlite::Row<'_>,
    (bucket, versioning): (BucketId, Versioning),
) -> rusqlite::Result<(ObjectHead, bool, i64)> {
    let flags = Flags(row.get(4)?);
    let blob = |column| row.get::<_, Option<Vec<u8>>>(column).map(|b| Bytes::from(b.unwrap_or_default()));
    let head = ObjectHead {
        bucket,
        version: VersionRef { id: VersionId::from_bytes(row.get(0)?), null: flags.has(Flags::NULL) },
        size: count_from(row, 1)?,
        modified: time_from(row, 2)?,
        etag: row.get(5)?,
        retention: flags.retention(row.get(6)?),
        legal_hold: flags.legal_hold(),
        hold_known: flags.hold_known(),
        upload: row.get::<_, Option<_>>(7)?.map(UploadId::from_bytes),
        tags: blob(8)?,
        acl: blob(9)?,
        attributes: row.get::<_, Vec<u8>>(10)?.into(),
        versioning,
    };
    Ok((head, flags.has(Flags::MARKER), row.get(3)?))
}

/// The number, id and versioning of a bucket.
fn bucket_versioning(db: &Transaction<'_>, name: &str) -> Result<(i64, (BucketId, Versioning)), Stop> {
    db.prepare_cached("SELECT no, id, versioning FROM buckets WHERE name = ?1")?
        .query_row(params![name], |row| {
            let versioning =
                Versioning::from_column(row.get(2)?).ok_or_else(|| malformed(2, "versioning of a bucket"))?;
            Ok((row.get(0)?, (BucketId::from_bytes(row.get(1)?), versioning)))
        })
        .optional()?
        .ok_or(Stop::Answer(ReadError::NoSuchBucket))
}

fn find(
    db: &Transaction<'_>,
    bucket: &str,
    key: &str,
    version: Option<VersionSelector>,
) -> Result<(ObjectHead, i64), Stop> {
    expect_key(db, key)?;
    let (no, bucket) = bucket_versioning(db, bucket)?;
    let query = |table: &str, rest: &str, rank: Option<[u8; VersionId::SIZE]>| {
        let sql = format!(
            "SELECT {HEAD_COLUMNS} FROM {table} WHERE bucket = ?1 AND key = ?2 AND (?3 IS NULL OR 1) {rest}"
        );
        let mut statement = db.prepare_cached(&sql)?;
        statement.query_row(params![no, key.as_bytes(), rank], |row| head_from(row, bucket)).optional()
    };
    let current = query("objects", "", None)?;
    let found = match (version, current) {
        (None, Some(current)) => Some(current),
        (None, None) => {
            // A delete marker may stand before what there is.
            let newest = query("versions", "ORDER BY rank LIMIT 1", None)?;
            return Err(Stop::Answer(match newest {
                Some((head, true, _)) => {
                    ReadError::DeleteMarker { version: head.version, modified: head.modified, named: false }
                }
                _ => ReadError::NoSuchKey,
            }));
        }
        (Some(VersionSelector::Null), Some(current)) if current.0.version.null => Some(current),
        (Some(VersionSelector::Null), _) => query("versions", "AND flags & 1", None)?,
        (Some(VersionSelector::Id(id)), Some(current)) if current.0.version.id == id => Some(current),
        (Some(VersionSelector::Id(id)), _) => query("versions", "AND rank = ?3", Some(rank(id)))?,
    };
    let named = |head: &ObjectHead| match version {
        Some(VersionSelector::Id(_)) => !head.version.null,
        _ => true,
    };
    match found.filter(|(head, _, _)| named(head)) {
        None => Err(Stop::Answer(ReadError::NoSuchVersion)),
        Some((head, true, _)) => Err(Stop::Answer(ReadError::DeleteMarker {
            version: head.version,
            modified: head.modified,
            named: true,
        })),
        Some((head, false, content)) => Ok((head, content)),
    }
}

/// Number, offset and content of the parts that hold `range`.
fn parts_of(
    db: &Transaction<'_>,
    version: VersionId,
    range: &Range<u64>,
) -> rusqlite::Result<Vec<(u32, u64, i64)>> {
    db.prepare_cached(
        "SELECT number, start, content FROM object_parts
         WHERE version = ?1 AND start < ?3
           AND start >= coalesce((SELECT max(start) FROM object_parts WHERE version = ?1 AND start <= ?2), 0)
         ORDER BY start",
    )?
    .query_map(params![version.as_bytes(), range.start.cast_signed(), range.end.cast_signed()], |row| {
        Ok((row.get(0)?, count_from(row, 1)?, row.get(2)?))
    })?
    .collect()
}

fn content_of(
    db: &Transaction<'_>,
    number: u32,
    offset: u64,
    content: i64,
    range: &Range<u64>,
) -> rusqlite::Result<PartContent> {
    let (size, wrapped_key, inline): (u64, Vec<u8>, Option<Vec<u8>>) = db
        .prepare_cached("SELECT size, wrapped_key, inline FROM contents WHERE no = ?1")?
        .query_row(params![content], |row| Ok((count_from(row, 0)?, row.get(1)?, row.get(2)?)))?;
    let mut part = PartContent {
        number,
        offset,
        size,
        wrapped_key: wrapped_key.into(),
        body: BodyRef::Stripes(Vec::new()),
        skipped: 0,
    };
    if let Some(sealed) = inline {
        part.body = BodyRef::Inline(sealed.into());
        return Ok(part);
    }
    let first = range.start.saturating_sub(offset);
    let end = range.end.saturating_sub(offset);
    let mut statement = db.prepare_cached(&format!(
        "SELECT start, {STRIPE_COLUMNS} FROM stripes
         WHERE content = ?1 AND start < ?3
           AND start >= coalesce((SELECT max(start) FROM stripes WHERE content = ?1 AND start <= ?2), 0)
         ORDER BY start"
    ))?;
    let mut rows = statement.query(params![content, first.cast_signed(), end.cast_signed()])?;
    let mut stripes = Vec::new();
    while let Some(row) = rows.next()? {
        if stripes.is_empty() {
            part.skipped = count_from(row, 0)?;
        }
        stripes.push(stripe_from(row, 1)?);
    }
    part.body = BodyRef::Stripes(stripes);
    Ok(part)
}
