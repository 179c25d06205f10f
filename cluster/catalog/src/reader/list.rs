//! Listing in the order of S3: by the bytes of the key.
//!
//! Keys that share what stands before the next delimiter are rolled up into one common prefix, and the
//! scan goes on behind all of them by seeking: a page costs the same whether a prefix stands for one key
//! or for a billion.

use holdfast_model::{UnixMillis, VersionId, limits::LIST_KEYS_MAX};
use rusqlite::{Statement, params};

use super::{PartitionReader, ReadError, bucket_number, count_from, time_from};
use crate::rows::key_from;

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
}

const COLUMNS: &str = "key, version, size, etag, modified";

impl PartitionReader {
    /// One page of a bucket.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::Storage`].
    pub fn list(&self, bucket: &str, query: &ListQuery<'_>) -> Result<ListPage, ReadError> {
        self.read(|db| {
            let (bucket, _) = bucket_number(db, bucket)?;
            let mut page = ListPage::default();
            let limit = query.limit.min(LIST_KEYS_MAX);
            if limit > 0 {
                let end = successor(query.prefix.as_bytes());
                let sql = match end {
                    Some(_) => format!(
                        "SELECT {COLUMNS} FROM objects WHERE bucket = ?1 AND key >= ?2 AND key < ?3 ORDER BY key LIMIT ?4"
                    ),
                    None => format!(
                        "SELECT {COLUMNS} FROM objects WHERE bucket = ?1 AND key >= ?2 AND ?3 IS NULL ORDER BY key LIMIT ?4"
                    ),
                };
                let mut scan = Scan { bucket, end, statement: db.prepare_cached(&sql)? };
                fill(&mut scan, query, limit, &mut page)?;
            }
            Ok(page)
        })
    }
}

/// A statement that reads keys from a start to the end of the prefix.
struct Scan<'a> {
    bucket: i64,
    end: Option<Vec<u8>>,
    statement: rusqlite::CachedStatement<'a>,
}

fn fill(
    scan: &mut Scan<'_>,
    query: &ListQuery<'_>,
    limit: usize,
    page: &mut ListPage,
) -> rusqlite::Result<()> {
    let delimiter = query.delimiter.filter(|d| !d.is_empty());
    let mut last = query.after.map(str::to_owned);
    let mut from = Some(start(query, delimiter));
    while let Some(seek) = from.take() {
        let statement: &mut Statement<'_> = &mut scan.statement;
        // One more than fits, to know whether there is a next page.
        let left = limit - page.objects.len() - page.common_prefixes.len() + 1;
        let mut rows = statement.query(params![scan.bucket, seek, scan.end, left as i64])?;
        while let Some(row) = rows.next()? {
            let key = key_from(row, 0)?;
            let full = page.objects.len() + page.common_prefixes.len() == limit;
            let rolled = delimiter.and_then(|d| rolled_up(&key, query.prefix, d));
            if full {
                page.next = last;
                return Ok(());
            }
            if let Some(prefix) = rolled {
                from = successor(prefix.as_bytes());
                last = Some(prefix.to_owned());
                page.common_prefixes.push(prefix.to_owned());
                break;
            }
            page.objects.push(ListedObject {
                version: VersionId::from_bytes(row.get(1)?),
                size: count_from(row, 2)?,
                etag: row.get(3)?,
                modified: time_from(row, 4)?,
                key: key.clone(),
            });
            last = Some(key);
        }
    }
    Ok(())
}

/// The first key that a page may show.
fn start(query: &ListQuery<'_>, delimiter: Option<&str>) -> Vec<u8> {
    let prefix = query.prefix.as_bytes();
    let Some(after) = query.after.filter(|after| after.as_bytes() >= prefix) else { return prefix.to_vec() };
    // What is rolled up into a prefix at or before `after` has been shown.
    if let Some(rolled) = delimiter.and_then(|d| rolled_up(after, query.prefix, d))
        && let Some(behind) = successor(rolled.as_bytes())
    {
        return behind;
    }
    // The least key greater than `after`: itself and a zero byte.
    [after.as_bytes(), &[0]].concat()
}

/// The common prefix that `key` is shown as, delimiter included.
fn rolled_up<'k>(key: &'k str, prefix: &str, delimiter: &str) -> Option<&'k str> {
    let rest = key.strip_prefix(prefix)?;
    let at = rest.find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

/// The least byte string greater than every string that begins with `prefix`. `None` when there is none.
pub(super) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut next = prefix[..=kept].to_vec();
    next[kept] += 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successors_are_the_least_bound() {
        assert_eq!(successor(b"a/").unwrap(), b"a0");
        assert_eq!(successor(&[b'a', 255, 255]).unwrap(), b"b");
        assert_eq!(successor(&[]), None);
        assert_eq!(successor(&[255]), None);
    }
}
