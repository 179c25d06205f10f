//! Versions of a key: which is current, how one becomes noncurrent, how one is removed and the next promoted.
//!
//! Invariants:
//! - a row in `objects` is its key's newest version; a key whose newest version is a delete marker has none;
//! - version ids of a key sort in the order in which the log made them;
//! - a key has at most one null version.

use bytes::Bytes;
use holdfast_model::{BucketId, UnixMillis, UploadId, VersionId};
use rusqlite::{OptionalExtension, Row, params};

use super::{Step, bytes, millis, step};
use crate::{
    command::VersionSelector,
    partition::Writer,
    protect::{Flags, ObjectExtras},
    response::VersionRef,
    settings::Versioning,
    used::{BucketRow, Used},
};

/// `content` of a delete marker.
const MARKER_CONTENT: i64 = -1;

/// Columns that move with a version between the two tables.
const MOVED: &str =
    "version, size, modified, content, flags, etag, retain_until, upload, tags, acl, attributes";

/// A version, as far as writes need it.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) id: VersionId,
    pub(super) size: u64,
    pub(super) modified: UnixMillis,
    pub(super) etag: String,
    pub(super) upload: Option<UploadId>,
    pub(super) flags: Flags,
    pub(super) retain_until: Option<i64>,
    content: i64,
    /// Whether it is the row in `objects`.
    current: bool,
}

/// An object about to be written.
pub(super) struct NewObject<'a> {
    pub(super) key: &'a str,
    pub(super) size: u64,
    pub(super) etag: &'a str,
    pub(super) upload: Option<UploadId>,
    pub(super) attributes: &'a Bytes,
    pub(super) extras: &'a ObjectExtras,
    /// Content number, or 0 when it is made of parts.
    pub(super) content: i64,
}

/// Where a write puts its version, and what it replaces: decided before anything changes.
pub(super) struct Plan {
    /// The version's id, moved behind the key's newest one when need be.
    pub(super) version: VersionId,
    null: bool,
    /// Stays, as a noncurrent version.
    demoted: Option<Version>,
    /// The null version that goes.
    replaced: Option<Version>,
}

const VERSION_COLUMNS: &str = "version, size, modified, content, flags, etag, retain_until, upload";

fn version_from(row: &Row<'_>, current: bool) -> rusqlite::Result<Version> {
    Ok(Version {
        id: VersionId::from_bytes(row.get(0)?),
        size: row.get::<_, i64>(1)?.cast_unsigned(),
        modified: UnixMillis::new(row.get::<_, i64>(2)?.cast_unsigned()),
        content: row.get(3)?,
        flags: Flags(row.get(4)?),
        etag: row.get(5)?,
        retain_until: row.get(6)?,
        upload: row.get::<_, Option<_>>(7)?.map(UploadId::from_bytes),
        current,
    })
}

/// A version's place among those of its key: newest first.
pub(crate) fn rank(version: VersionId) -> [u8; VersionId::SIZE] {
    version.as_bytes().map(|byte| !byte)
}

impl Version {
    pub(super) fn is_null(&self) -> bool {
        self.flags.has(Flags::NULL)
    }

    pub(super) fn is_marker(&self) -> bool {
        self.flags.has(Flags::MARKER)
    }

    pub(super) fn shown(&self) -> VersionRef {
        VersionRef { id: self.id, null: self.is_null() }
    }

    /// What it counts for where it is, once.
    fn used(&self) -> Used {
        let size = bytes(self.size);
        if self.current {
            Used { objects: 1, bytes: size, ..Used::default() }
        } else {
            Used { old_versions: 1, old_bytes: size, ..Used::default() }
        }
    }

    /// What the counters change by when it becomes current or noncurrent.
    fn used_when_moved(&self) -> Used {
        let mut change = -self.used();
        change += Self { current: !self.current, ..self.clone() }.used();
        change
    }
}

impl Plan {
    /// What carrying it out changes in the counters, the new version of `size` bytes included.
    fn used(&self, size: u64, marker: bool) -> Used {
        let mut change = if marker {
            Used { old_versions: 1, ..Used::default() }
        } else {
            Used { objects: 1, bytes: bytes(size), ..Used::default() }
        };
        if let Some(demoted) = &self.demoted {
            change += demoted.used_when_moved();
        }
        if let Some(replaced) = &self.replaced {
            change += -replaced.used();
        }
        change
    }
}

impl Writer<'_> {
    /// The newest version of a key when that is an object.
    pub(super) fn current(&self, bucket: i64, key: &str) -> rusqlite::Result<Option<Version>> {
        let sql = format!("SELECT {VERSION_COLUMNS} FROM objects WHERE bucket = ?1 AND key = ?2");
        self.db
            .prepare_cached(&sql)?
            .query_row(params![bucket, key.as_bytes()], |row| version_from(row, true))
            .optional()
    }

    /// The newest version in `versions`.
    fn newest_old(&self, bucket: i64, key: &str) -> rusqlite::Result<Option<Version>> {
        let sql = format!(
            "SELECT {VERSION_COLUMNS} FROM versions WHERE bucket = ?1 AND key = ?2 ORDER BY rank LIMIT 1"
        );
        self.db
            .prepare_cached(&sql)?
            .query_row(params![bucket, key.as_bytes()], |row| version_from(row, false))
            .optional()
    }

    /// The newest version of a key, a delete marker included.
    pub(super) fn newest(&self, bucket: i64, key: &str) -> rusqlite::Result<Option<Version>> {
        match self.current(bucket, key)? {
            Some(current) => Ok(Some(current)),
            None => self.newest_old(bucket, key),
        }
    }

    /// A version in `versions` by its own id, a null version included.
    pub(super) fn old_version(
        &self,
        bucket: i64,
        key: &str,
        version: VersionId,
    ) -> rusqlite::Result<Option<Version>> {
        let sql =
            format!("SELECT {VERSION_COLUMNS} FROM versions WHERE bucket = ?1 AND key = ?2 AND rank = ?3");
        self.db
            .prepare_cached(&sql)?
            .query_row(params![bucket, key.as_bytes(), rank(version)], |row| version_from(row, false))
            .optional()
    }

    /// How many versions and markers of a key are in `versions`, 2 at most.
    pub(super) fn count_old(&self, bucket: i64, key: &str) -> rusqlite::Result<i64> {
        self.db
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM versions WHERE bucket = ?1 AND key = ?2 LIMIT 2)",
            )?
            .query_row(params![bucket, key.as_bytes()], |row| row.get(0))
    }

    /// The null version in `versions`.
    fn old_null(&self, bucket: i64, key: &str) -> rusqlite::Result<Option<Version>> {
        let sql =
            format!("SELECT {VERSION_COLUMNS} FROM versions WHERE bucket = ?1 AND key = ?2 AND flags & 1");
        self.db
            .prepare_cached(&sql)?
            .query_row(params![bucket, key.as_bytes()], |row| version_from(row, false))
            .optional()
    }

    pub(super) fn find_version(
        &self,
        bucket: &BucketRow,
        key: &str,
        selector: VersionSelector,
    ) -> rusqlite::Result<Option<Version>> {
        let wanted = |version: &Version| match selector {
            VersionSelector::Null => version.is_null(),
            VersionSelector::Id(id) => version.id == id && !version.is_null(),
        };
        if let Some(current) = self.current(bucket.no, key)?.filter(wanted) {
            return Ok(Some(current));
        }
        match selector {
            _ if bucket.versioning == Versioning::Off => Ok(None),
            VersionSelector::Null => self.old_null(bucket.no, key),
            VersionSelector::Id(id) => Ok(self.old_version(bucket.no, key, id)?.filter(wanted)),
        }
    }

    /// Decides where a new version of `key` goes.
    pub(super) fn plan(
        &self,
        bucket: &BucketRow,
        key: &str,
        proposed: VersionId,
        current: Option<&Version>,
    ) -> rusqlite::Result<Plan> {
        if bucket.versioning == Versioning::Off {
            return Ok(Plan { version: proposed, null: true, demoted: None, replaced: current.cloned() });
        }
        let newest = match current {
            Some(current) => Some(current.clone()),
            None => self.newest_old(bucket.no, key)?,
        };
        let version = match newest {
            Some(newest) if newest.id >= proposed => behind(newest.id, proposed),
            _ => proposed,
        };
        if bucket.versioning == Versioning::Enabled && holdfast_planted::is("VersionsAreReplaced") {
            return Ok(Plan { version, null: false, demoted: None, replaced: current.cloned() });
        }
        if bucket.versioning == Versioning::Enabled {
            return Ok(Plan { version, null: false, demoted: current.cloned(), replaced: None });
        }
        Ok(match current {
            Some(current) if current.is_null() => {
                Plan { version, null: true, demoted: None, replaced: Some(current.clone()) }
            }
            _ => Plan {
                version,
                null: true,
                demoted: current.cloned(),
                replaced: self.old_null(bucket.no, key)?.filter(|_| !holdfast_planted::is("NullsGather")),
            },
        })
    }

    /// Counts what the plan will change, and `beside` with it; the last decision of a command.
    pub(super) fn charge_plan(
        &mut self,
        bucket: BucketId,
        plan: &Plan,
        size: u64,
        marker: bool,
        beside: Used,
    ) -> Step<()> {
        let mut change = plan.used(size, marker);
        change += beside;
        self.charge(bucket, change)
    }

    /// Moves aside or removes what the new version takes the place of.
    fn make_room(&mut self, bucket: i64, key: &str, plan: &Plan) -> rusqlite::Result<()> {
        if let Some(replaced) = &plan.replaced {
            self.delete_row(bucket, key, replaced)?;
            self.release_version(replaced)?;
        }
        if let Some(demoted) = &plan.demoted {
            let sql = format!(
                "INSERT INTO versions (bucket, key, rank, since, {MOVED})
                 SELECT bucket, key, ?3, ?4, {MOVED} FROM objects WHERE bucket = ?1 AND key = ?2"
            );
            self.db.prepare_cached(&sql)?.execute(params![
                bucket,
                key.as_bytes(),
                rank(demoted.id),
                millis(self.now)
            ])?;
            self.delete_row(bucket, key, demoted)?;
        }
        Ok(())
    }

    /// Writes a planned and charged version.
    pub(super) fn write_object(
        &mut self,
        bucket: &BucketRow,
        plan: &Plan,
        object: &NewObject<'_>,
    ) -> rusqlite::Result<VersionRef> {
        self.make_room(bucket.no, object.key, plan)?;
        let default = || bucket.retention.map(|default| default.from(self.now));
        let (flags, until) = Flags::default()
            .with(Flags::NULL, plan.null)
            .with_legal_hold(object.extras.legal_hold)
            .with_retention(object.extras.retention.or_else(default));
        let blob = |bytes: &Bytes| (!bytes.is_empty()).then(|| bytes.to_vec());
        self.db
            .prepare_cached(
                "INSERT INTO objects
                 (bucket, key, version, size, modified, content, flags, etag, retain_until, upload, tags, acl, attributes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute(params![
                bucket.no,
                object.key.as_bytes(),
                plan.version.as_bytes(),
                bytes(object.size),
                millis(self.now),
                object.content,
                flags.0,
                object.etag,
                until,
                object.upload.as_ref().map(UploadId::as_bytes),
                blob(&object.extras.tags),
                blob(&object.extras.acl),
                object.attributes.as_ref()
            ])?;
        Ok(VersionRef { id: plan.version, null: plan.null })
    }

    /// Writes a planned and charged delete marker.
    pub(super) fn write_marker(
        &mut self,
        bucket: i64,
        key: &str,
        plan: &Plan,
    ) -> rusqlite::Result<VersionRef> {
        self.make_room(bucket, key, plan)?;
        let flags = Flags::default().with(Flags::MARKER, true).with(Flags::NULL, plan.null);
        self.db
            .prepare_cached(
                "INSERT INTO versions
                 (bucket, key, rank, version, size, modified, content, flags, etag, since, attributes)
                 VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7, '', ?5, x'')",
            )?
            .execute(params![
                bucket,
                key.as_bytes(),
                rank(plan.version),
                plan.version.as_bytes(),
                millis(self.now),
                MARKER_CONTENT,
                flags.0
            ])?;
        Ok(VersionRef { id: plan.version, null: plan.null })
    }

    /// Removes one version for good; when it was the newest, the next one takes its place.
    pub(super) fn remove_version(&mut self, bucket: BucketId, key: &str, version: &Version) -> Step<()> {
        let (no, versioning) = {
            let row = step!(self.bucket(bucket));
            (row.no, row.versioning)
        };
        step!(self.charge(bucket, -version.used()));
        self.delete_row(no, key, version)?;
        self.release_version(version)?;
        // There is a current version unless it was removed just now, or a delete marker stood before it.
        if versioning == Versioning::Off
            || self.current(no, key)?.is_some()
            || holdfast_planted::is("NoneIsPromoted")
        {
            return Ok(Ok(()));
        }
        let Some(next) = self.newest_old(no, key)?.filter(|next| !next.is_marker()) else {
            return Ok(Ok(()));
        };
        let sql = format!(
            "INSERT INTO objects (bucket, key, {MOVED})
             SELECT bucket, key, {MOVED} FROM versions WHERE bucket = ?1 AND key = ?2 AND rank = ?3"
        );
        self.db.prepare_cached(&sql)?.execute(params![no, key.as_bytes(), rank(next.id)])?;
        self.delete_row(no, key, &next)?;
        self.charge(bucket, next.used_when_moved())
    }

    fn delete_row(&self, bucket: i64, key: &str, version: &Version) -> rusqlite::Result<()> {
        if version.current {
            self.db
                .prepare_cached("DELETE FROM objects WHERE bucket = ?1 AND key = ?2")?
                .execute(params![bucket, key.as_bytes()])?;
        } else {
            self.db
                .prepare_cached("DELETE FROM versions WHERE bucket = ?1 AND key = ?2 AND rank = ?3")?
                .execute(params![bucket, key.as_bytes(), rank(version.id)])?;
        }
        Ok(())
    }

    fn release_version(&mut self, version: &Version) -> rusqlite::Result<()> {
        match version.content {
            MARKER_CONTENT => Ok(()),
            0 => {
                let contents: Vec<i64> = self
                    .db
                    .prepare_cached("DELETE FROM object_parts WHERE version = ?1 RETURNING content")?
                    .query_map(params![version.id.as_bytes()], |row| row.get(0))?
                    .collect::<rusqlite::Result<_>>()?;
                contents.into_iter().try_for_each(|content| self.release_content(content))
            }
            content => self.release_content(content),
        }
    }

    /// Writes one of the columns that are kept beside the content.
    pub(super) fn update_version(
        &self,
        bucket: i64,
        key: &str,
        version: &Version,
        column: &'static str,
        value: Option<&[u8]>,
    ) -> rusqlite::Result<()> {
        self.update(bucket, key, version, &format!("{column} = ?4"), value)
    }

    /// Writes flags and the end of the retention.
    pub(super) fn update_flags(
        &self,
        bucket: i64,
        key: &str,
        version: &Version,
        flags: Flags,
        until: Option<i64>,
    ) -> rusqlite::Result<()> {
        self.update(bucket, key, version, &format!("flags = {}, retain_until = ?4", flags.0), until)
    }

    fn update(
        &self,
        bucket: i64,
        key: &str,
        version: &Version,
        set: &str,
        value: impl rusqlite::ToSql,
    ) -> rusqlite::Result<()> {
        let sql = if version.current {
            format!("UPDATE objects SET {set} WHERE bucket = ?1 AND key = ?2 AND ?3 IS NOT NULL")
        } else {
            format!("UPDATE versions SET {set} WHERE bucket = ?1 AND key = ?2 AND rank = ?3")
        };
        self.db.prepare_cached(&sql)?.execute(params![bucket, key.as_bytes(), rank(version.id), value])?;
        Ok(())
    }
}

/// The proposed id, moved to just after `newest`.
fn behind(newest: VersionId, proposed: VersionId) -> VersionId {
    let mut random = [0; 10];
    random.copy_from_slice(&proposed.as_bytes()[6..]);
    VersionId::new(UnixMillis::new(newest.created().get() + 1), random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_rank_first_and_late_ids_are_moved_behind() {
        let old = VersionId::new(UnixMillis::new(5), [9; 10]);
        let new = VersionId::new(UnixMillis::new(6), [0; 10]);
        assert!(rank(new) < rank(old));
        let moved = behind(new, old);
        assert!(moved > new && moved.as_bytes()[6..] == [9; 10]);
    }
}
