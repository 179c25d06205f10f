//! Objects out: GET, HEAD, attributes.

use std::ops::Range;

use futures::StreamExt;
use holdfast_object::api::{BodyError, ObjectError, ObjectInfo, RangeChoice};
use http::{HeaderMap, HeaderValue, header};
use s3s::{
    S3Request, S3Response,
    dto::{
        Checksum, ChecksumMode, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectInput,
        GetObjectOutput, HeadObjectInput, HeadObjectOutput, ObjectAttributes, Range as RangeHeader,
        StorageClass, StreamingBlob,
    },
};

use crate::{
    errors::Refusal,
    ops::{
        condition::Conditions,
        shared::{
            DEFAULT_CONTENT_TYPE, checksum_type, encryption, etag, fill_checksums, only_null_version,
            timestamp_seconds,
        },
    },
    service::Context,
};

fn choice(range: Option<RangeHeader>, part: Option<i32>) -> Result<RangeChoice, Refusal> {
    if range.is_some() && part.is_some() {
        return Err(Refusal::because(
            "InvalidRequest",
            "Cannot specify both Range header and partNumber query parameter",
        ));
    }
    match part {
        None | Some(1) => {}
        Some(number) if number < 1 => {
            return Err(Refusal::because(
                "InvalidArgument",
                "Part number must be an integer between 1 and 10000, inclusive",
            ));
        }
        Some(_) => return Err(Refusal::new("InvalidPartNumber")),
    }
    Ok(match range {
        None => RangeChoice::All,
        Some(RangeHeader::Int { first, last: Some(last) }) => RangeChoice::FromTo(first, last),
        Some(RangeHeader::Int { first, last: None }) => RangeChoice::From(first),
        Some(RangeHeader::Suffix { length }) => RangeChoice::Last(length),
    })
}

/// A part of a multipart object can be asked for by number; where the parts lie is not kept yet.
fn check_part(part: Option<i32>, info: &ObjectInfo) -> Result<(), Refusal> {
    if part.is_some() && info.etag.contains('-') {
        Err(Refusal::not_implemented("partNumber of a multipart object"))
    } else {
        Ok(())
    }
}

fn refuse_range(error: ObjectError, range: Option<RangeHeader>) -> Refusal {
    let ObjectError::RangeNotSatisfiable { size } = error else { return Refusal::from(error) };
    let asked = range.map(|range| range.to_header_string()).unwrap_or_default();
    Refusal::new("InvalidRange")
        .with("RangeRequested", asked)
        .with("ActualObjectSize", size.to_string())
        .with_header(header::CONTENT_RANGE, &format!("bytes */{size}"))
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

fn content_length(range: &Range<u64>) -> Option<i64> {
    i64::try_from(range.end - range.start).ok()
}

/// `Expires` is kept as the client wrote it, which need not be a date.
fn raw_headers(info: &ObjectInfo, overridden: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let kept = info.attributes.headers.get(header::EXPIRES.as_str()).filter(|_| !overridden);
    if let Some(value) = kept.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok()) {
        headers.insert(header::EXPIRES, value);
    }
    headers
}

fn wants_checksums(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

/// The fields that GET and HEAD share.
macro_rules! describe {
    ($output:ident, $info:expr, $ranged:expr, $range:expr, $checksums:expr) => {{
        let kept = |name: &str| $info.attributes.headers.get(name).cloned();
        $output.accept_ranges = Some("bytes".to_owned());
        $output.cache_control = kept("cache-control");
        $output.content_disposition = kept("content-disposition");
        $output.content_encoding = kept("content-encoding");
        $output.content_language = kept("content-language");
        $output.content_type = kept("content-type").or_else(|| Some(DEFAULT_CONTENT_TYPE.to_owned()));
        $output.content_length = content_length(&$range);
        $output.content_range = $ranged.then(|| content_range(&$range, $info.size));
        $output.e_tag = etag(&$info.etag);
        $output.last_modified = Some(timestamp_seconds($info.modified));
        $output.metadata = Some($info.attributes.user.clone().into_iter().collect());
        $output.server_side_encryption = encryption();
        if $checksums && !$ranged {
            $output.checksum_type = checksum_type(&$info.attributes.checksums);
            fill_checksums!($output, &$info.attributes.checksums);
        }
    }};
}

pub(crate) async fn get(
    cx: Context,
    request: S3Request<GetObjectInput>,
) -> Result<S3Response<GetObjectOutput>, Refusal> {
    let input = request.input;
    only_null_version(input.version_id.as_deref())?;
    let choice = choice(input.range, input.part_number)?;
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    if conditions.any() {
        // Before the range, and before any content is read for an answer that has none.
        conditions.check(&cx.objects.head(&input.bucket, &input.key).await?)?;
    }
    let found = cx.objects.get(&input.bucket, &input.key, choice).await;
    let (info, range, body) = found.map_err(|error| refuse_range(error, input.range))?;
    // It may have been replaced in between: what is answered is what was judged.
    conditions.check(&info)?;
    check_part(input.part_number, &info)?;
    let ranged = input.range.is_some();
    let mut output = GetObjectOutput::default();
    describe!(output, info, ranged, range, wants_checksums(input.checksum_mode.as_ref()));
    let frames = body.map(|item: Result<_, BodyError>| item.map(http_body::Frame::data));
    output.body =
        Some(StreamingBlob::from(s3s::Body::http_body_unsync(http_body_util::StreamBody::new(frames))));
    Ok(S3Response::with_headers(output, raw_headers(&info, input.response_expires.is_some())))
}

pub(crate) async fn head(
    cx: Context,
    request: S3Request<HeadObjectInput>,
) -> Result<S3Response<HeadObjectOutput>, Refusal> {
    let input = request.input;
    only_null_version(input.version_id.as_deref())?;
    let choice = choice(input.range, input.part_number)?;
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    let info = cx.objects.head(&input.bucket, &input.key).await?;
    conditions.check(&info)?;
    check_part(input.part_number, &info)?;
    let range = choice.resolve(info.size).map_err(|error| refuse_range(error, input.range))?;
    let ranged = input.range.is_some();
    let mut output = HeadObjectOutput::default();
    describe!(output, info, ranged, range, wants_checksums(input.checksum_mode.as_ref()));
    Ok(S3Response::with_headers(output, raw_headers(&info, input.response_expires.is_some())))
}

pub(crate) async fn attributes(
    cx: Context,
    request: S3Request<GetObjectAttributesInput>,
) -> Result<S3Response<GetObjectAttributesOutput>, Refusal> {
    let input = request.input;
    only_null_version(input.version_id.as_deref())?;
    let info = cx.objects.head(&input.bucket, &input.key).await?;
    let asked = |name: &str| input.object_attributes.iter().any(|attribute| attribute.as_str() == name);
    if asked(ObjectAttributes::OBJECT_PARTS) && info.etag.contains('-') {
        return Err(Refusal::not_implemented("ObjectParts of a multipart object"));
    }
    let mut output = GetObjectAttributesOutput {
        last_modified: Some(timestamp_seconds(info.modified)),
        ..Default::default()
    };
    output.e_tag = etag(&info.etag).filter(|_| asked(ObjectAttributes::ETAG));
    output.object_size = i64::try_from(info.size).ok().filter(|_| asked(ObjectAttributes::OBJECT_SIZE));
    output.storage_class =
        asked(ObjectAttributes::STORAGE_CLASS).then(|| StorageClass::from_static(StorageClass::STANDARD));
    if asked(ObjectAttributes::CHECKSUM) && !info.attributes.checksums.is_empty() {
        let mut checksum =
            Checksum { checksum_type: checksum_type(&info.attributes.checksums), ..Default::default() };
        fill_checksums!(checksum, &info.attributes.checksums);
        output.checksum = Some(checksum);
    }
    Ok(S3Response::new(output))
}
