//! What each operation needs to be allowed: actions of IAM, on the bucket or the object, and which access
//! control list may grant them instead.
//!
//! An operation of the table that is missing here fails a test, and is denied at runtime.
//!
//! Source: AWS, "Actions, resources, and condition keys for Amazon S3", "Access control list (ACL) overview".

use holdfast_access::{acl::Permission, decide::ByList};

/// What an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// No bucket that exists: only the caller's own policies decide.
    Caller,
    /// The bucket.
    Bucket,
    /// The object.
    Object,
}

/// One action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// `s3:GetObject`
    pub action: &'static str,
    /// In its place when the request names a version.
    pub of_version: &'static str,
    /// See [`Subject`].
    pub on: Subject,
    /// Which list may grant it.
    pub list: ByList,
}

const fn on_bucket(action: &'static str) -> Need {
    Need { action, of_version: action, on: Subject::Bucket, list: ByList::No }
}

const fn by_bucket_list(action: &'static str, permission: Permission) -> Need {
    Need { action, of_version: action, on: Subject::Bucket, list: ByList::Bucket(permission) }
}

const fn on_object(action: &'static str, of_version: &'static str, list: ByList) -> Need {
    Need { action, of_version, on: Subject::Object, list }
}

const READ: ByList = ByList::Object(Permission::Read);
const WRITE: ByList = ByList::Bucket(Permission::Write);

const LIST: &[Need] = &[by_bucket_list("s3:ListBucket", Permission::Read)];
const PUT: &[Need] = &[on_object("s3:PutObject", "s3:PutObject", WRITE)];
const GET: &[Need] = &[on_object("s3:GetObject", "s3:GetObjectVersion", READ)];

macro_rules! bucket {
    ($action:literal) => {
        const { &[on_bucket($action)] }
    };
}

/// What an operation needs beside what its headers ask for. Empty: unknown here, so denied.
#[must_use]
pub fn needs(operation: &str) -> &'static [Need] {
    match operation {
        "ListBuckets" => {
            const {
                &[Need {
                    action: "s3:ListAllMyBuckets",
                    of_version: "s3:ListAllMyBuckets",
                    on: Subject::Caller,
                    list: ByList::No,
                }]
            }
        }
        "CreateBucket" => {
            const {
                &[Need {
                    action: "s3:CreateBucket",
                    of_version: "s3:CreateBucket",
                    on: Subject::Caller,
                    list: ByList::No,
                }]
            }
        }
        "DeleteBucket" => bucket!("s3:DeleteBucket"),
        "HeadBucket" | "ListObjects" | "ListObjectsV2" => LIST,
        "ListObjectVersions" => const { &[by_bucket_list("s3:ListBucketVersions", Permission::Read)] },
        "ListMultipartUploads" => {
            const { &[by_bucket_list("s3:ListBucketMultipartUploads", Permission::Read)] }
        }
        "GetBucketAcl" => const { &[by_bucket_list("s3:GetBucketAcl", Permission::ReadAcp)] },
        "PutBucketAcl" => const { &[by_bucket_list("s3:PutBucketAcl", Permission::WriteAcp)] },
        "GetBucketAccelerateConfiguration" => bucket!("s3:GetAccelerateConfiguration"),
        "PutBucketAccelerateConfiguration" => bucket!("s3:PutAccelerateConfiguration"),
        "GetBucketAnalyticsConfiguration" | "ListBucketAnalyticsConfigurations" => {
            bucket!("s3:GetAnalyticsConfiguration")
        }
        "PutBucketAnalyticsConfiguration" | "DeleteBucketAnalyticsConfiguration" => {
            bucket!("s3:PutAnalyticsConfiguration")
        }
        "GetBucketCors" => bucket!("s3:GetBucketCORS"),
        "PutBucketCors" | "DeleteBucketCors" => bucket!("s3:PutBucketCORS"),
        "GetBucketEncryption" => bucket!("s3:GetEncryptionConfiguration"),
        "PutBucketEncryption" | "DeleteBucketEncryption" => bucket!("s3:PutEncryptionConfiguration"),
        "GetBucketIntelligentTieringConfiguration" | "ListBucketIntelligentTieringConfigurations" => {
            bucket!("s3:GetIntelligentTieringConfiguration")
        }
        "PutBucketIntelligentTieringConfiguration" | "DeleteBucketIntelligentTieringConfiguration" => {
            bucket!("s3:PutIntelligentTieringConfiguration")
        }
        "GetBucketInventoryConfiguration" | "ListBucketInventoryConfigurations" => {
            bucket!("s3:GetInventoryConfiguration")
        }
        "PutBucketInventoryConfiguration" | "DeleteBucketInventoryConfiguration" => {
            bucket!("s3:PutInventoryConfiguration")
        }
        "GetBucketLifecycleConfiguration" => bucket!("s3:GetLifecycleConfiguration"),
        "PutBucketLifecycleConfiguration" | "DeleteBucketLifecycle" => {
            bucket!("s3:PutLifecycleConfiguration")
        }
        "GetBucketLocation" => bucket!("s3:GetBucketLocation"),
        "GetBucketLogging" => bucket!("s3:GetBucketLogging"),
        "PutBucketLogging" => bucket!("s3:PutBucketLogging"),
        "GetBucketMetricsConfiguration" | "ListBucketMetricsConfigurations" => {
            bucket!("s3:GetMetricsConfiguration")
        }
        "PutBucketMetricsConfiguration" | "DeleteBucketMetricsConfiguration" => {
            bucket!("s3:PutMetricsConfiguration")
        }
        "GetBucketNotificationConfiguration" => bucket!("s3:GetBucketNotification"),
        "PutBucketNotificationConfiguration" => bucket!("s3:PutBucketNotification"),
        "GetBucketOwnershipControls" => bucket!("s3:GetBucketOwnershipControls"),
        "PutBucketOwnershipControls" | "DeleteBucketOwnershipControls" => {
            bucket!("s3:PutBucketOwnershipControls")
        }
        "GetBucketPolicy" => bucket!("s3:GetBucketPolicy"),
        "GetBucketPolicyStatus" => bucket!("s3:GetBucketPolicyStatus"),
        "PutBucketPolicy" => bucket!("s3:PutBucketPolicy"),
        "DeleteBucketPolicy" => bucket!("s3:DeleteBucketPolicy"),
        "GetBucketReplication" => bucket!("s3:GetReplicationConfiguration"),
        "PutBucketReplication" | "DeleteBucketReplication" => bucket!("s3:PutReplicationConfiguration"),
        "GetBucketRequestPayment" => bucket!("s3:GetBucketRequestPayment"),
        "PutBucketRequestPayment" => bucket!("s3:PutBucketRequestPayment"),
        "GetBucketTagging" => bucket!("s3:GetBucketTagging"),
        "PutBucketTagging" | "DeleteBucketTagging" | "PutBucketAbac" => bucket!("s3:PutBucketTagging"),
        "GetBucketVersioning" => bucket!("s3:GetBucketVersioning"),
        "PutBucketVersioning" => bucket!("s3:PutBucketVersioning"),
        "GetBucketWebsite" => bucket!("s3:GetBucketWebsite"),
        "PutBucketWebsite" => bucket!("s3:PutBucketWebsite"),
        "DeleteBucketWebsite" => bucket!("s3:DeleteBucketWebsite"),
        "GetObjectLockConfiguration" => bucket!("s3:GetBucketObjectLockConfiguration"),
        "PutObjectLockConfiguration" => bucket!("s3:PutBucketObjectLockConfiguration"),
        "GetPublicAccessBlock" => bucket!("s3:GetBucketPublicAccessBlock"),
        "PutPublicAccessBlock" | "DeletePublicAccessBlock" => bucket!("s3:PutBucketPublicAccessBlock"),
        "GetBucketMetadataConfiguration"
        | "GetBucketMetadataTableConfiguration"
        | "CreateBucketMetadataConfiguration"
        | "CreateBucketMetadataTableConfiguration"
        | "DeleteBucketMetadataConfiguration"
        | "DeleteBucketMetadataTableConfiguration"
        | "UpdateBucketMetadataInventoryTableConfiguration"
        | "UpdateBucketMetadataJournalTableConfiguration" => bucket!("s3:PutInventoryConfiguration"),
        "CreateSession" => bucket!("s3:CreateSession"),
        // Each key of the document is decided on by the handler.
        "DeleteObjects" => NO_NEED,
        "PostObject" => PUT,
        "PutObject"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CopyObject"
        | "CompleteMultipartUpload"
        | "RenameObject" => PUT,
        "AbortMultipartUpload" => {
            const { &[on_object("s3:AbortMultipartUpload", "s3:AbortMultipartUpload", WRITE)] }
        }
        "ListParts" => {
            const { &[on_object("s3:ListMultipartUploadParts", "s3:ListMultipartUploadParts", WRITE)] }
        }
        "GetObject" | "HeadObject" | "SelectObjectContent" => GET,
        "GetObjectAttributes" => {
            const {
                &[
                    on_object("s3:GetObject", "s3:GetObjectVersion", READ),
                    on_object("s3:GetObjectAttributes", "s3:GetObjectVersionAttributes", READ),
                ]
            }
        }
        "GetObjectAcl" => {
            const { &[on_object("s3:GetObjectAcl", "s3:GetObjectVersionAcl", ByList::Object(Permission::ReadAcp))] }
        }
        "PutObjectAcl" => {
            const {
                &[on_object(
                    "s3:PutObjectAcl",
                    "s3:PutObjectVersionAcl",
                    ByList::Object(Permission::WriteAcp),
                )]
            }
        }
        "GetObjectLegalHold" => {
            const { &[on_object("s3:GetObjectLegalHold", "s3:GetObjectLegalHold", ByList::No)] }
        }
        "PutObjectLegalHold" => {
            const { &[on_object("s3:PutObjectLegalHold", "s3:PutObjectLegalHold", ByList::No)] }
        }
        "GetObjectRetention" => {
            const { &[on_object("s3:GetObjectRetention", "s3:GetObjectRetention", ByList::No)] }
        }
        "PutObjectRetention" => {
            const { &[on_object("s3:PutObjectRetention", "s3:PutObjectRetention", ByList::No)] }
        }
        "GetObjectTagging" => {
            const { &[on_object("s3:GetObjectTagging", "s3:GetObjectVersionTagging", ByList::No)] }
        }
        "PutObjectTagging" => {
            const { &[on_object("s3:PutObjectTagging", "s3:PutObjectVersionTagging", ByList::No)] }
        }
        "DeleteObjectTagging" => {
            const { &[on_object("s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging", ByList::No)] }
        }
        "GetObjectTorrent" => {
            const { &[on_object("s3:GetObjectTorrent", "s3:GetObjectVersionTorrent", READ)] }
        }
        "UpdateObjectEncryption" => {
            const { &[on_object("s3:UpdateObjectEncryption", "s3:UpdateObjectEncryption", ByList::No)] }
        }
        "RestoreObject" => const { &[on_object("s3:RestoreObject", "s3:RestoreObject", ByList::No)] },
        "DeleteObject" => DELETE,
        _ => &[],
    }
}

/// Needs nothing more than that the bucket is there.
pub const NO_NEED: &[Need] = &[Need { action: "", of_version: "", on: Subject::Bucket, list: ByList::No }];

/// Deleting one key.
pub const DELETE: &[Need] = &[on_object("s3:DeleteObject", "s3:DeleteObjectVersion", WRITE)];

/// Deleting or shortening what a governance retention keeps.
pub const BYPASS: Need =
    on_object("s3:BypassGovernanceRetention", "s3:BypassGovernanceRetention", ByList::No);

/// Reading the source of a copy.
pub const SOURCE: &Need = &GET[0];

/// Having something written into a bucket.
pub const TARGET: &Need = &PUT[0];

/// Whether a caller hears that a key is not there.
pub const LIST_BUCKET: &Need = &LIST[0];

/// Headers that ask for more than the operation's own actions: what they need, and whether it is about the
/// object or the bucket to be.
pub const BY_HEADER: &[(&str, &[&str], Need)] = &[
    ("x-amz-acl", WRITERS, on_object("s3:PutObjectAcl", "s3:PutObjectAcl", WRITE)),
    ("x-amz-grant-full-control", WRITERS, on_object("s3:PutObjectAcl", "s3:PutObjectAcl", WRITE)),
    ("x-amz-grant-read", WRITERS, on_object("s3:PutObjectAcl", "s3:PutObjectAcl", WRITE)),
    ("x-amz-grant-read-acp", WRITERS, on_object("s3:PutObjectAcl", "s3:PutObjectAcl", WRITE)),
    ("x-amz-grant-write-acp", WRITERS, on_object("s3:PutObjectAcl", "s3:PutObjectAcl", WRITE)),
    ("x-amz-tagging", WRITERS, on_object("s3:PutObjectTagging", "s3:PutObjectTagging", WRITE)),
    (
        "x-amz-object-lock-mode",
        WRITERS,
        on_object("s3:PutObjectRetention", "s3:PutObjectRetention", ByList::No),
    ),
    (
        "x-amz-object-lock-legal-hold",
        WRITERS,
        on_object("s3:PutObjectLegalHold", "s3:PutObjectLegalHold", ByList::No),
    ),
    ("x-amz-acl", CREATE, of_bucket_to_be("s3:PutBucketAcl")),
    ("x-amz-grant-full-control", CREATE, of_bucket_to_be("s3:PutBucketAcl")),
    ("x-amz-grant-read", CREATE, of_bucket_to_be("s3:PutBucketAcl")),
    ("x-amz-grant-write", CREATE, of_bucket_to_be("s3:PutBucketAcl")),
    ("x-amz-grant-read-acp", CREATE, of_bucket_to_be("s3:PutBucketAcl")),
    ("x-amz-grant-write-acp", CREATE, of_bucket_to_be("s3:PutBucketAcl")),
    ("x-amz-object-ownership", CREATE, of_bucket_to_be("s3:PutBucketOwnershipControls")),
];

const WRITERS: &[&str] = &["PutObject", "CopyObject", "CreateMultipartUpload"];
const CREATE: &[&str] = &["CreateBucket"];

const fn of_bucket_to_be(action: &'static str) -> Need {
    Need { action, of_version: action, on: Subject::Caller, list: ByList::No }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::OPERATIONS;

    #[test]
    fn every_operation_says_what_it_needs() {
        for operation in OPERATIONS {
            assert!(!needs(operation.name).is_empty(), "{} would be denied to everybody", operation.name);
        }
        assert!(needs("AnOperationOfNextYear").is_empty());
    }
}
