//! Settings that tools read when they start. What is the case is answered; a feature that is not there is
//! answered as AWS answers for a bucket that does not use it. Nothing here changes anything: deleting a
//! setting that cannot exist finds it gone.

use s3s::{
    S3Request, S3Response,
    dto::{
        DeleteBucketReplicationInput, DeleteBucketReplicationOutput, GetBucketAccelerateConfigurationInput,
        GetBucketAccelerateConfigurationOutput, GetBucketReplicationInput, GetBucketReplicationOutput,
    },
};

use crate::{errors::Refusal, service::Context};

/// A setting of a bucket that exists has this answer.
macro_rules! bucket_settings {
    ($($name:ident: $input:ident -> $output:ident = |$cx:ident| $answer:expr;)*) => {
        $(
            pub(crate) async fn $name($cx: Context, request: S3Request<$input>) -> Result<S3Response<$output>, Refusal> {
                $cx.objects.head_bucket(&request.input.bucket).await?;
                let answer: Result<$output, Refusal> = $answer;
                answer.map(S3Response::new)
            }
        )*
    };
}

bucket_settings! {
    accelerate: GetBucketAccelerateConfigurationInput -> GetBucketAccelerateConfigurationOutput = |cx| Ok(Default::default());
    replication: GetBucketReplicationInput -> GetBucketReplicationOutput =
        |cx| Err(Refusal::new("ReplicationConfigurationNotFoundError"));

    delete_replication: DeleteBucketReplicationInput -> DeleteBucketReplicationOutput = |cx| Ok(DeleteBucketReplicationOutput {});
}
