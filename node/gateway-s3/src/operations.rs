//! Every operation of S3: how a request is recognised as it, and whether it is served.
//!
//! Default deny: a query parameter that no row of the table knows is refused, because S3 tells operations
//! apart by such parameters, and a request for one that is not known would otherwise be taken for a
//! plain GET, PUT or DELETE of the same path.
//!
//! The page `docs/s3.md` lists this table; a test compares the two.

use http::Method;

use crate::{errors::Refusal, sigv4::Query, target::Target};

/// What the path of an operation names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// `/`
    Service,
    /// `/bucket`
    Bucket,
    /// `/bucket/key`
    Object,
}

/// Whether an operation is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// In full.
    Yes,
    /// The feature is not there; answered as AWS answers for a bucket that does not use it. Never changes anything:
    /// a request to switch it on is refused, one to switch it off is done already.
    Absent,
    /// Refused with `NotImplemented`, and why.
    No(&'static str),
}

/// One operation.
#[derive(Debug)]
pub struct Operation {
    /// As in the API reference.
    pub name: &'static str,
    /// HTTP method.
    pub method: Method,
    /// Path.
    pub on: On,
    /// Query parameters that mark it; all are present.
    pub markers: &'static [&'static str],
    /// Further query parameters it knows.
    pub params: &'static [&'static str],
    /// Whether it is served.
    pub support: Support,
}

impl Operation {
    /// Whether its body is content that streams to the object layer.
    #[must_use]
    pub fn takes_content(&self) -> bool {
        matches!(self.name, "PutObject" | "UploadPart")
    }
}

const fn row(
    name: &'static str,
    method: Method,
    on: On,
    markers: &'static [&'static str],
    params: &'static [&'static str],
    support: Support,
) -> Operation {
    Operation { name, method, on, markers, params, support }
}

const RESPONSE: &[&str] = &[
    "versionId",
    "partNumber",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
];
const VERSION: &[&str] = &["versionId"];
const NONE: &[&str] = &[];

const ENCRYPTION: Support = Support::No("what an object is sealed under changes with a copy onto itself");
const REPLICATION: Support = Support::No("replication between clusters is not there yet");
const AWS_ONLY: Support = Support::No("a service of AWS without a counterpart here");

/// The table. Rows with more markers stand before those with fewer; the row without markers comes last.
pub static OPERATIONS: &[Operation] = &[
    // The service.
    row(
        "ListBuckets",
        Method::GET,
        On::Service,
        NONE,
        &["prefix", "continuation-token", "max-buckets", "bucket-region"],
        Support::Yes,
    ),
    // Reading buckets.
    row("GetBucketAccelerateConfiguration", Method::GET, On::Bucket, &["accelerate"], NONE, Support::Absent),
    row("GetBucketAcl", Method::GET, On::Bucket, &["acl"], NONE, Support::Yes),
    row("GetBucketAnalyticsConfiguration", Method::GET, On::Bucket, &["analytics", "id"], NONE, AWS_ONLY),
    row(
        "ListBucketAnalyticsConfigurations",
        Method::GET,
        On::Bucket,
        &["analytics"],
        &["continuation-token"],
        AWS_ONLY,
    ),
    row("GetBucketCors", Method::GET, On::Bucket, &["cors"], NONE, Support::Yes),
    row("GetBucketEncryption", Method::GET, On::Bucket, &["encryption"], NONE, Support::Yes),
    row(
        "GetBucketIntelligentTieringConfiguration",
        Method::GET,
        On::Bucket,
        &["intelligent-tiering", "id"],
        NONE,
        AWS_ONLY,
    ),
    row(
        "ListBucketIntelligentTieringConfigurations",
        Method::GET,
        On::Bucket,
        &["intelligent-tiering"],
        &["continuation-token"],
        AWS_ONLY,
    ),
    row("GetBucketInventoryConfiguration", Method::GET, On::Bucket, &["inventory", "id"], NONE, Support::Yes),
    row(
        "ListBucketInventoryConfigurations",
        Method::GET,
        On::Bucket,
        &["inventory"],
        &["continuation-token"],
        Support::Yes,
    ),
    row("GetBucketLifecycleConfiguration", Method::GET, On::Bucket, &["lifecycle"], NONE, Support::Yes),
    row("GetBucketLocation", Method::GET, On::Bucket, &["location"], NONE, Support::Yes),
    row("GetBucketLogging", Method::GET, On::Bucket, &["logging"], NONE, Support::Yes),
    row(
        "GetBucketMetadataConfiguration",
        Method::GET,
        On::Bucket,
        &["metadataConfiguration"],
        NONE,
        AWS_ONLY,
    ),
    row("GetBucketMetadataTableConfiguration", Method::GET, On::Bucket, &["metadataTable"], NONE, AWS_ONLY),
    row("GetBucketMetricsConfiguration", Method::GET, On::Bucket, &["metrics", "id"], NONE, AWS_ONLY),
    row(
        "ListBucketMetricsConfigurations",
        Method::GET,
        On::Bucket,
        &["metrics"],
        &["continuation-token"],
        AWS_ONLY,
    ),
    row("GetBucketNotificationConfiguration", Method::GET, On::Bucket, &["notification"], NONE, Support::Yes),
    row("GetBucketOwnershipControls", Method::GET, On::Bucket, &["ownershipControls"], NONE, Support::Yes),
    row("GetBucketPolicy", Method::GET, On::Bucket, &["policy"], NONE, Support::Yes),
    row("GetBucketPolicyStatus", Method::GET, On::Bucket, &["policyStatus"], NONE, Support::Yes),
    row("GetBucketReplication", Method::GET, On::Bucket, &["replication"], NONE, Support::Absent),
    row("GetBucketRequestPayment", Method::GET, On::Bucket, &["requestPayment"], NONE, Support::Yes),
    row("GetBucketTagging", Method::GET, On::Bucket, &["tagging"], NONE, Support::Yes),
    row("GetBucketVersioning", Method::GET, On::Bucket, &["versioning"], NONE, Support::Yes),
    row("GetBucketWebsite", Method::GET, On::Bucket, &["website"], NONE, Support::Yes),
    row("GetObjectLockConfiguration", Method::GET, On::Bucket, &["object-lock"], NONE, Support::Yes),
    row("GetPublicAccessBlock", Method::GET, On::Bucket, &["publicAccessBlock"], NONE, Support::Yes),
    row("CreateSession", Method::GET, On::Bucket, &["session"], NONE, AWS_ONLY),
    row(
        "ListMultipartUploads",
        Method::GET,
        On::Bucket,
        &["uploads"],
        &["prefix", "delimiter", "key-marker", "upload-id-marker", "max-uploads", "encoding-type"],
        Support::Yes,
    ),
    row(
        "ListObjectVersions",
        Method::GET,
        On::Bucket,
        &["versions"],
        &["prefix", "delimiter", "key-marker", "version-id-marker", "max-keys", "encoding-type"],
        Support::Yes,
    ),
    row(
        "ListObjectsV2",
        Method::GET,
        On::Bucket,
        &["list-type"],
        &[
            "prefix",
            "delimiter",
            "continuation-token",
            "start-after",
            "max-keys",
            "encoding-type",
            "fetch-owner",
        ],
        Support::Yes,
    ),
    row(
        "ListObjects",
        Method::GET,
        On::Bucket,
        NONE,
        // The last three say nothing here: a form that was stored leads to an address with them.
        &["prefix", "delimiter", "marker", "max-keys", "encoding-type", "bucket", "key", "etag"],
        Support::Yes,
    ),
    row("HeadBucket", Method::HEAD, On::Bucket, NONE, NONE, Support::Yes),
    // Changing buckets.
    row("PutBucketAbac", Method::PUT, On::Bucket, &["abac"], NONE, AWS_ONLY),
    row("PutBucketAccelerateConfiguration", Method::PUT, On::Bucket, &["accelerate"], NONE, Support::Absent),
    row("PutBucketAcl", Method::PUT, On::Bucket, &["acl"], NONE, Support::Yes),
    row("PutBucketAnalyticsConfiguration", Method::PUT, On::Bucket, &["analytics"], &["id"], AWS_ONLY),
    row("PutBucketCors", Method::PUT, On::Bucket, &["cors"], NONE, Support::Yes),
    row("PutBucketEncryption", Method::PUT, On::Bucket, &["encryption"], NONE, Support::Yes),
    row(
        "PutBucketIntelligentTieringConfiguration",
        Method::PUT,
        On::Bucket,
        &["intelligent-tiering"],
        &["id"],
        AWS_ONLY,
    ),
    row("PutBucketInventoryConfiguration", Method::PUT, On::Bucket, &["inventory"], &["id"], Support::Yes),
    row("PutBucketLifecycleConfiguration", Method::PUT, On::Bucket, &["lifecycle"], NONE, Support::Yes),
    row("PutBucketLogging", Method::PUT, On::Bucket, &["logging"], NONE, Support::Yes),
    row(
        "UpdateBucketMetadataInventoryTableConfiguration",
        Method::PUT,
        On::Bucket,
        &["metadataInventoryTable"],
        NONE,
        AWS_ONLY,
    ),
    row(
        "UpdateBucketMetadataJournalTableConfiguration",
        Method::PUT,
        On::Bucket,
        &["metadataJournalTable"],
        NONE,
        AWS_ONLY,
    ),
    row("PutBucketMetricsConfiguration", Method::PUT, On::Bucket, &["metrics"], &["id"], AWS_ONLY),
    row("PutBucketNotificationConfiguration", Method::PUT, On::Bucket, &["notification"], NONE, Support::Yes),
    row("PutBucketOwnershipControls", Method::PUT, On::Bucket, &["ownershipControls"], NONE, Support::Yes),
    row("PutBucketPolicy", Method::PUT, On::Bucket, &["policy"], NONE, Support::Yes),
    row("PutBucketReplication", Method::PUT, On::Bucket, &["replication"], NONE, REPLICATION),
    row("PutBucketRequestPayment", Method::PUT, On::Bucket, &["requestPayment"], NONE, Support::Yes),
    row("PutBucketTagging", Method::PUT, On::Bucket, &["tagging"], NONE, Support::Yes),
    row("PutBucketVersioning", Method::PUT, On::Bucket, &["versioning"], NONE, Support::Yes),
    row("PutBucketWebsite", Method::PUT, On::Bucket, &["website"], NONE, Support::Yes),
    row("PutObjectLockConfiguration", Method::PUT, On::Bucket, &["object-lock"], NONE, Support::Yes),
    row("PutPublicAccessBlock", Method::PUT, On::Bucket, &["publicAccessBlock"], NONE, Support::Yes),
    row("CreateBucket", Method::PUT, On::Bucket, NONE, NONE, Support::Yes),
    row("DeleteBucketAnalyticsConfiguration", Method::DELETE, On::Bucket, &["analytics"], &["id"], AWS_ONLY),
    row("DeleteBucketCors", Method::DELETE, On::Bucket, &["cors"], NONE, Support::Yes),
    row("DeleteBucketEncryption", Method::DELETE, On::Bucket, &["encryption"], NONE, Support::Yes),
    row(
        "DeleteBucketIntelligentTieringConfiguration",
        Method::DELETE,
        On::Bucket,
        &["intelligent-tiering"],
        &["id"],
        AWS_ONLY,
    ),
    row(
        "DeleteBucketInventoryConfiguration",
        Method::DELETE,
        On::Bucket,
        &["inventory"],
        &["id"],
        Support::Yes,
    ),
    row("DeleteBucketLifecycle", Method::DELETE, On::Bucket, &["lifecycle"], NONE, Support::Yes),
    row(
        "DeleteBucketMetadataConfiguration",
        Method::DELETE,
        On::Bucket,
        &["metadataConfiguration"],
        NONE,
        AWS_ONLY,
    ),
    row(
        "DeleteBucketMetadataTableConfiguration",
        Method::DELETE,
        On::Bucket,
        &["metadataTable"],
        NONE,
        AWS_ONLY,
    ),
    row("DeleteBucketMetricsConfiguration", Method::DELETE, On::Bucket, &["metrics"], &["id"], AWS_ONLY),
    row(
        "DeleteBucketOwnershipControls",
        Method::DELETE,
        On::Bucket,
        &["ownershipControls"],
        NONE,
        Support::Yes,
    ),
    row("DeleteBucketPolicy", Method::DELETE, On::Bucket, &["policy"], NONE, Support::Yes),
    row("DeleteBucketReplication", Method::DELETE, On::Bucket, &["replication"], NONE, Support::Absent),
    row("DeleteBucketTagging", Method::DELETE, On::Bucket, &["tagging"], NONE, Support::Yes),
    row("DeleteBucketWebsite", Method::DELETE, On::Bucket, &["website"], NONE, Support::Yes),
    row("DeletePublicAccessBlock", Method::DELETE, On::Bucket, &["publicAccessBlock"], NONE, Support::Yes),
    row("DeleteBucket", Method::DELETE, On::Bucket, NONE, NONE, Support::Yes),
    row(
        "CreateBucketMetadataConfiguration",
        Method::POST,
        On::Bucket,
        &["metadataConfiguration"],
        NONE,
        AWS_ONLY,
    ),
    row(
        "CreateBucketMetadataTableConfiguration",
        Method::POST,
        On::Bucket,
        &["metadataTable"],
        NONE,
        AWS_ONLY,
    ),
    row("DeleteObjects", Method::POST, On::Bucket, &["delete"], NONE, Support::Yes),
    row("PostObject", Method::POST, On::Bucket, NONE, NONE, Support::Yes),
    // Reading objects.
    row("GetObjectAcl", Method::GET, On::Object, &["acl"], VERSION, Support::Yes),
    row("GetObjectAttributes", Method::GET, On::Object, &["attributes"], VERSION, Support::Yes),
    row("GetObjectLegalHold", Method::GET, On::Object, &["legal-hold"], VERSION, Support::Yes),
    row("GetObjectRetention", Method::GET, On::Object, &["retention"], VERSION, Support::Yes),
    row("GetObjectTagging", Method::GET, On::Object, &["tagging"], VERSION, Support::Yes),
    row("GetObjectTorrent", Method::GET, On::Object, &["torrent"], NONE, AWS_ONLY),
    row(
        "ListParts",
        Method::GET,
        On::Object,
        &["uploadId"],
        &["max-parts", "part-number-marker"],
        Support::Yes,
    ),
    row("GetObject", Method::GET, On::Object, NONE, RESPONSE, Support::Yes),
    row("HeadObject", Method::HEAD, On::Object, NONE, RESPONSE, Support::Yes),
    // Changing objects.
    row("PutObjectAcl", Method::PUT, On::Object, &["acl"], VERSION, Support::Yes),
    row("PutObjectLegalHold", Method::PUT, On::Object, &["legal-hold"], VERSION, Support::Yes),
    row("PutObjectRetention", Method::PUT, On::Object, &["retention"], VERSION, Support::Yes),
    row("PutObjectTagging", Method::PUT, On::Object, &["tagging"], VERSION, Support::Yes),
    row("UpdateObjectEncryption", Method::PUT, On::Object, &["encryption"], VERSION, ENCRYPTION),
    row("RenameObject", Method::PUT, On::Object, &["renameObject"], NONE, AWS_ONLY),
    row("UploadPartCopy", Method::PUT, On::Object, &["partNumber", "uploadId"], NONE, Support::Yes),
    row("UploadPart", Method::PUT, On::Object, &["partNumber", "uploadId"], NONE, Support::Yes),
    row("CopyObject", Method::PUT, On::Object, NONE, NONE, Support::Yes),
    row("PutObject", Method::PUT, On::Object, NONE, NONE, Support::Yes),
    row("SelectObjectContent", Method::POST, On::Object, &["select"], &["select-type"], AWS_ONLY),
    row(
        "RestoreObject",
        Method::POST,
        On::Object,
        &["restore"],
        VERSION,
        Support::No("nothing is ever in an archive tier"),
    ),
    row("CreateMultipartUpload", Method::POST, On::Object, &["uploads"], NONE, Support::Yes),
    row("CompleteMultipartUpload", Method::POST, On::Object, &["uploadId"], NONE, Support::Yes),
    row("DeleteObjectTagging", Method::DELETE, On::Object, &["tagging"], VERSION, Support::Yes),
    row("AbortMultipartUpload", Method::DELETE, On::Object, &["uploadId"], NONE, Support::Yes),
    row("DeleteObject", Method::DELETE, On::Object, NONE, VERSION, Support::Yes),
];

/// Parameters of the signature, which every operation may carry, and those S3 ignores by rule (`x-`).
fn is_general(name: &str) -> bool {
    name.starts_with("X-Amz-") || name.starts_with("x-")
}

/// Recognises a request. `copies` says that it carries `x-amz-copy-source`.
///
/// # Errors
/// `MethodNotAllowed` where no operation has this method.
pub fn recognise(
    method: &Method,
    target: &Target,
    query: &Query,
    copies: bool,
) -> Result<&'static Operation, Refusal> {
    let on = match target {
        Target::Service => On::Service,
        Target::Bucket(_) => On::Bucket,
        Target::Object(..) => On::Object,
    };
    let has = |name: &&str| query.iter().any(|(found, _)| found == name);
    let fits = |row: &&Operation| {
        row.method == *method
            && row.on == on
            && row.markers.iter().all(&has)
            && (copies || !matches!(row.name, "CopyObject" | "UploadPartCopy"))
    };
    let found = OPERATIONS.iter().find(fits);
    found.ok_or_else(|| Refusal::new("MethodNotAllowed").with("Method", method.as_str()))
}

impl Operation {
    /// # Errors
    /// `NotImplemented` for parameters that this operation does not know.
    pub fn check_parameters(&self, query: &Query) -> Result<(), Refusal> {
        for (name, value) in query {
            let name = name.as_str();
            if name == "list-type" && value != "2" {
                return Err(Refusal::because("InvalidArgument", "list-type must be 2."));
            }
            if !is_general(name) && !self.markers.contains(&name) && !self.params.contains(&name) {
                return Err(Refusal::not_implemented(&format!(
                    "The query parameter {name:?} with {}",
                    self.name
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        method: Method,
        target: &Target,
        query: &[&str],
        copies: bool,
    ) -> Result<&'static str, &'static str> {
        let query: Vec<(String, String)> = query
            .iter()
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let row = recognise(&method, target, &query, copies).map_err(|refusal| refusal.code)?;
        row.check_parameters(&query).map_err(|refusal| refusal.code)?;
        Ok(row.name)
    }

    #[test]
    fn operations_are_told_apart_by_their_parameters() {
        let bucket = Target::Bucket("b".to_owned());
        let object = Target::Object("b".to_owned(), "k".to_owned());
        assert_eq!(found(Method::GET, &bucket, &[], false), Ok("ListObjects"));
        assert_eq!(found(Method::GET, &bucket, &["list-type=2", "prefix=a"], false), Ok("ListObjectsV2"));
        assert_eq!(found(Method::PUT, &object, &["x-id=PutObject"], false), Ok("PutObject"));
        assert_eq!(found(Method::PUT, &object, &[], true), Ok("CopyObject"));
        assert_eq!(found(Method::PUT, &object, &["partNumber=1", "uploadId=u"], false), Ok("UploadPart"));
        assert_eq!(found(Method::PUT, &object, &["partNumber=1", "uploadId=u"], true), Ok("UploadPartCopy"));
        assert_eq!(found(Method::GET, &object, &["uploadId=u"], false), Ok("ListParts"));
    }

    #[test]
    fn an_unknown_parameter_never_becomes_a_plain_operation() {
        let bucket = Target::Bucket("b".to_owned());
        let object = Target::Object("b".to_owned(), "k".to_owned());
        assert_eq!(found(Method::DELETE, &bucket, &["newSetting"], false), Err("NotImplemented"));
        assert_eq!(found(Method::PUT, &bucket, &["newSetting"], false), Err("NotImplemented"));
        assert_eq!(found(Method::PUT, &object, &["uploadId=u"], false), Err("NotImplemented"));
        assert_eq!(found(Method::DELETE, &object, &["annotation=x"], false), Err("NotImplemented"));
        assert_eq!(found(Method::GET, &bucket, &["list-type=3"], false), Err("InvalidArgument"));
        assert_eq!(found(Method::PUT, &Target::Service, &[], false), Err("MethodNotAllowed"));
        assert_eq!(found(Method::PATCH, &object, &[], false), Err("MethodNotAllowed"));
    }

    #[test]
    fn no_row_hides_another() {
        for (at, row) in OPERATIONS.iter().enumerate() {
            let hidden = OPERATIONS[..at].iter().any(|earlier| {
                earlier.method == row.method
                    && earlier.on == row.on
                    && earlier.markers.iter().all(|marker| row.markers.contains(marker))
                    && !matches!(earlier.name, "CopyObject" | "UploadPartCopy")
            });
            assert!(!hidden, "{} can never be recognised", row.name);
        }
    }
}
