//! Multipart uploads: begin, take parts, give up, list.
//!
//! An upload remembers which checksum it was begun with: its attributes hold, in place of a value, the
//! kind (`COMPOSITE`, `FULL_OBJECT`). [`super::complete`] puts the value there.

use std::collections::BTreeMap;

use holdfast_model::limits::PART_NUMBER_MAX;
use holdfast_object::{
    api::{Attributes, PutOptions},
    sealing::Sealed,
};
use s3s::{
    S3Request, S3Response,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
        CreateMultipartUploadInput, CreateMultipartUploadOutput, Initiator, ListPartsInput, ListPartsOutput,
        Owner, Part, StorageClass, UploadPartInput, UploadPartOutput,
    },
};

use crate::{
    errors::Refusal,
    intake::{checksum::Algorithm, plan},
    lists,
    ops::{
        encryption,
        list::limit,
        shared::{attributes, etag, fill_checksums, timestamp, upload_id},
        write::extras,
    },
    service::Context,
    sse,
};

/// The checksum an upload was begun with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Declared {
    pub algorithm: Algorithm,
    pub full_object: bool,
}

impl Declared {
    fn parse(
        algorithm: Option<&ChecksumAlgorithm>,
        kind: Option<&ChecksumType>,
    ) -> Result<Option<Self>, Refusal> {
        let Some(name) = algorithm.map(ChecksumAlgorithm::as_str) else {
            return match kind {
                None => Ok(None),
                Some(_) => Err(Refusal::because(
                    "InvalidRequest",
                    "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
                )),
            };
        };
        let algorithm = Algorithm::by_name(name).ok_or_else(|| {
            Refusal::because("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
        })?;
        let full_object = match kind.map(ChecksumType::as_str) {
            None => algorithm == Algorithm::Crc64Nvme,
            Some(ChecksumType::FULL_OBJECT) => true,
            Some(ChecksumType::COMPOSITE) => false,
            Some(_) => {
                return Err(Refusal::because(
                    "InvalidRequest",
                    "Value for x-amz-checksum-type header is invalid.",
                ));
            }
        };
        if full_object && !algorithm.combines() || !full_object && algorithm == Algorithm::Crc64Nvme {
            let kind = if full_object { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE };
            let name = name.to_lowercase();
            let said = format!("The {kind} checksum type cannot be used with the {name} checksum algorithm.");
            return Err(Refusal::because("InvalidRequest", said));
        }
        Ok(Some(Self { algorithm, full_object }))
    }

    pub(super) fn kind(self) -> &'static str {
        if self.full_object { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE }
    }

    /// The checksums of a part that are shown: that of the upload's algorithm, when it was begun with one.
    pub(super) fn shown(
        declared: Option<Self>,
        mut checksums: BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        if let Some(declared) = declared {
            checksums.retain(|name, _| name == declared.algorithm.name());
        }
        checksums
    }

    /// What an upload was begun with.
    pub(super) fn of(attributes: &Attributes) -> Option<Self> {
        let (name, kind) = attributes.checksums.first_key_value()?;
        Some(Self { algorithm: Algorithm::by_name(name)?, full_object: kind == ChecksumType::FULL_OBJECT })
    }
}

pub(super) fn algorithm(declared: Option<Declared>) -> Option<ChecksumAlgorithm> {
    declared.map(|declared| ChecksumAlgorithm::from_static(declared.algorithm.name()))
}

pub(super) fn kind(declared: Option<Declared>) -> Option<ChecksumType> {
    declared.map(|declared| ChecksumType::from_static(declared.kind()))
}

/// # Errors
/// `InvalidArgument` outside 1 to 10,000.
pub(super) fn part_number(number: i32) -> Result<u32, Refusal> {
    u32::try_from(number).ok().filter(|number| (1..=PART_NUMBER_MAX).contains(number)).ok_or_else(|| {
        Refusal::because("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
            .with("ArgumentName", "partNumber")
            .with("ArgumentValue", number.to_string())
    })
}

pub(crate) async fn create(
    cx: Context,
    request: S3Request<CreateMultipartUploadInput>,
) -> Result<S3Response<CreateMultipartUploadOutput>, Refusal> {
    let input = request.input;
    let declared = Declared::parse(input.checksum_algorithm.as_ref(), input.checksum_type.as_ref())?;
    let mut attributes = attributes(&cx.call.headers, input.metadata)?;
    if let Some(declared) = declared {
        attributes.checksums.insert(declared.algorithm.name().to_owned(), declared.kind().to_owned());
    }
    let extras = extras(&cx, input.tagging.as_deref())?;
    let (upload, sealed) = cx.objects.create_upload(&input.bucket, &input.key, attributes, extras).await?;
    let mut output = CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(upload.to_string()),
        checksum_algorithm: algorithm(declared),
        checksum_type: kind(declared),
        ..Default::default()
    };
    encryption::tell!(output, cx, sealed);
    Ok(S3Response::new(output))
}

pub(crate) async fn part(
    cx: Context,
    request: S3Request<UploadPartInput>,
) -> Result<S3Response<UploadPartOutput>, Refusal> {
    let input = request.input;
    let (upload, number) = (upload_id(&input.upload_id)?, part_number(input.part_number)?);
    let options = PutOptions {
        length: cx.call.plan.length,
        content_md5: plan::content_md5(&cx.call.headers)?,
        ..PutOptions::default()
    };
    if sse::chooses(&cx.call.headers) {
        let (begun, _) = cx.objects.list_parts(&input.bucket, &input.key, upload, 0, 0).await?;
        sse::check_part(&cx.call.headers, &Sealed::of(&begun.attributes))?;
    }
    let body = Box::pin(cx.call.take_content()?);
    let late = cx.call.outcome.late();
    let info =
        cx.objects.put_part(&input.bucket, &input.key, upload, number, body, options, Some(late)).await?;
    let mut output = UploadPartOutput { e_tag: etag(&info.etag), ..Default::default() };
    encryption::tell!(output, cx, info.sealed);
    fill_checksums!(output, &cx.call.outcome.checksums());
    Ok(S3Response::new(output))
}

pub(crate) async fn abort(
    cx: Context,
    request: S3Request<AbortMultipartUploadInput>,
) -> Result<S3Response<AbortMultipartUploadOutput>, Refusal> {
    let input = request.input;
    if input.if_match_initiated_time.is_some() {
        return Err(Refusal::not_implemented("A conditional abort"));
    }
    cx.objects.abort_upload(&input.bucket, &input.key, upload_id(&input.upload_id)?).await?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

pub(crate) async fn list_parts(
    cx: Context,
    request: S3Request<ListPartsInput>,
) -> Result<S3Response<ListPartsOutput>, Refusal> {
    let input = request.input;
    let limit = limit(input.max_parts, "max-parts")?;
    let after = u32::try_from(input.part_number_marker.unwrap_or(0))
        .map_err(|_| Refusal::because("InvalidArgument", "part-number-marker must not be negative."))?;
    let upload = upload_id(&input.upload_id)?;
    let (info, parts) = cx.objects.list_parts(&input.bucket, &input.key, upload, after, limit).await?;
    let more = match parts.last() {
        Some(last) if parts.len() == limit => {
            !cx.objects.list_parts(&input.bucket, &input.key, upload, last.number, 1).await?.1.is_empty()
        }
        _ => false,
    };
    let access = cx.call.access()?;
    let owner = lists::owner_of_upload(access, &access.bucket()?.facts, &info.acl);
    let declared = Declared::of(&info.attributes);
    let next = parts.last().map_or(after, |part| part.number);
    let shown = parts.into_iter().map(|part| {
        let mut shown = Part {
            part_number: i32::try_from(part.number).ok(),
            e_tag: etag(&part.etag),
            size: i64::try_from(part.size).ok(),
            last_modified: Some(timestamp(part.modified)),
            ..Default::default()
        };
        fill_checksums!(shown, &Declared::shown(declared, part.checksums));
        shown
    });
    Ok(S3Response::new(ListPartsOutput {
        parts: Some(shown.collect()),
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        initiator: Some(initiator(&owner)),
        owner: Some(owner),
        storage_class: Some(StorageClass::from(info.attributes.storage_class().to_owned())),
        part_number_marker: i32::try_from(after).ok(),
        next_part_number_marker: i32::try_from(next).ok(),
        max_parts: i32::try_from(limit).ok(),
        is_truncated: Some(more),
        checksum_algorithm: algorithm(declared),
        checksum_type: kind(declared),
        ..Default::default()
    }))
}

/// Who began an upload: taken to be who will own the object.
pub(super) fn initiator(owner: &Owner) -> Initiator {
    Initiator { id: owner.id.clone(), display_name: owner.display_name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(
        algorithm: &'static str,
        kind: Option<&'static str>,
    ) -> Result<Option<Declared>, &'static str> {
        let algorithm = ChecksumAlgorithm::from_static(algorithm);
        Declared::parse(Some(&algorithm), kind.map(ChecksumType::from_static).as_ref())
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn kinds_of_checksum_default_and_combine_as_documented() {
        let full = |algorithm, full_object| Ok(Some(Declared { algorithm, full_object }));
        assert_eq!(declared("CRC32", None), full(Algorithm::Crc32, false));
        assert_eq!(declared("CRC64NVME", None), full(Algorithm::Crc64Nvme, true));
        assert_eq!(declared("CRC32C", Some("FULL_OBJECT")), full(Algorithm::Crc32c, true));
        assert_eq!(declared("SHA256", Some("COMPOSITE")), full(Algorithm::Sha256, false));
        assert_eq!(declared("SHA256", Some("FULL_OBJECT")), Err("InvalidRequest"));
        assert_eq!(declared("CRC64NVME", Some("COMPOSITE")), Err("InvalidRequest"));
        assert_eq!(declared("MD4", None), Err("InvalidRequest"));
    }
}
