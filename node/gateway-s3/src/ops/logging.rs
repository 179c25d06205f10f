//! Where the access logs of buckets go: read and set. What is written there is in [`crate::logs`].

use holdfast_object::versioned::DocumentKind;
use s3s::{
    S3Request, S3Response,
    dto::{
        GetBucketLoggingInput, GetBucketLoggingOutput, LoggingEnabled, PartitionDateSource,
        PartitionedPrefix, PutBucketLoggingInput, PutBucketLoggingOutput, TargetObjectKeyFormat,
    },
};

use crate::{
    errors::Refusal,
    logs::{Logging, Naming, PREFIX_SIZE_MAX},
    ops::documents,
    service::Context,
};

fn naming(format: Option<TargetObjectKeyFormat>) -> Result<Naming, Refusal> {
    let Some(format) = format else { return Ok(Naming::Simple) };
    match (format.simple_prefix, format.partitioned_prefix) {
        (Some(_), None) => Ok(Naming::Simple),
        (None, Some(partitioned)) => match partitioned.partition_date_source.as_ref().map(|by| by.as_str()) {
            Some(PartitionDateSource::EVENT_TIME) => Ok(Naming::ByEvent),
            Some(PartitionDateSource::DELIVERY_TIME) | None => Ok(Naming::ByDelivery),
            Some(_) => Err(Refusal::new("MalformedXML")),
        },
        _ => Err(Refusal::new("MalformedXML")),
    }
}

fn format(naming: Naming) -> Option<TargetObjectKeyFormat> {
    let by = |source| TargetObjectKeyFormat {
        partitioned_prefix: Some(PartitionedPrefix {
            partition_date_source: Some(PartitionDateSource::from_static(source)),
        }),
        simple_prefix: None,
    };
    match naming {
        Naming::Simple => None,
        Naming::ByEvent => Some(by(PartitionDateSource::EVENT_TIME)),
        Naming::ByDelivery => Some(by(PartitionDateSource::DELIVERY_TIME)),
    }
}

pub(crate) async fn get(
    cx: Context,
    request: S3Request<GetBucketLoggingInput>,
) -> Result<S3Response<GetBucketLoggingOutput>, Refusal> {
    let body = documents::load(&cx, &request.input.bucket, DocumentKind::Logging).await?;
    let Some(body) = body else { return Ok(S3Response::new(GetBucketLoggingOutput::default())) };
    let logging: Logging = serde_json::from_slice(&body).map_err(|_| Refusal::new("InternalError"))?;
    Ok(S3Response::new(GetBucketLoggingOutput {
        logging_enabled: Some(LoggingEnabled {
            target_bucket: logging.bucket,
            target_grants: None,
            target_object_key_format: format(logging.naming),
            target_prefix: logging.prefix,
        }),
    }))
}

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutBucketLoggingInput>,
) -> Result<S3Response<PutBucketLoggingOutput>, Refusal> {
    let input = request.input;
    let Some(wanted) = input.bucket_logging_status.logging_enabled else {
        documents::remove(&cx, &input.bucket, DocumentKind::Logging).await?;
        return Ok(S3Response::new(PutBucketLoggingOutput {}));
    };
    if wanted.target_grants.is_some_and(|grants| !grants.is_empty()) {
        // The owner of both buckets reads the log; others are let in by the target's policy.
        return Err(Refusal::not_implemented("A grant on log objects"));
    }
    if wanted.target_prefix.len() > PREFIX_SIZE_MAX {
        let said = format!("The target prefix is longer than {PREFIX_SIZE_MAX} bytes");
        return Err(Refusal::because("InvalidArgument", said).with("ArgumentName", "TargetPrefix"));
    }
    let logging = Logging {
        bucket: wanted.target_bucket,
        prefix: wanted.target_prefix,
        naming: naming(wanted.target_object_key_format)?,
    };
    check_target(&cx, &logging).await?;
    let body = serde_json::to_vec(&logging).map_err(|_| Refusal::new("InternalError"))?;
    documents::store(&cx, &input.bucket, DocumentKind::Logging, body.into()).await?;
    Ok(S3Response::new(PutBucketLoggingOutput {}))
}

/// A bucket takes the logs of its owner's buckets, if whoever asks may write there.
async fn check_target(cx: &Context, logging: &Logging) -> Result<(), Refusal> {
    let invalid = |said: &'static str| Err(Refusal::because("InvalidTargetBucketForLogging", said));
    let access = cx.call.access()?;
    let target = match access.check_target(&*cx.objects, &logging.bucket, &logging.prefix).await {
        Ok(target) => target,
        Err(refusal) if refusal.code == "NoSuchBucket" => {
            return invalid("The target bucket for logging does not exist");
        }
        Err(refusal) => return Err(refusal),
    };
    if target.owner.canonical != access.bucket()?.owner.canonical {
        return invalid("The owner for the bucket to be logged and the target bucket must be the same");
    }
    if target.requester_pays {
        return invalid("The target bucket for logging must not have Requester Pays enabled");
    }
    if cx.objects.bucket(&logging.bucket).await?.retention.is_some() {
        return invalid("The target bucket for logging must not have a default retention");
    }
    Ok(())
}
