//! Copies on the server: whole objects, and ranges into parts of an upload.
//!
//! The source's conditions are judged on what the catalog says when the copy begins; should it be replaced
//! before its content is read, the copy has the newer content.

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt;
use holdfast_model::limits::PUT_SIZE_MAX;
use holdfast_object::{
    api::{Attributes, Body, BodyError, ObjectError, ObjectInfo, PutOptions, RangeChoice},
    versioned::{VersionInfo, VersionSelector},
};
use http::HeaderMap;
use s3s::{
    S3Request, S3Response,
    dto::{
        CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource, MetadataDirective,
        Range, TaggingDirective, UploadPartCopyInput, UploadPartCopyOutput,
    },
};

use crate::{
    errors::Refusal,
    intake::{Fault, Intake, Outcome, checksum::Algorithm},
    ops::{
        condition::Conditions,
        encryption, lifecycle,
        multipart::{Declared, part_number},
        shared::{
            REDIRECT, attributes, checksum_type, class_and_redirect, etag, fill_checksums, same_version,
            timestamp, upload_id, version, version_shown, version_written, write_condition, write_refused,
        },
        write::extras,
    },
    service::Context,
    sse,
};

/// What a copy reads.
struct Source {
    bucket: String,
    key: String,
    version: Option<VersionSelector>,
}

impl Source {
    fn parse(source: CopySource) -> Result<Self, Refusal> {
        match source {
            CopySource::Bucket { bucket, key, version_id } => {
                if key.is_empty() {
                    let said = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey";
                    return Err(
                        Refusal::because("InvalidArgument", said).with("ArgumentName", "x-amz-copy-source")
                    );
                }
                let version = version(version_id.as_deref())?;
                Ok(Self { bucket: bucket.into(), key: key.into(), version })
            }
            CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => {
                Err(Refusal::not_implemented("An access point as source"))
            }
        }
    }

    /// What is there now, when the client's conditions on it hold.
    async fn look(&self, cx: &Context) -> Result<VersionInfo, Refusal> {
        let found = match cx.source.head(&self.bucket, &self.key, self.version).await {
            Err(ObjectError::DeleteMarker { named: true, .. }) => {
                return Err(Refusal::because(
                    "InvalidRequest",
                    "The source of a copy request may not specifically refer to a delete marker by version id.",
                ));
            }
            found => found?,
        };
        Conditions::of_source(&cx.call.headers).check_source(&found.info)?;
        Ok(found)
    }
}

fn check_size(size: u64) -> Result<(), Refusal> {
    if size <= PUT_SIZE_MAX {
        return Ok(());
    }
    let said = format!(
        "The specified copy source is larger than the maximum allowable size for a copy source: {PUT_SIZE_MAX}"
    );
    Err(Refusal::because("InvalidRequest", said))
}

/// A body whose checksum is known to `outcome` when it has passed.
fn hashed(body: Body, algorithm: Algorithm, outcome: &Arc<Outcome>) -> Body {
    let source = body.map(|item| {
        item.map_err(|error| match error {
            BodyError::Storage(said) => Fault::Storage(said),
            other => Fault::Storage(other.to_string()),
        })
    });
    Box::pin(Intake::computing(Box::pin(source), algorithm, Arc::clone(outcome)))
}

/// Which checksum the copy needs that the source's record does not hold.
fn missing_checksum(asked: Option<Algorithm>, source: &ObjectInfo) -> Option<Algorithm> {
    let kept = &source.attributes.checksums;
    let composite =
        |algorithm: &Algorithm| kept.get(algorithm.name()).is_some_and(|value| value.contains('-'));
    match asked {
        Some(algorithm) if kept.contains_key(algorithm.name()) && !composite(&algorithm) => None,
        Some(algorithm) => Some(algorithm),
        // The copy is one piece: what was the checksum of parts is not its checksum.
        None if kept.is_empty() => Some(Algorithm::Crc64Nvme),
        None => Algorithm::ALL.into_iter().find(composite),
    }
}

/// `COPY` (also when nothing is said) is `false`, `REPLACE` is `true`.
fn replaces(directive: Option<&str>, what: &str) -> Result<bool, Refusal> {
    match directive {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(other) => Err(Refusal::because("InvalidArgument", format!("Unknown {what} directive."))
            .with("ArgumentName", format!("x-amz-{what}-directive"))
            .with("ArgumentValue", other)),
    }
}

/// Whether a copy asks for something else than its source has, by header alone.
fn changes(headers: &HeaderMap) -> bool {
    [sse::ALGORITHM, sse::CUSTOMER_ALGORITHM, "x-amz-storage-class", REDIRECT]
        .iter()
        .any(|name| headers.contains_key(*name))
}

pub(crate) async fn copy(
    cx: Context,
    request: S3Request<CopyObjectInput>,
) -> Result<S3Response<CopyObjectOutput>, Refusal> {
    let condition = write_condition(&cx.call.headers)?;
    let input = request.input;
    let source = Source::parse(input.copy_source)?;
    let replace = replaces(input.metadata_directive.as_ref().map(MetadataDirective::as_str), "metadata")?;
    let retag = replaces(input.tagging_directive.as_ref().map(TaggingDirective::as_str), "tagging")?;
    let asked = match &input.checksum_algorithm {
        None => None,
        Some(name) => Some(Algorithm::by_name(name.as_str()).ok_or_else(|| {
            Refusal::because("InvalidRequest", "Checksum algorithm provided is unsupported.")
        })?),
    };
    let itself = source.bucket == input.bucket && source.key == input.key && source.version.is_none();
    if itself && !replace && asked.is_none() && !changes(&cx.call.headers) {
        return Err(Refusal::because(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes.",
        ));
    }
    let fresh = if replace { Some(attributes(&cx.call.headers, input.metadata)?) } else { None };
    let mut extras = extras(&cx, input.tagging.as_deref().filter(|_| retag))?;
    let seen = source.look(&cx).await?;
    check_size(seen.info.size)?;
    let selector = Some(same_version(seen.version));
    let copied = cx.source.for_copying();
    let (found, range, body) = copied.get(&source.bucket, &source.key, selector, RangeChoice::All).await?;
    if !retag {
        extras.tags.clone_from(&found.extras.tags);
    }
    let missing = missing_checksum(asked, &found.info);
    let kept = match missing {
        None => found.info.attributes.checksums.clone(),
        Some(_) => BTreeMap::new(),
    };
    let mut base = fresh.unwrap_or_else(|| found.info.attributes.clone());
    class_and_redirect(&cx.call.headers, &mut base)?;
    let options = PutOptions {
        length: Some(range.end - range.start),
        content_md5: None,
        attributes: Attributes { checksums: kept, ..base },
        condition: condition.clone(),
    };
    let outcome = Arc::new(Outcome::default());
    let (body, late) = match missing {
        None => (body, None),
        Some(algorithm) => (hashed(body, algorithm, &outcome), Some(outcome.late())),
    };
    let written = cx.objects.put(&input.bucket, &input.key, body, options, extras, late).await;
    let written = written.map_err(|error| write_refused(error, &condition))?;
    let checksums = &written.info.attributes.checksums;
    let mut result = CopyObjectResult {
        e_tag: etag(&written.info.etag),
        last_modified: Some(timestamp(written.info.modified)),
        checksum_type: checksum_type(checksums),
        ..Default::default()
    };
    fill_checksums!(result, checksums);
    let mut output = CopyObjectOutput {
        copy_object_result: Some(result),
        copy_source_version_id: version_shown(found.versioned, found.version),
        expiration: lifecycle::header(written.expiry.as_ref()),
        version_id: version_written(written.versioned, written.version),
        ..Default::default()
    };
    encryption::tell!(output, cx, Sealed::of(&written.info.attributes));
    Ok(S3Response::new(output))
}

/// `bytes=first-last`, both given and both inside the source.
fn part_range(header: Option<&str>, size: u64) -> Result<RangeChoice, Refusal> {
    let Some(header) = header else { return Ok(RangeChoice::All) };
    let Ok(Range::Int { first, last: Some(last) }) = Range::parse(header) else {
        let said = "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
                    zero-based offsets of the first and last bytes to copy";
        return Err(Refusal::because("InvalidArgument", said)
            .with("ArgumentName", "x-amz-copy-source-range")
            .with("ArgumentValue", header));
    };
    if last >= size {
        let said = format!("Range specified is not valid for source object of size: {size}");
        return Err(Refusal::because("InvalidArgument", said)
            .with("ArgumentName", "x-amz-copy-source-range")
            .with("ArgumentValue", header));
    }
    Ok(RangeChoice::FromTo(first, last))
}

pub(crate) async fn part(
    cx: Context,
    request: S3Request<UploadPartCopyInput>,
) -> Result<S3Response<UploadPartCopyOutput>, Refusal> {
    let input = request.input;
    let (upload, number) = (upload_id(&input.upload_id)?, part_number(input.part_number)?);
    let source = Source::parse(input.copy_source)?;
    let (begun, _) = cx.objects.list_parts(&input.bucket, &input.key, upload, 0, 1).await?;
    let seen = source.look(&cx).await?;
    let choice = part_range(input.copy_source_range.as_deref(), seen.info.size)?;
    let selector = Some(same_version(seen.version));
    let (found, range, body) =
        cx.source.for_copying().get(&source.bucket, &source.key, selector, choice).await?;
    let length = range.end - range.start;
    check_size(length)?;
    let outcome = Arc::new(Outcome::default());
    let algorithm =
        Declared::of(&begun.attributes).map_or(Algorithm::Crc64Nvme, |declared| declared.algorithm);
    let body = hashed(body, algorithm, &outcome);
    let options = PutOptions { length: Some(length), ..PutOptions::default() };
    let late = Some(outcome.late());
    let info = cx.objects.put_part(&input.bucket, &input.key, upload, number, body, options, late).await?;
    let mut result = CopyPartResult {
        e_tag: etag(&info.etag),
        last_modified: Some(timestamp(info.modified)),
        ..Default::default()
    };
    fill_checksums!(result, &outcome.checksums());
    let mut output = UploadPartCopyOutput {
        copy_part_result: Some(result),
        copy_source_version_id: version_shown(found.versioned, found.version),
        ..Default::default()
    };
    encryption::tell!(output, cx, info.sealed);
    Ok(S3Response::new(output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_copied_only_from_bytes_that_are_there() {
        assert_eq!(part_range(None, 10), Ok(RangeChoice::All));
        assert_eq!(part_range(Some("bytes=0-9"), 10), Ok(RangeChoice::FromTo(0, 9)));
        for wrong in ["bytes=0-10", "bytes=0-", "bytes=-5", "0-5", "bytes=5-3"] {
            assert_eq!(part_range(Some(wrong), 10).unwrap_err().code, "InvalidArgument", "{wrong}");
        }
    }
}
