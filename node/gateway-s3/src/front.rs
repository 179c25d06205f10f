//! What every request passes before and after the protocol library.
//!
//! Before: the head is read once into a [`Call`]: who claims to ask, for what, with what body. What can be
//! refused by looking is refused. The body is taken off the request and left with the call: nothing reads
//! it before the signature has been verified.
//! After: errors get AWS's document, the answer gets its headers, and the observer its record.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use holdfast_object::api::ObjectGateway;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use s3s::service::S3Service;
use tokio::sync::Semaphore;

use crate::{
    answer::{self, CountedBody, Ledger},
    call::{CALL, Call},
    errors::Refusal,
    intake::{
        Fault, Outcome, Source,
        checksum::Algorithm,
        plan::{self, Plan},
    },
    limits::{DRAIN_SIZE_MAX, DRAIN_TIMEOUT, REQUESTS_MAX, XML_BODY_SIZE_MAX},
    observer::{Observer, RequestRecord},
    operations,
    sigv4::Signed,
    target::Domains,
    watch::Watch,
};

/// Serves requests of all connections.
pub(crate) struct Front {
    library: S3Service,
    objects: Arc<dyn ObjectGateway>,
    domains: Domains,
    observer: Arc<dyn Observer>,
    requests: Arc<Semaphore>,
}

/// A request that was refused before it became a call.
struct Turned {
    refusal: Refusal,
    operation: &'static str,
}

impl From<Refusal> for Turned {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, operation: "Unknown" }
    }
}

impl Front {
    pub(crate) fn new(
        library: S3Service,
        objects: Arc<dyn ObjectGateway>,
        domains: Domains,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self { library, objects, domains, observer, requests: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        watch: &Arc<Watch>,
    ) -> Result<Response<CountedBody>, Infallible> {
        let started = Instant::now();
        let (busy, progress) = watch.begin();
        let id = request_id();
        let head_only = request.method() == Method::HEAD;
        let path = request.uri().path().to_owned();
        let mut ledger = Ledger {
            observer: Arc::clone(&self.observer),
            record: RequestRecord {
                operation: "Unknown",
                status: 0,
                tenant: None,
                bytes_in: 0,
                bytes_out: 0,
                duration: std::time::Duration::ZERO,
                whole: false,
            },
            started,
            call: None,
        };
        let permit = Arc::clone(&self.requests).try_acquire_owned().ok();
        let mut response = if permit.is_none() {
            answer::error(&Refusal::new("SlowDown"), &path, &id, None)
        } else {
            let (mut parts, body) = request.into_parts();
            match self.read_head(&mut parts, &body, &id) {
                Ok(mut call) => {
                    ledger.record.operation = call.operation.name;
                    *call.content.get_mut() = Some(source(body));
                    let request = Request::from_parts(parts, s3s::Body::empty());
                    let call = Arc::new(call);
                    ledger.call = Some(Arc::clone(&call));
                    let response = self.serve(request, &call, &path).await;
                    if call.verified.load(Ordering::Relaxed) {
                        ledger.record.tenant = call.credential.get().map(|credential| credential.tenant);
                    }
                    response
                }
                Err(turned) => {
                    ledger.record.operation = turned.operation;
                    drain(source(body), &parts.headers).await;
                    answer::error(&turned.refusal, &path, &id, None)
                }
            }
        };
        if head_only || response.status() == StatusCode::NOT_MODIFIED {
            answer::strip_body(&mut response);
        }
        answer::dress(&mut response, &id);
        ledger.record.status = response.status().as_u16();
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        Ok(response.map(|body| CountedBody::new(body, length, ledger, progress, (busy, permit))))
    }

    /// Everything about a request that can be told from its head.
    fn read_head(&self, parts: &mut Parts, body: &Incoming, id: &str) -> Result<Call, Turned> {
        if parts.method == Method::OPTIONS {
            return Err(Refusal::new("AccessForbidden").into());
        }
        let host = host(parts);
        let target = self.domains.target(host.as_deref(), parts.uri.path())?;
        let query = query(parts.uri.query().unwrap_or(""))?;
        let signed = Signed::parse(&parts.headers, &query)?.ok_or_else(|| Refusal::new("AccessDenied"))?;
        signed.check_region(&self.objects.region())?;
        signed.check_signed_headers(&parts.headers)?;
        if signed.presigned {
            unhoist(&mut parts.headers, &query);
        }
        let copies = parts.headers.contains_key("x-amz-copy-source");
        let operation = operations::recognise(&parts.method, &target, &query, copies)?;
        let turned = |refusal| Turned { refusal, operation: operation.name };
        let is_form = |value: &http::HeaderValue| value.as_bytes().starts_with(b"multipart/form-data");
        if operation.name == "PostObject"
            || parts.headers.get(header::CONTENT_TYPE).is_some_and(is_form) && parts.method == Method::POST
        {
            // The library would gather the form's file in memory before anything else is checked.
            return Err(turned(Refusal::not_implemented("PostObject")));
        }
        let body_checksums = operation.name != "CompleteMultipartUpload";
        let mut plan = Plan::parse(&parts.headers, body_checksums).map_err(turned)?;
        if !operation.takes_content() {
            plan.content_md5 = plan::content_md5(&parts.headers).map_err(turned)?;
            plan.size_max = Some(XML_BODY_SIZE_MAX as u64);
        } else if plan.length.is_none() {
            // On HTTP/2 a request that ends with its head says that its body is empty.
            if !(parts.version == http::Version::HTTP_2 && body.is_end_stream()) {
                return Err(turned(Refusal::new("MissingContentLength")));
            }
            plan.length = Some(0);
        }
        // As AWS does: an object whose client sends no checksum gets one, and parts have what the whole needs
        // should their upload have been begun without an algorithm.
        if operation.name == "UploadPart" || operation.name == "PutObject" && plan.checksum.is_none() {
            plan.also = Some(Algorithm::Crc64Nvme);
        }
        let date =
            parts.headers.get("x-amz-date").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        Ok(Call {
            id: id.to_owned(),
            operation,
            target,
            signed,
            date,
            headers: parts.headers.clone(),
            query,
            plan,
            content: Mutex::new(None),
            outcome: Arc::new(Outcome::default()),
            credential: std::sync::OnceLock::new(),
            refusal: Mutex::new(None),
            verified: AtomicBool::new(false),
        })
    }

    /// Through the library to a handler, and back.
    async fn serve(&self, request: Request<s3s::Body>, call: &Arc<Call>, path: &str) -> Response<s3s::Body> {
        let served = CALL.scope(Arc::clone(call), self.library.call(request)).await;
        let response = served.unwrap_or_else(|error| {
            tracing::error!(operation = call.operation.name, error = ?error, "protocol library failed");
            answer::error(&Refusal::new("InternalError"), path, &call.id, Some(call))
        });
        if !response.status().is_client_error()
            && !response.status().is_server_error()
            && response.status() != StatusCode::NOT_MODIFIED
        {
            return response;
        }
        let unread = call.content.lock().take();
        if let Some(unread) = unread {
            drain(unread, &call.headers).await;
        }
        match refusal_of(call, &response) {
            Some(refusal) => {
                tracing::debug!(operation = call.operation.name, code = refusal.code, id = %call.id, "refused");
                answer::error(&refusal, path, &call.id, Some(call))
            }
            None => response,
        }
    }
}

/// Why a call was refused, as precisely as is known: what was wrong with its body, what a handler said, what
/// the library answered.
fn refusal_of(call: &Call, response: &Response<s3s::Body>) -> Option<Refusal> {
    let said = call.refusal.lock().take();
    if let Some(fault) = call.outcome.fault() {
        return Some(Refusal::from(&fault));
    }
    said.or_else(|| {
        let document = response.body().bytes()?;
        let refusal = answer::read_error(&document);
        if refusal.is_none() {
            tracing::warn!(document = %String::from_utf8_lossy(&document), "an error outside the table");
        }
        refusal
    })
}

/// 64 random bits, as AWS shows them.
fn request_id() -> String {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it is up");
    hex::encode_upper(bytes)
}

fn host(parts: &Parts) -> Option<String> {
    let named = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok()).map(str::to_owned);
    named.or_else(|| parts.uri.authority().map(|authority| authority.as_str().to_owned()))
}

fn query(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let decode = |piece: &str| {
        let spaced = piece.replace('+', " ");
        urlencoding::decode(&spaced).map(std::borrow::Cow::into_owned).map_err(|_| Refusal::new("InvalidURI"))
    };
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

/// Presigned URLs of some SDKs carry `x-amz-` headers as (signed) parameters.
fn unhoist(headers: &mut HeaderMap, query: &[(String, String)]) {
    for (name, value) in query.iter().filter(|(name, _)| name.starts_with("x-amz-")) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), value.parse())
            && !headers.contains_key(&name)
        {
            headers.insert(name, value);
        }
    }
}

/// The data of a body as it comes from the connection.
fn source(body: Incoming) -> Source {
    if body.is_end_stream() {
        return Box::pin(futures::stream::empty());
    }
    Box::pin(
        BodyExt::into_data_stream(body).map(|item| item.map_err(|error| Fault::Broken(error.to_string()))),
    )
}

/// Reads what a refused client is still sending, within limits, so that it gets to read the answer: closing
/// a socket with unread bytes resets it. A client that waits for `100 Continue` has nothing under way.
async fn drain(mut source: impl Stream<Item = Result<Bytes, Fault>> + Unpin, headers: &HeaderMap) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let all = async {
        let mut left = DRAIN_SIZE_MAX;
        while let Some(Ok(bytes)) = source.next().await {
            left = left.saturating_sub(bytes.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    // Time is up or everything is read: the answer goes out either way.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, all).await;
}
