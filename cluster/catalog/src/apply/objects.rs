//! Objects: put and delete.

use bytes::Bytes;
use holdfast_model::{
    BucketId, UnixMillis, UploadId, VersionId,
    limits::{DELETE_KEYS_MAX, KEY_SIZE_MAX, PUT_SIZE_MAX},
};
use rusqlite::{OptionalExtension, params};

use super::{Step, bytes, millis, step};
use crate::{
    command::{Condition, DeleteItem, PutObject},
    partition::Writer,
    response::{Outcome, Refusal, Response},
};

/// The object at a key, as far as writes need it.
pub(super) struct Current {
    pub(super) version: VersionId,
    pub(super) size: u64,
    pub(super) modified: UnixMillis,
    pub(super) etag: String,
    pub(super) upload: Option<UploadId>,
    content: i64,
}

/// An object about to be written.
pub(super) struct NewObject<'a> {
    pub(super) key: &'a str,
    pub(super) version: VersionId,
    pub(super) size: u64,
    pub(super) etag: &'a str,
    pub(super) upload: Option<UploadId>,
    pub(super) attributes: &'a Bytes,
    /// Content number, or 0 when it is made of parts.
    pub(super) content: i64,
}

pub(super) fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > KEY_SIZE_MAX {
        return Err(Refusal::Invalid(format!("key of {} bytes", key.len())));
    }
    Ok(())
}

impl Condition {
    pub(super) fn check(&self, current: Option<&Current>) -> Result<(), Refusal> {
        if self.if_absent && current.is_some() {
            return Err(Refusal::PreconditionFailed);
        }
        check_etag(self.if_etag.as_deref(), current)
    }
}

fn check_etag(expected: Option<&str>, current: Option<&Current>) -> Result<(), Refusal> {
    match (expected, current) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Refusal::NoSuchKey),
        (Some(etag), Some(current)) if etag == current.etag => Ok(()),
        (Some(_), Some(_)) => Err(Refusal::PreconditionFailed),
    }
}

impl Writer<'_> {
    pub(super) fn current(&self, bucket: i64, key: &str) -> rusqlite::Result<Option<Current>> {
        self.db
            .prepare_cached(
                "SELECT version, size, modified, etag, upload, content FROM objects WHERE bucket = ?1 AND key = ?2",
            )?
            .query_row(params![bucket, key.as_bytes()], |row| {
                Ok(Current {
                    version: VersionId::from_bytes(row.get(0)?),
                    size: row.get::<_, i64>(1)?.cast_unsigned(),
                    modified: UnixMillis::new(row.get::<_, i64>(2)?.cast_unsigned()),
                    etag: row.get(3)?,
                    upload: row.get::<_, Option<_>>(4)?.map(UploadId::from_bytes),
                    content: row.get(5)?,
                })
            })
            .optional()
    }

    /// Writes an object in the place of `current`, which is let go of.
    pub(super) fn replace(
        &mut self,
        bucket: BucketId,
        at: UnixMillis,
        current: Option<&Current>,
        object: &NewObject<'_>,
    ) -> Step<()> {
        let row = step!(self.bucket(bucket));
        row.objects += i64::from(current.is_none());
        row.bytes += bytes(object.size) - current.map_or(0, |c| bytes(c.size));
        let bucket = row.no;
        if let Some(current) = current {
            self.release_object(current, at)?;
        }
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO objects
                 (bucket, key, version, size, modified, content, etag, upload, attributes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                bucket,
                object.key.as_bytes(),
                object.version.as_bytes(),
                bytes(object.size),
                millis(at),
                object.content,
                object.etag,
                object.upload.as_ref().map(UploadId::as_bytes),
                object.attributes.as_ref()
            ])?;
        Ok(Ok(()))
    }

    fn release_object(&mut self, object: &Current, at: UnixMillis) -> rusqlite::Result<()> {
        if object.content != 0 {
            return self.release_content(object.content, at);
        }
        let contents: Vec<i64> = self
            .db
            .prepare_cached("DELETE FROM object_parts WHERE version = ?1 RETURNING content")?
            .query_map(params![object.version.as_bytes()], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        contents.into_iter().try_for_each(|content| self.release_content(content, at))
    }
}

pub(super) fn put(writer: &mut Writer<'_>, at: UnixMillis, put: &PutObject) -> rusqlite::Result<Outcome> {
    if let Err(refusal) = check_key(&put.key) {
        return Ok(Err(refusal));
    }
    if put.size > PUT_SIZE_MAX {
        return Ok(Err(Refusal::TooLarge { size: put.size }));
    }
    let bucket = step!(writer.bucket(put.bucket)).no;
    let current = writer.current(bucket, &put.key)?;
    if let Some(current) = current.as_ref().filter(|c| c.version == put.version) {
        return Ok(Ok(Response::ObjectPut { modified: current.modified }));
    }
    if let Err(refusal) = put.condition.check(current.as_ref()) {
        return Ok(Err(refusal));
    }
    step!(writer.admit(put.size, &put.body));
    let content = writer.insert_content(put.size, &put.wrapped_key, &put.body)?;
    let object = NewObject {
        key: &put.key,
        version: put.version,
        size: put.size,
        etag: &put.etag,
        upload: None,
        attributes: &put.attributes,
        content,
    };
    step!(writer.replace(put.bucket, at, current.as_ref(), &object));
    Ok(Ok(Response::ObjectPut { modified: at }))
}

pub(super) fn delete(
    writer: &mut Writer<'_>,
    at: UnixMillis,
    bucket: BucketId,
    items: &[DeleteItem],
) -> rusqlite::Result<Outcome> {
    if items.len() > DELETE_KEYS_MAX {
        return Ok(Err(Refusal::Invalid(format!("{} keys in one delete", items.len()))));
    }
    step!(writer.bucket(bucket));
    let mut answers = Vec::with_capacity(items.len());
    for item in items {
        answers.push(delete_one(writer, at, bucket, item)?);
    }
    Ok(Ok(Response::ObjectsDeleted(answers)))
}

fn delete_one(
    writer: &mut Writer<'_>,
    at: UnixMillis,
    bucket: BucketId,
    item: &DeleteItem,
) -> Step<Option<VersionId>> {
    let no = step!(writer.bucket(bucket)).no;
    let current = writer.current(no, &item.key)?;
    if let Err(refusal) = check_etag(item.if_etag.as_deref(), current.as_ref()) {
        return Ok(Err(refusal));
    }
    let Some(current) = current else { return Ok(Ok(None)) };
    writer.release_object(&current, at)?;
    writer
        .db
        .prepare_cached("DELETE FROM objects WHERE bucket = ?1 AND key = ?2")?
        .execute(params![no, item.key.as_bytes()])?;
    let row = step!(writer.bucket(bucket));
    row.objects -= 1;
    row.bytes -= bytes(current.size);
    Ok(Ok(Some(current.version)))
}
