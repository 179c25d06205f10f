//! Copies on the server: whole objects, and ranges into parts of an upload.
//!
//! The source's conditions are judged on what the catalog says when the copy begins; should it be replaced
//! before its content is read, the copy has the newer content.

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt;
use holdfast_model::limits::PUT_SIZE_MAX;
use holdfast_object::api::{Attributes, Body, BodyError, ObjectInfo, PutOptions, RangeChoice};
use s3s::{
    S3Request, S3Response,
    dto::{
        CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource, MetadataDirective,
        Range, UploadPartCopyInput, UploadPartCopyOutput,
    },
};

use crate::{
    errors::Refusal,
    intake::{Fault, Intake, Outcome, checksum::Algorithm},
    ops::{
        condition::Conditions,
        multipart::{Declared, part_number},
        shared::{
            attributes, checksum_type, encryption, etag, fill_checksums, only_null_version, timestamp,
            upload_id, write_condition,
        },
    },
    service::Context,
};

fn source(source: CopySource) -> Result<(String, String), Refusal> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            only_null_version(version_id.as_deref())?;
            Ok((bucket.into(), key.into()))
        }
        CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => {
            Err(Refusal::not_implemented("An access point as source"))
        }
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
        None => Algorithm::ALL.into_iter().find(composite),
    }
}

pub(crate) async fn copy(
    cx: Context,
    request: S3Request<CopyObjectInput>,
) -> Result<S3Response<CopyObjectOutput>, Refusal> {
    let condition = write_condition(&cx.call.headers)?;
    let input = request.input;
    let (from_bucket, from_key) = source(input.copy_source)?;
    let replace = match input.metadata_directive.as_ref().map(MetadataDirective::as_str) {
        None | Some(MetadataDirective::COPY) => false,
        Some(MetadataDirective::REPLACE) => true,
        Some(_) => return Err(Refusal::because("InvalidArgument", "Unknown metadata directive.")),
    };
    let asked = match &input.checksum_algorithm {
        None => None,
        Some(name) => Some(Algorithm::by_name(name.as_str()).ok_or_else(|| {
            Refusal::because("InvalidRequest", "Checksum algorithm provided is unsupported.")
        })?),
    };
    if !replace && asked.is_none() && from_bucket == input.bucket && from_key == input.key {
        return Err(Refusal::because(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes.",
        ));
    }
    let conditions = Conditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    let found = cx.objects.head(&from_bucket, &from_key).await?;
    conditions.check_source(&found)?;
    check_size(found.size)?;
    let missing = missing_checksum(asked, &found);
    let fresh = if replace { Some(attributes(&cx.call.headers, input.metadata)?) } else { None };
    let info = match missing {
        None => {
            let fresh =
                fresh.map(|fresh| Attributes { checksums: found.attributes.checksums.clone(), ..fresh });
            cx.objects.copy((&from_bucket, &from_key), (&input.bucket, &input.key), fresh, condition).await?
        }
        Some(algorithm) => {
            let (found, range, body) = cx.objects.get(&from_bucket, &from_key, RangeChoice::All).await?;
            let attributes = fresh.unwrap_or(Attributes { checksums: BTreeMap::new(), ..found.attributes });
            let options = PutOptions {
                length: Some(range.end - range.start),
                content_md5: None,
                attributes,
                condition,
            };
            let outcome = Arc::new(Outcome::default());
            let body = hashed(body, algorithm, &outcome);
            let mut info =
                cx.objects.put(&input.bucket, &input.key, body, options, Some(outcome.late())).await?;
            info.attributes.checksums = outcome.checksums();
            info
        }
    };
    let mut result = CopyObjectResult {
        e_tag: etag(&info.etag),
        last_modified: Some(timestamp(info.modified)),
        checksum_type: checksum_type(&info.attributes.checksums),
        ..Default::default()
    };
    fill_checksums!(result, &info.attributes.checksums);
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(result),
        server_side_encryption: encryption(),
        ..Default::default()
    }))
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
    let (from_bucket, from_key) = source(input.copy_source)?;
    let (begun, _) = cx.objects.list_parts(&input.bucket, &input.key, upload, 0, 1).await?;
    let conditions = Conditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    let found = cx.objects.head(&from_bucket, &from_key).await?;
    conditions.check_source(&found)?;
    let choice = part_range(input.copy_source_range.as_deref(), found.size)?;
    let (_, range, body) = cx.objects.get(&from_bucket, &from_key, choice).await?;
    let length = range.end - range.start;
    check_size(length)?;
    let outcome = Arc::new(Outcome::default());
    let body = match Declared::of(&begun.attributes) {
        Some(declared) => hashed(body, declared.algorithm, &outcome),
        None => body,
    };
    let options = PutOptions { length: Some(length), ..PutOptions::default() };
    let late = Some(outcome.late());
    let info = cx.objects.put_part(&input.bucket, &input.key, upload, number, body, options, late).await?;
    let mut result = CopyPartResult {
        e_tag: etag(&info.etag),
        last_modified: Some(timestamp(info.modified)),
        ..Default::default()
    };
    fill_checksums!(result, &outcome.checksums());
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(result),
        server_side_encryption: encryption(),
        ..Default::default()
    }))
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
