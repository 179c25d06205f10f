//! Every refusal the gateway answers: its code, status and words, in one table; and what each error of
//! the object layer and of a body becomes.
//!
//! Codes and messages are those AWS documents ("Error responses", Amazon S3 API reference) or answers.

use std::borrow::Cow;

use holdfast_model::UnixMillis;
use holdfast_object::{
    api::{BodyError, ObjectError},
    sealing::KeyRefusal,
    versioned::{BucketStateRule, VersionRef},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use s3s::{S3Error, S3ErrorCode, dto::TimestampFormat};

use crate::{
    call::CALL,
    intake::Fault,
    ops::shared::{timestamp_seconds, version_text},
};

/// An S3 error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `<Code>`; a row of [`TABLE`].
    pub code: &'static str,
    /// `<Message>`; the table's when empty.
    pub message: Cow<'static, str>,
    /// Further elements, such as `Region`.
    pub extra: Vec<(&'static str, String)>,
    /// Headers of the answer, such as `ETag` of a 304.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Code, status and usual words.
pub const TABLE: &[(&str, u16, &str)] = &[
    ("AccessControlListNotSupported", 400, "The bucket does not allow ACLs"),
    ("AccessDenied", 403, "Access Denied"),
    ("AccessForbidden", 403, "CORSResponse: CORS is not enabled for this bucket."),
    ("AuthorizationHeaderMalformed", 400, "The authorization header that you provided is not valid."),
    (
        "AuthorizationQueryParametersError",
        400,
        "The authorization query parameters that you provided are not valid.",
    ),
    ("BadDigest", 400, "The Content-MD5 you specified did not match what we received."),
    ("BadRequest", 400, "Bad Request"),
    ("BucketAlreadyExists", 409, "The requested bucket name is not available."),
    (
        "BucketAlreadyOwnedByYou",
        409,
        "Your previous request to create the named bucket succeeded and you already own it.",
    ),
    ("BucketNotEmpty", 409, "The bucket you tried to delete is not empty"),
    ("EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed size"),
    ("EntityTooSmall", 400, "Your proposed upload is smaller than the minimum allowed size"),
    ("ExpiredToken", 400, "The provided token has expired."),
    ("IllegalVersioningConfigurationException", 400, "The Versioning element must be specified"),
    (
        "IncompleteBody",
        400,
        "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    ),
    ("InsufficientStorage", 507, "There is no space left to store this safely."),
    ("InternalError", 500, "We encountered an internal error. Please try again."),
    ("InvalidAccessKeyId", 403, "The AWS Access Key Id you provided does not exist in our records."),
    ("InvalidArgument", 400, "Invalid Argument"),
    (
        "InvalidBucketAclWithObjectOwnership",
        400,
        "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
    ),
    ("InvalidBucketName", 400, "The specified bucket is not valid."),
    ("InvalidBucketState", 409, "The request is not valid with the current state of the bucket."),
    ("InvalidDigest", 400, "The Content-MD5 you specified was invalid."),
    ("InvalidEncryptionAlgorithmError", 400, "The encryption request you specified is not valid."),
    ("InvalidLocationConstraint", 400, "The specified location-constraint is not valid"),
    (
        "InvalidPart",
        400,
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.",
    ),
    ("InvalidPartNumber", 416, "The requested partnumber is not satisfiable"),
    (
        "InvalidPartOrder",
        400,
        "The list of parts was not in ascending order. Parts must be ordered by part number.",
    ),
    (
        "InvalidPolicyDocument",
        400,
        "The content of the form does not meet the conditions specified in the policy document.",
    ),
    ("InvalidRange", 416, "The requested range is not satisfiable"),
    (
        "InvalidRedirectLocation",
        400,
        "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.",
    ),
    ("InvalidRequest", 400, "Invalid Request"),
    ("InvalidRetentionPeriod", 400, "The retention period is not valid."),
    ("InvalidS3DestinationBucket", 400, "Invalid bucket ARN"),
    ("InvalidStorageClass", 400, "The storage class you specified is not valid"),
    ("InvalidTag", 400, "The tag provided was not a valid tag."),
    ("InvalidTargetBucketForLogging", 400, "The target bucket for logging does not exist"),
    ("InvalidToken", 400, "The provided token is malformed or otherwise invalid."),
    ("InvalidURI", 400, "Couldn't parse the specified URI."),
    ("KMS.NotFoundException", 400, "The key does not exist."),
    ("KeyTooLongError", 400, "Your key is too long"),
    (
        "MalformedACLError",
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    ("MalformedPOSTRequest", 400, "The body of your POST request is not well-formed multipart/form-data."),
    ("MalformedPolicy", 400, "Policy has invalid syntax."),
    (
        "MalformedTrailerError",
        400,
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
    ),
    (
        "MalformedXML",
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    ("MaxMessageLengthExceeded", 400, "Your request was too big."),
    (
        "MaxPostPreDataLengthExceeded",
        400,
        "Your POST request fields preceding the upload file were too large.",
    ),
    ("MetadataTooLarge", 400, "Your metadata headers exceed the maximum allowed metadata size"),
    ("MethodNotAllowed", 405, "The specified method is not allowed against this resource."),
    ("MissingContentLength", 411, "You must provide the Content-Length HTTP header."),
    ("MissingRequestBodyError", 400, "Request Body is empty"),
    ("MissingSecurityHeader", 400, "Your request was missing a required header"),
    ("NoSuchBucket", 404, "The specified bucket does not exist"),
    ("NoSuchBucketPolicy", 404, "The bucket policy does not exist"),
    ("NoSuchCORSConfiguration", 404, "The CORS configuration does not exist"),
    ("NoSuchConfiguration", 404, "The specified configuration does not exist."),
    ("NoSuchKey", 404, "The specified key does not exist."),
    ("NoSuchLifecycleConfiguration", 404, "The lifecycle configuration does not exist"),
    ("NoSuchObjectLockConfiguration", 404, "The specified object does not have a ObjectLock configuration"),
    ("NoSuchPublicAccessBlockConfiguration", 404, "The public access block configuration was not found"),
    ("NoSuchTagSet", 404, "The TagSet does not exist"),
    (
        "NoSuchUpload",
        404,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
    ),
    ("NoSuchVersion", 404, "The specified version does not exist."),
    ("NoSuchWebsiteConfiguration", 404, "The specified bucket does not have a website configuration"),
    ("NotImplemented", 501, "A header or query you provided implies functionality that is not implemented."),
    ("NotModified", 304, "Not Modified"),
    ("ObjectLockConfigurationNotFoundError", 404, "Object Lock configuration does not exist for this bucket"),
    ("OwnershipControlsNotFoundError", 404, "The bucket ownership controls were not found"),
    ("PreconditionFailed", 412, "At least one of the pre-conditions you specified did not hold"),
    ("QuotaExceeded", 403, "The quota of the bucket or of its owner is used up."),
    ("ReplicationConfigurationNotFoundError", 404, "The replication configuration was not found"),
    ("RequestHeaderSectionTooLarge", 400, "Your request header section exceeds the maximum allowed size."),
    (
        "RequestTimeTooSkewed",
        403,
        "The difference between the request time and the current time is too large.",
    ),
    (
        "RequestTimeout",
        400,
        "Your socket connection to the server was not read from or written to within the timeout period.",
    ),
    ("ServiceUnavailable", 503, "Please reduce your request rate."),
    (
        "SignatureDoesNotMatch",
        403,
        "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
    ),
    ("SlowDown", 503, "Please reduce your request rate."),
    ("TooManyConfigurations", 400, "The bucket has 1,000 configurations, which is as many as it can have."),
    ("UnexpectedContent", 400, "This request does not support content"),
    (
        "UnresolvableGrantByEmailAddress",
        400,
        "The email address you provided does not match any account on record.",
    ),
    (
        "UserKeyMustBeSpecified",
        400,
        "The bucket POST must contain the specified field name. If it is specified, check the order of the fields.",
    ),
    (
        "XAmzContentSHA256Mismatch",
        400,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
];

/// Status and usual words of a code. A code outside the table is a client error of ours to add.
#[must_use]
pub fn lookup(code: &str) -> Option<(StatusCode, &'static str)> {
    let at = TABLE.binary_search_by_key(&code, |row| row.0).ok()?;
    let (_, status, message) = TABLE[at];
    Some((StatusCode::from_u16(status).ok()?, message))
}

impl Refusal {
    /// With the table's words.
    #[must_use]
    pub fn new(code: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(""), extra: Vec::new(), headers: Vec::new() }
    }

    /// With words of its own.
    #[must_use]
    pub fn because(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), extra: Vec::new(), headers: Vec::new() }
    }

    /// With one more element.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.extra.push((name, value.into()));
        self
    }

    /// With one more header. A value that cannot be one is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// `NotImplemented`, naming what was asked for.
    #[must_use]
    pub fn not_implemented(what: &str) -> Self {
        Self::because("NotImplemented", format!("{what} is not implemented."))
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        lookup(self.code).map_or(StatusCode::INTERNAL_SERVER_ERROR, |row| row.0)
    }

    /// The words.
    #[must_use]
    pub fn text(&self) -> &str {
        if self.message.is_empty() { lookup(self.code).map_or("", |row| row.1) } else { &self.message }
    }
}

impl From<Refusal> for S3Error {
    /// For the way through the protocol library. The refusal itself is left with the call, whose answer is
    /// made from it: the library's type has no room for further elements.
    fn from(refusal: Refusal) -> Self {
        let code = S3ErrorCode::from_bytes(refusal.code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
        let mut error = Self::with_message(code, refusal.text().to_owned());
        error.set_status_code(refusal.status());
        // Outside a call, as in tests, there is nowhere to leave it.
        let _ = CALL.try_with(|call| *call.refusal.lock() = Some(refusal));
        error
    }
}

impl From<ObjectError> for Refusal {
    fn from(error: ObjectError) -> Self {
        let said = error.to_string();
        match error {
            ObjectError::NoSuchBucket(_) => Self::new("NoSuchBucket"),
            ObjectError::BucketAlreadyOwnedByYou(_) => Self::new("BucketAlreadyOwnedByYou"),
            ObjectError::BucketNotEmpty(_) => Self::new("BucketNotEmpty"),
            ObjectError::NoSuchKey(_) => Self::new("NoSuchKey"),
            ObjectError::DeleteMarker { version, modified, named, .. } => marker(version, modified, named),
            ObjectError::NothingToChange(_) => Self::new("MethodNotAllowed"),
            ObjectError::NoSuchVersion(_) => Self::new("NoSuchVersion"),
            ObjectError::Locked(_) => {
                Self::because("AccessDenied", "Access Denied because object protected by object lock.")
            }
            ObjectError::BucketState(BucketStateRule::NoObjectLock) => {
                Self::because("InvalidRequest", "Bucket is missing Object Lock Configuration")
            }
            ObjectError::BucketState(_) => Self::because("InvalidBucketState", said),
            ObjectError::NoSuchDocument => Self::because("InvalidRequest", said),
            ObjectError::QuotaExceeded { .. } => Self::because("QuotaExceeded", said),
            ObjectError::NoSuchUpload(_) => Self::new("NoSuchUpload"),
            ObjectError::InvalidPart(_) => Self::new("InvalidPart"),
            ObjectError::InvalidPartOrder => Self::new("InvalidPartOrder"),
            ObjectError::PartTooSmall { .. } => Self::new("EntityTooSmall"),
            ObjectError::TooLarge(_) => Self::new("EntityTooLarge"),
            ObjectError::PreconditionFailed => Self::new("PreconditionFailed"),
            ObjectError::RangeNotSatisfiable { .. } => Self::new("InvalidRange"),
            ObjectError::InvalidArgument(_) => Self::because("InvalidArgument", said),
            ObjectError::Body(body) => Self::from(&body),
            ObjectError::Key(refusal) => Self::from(refusal),
            ObjectError::Unavailable(_) => Self::because("ServiceUnavailable", said),
            ObjectError::NoSpace(_) => Self::new("InsufficientStorage"),
            ObjectError::Damaged(_) | ObjectError::Internal(_) => {
                tracing::error!(error = %said, "object layer failed");
                Self::new("InternalError")
            }
        }
    }
}

/// A delete marker where an object was asked for: 404 when it is current, 405 when it was named.
fn marker(version: VersionRef, modified: UnixMillis, named: bool) -> Refusal {
    let refusal = if named { Refusal::new("MethodNotAllowed") } else { Refusal::new("NoSuchKey") }
        .with_header(HeaderName::from_static("x-amz-delete-marker"), "true")
        .with_header(HeaderName::from_static("x-amz-version-id"), &version_text(version));
    if !named {
        return refusal;
    }
    let mut date = Vec::new();
    // Only an out-of-range year cannot be written; the header is then left out.
    let _ = timestamp_seconds(modified).format(TimestampFormat::HttpDate, &mut date);
    refusal
        .with("ResourceType", "DeleteMarker")
        .with_header(header::ALLOW, "DELETE")
        .with_header(header::LAST_MODIFIED, &String::from_utf8_lossy(&date))
}

impl From<KeyRefusal> for Refusal {
    fn from(refusal: KeyRefusal) -> Self {
        match refusal {
            KeyRefusal::Needed => Self::because(
                "InvalidRequest",
                "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.",
            ),
            KeyRefusal::Differs => Self::new("AccessDenied"),
            KeyRefusal::NotApplicable => Self::because(
                "InvalidRequest",
                "The encryption parameters are not applicable to this object.",
            ),
            KeyRefusal::PartKey => Self::because(
                "InvalidRequest",
                "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate encryption parameters.",
            ),
            KeyRefusal::NoSuchKey(id) => {
                Self::because("KMS.NotFoundException", format!("Key '{id}' does not exist"))
            }
        }
    }
}

impl From<&BodyError> for Refusal {
    /// For body errors that the object layer found; the gateway's own are [`Fault`]s.
    fn from(error: &BodyError) -> Self {
        match error {
            BodyError::Length { .. } => Self::new("IncompleteBody"),
            BodyError::Mismatch(_) => Self::new("BadDigest"),
            BodyError::Broken(_) => Self::new("RequestTimeout"),
            BodyError::Storage(said) => {
                tracing::error!(error = %said, "content could not be read");
                Self::new("InternalError")
            }
        }
    }
}

impl From<&Fault> for Refusal {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::Length { declared, received } => Self::new("IncompleteBody")
                .with("NumberBytesExpected", declared.to_string())
                .with("NumberBytesProvided", received.to_string()),
            Fault::TooLong(max) => {
                Self::new("MaxMessageLengthExceeded").with("MaxMessageLengthBytes", max.to_string())
            }
            Fault::PayloadHash => Self::new("XAmzContentSHA256Mismatch"),
            Fault::ContentMd5 => Self::new("BadDigest"),
            Fault::Checksum(algorithm) => Self::because(
                "BadDigest",
                format!("The {} you specified did not match the calculated checksum.", algorithm.name()),
            ),
            Fault::ChecksumValue(header) => {
                Self::because("InvalidRequest", format!("Value for {header} header is invalid."))
            }
            Fault::ChunkSignature => Self::new("SignatureDoesNotMatch"),
            Fault::Framing(said) => {
                Self::because("InvalidRequest", format!("The aws-chunked body is malformed: {said}."))
            }
            Fault::Trailer(_) => Self::new("MalformedTrailerError"),
            Fault::TooSlow => Self::new("RequestTimeout"),
            Fault::Broken(_) => Self::new("IncompleteBody"),
            Fault::Storage(_) => Self::new("InternalError"),
            Fault::FileTooLarge(max) => Self::new("EntityTooLarge").with("MaxSizeAllowed", max.to_string()),
            Fault::FileTooSmall(min) => Self::new("EntityTooSmall").with("MinSizeAllowed", min.to_string()),
            Fault::Form(_) => Self::new("MalformedPOSTRequest"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_status_is_an_error() {
        assert!(TABLE.is_sorted_by_key(|row| row.0));
        for (code, status, message) in TABLE {
            assert!((300..600).contains(status) && !message.is_empty(), "{code}");
        }
    }

    #[test]
    fn a_refusal_keeps_its_code_and_status_through_s3s() {
        for (code, status, _) in TABLE {
            let error = S3Error::from(Refusal::new(code));
            assert_eq!(error.code().as_str(), *code);
            assert_eq!(error.status_code().map(|s| s.as_u16()), Some(*status));
        }
    }
}
