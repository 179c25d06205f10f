//! Buckets and their counters.

use holdfast_model::{BucketId, UnixMillis};
use rusqlite::{OptionalExtension, params};

use super::{Step, millis, step};
use crate::{
    partition::{BucketRow, Writer},
    response::{Outcome, Refusal, Response},
};

impl Writer<'_> {
    /// The bucket's number and counters. Changes made to it are written when the transaction commits.
    pub(crate) fn bucket(&mut self, id: BucketId) -> Step<&mut BucketRow> {
        use std::collections::hash_map::Entry;
        let row = match self.open.buckets.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let row = self
                    .db
                    .prepare_cached(
                        "SELECT no, objects, bytes, uploads, upload_bytes FROM buckets WHERE id = ?1",
                    )?
                    .query_row(params![id.as_bytes()], |row| {
                        Ok(BucketRow {
                            no: row.get(0)?,
                            objects: row.get(1)?,
                            bytes: row.get(2)?,
                            uploads: row.get(3)?,
                            upload_bytes: row.get(4)?,
                        })
                    })
                    .optional()?;
                unknown.insert(row)
            }
        };
        Ok(row.as_mut().ok_or(Refusal::NoSuchBucket))
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
    at: UnixMillis,
    bucket: BucketId,
    name: &str,
) -> rusqlite::Result<Outcome> {
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
    writer
        .db
        .prepare_cached(
            "INSERT INTO buckets (no, id, name, created, objects, bytes, uploads, upload_bytes)
             VALUES (?1, ?2, ?3, ?4, 0, 0, 0, 0)",
        )?
        .execute(params![no, bucket.as_bytes(), name, millis(at)])?;
    let row = BucketRow { no, objects: 0, bytes: 0, uploads: 0, upload_bytes: 0 };
    writer.open.buckets.insert(bucket, Some(row));
    Ok(Ok(Response::BucketCreated))
}

pub(super) fn delete(writer: &mut Writer<'_>, name: &str) -> rusqlite::Result<Outcome> {
    let Some(bucket) = writer.bucket_named(name)? else { return Ok(Err(Refusal::NoSuchBucket)) };
    let row = *step!(writer.bucket(bucket));
    if row.objects > 0 || row.uploads > 0 {
        return Ok(Err(Refusal::BucketNotEmpty));
    }
    writer.db.prepare_cached("DELETE FROM buckets WHERE no = ?1")?.execute(params![row.no])?;
    writer.open.buckets.insert(bucket, None);
    Ok(Ok(Response::BucketDeleted))
}
