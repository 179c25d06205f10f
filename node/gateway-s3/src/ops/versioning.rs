//! Versioning of a bucket.

use holdfast_object::versioned::{BucketChange, Versioning};
use s3s::{
    S3Request, S3Response,
    dto::{
        BucketVersioningStatus, GetBucketVersioningInput, GetBucketVersioningOutput, MFADelete,
        PutBucketVersioningInput, PutBucketVersioningOutput,
    },
};

use crate::{errors::Refusal, service::Context};

pub(crate) async fn get(
    cx: Context,
    request: S3Request<GetBucketVersioningInput>,
) -> Result<S3Response<GetBucketVersioningOutput>, Refusal> {
    let status = match cx.objects.bucket(&request.input.bucket).await?.versioning {
        Versioning::Off => None,
        Versioning::Enabled => Some(BucketVersioningStatus::ENABLED),
        Versioning::Suspended => Some(BucketVersioningStatus::SUSPENDED),
    };
    let status = status.map(BucketVersioningStatus::from_static);
    Ok(S3Response::new(GetBucketVersioningOutput { status, mfa_delete: None }))
}

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutBucketVersioningInput>,
) -> Result<S3Response<PutBucketVersioningOutput>, Refusal> {
    let input = request.input;
    let asked = input.versioning_configuration;
    match asked.mfa_delete.as_ref().map(MFADelete::as_str) {
        None | Some(MFADelete::DISABLED) => {}
        Some(MFADelete::ENABLED) => return Err(Refusal::not_implemented("MFA delete")),
        Some(_) => return Err(Refusal::new("MalformedXML")),
    }
    let versioning = match asked.status.as_ref().map(BucketVersioningStatus::as_str) {
        Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
        Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
        Some(_) => return Err(Refusal::new("MalformedXML")),
        None => return Err(Refusal::new("IllegalVersioningConfigurationException")),
    };
    cx.objects.set_bucket(&input.bucket, BucketChange::Versioning(versioning)).await?;
    Ok(S3Response::new(PutBucketVersioningOutput {}))
}
