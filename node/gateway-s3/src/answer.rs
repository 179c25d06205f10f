//! What leaves the gateway: error documents, the headers every answer carries, and the counted body.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use http_body::{Body, Frame, SizeHint};

use crate::{
    call::Call,
    errors::{self, Refusal},
    logs::{self, Book, Entry, Head, Tls},
    observer::{Observer, RequestRecord},
    throttle::{Direction, Toll},
    watch::{Busy, Progress},
};

/// `Server` of every answer.
const SERVER: HeaderValue = HeaderValue::from_static("Holdfast");

/// Left with an answer that is an error, for who records it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorCode(pub &'static str);

/// The error document of AWS, and nothing the client did not already know: never an inner cause.
pub(crate) fn error(refusal: &Refusal, path: &str, id: &str, call: Option<&Call>) -> Response<s3s::Body> {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>");
    element(&mut xml, "Code", refusal.code);
    element(&mut xml, "Message", refusal.text());
    if let Some(call) = call {
        match refusal.code {
            "NoSuchBucket"
            | "BucketNotEmpty"
            | "BucketAlreadyOwnedByYou"
            | "BucketAlreadyExists"
            | "NoSuchBucketPolicy" => {
                element(&mut xml, "BucketName", call.target.bucket().unwrap_or_default());
            }
            "NoSuchKey" | "NoSuchVersion" => element(&mut xml, "Key", call.target.key().unwrap_or_default()),
            _ => {}
        }
    }
    for (name, value) in &refusal.extra {
        element(&mut xml, name, value);
    }
    element(&mut xml, "Resource", path);
    element(&mut xml, "RequestId", id);
    xml.push_str("</Error>");
    let mut response = Response::new(s3s::Body::from(xml));
    *response.status_mut() = refusal.status();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    for (name, value) in &refusal.headers {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response.extensions_mut().insert(ErrorCode(refusal.code));
    response
}

fn element(xml: &mut String, name: &str, text: &str) {
    xml.push('<');
    xml.push_str(name);
    xml.push('>');
    for character in text.chars() {
        match character {
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '&' => xml.push_str("&amp;"),
            '"' => xml.push_str("&quot;"),
            // XML 1.0 has no way to write other control characters.
            control if control.is_control() && !matches!(control, '\t' | '\n' | '\r') => xml.push('\u{fffd}'),
            other => xml.push(other),
        }
    }
    xml.push_str("</");
    xml.push_str(name);
    xml.push('>');
}

/// Reads code and message back from an error document of the protocol library.
pub(crate) fn read_error(document: &[u8]) -> Option<Refusal> {
    let text = std::str::from_utf8(document).ok()?;
    let between = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
    };
    let code = between("Code")?;
    let (code, _, _) = errors::TABLE.iter().find(|row| row.0 == code)?;
    let message = between("Message").unwrap_or_default();
    let message = message
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&");
    Some(Refusal::because(code, message))
}

/// Headers every answer carries.
pub(crate) fn dress(response: &mut Response<s3s::Body>, id: &str) {
    let headers = response.headers_mut();
    headers.insert(header::SERVER, SERVER);
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("x-amz-request-id", id);
    }
}

/// An answer without a body keeps its headers only.
pub(crate) fn strip_body(response: &mut Response<s3s::Body>) {
    *response.body_mut() = s3s::Body::empty();
    if response.status() == StatusCode::NOT_MODIFIED {
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
}

/// The record of a request in the making; handed to the observer when dropped, which is when the body's
/// last byte was taken or the client went away.
pub(crate) struct Ledger {
    pub observer: Arc<dyn Observer>,
    pub record: RequestRecord,
    pub started: Instant,
    pub call: Option<Arc<Call>>,
    pub log: Log,
}

/// What an access log shows beside the record.
pub(crate) struct Log {
    book: Arc<Book>,
    head: Head,
    /// When the request came, in milliseconds since 1970.
    at: u64,
    turn_around: Duration,
    error: Option<&'static str>,
    /// Size of the object that was answered, in bytes.
    size: Option<u64>,
    version: Option<String>,
}

impl Log {
    pub(crate) fn begin(parts: &Parts, tls: Tls, at: u64, book: Arc<Book>) -> Self {
        let head = Head::new(parts, tls);
        Self { book, head, at, turn_around: Duration::ZERO, error: None, size: None, version: None }
    }

    /// The answer begins.
    pub(crate) fn turned(&mut self, response: &Response<s3s::Body>, after: Duration) {
        let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        self.turn_around = after;
        self.error = response.extensions().get::<ErrorCode>().map(|code| code.0);
        self.version = text("x-amz-version-id").map(str::to_owned);
        let whole = text("content-range").and_then(|range| range.rsplit_once('/')).map(|(_, size)| size);
        let length = whole.or_else(|| text("content-length")).filter(|_| self.error.is_none());
        self.size = length.and_then(|size| size.parse().ok());
    }

    fn write(&self, call: &Call, record: &RequestRecord) {
        let (Some(to), Some(bucket)) = (call.log.get(), call.target.bucket()) else { return };
        let object_size = match call.operation.name {
            "GetObject" | "HeadObject" => self.size,
            "PutObject" | "UploadPart" if self.error.is_none() => Some(record.bytes_in),
            _ => None,
        };
        let signed = call.signed.as_ref().map(|signed| match (signed.form, signed.presigned) {
            (true, _) => "-",
            (false, true) => "QueryString",
            (false, false) => "AuthHeader",
        });
        let website = record.operation == "Website";
        let entry = Entry {
            owner: to.owner.to_string(),
            bucket,
            at: self.at,
            peer: call.peer.to_canonical().to_string(),
            requester: &to.requester,
            id: &call.id,
            operation: logs::name(&self.head.method, call.operation, website),
            key: call.target.key(),
            head: &self.head,
            status: record.status,
            error: self.error,
            sent: record.bytes_out,
            object_size,
            total_millis: record.duration.as_millis(),
            turn_around_millis: self.turn_around.as_millis(),
            version_id: self.version.as_deref(),
            signed,
            version_2: call.signed.as_ref().is_some_and(|signed| signed.version_2),
        };
        self.book.record(to, bucket, self.at, &entry.line());
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.record.duration = self.started.elapsed();
        if let Some(call) = &self.call {
            self.record.bytes_in = call.outcome.received();
            self.log.write(call, &self.record);
        }
        self.observer.request(&self.record);
    }
}

/// A body that counts what is taken from it and shows the connection's watch whether it is being taken.
pub struct CountedBody {
    inner: s3s::Body,
    ledger: Ledger,
    progress: Arc<Progress>,
    length: Option<u64>,
    toll: Toll,
    /// Held until the answer is complete or given up.
    _held: (Busy, Option<tokio::sync::OwnedSemaphorePermit>),
}

impl std::fmt::Debug for CountedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CountedBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl CountedBody {
    /// `length` is what the answer's head announces.
    pub(crate) fn new(
        inner: s3s::Body,
        length: Option<u64>,
        mut ledger: Ledger,
        progress: Arc<Progress>,
        held: (Busy, Option<tokio::sync::OwnedSemaphorePermit>),
    ) -> Self {
        ledger.record.whole = inner.is_end_stream();
        let toll = match &ledger.call {
            Some(call) => call.toll(Direction::Out),
            None => Toll::new(None, Direction::Out),
        };
        Self { inner, ledger, progress, length, toll, _held: held }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = s3s::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, s3s::StdError>>> {
        self.progress.asked();
        ready!(self.toll.poll_open(cx));
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.ledger.record.bytes_out += size;
                self.progress.given(size);
                self.toll.pay(size);
                let sent = self.ledger.record.bytes_out;
                self.ledger.record.whole = self.length == Some(sent) || self.inner.is_end_stream();
            }
            Some(Err(error)) => {
                tracing::warn!(operation = self.ledger.record.operation, %error, "answer broken off");
            }
            None => {
                self.ledger.record.whole = true;
                self.progress.done();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        self.progress.done();
    }
}
