//! The operations of the protocol library, each handed to its handler in [`crate::ops`].

use std::sync::Arc;

use holdfast_model::config::NewBuckets;
use holdfast_object::{
    api::ObjectGateway,
    events::{Origin, WrittenBy},
    sealing::Sealing,
    versioned::VersionedObjects,
};
use s3s::{S3, S3Request, S3Response, S3Result, dto::*};

use crate::{
    call::{CALL, Call},
    errors::Refusal,
    ops, sse,
};

/// What a handler has beside its input.
pub(crate) struct Context {
    /// The request.
    pub call: Arc<Call>,
    /// The tenant whose bucket it is about, or whose key signed it.
    pub objects: Arc<dyn VersionedObjects>,
    /// The same, to read the source of a copy.
    pub source: Arc<dyn VersionedObjects>,
    /// This cluster's region.
    pub region: String,
    /// Shown as owner: the bucket's, or the caller's account.
    pub owner: Owner,
    /// What buckets are like whose makers do not say.
    pub new_buckets: NewBuckets,
    /// Whether there is a domain below which buckets are websites.
    pub websites: bool,
}

/// Dispatches.
pub(crate) struct Service {
    objects: Arc<dyn ObjectGateway>,
    new_buckets: NewBuckets,
    websites: bool,
}

impl Service {
    pub(crate) fn new(objects: Arc<dyn ObjectGateway>, new_buckets: NewBuckets, websites: bool) -> Self {
        Self { objects, new_buckets, websites }
    }

    fn enter(&self) -> S3Result<Context> {
        let call = CALL.with(Arc::clone);
        let access = call.access()?;
        let owner = match (&access.bucket, access.caller.account()) {
            (Some(bucket), _) => Some(&bucket.owner),
            (None, account) => account,
        };
        let owner = owner.ok_or_else(|| Refusal::new("AccessDenied"))?;
        let owner = Owner { id: Some(owner.canonical.to_string()), display_name: Some(owner.name.clone()) };
        let plain = self.objects.open(access.tenant);
        let keyed =
            |sealing: Option<Sealing>| sealing.map_or_else(|| Arc::clone(&plain), |s| plain.sealed(s));
        let objects = keyed(sse::asked(call.operation.name, &call.headers)?);
        let objects = match origin(&call, &access.caller.user_id()) {
            Some(origin) => objects.asked_by(origin),
            None => objects,
        };
        let source = keyed(sse::source_key(&call.headers)?.map(Sealing::Customer));
        let region = self.objects.region();
        let (new_buckets, websites) = (self.new_buckets, self.websites);
        Ok(Context { call, objects, source, region, owner, new_buckets, websites })
    }
}

/// What events tell of a request, if it can make some.
fn origin(call: &Call, user: &str) -> Option<Origin> {
    let by = match call.operation.name {
        "PutObject" if call.posted => WrittenBy::Post,
        "CopyObject" => WrittenBy::Copy,
        "PutObject"
        | "CompleteMultipartUpload"
        | "DeleteObject"
        | "DeleteObjects"
        | "PutObjectTagging"
        | "DeleteObjectTagging"
        | "PutObjectAcl" => WrittenBy::Put,
        _ => return None,
    };
    let (principal, address) = (format!("AWS:{user}"), call.peer.to_canonical().to_string());
    Some(Origin { by, principal, address, request: call.id.clone() })
}

macro_rules! operations {
    ($($name:ident: $input:ident -> $output:ident = $handler:path;)*) => {
        #[async_trait::async_trait]
        impl S3 for Service {
            $(
                async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    let context = self.enter()?;
                    let answer: Result<S3Response<$output>, Refusal> = $handler(context, request).await;
                    Ok(answer?)
                }
            )*
        }
    };
}

operations! {
    list_buckets: ListBucketsInput -> ListBucketsOutput = ops::bucket::list;
    create_bucket: CreateBucketInput -> CreateBucketOutput = ops::bucket::create;
    head_bucket: HeadBucketInput -> HeadBucketOutput = ops::bucket::head;
    delete_bucket: DeleteBucketInput -> DeleteBucketOutput = ops::bucket::delete;
    get_bucket_location: GetBucketLocationInput -> GetBucketLocationOutput = ops::bucket::location;

    put_object: PutObjectInput -> PutObjectOutput = ops::write::put;
    delete_object: DeleteObjectInput -> DeleteObjectOutput = ops::delete::one;
    delete_objects: DeleteObjectsInput -> DeleteObjectsOutput = ops::delete::many;
    copy_object: CopyObjectInput -> CopyObjectOutput = ops::copy::copy;
    upload_part_copy: UploadPartCopyInput -> UploadPartCopyOutput = ops::copy::part;

    get_object: GetObjectInput -> GetObjectOutput = ops::read::get;
    head_object: HeadObjectInput -> HeadObjectOutput = ops::read::head;
    get_object_attributes: GetObjectAttributesInput -> GetObjectAttributesOutput = ops::attributes::get;

    list_objects: ListObjectsInput -> ListObjectsOutput = ops::list::version_1;
    list_objects_v2: ListObjectsV2Input -> ListObjectsV2Output = ops::list::version_2;
    list_object_versions: ListObjectVersionsInput -> ListObjectVersionsOutput = ops::versions::list;

    create_multipart_upload: CreateMultipartUploadInput -> CreateMultipartUploadOutput = ops::multipart::create;
    upload_part: UploadPartInput -> UploadPartOutput = ops::multipart::part;
    complete_multipart_upload: CompleteMultipartUploadInput -> CompleteMultipartUploadOutput = ops::complete::complete;
    abort_multipart_upload: AbortMultipartUploadInput -> AbortMultipartUploadOutput = ops::multipart::abort;
    list_parts: ListPartsInput -> ListPartsOutput = ops::multipart::list_parts;
    list_multipart_uploads: ListMultipartUploadsInput -> ListMultipartUploadsOutput = ops::uploads::list;

    get_bucket_accelerate_configuration: GetBucketAccelerateConfigurationInput -> GetBucketAccelerateConfigurationOutput = ops::settings::accelerate;
    get_bucket_acl: GetBucketAclInput -> GetBucketAclOutput = ops::acl::bucket_get;
    get_bucket_cors: GetBucketCorsInput -> GetBucketCorsOutput = ops::cors::get;
    put_bucket_cors: PutBucketCorsInput -> PutBucketCorsOutput = ops::cors::put;
    get_bucket_encryption: GetBucketEncryptionInput -> GetBucketEncryptionOutput = ops::encryption::get;
    put_bucket_encryption: PutBucketEncryptionInput -> PutBucketEncryptionOutput = ops::encryption::put;
    delete_bucket_encryption: DeleteBucketEncryptionInput -> DeleteBucketEncryptionOutput = ops::encryption::delete;
    get_bucket_inventory_configuration: GetBucketInventoryConfigurationInput -> GetBucketInventoryConfigurationOutput = ops::inventory::get;
    list_bucket_inventory_configurations: ListBucketInventoryConfigurationsInput -> ListBucketInventoryConfigurationsOutput = ops::inventory::list;
    put_bucket_inventory_configuration: PutBucketInventoryConfigurationInput -> PutBucketInventoryConfigurationOutput = ops::inventory::put;
    delete_bucket_inventory_configuration: DeleteBucketInventoryConfigurationInput -> DeleteBucketInventoryConfigurationOutput = ops::inventory::delete;
    get_bucket_lifecycle_configuration: GetBucketLifecycleConfigurationInput -> GetBucketLifecycleConfigurationOutput = ops::lifecycle::get;
    put_bucket_lifecycle_configuration: PutBucketLifecycleConfigurationInput -> PutBucketLifecycleConfigurationOutput = ops::lifecycle::put;
    put_bucket_accelerate_configuration: PutBucketAccelerateConfigurationInput -> PutBucketAccelerateConfigurationOutput = ops::unused::accelerate;
    put_bucket_logging: PutBucketLoggingInput -> PutBucketLoggingOutput = ops::logging::put;
    put_bucket_notification_configuration: PutBucketNotificationConfigurationInput -> PutBucketNotificationConfigurationOutput = ops::notification::put;
    put_bucket_request_payment: PutBucketRequestPaymentInput -> PutBucketRequestPaymentOutput = ops::payment::put;
    get_bucket_logging: GetBucketLoggingInput -> GetBucketLoggingOutput = ops::logging::get;
    get_bucket_notification_configuration: GetBucketNotificationConfigurationInput -> GetBucketNotificationConfigurationOutput = ops::notification::get;
    get_bucket_ownership_controls: GetBucketOwnershipControlsInput -> GetBucketOwnershipControlsOutput = ops::policy::ownership_get;
    put_bucket_ownership_controls: PutBucketOwnershipControlsInput -> PutBucketOwnershipControlsOutput = ops::policy::ownership_put;
    delete_bucket_ownership_controls: DeleteBucketOwnershipControlsInput -> DeleteBucketOwnershipControlsOutput = ops::policy::ownership_delete;
    get_bucket_policy: GetBucketPolicyInput -> GetBucketPolicyOutput = ops::policy::get;
    put_bucket_policy: PutBucketPolicyInput -> PutBucketPolicyOutput = ops::policy::put;
    get_bucket_policy_status: GetBucketPolicyStatusInput -> GetBucketPolicyStatusOutput = ops::policy::status;
    get_bucket_replication: GetBucketReplicationInput -> GetBucketReplicationOutput = ops::settings::replication;
    get_bucket_request_payment: GetBucketRequestPaymentInput -> GetBucketRequestPaymentOutput = ops::payment::get;
    get_bucket_tagging: GetBucketTaggingInput -> GetBucketTaggingOutput = ops::tagging::bucket_get;
    put_bucket_tagging: PutBucketTaggingInput -> PutBucketTaggingOutput = ops::tagging::bucket_put;
    get_bucket_versioning: GetBucketVersioningInput -> GetBucketVersioningOutput = ops::versioning::get;
    put_bucket_versioning: PutBucketVersioningInput -> PutBucketVersioningOutput = ops::versioning::put;
    get_bucket_website: GetBucketWebsiteInput -> GetBucketWebsiteOutput = ops::website::get;
    put_bucket_website: PutBucketWebsiteInput -> PutBucketWebsiteOutput = ops::website::put;
    get_object_lock_configuration: GetObjectLockConfigurationInput -> GetObjectLockConfigurationOutput = ops::lock::configuration;
    put_object_lock_configuration: PutObjectLockConfigurationInput -> PutObjectLockConfigurationOutput = ops::lock::configure;
    get_public_access_block: GetPublicAccessBlockInput -> GetPublicAccessBlockOutput = ops::policy::block_get;
    put_public_access_block: PutPublicAccessBlockInput -> PutPublicAccessBlockOutput = ops::policy::block_put;
    delete_public_access_block: DeletePublicAccessBlockInput -> DeletePublicAccessBlockOutput = ops::policy::block_delete;
    get_object_acl: GetObjectAclInput -> GetObjectAclOutput = ops::acl::object_get;
    get_object_legal_hold: GetObjectLegalHoldInput -> GetObjectLegalHoldOutput = ops::lock::legal_hold;
    put_object_legal_hold: PutObjectLegalHoldInput -> PutObjectLegalHoldOutput = ops::lock::hold;
    get_object_retention: GetObjectRetentionInput -> GetObjectRetentionOutput = ops::lock::retention;
    put_object_retention: PutObjectRetentionInput -> PutObjectRetentionOutput = ops::lock::retain;
    get_object_tagging: GetObjectTaggingInput -> GetObjectTaggingOutput = ops::tagging::get;
    put_object_tagging: PutObjectTaggingInput -> PutObjectTaggingOutput = ops::tagging::put;
    put_bucket_acl: PutBucketAclInput -> PutBucketAclOutput = ops::acl::bucket_put;
    put_object_acl: PutObjectAclInput -> PutObjectAclOutput = ops::acl::object_put;
    delete_bucket_cors: DeleteBucketCorsInput -> DeleteBucketCorsOutput = ops::cors::delete;
    delete_bucket_lifecycle: DeleteBucketLifecycleInput -> DeleteBucketLifecycleOutput = ops::lifecycle::delete;
    delete_bucket_policy: DeleteBucketPolicyInput -> DeleteBucketPolicyOutput = ops::policy::delete;
    delete_bucket_replication: DeleteBucketReplicationInput -> DeleteBucketReplicationOutput = ops::settings::delete_replication;
    delete_bucket_tagging: DeleteBucketTaggingInput -> DeleteBucketTaggingOutput = ops::tagging::bucket_delete;
    delete_bucket_website: DeleteBucketWebsiteInput -> DeleteBucketWebsiteOutput = ops::website::delete;
    delete_object_tagging: DeleteObjectTaggingInput -> DeleteObjectTaggingOutput = ops::tagging::delete;
}
