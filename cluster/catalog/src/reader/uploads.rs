//! Multipart uploads and their parts.

use bytes::Bytes;
use holdfast_model::{UnixMillis, UploadId, limits::PART_NUMBER_MAX};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{PartitionReader, ReadError, Stop, bucket_number, count_from, list::successor, time_from};
use crate::rows::key_from;

/// Uploads of one page at most.
pub const LIST_UPLOADS_MAX: usize = 1000;

/// An upload in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRow {
    /// Key of the object to be.
    pub key: String,
    /// The upload.
    pub upload: UploadId,
    /// When it was created.
    pub initiated: UnixMillis,
    /// Opaque here.
    pub attributes: Bytes,
}

/// A part that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRow {
    /// 1 to 10,000.
    pub number: u32,
    /// Bytes of plaintext.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// When it was stored.
    pub modified: UnixMillis,
    /// Opaque here.
    pub checksums: Bytes,
}

impl PartitionReader {
    /// An upload.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::NoSuchUpload`], [`ReadError::Storage`].
    pub fn get_upload(&self, bucket: &str, key: &str, upload: UploadId) -> Result<UploadRow, ReadError> {
        self.read(|db| find(db, bucket, key, upload))
    }

    /// An upload and its parts with numbers above `after`, in order.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::NoSuchUpload`], [`ReadError::Storage`].
    pub fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        after: u32,
        limit: usize,
    ) -> Result<(UploadRow, Vec<PartRow>), ReadError> {
        self.read(|db| {
            let row = find(db, bucket, key, upload)?;
            let limit = limit.min(PART_NUMBER_MAX as usize) as i64;
            let parts = db
                .prepare_cached(
                    "SELECT number, size, etag, modified, checksums FROM upload_parts
                     WHERE upload = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
                )?
                .query_map(params![upload.as_bytes(), after, limit], |row| {
                    Ok(PartRow {
                        number: row.get(0)?,
                        size: count_from(row, 1)?,
                        etag: row.get(2)?,
                        modified: time_from(row, 3)?,
                        checksums: row.get::<_, Vec<u8>>(4)?.into(),
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok((row, parts))
        })
    }

    /// Uploads in the order of (key, upload), after the given one.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::Storage`].
    pub fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(&str, UploadId)>,
        limit: usize,
    ) -> Result<Vec<UploadRow>, ReadError> {
        self.read(|db| {
            let (bucket, _) = bucket_number(db, bucket)?;
            let end = successor(prefix.as_bytes());
            let (after_key, after_upload) = after.unwrap_or(("", UploadId::from_bytes([0; 16])));
            let limit = limit.min(LIST_UPLOADS_MAX) as i64;
            let mut statement = db.prepare_cached(
                "SELECT key, id, initiated, attributes FROM uploads
                 WHERE bucket = ?1 AND key >= max(?2, ?4) AND (?3 IS NULL OR key < ?3) AND (key, id) > (?4, ?5)
                 ORDER BY key, id LIMIT ?6",
            )?;
            let values = params![bucket, prefix.as_bytes(), end, after_key.as_bytes(), after_upload.as_bytes(), limit];
            Ok(statement.query_map(values, upload_from)?.collect::<rusqlite::Result<_>>()?)
        })
    }
}

fn find(db: &Transaction<'_>, bucket: &str, key: &str, upload: UploadId) -> Result<UploadRow, Stop> {
    let (bucket, _) = bucket_number(db, bucket)?;
    db.prepare_cached(
        "SELECT key, id, initiated, attributes FROM uploads WHERE bucket = ?1 AND key = ?2 AND id = ?3",
    )?
    .query_row(params![bucket, key.as_bytes(), upload.as_bytes()], upload_from)
    .optional()?
    .ok_or(Stop::Answer(ReadError::NoSuchUpload))
}

fn upload_from(row: &Row<'_>) -> rusqlite::Result<UploadRow> {
    Ok(UploadRow {
        key: key_from(row, 0)?,
        upload: UploadId::from_bytes(row.get(1)?),
        initiated: time_from(row, 2)?,
        attributes: row.get::<_, Vec<u8>>(3)?.into(),
    })
}
