//! Multipart uploads: create, put part, complete, abort.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_model::{
    BucketId, UnixMillis, UploadId,
    limits::{OBJECT_SIZE_MAX, PART_NUMBER_MAX, PART_SIZE_MIN, PUT_SIZE_MAX},
};
use rusqlite::{OptionalExtension, params};

use super::{
    Step, bytes, millis,
    objects::{NewObject, check_key},
    step,
};
use crate::{
    command::{CompleteUpload, PutPart},
    partition::Writer,
    response::{CompletedUpload, Outcome, Refusal, Response},
};

/// A stored part of an upload.
struct Part {
    size: u64,
    content: i64,
    checksums: Vec<u8>,
}

pub(super) fn create(
    writer: &mut Writer<'_>,
    at: UnixMillis,
    bucket: BucketId,
    key: &str,
    upload: UploadId,
    attributes: &Bytes,
) -> rusqlite::Result<Outcome> {
    if let Err(refusal) = check_key(key) {
        return Ok(Err(refusal));
    }
    let no = step!(writer.bucket(bucket)).no;
    let known: Option<(i64, Vec<u8>)> = writer
        .db
        .prepare_cached("SELECT bucket, key FROM uploads WHERE id = ?1")?
        .query_row(params![upload.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match known {
        Some((its_bucket, its_key)) if its_bucket == no && its_key == key.as_bytes() => {
            return Ok(Ok(Response::UploadCreated));
        }
        Some(_) => {
            return Ok(Err(Refusal::Invalid(format!("{upload} is the id of an upload of another key"))));
        }
        None => {}
    }
    writer
        .db
        .prepare_cached(
            "INSERT INTO uploads (bucket, key, id, initiated, attributes) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![no, key.as_bytes(), upload.as_bytes(), millis(at), attributes.as_ref()])?;
    step!(writer.bucket(bucket)).uploads += 1;
    Ok(Ok(Response::UploadCreated))
}

impl Writer<'_> {
    /// The attributes of an upload of this key.
    fn upload(&self, bucket: i64, key: &str, upload: UploadId) -> rusqlite::Result<Option<Bytes>> {
        self.db
            .prepare_cached("SELECT attributes FROM uploads WHERE bucket = ?1 AND key = ?2 AND id = ?3")?
            .query_row(params![bucket, key.as_bytes(), upload.as_bytes()], |row| {
                row.get::<_, Vec<u8>>(0).map(Bytes::from)
            })
            .optional()
    }

    fn part(&self, upload: UploadId, number: u32) -> rusqlite::Result<Option<(u64, i64)>> {
        self.db
            .prepare_cached("SELECT size, content FROM upload_parts WHERE upload = ?1 AND number = ?2")?
            .query_row(params![upload.as_bytes(), number], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
            })
            .optional()
    }

    /// Removes the upload with its parts and returns the parts. Their contents are the caller's now.
    fn take_upload(&mut self, bucket: BucketId, key: &str, upload: UploadId) -> Step<BTreeMap<u32, Part>> {
        let parts: BTreeMap<u32, Part> = self
            .db
            .prepare_cached(
                "DELETE FROM upload_parts WHERE upload = ?1 RETURNING number, size, content, checksums",
            )?
            .query_map(params![upload.as_bytes()], |row| {
                let part = Part {
                    size: row.get::<_, i64>(1)?.cast_unsigned(),
                    content: row.get(2)?,
                    checksums: row.get(3)?,
                };
                Ok((row.get(0)?, part))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let row = step!(self.bucket(bucket));
        row.uploads -= 1;
        row.upload_bytes -= parts.values().map(|part| bytes(part.size)).sum::<i64>();
        let no = row.no;
        self.db
            .prepare_cached("DELETE FROM uploads WHERE bucket = ?1 AND key = ?2 AND id = ?3")?
            .execute(params![no, key.as_bytes(), upload.as_bytes()])?;
        Ok(Ok(parts))
    }

    /// Sizes and ETags of the parts that are there, by number.
    fn part_list(&self, upload: UploadId) -> rusqlite::Result<BTreeMap<u32, (u64, String)>> {
        self.db
            .prepare_cached("SELECT number, size, etag FROM upload_parts WHERE upload = ?1")?
            .query_map(params![upload.as_bytes()], |row| {
                Ok((row.get(0)?, (row.get::<_, i64>(1)?.cast_unsigned(), row.get(2)?)))
            })?
            .collect()
    }
}

pub(super) fn put_part(writer: &mut Writer<'_>, at: UnixMillis, put: &PutPart) -> rusqlite::Result<Outcome> {
    if put.number == 0 || put.number > PART_NUMBER_MAX {
        return Ok(Err(Refusal::Invalid(format!("part number {}", put.number))));
    }
    if put.size > PUT_SIZE_MAX {
        return Ok(Err(Refusal::TooLarge { size: put.size }));
    }
    let bucket = step!(writer.bucket(put.bucket)).no;
    if writer.upload(bucket, &put.key, put.upload)?.is_none() {
        return Ok(Err(Refusal::NoSuchUpload));
    }
    let replaced = writer.part(put.upload, put.number)?;
    if let (Some((_, content)), Some(stripe)) = (replaced, put.body.stripes().first())
        && writer.stripe_content(stripe.id)? == Some((content, false))
    {
        return Ok(Ok(Response::PartPut));
    }
    step!(writer.admit(put.size, &put.body));
    let content = writer.insert_content(put.size, &put.wrapped_key, &put.body)?;
    writer
        .db
        .prepare_cached(
            "INSERT OR REPLACE INTO upload_parts (upload, number, size, modified, content, etag, checksums)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            put.upload.as_bytes(),
            put.number,
            bytes(put.size),
            millis(at),
            content,
            put.etag,
            put.checksums.as_ref()
        ])?;
    if let Some((_, content)) = replaced {
        writer.release_content(content, at)?;
    }
    step!(writer.bucket(put.bucket)).upload_bytes +=
        bytes(put.size) - replaced.map_or(0, |(size, _)| bytes(size));
    Ok(Ok(Response::PartPut))
}

pub(super) fn complete(
    writer: &mut Writer<'_>,
    at: UnixMillis,
    complete: &CompleteUpload,
) -> rusqlite::Result<Outcome> {
    let bucket = step!(writer.bucket(complete.bucket)).no;
    let current = writer.current(bucket, &complete.key)?;
    let Some(kept_attributes) = writer.upload(bucket, &complete.key, complete.upload)? else {
        return Ok(match current {
            Some(done) if done.upload == Some(complete.upload) && done.etag == complete.etag => {
                Ok(Response::UploadCompleted(CompletedUpload {
                    version: done.version,
                    size: done.size,
                    etag: done.etag,
                    modified: done.modified,
                }))
            }
            _ => Err(Refusal::NoSuchUpload),
        });
    };
    let size = match check_parts(&complete.parts, &writer.part_list(complete.upload)?) {
        Ok(size) => size,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(refusal) = complete.condition.check(current.as_ref()) {
        return Ok(Err(refusal));
    }
    let mut version_used = writer.db.prepare_cached("SELECT 1 FROM object_parts WHERE version = ?1")?;
    if version_used.exists(params![complete.version.as_bytes()])? {
        return Ok(Err(Refusal::Invalid(format!("{} is the version of another object", complete.version))));
    }
    drop(version_used);

    let mut parts = step!(writer.take_upload(complete.bucket, &complete.key, complete.upload));
    let mut start = 0;
    for (number, _) in &complete.parts {
        let part = parts.remove(number).expect("every part named was found by check_parts above");
        writer
            .db
            .prepare_cached(
                "INSERT INTO object_parts (version, start, number, size, content, checksums)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                complete.version.as_bytes(),
                bytes(start),
                number,
                bytes(part.size),
                part.content,
                part.checksums
            ])?;
        start += part.size;
    }
    for unnamed in parts.values() {
        writer.release_content(unnamed.content, at)?;
    }
    let object = NewObject {
        key: &complete.key,
        version: complete.version,
        size,
        etag: &complete.etag,
        upload: Some(complete.upload),
        attributes: complete.attributes.as_ref().unwrap_or(&kept_attributes),
        content: 0,
    };
    step!(writer.replace(complete.bucket, at, current.as_ref(), &object));
    Ok(Ok(Response::UploadCompleted(CompletedUpload {
        version: complete.version,
        size,
        etag: complete.etag.clone(),
        modified: at,
    })))
}

/// The rules of CompleteMultipartUpload (Amazon S3 API reference). Returns the object's size in bytes.
fn check_parts(named: &[(u32, String)], there: &BTreeMap<u32, (u64, String)>) -> Result<u64, Refusal> {
    if named.is_empty() || named.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err(Refusal::InvalidPartOrder);
    }
    let mut sizes = Vec::with_capacity(named.len());
    for (number, etag) in named {
        match there.get(number) {
            Some((size, its_etag)) if its_etag == etag => sizes.push((*number, *size)),
            _ => return Err(Refusal::InvalidPart(*number)),
        }
    }
    let (_, but_last) = sizes.split_last().expect("there is at least one part, checked above");
    if let Some((number, size)) = but_last.iter().find(|(_, size)| *size < PART_SIZE_MIN) {
        return Err(Refusal::PartTooSmall { number: *number, size: *size, min: PART_SIZE_MIN });
    }
    let size = sizes.iter().map(|(_, size)| size).sum();
    if size > OBJECT_SIZE_MAX { Err(Refusal::TooLarge { size }) } else { Ok(size) }
}

pub(super) fn abort(
    writer: &mut Writer<'_>,
    at: UnixMillis,
    bucket: BucketId,
    key: &str,
    upload: UploadId,
) -> rusqlite::Result<Outcome> {
    let no = step!(writer.bucket(bucket)).no;
    if writer.upload(no, key, upload)?.is_none() {
        return Ok(Err(Refusal::NoSuchUpload));
    }
    for part in step!(writer.take_upload(bucket, key, upload)).values() {
        writer.release_content(part.content, at)?;
    }
    Ok(Ok(Response::UploadAborted))
}
