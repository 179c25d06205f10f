//! What several handlers need: attributes from headers, times, checksums, ids.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use holdfast_model::{UnixMillis, UploadId, limits::USER_METADATA_SIZE_MAX};
use holdfast_object::{
    api::{Attributes, ObjectError, STANDARD, WriteCondition},
    versioned::{VersionRef, VersionSelector},
};
use http::{HeaderMap, HeaderName, header};
use s3s::dto::{ChecksumAlgorithm, ChecksumAlgorithmList, ChecksumType, ETag, Metadata, Timestamp};

use crate::{errors::Refusal, intake::checksum::Algorithm, ops::class};

/// Standard headers that S3 keeps with an object.
const KEPT: [HeaderName; 6] = [
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::EXPIRES,
];

/// `Content-Type` of an object that came without one.
pub(crate) const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// Attributes of a new object.
///
/// # Errors
/// `MetadataTooLarge`; `InvalidArgument` for a header that is not text.
pub(crate) fn attributes(headers: &HeaderMap, metadata: Option<Metadata>) -> Result<Attributes, Refusal> {
    let mut kept = BTreeMap::new();
    for name in &KEPT {
        let Some(value) = headers.get(name) else { continue };
        let text = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Refusal::because("InvalidArgument", format!("{name} is not text.")))?;
        let text =
            if name == header::CONTENT_ENCODING { without_transfer_coding(text) } else { text.to_owned() };
        if !text.is_empty() {
            kept.insert(name.as_str().to_owned(), text);
        }
    }
    let user: BTreeMap<String, String> = metadata.unwrap_or_default().into_iter().collect();
    let size: usize = user.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > USER_METADATA_SIZE_MAX {
        let refusal = Refusal::new("MetadataTooLarge").with("Size", size.to_string());
        return Err(refusal.with("MaxSizeAllowed", USER_METADATA_SIZE_MAX.to_string()));
    }
    let mut attributes = Attributes { headers: kept, user, checksums: BTreeMap::new() };
    class_and_redirect(headers, &mut attributes)?;
    Ok(attributes)
}

/// Where a website sends who asks for the object; kept among the object's headers.
pub(crate) const REDIRECT: &str = "x-amz-website-redirect-location";

/// Longest redirect of an object in bytes (S3: 2 KiB).
const REDIRECT_SIZE_MAX: usize = 2048;

/// Storage class and redirect, which a copy never takes from its source.
///
/// # Errors
/// `InvalidStorageClass`, `NotImplemented` for a class of AWS alone, `InvalidRedirectLocation`.
pub(crate) fn class_and_redirect(headers: &HeaderMap, attributes: &mut Attributes) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    attributes.set_storage_class(text("x-amz-storage-class").map_or(Ok(STANDARD), class::check)?);
    attributes.headers.remove(REDIRECT);
    if let Some(to) = text(REDIRECT) {
        let begins = ["/", "http://", "https://"].iter().any(|begin| to.starts_with(begin));
        if !begins || to.len() > REDIRECT_SIZE_MAX {
            return Err(Refusal::new("InvalidRedirectLocation"));
        }
        attributes.headers.insert(REDIRECT.to_owned(), to.to_owned());
    }
    Ok(())
}

/// `aws-chunked` is how content travels, not what it is.
fn without_transfer_coding(codings: &str) -> String {
    let kept: Vec<&str> = codings
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    kept.join(", ")
}

/// Conditions on a write.
///
/// # Errors
/// `NotImplemented` for conditions S3 does not have on writes, as AWS answers.
pub(crate) fn write_condition(headers: &HeaderMap) -> Result<WriteCondition, Refusal> {
    let unsupported = |name: &str| {
        Refusal::because(
            "NotImplemented",
            "A header you provided implies functionality that is not implemented",
        )
        .with("Header", name)
    };
    let text =
        |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("").trim().to_owned());
    for name in [header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE] {
        if headers.contains_key(&name) {
            return Err(unsupported(name.as_str()));
        }
    }
    let if_absent = match text(header::IF_NONE_MATCH).as_deref() {
        None => false,
        Some("*") => true,
        Some(_) => return Err(unsupported("If-None-Match")),
    };
    let if_etag = match text(header::IF_MATCH) {
        None => None,
        Some(empty) if empty.is_empty() => return Err(unsupported("If-Match")),
        Some(etag) => Some(etag.trim_matches('"').to_owned()),
    };
    if if_absent && if_etag.is_some() {
        return Err(unsupported("If-Match"));
    }
    Ok(WriteCondition { if_absent, if_etag })
}

/// What a refused write is answered: a condition that does not hold is named.
pub(crate) fn write_refused(error: ObjectError, condition: &WriteCondition) -> Refusal {
    match error {
        ObjectError::PreconditionFailed => Refusal::new("PreconditionFailed")
            .with("Condition", if condition.if_absent { "If-None-Match" } else { "If-Match" }),
        other => Refusal::from(other),
    }
}

/// Milliseconds, as listings show them.
pub(crate) fn timestamp(at: UnixMillis) -> Timestamp {
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_millis(at.get()))
}

/// Whole seconds, as headers carry them and conditions compare them.
pub(crate) fn timestamp_seconds(at: UnixMillis) -> Timestamp {
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(at.get() / 1000))
}

/// An ETag as the object layer has it.
pub(crate) fn etag(text: &str) -> Option<ETag> {
    Some(ETag::Strong(text.to_owned()))
}

/// An upload id as clients name it.
///
/// # Errors
/// `NoSuchUpload` for what cannot be one.
pub(crate) fn upload_id(text: &str) -> Result<UploadId, Refusal> {
    text.parse().map_err(|_| Refusal::new("NoSuchUpload"))
}

/// A version as clients name it: `null`, or an id.
///
/// # Errors
/// `InvalidArgument` for what cannot be one.
pub(crate) fn version(named: Option<&str>) -> Result<Option<VersionSelector>, Refusal> {
    match named {
        None => Ok(None),
        Some("null") => Ok(Some(VersionSelector::Null)),
        Some(text) => text.parse().map(|id| Some(VersionSelector::Id(id))).map_err(|_| {
            let said = if text.is_empty() {
                "Version id cannot be the empty string"
            } else {
                "Invalid version id specified"
            };
            Refusal::because("InvalidArgument", said)
                .with("ArgumentName", "versionId")
                .with("ArgumentValue", text)
        }),
    }
}

/// A version as clients are told of it.
pub(crate) fn version_text(version: VersionRef) -> String {
    if version.null { "null".to_owned() } else { version.id.to_string() }
}

/// `x-amz-version-id` of an answer about an object: nothing where versioning was never enabled.
pub(crate) fn version_shown(versioned: bool, version: VersionRef) -> Option<String> {
    versioned.then(|| version_text(version))
}

/// `x-amz-version-id` of an answer about an object that was written: nothing where the version has no id.
pub(crate) fn version_written(versioned: bool, version: VersionRef) -> Option<String> {
    (versioned && !version.null).then(|| version_text(version))
}

/// The version that was looked at, to come back to it.
pub(crate) fn same_version(version: VersionRef) -> VersionSelector {
    if version.null { VersionSelector::Null } else { VersionSelector::Id(version.id) }
}

/// One checksum of a map, if it holds that algorithm.
pub(crate) fn checksum(checksums: &BTreeMap<String, String>, algorithm: Algorithm) -> Option<String> {
    checksums.get(algorithm.name()).cloned()
}

/// COMPOSITE when it is written as one (`value-N`); `None` when there is no checksum.
pub(crate) fn checksum_type(checksums: &BTreeMap<String, String>) -> Option<ChecksumType> {
    let value = Algorithm::ALL.iter().find_map(|algorithm| checksums.get(algorithm.name()))?;
    let name = if value.contains('-') { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
    Some(ChecksumType::from_static(name))
}

/// The algorithms of what is kept, for listings; `None` when there is no checksum.
pub(crate) fn checksum_algorithms(checksums: &BTreeMap<String, String>) -> Option<ChecksumAlgorithmList> {
    let kept = Algorithm::ALL.iter().filter(|algorithm| checksums.contains_key(algorithm.name()));
    let names: ChecksumAlgorithmList =
        kept.map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name())).collect();
    (!names.is_empty()).then_some(names)
}

/// Fills the five checksum fields of an output of the protocol library.
macro_rules! fill_checksums {
    ($output:expr, $checksums:expr) => {{
        use crate::{intake::checksum::Algorithm as Each, ops::shared::checksum as value};
        let checksums = $checksums;
        $output.checksum_crc32 = value(checksums, Each::Crc32);
        $output.checksum_crc32c = value(checksums, Each::Crc32c);
        $output.checksum_crc64nvme = value(checksums, Each::Crc64Nvme);
        $output.checksum_sha1 = value(checksums, Each::Sha1);
        $output.checksum_sha256 = value(checksums, Each::Sha256);
    }};
}
pub(crate) use fill_checksums;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_framing_of_the_transfer_is_not_kept_as_an_encoding_of_the_content() {
        let kept = |value: &str| attributes(&headers(&[("content-encoding", value)]), None).unwrap().headers;
        assert!(kept("aws-chunked").is_empty());
        assert_eq!(kept("aws-chunked, gzip")["content-encoding"], "gzip");
        assert_eq!(kept("deflate, gzip")["content-encoding"], "deflate, gzip");
    }

    #[test]
    fn metadata_beyond_its_limit_is_refused() {
        let metadata = |size: usize| Some(Metadata::from([("k".to_owned(), "v".repeat(size))]));
        assert!(attributes(&HeaderMap::new(), metadata(USER_METADATA_SIZE_MAX - 1)).is_ok());
        let refused = attributes(&HeaderMap::new(), metadata(USER_METADATA_SIZE_MAX)).unwrap_err();
        assert_eq!(refused.code, "MetadataTooLarge");
    }

    #[test]
    fn write_conditions_that_s3_does_not_have_are_refused() {
        let condition = |name, value| write_condition(&headers(&[(name, value)]));
        assert!(condition("if-none-match", "*").unwrap().if_absent);
        assert_eq!(condition("if-match", "\"e\"").unwrap().if_etag.as_deref(), Some("e"));
        for (name, value) in [("if-none-match", "\"e\""), ("if-match", ""), ("if-modified-since", "x")] {
            assert_eq!(condition(name, value).unwrap_err().code, "NotImplemented", "{name}: {value}");
        }
    }
}
