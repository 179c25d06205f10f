//! Buckets as websites: `https://BUCKET.website.DOMAIN/path`.
//!
//! Nobody signs here: what is answered is what anybody may read. Each object is read as by an anonymous GET, through
//! the same decision and the same handler; what differs is which key a path means (`holdfast_access::website`), that
//! errors are pages ([`page`]), and that there are redirects.
//!
//! ```text
//! path ── redirect of all, rule by prefix ── 301
//!   └─ object, or index document of a directory ── 200, 206, 304; its own redirect ── 301
//!        └─ error ── directory without its slash ── 302
//!             └─ rule by status ── 301
//!                  └─ error document, or a page of ours
//! ```

mod page;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use holdfast_access::website::{Asked, MOVED_PERMANENTLY, Website};
use holdfast_object::{
    api::{ObjectError, ObjectGateway},
    versioned::DocumentKind,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use s3s::{Body, service::S3Service};

use crate::{
    answer::ErrorCode,
    authorize,
    call::{CALL, Call},
    errors::Refusal,
    front::refusal_of,
    gate,
    identities::Identities,
    intake::plan::Plan,
    normal, operations,
    ops::shared::REDIRECT,
    target::{Target, website_key},
    throttle::Throttle,
};

/// How this gateway is spoken to.
const PROTOCOL: &str = "https";

/// Headers of a request that policies, conditions and ranges read.
const ABOUT_THE_PAGE: [HeaderName; 3] = [header::USER_AGENT, header::REFERER, header::ORIGIN];
const ABOUT_THE_OBJECT: [HeaderName; 6] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// Serves websites.
pub(crate) struct Websites {
    /// The library's second pass.
    pub second: Arc<S3Service>,
    pub objects: Arc<dyn ObjectGateway>,
    pub identities: Arc<dyn Identities>,
    pub throttle: Arc<Throttle>,
}

/// A request at the address of a website.
pub(crate) struct Request<'a> {
    pub parts: &'a Parts,
    pub peer: IpAddr,
    pub id: &'a str,
    /// With its port, as the client wrote it.
    pub host: &'a str,
    pub bucket: String,
}

/// An object that was asked for: the answer, and the call that it belongs to.
type Fetched = (Result<Response<Body>, Refusal>, Option<Arc<Call>>);

impl Request<'_> {
    fn asked<'a>(&'a self, key: &'a str) -> Asked<'a> {
        Asked { protocol: PROTOCOL, host: self.host, key }
    }

    fn page(&self, refusal: &Refusal, key: &str, cause: Option<&Refusal>) -> Response<Body> {
        page::error(&page::Subject { bucket: &self.bucket, key, id: self.id }, refusal, cause)
    }
}

impl Websites {
    /// Answers a request, and tells the call that carries the answer's content.
    pub(crate) async fn answer(&self, request: Request<'_>) -> (Response<Body>, Option<Arc<Call>>) {
        if !matches!(request.parts.method, Method::GET | Method::HEAD) {
            let refusal = Refusal::new("MethodNotAllowed").with_header(header::ALLOW, "GET, HEAD, OPTIONS");
            return (request.page(&refusal, "", None), None);
        }
        let found = async {
            let key = website_key(request.parts.uri.path())?;
            Ok((key, self.website(&request.bucket).await?))
        };
        let (key, website) = match found.await {
            Ok(found) => found,
            Err(refusal) => return (request.page(&refusal, "", None), None),
        };
        let asked = request.asked(&key);
        if let Some(place) = &website.redirect_all {
            return (redirect(MOVED_PERMANENTLY, &place.location(&asked)), None);
        }
        if let Some(rule) = website.rule(&key, None) {
            return (redirect(rule.code(), &rule.location(&asked)), None);
        }
        let (fetched, call) = self.fetch(&request, &website.key_of(&key), &ABOUT_THE_OBJECT).await;
        match fetched {
            Ok(response) => (follow(response), call),
            Err(refusal) if refusal.status() == StatusCode::NOT_MODIFIED => (not_modified(&refusal), call),
            Err(refusal) => self.failed(&request, &website, &key, refusal, call).await,
        }
    }

    /// What the bucket says about its website.
    async fn website(&self, bucket: &str) -> Result<Website, Refusal> {
        let snapshot = self.identities.snapshot();
        let (tenant, _) = authorize::tenant_of_bucket(&*self.objects, &snapshot, bucket).await?;
        match self.objects.open(tenant).document(bucket, DocumentKind::Website, "").await {
            Ok(document) => serde_json::from_slice(&document.body).map_err(|error| {
                tracing::error!(bucket, %error, "the bucket's website configuration cannot be read");
                Refusal::new("InternalError")
            }),
            Err(ObjectError::NoSuchDocument) => Err(Refusal::new("NoSuchWebsiteConfiguration")),
            Err(error) => Err(error.into()),
        }
    }

    /// What is answered when there is no object to answer with.
    async fn failed(
        &self,
        request: &Request<'_>,
        website: &Website,
        key: &str,
        refusal: Refusal,
        call: Option<Arc<Call>>,
    ) -> (Response<Body>, Option<Arc<Call>>) {
        let missing = matches!(refusal.code, "NoSuchKey" | "AccessDenied");
        if let Some(index) = website.index_below(key).filter(|_| missing)
            && self.fetch_as(&Method::HEAD, request, &index, &[]).await.0.is_ok()
        {
            let directory = format!("{key}/");
            return (redirect(StatusCode::FOUND.as_u16(), &request.asked(&directory).location()), call);
        }
        let hidden = call.as_ref().is_some_and(|call| call.hides(&refusal));
        let refusal = if hidden { Refusal::new("AccessDenied") } else { refusal };
        let status = refusal.status();
        if let Some(rule) = website.rule(key, Some(status.as_u16())) {
            return (redirect(rule.code(), &rule.location(&request.asked(key))), call);
        }
        let Some(document) = website.error.as_ref().filter(|_| status.is_client_error()) else {
            return (request.page(&refusal, key, None), call);
        };
        match self.fetch(request, document, &[]).await {
            (Ok(mut response), _) => {
                *response.status_mut() = status;
                // They are about the document, and a cache would take them to be about what was asked for.
                for name in [header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES] {
                    response.headers_mut().remove(name);
                }
                page::name_error(response.headers_mut(), &refusal);
                response.extensions_mut().insert(ErrorCode(refusal.code));
                (response, call)
            }
            (Err(of_document), _) => (request.page(&refusal, key, Some(&of_document)), call),
        }
    }

    async fn fetch(&self, request: &Request<'_>, key: &str, about: &[HeaderName]) -> Fetched {
        self.fetch_as(&request.parts.method, request, key, about).await
    }

    /// Reads an object as an anonymous request for it.
    async fn fetch_as(
        &self,
        method: &Method,
        request: &Request<'_>,
        key: &str,
        about: &[HeaderName],
    ) -> Fetched {
        let mut headers = HeaderMap::new();
        for name in ABOUT_THE_PAGE.iter().chain(about) {
            if let Some(value) = request.parts.headers.get(name) {
                headers.insert(name, value.clone());
            }
        }
        let target = Target::Object(request.bucket.clone(), key.to_owned());
        let made = operations::recognise(method, &target, &[], false).and_then(|operation| {
            let plan = Plan::parse(&HeaderMap::new(), false)?;
            Ok(Call::made((request.id, request.peer), operation, target, headers, plan))
        });
        match made {
            Ok(call) => {
                let call = Arc::new(call);
                (self.read(&call, method, key, &request.bucket).await, Some(call))
            }
            Err(refusal) => (Err(refusal), None),
        }
    }

    async fn read(
        &self,
        call: &Arc<Call>,
        method: &Method,
        key: &str,
        bucket: &str,
    ) -> Result<Response<Body>, Refusal> {
        call.verified.store(true, Ordering::Relaxed);
        authorize::authorize(call, &*self.objects, &*self.identities).await?;
        call.admit_anonymous(&self.throttle)?;
        let mut request = http::Request::new(Body::empty());
        *request.method_mut() = method.clone();
        let path = format!("/{bucket}/{}", urlencoding::encode(key));
        *request.uri_mut() = path.parse().map_err(|_| Refusal::new("InvalidURI"))?;
        *request.headers_mut() = normal::headers(call.headers.clone());
        let answered = CALL.scope(Arc::clone(call), self.second.call(request)).await.map_err(|error| {
            tracing::error!(operation = call.operation.name, ?error, "protocol library failed");
            Refusal::new("InternalError")
        })?;
        let (mut parts, body) = answered.into_parts();
        parts.status = gate::status(&parts);
        let response = Response::from_parts(parts, body);
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal_of(call, &response).unwrap_or_else(|| Refusal::new("InternalError")))
    }
}

/// An object, or the place that it sends to.
fn follow(response: Response<Body>) -> Response<Body> {
    let Some(to) = response.headers().get(REDIRECT).and_then(|to| to.to_str().ok()) else { return response };
    redirect(MOVED_PERMANENTLY, to)
}

fn redirect(code: u16, location: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::MOVED_PERMANENTLY);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    match HeaderValue::from_str(location) {
        Ok(location) => drop(headers.insert(header::LOCATION, location)),
        Err(_) => tracing::error!(location, "a redirect that cannot be a header"),
    }
    response
}

fn not_modified(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().extend(refusal.headers.iter().cloned());
    response
}
