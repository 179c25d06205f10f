//! Listing current objects.

use bytes::Bytes;
use holdfast_model::{UnixMillis, VersionId, limits::LIST_KEYS_MAX};
use rusqlite::params;

use super::{PartitionReader, ReadError, bucket_number, count_from, layout::Keys, scan::Window, time_from};
use crate::{hash_range::HashRange, rows::key_from};

/// What to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery<'a> {
    /// Only keys that begin so.
    pub prefix: &'a str,
    /// Roll keys up at this string. Empty: like none.
    pub delimiter: Option<&'a str>,
    /// Only keys and common prefixes after this one.
    pub after: Option<&'a str>,
    /// Objects and common prefixes at most, cut to `LIST_KEYS_MAX`.
    pub limit: usize,
}

/// One page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Objects in order.
    pub objects: Vec<ListedObject>,
    /// Rolled-up prefixes in order, delimiter included.
    pub common_prefixes: Vec<String>,
    /// `after` of the next page, when there is more.
    pub next: Option<String>,
    /// The keys that were looked through.
    pub range: HashRange,
}

/// An object as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The key.
    pub key: String,
    /// The version.
    pub version: VersionId,
    /// Bytes of plaintext.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// When it was stored.
    pub modified: UnixMillis,
    /// Attributes, as they were given.
    pub attributes: Bytes,
}

const COLUMNS: &str = "key, version, size, etag, modified, attributes";

impl PartitionReader {
    /// One page of a bucket.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::Storage`].
    pub fn list(&self, bucket: &str, query: &ListQuery<'_>) -> Result<ListPage, ReadError> {
        self.read(|db| {
            let (bucket, _) = bucket_number(db, bucket)?;
            let keys = Keys::of(db)?;
            let mut page = ListPage { range: keys.range, ..ListPage::default() };
            let limit = query.limit.min(LIST_KEYS_MAX);
            if limit == 0 {
                return Ok(page);
            }
            let window = Window::new(query.prefix, query.delimiter);
            let end = window.end();
            let bound = if end.is_some() { "key < ?3" } else { "?3 IS NULL" };
            let sql = format!(
                "SELECT {COLUMNS} FROM objects WHERE bucket = ?1 AND key >= ?2 AND {bound} ORDER BY key LIMIT ?4"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let mut last = query.after.map(str::to_owned);
            let mut from = window.start(query.after, false);
            while let Some(seek) = from.take() {
                // One more than fits, to know whether there is a next page.
                let left = keys.limit(limit - page.objects.len() - page.common_prefixes.len() + 1);
                let mut rows = statement.query(params![bucket, seek, end, left])?;
                while let Some(row) = rows.next()? {
                    let key = key_from(row, 0)?;
                    if keys.hides(&key) {
                        continue;
                    }
                    if page.objects.len() + page.common_prefixes.len() == limit {
                        page.next = last;
                        return Ok(page);
                    }
                    if let Some(prefix) = window.rolled_up(&key) {
                        from = super::scan::successor(prefix.as_bytes());
                        last = Some(prefix.to_owned());
                        page.common_prefixes.push(prefix.to_owned());
                        break;
                    }
                    page.objects.push(ListedObject {
                        version: VersionId::from_bytes(row.get(1)?),
                        size: count_from(row, 2)?,
                        etag: row.get(3)?,
                        modified: time_from(row, 4)?,
                        attributes: row.get::<_, Vec<u8>>(5)?.into(),
                        key: key.clone(),
                    });
                    last = Some(key);
                }
            }
            Ok(page)
        })
    }
}
