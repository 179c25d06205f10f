//! Cross-origin rules of buckets: read, replaced, removed. What they do is in [`crate::browser`].

use holdfast_access::cors::{Cors, Rule};
use holdfast_object::versioned::{BucketChange, DocumentKind};
use s3s::{
    S3Request, S3Response,
    dto::{
        CORSRule, DeleteBucketCorsInput, DeleteBucketCorsOutput, GetBucketCorsInput, GetBucketCorsOutput,
        PutBucketCorsInput, PutBucketCorsOutput,
    },
};

use crate::{errors::Refusal, service::Context};

pub(crate) async fn get(
    cx: Context,
    _: S3Request<GetBucketCorsInput>,
) -> Result<S3Response<GetBucketCorsOutput>, Refusal> {
    let cors = &cx.call.access()?.bucket()?.cors;
    let cors = cors.as_ref().ok_or_else(|| Refusal::new("NoSuchCORSConfiguration"))?;
    let shown = |rule: &Rule| CORSRule {
        allowed_headers: (!rule.headers.is_empty()).then(|| rule.headers.clone()),
        allowed_methods: rule.methods.clone(),
        allowed_origins: rule.origins.clone(),
        expose_headers: (!rule.expose.is_empty()).then(|| rule.expose.clone()),
        id: rule.id.clone(),
        max_age_seconds: rule.max_age_seconds,
    };
    Ok(S3Response::new(GetBucketCorsOutput { cors_rules: Some(cors.rules.iter().map(shown).collect()) }))
}

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutBucketCorsInput>,
) -> Result<S3Response<PutBucketCorsOutput>, Refusal> {
    let input = request.input;
    let rule = |rule: CORSRule| Rule {
        id: rule.id,
        origins: rule.allowed_origins,
        methods: rule.allowed_methods,
        headers: rule.allowed_headers.unwrap_or_default(),
        expose: rule.expose_headers.unwrap_or_default(),
        max_age_seconds: rule.max_age_seconds,
    };
    let rules: Vec<Rule> = input.cors_configuration.cors_rules.into_iter().map(rule).collect();
    if rules.iter().any(|rule| rule.origins.is_empty() || rule.methods.is_empty()) {
        return Err(Refusal::new("MalformedXML"));
    }
    let cors = Cors { rules };
    cors.check().map_err(|said| Refusal::because("InvalidRequest", said))?;
    let body = serde_json::to_vec(&cors).map_err(|_| Refusal::new("InternalError"))?;
    if body.len() > DocumentKind::Cors.size_max() {
        return Err(Refusal::because("InvalidRequest", "The CORS configuration is too large."));
    }
    let change =
        BucketChange::Document { kind: DocumentKind::Cors, id: String::new(), body: Some(body.into()) };
    cx.objects.set_bucket(&input.bucket, change).await?;
    Ok(S3Response::new(PutBucketCorsOutput {}))
}

pub(crate) async fn delete(
    cx: Context,
    request: S3Request<DeleteBucketCorsInput>,
) -> Result<S3Response<DeleteBucketCorsOutput>, Refusal> {
    let change = BucketChange::Document { kind: DocumentKind::Cors, id: String::new(), body: None };
    cx.objects.set_bucket(&request.input.bucket, change).await?;
    Ok(S3Response::new(DeleteBucketCorsOutput {}))
}
