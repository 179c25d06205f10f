//! Objects out: GET and HEAD of the current object or a version, whole, in ranges, by part.

use std::{collections::BTreeMap, ops::Range};

use futures::StreamExt;
use holdfast_model::limits::PART_NUMBER_MAX;
use holdfast_object::{
    api::{BodyError, ObjectError, ObjectInfo, RangeChoice},
    versioned::{VersionInfo, VersionSelector},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use s3s::{
    S3Request, S3Response,
    dto::{
        ChecksumMode, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
        Range as RangeHeader, StorageClass, StreamingBlob,
    },
};

use crate::{
    errors::Refusal,
    ops::{
        class,
        condition::{Conditions, range_wanted},
        encryption, lifecycle, lock,
        shared::{
            DEFAULT_CONTENT_TYPE, REDIRECT, checksum_type, etag, fill_checksums, same_version,
            timestamp_seconds, version, version_shown,
        },
    },
    service::Context,
    sse,
};

/// How many tags an object has.
const TAGGING_COUNT: HeaderName = HeaderName::from_static("x-amz-tagging-count");

/// What of the object is asked for, as the client wrote it.
#[derive(Debug, Clone, Copy)]
struct Asked {
    range: Option<RangeHeader>,
    part: Option<u32>,
}

/// What of the object is answered.
struct Window {
    choice: RangeChoice,
    /// Answered as a range of the whole.
    ranged: bool,
    /// Parts of the object, when one was asked for.
    parts: Option<usize>,
    /// The part's checksums in place of the object's.
    checksums: Option<BTreeMap<String, String>>,
}

impl Asked {
    fn parse(range: Option<RangeHeader>, part: Option<i32>) -> Result<Self, Refusal> {
        if range.is_some() && part.is_some() {
            return Err(Refusal::because(
                "InvalidRequest",
                "Cannot specify both Range header and partNumber query parameter",
            ));
        }
        let number = |part: i32| {
            u32::try_from(part).ok().filter(|part| (1..=PART_NUMBER_MAX).contains(part)).ok_or_else(|| {
                let said = "Part number must be an integer between 1 and 10000, inclusive";
                Refusal::because("InvalidArgument", said)
                    .with("ArgumentName", "partNumber")
                    .with("ArgumentValue", part.to_string())
            })
        };
        Ok(Self { range, part: part.map(number).transpose()? })
    }

    /// What can be told without knowing the object.
    fn window(&self) -> Window {
        let choice = match self.range {
            None => RangeChoice::All,
            Some(RangeHeader::Int { first, last: Some(last) }) => RangeChoice::FromTo(first, last),
            Some(RangeHeader::Int { first, last: None }) => RangeChoice::From(first),
            Some(RangeHeader::Suffix { length }) => RangeChoice::Last(length),
        };
        Window { choice, ranged: self.range.is_some(), parts: None, checksums: None }
    }

    /// What is answered about this version.
    async fn window_of(
        &self,
        cx: &Context,
        (bucket, key): (&str, &str),
        found: &VersionInfo,
    ) -> Result<Window, Refusal> {
        let all = Window { choice: RangeChoice::All, ranged: false, parts: None, checksums: None };
        let Some(number) = self.part else {
            return Ok(if range_wanted(&cx.call.headers, &found.info) { self.window() } else { all });
        };
        let page = cx.objects.parts(bucket, key, Some(same_version(found.version)), number - 1, 1).await?;
        if page.count == 0 {
            // Put whole, it is one part, and not counted.
            return match number {
                1 => Ok(Window { ranged: found.info.size > 0, ..all }),
                _ => Err(Refusal::new("InvalidPartNumber")),
            };
        }
        let part = page.parts.into_iter().find(|part| part.number == number);
        let part = part.ok_or_else(|| Refusal::new("InvalidPartNumber"))?;
        let choice = match part.size {
            0 => RangeChoice::All,
            size => RangeChoice::FromTo(part.offset, part.offset + size - 1),
        };
        let (ranged, parts) = (part.size > 0, Some(page.count));
        Ok(Window { choice, ranged, parts, checksums: Some(part.checksums) })
    }

    /// Whether the object has to be known before it is read.
    fn depends(&self, headers: &HeaderMap) -> bool {
        self.part.is_some() || headers.contains_key(header::IF_RANGE)
    }

    fn refuse(&self, error: ObjectError) -> Refusal {
        let ObjectError::RangeNotSatisfiable { size } = error else { return Refusal::from(error) };
        let asked = self.range.map(|range| range.to_header_string()).unwrap_or_default();
        Refusal::new("InvalidRange")
            .with("RangeRequested", asked)
            .with("ActualObjectSize", size.to_string())
            .with_header(header::CONTENT_RANGE, &format!("bytes */{size}"))
    }
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

fn content_length(range: &Range<u64>) -> Option<i64> {
    i64::try_from(range.end - range.start).ok()
}

/// Headers that the library has no field for, or would not write as they were kept: `Expires` need not be a
/// date.
fn raw_headers(info: &ObjectInfo, overridden: bool, tags: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let kept = info.attributes.headers.get(header::EXPIRES.as_str()).filter(|_| !overridden);
    if let Some(value) = kept.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok()) {
        headers.insert(header::EXPIRES, value);
    }
    if tags > 0 {
        headers.insert(TAGGING_COUNT, HeaderValue::from(tags));
    }
    headers
}

fn wants_checksums(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

/// The fields that GET and HEAD share.
macro_rules! describe {
    ($output:ident, $cx:ident, $input:ident, $found:expr, $window:expr, $range:expr) => {{
        let (found, window) = (&$found, &$window);
        let info = &found.info;
        let kept = |name: &str| info.attributes.headers.get(name).cloned();
        $output.accept_ranges = Some("bytes".to_owned());
        $output.cache_control = $input.response_cache_control.or_else(|| kept("cache-control"));
        $output.content_disposition =
            $input.response_content_disposition.or_else(|| kept("content-disposition"));
        $output.content_encoding = $input.response_content_encoding.or_else(|| kept("content-encoding"));
        $output.content_language = $input.response_content_language.or_else(|| kept("content-language"));
        $output.content_type = $input
            .response_content_type
            .or_else(|| kept("content-type"))
            .or_else(|| Some(DEFAULT_CONTENT_TYPE.to_owned()));
        $output.content_length = content_length(&$range);
        $output.content_range = window.ranged.then(|| content_range(&$range, info.size));
        $output.e_tag = etag(&info.etag);
        $output.expires = $input.response_expires;
        $output.last_modified = Some(timestamp_seconds(info.modified));
        $output.metadata = Some(info.attributes.user.clone().into_iter().collect());
        $output.parts_count = window.parts.and_then(|count| i32::try_from(count).ok());
        $output.expiration = lifecycle::header(found.expiry.as_ref());
        $output.storage_class = class::shown(&info.attributes).map(StorageClass::from_static);
        $output.website_redirect_location = kept(REDIRECT);
        encryption::tell!($output, $cx, Sealed::of(&info.attributes));
        $output.version_id = version_shown(found.versioned, found.version);
        lock::describe!($output, found.extras);
        if wants_checksums($input.checksum_mode.as_ref()) {
            if let Some(checksums) = &window.checksums {
                $output.checksum_type = checksum_type(&info.attributes.checksums);
                fill_checksums!($output, checksums);
            } else if !$range.is_empty() && $range.end - $range.start == info.size || info.size == 0 {
                $output.checksum_type = checksum_type(&info.attributes.checksums);
                fill_checksums!($output, &info.attributes.checksums);
            }
        }
    }};
}

pub(crate) async fn get(
    cx: Context,
    request: S3Request<GetObjectInput>,
) -> Result<S3Response<GetObjectOutput>, Refusal> {
    let input = request.input;
    let (bucket, key) = (&input.bucket, &input.key);
    let mut selector = version(input.version_id.as_deref())?;
    let asked = Asked::parse(input.range, input.part_number)?;
    let conditions = Conditions::of_read(&cx.call.headers);
    let mut window = asked.window();
    let mut seen = None;
    if conditions.any() || asked.depends(&cx.call.headers) {
        // Before the range, and before any content is read for an answer that has none.
        let found = cx.objects.head(bucket, key, selector).await?;
        sse::admit(&cx.call.headers, &found.info.attributes)?;
        conditions.check(&found.info)?;
        window = asked.window_of(&cx, (bucket, key), &found).await?;
        if asked.depends(&cx.call.headers) {
            selector = Some(same_version(found.version));
            seen = Some(found.version);
        }
    }
    let found = cx.objects.get(bucket, key, selector, window.choice).await;
    let (found, range, body) = found.map_err(|error| asked.refuse(error))?;
    if seen.is_some_and(|seen| seen != found.version) {
        // The null version was replaced in between: its parts are not those that were looked at.
        return Err(Refusal::new("ServiceUnavailable"));
    }
    // It may have been replaced in between: what is answered is what was judged.
    conditions.check(&found.info)?;
    let mut output = GetObjectOutput::default();
    let headers = raw_headers(&found.info, input.response_expires.is_some(), found.extras.tags.len());
    describe!(output, cx, input, found, window, range);
    let frames = body.map(|item: Result<_, BodyError>| item.map(http_body::Frame::data));
    output.body =
        Some(StreamingBlob::from(s3s::Body::http_body_unsync(http_body_util::StreamBody::new(frames))));
    Ok(S3Response::with_headers(output, headers))
}

pub(crate) async fn head(
    cx: Context,
    request: S3Request<HeadObjectInput>,
) -> Result<S3Response<HeadObjectOutput>, Refusal> {
    let input = request.input;
    let (bucket, key) = (&input.bucket, &input.key);
    let selector: Option<VersionSelector> = version(input.version_id.as_deref())?;
    let asked = Asked::parse(input.range, input.part_number)?;
    let found = cx.objects.head(bucket, key, selector).await?;
    sse::admit(&cx.call.headers, &found.info.attributes)?;
    Conditions::of_read(&cx.call.headers).check(&found.info)?;
    let window = asked.window_of(&cx, (bucket, key), &found).await?;
    let range = window.choice.resolve(found.info.size).map_err(|error| asked.refuse(error))?;
    let mut output = HeadObjectOutput::default();
    let headers = raw_headers(&found.info, input.response_expires.is_some(), found.extras.tags.len());
    describe!(output, cx, input, found, window, range);
    Ok(S3Response::with_headers(output, headers))
}
