//! Splitting a partition's file in two.
//!
//! The upper half begins as a copy of the whole file under a key of its own, and both halves clear away what is not
//! theirs afterwards (`apply/clearing.rs`). So the split itself costs one copy of the file and one look at every key,
//! for the counters; the group applies nothing else meanwhile.
//!
//! Decided by a log entry and carried out behind it. The decision is in the lower half's file until the upper half's
//! is durable, so that a crash at any moment leaves the one or the other.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

use holdfast_crypt::FileKey;
use holdfast_model::BucketId;
use holdfast_sealed_sqlite::SealedFile;
use rusqlite::{Connection, params};

use crate::{
    apply::{BUCKET_ROW_COLUMNS, OF_LOWER_HALF, OF_UPPER_HALF, bucket_row},
    hash_range::HashRange,
    key_file::KeyFile,
    keys::MetadataSeal,
    partition::{Clearing, Identity, MIGRATIONS, Partition, file_name},
    rows::malformed,
    sqlite::{self, Durability, Form, beside, copy_database, io_error, sync_dir},
    used::{Limits, Stored, Used},
};

/// A file on its way to become a partition's.
const UNFINISHED: &str = ".split";

/// What goes where.
pub(crate) struct Plan {
    /// Entries of the log below are applied to both halves.
    next_index: u64,
    /// The partition's clock.
    at: i64,
    lower: HashRange,
    upper: HashRange,
    buckets: Vec<BucketPlan>,
    moved: Stored,
    quota: (Limits, Limits),
}

struct BucketPlan {
    id: BucketId,
    no: i64,
    moved: Used,
    quota: (Limits, Limits),
}

/// Counts what goes to the upper half.
pub(crate) fn plan(source: &Partition) -> io::Result<Plan> {
    let db = source.connection();
    let counted = || -> rusqlite::Result<Plan> {
        let (range, held, quota, at) = db.query_row(
            "SELECT hash_from, hash_until, versions, bytes, quota_versions, quota_bytes, clock FROM meta",
            [],
            |row| {
                Ok((
                    HashRange { from: row.get(0)?, until: row.get(1)? },
                    Stored { versions: row.get(2)?, bytes: row.get(3)? },
                    Limits { versions: row.get(4)?, bytes: row.get(5)? },
                    row.get(6)?,
                ))
            },
        )?;
        let (lower, upper) = range.halves().ok_or_else(|| malformed(0, "a range that cannot be split"))?;
        let by_bucket = count(db, upper)?;
        let sql = format!("SELECT id, {BUCKET_ROW_COLUMNS} FROM buckets ORDER BY no");
        let rows = db
            .prepare(&sql)?
            .query_map([], |row| Ok((BucketId::from_bytes(row.get(0)?), bucket_row(row, 1)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut moved = Stored::default();
        let buckets = rows
            .into_iter()
            .map(|(id, row)| {
                let part = by_bucket.get(&row.no).copied().unwrap_or_default();
                moved += part.stored();
                let quota = row.quota.split(row.used.stored(), part.stored());
                BucketPlan { id, no: row.no, moved: part, quota }
            })
            .collect();
        let quota = quota.split(held, moved);
        Ok(Plan { next_index: source.next_index(), at, lower, upper, buckets, moved, quota })
    };
    counted().map_err(|e| io_error("counting the keys of", source.path(), &e))
}

/// What the keys of `range` hold, by number of the bucket.
fn count(db: &Connection, range: HashRange) -> rusqlite::Result<BTreeMap<i64, Used>> {
    let mut found: BTreeMap<i64, Used> = BTreeMap::new();
    let mut each = |sql: &str, used: &dyn Fn(i64) -> Used| -> rusqlite::Result<()> {
        let mut statement = db.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if range.has(row.get_ref(1)?.as_blob()?) {
                *found.entry(row.get(0)?).or_default() += used(row.get(2)?);
            }
        }
        Ok(())
    };
    each("SELECT bucket, key, size FROM objects", &|bytes| Used { objects: 1, bytes, ..Used::default() })?;
    each("SELECT bucket, key, size FROM versions", &|old_bytes| Used {
        old_versions: 1,
        old_bytes,
        ..Used::default()
    })?;
    each(
        "SELECT bucket, key, (SELECT coalesce(sum(p.size), 0) FROM upload_parts p WHERE p.upload = uploads.id)
         FROM uploads",
        &|upload_bytes| Used { uploads: 1, upload_bytes, ..Used::default() },
    )?;
    Ok(found)
}

/// Makes the upper half's file, durably.
pub(crate) fn make(
    dir: &Path,
    source: &Partition,
    plan: &Plan,
    identity: Identity,
    seal: &MetadataSeal,
) -> io::Result<Partition> {
    let path = dir.join(file_name(identity.partition));
    let unfinished = beside(&path, UNFINISHED);
    for left in ["", "-wal", "-shm"].map(|suffix| beside(&unfinished, suffix)) {
        match fs::remove_file(&left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let key = Arc::new(FileKey::generate());
    let form = Form::Sealed(SealedFile::new(Arc::clone(&key)));
    copy_database(source.connection(), &unfinished, &form)?;
    let connection = sqlite::open_writer(&unfinished, &form, MIGRATIONS, Durability::AtCheckpoint)?;
    write_upper(&connection, plan, identity).map_err(|e| io_error("writing", &unfinished, &e))?;
    sqlite::checkpoint(&connection, &unfinished)?;
    connection.close().map_err(|(_, e)| io_error("closing", &unfinished, &e))?;
    File::open(&unfinished)?.sync_all()?;
    let key_file = KeyFile::wrap(identity, &key, seal);
    key_file.store(dir)?;
    fs::rename(&unfinished, &path)?;
    sync_dir(dir)?;
    Partition::adopt(dir, key_file, key, plan.next_index)
}

fn write_upper(db: &Connection, plan: &Plan, identity: Identity) -> rusqlite::Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    db.execute(
        "UPDATE meta SET partition = ?1, database_id = ?2, next_index = ?3, versions = ?4, bytes = ?5,
                quota_versions = ?6, quota_bytes = ?7, hash_from = ?8, hash_until = ?9, clearing = ?10,
                clear_bucket = -1, clear_key = x'', clear_rank = x'', split_at = ?11,
                split_into = NULL, split_base = NULL, events = 0, events_dropped = 0",
        params![
            identity.partition.get().cast_signed(),
            identity.database_id.as_bytes(),
            plan.next_index.cast_signed(),
            plan.moved.versions,
            plan.moved.bytes,
            plan.quota.1.versions,
            plan.quota.1.bytes,
            plan.upper.from,
            plan.upper.until,
            OF_UPPER_HALF,
            plan.at,
        ],
    )?;
    let mut update = db.prepare(
        "UPDATE buckets SET objects = ?2, bytes = ?3, old_versions = ?4, old_bytes = ?5, uploads = ?6,
                upload_bytes = ?7, quota_versions = ?8, quota_bytes = ?9 WHERE no = ?1",
    )?;
    for BucketPlan { no, moved, quota: (_, quota), .. } in &plan.buckets {
        update.execute(params![
            no,
            moved.objects,
            moved.bytes,
            moved.old_versions,
            moved.old_bytes,
            moved.uploads,
            moved.upload_bytes,
            quota.versions,
            quota.bytes
        ])?;
    }
    // Garbage stays with the lower half, and so does what waits to be told; numbers of events go on in both, so that
    // those of one key go on rising.
    db.execute_batch(
        "DELETE FROM dead_contents; DELETE FROM stale_shards; DELETE FROM splits; DELETE FROM events;
         DELETE FROM event_queues; COMMIT",
    )
}

/// Leaves `source` the lower half.
pub(crate) fn keep_lower(source: &mut Partition, plan: &Plan) -> io::Result<()> {
    let path = source.path().to_owned();
    let kept = source.writer_after().and_then(|mut writer| {
        for BucketPlan { id, moved, quota: (quota, _), .. } in &plan.buckets {
            if let Ok(row) = writer.bucket(*id)? {
                row.used += -*moved;
                row.quota = *quota;
            }
        }
        writer.open.total += Stored { versions: -plan.moved.versions, bytes: -plan.moved.bytes };
        writer.open.quota = plan.quota.0;
        writer.open.range = plan.lower;
        writer.open.clearing =
            Clearing { phase: OF_LOWER_HALF, bucket: -1, split_at: plan.at, ..Clearing::default() };
        writer.open.split = None;
        Ok(())
    });
    kept.map_err(|e| io_error("splitting", &path, &e))?;
    source.commit()
}
