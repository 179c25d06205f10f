//! One object with all that is needed to read its bytes, from one read transaction.

use std::ops::Range;

use bytes::Bytes;
use holdfast_model::{BucketId, UnixMillis, UploadId, VersionId};
use rusqlite::{OptionalExtension, Transaction, params};

use super::{PartitionReader, ReadError, Stop, bucket_number, count_from, time_from};
use crate::{
    body::BodyRef,
    rows::{STRIPE_COLUMNS, stripe_from},
};

/// An object without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// The bucket it is in.
    pub bucket: BucketId,
    /// The version.
    pub version: VersionId,
    /// Bytes of plaintext.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// When it was stored.
    pub modified: UnixMillis,
    /// Opaque here.
    pub attributes: Bytes,
    /// The multipart upload that made it.
    pub upload: Option<UploadId>,
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
    /// An object without its content.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::NoSuchKey`], [`ReadError::Storage`].
    pub fn head_object(&self, bucket: &str, key: &str) -> Result<ObjectHead, ReadError> {
        self.read(|db| Ok(find(db, bucket, key)?.0))
    }

    /// An object with its whole content.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::NoSuchKey`], [`ReadError::Storage`].
    pub fn get_object(&self, bucket: &str, key: &str) -> Result<ObjectRow, ReadError> {
        self.get_object_range(bucket, key, |head| 0..head.size)
    }

    /// An object with the parts and stripes that hold a range of its bytes, chosen by `select` when the
    /// object is known. A large object is read in windows this way, with bounded memory.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::NoSuchKey`], [`ReadError::Storage`].
    pub fn get_object_range(
        &self,
        bucket: &str,
        key: &str,
        select: impl FnOnce(&ObjectHead) -> Range<u64>,
    ) -> Result<ObjectRow, ReadError> {
        self.read(|db| {
            let (head, content) = find(db, bucket, key)?;
            let range = select(&head);
            let parts = match content {
                0 => parts_of(db, head.version, &range)?,
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

fn find(db: &Transaction<'_>, bucket: &str, key: &str) -> Result<(ObjectHead, i64), Stop> {
    let (no, bucket) = bucket_number(db, bucket)?;
    db.prepare_cached(
        "SELECT version, size, modified, content, etag, upload, attributes FROM objects WHERE bucket = ?1 AND key = ?2",
    )?
    .query_row(params![no, key.as_bytes()], |row| {
        let head = ObjectHead {
            bucket,
            version: VersionId::from_bytes(row.get(0)?),
            size: count_from(row, 1)?,
            modified: time_from(row, 2)?,
            etag: row.get(4)?,
            upload: row.get::<_, Option<_>>(5)?.map(UploadId::from_bytes),
            attributes: row.get::<_, Vec<u8>>(6)?.into(),
        };
        Ok((head, row.get(3)?))
    })
    .optional()?
    .ok_or(Stop::Answer(ReadError::NoSuchKey))
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
