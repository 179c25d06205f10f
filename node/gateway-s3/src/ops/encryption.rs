//! Default encryption of a bucket, and how answers tell what an object is sealed under.
//!
//! Everything is sealed under the tenant's key; a bucket may say that its new objects are sealed under a named
//! key as well. A bucket that says nothing is shown as AWS shows one: `AES256`.

use holdfast_object::{sealing::DefaultSealing, versioned::DocumentKind};
use s3s::{
    S3Request, S3Response,
    dto::{
        DeleteBucketEncryptionInput, DeleteBucketEncryptionOutput, GetBucketEncryptionInput,
        GetBucketEncryptionOutput, PutBucketEncryptionInput, PutBucketEncryptionOutput, ServerSideEncryption,
        ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
    },
};

use crate::{errors::Refusal, ops::documents, service::Context, sse};

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutBucketEncryptionInput>,
) -> Result<S3Response<PutBucketEncryptionOutput>, Refusal> {
    let input = request.input;
    let default = parse(input.server_side_encryption_configuration)?;
    documents::store(&cx, &input.bucket, DocumentKind::Encryption, default.encode()).await?;
    Ok(S3Response::new(PutBucketEncryptionOutput {}))
}

pub(crate) async fn get(
    cx: Context,
    request: S3Request<GetBucketEncryptionInput>,
) -> Result<S3Response<GetBucketEncryptionOutput>, Refusal> {
    let document = documents::load(&cx, &request.input.bucket, DocumentKind::Encryption).await?;
    let default = match document {
        None => DefaultSealing::default(),
        Some(document) => DefaultSealing::decode(&document)
            .ok_or_else(|| Refusal::because("InternalError", "default encryption is damaged"))?,
    };
    Ok(S3Response::new(GetBucketEncryptionOutput {
        server_side_encryption_configuration: Some(shown(default)),
    }))
}

pub(crate) async fn delete(
    cx: Context,
    request: S3Request<DeleteBucketEncryptionInput>,
) -> Result<S3Response<DeleteBucketEncryptionOutput>, Refusal> {
    documents::remove(&cx, &request.input.bucket, DocumentKind::Encryption).await?;
    Ok(S3Response::new(DeleteBucketEncryptionOutput {}))
}

fn parse(configuration: ServerSideEncryptionConfiguration) -> Result<DefaultSealing, Refusal> {
    let malformed = || Refusal::new("MalformedXML");
    let mut rules = configuration.rules.into_iter();
    let (Some(rule), None) = (rules.next(), rules.next()) else { return Err(malformed()) };
    let by_default = rule.apply_server_side_encryption_by_default.ok_or_else(malformed)?;
    let key = by_default.kms_master_key_id.filter(|key| !key.is_empty());
    let named = match by_default.sse_algorithm.as_str() {
        ServerSideEncryption::AES256 => false,
        ServerSideEncryption::AWS_KMS => true,
        ServerSideEncryption::AWS_KMS_DSSE => {
            return Err(Refusal::not_implemented("Two layers of server side encryption (aws:kms:dsse)"));
        }
        _ => return Err(malformed()),
    };
    if let Some(key) = &key {
        if !named {
            return Err(Refusal::because(
                "InvalidArgument",
                "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms",
            ));
        }
        sse::check_key_id(key)?;
    }
    Ok(DefaultSealing { named, key, bucket_key: rule.bucket_key_enabled.unwrap_or(false) })
}

fn shown(default: DefaultSealing) -> ServerSideEncryptionConfiguration {
    let algorithm = if default.named { ServerSideEncryption::AWS_KMS } else { ServerSideEncryption::AES256 };
    let by_default = ServerSideEncryptionByDefault {
        kms_master_key_id: default.key,
        sse_algorithm: ServerSideEncryption::from_static(algorithm),
    };
    let rule = ServerSideEncryptionRule {
        apply_server_side_encryption_by_default: Some(by_default),
        bucket_key_enabled: Some(default.bucket_key),
    };
    ServerSideEncryptionConfiguration { rules: vec![rule] }
}

/// Fills the fields of an output that tell what an object is sealed under. `$sealed` is a
/// `holdfast_object::sealing::Sealed`.
macro_rules! tell {
    ($output:expr, $cx:expr, $sealed:expr) => {{
        use holdfast_object::sealing::Sealed;
        use s3s::dto::ServerSideEncryption;
        match $sealed {
            Sealed::Own => {
                $output.server_side_encryption =
                    Some(ServerSideEncryption::from_static(ServerSideEncryption::AES256));
            }
            Sealed::Customer(_) => {
                $output.sse_customer_algorithm = Some(ServerSideEncryption::AES256.to_owned());
                $output.sse_customer_key_md5 = crate::sse::key_md5(&$cx.call.headers);
            }
            Sealed::Named(named) => {
                $output.server_side_encryption =
                    Some(ServerSideEncryption::from_static(ServerSideEncryption::AWS_KMS));
                $output.ssekms_key_id = Some(named.id);
                $output.bucket_key_enabled = named.bucket_key.then_some(true);
            }
        }
    }};
}
pub(crate) use tell;

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(algorithm: &'static str, key: Option<&str>) -> ServerSideEncryptionConfiguration {
        ServerSideEncryptionConfiguration {
            rules: vec![ServerSideEncryptionRule {
                apply_server_side_encryption_by_default: Some(ServerSideEncryptionByDefault {
                    kms_master_key_id: key.map(str::to_owned),
                    sse_algorithm: ServerSideEncryption::from_static(algorithm),
                }),
                bucket_key_enabled: Some(true),
            }],
        }
    }

    #[test]
    fn configurations_are_shown_as_they_were_given_or_refused() {
        for given in [configuration("AES256", None), configuration("aws:kms", Some("k"))] {
            assert_eq!(shown(parse(given.clone()).unwrap()), given);
        }
        for (given, code) in [
            (configuration("AES256", Some("k")), "InvalidArgument"),
            (configuration("rot13", None), "MalformedXML"),
            (configuration("aws:kms:dsse", None), "NotImplemented"),
            (ServerSideEncryptionConfiguration { rules: Vec::new() }, "MalformedXML"),
        ] {
            assert_eq!(parse(given).unwrap_err().code, code);
        }
    }
}
