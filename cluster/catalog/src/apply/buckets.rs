//! Buckets: their counters, quotas and settings.

use bytes::Bytes;
use holdfast_model::BucketId;
use rusqlite::{OptionalExtension, Row, params};

use super::{Step, events, millis, step};
use crate::{
    command::{BucketChange, decode},
    lifecycle::Lifecycle,
    partition::Writer,
    protect::DefaultRetention,
    response::{BucketStateRule, Outcome, Refusal, Response},
    rows::malformed,
    settings::{DOCUMENT_ID_SIZE_MAX, DOCUMENTS_MAX, DocumentKind, Quota, Versioning},
    used::{BucketRow, Limits, Used},
};

/// Columns of [`bucket_row`], in order.
pub(crate) const BUCKET_ROW_COLUMNS: &str =
    "no, objects, bytes, old_versions, old_bytes, uploads, upload_bytes,
     versioning, object_lock, retention, quota_versions, quota_bytes, closed";

/// A bucket's row from the columns [`BUCKET_ROW_COLUMNS`], the first of which is `first`.
pub(crate) fn bucket_row(row: &Row<'_>, first: usize) -> rusqlite::Result<BucketRow> {
    let retention = row.get::<_, Option<Vec<u8>>>(first + 9)?.map(|bytes| decode::<DefaultRetention>(&bytes));
    Ok(BucketRow {
        no: row.get(first)?,
        used: Used {
            objects: row.get(first + 1)?,
            bytes: row.get(first + 2)?,
            old_versions: row.get(first + 3)?,
            old_bytes: row.get(first + 4)?,
            uploads: row.get(first + 5)?,
            upload_bytes: row.get(first + 6)?,
        },
        versioning: Versioning::from_column(row.get(first + 7)?)
            .ok_or_else(|| malformed(first + 7, "versioning of a bucket"))?,
        object_lock: row.get(first + 8)?,
        retention: retention.transpose().map_err(|_| malformed(first + 9, "default retention"))?,
        quota: Limits { versions: row.get(first + 10)?, bytes: row.get(first + 11)? },
        closed: row.get(first + 12)?,
    })
}

impl Writer<'_> {
    /// The bucket's number, counters and settings. Changes made to it are written when the transaction
    /// commits.
    pub(crate) fn bucket(&mut self, id: BucketId) -> Step<&mut BucketRow> {
        use std::collections::hash_map::Entry;
        let row = match self.open.buckets.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let sql = format!("SELECT {BUCKET_ROW_COLUMNS} FROM buckets WHERE id = ?1");
                let row = self
                    .db
                    .prepare_cached(&sql)?
                    .query_row(params![id.as_bytes()], |row| bucket_row(row, 0))
                    .optional()?;
                unknown.insert(row)
            }
        };
        Ok(row.as_mut().ok_or(Refusal::NoSuchBucket))
    }

    /// Counts a change of what a bucket holds, unless a quota forbids it. The last decision of a command:
    /// nothing may be refused after it.
    pub(super) fn charge(&mut self, bucket: BucketId, change: Used) -> Step<()> {
        let (total, quota, more) = (self.open.total, self.open.quota, change.stored());
        let row = step!(self.bucket(bucket));
        let comes = more.versions > 0 || more.bytes > 0 || change.uploads > 0;
        if let Some(token) = row.closed.filter(|_| comes) {
            return Ok(Err(Refusal::BucketClosed { token }));
        }
        if !row.quota.allow(row.used.stored(), more) {
            return Ok(Err(Refusal::QuotaExceeded { tenant: false }));
        }
        if !quota.allow(total, more) {
            return Ok(Err(Refusal::QuotaExceeded { tenant: true }));
        }
        row.used += change;
        self.open.total += more;
        Ok(Ok(()))
    }

    fn bucket_named(&self, name: &str) -> rusqlite::Result<Option<BucketId>> {
        self.db
            .prepare_cached("SELECT id FROM buckets WHERE name = ?1")?
            .query_row(params![name], |row| row.get(0).map(BucketId::from_bytes))
            .optional()
    }
}

pub(super) fn create(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    name: &str,
    object_lock: bool,
    documents: &[(DocumentKind, Bytes)],
) -> rusqlite::Result<Outcome> {
    if let Some((kind, _)) = documents.iter().find(|(kind, body)| body.len() > kind.size_max()) {
        return Ok(Err(Refusal::Invalid(format!(
            "a document {kind:?} of more than {} bytes",
            kind.size_max()
        ))));
    }
    if name.is_empty() || name.len() > crate::BUCKET_NAME_SIZE_MAX {
        return Ok(Err(Refusal::Invalid(format!("bucket name of {} bytes", name.len()))));
    }
    match writer.bucket_named(name)? {
        Some(existing) if existing == bucket => return Ok(Ok(Response::BucketCreated)),
        Some(existing) => return Ok(Err(Refusal::BucketAlreadyExists { bucket: existing })),
        None => {}
    }
    if writer.bucket(bucket)?.is_ok() {
        return Ok(Err(Refusal::Invalid(format!("{bucket} is the id of a bucket of another name"))));
    }
    let no = writer.open.next_bucket;
    writer.open.next_bucket += 1;
    let versioning = if object_lock { Versioning::Enabled } else { Versioning::Off };
    writer
        .db
        .prepare_cached(
            "INSERT INTO buckets (no, id, name, created, objects, bytes, old_versions, old_bytes, uploads,
                                  upload_bytes, versioning, object_lock)
             VALUES (?1, ?2, ?3, ?4, 0, 0, 0, 0, 0, 0, ?5, ?6)",
        )?
        .execute(params![
            no,
            bucket.as_bytes(),
            name,
            millis(writer.now),
            versioning.column(),
            object_lock
        ])?;
    let row = BucketRow {
        no,
        used: Used::default(),
        versioning,
        object_lock,
        retention: None,
        quota: Limits::default(),
        closed: None,
    };
    writer.open.buckets.insert(bucket, Some(row));
    for (kind, body) in documents {
        step!(set_document(writer, no, *kind, "", Some(body)));
    }
    Ok(Ok(Response::BucketCreated))
}

pub(super) fn delete(writer: &mut Writer<'_>, name: &str) -> rusqlite::Result<Outcome> {
    if !writer.open.range.is_all() {
        // Other partitions may hold keys of it: `family.rs`.
        return Ok(Err(Refusal::Moved));
    }
    let Some(bucket) = writer.bucket_named(name)? else { return Ok(Err(Refusal::NoSuchBucket)) };
    let row = *step!(writer.bucket(bucket));
    if !row.used.is_empty() {
        return Ok(Err(Refusal::BucketNotEmpty));
    }
    remove(writer, bucket, &row)
}

/// Removes an empty bucket.
pub(super) fn remove(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    row: &BucketRow,
) -> rusqlite::Result<Outcome> {
    writer.db.prepare_cached("DELETE FROM documents WHERE bucket = ?1")?.execute(params![row.no])?;
    writer.db.prepare_cached("DELETE FROM buckets WHERE no = ?1")?.execute(params![row.no])?;
    writer.open.buckets.insert(bucket, None);
    Ok(Ok(Response::BucketDeleted))
}

pub(super) fn set_quota(writer: &mut Writer<'_>, quota: Quota) -> Outcome {
    if !writer.open.range.is_all() {
        // It is shared with other partitions: `family.rs`.
        return Err(Refusal::Moved);
    }
    writer.open.quota = Limits::of(quota);
    Ok(Response::QuotaSet)
}

pub(super) fn set(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    change: BucketChange,
) -> rusqlite::Result<Outcome> {
    let is_whole = writer.open.range.is_all();
    let row = step!(writer.bucket(bucket));
    match change {
        BucketChange::Versioning(wanted) => {
            let refused = match wanted {
                Versioning::Off if row.versioning != Versioning::Off => {
                    Some(BucketStateRule::VersioningStays)
                }
                Versioning::Suspended if row.object_lock => Some(BucketStateRule::LockNeedsVersioning),
                _ => None,
            };
            if let Some(rule) = refused {
                return Ok(Err(Refusal::BucketState(rule)));
            }
            row.versioning = wanted;
        }
        BucketChange::EnableObjectLock => {
            if row.versioning != Versioning::Enabled {
                return Ok(Err(Refusal::BucketState(BucketStateRule::LockNeedsVersioning)));
            }
            row.object_lock = true;
        }
        BucketChange::DefaultRetention(retention) => {
            if !row.object_lock {
                return Ok(Err(Refusal::BucketState(BucketStateRule::NoObjectLock)));
            }
            if let Some(fault) = retention.as_ref().and_then(DefaultRetention::fault) {
                return Ok(Err(Refusal::Invalid(fault.to_owned())));
            }
            row.retention = retention;
        }
        BucketChange::Quota(_) if !is_whole => {
            return Ok(Err(Refusal::Invalid("a quota of a bucket whose partition was split".to_owned())));
        }
        BucketChange::Quota(quota) => row.quota = Limits::of(quota),
        BucketChange::Document { kind: DocumentKind::Owner, .. } => {
            return Ok(Err(Refusal::Invalid("a bucket keeps its owner".to_owned())));
        }
        BucketChange::Document { kind, id, body } => {
            let no = row.no;
            return set_document(writer, no, kind, &id, body.as_ref());
        }
    }
    Ok(Ok(Response::BucketSet))
}

fn set_document(
    writer: &mut Writer<'_>,
    bucket: i64,
    kind: DocumentKind,
    id: &str,
    body: Option<&Bytes>,
) -> rusqlite::Result<Outcome> {
    let Some(body) = body else {
        let mut delete =
            writer.db.prepare_cached("DELETE FROM documents WHERE bucket = ?1 AND kind = ?2 AND id = ?3")?;
        delete.execute(params![bucket, kind.column(), id])?;
        if kind == DocumentKind::Notification {
            writer.renotify(bucket, None)?;
        }
        return Ok(Ok(Response::BucketSet));
    };
    if body.len() > kind.size_max() || id.len() > DOCUMENT_ID_SIZE_MAX {
        let text = format!("a document of {} bytes, at most {} are kept", body.len(), kind.size_max());
        return Ok(Err(Refusal::Invalid(text)));
    }
    if kind == DocumentKind::Lifecycle
        && let Err(error) = Lifecycle::decode(body)
    {
        return Ok(Err(Refusal::Invalid(error.to_string())));
    }
    let rules = match (kind, id) {
        (DocumentKind::Notification, "") => match events::check(body) {
            Ok(rules) => Some(rules),
            Err(refusal) => return Ok(Err(refusal)),
        },
        _ => None,
    };
    let mut others = writer
        .db
        .prepare_cached("SELECT count(*) FROM documents WHERE bucket = ?1 AND NOT (kind = ?2 AND id = ?3)")?;
    let others: i64 = others.query_row(params![bucket, kind.column(), id], |row| row.get(0))?;
    if others >= DOCUMENTS_MAX {
        return Ok(Err(Refusal::Invalid(format!("a bucket keeps at most {DOCUMENTS_MAX} documents"))));
    }
    writer
        .db
        .prepare_cached(
            "INSERT OR REPLACE INTO documents (bucket, kind, id, changed, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![bucket, kind.column(), id, millis(writer.now), body.as_ref()])?;
    if rules.is_some() {
        writer.renotify(bucket, rules.as_ref())?;
    }
    Ok(Ok(Response::BucketSet))
}
