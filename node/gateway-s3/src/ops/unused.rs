//! Settings of features that are not there, when a client asks for what is the case: that they be off. Tools
//! do so when they tidy up. Nothing changes; anything else is refused.

use s3s::{
    S3Request, S3Response,
    dto::{
        BucketAccelerateStatus, PutBucketAccelerateConfigurationInput, PutBucketAccelerateConfigurationOutput,
    },
};

use crate::{errors::Refusal, service::Context};

/// There is one way to a bucket.
pub(crate) async fn accelerate(
    cx: Context,
    request: S3Request<PutBucketAccelerateConfigurationInput>,
) -> Result<S3Response<PutBucketAccelerateConfigurationOutput>, Refusal> {
    let input = request.input;
    cx.objects.head_bucket(&input.bucket).await?;
    if input.bucket.contains('.') {
        let said = "S3 Transfer Acceleration is not supported for buckets with periods (.) in their names";
        return Err(Refusal::because("InvalidRequest", said));
    }
    match input.accelerate_configuration.status.as_ref().map(BucketAccelerateStatus::as_str) {
        Some(BucketAccelerateStatus::SUSPENDED) => {
            Ok(S3Response::new(PutBucketAccelerateConfigurationOutput {}))
        }
        Some(BucketAccelerateStatus::ENABLED) => Err(Refusal::not_implemented("Transfer acceleration")),
        _ => Err(Refusal::new("MalformedXML")),
    }
}
