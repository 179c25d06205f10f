//! What every request passes before and after the protocol library.
//!
//! Before: the head is read once into a [`Call`]: who claims to ask, for what, with what body. What can be
//! refused by looking is refused. The body is taken off the request and left with the call: nothing reads
//! it before the signature has been verified.
//! After: errors get AWS's document, the answer gets its headers, and the observer its record.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use holdfast_object::api::ObjectGateway;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts,
};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use s3s::service::S3Service;
use tokio::sync::Semaphore;

use crate::{
    answer::{self, CountedBody, Ledger, Log},
    authorize, browser,
    call::{CALL, Call},
    errors::Refusal,
    forms, headers,
    identities::Identities,
    intake::{
        Fault, Outcome, Source,
        checksum::Algorithm,
        plan::{self, Plan},
    },
    lent::Unread,
    limits::{DRAIN_SIZE_MAX, DRAIN_TIMEOUT, REQUESTS_MAX, XML_BODY_SIZE_MAX},
    logs::{Book, Tls},
    normal,
    observer::{Observer, RequestRecord},
    operations, query_api,
    sigv4::Signed,
    target::{Domains, Target},
    throttle::Throttle,
    watch::Watch,
    website::{self, Websites},
};

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub ip: IpAddr,
    pub tls: Tls,
}

/// Serves requests of all connections.
pub(crate) struct Front {
    library: S3Service,
    /// The library's second pass, for what is not verified by its first.
    second: Arc<S3Service>,
    objects: Arc<dyn ObjectGateway>,
    identities: Arc<dyn Identities>,
    domains: Domains,
    observer: Arc<dyn Observer>,
    requests: Arc<Semaphore>,
    throttle: Arc<Throttle>,
    websites: Websites,
    book: Arc<Book>,
}

/// A form on its way in.
struct FormRequest<'a> {
    parts: &'a Parts,
    bucket: String,
    boundary: String,
    peer: IpAddr,
    path: &'a str,
    id: &'a str,
}

/// Says that who asked was told to pay.
const CHARGED: HeaderName = HeaderName::from_static("x-amz-request-charged");

fn is_form(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().to_ascii_lowercase().starts_with(b"multipart/form-data")
}

/// The PUT that a form describes.
fn form_call(
    parts: &Parts,
    bucket: &str,
    asked: &forms::Asked,
    peer: IpAddr,
    id: &str,
) -> Result<Call, Refusal> {
    let target = Target::Object(bucket.to_owned(), asked.key.clone());
    let operation = operations::recognise(&Method::PUT, &target, &[], false)?;
    let mut headers = asked.headers.clone();
    for name in [header::USER_AGENT, header::REFERER, header::ORIGIN, header::EXPECT] {
        if let Some(value) = parts.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let plan = Plan::parse(&headers, true)?;
    let mut call = Call::made((id, peer), operation, target, headers, plan);
    call.posted = true;
    call.signed = asked.signed.as_ref().map(|(signed, _)| signed.clone());
    if let Some((_, signer)) = &asked.signed {
        // Fresh: nobody set it before.
        let _ = call.signer.set(signer.clone());
    }
    Ok(call)
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
        (library, second): (S3Service, Arc<S3Service>),
        objects: Arc<dyn ObjectGateway>,
        identities: Arc<dyn Identities>,
        domains: Domains,
        observer: Arc<dyn Observer>,
        throttle: Arc<Throttle>,
        book: Arc<Book>,
    ) -> Self {
        let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
        let websites = Websites {
            second: Arc::clone(&second),
            objects: Arc::clone(&objects),
            identities: Arc::clone(&identities),
            throttle: Arc::clone(&throttle),
        };
        Self { library, second, objects, identities, domains, observer, requests, throttle, websites, book }
    }

    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
        watch: &Arc<Watch>,
    ) -> Result<Response<CountedBody>, Infallible> {
        let started = Instant::now();
        let (busy, progress) = watch.begin();
        let id = request_id();
        let head_only = request.method() == Method::HEAD;
        let path = request.uri().path().to_owned();
        let (parts, body) = request.into_parts();
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
            log: Log::begin(&parts, peer.tls, self.identities.now_millis(), Arc::clone(&self.book)),
        };
        let permit = Arc::clone(&self.requests).try_acquire_owned().ok();
        let mut response = if permit.is_none() {
            answer::error(&Refusal::new("SlowDown"), &path, &id, None)
        } else {
            self.dispatch(Request::from_parts(parts, body), peer.ip, &path, &id, &mut ledger).await
        };
        if head_only || response.status() == StatusCode::NOT_MODIFIED {
            answer::strip_body(&mut response);
        }
        answer::dress(&mut response, &id);
        ledger.record.status = response.status().as_u16();
        ledger.log.turned(&response, started.elapsed());
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        Ok(response.map(|body| CountedBody::new(body, length, ledger, progress, (busy, permit))))
    }

    /// To what a request is for: a preflight, a form, IAM and STS, or an operation of S3.
    async fn dispatch(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        path: &str,
        id: &str,
        ledger: &mut Ledger,
    ) -> Response<s3s::Body> {
        let (mut parts, body) = request.into_parts();
        let host_name = host(&parts).unwrap_or_default();
        let website = self.domains.website_of(&host_name);
        if parts.method == Method::OPTIONS {
            ledger.record.operation = "Preflight";
            let answered = self.preflight(&parts, website).await;
            return answered.unwrap_or_else(|refusal| answer::error(&refusal, path, id, None));
        }
        if let Some(bucket) = website {
            ledger.record.operation = "Website";
            drain(source(body), &parts.headers).await;
            let asked = website::Request { parts: &parts, peer, id, host: &host_name, bucket };
            let (mut response, call) = self.websites.answer(asked).await;
            if let Some(call) = call {
                self.finish(&call, &mut response).await;
                ledger.call = Some(call);
            }
            return response;
        }
        if query_api::is_for(&parts)
            && self
                .domains
                .target(host(&parts).as_deref(), parts.uri.path())
                .is_ok_and(|target| target == Target::Service)
        {
            let request = query_api::Request { parts: &parts, peer, id };
            let context = (&*self.objects, &self.identities, &*self.throttle);
            let answered = query_api::answer(request, source(body), context).await;
            ledger.record.operation = answered.operation;
            ledger.record.tenant = answered.tenant;
            return answered.response;
        }
        let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if parts.method == Method::POST
            && let Some(boundary) = content_type.and_then(forms::boundary)
            && let Ok(Target::Bucket(bucket)) = self.domains.target(host(&parts).as_deref(), parts.uri.path())
        {
            ledger.record.operation = "PostObject";
            let form = FormRequest { parts: &parts, bucket, boundary, peer, path, id };
            return self.form(form, source(body), ledger).await;
        }
        match self.read_head(&mut parts, &body, peer, id) {
            Ok(mut call) => {
                ledger.record.operation = call.operation.name;
                *call.content.get_mut() = Some(source(body));
                let request = Request::from_parts(parts, s3s::Body::empty());
                let call = Arc::new(call);
                ledger.call = Some(Arc::clone(&call));
                let mut response = self.serve(request, &call, path).await;
                if call.verified.load(Ordering::Relaxed) {
                    ledger.record.tenant = call.signer.get().map(|signer| signer.tenant);
                }
                self.finish(&call, &mut response).await;
                response
            }
            Err(turned) => {
                ledger.record.operation = turned.operation;
                drain(source(body), &parts.headers).await;
                answer::error(&turned.refusal, path, id, None)
            }
        }
    }

    /// Answers a preflight by the rules of the bucket it is about. Nobody signs a preflight.
    async fn preflight(
        &self,
        parts: &Parts,
        website: Option<String>,
    ) -> Result<Response<s3s::Body>, Refusal> {
        let target = match website {
            Some(bucket) => Target::Bucket(bucket),
            None => self.domains.target(host(parts).as_deref(), parts.uri.path())?,
        };
        let bucket = target.bucket().ok_or_else(|| Refusal::new("AccessForbidden"))?;
        let snapshot = self.identities.snapshot();
        let found = authorize::tenant_of_bucket(&*self.objects, &snapshot, bucket).await;
        let cors = match found {
            Ok((_, access)) => access.cors,
            Err(refusal) if refusal.code == "NoSuchBucket" => {
                return Err(Refusal::because("AccessForbidden", "CORSResponse: Bucket not found"));
            }
            Err(refusal) => return Err(refusal),
        };
        browser::preflight(&parts.headers, cors.as_ref())
    }

    /// Says who pays, and lets a page of another origin read the answer, refusals as well, if the bucket's rules do.
    async fn finish(&self, call: &Call, response: &mut Response<s3s::Body>) {
        if call.charged.load(Ordering::Relaxed) && !response.status().is_client_error() {
            response.headers_mut().insert(CHARGED, HeaderValue::from_static("requester"));
        }
        let Some(bucket) = call.target.bucket().filter(|_| call.headers.contains_key(header::ORIGIN)) else {
            return;
        };
        let loaded;
        let cors = match call.access.get() {
            Some(access) => access.bucket.as_ref().and_then(|bucket| bucket.cors.as_ref()),
            None => {
                let snapshot = self.identities.snapshot();
                loaded = authorize::find_bucket(call, &*self.objects, &snapshot, bucket).await.ok();
                loaded.as_ref().and_then(|(_, bucket)| bucket.cors.as_ref())
            }
        };
        browser::allow(&call.headers, call.operation.method.as_str(), cors, response.headers_mut());
    }

    /// Stores the file of a form, as a PUT that its fields describe.
    async fn form(
        &self,
        form: FormRequest<'_>,
        mut body: Source,
        ledger: &mut Ledger,
    ) -> Response<s3s::Body> {
        let FormRequest { parts, bucket, boundary, peer, path, id } = form;
        let opened = forms::open(&mut body, &boundary).await;
        let prepared = opened.and_then(|(fields, first)| {
            let asked = forms::read(&fields, &bucket, &self.objects.region(), &*self.identities)?;
            Ok((asked, first))
        });
        let (asked, first) = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => {
                drain(body, &parts.headers).await;
                return answer::error(&refusal, path, id, None);
            }
        };
        let file = forms::File::new(first, body, &boundary);
        let content = forms::bounded(file, asked.length);
        let call = match form_call(parts, &bucket, &asked, peer, id) {
            Ok(call) => call,
            Err(refusal) => {
                drain(content, &parts.headers).await;
                return answer::error(&refusal, path, id, None);
            }
        };
        *call.content.lock() = Some(content);
        let call = Arc::new(call);
        ledger.call = Some(Arc::clone(&call));
        ledger.record.tenant = call.signer.get().map(|signer| signer.tenant);
        let mut response = match self.put_of_form(&call).await {
            Ok(response) => self.settled(response, &call, path).await,
            Err(refusal) => {
                if let Some(unread) = call.take_unread() {
                    drain(unread, &call.headers).await;
                }
                answer::error(&refusal, path, id, Some(&call))
            }
        };
        if response.status().is_success() {
            let host = host(parts).unwrap_or_default();
            let key = urlencoding::encode(&asked.key);
            let location = match self.domains.bucket_of(&host) {
                Some(_) => format!("https://{host}/{key}"),
                None => format!("https://{host}/{bucket}/{key}"),
            };
            response = asked.answer(response.headers(), &bucket, &location);
        }
        self.finish(&call, &mut response).await;
        response
    }

    /// Decides on the PUT of a form and hands it to the second pass.
    async fn put_of_form(&self, call: &Arc<Call>) -> Result<Response<s3s::Body>, Refusal> {
        call.verified.store(true, Ordering::Relaxed);
        call.admit_signer(&self.throttle, &*self.identities)?;
        headers::check(&call.headers)?;
        authorize::authorize(call, &*self.objects, &*self.identities).await?;
        call.admit_anonymous(&self.throttle)?;
        let mut request = Request::new(s3s::Body::empty());
        *request.method_mut() = Method::PUT;
        let (bucket, key) = (call.target.bucket().unwrap_or_default(), call.target.key().unwrap_or_default());
        let path = format!("/{bucket}/{}", urlencoding::encode(key));
        *request.uri_mut() = path.parse().map_err(|_| Refusal::new("InvalidURI"))?;
        *request.headers_mut() = normal::headers(call.headers.clone());
        CALL.scope(Arc::clone(call), self.second.call(request)).await.map_err(|error| {
            tracing::error!(operation = call.operation.name, ?error, "protocol library failed");
            Refusal::new("InternalError")
        })
    }

    /// Everything about a request that can be told from its head.
    fn read_head(&self, parts: &mut Parts, body: &Incoming, peer: IpAddr, id: &str) -> Result<Call, Turned> {
        let host = host(parts);
        let target = self.domains.target(host.as_deref(), parts.uri.path())?;
        let query = query(parts.uri.query().unwrap_or(""))?;
        if parts.headers.get(header::AUTHORIZATION).is_some_and(HeaderValue::is_empty) {
            parts.headers.remove(header::AUTHORIZATION);
        }
        let signed = Signed::parse(&parts.headers, &query)?;
        if let Some(signed) = &signed {
            signed.check_region(&self.objects.region())?;
            signed.check_signed_headers(&parts.headers)?;
            if signed.presigned {
                unhoist(&mut parts.headers, &query);
            } else {
                signed.take_date(&mut parts.headers);
            }
        }
        let copies = parts.headers.contains_key("x-amz-copy-source");
        let operation = operations::recognise(&parts.method, &target, &query, copies)?;
        let turned = |refusal| Turned { refusal, operation: operation.name };
        if operation.name == "PostObject" || parts.headers.get(header::CONTENT_TYPE).is_some_and(is_form) {
            // A form is read before the library; one that came here is not of its form.
            let said = "Bucket POST must be of the enclosure-type multipart/form-data";
            return Err(turned(Refusal::because("PreconditionFailed", said)));
        }
        if signed.is_none() && Plan::is_signed(&parts.headers) {
            // Nobody's secret made those signatures.
            return Err(turned(Refusal::new("AccessDenied")));
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
            peer,
            date,
            headers: parts.headers.clone(),
            query,
            plan,
            content: Mutex::new(None),
            unread: Unread::default(),
            outcome: Arc::new(Outcome::default()),
            signer: std::sync::OnceLock::new(),
            access: std::sync::OnceLock::new(),
            log: std::sync::OnceLock::new(),
            admission: std::sync::OnceLock::new(),
            charged: AtomicBool::new(false),
            refusal: Mutex::new(None),
            verified: AtomicBool::new(false),
            posted: false,
        })
    }

    /// Through the library to a handler, and back.
    async fn serve(&self, request: Request<s3s::Body>, call: &Arc<Call>, path: &str) -> Response<s3s::Body> {
        let served = CALL.scope(Arc::clone(call), self.library.call(request)).await;
        let response = served.unwrap_or_else(|error| {
            tracing::error!(operation = call.operation.name, error = ?error, "protocol library failed");
            answer::error(&Refusal::new("InternalError"), path, &call.id, Some(call))
        });
        self.settled(response, call, path).await
    }

    /// An answer of the library with its error in our words.
    async fn settled(
        &self,
        response: Response<s3s::Body>,
        call: &Arc<Call>,
        path: &str,
    ) -> Response<s3s::Body> {
        if !response.status().is_client_error()
            && !response.status().is_server_error()
            && response.status() != StatusCode::NOT_MODIFIED
        {
            return response;
        }
        if let Some(unread) = call.take_unread() {
            drain(unread, &call.headers).await;
        }
        match refusal_of(call, &response) {
            Some(mut refusal) => {
                if call.hides(&refusal) {
                    refusal = Refusal::new("AccessDenied");
                }
                tracing::debug!(operation = call.operation.name, code = refusal.code, id = %call.id, "refused");
                answer::error(&refusal, path, &call.id, Some(call))
            }
            None => response,
        }
    }
}

/// Why a call was refused, as precisely as is known: what was wrong with its body, what a handler said, what
/// the library answered.
pub(crate) fn refusal_of(call: &Call, response: &Response<s3s::Body>) -> Option<Refusal> {
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
