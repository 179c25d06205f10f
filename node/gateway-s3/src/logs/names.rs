//! Operations as access logs name them: `REST.GET.OBJECT`.

use http::Method;

use crate::operations::{On, Operation};

/// What an operation is about, where its markers do not say.
fn resource(operation: &Operation) -> &'static str {
    match operation.name {
        "UploadPart" | "UploadPartCopy" => "PART",
        "CreateMultipartUpload" | "ListMultipartUploads" => "UPLOADS",
        "CompleteMultipartUpload" | "AbortMultipartUpload" | "ListParts" => "UPLOAD",
        "DeleteObjects" => "MULTI_OBJECT_DELETE",
        "ListObjectVersions" => "BUCKETVERSIONS",
        "ListObjectsV2" | "ListObjects" | "HeadBucket" | "CreateBucket" | "DeleteBucket" => "BUCKET",
        "GetObjectTagging" | "PutObjectTagging" | "DeleteObjectTagging" => "OBJECT_TAGGING",
        "GetBucketPolicy" | "PutBucketPolicy" | "DeleteBucketPolicy" => "BUCKETPOLICY",
        "GetBucketPolicyStatus" => "POLICY_STATUS",
        "GetBucketLogging" | "PutBucketLogging" => "LOGGING_STATUS",
        "GetBucketRequestPayment" | "PutBucketRequestPayment" => "REQUEST_PAYMENT",
        "GetPublicAccessBlock" | "PutPublicAccessBlock" | "DeletePublicAccessBlock" => "PUBLIC_ACCESS_BLOCK",
        "GetBucketOwnershipControls" | "PutBucketOwnershipControls" | "DeleteBucketOwnershipControls" => {
            "OWNERSHIP_CONTROLS"
        }
        "GetObjectRetention" | "PutObjectRetention" => "OBJECT_LOCK_RETENTION",
        "GetObjectLegalHold" | "PutObjectLegalHold" => "OBJECT_LOCK_LEGALHOLD",
        _ => "",
    }
}

/// The name of a request by this method that was taken for this operation.
pub(crate) fn of(method: &Method, operation: &Operation, website: bool) -> String {
    let begin = if website { "WEBSITE" } else { "REST" };
    let method = if operation.name.contains("Copy") { "COPY" } else { method.as_str() };
    let known = resource(operation);
    let plain = if operation.on == On::Object { "OBJECT" } else { "BUCKET" };
    match (known.is_empty(), operation.markers.first()) {
        (false, _) => format!("{begin}.{method}.{known}"),
        (true, Some(marker)) => format!("{begin}.{method}.{}", marker.replace('-', "_").to_uppercase()),
        (true, None) => format!("{begin}.{method}.{plain}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::OPERATIONS;

    #[test]
    fn operations_have_the_names_that_log_readers_know() {
        let name = |operation: &str, website| {
            let row = OPERATIONS.iter().find(|row| row.name == operation).unwrap();
            of(&row.method, row, website)
        };
        for (operation, expected) in [
            ("GetObject", "REST.GET.OBJECT"),
            ("HeadObject", "REST.HEAD.OBJECT"),
            ("PutObject", "REST.PUT.OBJECT"),
            ("CopyObject", "REST.COPY.OBJECT"),
            ("DeleteObject", "REST.DELETE.OBJECT"),
            ("UploadPart", "REST.PUT.PART"),
            ("UploadPartCopy", "REST.COPY.PART"),
            ("CreateMultipartUpload", "REST.POST.UPLOADS"),
            ("CompleteMultipartUpload", "REST.POST.UPLOAD"),
            ("DeleteObjects", "REST.POST.MULTI_OBJECT_DELETE"),
            ("ListObjectsV2", "REST.GET.BUCKET"),
            ("GetBucketVersioning", "REST.GET.VERSIONING"),
            ("PutBucketLifecycleConfiguration", "REST.PUT.LIFECYCLE"),
            ("GetBucketAcl", "REST.GET.ACL"),
            ("GetObjectAcl", "REST.GET.ACL"),
            ("GetObjectLockConfiguration", "REST.GET.OBJECT_LOCK"),
        ] {
            assert_eq!(name(operation, false), expected);
        }
        assert_eq!(name("GetObject", true), "WEBSITE.GET.OBJECT");
    }
}
