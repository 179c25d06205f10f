//! One connection to a peer as the asking side sees it: many requests at once, told apart by id.
//!
//! Invariant: every request registered here ends exactly once: by its answer, by its caller giving up,
//! or by the end of the connection, which fails all that are left.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use holdfast_ring::{Buffer, BufferPool};
use parking_lot::Mutex;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader, ReadHalf, WriteHalf, split},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    ConnectError, Method, READ_BUFFER_SIZE, Refusal, SharedPayload, WRITE_BUFFER_SIZE,
    frame::{Header, Kind},
    pki::valid_for,
    stream::{BUFFER_WAIT_MAX, DEAD_AFTER, FrameReader, FrameWriter, LinkError, Outgoing, Traffic},
};

/// How long TCP, TLS and the first frame may take together. Emulated guests need seconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) type Stream = TlsStream<BufReader<TcpStream>>;

/// A peer's answer.
#[derive(Debug)]
pub struct Answer {
    /// Encoded by the peer's service.
    pub body: Bytes,
    /// Shard bytes, in a pool buffer.
    pub payload: Option<Buffer>,
}

/// How a request ended when it got no answer.
#[derive(Debug)]
pub(crate) enum CallFailure {
    Refused(Refusal),
    NoBuffer,
    Broken(Arc<str>),
}

type Outcome = Result<Answer, CallFailure>;

struct Waiter {
    answer: oneshot::Sender<Outcome>,
    /// Where the answer's payload goes, if the caller brought a buffer.
    buffer: Option<Buffer>,
}

enum Waiting {
    Open(HashMap<u64, Waiter>),
    Closed(Arc<str>),
}

/// The requests that wait for answers.
struct Pending(Mutex<Waiting>);

impl Pending {
    fn take(&self, id: u64) -> Option<Waiter> {
        match &mut *self.0.lock() {
            Waiting::Open(map) => map.remove(&id),
            Waiting::Closed(_) => None,
        }
    }

    fn holds(&self, id: u64) -> bool {
        matches!(&*self.0.lock(), Waiting::Open(map) if map.contains_key(&id))
    }

    fn close(&self, reason: Arc<str>) {
        let before = std::mem::replace(&mut *self.0.lock(), Waiting::Closed(Arc::clone(&reason)));
        if let Waiting::Open(map) = before {
            for (_, waiter) in map {
                let _gone = waiter.answer.send(Err(CallFailure::Broken(Arc::clone(&reason))));
            }
        }
    }

    fn reason(&self) -> Arc<str> {
        match &*self.0.lock() {
            Waiting::Closed(reason) => Arc::clone(reason),
            Waiting::Open(_) => "it ended while the answer arrived".into(),
        }
    }
}

/// A live connection, as callers hold it.
pub(crate) struct Connection {
    queue: mpsc::UnboundedSender<Outgoing>,
    pending: Arc<Pending>,
    permits: Arc<Semaphore>,
    next_id: AtomicU64,
}

/// What keeps a connection going: run by the link's task.
pub(crate) struct Driver<S> {
    reader: FrameReader<ReadHalf<S>>,
    writer: FrameWriter<WriteHalf<S>>,
    queue: mpsc::UnboundedReceiver<Outgoing>,
    pending: Arc<Pending>,
    pool: BufferPool,
    /// How long the peer's certificate is still valid.
    expires_in: Duration,
}

impl Connection {
    /// Dials, checks who answers, and waits for the first frame: only then has the peer accepted us.
    pub async fn dial(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        pool: BufferPool,
        in_flight_max: usize,
        traffic: Arc<Traffic>,
    ) -> Result<(Arc<Self>, Driver<Stream>), ConnectError> {
        let attempt = async {
            let stream = handshake(address, config).await?;
            let certificates = stream.get_ref().1.peer_certificates();
            let expires_in = certificates.and_then(<[_]>::first).map(|leaf| valid_for(leaf));
            let (connection, mut driver) =
                Self::over(stream, pool, in_flight_max, traffic, expires_in.unwrap_or_default());
            match driver.reader.header().await.map_err(|e| ConnectError::from_link(address, e))? {
                Header::HEARTBEAT => Ok((connection, driver)),
                other => Err(ConnectError::Protocol {
                    address,
                    reason: format!("a {:?} frame came first", other.kind),
                }),
            }
        };
        timeout(CONNECT_TIMEOUT, attempt)
            .await
            .unwrap_or(Err(ConnectError::TimedOut { address, after: CONNECT_TIMEOUT }))
    }

    fn over<S: AsyncRead + AsyncWrite>(
        stream: S,
        pool: BufferPool,
        in_flight_max: usize,
        traffic: Arc<Traffic>,
        expires_in: Duration,
    ) -> (Arc<Self>, Driver<S>) {
        let (reader, writer) = split(stream);
        let (sender, queue) = mpsc::unbounded_channel();
        let pending = Arc::new(Pending(Mutex::new(Waiting::Open(HashMap::new()))));
        let connection = Self {
            queue: sender,
            pending: Arc::clone(&pending),
            permits: Arc::new(Semaphore::new(in_flight_max)),
            next_id: AtomicU64::new(1),
        };
        let driver = Driver {
            reader: FrameReader::new(reader, DEAD_AFTER, Arc::clone(&traffic)),
            writer: FrameWriter::new(writer, traffic),
            queue,
            pending,
            pool,
            expires_in,
        };
        (Arc::new(connection), driver)
    }

    /// Requests that could be sent at once without waiting.
    pub fn room(&self) -> usize {
        self.permits.available_permits()
    }

    /// Sends a request and waits for its end. Dropping the future gives the request up.
    pub async fn call(
        &self,
        method: Method,
        body: Bytes,
        payload: Option<SharedPayload>,
        expires: Instant,
        buffer: Option<Buffer>,
    ) -> Outcome {
        let permits = Arc::clone(&self.permits);
        let permit: Arc<OwnedSemaphorePermit> =
            Arc::new(permits.acquire_owned().await.expect("the semaphore is never closed"));
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, outcome) = oneshot::channel();
        match &mut *self.pending.0.lock() {
            Waiting::Open(map) => map.insert(id, Waiter { answer, buffer }),
            Waiting::Closed(reason) => return Err(CallFailure::Broken(Arc::clone(reason))),
        };
        let _given_up_on_drop = GiveUp { connection: self, id };
        let header = Header {
            kind: Kind::Request,
            method: method.code(),
            id,
            status: 0,
            deadline_ms: 0,
            body_len: 0,
            payload_len: 0,
        };
        let permit = Some(permit);
        let frame = Outgoing { header, body, payload, expires: Some(expires), permit: permit.clone() };
        // A send fails only after the driver has ended, which answers every waiter.
        let _ended = self.queue.send(frame);
        outcome.await.unwrap_or_else(|_| Err(CallFailure::Broken(self.pending.reason())))
    }
}

struct GiveUp<'a> {
    connection: &'a Connection,
    id: u64,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        if self.connection.pending.take(self.id).is_none() {
            return;
        }
        // The peer may stop working on it. At most one such frame a request: the queue stays bounded.
        let header = Header { kind: Kind::Cancel, id: self.id, ..Header::HEARTBEAT };
        let cancel = Outgoing { header, body: Bytes::new(), payload: None, expires: None, permit: None };
        let _ended = self.connection.queue.send(cancel);
    }
}

/// TCP and TLS.
pub(crate) async fn handshake(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<Stream, ConnectError> {
    let network = |source| ConnectError::Network { address, source: Arc::new(source) };
    let tcp = TcpStream::connect(address).await.map_err(network)?;
    tcp.set_nodelay(true).map_err(network)?;
    let mut stream = TlsConnector::from(config)
        .connect(ServerName::from(address.ip()), BufReader::with_capacity(READ_BUFFER_SIZE, tcp))
        .await
        .map_err(|e| ConnectError::from_io(address, e))?;
    stream.get_mut().1.set_buffer_limit(Some(WRITE_BUFFER_SIZE));
    if stream.get_ref().1.alpn_protocol().is_none() {
        return Err(ConnectError::Protocol { address, reason: "it chose no protocol".to_owned() });
    }
    Ok(stream)
}

impl<S: AsyncRead + AsyncWrite> Driver<S> {
    /// Runs until the connection ends; fails what still waits, and returns why.
    pub async fn run(mut self) -> LinkError {
        // Closes also when this future is dropped.
        let closer = CloseOnDrop(Arc::clone(&self.pending));
        let pending = &self.pending;
        let ended = tokio::select! {
            read = read_answers(&mut self.reader, pending, &self.pool) => match read {
                Ok(never) => match never {},
                Err(error) => error,
            },
            written = self.writer.run(&mut self.queue, |id| pending.holds(id)) => match written {
                Ok(()) => LinkError::Ended("nobody uses it any more"),
                Err(error) => error,
            },
            () = sleep(self.expires_in) => LinkError::Ended("the peer's certificate expired"),
        };
        closer.0.close(ended.to_string().into());
        self.writer.close().await;
        ended
    }
}

struct CloseOnDrop(Arc<Pending>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close("it was closed on this side".into());
    }
}

async fn read_answers<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    pending: &Pending,
    pool: &BufferPool,
) -> Result<std::convert::Infallible, LinkError> {
    loop {
        let header = reader.header().await?;
        let (body_len, payload_len) = (header.body_len as usize, header.payload_len as usize);
        match header.kind {
            Kind::Heartbeat => {}
            Kind::Request | Kind::Cancel => return Err(LinkError::Unexpected(header.kind)),
            Kind::Refusal => {
                let message = reader.body(body_len).await?;
                if let Some(waiter) = pending.take(header.id) {
                    let message = String::from_utf8_lossy(&message).into_owned();
                    let refusal = Refusal { code: header.status, message };
                    let _gave_up = waiter.answer.send(Err(CallFailure::Refused(refusal)));
                }
            }
            Kind::Reply => {
                let Some(mut waiter) = pending.take(header.id) else {
                    reader.skip(body_len).await?;
                    reader.skip(payload_len).await?;
                    continue;
                };
                let body = reader.body(body_len).await?;
                let mut payload = None;
                if payload_len > 0 {
                    let Some(mut buffer) = buffer_for(&mut waiter, pool, payload_len).await else {
                        reader.skip(payload_len).await?;
                        let _gave_up = waiter.answer.send(Err(CallFailure::NoBuffer));
                        continue;
                    };
                    reader.fill(&mut buffer).await?;
                    payload = Some(buffer);
                }
                let _gave_up = waiter.answer.send(Ok(Answer { body, payload }));
            }
        }
    }
}

/// The caller's buffer if it brought one that is large enough, else one of the pool, soon or not at all.
async fn buffer_for(waiter: &mut Waiter, pool: &BufferPool, len: usize) -> Option<Buffer> {
    if let Some(mut buffer) = waiter.buffer.take()
        && buffer.capacity() >= len
    {
        buffer.set_len(len);
        return Some(buffer);
    }
    tokio::select! {
        buffer = pool.acquire(len) => Some(buffer),
        () = waiter.answer.closed() => None,
        () = sleep(BUFFER_WAIT_MAX) => None,
    }
}
