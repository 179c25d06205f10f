//! Listing all versions and delete markers of a bucket: keys in order, each key's versions newest first.
//!
//! Two tables are read side by side: current objects, and everything older. A key costs one step in each,
//! a version one step, a common prefix one seek in each.

use bytes::Bytes;
use holdfast_model::{UnixMillis, VersionId, limits::LIST_KEYS_MAX};
use rusqlite::{Row, Rows, params};

use super::{
    PartitionReader, ReadError, bucket_number, count_from,
    layout::Keys,
    scan::{Window, successor},
    time_from,
};
use crate::{apply::rank, hash_range::HashRange, protect::Flags, response::VersionRef, rows::key_from};

/// What to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionQuery<'a> {
    /// Only keys that begin so.
    pub prefix: &'a str,
    /// Roll keys up at this string. Empty: like none.
    pub delimiter: Option<&'a str>,
    /// Only what comes after this.
    pub after: Option<VersionMarker<'a>>,
    /// Versions and common prefixes at most, cut to `LIST_KEYS_MAX`.
    pub limit: usize,
}

/// A place in the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionMarker<'a> {
    /// A key or a common prefix.
    pub key: &'a str,
    /// A version of it: older ones come next. `None`: the next key comes next. The version need not exist
    /// any more.
    pub version: Option<VersionId>,
}

/// One page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionPage {
    /// Versions and delete markers in order.
    pub versions: Vec<ListedVersion>,
    /// Rolled-up prefixes in order, delimiter included.
    pub common_prefixes: Vec<String>,
    /// Where the next page starts, when there is more: a key or common prefix, and the last version shown.
    pub next: Option<(String, Option<VersionId>)>,
    /// The keys that were looked through.
    pub range: HashRange,
}

/// A version as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVersion {
    /// The key.
    pub key: String,
    /// The version.
    pub version: VersionRef,
    /// It is its key's newest.
    pub latest: bool,
    /// It is a delete marker; size and ETag are empty.
    pub marker: bool,
    /// Bytes of plaintext.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// When it was stored.
    pub modified: UnixMillis,
    /// When a newer version came. `None` for the newest.
    pub noncurrent_since: Option<UnixMillis>,
    /// Tags, as they were given; empty is none.
    pub tags: Bytes,
    /// Attributes, as they were given.
    pub attributes: Bytes,
}

const COLUMNS: &str = "key, version, size, etag, modified, flags, tags, attributes";

/// One of the two tables, read row by row.
struct Side<'s> {
    rows: Rows<'s>,
    head: Option<ListedVersion>,
    current: bool,
    keys: Keys,
}

impl<'s> Side<'s> {
    fn new(rows: Rows<'s>, current: bool, keys: Keys) -> rusqlite::Result<Self> {
        let mut side = Self { rows, head: None, current, keys };
        side.advance()?;
        Ok(side)
    }

    fn advance(&mut self) -> rusqlite::Result<()> {
        let current = self.current;
        self.head = None;
        while let Some(row) = self.rows.next()? {
            let version = listed(row, current)?;
            if !self.keys.hides(&version.key) {
                self.head = Some(version);
                break;
            }
        }
        Ok(())
    }
}

fn listed(row: &Row<'_>, current: bool) -> rusqlite::Result<ListedVersion> {
    let flags = Flags(row.get(5)?);
    Ok(ListedVersion {
        key: key_from(row, 0)?,
        version: VersionRef { id: VersionId::from_bytes(row.get(1)?), null: flags.has(Flags::NULL) },
        latest: current,
        marker: flags.has(Flags::MARKER),
        size: count_from(row, 2)?,
        etag: row.get(3)?,
        modified: time_from(row, 4)?,
        noncurrent_since: if current { None } else { Some(time_from(row, 8)?) },
        tags: row.get::<_, Option<Vec<u8>>>(6)?.unwrap_or_default().into(),
        attributes: row.get::<_, Vec<u8>>(7)?.into(),
    })
}

/// Versions that may not be deleted, whoever asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Locked {
    /// Under a legal hold.
    pub holds: u64,
    /// Under a retention in compliance mode that has not ended.
    pub compliance: u64,
}

impl PartitionReader {
    /// Counts the versions that legal holds and retentions in compliance mode keep at `now`. Looks at all.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn locked(&self, now: UnixMillis) -> Result<Locked, ReadError> {
        self.read(|db| {
            let mut locked = Locked::default();
            for table in ["objects", "versions"] {
                let count = |condition: &str| {
                    let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
                    let now = now.get().cast_signed();
                    db.prepare_cached(&sql)?.query_row([now], |row| row.get::<_, i64>(0))
                };
                locked.holds += count(&format!("?1 = ?1 AND flags & {}", Flags::LEGAL_HOLD))?.cast_unsigned();
                let compliance = format!("flags & {} AND retain_until > ?1", Flags::COMPLIANCE);
                locked.compliance += count(&compliance)?.cast_unsigned();
            }
            Ok(locked)
        })
    }

    /// One page of all versions of a bucket.
    ///
    /// # Errors
    /// [`ReadError::NoSuchBucket`], [`ReadError::Storage`].
    pub fn list_versions(&self, bucket: &str, query: &VersionQuery<'_>) -> Result<VersionPage, ReadError> {
        self.read(|db| {
            let (bucket, _) = bucket_number(db, bucket)?;
            let keys = Keys::of(db)?;
            let mut page = VersionPage { range: keys.range, ..VersionPage::default() };
            let limit = query.limit.min(LIST_KEYS_MAX);
            if limit == 0 {
                return Ok(page);
            }
            let window = Window::new(query.prefix, query.delimiter);
            let end = window.end();
            let bound = if end.is_some() { "key < ?3" } else { "?3 IS NULL" };
            let mut objects = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM objects WHERE bucket = ?1 AND key >= ?2 AND {bound} ORDER BY key LIMIT ?4"
            ))?;
            let mut versions = db.prepare_cached(&format!(
                "SELECT {COLUMNS}, since FROM versions WHERE bucket = ?1 AND (key, rank) > (?2, ?5) AND {bound}
                 ORDER BY key, rank LIMIT ?4"
            ))?;
            // Inside a key, only what is older than the marker's version; the object row is the newest.
            let inside = query.after.and_then(|after| Some((after.key, after.version?)));
            let inside = inside.filter(|(key, _)| key.starts_with(query.prefix) && window.rolled_up(key).is_none());
            let mut last: Option<(String, Option<VersionId>)> =
                query.after.map(|after| (after.key.to_owned(), after.version));
            let mut from = window.start(query.after.map(|after| after.key), false);
            let mut resumed = inside.map(|(key, version)| (key.as_bytes().to_vec(), rank(version).to_vec()));
            // The key whose newest version has been shown, on this page or the one before.
            let mut seen: Option<String> = inside.map(|(key, _)| key.to_owned());
            if let Some((key, version)) = inside {
                // A marker that names a version newer than the current one resumes before that.
                let newest = newest_of(db, bucket, key)?;
                if newest.is_some_and(|newest| newest < version) {
                    seen = None;
                    from = window.start(Some(key), true);
                }
            }
            while let Some(seek) = from.take() {
                let left = keys.limit(limit - page.versions.len() - page.common_prefixes.len() + 1);
                let (key, after_rank) = resumed.take().unwrap_or_else(|| (seek.clone(), Vec::new()));
                let mut newest = Side::new(objects.query(params![bucket, seek, end, left])?, true, keys)?;
                let older = versions.query(params![bucket, key, end, left, after_rank])?;
                let mut older = Side::new(older, false, keys)?;
                loop {
                    let take_newest = match (&newest.head, &older.head) {
                        (None, None) => break,
                        (Some(object), Some(version)) => object.key <= version.key,
                        (object, _) => object.is_some(),
                    };
                    if page.versions.len() + page.common_prefixes.len() == limit {
                        page.next = last;
                        return Ok(page);
                    }
                    let side = if take_newest { &mut newest } else { &mut older };
                    let Some(mut version) = side.head.take() else { break };
                    if let Some(prefix) = window.rolled_up(&version.key) {
                        from = successor(prefix.as_bytes());
                        last = Some((prefix.to_owned(), None));
                        page.common_prefixes.push(prefix.to_owned());
                        break;
                    }
                    side.advance()?;
                    version.latest = seen.as_deref() != Some(version.key.as_str());
                    if version.latest {
                        version.noncurrent_since = None;
                        seen = Some(version.key.clone());
                    }
                    last = Some((version.key.clone(), Some(version.version.id)));
                    page.versions.push(version);
                }
            }
            Ok(page)
        })
    }
}

/// The newest version of a key.
fn newest_of(db: &rusqlite::Transaction<'_>, bucket: i64, key: &str) -> rusqlite::Result<Option<VersionId>> {
    use rusqlite::OptionalExtension as _;
    let sql = "SELECT version FROM objects WHERE bucket = ?1 AND key = ?2
               UNION ALL SELECT * FROM (SELECT version FROM versions WHERE bucket = ?1 AND key = ?2 ORDER BY rank LIMIT 1)";
    db.prepare_cached(sql)?
        .query_row(params![bucket, key.as_bytes()], |row| row.get(0).map(VersionId::from_bytes))
        .optional()
}
