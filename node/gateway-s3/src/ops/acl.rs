//! Access control lists of buckets and objects: read, replaced.

use holdfast_object::versioned::{BucketChange, DocumentKind, ObjectChange};
use s3s::{
    S3Request, S3Response,
    dto::{
        GetBucketAclInput, GetBucketAclOutput, GetObjectAclInput, GetObjectAclOutput, PutBucketAclInput,
        PutBucketAclOutput, PutObjectAclInput, PutObjectAclOutput,
    },
};

use crate::{errors::Refusal, lists, ops::shared::version, service::Context};

pub(crate) async fn bucket_get(
    cx: Context,
    _: S3Request<GetBucketAclInput>,
) -> Result<S3Response<GetBucketAclOutput>, Refusal> {
    let access = cx.call.access()?;
    let acl = &access.bucket()?.facts.acl;
    Ok(S3Response::new(GetBucketAclOutput {
        grants: Some(lists::shown(access, acl)),
        owner: Some(lists::owner(access, acl.owner)),
    }))
}

pub(crate) async fn bucket_put(
    cx: Context,
    request: S3Request<PutBucketAclInput>,
) -> Result<S3Response<PutBucketAclOutput>, Refusal> {
    let input = request.input;
    let access = cx.call.access()?;
    let current = &access.bucket()?.facts.acl;
    let acl = lists::changed(access, current, &cx.call.headers, input.access_control_policy)?;
    let change =
        BucketChange::Document { kind: DocumentKind::Acl, id: String::new(), body: Some(acl.encode()) };
    cx.objects.set_bucket(&input.bucket, change).await?;
    Ok(S3Response::new(PutBucketAclOutput {}))
}

pub(crate) async fn object_get(
    cx: Context,
    request: S3Request<GetObjectAclInput>,
) -> Result<S3Response<GetObjectAclOutput>, Refusal> {
    let input = request.input;
    let access = cx.call.access()?;
    let version = version(input.version_id.as_deref())?;
    let found = cx.objects.head(&input.bucket, &input.key, version).await?;
    let acl = lists::of_object(&found.extras.acl, access.bucket()?.facts.owner);
    Ok(S3Response::new(GetObjectAclOutput {
        grants: Some(lists::shown(access, &acl)),
        owner: Some(lists::owner(access, acl.owner)),
        ..GetObjectAclOutput::default()
    }))
}

pub(crate) async fn object_put(
    cx: Context,
    request: S3Request<PutObjectAclInput>,
) -> Result<S3Response<PutObjectAclOutput>, Refusal> {
    let input = request.input;
    let access = cx.call.access()?;
    let version = version(input.version_id.as_deref())?;
    let found = cx.objects.head(&input.bucket, &input.key, version).await?;
    let bucket_owner = access.bucket()?.facts.owner;
    let current = lists::of_object(&found.extras.acl, bucket_owner);
    let acl = lists::changed(access, &current, &cx.call.headers, input.access_control_policy)?;
    let change = ObjectChange::Acl(lists::stored(&acl, bucket_owner));
    cx.objects.set_object(&input.bucket, &input.key, version, change).await?;
    Ok(S3Response::new(PutObjectAclOutput::default()))
}
