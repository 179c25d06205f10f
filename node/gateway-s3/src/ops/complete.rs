//! Completing a multipart upload: the client's list of parts against what was uploaded, and the checksum
//! of the whole from the parts'.

use std::collections::BTreeMap;

use holdfast_model::limits::{LIST_KEYS_MAX, PART_NUMBER_MAX};
use holdfast_object::{
    api::{ObjectError, PartInfo, UploadInfo},
    sealing::{KeyRefusal, Sealed},
    versioned::Written,
};
use http::HeaderMap;
use s3s::{
    S3Request, S3Response,
    dto::{
        ChecksumType, CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart,
        ServerSideEncryption,
    },
};

use crate::{
    errors::Refusal,
    intake::checksum::{self, Algorithm},
    ops::{
        lifecycle,
        multipart::{Declared, part_number},
        shared::{
            checksum_type, etag, fill_checksums, upload_id, version_written, write_condition, write_refused,
        },
    },
    service::Context,
    sse,
};

pub(crate) async fn complete(
    cx: Context,
    request: S3Request<CompleteMultipartUploadInput>,
) -> Result<S3Response<CompleteMultipartUploadOutput>, Refusal> {
    let condition = write_condition(&cx.call.headers)?;
    let input = request.input;
    let upload = upload_id(&input.upload_id)?;
    let listed = input.multipart_upload.as_ref().and_then(|list| list.parts.as_deref()).unwrap_or_default();
    let parts = listed_parts(listed)?;

    let begun = cx.objects.list_parts(&input.bucket, &input.key, upload, 0, LIST_KEYS_MAX).await;
    let (begun, first) = match begun {
        // A client that did not hear the answer completes again; the catalog knows what was completed so.
        Err(ObjectError::NoSuchUpload(_)) => {
            let done = cx
                .objects
                .complete_upload(
                    &input.bucket,
                    &input.key,
                    upload,
                    &parts,
                    BTreeMap::new(),
                    condition.clone(),
                )
                .await
                .map_err(|error| write_refused(error, &condition))?;
            return Ok(answer(&cx, input.bucket, input.key, &done));
        }
        begun => begun?,
    };
    let sealed = Sealed::of(&begun.attributes);
    if sse::chooses(&cx.call.headers) {
        sse::check_part(&cx.call.headers, &sealed)?;
    }
    // A client need not send its key again; one that does sends the upload's.
    if let (Some(key), Sealed::Customer(_)) = (sse::key(&cx.call.headers)?, &sealed)
        && sealed.admits(Some(&key)).is_err()
    {
        return Err(ObjectError::from(KeyRefusal::PartKey).into());
    }
    let mut stored: BTreeMap<u32, PartInfo> = BTreeMap::new();
    let mut page = first;
    loop {
        let (full, last) = (page.len() == LIST_KEYS_MAX, page.last().map_or(0, |part| part.number));
        stored.extend(page.into_iter().map(|part| (part.number, part)));
        if !full || last >= PART_NUMBER_MAX {
            break;
        }
        page = cx.objects.list_parts(&input.bucket, &input.key, upload, last, LIST_KEYS_MAX).await?.1;
    }
    check_parts(listed, &parts, &stored)?;
    check_size(input.mpu_object_size, &parts, &stored)?;
    let checksums = whole(&begun, &parts, &stored)?;
    check_whole(&input, &begun, &checksums)?;

    let done = cx
        .objects
        .complete_upload(&input.bucket, &input.key, upload, &parts, checksums, condition.clone())
        .await
        .map_err(|error| write_refused(error, &condition))?;
    Ok(answer(&cx, input.bucket, input.key, &done))
}

fn algorithm(name: &'static str) -> Option<ServerSideEncryption> {
    Some(ServerSideEncryption::from_static(name))
}

fn answer(
    cx: &Context,
    bucket: String,
    key: String,
    done: &Written,
) -> S3Response<CompleteMultipartUploadOutput> {
    let info = &done.info;
    let checksums = &info.attributes.checksums;
    let mut output = CompleteMultipartUploadOutput {
        location: Some(format!("/{bucket}/{key}")),
        e_tag: etag(&info.etag),
        checksum_type: checksum_type(checksums),
        expiration: lifecycle::header(done.expiry.as_ref()),
        version_id: version_written(done.versioned, done.version),
        ..Default::default()
    };
    let mut headers = HeaderMap::new();
    match Sealed::of(&info.attributes) {
        Sealed::Own => output.server_side_encryption = algorithm(ServerSideEncryption::AES256),
        // Spoken of to who spoke of it.
        Sealed::Customer(_) => sse::repeat_key(&cx.call.headers, &mut headers),
        Sealed::Named(named) => {
            output.server_side_encryption = algorithm(ServerSideEncryption::AWS_KMS);
            output.ssekms_key_id = Some(named.id);
            output.bucket_key_enabled = named.bucket_key.then_some(true);
        }
    }
    fill_checksums!(output, checksums);
    output.bucket = Some(bucket);
    output.key = Some(key);
    let mut response = S3Response::new(output);
    response.headers = headers;
    response
}

/// Numbers and ETags, in ascending order.
fn listed_parts(listed: &[CompletedPart]) -> Result<Vec<(u32, String)>, Refusal> {
    if listed.is_empty() || listed.len() > PART_NUMBER_MAX as usize {
        return Err(Refusal::new("MalformedXML"));
    }
    let mut parts: Vec<(u32, String)> = Vec::with_capacity(listed.len());
    for part in listed {
        let (Some(number), Some(etag)) = (part.part_number, &part.e_tag) else {
            return Err(Refusal::new("MalformedXML"));
        };
        let number = part_number(number)?;
        if parts.last().is_some_and(|(last, _)| *last >= number) {
            return Err(Refusal::new("InvalidPartOrder"));
        }
        parts.push((number, etag.value().to_owned()));
    }
    Ok(parts)
}

fn listed_checksum(part: &CompletedPart, algorithm: Algorithm) -> Option<&String> {
    match algorithm {
        Algorithm::Crc32 => part.checksum_crc32.as_ref(),
        Algorithm::Crc32c => part.checksum_crc32c.as_ref(),
        Algorithm::Crc64Nvme => part.checksum_crc64nvme.as_ref(),
        Algorithm::Sha1 => part.checksum_sha1.as_ref(),
        Algorithm::Sha256 => part.checksum_sha256.as_ref(),
    }
}

fn check_parts(
    listed: &[CompletedPart],
    parts: &[(u32, String)],
    stored: &BTreeMap<u32, PartInfo>,
) -> Result<(), Refusal> {
    for (listed, (number, etag)) in listed.iter().zip(parts) {
        let found = stored.get(number).filter(|part| part.etag == *etag);
        let same = |part: &&PartInfo| {
            Algorithm::ALL.into_iter().all(|algorithm| match listed_checksum(listed, algorithm) {
                None => true,
                Some(value) => part.checksums.get(algorithm.name()) == Some(value),
            })
        };
        if found.filter(same).is_none() {
            return Err(Refusal::new("InvalidPart")
                .with("PartNumber", number.to_string())
                .with("ETag", etag));
        }
    }
    Ok(())
}

fn check_size(
    declared: Option<i64>,
    parts: &[(u32, String)],
    stored: &BTreeMap<u32, PartInfo>,
) -> Result<(), Refusal> {
    let Some(declared) = declared else { return Ok(()) };
    let total: u64 = parts.iter().filter_map(|(number, _)| stored.get(number)).map(|part| part.size).sum();
    if u64::try_from(declared) == Ok(total) {
        return Ok(());
    }
    let said = format!(
        "The provided 'x-amz-mp-object-size' header value {declared} does not match what was computed: {total}"
    );
    Err(Refusal::because("InvalidRequest", said))
}

/// The checksum of the object, if the upload was begun with one.
fn whole(
    begun: &UploadInfo,
    parts: &[(u32, String)],
    stored: &BTreeMap<u32, PartInfo>,
) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(declared) = Declared::of(&begun.attributes) else { return Ok(implied(parts, stored)) };
    let algorithm = declared.algorithm;
    let mut values = Vec::with_capacity(parts.len());
    for (number, _) in parts {
        let part = stored.get(number).ok_or_else(|| Refusal::new("InvalidPart"))?;
        let value = part.checksums.get(algorithm.name()).and_then(|text| algorithm.decode(text)).ok_or_else(|| {
            Refusal::because(
                "InvalidRequest",
                format!(
                    "The upload was created using a {} checksum. Every part must carry one. It was missing for part {number}.",
                    algorithm.name().to_lowercase()
                ),
            )
        })?;
        values.push((value, part.size));
    }
    let value = if declared.full_object {
        checksum::full_object(algorithm, &values).ok_or_else(|| Refusal::new("InvalidRequest"))?
    } else {
        let values: Vec<Vec<u8>> = values.into_iter().map(|(value, _)| value).collect();
        checksum::composite(algorithm, &values)
    };
    Ok(BTreeMap::from([(algorithm.name().to_owned(), value)]))
}

/// The checksum of an object whose upload was begun without an algorithm, as AWS gives one: CRC64NVME of all
/// bytes. Nothing when a part has none: it was stored by an earlier release.
fn implied(parts: &[(u32, String)], stored: &BTreeMap<u32, PartInfo>) -> BTreeMap<String, String> {
    let algorithm = Algorithm::Crc64Nvme;
    let value = |(number, _): &(u32, String)| {
        let part = stored.get(number)?;
        Some((algorithm.decode(part.checksums.get(algorithm.name())?)?, part.size))
    };
    let values: Option<Vec<_>> = parts.iter().map(value).collect();
    let whole = values.and_then(|values| checksum::full_object(algorithm, &values));
    whole.map(|whole| (algorithm.name().to_owned(), whole)).into_iter().collect()
}

/// What the client says the object's checksum is.
fn check_whole(
    input: &CompleteMultipartUploadInput,
    begun: &UploadInfo,
    checksums: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let declared = Declared::of(&begun.attributes);
    if let Some(kind) = input.checksum_type.as_ref().map(ChecksumType::as_str)
        && declared.map_or(ChecksumType::FULL_OBJECT, Declared::kind) != kind
    {
        let said = format!("The upload was not created with the {kind} checksum type.");
        return Err(Refusal::because("InvalidRequest", said));
    }
    for (algorithm, said) in [
        (Algorithm::Crc32, &input.checksum_crc32),
        (Algorithm::Crc32c, &input.checksum_crc32c),
        (Algorithm::Crc64Nvme, &input.checksum_crc64nvme),
        (Algorithm::Sha1, &input.checksum_sha1),
        (Algorithm::Sha256, &input.checksum_sha256),
    ] {
        let Some(said) = said else { continue };
        let computed = checksums.get(algorithm.name()).ok_or_else(|| {
            let name = algorithm.name().to_lowercase();
            Refusal::because(
                "InvalidRequest",
                format!("The upload was not created with the {name} checksum algorithm."),
            )
        })?;
        let without_count = computed.split('-').next().unwrap_or_default();
        if said != computed && said != without_count {
            let said =
                format!("The {} you specified did not match the calculated checksum.", algorithm.name());
            return Err(Refusal::because("BadDigest", said));
        }
    }
    Ok(())
}
