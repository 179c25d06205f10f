//! The way through the protocol library, in two passes.
//!
//! The first pass ([`Secrets`], [`Verified`]) verifies the signature of the head as it was sent and comes
//! back here, for every request, before the library reads anything else into it. What is not signed, not
//! served, or asks for what is not there, ends here. The second pass ([`Gate`]) is given the request
//! [normalised](crate::normal): without its signature, without headers that the RFC says to ignore, with a
//! body that is verified as it is read. It looks up no secrets and serves only what the first pass let through.

use std::sync::{Arc, atomic::Ordering};

use holdfast_object::api::ObjectGateway;
use http::{Extensions, HeaderMap, Method, StatusCode, Uri, header};
use s3s::{
    Body, HttpRequest, S3Request, S3Response, S3Result,
    access::{S3Access, S3AccessContext},
    auth::{S3Auth, SecretKey},
    route::S3Route,
    service::S3Service,
};

use crate::{
    authorize,
    call::{CALL, Call},
    errors::Refusal,
    headers,
    identities::{self, Identities},
    normal,
    operations::Support,
    ops::attributes,
    throttle::Throttle,
};

/// First pass: looks secrets up.
pub(crate) struct Secrets(pub Arc<dyn Identities>);

#[async_trait::async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let call = CALL.with(Arc::clone);
        let token = call.signed.as_ref().and_then(|signed| signed.token.as_deref());
        let signer = identities::signer(&*self.0, access_key, token)?;
        let secret = SecretKey::from(signer.secret.as_str());
        // Twice only if the library asks twice for one request; the first answer stands.
        let _ = call.signer.set(signer);
        Ok(secret)
    }
}

/// First pass: takes every request whose signature was verified, and hands it to the second.
pub(crate) struct Verified {
    pub second: Arc<S3Service>,
    pub objects: Arc<dyn ObjectGateway>,
    pub identities: Arc<dyn Identities>,
    pub throttle: Arc<Throttle>,
}

#[async_trait::async_trait]
impl S3Route for Verified {
    fn is_match(&self, _: &Method, _: &Uri, _: &HeaderMap, _: &mut Extensions) -> bool {
        true
    }

    async fn check_access(&self, request: &mut S3Request<Body>) -> S3Result<()> {
        let call = CALL.with(Arc::clone);
        // Signed and verified by the same key, or neither.
        let claimed = call.signed.as_ref().map(|signed| signed.access_key.as_str());
        if request.credentials.as_ref().map(|verified| verified.access_key.as_str()) != claimed {
            return Err(Refusal::new("AccessDenied").into());
        }
        call.verified.store(true, Ordering::Relaxed);
        call.admit_signer(&self.throttle, &*self.identities)?;
        is_served(&call)?;
        call.operation.check_parameters(&call.query)?;
        headers::check(&request.headers)?;
        authorize::authorize(&call, &*self.objects, &*self.identities).await?;
        call.admit_anonymous(&self.throttle)?;
        Ok(())
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let call = CALL.with(Arc::clone);
        let mut normal: HttpRequest = HttpRequest::new(Body::empty());
        if !call.operation.takes_content() {
            *normal.body_mut() = Body::http_body_unsync(call.take_content()?.into_http());
        }
        *normal.method_mut() = request.method;
        *normal.uri_mut() = normal::uri(&request.uri)?;
        *normal.headers_mut() = normal::headers(request.headers);
        let answer = self.second.call(normal).await.map_err(|error| {
            tracing::error!(operation = call.operation.name, ?error, "protocol library failed");
            Refusal::new("InternalError")
        })?;
        let (mut parts, mut body) = answer.into_parts();
        if call.operation.name == "GetObjectAttributes"
            && let Some(document) = body.bytes()
        {
            body = Body::from(attributes::without_quotes(&document));
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        let mut answer = S3Response::with_status(body, status(&parts));
        answer.headers = parts.headers;
        answer.extensions = parts.extensions;
        Ok(answer)
    }
}

/// The library says 206 for GET only.
pub(crate) fn status(parts: &http::response::Parts) -> StatusCode {
    let ranged = parts.status == StatusCode::OK && parts.headers.contains_key(header::CONTENT_RANGE);
    if ranged { StatusCode::PARTIAL_CONTENT } else { parts.status }
}

fn is_served(call: &Call) -> Result<(), Refusal> {
    let name = call.operation.name;
    match call.operation.support {
        Support::Yes | Support::Absent => Ok(()),
        Support::No(why) => {
            Err(Refusal::because("NotImplemented", format!("{name} is not implemented: {why}.")))
        }
    }
}

/// Second pass: there are no secrets, so nothing signed can be verified again.
pub(crate) struct NoSecrets;

#[async_trait::async_trait]
impl S3Auth for NoSecrets {
    async fn get_secret_key(&self, _: &str) -> S3Result<SecretKey> {
        Err(Refusal::new("AccessDenied").into())
    }
}

/// Second pass: serves what the first verified, as what the first took it for.
pub(crate) struct Gate;

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let call = CALL.with(Arc::clone);
        if !call.verified.load(Ordering::Relaxed) || call.access.get().is_none() {
            return Err(Refusal::new("AccessDenied").into());
        }
        // Our table and the library's router must agree, or one would serve what the other refused.
        let routed_as = cx.s3_op().name();
        let path = cx.s3_path();
        let same_target =
            path.get_bucket_name() == call.target.bucket() && path.get_object_key() == call.target.key();
        if call.operation.name != routed_as || !same_target {
            tracing::warn!(recognised = call.operation.name, routed_as, "request is ambiguous");
            return Err(Refusal::not_implemented("This combination of parameters").into());
        }
        Ok(())
    }
}
