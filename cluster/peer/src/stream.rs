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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;
    use crate::frame::PAYLOAD_SIZE_MAX;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(future)
    }

    /// Everything that comes out of `bytes`, given in pieces: whole frames, then how it ended.
    async fn read_all(bytes: Vec<u8>, pieces: Vec<usize>) -> (Vec<(Header, Bytes, Vec<u8>)>, LinkError) {
        let (mut from, to) = duplex(64 * 1024);
        let mut reader = FrameReader::new(to, PATIENCE, Arc::default());
        let feed = async move {
            let mut pieces: VecDeque<_> = pieces.into();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let n = pieces.pop_front().unwrap_or(rest.len()).clamp(1, rest.len());
                if from.write_all(&rest[..n]).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
                rest = &rest[n..];
            }
        };
        let read = async move {
            let mut frames = Vec::new();
            loop {
                let frame = async {
                    let header = reader.header().await?;
                    let body = reader.body(header.body_len as usize).await?;
                    let mut payload = vec![0; header.payload_len as usize];
                    reader.fill(&mut payload).await?;
                    Ok((header, body, payload))
                };
                match frame.await {
                    Ok(frame) => frames.push(frame),
                    Err(error) => return (frames, error),
                }
            }
        };
        tokio::join!(feed, read).1
    }

    fn frame(id: u64, body: Vec<u8>, payload: Vec<u8>) -> Outgoing {
        let header = Header { kind: Kind::Reply, id, method: 2, ..Header::HEARTBEAT };
        let payload = (!payload.is_empty()).then(|| Bytes::from(payload).into());
        Outgoing { header, body: body.into(), payload, expires: None, permit: None }
    }

    async fn written(frames: &[Outgoing]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes, Arc::default());
        for frame in frames {
            writer.frame(frame).await.unwrap();
        }
        writer.flush().await.unwrap();
        drop(writer);
        bytes
    }

    #[test]
    fn silence_and_a_cut_are_told_from_an_end() {
        run(async {
            let bytes = written(&[frame(1, vec![1; 100], vec![2; 100])]).await;
            assert!(
                matches!(read_all(bytes.clone(), vec![]).await, (frames, LinkError::Closed) if frames.len() == 1)
            );
            for cut in 1..bytes.len() {
                let (frames, error) = read_all(bytes[..cut].to_vec(), vec![]).await;
                assert!(frames.is_empty() && matches!(error, LinkError::Cut), "cut at {cut}: {error}");
            }
            let (_open, to) = duplex(1);
            let mut reader = FrameReader::new(to, PATIENCE, Arc::default());
            assert!(matches!(reader.header().await, Err(LinkError::Silent(PATIENCE))));
        });
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up() {
        run(async {
            let (to, _never_read) = duplex(1024);
            let mut writer = FrameWriter::new(to, Arc::default());
            let error = writer.frame(&frame(1, vec![], vec![0; PAYLOAD_SIZE_MAX])).await.unwrap_err();
            assert!(matches!(error, LinkError::Stalled(STALLED_AFTER)), "{error}");
        });
    }

    #[test]
    fn late_requests_are_not_sent() {
        run(async {
            let header = Header { kind: Kind::Request, id: 1, ..Header::HEARTBEAT };
            let expires = Some(Instant::now());
            let late = Outgoing { header, body: Bytes::new(), payload: None, expires, permit: None };
            assert!(written(&[late]).await.is_empty());
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_come_out_as_they_went_in_whatever_the_pieces(
            sizes in prop::collection::vec((0..40_000_usize, 0..40_000_usize), 1..6),
            pieces in prop::collection::vec(1..20_000_usize, 0..30),
        ) {
            let frames: Vec<_> = sizes.iter().enumerate().map(|(i, (body, payload))| {
                frame(i as u64 + 1, vec![i as u8; *body], vec![!(i as u8); *payload])
            }).collect();
            let (read, end) = run(async { read_all(written(&frames).await, pieces).await });
            prop_assert!(matches!(end, LinkError::Closed), "{}", end);
            prop_assert_eq!(read.len(), frames.len());
            for ((header, body, payload), sent) in read.iter().zip(&frames) {
                prop_assert_eq!(header.id, sent.header.id);
                prop_assert_eq!(body, &sent.body);
                prop_assert_eq!(payload.as_slice(), sent.payload.as_ref().map_or(&[][..], SharedPayload::bytes));
            }
        }

        #[test]
        fn noise_ends_in_an_error_and_never_in_more_than_was_sent(
            at in prop::collection::vec((0..400_usize, any::<u8>()), 0..8),
            noise in prop::collection::vec(any::<u8>(), 0..200),
            pieces in prop::collection::vec(1..100_usize, 0..20),
        ) {
            let bytes = run(async {
                let frames = [frame(1, vec![7; 90], vec![8; 90]), frame(2, vec![9; 60], vec![])];
                let mut bytes = written(&frames).await;
                for (at, value) in at {
                    let at = at % bytes.len();
                    bytes[at] = value;
                }
                bytes.extend(noise);
                bytes
            });
            let total = bytes.len() as u64;
            let (read, _) = run(read_all(bytes, pieces));
            let sum: u64 = read.iter().map(|(header, _, _)| header.frame_len()).sum();
            prop_assert!(sum <= total);
        }
    }
}
