//! Multipart uploads: begin, take parts, give up, list.
//!
//! An upload remembers which checksum it was begun with: its attributes hold, in place of a value, the
//! kind (`COMPOSITE`, `FULL_OBJECT`). [`super::complete`] puts the value there.

use holdfast_model::{
    UploadId,
    limits::{LIST_KEYS_MAX, PART_NUMBER_MAX},
};
use holdfast_object::api::{Attributes, PutOptions, UploadInfo};
use s3s::{
    S3Request, S3Response,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
        CreateMultipartUploadInput, CreateMultipartUploadOutput, Initiator, ListMultipartUploadsInput,
        ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload, Owner, Part,
        StorageClass, UploadPartInput, UploadPartOutput,
    },
};

use crate::{
    errors::Refusal,
    intake::{checksum::Algorithm, plan},
    limits::GROUPING_PAGES_MAX,
    ops::{
        list::{Names, delimiter, limit},
        shared::{attributes, encryption, etag, fill_checksums, timestamp, upload_id},
    },
    service::Context,
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

    /// What an upload was begun with.
    pub(super) fn of(attributes: &Attributes) -> Option<Self> {
        let (name, kind) = attributes.checksums.first_key_value()?;
        Some(Self { algorithm: Algorithm::by_name(name)?, full_object: kind == ChecksumType::FULL_OBJECT })
    }
}

fn algorithm(declared: Option<Declared>) -> Option<ChecksumAlgorithm> {
    declared.map(|declared| ChecksumAlgorithm::from_static(declared.algorithm.name()))
}

fn kind(declared: Option<Declared>) -> Option<ChecksumType> {
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
    let upload = cx.objects.create_upload(&input.bucket, &input.key, attributes).await?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(upload.to_string()),
        checksum_algorithm: algorithm(declared),
        checksum_type: kind(declared),
        server_side_encryption: encryption(),
        ..Default::default()
    }))
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
    let body = Box::pin(cx.call.take_content()?);
    let late = cx.call.outcome.late();
    let info =
        cx.objects.put_part(&input.bucket, &input.key, upload, number, body, options, Some(late)).await?;
    let mut output = UploadPartOutput {
        e_tag: etag(&info.etag),
        server_side_encryption: encryption(),
        ..Default::default()
    };
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
        fill_checksums!(shown, &part.checksums);
        shown
    });
    Ok(S3Response::new(ListPartsOutput {
        parts: Some(shown.collect()),
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        initiator: Some(initiator(&cx.owner)),
        owner: Some(cx.owner),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        part_number_marker: i32::try_from(after).ok(),
        next_part_number_marker: i32::try_from(next).ok(),
        max_parts: i32::try_from(limit).ok(),
        is_truncated: Some(more),
        checksum_algorithm: algorithm(declared),
        checksum_type: kind(declared),
        ..Default::default()
    }))
}

fn initiator(owner: &Owner) -> Initiator {
    Initiator { id: owner.id.clone(), display_name: owner.display_name.clone() }
}

/// Uploads and groups of one page.
#[derive(Default)]
struct UploadPage {
    uploads: Vec<UploadInfo>,
    prefixes: Vec<String>,
    next: Option<(String, Option<UploadId>)>,
}

const ID_MAX: UploadId = UploadId::from_bytes([0xff; UploadId::SIZE]);

/// Gathers a page. A group is left behind as soon as it is seen: the next read starts after everything in
/// it, so one that holds a million uploads costs one read.
async fn gather(
    cx: &Context,
    bucket: &str,
    prefix: &str,
    delimiter: Option<&str>,
    mut after: Option<(String, UploadId)>,
    limit: usize,
) -> Result<UploadPage, Refusal> {
    let mut page = UploadPage::default();
    if let (Some(delimiter), Some((marker, _))) = (delimiter, &after)
        && marker.starts_with(prefix)
        && marker.ends_with(delimiter)
    {
        after = Some((after_group(marker), ID_MAX));
    }
    for _ in 0..GROUPING_PAGES_MAX {
        // One more than there is room for tells whether there is more.
        let wanted = (limit - page.uploads.len() - page.prefixes.len() + 1).min(LIST_KEYS_MAX);
        let found = cx.objects.list_uploads(bucket, prefix, after.clone(), wanted).await?;
        let last = found.len() < wanted;
        let mut grouped = false;
        for upload in found {
            if page.uploads.len() + page.prefixes.len() == limit {
                page.next = Some(marker(&page, delimiter));
                return Ok(page);
            }
            let Some(rest) = upload.key.strip_prefix(prefix) else { continue };
            let group = delimiter
                .and_then(|delimiter| rest.find(delimiter).map(|at| prefix.len() + at + delimiter.len()));
            if let Some(end) = group {
                let group = upload.key[..end].to_owned();
                after = Some((after_group(&group), ID_MAX));
                page.prefixes.push(group);
                grouped = true;
                break;
            }
            after = Some((upload.key.clone(), upload.upload));
            page.uploads.push(upload);
        }
        if last && !grouped {
            return Ok(page);
        }
    }
    page.next = Some(marker(&page, delimiter));
    Ok(page)
}

/// After every key that begins with `group`.
fn after_group(group: &str) -> String {
    format!("{group}\u{10ffff}")
}

fn marker(page: &UploadPage, delimiter: Option<&str>) -> (String, Option<UploadId>) {
    let upload = page.uploads.last().map(|upload| (upload.key.clone(), Some(upload.upload)));
    let group = page.prefixes.last().filter(|_| delimiter.is_some()).map(|group| (group.clone(), None));
    upload.max(group).unwrap_or_default()
}

pub(crate) async fn list_uploads(
    cx: Context,
    request: S3Request<ListMultipartUploadsInput>,
) -> Result<S3Response<ListMultipartUploadsOutput>, Refusal> {
    let input = request.input;
    let names = Names::new(input.encoding_type)?;
    let limit = limit(input.max_uploads, "max-uploads")?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = delimiter(&input.delimiter);
    let key_marker = input.key_marker.clone().filter(|marker| !marker.is_empty());
    let id_marker = input.upload_id_marker.as_deref().filter(|marker| !marker.is_empty());
    let after = match (key_marker, id_marker) {
        (None, _) => None,
        (Some(key), None) => Some((key, ID_MAX)),
        (Some(key), Some(id)) => {
            let id =
                id.parse().map_err(|_| Refusal::because("InvalidArgument", "Invalid uploadId marker"))?;
            Some((key, id))
        }
    };
    let page = if limit == 0 {
        cx.objects.head_bucket(&input.bucket).await?;
        UploadPage::default()
    } else {
        gather(&cx, &input.bucket, &prefix, delimiter.as_deref(), after, limit).await?
    };
    let shown = |upload: UploadInfo| {
        let declared = Declared::of(&upload.attributes);
        MultipartUpload {
            key: Some(names.show(upload.key)),
            upload_id: Some(upload.upload.to_string()),
            initiated: Some(timestamp(upload.initiated)),
            initiator: Some(initiator(&cx.owner)),
            owner: Some(cx.owner.clone()),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            checksum_algorithm: algorithm(declared),
            checksum_type: kind(declared),
        }
    };
    let (next_key, next_id) = page.next.map_or((None, None), |(key, id)| (Some(names.show(key)), id));
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: Some(names.show(prefix)),
        delimiter: input.delimiter.map(|delimiter| names.show(delimiter)),
        key_marker: Some(names.show(input.key_marker.unwrap_or_default())),
        upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
        max_uploads: i32::try_from(limit).ok(),
        is_truncated: Some(next_key.is_some()),
        next_key_marker: next_key,
        next_upload_id_marker: next_id.map(|id| id.to_string()),
        uploads: Some(page.uploads.into_iter().map(shown).collect()),
        common_prefixes: names.prefixes(page.prefixes),
        encoding_type: names.encoding(),
        request_charged: None,
    }))
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
