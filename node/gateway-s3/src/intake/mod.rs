//! A request body on its way in: unframed, paced and verified against everything the client declared.
//!
//! The protocol library checks the signature of a request's head; what the head says about the body is
//! checked here, as bytes pass, and nothing is buffered:
//!
//! - its length (`Content-Length`, or `x-amz-decoded-content-length` of a framed body);
//! - `x-amz-content-sha256`, or every chunk's signature, or the trailers' signature;
//! - `x-amz-checksum-*` from the head or the trailers; `Content-MD5` of small bodies;
//! - that it arrives at all: a client that stands still or drips is given up.
//!
//! Invariant: the stream ends without an error only if all of that held. The first failure is also left
//! in the [`FaultSlot`], so that the answer says precisely what was wrong whatever became of the
//! [`BodyError`] on its way through the object layer.

pub mod checksum;
pub mod chunked;
mod pace;
pub mod plan;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use holdfast_object::api::{BodyError, LateChecksums};
use md5::Digest as _;
use parking_lot::Mutex;

use self::{
    checksum::{Algorithm, Hasher},
    chunked::{ChunkError, Decoder, Event},
    pace::Pace,
    plan::{Framing, Plan},
};
use crate::{
    sigv4::ChunkSigner,
    throttle::{Direction, Toll},
};

/// What was wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Fewer or more bytes than declared.
    #[error("{received} bytes received, {declared} declared")]
    Length {
        /// Bytes declared.
        declared: u64,
        /// Bytes received.
        received: u64,
    },
    /// More bytes than this kind of request may have.
    #[error("more than {0} bytes")]
    TooLong(u64),
    /// Not what `x-amz-content-sha256` says.
    #[error("x-amz-content-sha256 does not match")]
    PayloadHash,
    /// Not what `Content-MD5` says.
    #[error("Content-MD5 does not match")]
    ContentMd5,
    /// Not what `x-amz-checksum-*` says.
    #[error("{} does not match", .0.header())]
    Checksum(Algorithm),
    /// A checksum trailer whose value is not one.
    #[error("{0} is not a value")]
    ChecksumValue(&'static str),
    /// A chunk or the trailers are not what was signed.
    #[error("a chunk signature does not match")]
    ChunkSignature,
    /// Not aws-chunked.
    #[error("framing: {0}")]
    Framing(&'static str),
    /// Trailers are malformed or not the declared ones.
    #[error("trailers: {0}")]
    Trailer(&'static str),
    /// The client stood still or dripped.
    #[error("the client was too slow")]
    TooSlow,
    /// The connection broke.
    #[error("connection: {0}")]
    Broken(String),
    /// The content of a copy could not be read.
    #[error("content could not be read: {0}")]
    Storage(String),
    /// A form's file is larger than its policy allows.
    #[error("the file is larger than {0} bytes")]
    FileTooLarge(u64),
    /// A form's file is smaller than its policy allows.
    #[error("the file is smaller than {0} bytes")]
    FileTooSmall(u64),
    /// Not multipart/form-data.
    #[error("form: {0}")]
    Form(&'static str),
}

impl From<ChunkError> for Fault {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Malformed(said) => Self::Framing(said),
            ChunkError::Trailer(said) => Self::Trailer(said),
            ChunkError::Signature => Self::ChunkSignature,
        }
    }
}

impl From<&Fault> for BodyError {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::Length { declared, received } => Self::Length { declared: *declared, received: *received },
            Fault::PayloadHash => Self::Mismatch("x-amz-content-sha256"),
            Fault::ContentMd5 => Self::Mismatch("Content-MD5"),
            Fault::Checksum(algorithm) => Self::Mismatch(algorithm.header()),
            Fault::ChecksumValue(header) => Self::Mismatch(header),
            Fault::ChunkSignature => Self::Mismatch("chunk signature"),
            Fault::Storage(said) => Self::Storage(said.clone()),
            Fault::TooLong(_)
            | Fault::Framing(_)
            | Fault::Trailer(_)
            | Fault::TooSlow
            | Fault::Broken(_)
            | Fault::FileTooLarge(_)
            | Fault::FileTooSmall(_)
            | Fault::Form(_) => Self::Broken(fault.to_string()),
        }
    }
}

/// Where an intake leaves what happened to it.
#[derive(Debug, Default)]
pub struct Outcome {
    fault: Mutex<Option<Fault>>,
    checksums: Mutex<BTreeMap<String, String>>,
    received: AtomicU64,
}

impl Outcome {
    /// The first failure.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault.lock().clone()
    }

    /// Bytes taken from the connection.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Checksums that were verified or computed, once the body has ended well.
    #[must_use]
    pub fn checksums(&self) -> BTreeMap<String, String> {
        self.checksums.lock().clone()
    }

    /// The same, as the object layer asks for them.
    #[must_use]
    pub fn late(self: &Arc<Self>) -> LateChecksums {
        let outcome = Arc::clone(self);
        Arc::new(move || outcome.checksums())
    }
}

/// Bytes as they come from the connection.
pub type Source = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

/// The verified body. See the module.
pub struct Intake {
    source: Source,
    pace: Option<Pace>,
    toll: Toll,
    input: Bytes,
    decoder: Option<Decoder>,
    verify: Verify,
    outcome: Arc<Outcome>,
    ended: bool,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

impl Intake {
    /// Reads `source` as `plan` says. `signer` is needed for signed framing only; it becomes known when
    /// the head's signature has been verified, which is before the first poll.
    #[must_use]
    pub fn new(source: Source, plan: &Plan, signer: Option<ChunkSigner>, outcome: Arc<Outcome>) -> Self {
        let decoder = match plan.framing {
            Framing::Plain => None,
            Framing::Unsigned => Some(Decoder::new(None)),
            Framing::Signed => Some(Decoder::new(signer)),
        };
        Self {
            source,
            pace: Some(Pace::new()),
            toll: Toll::new(None, Direction::In),
            input: Bytes::new(),
            decoder,
            verify: Verify::new(plan),
            outcome,
            ended: false,
        }
    }

    /// Pays `toll` for what it takes from the connection. No clock runs against the client while that waits.
    #[must_use]
    pub(crate) fn paying(self, toll: Toll) -> Self {
        Self { toll, ..self }
    }

    /// As a body of the HTTP library.
    pub fn into_http(self) -> impl http_body::Body<Data = Bytes, Error = BodyError> + Send {
        http_body_util::StreamBody::new(self.map_ok(http_body::Frame::data))
    }

    /// Content that comes from storage: nothing was declared, `algorithm` is computed.
    #[must_use]
    pub fn computing(source: Source, algorithm: Algorithm, outcome: Arc<Outcome>) -> Self {
        let checksum = Some(plan::DeclaredChecksum { algorithm, value: None });
        let plan = Plan { checksum, ..Plan::default() };
        Self { pace: None, ..Self::new(source, &plan, None, outcome) }
    }

    fn poll_unframed(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        loop {
            match &mut self.decoder {
                Some(decoder) => {
                    if let Some(event) = decoder.next(&mut self.input)? {
                        match event {
                            Event::Data(data) => return Poll::Ready(Ok(Some(data))),
                            Event::End(trailers) => self.verify.trailers(trailers)?,
                        }
                    }
                }
                None if !self.input.is_empty() => {
                    return Poll::Ready(Ok(Some(std::mem::take(&mut self.input))));
                }
                None => {}
            }
            if !self.input.is_empty() {
                continue;
            }
            ready!(self.toll.poll_open(cx));
            let next = match &mut self.pace {
                Some(pace) => ready!(pace.poll_next(cx, &mut self.source))?,
                None => ready!(self.source.as_mut().poll_next(cx)).transpose()?,
            };
            let Some(bytes) = next else {
                if let Some(decoder) = &mut self.decoder
                    && let Some(Event::End(trailers)) = decoder.end_of_input()?
                {
                    self.verify.trailers(trailers)?;
                }
                return Poll::Ready(Ok(None));
            };
            self.outcome.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.toll.pay(bytes.len() as u64);
            self.input = bytes;
        }
    }

    fn poll_verified(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        match ready!(self.poll_unframed(cx))? {
            Some(bytes) => {
                self.verify.update(&bytes)?;
                Poll::Ready(Ok(Some(bytes)))
            }
            None => {
                *self.outcome.checksums.lock() = self.verify.finish()?;
                Poll::Ready(Ok(None))
            }
        }
    }
}

impl Stream for Intake {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.poll_verified(cx)) {
            Ok(Some(bytes)) => Poll::Ready(Some(Ok(bytes))),
            Ok(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Err(fault) => {
                self.ended = true;
                let error = BodyError::from(&fault);
                self.outcome.fault.lock().get_or_insert(fault);
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

/// What is computed while bytes pass, and compared at the end.
struct Verify {
    declared: Option<u64>,
    size_max: Option<u64>,
    received: u64,
    payload: Option<(Hasher, Vec<u8>)>,
    md5: Option<(md5::Md5, [u8; 16])>,
    checksum: Option<(Algorithm, Hasher)>,
    /// Computed and compared with nothing.
    also: Option<(Algorithm, Hasher)>,
    expected: Option<Vec<u8>>,
    trailers_declared: Vec<String>,
    trailers_seen: bool,
}

impl Verify {
    fn new(plan: &Plan) -> Self {
        Self {
            declared: plan.length,
            size_max: plan.size_max,
            received: 0,
            payload: plan.payload_hash.map(|hash| (Hasher::new(Algorithm::Sha256), hash.to_vec())),
            md5: plan.content_md5.map(|hash| (md5::Md5::new(), hash)),
            checksum: plan
                .checksum
                .as_ref()
                .map(|declared| (declared.algorithm, Hasher::new(declared.algorithm))),
            also: plan
                .also
                .filter(|also| plan.checksum.as_ref().is_none_or(|declared| declared.algorithm != *also))
                .map(|also| (also, Hasher::new(also))),
            expected: plan.checksum.as_ref().and_then(|declared| declared.value.clone()),
            trailers_declared: plan.trailers.clone(),
            trailers_seen: plan.trailers.is_empty(),
        }
    }

    fn update(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.received += bytes.len() as u64;
        if let Some(declared) = self.declared
            && self.received > declared
        {
            return Err(Fault::Length { declared, received: self.received });
        }
        if let Some(max) = self.size_max
            && self.received > max
        {
            return Err(Fault::TooLong(max));
        }
        if let Some((hasher, _)) = &mut self.payload {
            hasher.update(bytes);
        }
        if let Some((hasher, _)) = &mut self.md5 {
            hasher.update(bytes);
        }
        for (_, hasher) in self.checksum.iter_mut().chain(&mut self.also) {
            hasher.update(bytes);
        }
        Ok(())
    }

    fn trailers(&mut self, trailers: Vec<(String, String)>) -> Result<(), Fault> {
        let names: Vec<&str> = trailers.iter().map(|(name, _)| name.as_str()).collect();
        if names.len() != self.trailers_declared.len()
            || !self.trailers_declared.iter().all(|name| names.contains(&name.as_str()))
        {
            return Err(Fault::Trailer("not the ones x-amz-trailer declares"));
        }
        self.trailers_seen = true;
        for (name, value) in trailers {
            if let Some(algorithm) = Algorithm::by_header(&name) {
                let value = algorithm.decode(&value).ok_or(Fault::ChecksumValue(algorithm.header()))?;
                self.expected = Some(value);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<BTreeMap<String, String>, Fault> {
        if let Some(declared) = self.declared
            && self.received != declared
        {
            return Err(Fault::Length { declared, received: self.received });
        }
        if !self.trailers_seen {
            return Err(Fault::Trailer("missing"));
        }
        if let Some((hasher, expected)) = self.payload.take()
            && hasher.finish() != expected
        {
            return Err(Fault::PayloadHash);
        }
        if let Some((hasher, expected)) = self.md5.take()
            && hasher.finalize()[..] != expected
        {
            return Err(Fault::ContentMd5);
        }
        let mut verified = BTreeMap::new();
        if let Some((algorithm, hasher)) = self.checksum.take() {
            let value = hasher.finish();
            if self.expected.take().is_some_and(|expected| expected != value) {
                return Err(Fault::Checksum(algorithm));
            }
            verified.insert(algorithm.name().to_owned(), checksum::encode(&value));
        }
        if let Some((algorithm, hasher)) = self.also.take() {
            verified.insert(algorithm.name().to_owned(), checksum::encode(&hasher.finish()));
        }
        Ok(verified)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::{plan::DeclaredChecksum, *};

    async fn run(plan: Plan, pieces: &[&'static [u8]]) -> (Result<Vec<u8>, Fault>, Arc<Outcome>) {
        let outcome = Arc::new(Outcome::default());
        let pieces: Vec<Result<Bytes, Fault>> =
            pieces.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
        let mut intake = Intake::new(Box::pin(futures::stream::iter(pieces)), &plan, None, outcome.clone());
        let mut body = Vec::new();
        while let Some(item) = intake.next().await {
            match item {
                Ok(bytes) => body.extend_from_slice(&bytes),
                Err(_) => return (Err(outcome.fault().expect("a fault is left")), outcome),
            }
        }
        (Ok(body), outcome)
    }

    fn crc32(value: &str) -> Option<DeclaredChecksum> {
        Some(DeclaredChecksum { algorithm: Algorithm::Crc32, value: Algorithm::Crc32.decode(value) })
    }

    #[tokio::test]
    async fn a_body_that_holds_what_was_declared_passes_and_leaves_its_checksum() {
        let plan = Plan { length: Some(9), checksum: crc32("y/Q5Jg=="), ..Plan::default() };
        let (body, outcome) = run(plan, &[b"12345", b"6789"]).await;
        assert_eq!(body.unwrap(), b"123456789");
        assert_eq!(outcome.checksums()["CRC32"], "y/Q5Jg==");
        assert_eq!(outcome.received(), 9);
    }

    #[tokio::test]
    async fn every_declaration_that_does_not_hold_ends_the_body_in_its_own_fault() {
        let body: &[&'static [u8]] = &[b"12345", b"6789"];
        let cases = [
            (Plan { length: Some(10), ..Plan::default() }, Fault::Length { declared: 10, received: 9 }),
            (Plan { length: Some(4), ..Plan::default() }, Fault::Length { declared: 4, received: 5 }),
            (Plan { payload_hash: Some([0; 32]), ..Plan::default() }, Fault::PayloadHash),
            (Plan { content_md5: Some([0; 16]), ..Plan::default() }, Fault::ContentMd5),
            (Plan { checksum: crc32("AAAAAA=="), ..Plan::default() }, Fault::Checksum(Algorithm::Crc32)),
        ];
        for (plan, fault) in cases {
            let (result, outcome) = run(plan, body).await;
            assert_eq!(result, Err(fault));
            assert!(outcome.checksums().is_empty());
        }
    }

    #[tokio::test]
    async fn what_is_computed_besides_is_left_with_the_outcome() {
        let also = Some(Algorithm::Crc64Nvme);
        let plan = Plan { checksum: crc32("y/Q5Jg=="), also, ..Plan::default() };
        let (_, outcome) = run(plan, &[b"123456789"]).await;
        let both = outcome.checksums();
        assert_eq!((both["CRC32"].as_str(), both["CRC64NVME"].as_str()), ("y/Q5Jg==", "rosUhgp5mIg="));
    }

    fn trailed() -> Plan {
        Plan {
            framing: Framing::Unsigned,
            length: Some(9),
            checksum: Some(DeclaredChecksum { algorithm: Algorithm::Crc32, value: None }),
            trailers: vec!["x-amz-checksum-crc32".to_owned()],
            ..Plan::default()
        }
    }

    #[tokio::test]
    async fn trailers_are_demanded_and_verified() {
        let good: &[&'static [u8]] = &[b"9\r\n123456789\r\n0\r\nx-amz-check", b"sum-crc32:y/Q5Jg==\r\n\r\n"];
        assert_eq!(run(trailed(), good).await.0.unwrap(), b"123456789");

        let wrong: &[&'static [u8]] = &[b"9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"];
        assert_eq!(run(trailed(), wrong).await.0, Err(Fault::Checksum(Algorithm::Crc32)));

        let missing: &[&'static [u8]] = &[b"9\r\n123456789\r\n0\r\n\r\n"];
        assert!(matches!(run(trailed(), missing).await.0, Err(Fault::Trailer(_))));

        let other: &[&'static [u8]] = &[b"9\r\n123456789\r\n0\r\nx-amz-checksum-sha1:AAAAAA==\r\n\r\n"];
        assert!(matches!(run(trailed(), other).await.0, Err(Fault::Trailer(_))));

        let nonsense: &[&'static [u8]] = &[b"9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:nonsense\r\n\r\n"];
        assert_eq!(run(trailed(), nonsense).await.0, Err(Fault::ChecksumValue("x-amz-checksum-crc32")));
    }
}
