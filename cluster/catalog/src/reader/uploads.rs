//! Multipart uploads and their parts.

use bytes::Bytes;
use holdfast_model::{UnixMillis, UploadId, limits::PART_NUMBER_MAX};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{
    PartitionReader, ReadError, Stop, bucket_number, count_from,
    layout::{Keys, expect_key},
    scan::{Window, successor},
    time_from,
};
use crate::{
    command::decode,
    hash_range::HashRange,
    protect::ObjectExtras,
    rows::{key_from, malformed},
};

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
    /// Kept for the object.
    pub extras: ObjectExtras,
}

/// Which uploads to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadQuery<'a> {
    /// Only keys that begin so.
    pub prefix: &'a str,
    /// Roll keys up at this string. Empty: like none.
    pub delimiter: Option<&'a str>,
    /// Only what comes after this key or common prefix; with an upload, after that upload of the key.
    pub after: Option<(&'a str, Option<UploadId>)>,
    /// Uploads and common prefixes at most, cut to [`LIST_UPLOADS_MAX`].
    pub limit: usize,
}

/// One page of uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadPage {
    /// In the order of (key, upload). Ids of uploads are time-ordered.
    pub uploads: Vec<UploadRow>,
    /// Rolled-up prefixes in order, delimiter included.
    pub common_prefixes: Vec<String>,
    /// Where the next page starts, when there is more.
    pub next: Option<(String, Option<UploadId>)>,
    /// The keys that were looked through.
    pub range: HashRange,
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

    /// One page of the uploads in progress in a bucket.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::Storage`].
    pub fn list_uploads(&self, bucket: &str, query: &UploadQuery<'_>) -> Result<UploadPage, ReadError> {
        self.read(|db| {
            let (bucket, _) = bucket_number(db, bucket)?;
            let keys = Keys::of(db)?;
            let mut page = UploadPage { range: keys.range, ..UploadPage::default() };
            let limit = query.limit.min(LIST_UPLOADS_MAX);
            if limit == 0 {
                return Ok(page);
            }
            let window = Window::new(query.prefix, query.delimiter);
            let end = window.end();
            let bound = if end.is_some() { "key < ?3" } else { "?3 IS NULL" };
            let mut statement = db.prepare_cached(&format!(
                "SELECT {UPLOAD_COLUMNS} FROM uploads WHERE bucket = ?1 AND (key, id) > (?2, ?5) AND {bound}
                 ORDER BY key, id LIMIT ?4"
            ))?;
            let mut last = query.after.map(|(key, upload)| (key.to_owned(), upload));
            let inside = query.after.and_then(|(key, upload)| Some((key, upload?)));
            let inside =
                inside.filter(|(key, _)| key.starts_with(query.prefix) && window.rolled_up(key).is_none());
            let mut from = match inside {
                Some((key, upload)) => Some((key.as_bytes().to_vec(), upload.as_bytes().to_vec())),
                None => window.start(query.after.map(|(key, _)| key), false).map(|key| (key, Vec::new())),
            };
            while let Some((key, upload)) = from.take() {
                let left = keys.limit(limit - page.uploads.len() - page.common_prefixes.len() + 1);
                let mut rows = statement.query(params![bucket, key, end, left, upload])?;
                while let Some(row) = rows.next()? {
                    let key = key_from(row, 0)?;
                    if keys.hides(&key) {
                        continue;
                    }
                    if page.uploads.len() + page.common_prefixes.len() == limit {
                        page.next = last;
                        return Ok(page);
                    }
                    if let Some(prefix) = window.rolled_up(&key) {
                        from = successor(prefix.as_bytes()).map(|key| (key, Vec::new()));
                        last = Some((prefix.to_owned(), None));
                        page.common_prefixes.push(prefix.to_owned());
                        break;
                    }
                    let upload = upload_from(row)?;
                    last = Some((key, Some(upload.upload)));
                    page.uploads.push(upload);
                }
            }
            Ok(page)
        })
    }
}

const UPLOAD_COLUMNS: &str = "key, id, initiated, attributes, extras";

fn find(db: &Transaction<'_>, bucket: &str, key: &str, upload: UploadId) -> Result<UploadRow, Stop> {
    expect_key(db, key)?;
    let (bucket, _) = bucket_number(db, bucket)?;
    db.prepare_cached(&format!(
        "SELECT {UPLOAD_COLUMNS} FROM uploads WHERE bucket = ?1 AND key = ?2 AND id = ?3"
    ))?
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
        extras: decode(row.get_ref(4)?.as_blob()?).map_err(|_| malformed(4, "extras of an upload"))?,
    })
}
