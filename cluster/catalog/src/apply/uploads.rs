//! Multipart uploads: create, put part, complete, abort.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_model::{
    BucketId, UploadId,
    limits::{OBJECT_SIZE_MAX, PART_NUMBER_MAX, PUT_SIZE_MAX},
};
use rusqlite::{OptionalExtension, params};

use super::{
    Step, bytes,
    events::Told,
    millis,
    objects::{check_extras, check_key},
    step,
    versions::NewObject,
};
use crate::{
    command::{CompleteUpload, PutPart, decode, encode},
    events::EventKind,
    partition::Writer,
    protect::ObjectExtras,
    response::{CompletedUpload, Outcome, Refusal, Response},
    rows::malformed,
    used::Used,
};

/// A stored part of an upload.
struct Part {
    size: u64,
    content: i64,
    checksums: Vec<u8>,
}

pub(super) fn create(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    key: &str,
    upload: UploadId,
    attributes: &Bytes,
    extras: &ObjectExtras,
) -> rusqlite::Result<Outcome> {
    if let Err(refusal) = check_key(key) {
        return Ok(Err(refusal));
    }
    let row = *step!(writer.bucket(bucket));
    if let Err(refusal) = check_extras(&row, extras) {
        return Ok(Err(refusal));
    }
    let no = row.no;
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
    step!(writer.charge(bucket, Used { uploads: 1, ..Used::default() }));
    writer
        .db
        .prepare_cached(
            "INSERT INTO uploads (bucket, key, id, initiated, attributes, extras) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            no,
            key.as_bytes(),
            upload.as_bytes(),
            millis(writer.now),
            attributes.as_ref(),
            encode(extras).as_ref()
        ])?;
    Ok(Ok(Response::UploadCreated))
}

impl Writer<'_> {
    /// What an upload of this key keeps for its object.
    fn upload(
        &self,
        bucket: i64,
        key: &str,
        upload: UploadId,
    ) -> rusqlite::Result<Option<(Bytes, ObjectExtras)>> {
        self.db
            .prepare_cached(
                "SELECT attributes, extras FROM uploads WHERE bucket = ?1 AND key = ?2 AND id = ?3",
            )?
            .query_row(params![bucket, key.as_bytes(), upload.as_bytes()], |row| {
                let extras = decode(row.get_ref(1)?.as_blob()?).map_err(|_| malformed(1, "extras"))?;
                Ok((row.get::<_, Vec<u8>>(0)?.into(), extras))
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

    /// Removes the upload with its parts and returns the parts. Their contents are the caller's now, who has
    /// counted the change.
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
        let no = step!(self.bucket(bucket)).no;
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

pub(super) fn put_part(writer: &mut Writer<'_>, put: &PutPart) -> rusqlite::Result<Outcome> {
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
    let upload_bytes = bytes(put.size) - replaced.map_or(0, |(size, _)| bytes(size));
    step!(writer.charge(put.bucket, Used { upload_bytes, ..Used::default() }));
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
            millis(writer.now),
            content,
            put.etag,
            put.checksums.as_ref()
        ])?;
    if let Some((_, content)) = replaced
        && !holdfast_planted::is("ReplacedPartsStay")
    {
        writer.release_content(content)?;
    }
    Ok(Ok(Response::PartPut))
}

pub(super) fn complete(writer: &mut Writer<'_>, complete: &CompleteUpload) -> rusqlite::Result<Outcome> {
    let bucket = *step!(writer.bucket(complete.bucket));
    let current = writer.current(bucket.no, &complete.key)?;
    let Some((kept_attributes, extras)) = writer.upload(bucket.no, &complete.key, complete.upload)? else {
        return Ok(match current {
            Some(done) if done.upload == Some(complete.upload) && done.etag == complete.etag => {
                Ok(Response::UploadCompleted(CompletedUpload {
                    version: done.shown(),
                    size: done.size,
                    etag: done.etag,
                    modified: done.modified,
                }))
            }
            _ => Err(Refusal::NoSuchUpload),
        });
    };
    let there = writer.part_list(complete.upload)?;
    let size = match check_parts(&complete.parts, &there, writer.part_size_min) {
        Ok(size) => size,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(refusal) = complete.condition.check(current.as_ref()) {
        return Ok(Err(refusal));
    }
    let plan = writer.plan(&bucket, &complete.key, complete.version, current.as_ref())?;
    let mut version_used = writer.db.prepare_cached("SELECT 1 FROM object_parts WHERE version = ?1")?;
    if version_used.exists(params![plan.version.as_bytes()])? {
        return Ok(Err(Refusal::Invalid(format!("{} is the version of another object", plan.version))));
    }
    drop(version_used);
    // The bytes are counted already, as the upload's: only a version more can be too much.
    let upload_bytes = -there.values().map(|(size, _)| bytes(*size)).sum::<i64>();
    let upload = Used { uploads: -1, upload_bytes, ..Used::default() };
    step!(writer.charge_plan(complete.bucket, &plan, size, false, upload));

    let mut parts = step!(writer.take_upload(complete.bucket, &complete.key, complete.upload));
    let mut start = 0;
    let count = complete.parts.len();
    for at in 0..count {
        let (number, _) =
            &complete.parts[if holdfast_planted::is("PartsInReverse") { count - 1 - at } else { at }];
        let part = parts.remove(number).expect("every part named was found by check_parts above");
        writer
            .db
            .prepare_cached(
                "INSERT INTO object_parts (version, start, number, size, content, checksums)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                plan.version.as_bytes(),
                bytes(start),
                number,
                bytes(part.size),
                part.content,
                part.checksums
            ])?;
        start += part.size;
    }
    for unnamed in parts.values().filter(|_| !holdfast_planted::is("UnnamedPartsStay")) {
        writer.release_content(unnamed.content)?;
    }
    let object = NewObject {
        key: &complete.key,
        size,
        etag: &complete.etag,
        upload: Some(complete.upload),
        attributes: complete.attributes.as_ref().unwrap_or(&kept_attributes),
        extras: &extras,
        content: 0,
    };
    let version = writer.write_object(&bucket, &plan, &object)?;
    let content = Some((size, complete.etag.as_str()));
    let told = Told { kind: EventKind::CompleteUpload, key: &complete.key, version, content };
    writer.tell(complete.bucket, &told)?;
    Ok(Ok(Response::UploadCompleted(CompletedUpload {
        version,
        size,
        etag: complete.etag.clone(),
        modified: writer.now,
    })))
}

/// The rules of CompleteMultipartUpload (Amazon S3 API reference). Returns the object's size in bytes.
fn check_parts(
    named: &[(u32, String)],
    there: &BTreeMap<u32, (u64, String)>,
    min: u64,
) -> Result<u64, Refusal> {
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
    if let Some((number, size)) = but_last.iter().find(|(_, size)| *size < min) {
        return Err(Refusal::PartTooSmall { number: *number, size: *size, min });
    }
    let size = sizes.iter().map(|(_, size)| size).sum();
    if size > OBJECT_SIZE_MAX { Err(Refusal::TooLarge { size }) } else { Ok(size) }
}

pub(super) fn abort(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    key: &str,
    upload: UploadId,
) -> rusqlite::Result<Outcome> {
    let no = step!(writer.bucket(bucket)).no;
    if writer.upload(no, key, upload)?.is_none() {
        return Ok(Err(Refusal::NoSuchUpload));
    }
    let upload_bytes = -writer.part_list(upload)?.values().map(|(size, _)| bytes(*size)).sum::<i64>();
    step!(writer.charge(bucket, Used { uploads: -1, upload_bytes, ..Used::default() }));
    for part in step!(writer.take_upload(bucket, key, upload)).values() {
        if !holdfast_planted::is("AbortKeepsParts") {
            writer.release_content(part.content)?;
        }
    }
    Ok(Ok(Response::UploadAborted))
}
