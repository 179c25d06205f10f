//! Frames over a byte stream: reading and writing with a limit on silence, counted.
//!
//! Invariants:
//! - nothing waits for the other side longer than its patience: a peer that died without a word is
//!   noticed, as is one that stopped reading;
//! - a header is checked before anything is allocated for what it announces;
//! - payloads go from the buffer to TLS and from TLS to the buffer, never through another.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, timeout},
};

use crate::{
    SharedPayload,
    frame::{FrameError, Header, Kind},
};

/// A link that has nothing to say says so this often.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

/// A peer of which nothing was heard for this long is dead. Slow emulated guests stay below it.
pub const DEAD_AFTER: Duration = Duration::from_secs(5);

/// A peer that took no byte for this long is dead. Above what a reader may wait for a buffer.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(15);

/// How long a reader waits for a buffer for a payload before it gives the request up.
pub(crate) const BUFFER_WAIT_MAX: Duration = Duration::from_secs(3);

/// Frames are gathered into one TLS write up to this size; larger bodies and payloads go by themselves.
const GATHER_SIZE: usize = 16 * 1024;

const _: () = assert!(HEARTBEAT_EVERY.as_millis() * 3 < DEAD_AFTER.as_millis());
const _: () = assert!(BUFFER_WAIT_MAX.as_millis() * 2 < STALLED_AFTER.as_millis());

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the connection ended inside a frame")]
    Cut,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    #[error("the peer took nothing for {0:?}")]
    Stalled(Duration),
    #[error("the peer broke the protocol: {0}")]
    Frame(#[from] FrameError),
    #[error("the peer broke the protocol: an unexpected {0:?} frame")]
    Unexpected(Kind),
    #[error("{0}")]
    Ended(&'static str),
}

/// Bytes that passed, both ways.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub received: AtomicU64,
    pub sent: AtomicU64,
}

/// Reads frames piece by piece.
pub(crate) struct FrameReader<R> {
    inner: R,
    patience: Duration,
    traffic: Arc<Traffic>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(inner: R, patience: Duration, traffic: Arc<Traffic>) -> Self {
        Self { inner, patience, traffic }
    }

    /// The next header. An end of the stream before its first byte is `Closed`.
    pub async fn header(&mut self) -> Result<Header, LinkError> {
        let mut bytes = [0; Header::SIZE];
        let first = self.some(&mut bytes).await?;
        if first == 0 {
            return Err(LinkError::Closed);
        }
        self.fill(&mut bytes[first..]).await?;
        Ok(Header::parse(&bytes)?)
    }

    /// A body of `len` bytes; the caller has checked `len` against its limit.
    pub async fn body(&mut self, len: usize) -> Result<Bytes, LinkError> {
        let mut body = BytesMut::zeroed(len);
        self.fill(&mut body).await?;
        Ok(body.freeze())
    }

    /// Fills `buffer`.
    pub async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.some(&mut buffer[filled..]).await? {
                0 => return Err(LinkError::Cut),
                n => filled += n,
            }
        }
        Ok(())
    }

    /// Reads `len` bytes and forgets them.
    pub async fn skip(&mut self, len: usize) -> Result<(), LinkError> {
        let mut scratch = [0; 4096];
        let mut left = len;
        while left > 0 {
            let n = left.min(scratch.len());
            self.fill(&mut scratch[..n]).await?;
            left -= n;
        }
        Ok(())
    }

    async fn some(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError> {
        let read = timeout(self.patience, self.inner.read(buffer))
            .await
            .map_err(|_| LinkError::Silent(self.patience))?;
        let n = match read {
            // TLS without its farewell: the process died, or closed in a hurry. Frames tell what is whole.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            other => other?,
        };
        self.traffic.received.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A frame waiting to be written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Lengths and the deadline of a request are filled in when it is written.
    pub header: Header,
    pub body: Bytes,
    pub payload: Option<SharedPayload>,
    /// Of a request: when its answer is no longer of use.
    pub expires: Option<Instant>,
    /// What bounds the queue: given back when the frame is written or dropped.
    #[expect(dead_code, reason = "it is held, not read")]
    pub permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl Outgoing {
    /// The header as it goes out now, `None` for a request that is too late already.
    fn header_now(&self) -> Option<Header> {
        let len = |n: usize| u32::try_from(n).expect("sizes were checked when the frame was made");
        let mut header = self.header;
        header.body_len = len(self.body.len());
        header.payload_len = len(self.payload.as_ref().map_or(0, SharedPayload::len));
        if let Some(expires) = self.expires {
            let left = expires.saturating_duration_since(Instant::now()).as_millis();
            header.deadline_ms = u32::try_from(left).unwrap_or(u32::MAX).min(crate::frame::DEADLINE_MAX_MS);
            if header.deadline_ms == 0 {
                return None;
            }
        }
        Some(header)
    }
}

/// Writes frames.
pub(crate) struct FrameWriter<W> {
    inner: W,
    gathered: Vec<u8>,
    traffic: Arc<Traffic>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub fn new(inner: W, traffic: Arc<Traffic>) -> Self {
        Self { inner, gathered: Vec::with_capacity(GATHER_SIZE), traffic }
    }

    /// Writes what comes through `queue`, and heartbeats when nothing does, until all senders are gone.
    /// A request for which `wanted` says no is left out.
    pub async fn run(
        &mut self,
        queue: &mut mpsc::UnboundedReceiver<Outgoing>,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<(), LinkError> {
        loop {
            let mut next = match timeout(HEARTBEAT_EVERY, queue.recv()).await {
                Ok(Some(frame)) => Some(frame),
                Ok(None) => return Ok(()),
                Err(_) => {
                    self.heartbeat().await?;
                    continue;
                }
            };
            while let Some(frame) = next {
                if frame.header.kind != Kind::Request || wanted(frame.header.id) {
                    self.frame(&frame).await?;
                }
                next = queue.try_recv().ok();
            }
            self.flush().await?;
        }
    }

    /// Writes a sign of life.
    pub async fn heartbeat(&mut self) -> Result<(), LinkError> {
        self.gathered.extend_from_slice(&Header::HEARTBEAT.encode());
        self.flush().await
    }

    /// Writes one frame; it may stay here until [`FrameWriter::flush`].
    pub async fn frame(&mut self, frame: &Outgoing) -> Result<(), LinkError> {
        let Some(header) = frame.header_now() else { return Ok(()) };
        self.gathered.extend_from_slice(&header.encode());
        if frame.body.len() <= GATHER_SIZE {
            self.gathered.extend_from_slice(&frame.body);
        } else {
            self.pass_on().await?;
            self.bytes(&frame.body).await?;
        }
        if let Some(payload) = &frame.payload {
            self.pass_on().await?;
            self.bytes(payload.bytes()).await?;
        }
        if self.gathered.len() >= GATHER_SIZE { self.pass_on().await } else { Ok(()) }
    }

    /// Hands everything to the network.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        self.pass_on().await?;
        Ok(timeout(STALLED_AFTER, self.inner.flush())
            .await
            .map_err(|_| LinkError::Stalled(STALLED_AFTER))??)
    }

    /// Tells the other side that nothing follows. Best effort: it may be gone already.
    pub async fn close(&mut self) {
        let _gone = timeout(HEARTBEAT_EVERY, self.inner.shutdown()).await;
    }

    async fn pass_on(&mut self) -> Result<(), LinkError> {
        let gathered = std::mem::take(&mut self.gathered);
        let result = self.bytes(&gathered).await;
        self.gathered = gathered;
        self.gathered.clear();
        result
    }

    async fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            let n = timeout(STALLED_AFTER, self.inner.write(bytes))
                .await
                .map_err(|_| LinkError::Stalled(STALLED_AFTER))??;
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            self.traffic.sent.fetch_add(n as u64, Ordering::Relaxed);
            bytes = &bytes[n..];
        }
        Ok(())
    }
}
