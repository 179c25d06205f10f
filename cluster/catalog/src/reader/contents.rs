//! Contents in stripes with who owns them: what the worker looks through that keeps levels.
//!
//! Contents are found through their owners (current objects, other versions, parts of uploads), because what
//! they are sealed under is bound to the owner's name. An object's contents come together.

use bytes::Bytes;
use holdfast_model::{BucketId, StripeId, VersionId};
use rusqlite::{OptionalExtension, Transaction, params};

use super::{PartitionReader, ReadError, count_from};
use crate::{
    body::StripeRef,
    rows::{STRIPE_COLUMNS, key_from, stripe_from},
};

/// Owners of one page at most.
pub const OWNERS_PAGE_MAX: usize = 1024;

/// A content in stripes, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StripedContent {
    /// Its number in the partition; never used again.
    pub content: u64,
    /// The bucket of its owner.
    pub bucket: BucketId,
    /// The key of its owner.
    pub key: String,
    /// The attributes of its owner: how it is sealed, among others. Opaque here.
    pub attributes: Bytes,
}

/// The bytes of a content: its key and its stripes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentBody {
    /// Bytes of plaintext.
    pub size: u64,
    /// Its key, wrapped. Opaque here.
    pub wrapped_key: Bytes,
    /// Its stripes, in order.
    pub stripes: Vec<StripeRef>,
}

/// Where a walk through all contents goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentCursor {
    /// After this current object.
    Object {
        /// The bucket's number in the partition.
        bucket: i64,
        /// The key.
        key: Vec<u8>,
    },
    /// After this other version; from the first with an empty rank.
    Version {
        /// The bucket's number in the partition.
        bucket: i64,
        /// The key.
        key: Vec<u8>,
        /// Its rank.
        rank: Vec<u8>,
    },
    /// After this part of an upload; from the first with an empty upload.
    Part {
        /// The upload.
        upload: Vec<u8>,
        /// The part.
        number: u32,
    },
}

impl ContentCursor {
    const OBJECTS: Self = Self::Object { bucket: -1, key: Vec::new() };
    const VERSIONS: Self = Self::Version { bucket: -1, key: Vec::new(), rank: Vec::new() };
    const PARTS: Self = Self::Part { upload: Vec::new(), number: 0 };
}

struct Owner {
    bucket: i64,
    key: String,
    content: i64,
    version: Option<[u8; VersionId::SIZE]>,
    attributes: Vec<u8>,
    at: ContentCursor,
}

impl PartitionReader {
    /// Walks through the contents of up to `owners` owners after the given one and shows each of their
    /// stripes to `visit`. Returns where to go on; `None` when that was all. What is written, moved from one
    /// kind of owner to another or deleted during a walk may be missed or met twice.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn visit_stripes(
        &self,
        after: Option<ContentCursor>,
        owners: usize,
        mut visit: impl FnMut(&StripedContent, &StripeRef),
    ) -> Result<Option<ContentCursor>, ReadError> {
        self.read(|db| {
            let limit = owners.clamp(1, OWNERS_PAGE_MAX);
            let after = after.unwrap_or(ContentCursor::OBJECTS);
            let found = owners_after(db, &after, limit)?;
            for owner in &found {
                for content in contents_of(db, owner)? {
                    visit_content(db, owner, content, &mut visit)?;
                }
            }
            let next = match (&after, found.last()) {
                (_, Some(last)) if found.len() == limit => Some(last.at.clone()),
                (ContentCursor::Object { .. }, _) => Some(ContentCursor::VERSIONS),
                (ContentCursor::Version { .. }, _) => Some(ContentCursor::PARTS),
                (ContentCursor::Part { .. }, _) => None,
            };
            Ok(next)
        })
    }

    /// The bytes of a content. `None`: nothing refers to it any more, or it is not in stripes.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn content_body(&self, content: u64) -> Result<Option<ContentBody>, ReadError> {
        self.read(|db| {
            let row: Option<(u64, Vec<u8>)> = db
                .prepare_cached(
                    "SELECT size, wrapped_key FROM contents WHERE no = ?1 AND died IS NULL AND inline IS NULL",
                )?
                .query_row(params![content.cast_signed()], |row| Ok((count_from(row, 0)?, row.get(1)?)))
                .optional()?;
            let Some((size, wrapped_key)) = row else { return Ok(None) };
            let sql = format!("SELECT {STRIPE_COLUMNS} FROM stripes WHERE content = ?1 ORDER BY start");
            let stripes = db
                .prepare_cached(&sql)?
                .query_map(params![content.cast_signed()], |row| stripe_from(row, 0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Some(ContentBody { size, wrapped_key: wrapped_key.into(), stripes }))
        })
    }

    /// The first stripe of a content, which tells whether it was cut anew since.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn first_stripe(&self, content: u64) -> Result<Option<StripeId>, ReadError> {
        self.read(|db| {
            Ok(db
                .prepare_cached("SELECT id FROM stripes WHERE content = ?1 ORDER BY start LIMIT 1")?
                .query_row(params![content.cast_signed()], |row| row.get(0).map(StripeId::from_bytes))
                .optional()?)
        })
    }
}

fn owners_after(db: &Transaction<'_>, after: &ContentCursor, limit: usize) -> rusqlite::Result<Vec<Owner>> {
    let limit = limit as i64;
    match after {
        ContentCursor::Object { bucket, key } => db
            .prepare_cached(
                "SELECT bucket, key, attributes, content, version FROM objects WHERE (bucket, key) > (?1, ?2)
                 ORDER BY bucket, key LIMIT ?3",
            )?
            .query_map(params![bucket, key, limit], |row| {
                let at = ContentCursor::Object { bucket: row.get(0)?, key: row.get(1)? };
                owner(row, at, Some(row.get(4)?))
            })?
            .collect(),
        ContentCursor::Version { bucket, key, rank } => db
            .prepare_cached(
                "SELECT bucket, key, attributes, content, version, rank FROM versions
                 WHERE (bucket, key, rank) > (?1, ?2, ?3) ORDER BY bucket, key, rank LIMIT ?4",
            )?
            .query_map(params![bucket, key, rank, limit], |row| {
                let at = ContentCursor::Version { bucket: row.get(0)?, key: row.get(1)?, rank: row.get(5)? };
                owner(row, at, Some(row.get(4)?))
            })?
            .collect(),
        ContentCursor::Part { upload, number } => db
            .prepare_cached(
                "SELECT u.bucket, u.key, u.attributes, p.content, p.upload, p.number
                 FROM upload_parts p JOIN uploads u ON u.id = p.upload
                 WHERE (p.upload, p.number) > (?1, ?2) ORDER BY p.upload, p.number LIMIT ?3",
            )?
            .query_map(params![upload, number, limit], |row| {
                let at = ContentCursor::Part { upload: row.get(4)?, number: row.get(5)? };
                owner(row, at, None)
            })?
            .collect(),
    }
}

/// From a row that begins with bucket, key, attributes and content.
fn owner(
    row: &rusqlite::Row<'_>,
    at: ContentCursor,
    version: Option<[u8; VersionId::SIZE]>,
) -> rusqlite::Result<Owner> {
    let (bucket, key) = (row.get(0)?, key_from(row, 1)?);
    Ok(Owner { bucket, key, attributes: row.get(2)?, content: row.get(3)?, version, at })
}

fn contents_of(db: &Transaction<'_>, owner: &Owner) -> rusqlite::Result<Vec<i64>> {
    match (owner.content, owner.version) {
        (0, Some(version)) => db
            .prepare_cached("SELECT content FROM object_parts WHERE version = ?1 ORDER BY start")?
            .query_map(params![version], |row| row.get(0))?
            .collect(),
        (content, _) if content > 0 => Ok(vec![content]),
        _ => Ok(Vec::new()),
    }
}

fn visit_content(
    db: &Transaction<'_>,
    owner: &Owner,
    content: i64,
    visit: &mut impl FnMut(&StripedContent, &StripeRef),
) -> rusqlite::Result<()> {
    let mut statement = db
        .prepare_cached(&format!("SELECT {STRIPE_COLUMNS} FROM stripes WHERE content = ?1 ORDER BY start"))?;
    let mut rows = statement.query(params![content])?;
    let mut found: Option<StripedContent> = None;
    while let Some(row) = rows.next()? {
        if found.is_none() {
            let bucket = db
                .prepare_cached("SELECT id FROM buckets WHERE no = ?1")?
                .query_row(params![owner.bucket], |row| row.get(0).map(BucketId::from_bytes))?;
            found = Some(StripedContent {
                content: content.cast_unsigned(),
                bucket,
                key: owner.key.clone(),
                attributes: owner.attributes.clone().into(),
            });
        }
        if let Some(content) = &found {
            visit(content, &stripe_from(row, 0)?);
        }
    }
    Ok(())
}
