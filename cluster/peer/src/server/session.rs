//! One connection of a node: reads requests, runs the service for each on a task of its own, writes
//! answers in the order in which they are ready.
//!
//! Invariant: what a connection can make this node hold is bounded by [`REQUESTS_MAX`] requests,
//! [`BODY_BYTES_MAX`] bytes of bodies, and the pool's payload buffers. Beyond that it is not read.

use std::{
    collections::HashMap,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use holdfast_ring::Buffer;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, split},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{Shared, Stream};
use crate::{
    Method, PeerNode, Refusal, Reply, Role, SharedPayload,
    counters::Counters,
    frame::{BODY_SIZE_MAX, Header, Kind, PAYLOAD_SIZE_MAX, REFUSAL_SIZE_MAX},
    stream::{BUFFER_WAIT_MAX, DEAD_AFTER, FrameReader, FrameWriter, LinkError, Outgoing},
};

/// Requests of one connection in progress. Above what a client of ours has in flight.
const REQUESTS_MAX: usize = 256;

/// Bytes of bodies of one connection in progress.
const BODY_BYTES_MAX: usize = 2 * BODY_SIZE_MAX;

const _: () =
    assert!(REQUESTS_MAX >= crate::URGENT_IN_FLIGHT_MAX && REQUESTS_MAX >= crate::BULK_IN_FLIGHT_MAX);

/// Serves until the connection ends; returns why.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    stream: Stream,
    peer: PeerNode,
    counters: &Arc<Counters>,
) -> LinkError {
    let (reader, writer) = split(stream);
    let reader = FrameReader::new(reader, DEAD_AFTER, Arc::clone(&counters.traffic));
    let mut writer = FrameWriter::new(writer, Arc::clone(&counters.traffic));
    let (answers, mut queue) = mpsc::unbounded_channel();
    let mut session = Session {
        shared: Arc::clone(shared),
        peer,
        counters: Arc::clone(counters),
        reader,
        answers,
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
        bodies: Arc::new(Semaphore::new(BODY_BYTES_MAX)),
        running: Arc::default(),
    };
    // The first frame tells the peer that its certificate was accepted.
    if let Err(error) = writer.heartbeat().await {
        return error;
    }
    let ended = tokio::select! {
        read = session.read_requests() => match read {
            Ok(never) => match never {},
            Err(error) => error,
        },
        written = writer.run(&mut queue, |_| true) => match written {
            Ok(()) => LinkError::Ended("all senders of answers are gone"),
            Err(error) => error,
        },
    };
    writer.close().await;
    ended
}

struct Session<R> {
    shared: Arc<Shared>,
    peer: PeerNode,
    counters: Arc<Counters>,
    reader: FrameReader<R>,
    /// Bounded by the permits its frames carry.
    answers: mpsc::UnboundedSender<Outgoing>,
    requests: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    /// Tasks of the requests in progress, by id.
    running: Arc<Running>,
}

type Running = Mutex<HashMap<u64, AbortHandle>>;

/// A request that was read whole.
struct Request {
    header: Header,
    method: Method,
    body: Bytes,
    payload: Option<Buffer>,
    expires: Instant,
    permit: OwnedSemaphorePermit,
    /// The body's share of [`BODY_BYTES_MAX`].
    memory: OwnedSemaphorePermit,
}

impl<R: AsyncRead + Unpin> Session<R> {
    async fn read_requests(&mut self) -> Result<Infallible, LinkError> {
        loop {
            let header = self.reader.header().await?;
            match header.kind {
                Kind::Heartbeat => {}
                Kind::Request => self.read_request(header).await?,
                Kind::Cancel => {
                    if let Some(task) = self.running.lock().remove(&header.id) {
                        task.abort();
                    }
                }
                Kind::Reply | Kind::Refusal => return Err(LinkError::Unexpected(header.kind)),
            }
        }
    }

    async fn read_request(&mut self, header: Header) -> Result<(), LinkError> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let expires = Instant::now() + Duration::from_millis(header.deadline_ms.into());
        let (body_len, payload_len) = (header.body_len as usize, header.payload_len as usize);
        let permit = acquire(&self.requests, 1).await;
        let refusal = match Method::from_code(header.method) {
            Some(method) if Role::Node.permits(method) => Ok(method),
            Some(method) => {
                Err(Refusal::new(Refusal::NOT_PERMITTED, format!("a node may not call {method:?}")))
            }
            None => Err(Refusal::new(
                Refusal::UNKNOWN_METHOD,
                format!("this node's program knows no method {}", header.method),
            )),
        };
        let method = match refusal {
            Ok(method) => method,
            Err(refusal) => {
                self.reader.skip(body_len).await?;
                self.reader.skip(payload_len).await?;
                self.refuse(&header, refusal, permit);
                return Ok(());
            }
        };
        let memory = acquire(&self.bodies, body_len).await;
        let body = self.reader.body(body_len).await?;
        let mut payload = None;
        if payload_len > 0 {
            let patience = BUFFER_WAIT_MAX.min(expires.saturating_duration_since(Instant::now()));
            let Ok(mut buffer) = timeout(patience, self.shared.pool.acquire(payload_len)).await else {
                self.reader.skip(payload_len).await?;
                self.refuse(&header, Refusal::new(Refusal::BUSY, "no buffer came free in time"), permit);
                return Ok(());
            };
            self.reader.fill(&mut buffer).await?;
            payload = Some(buffer);
        }
        self.start(Request { header, method, body, payload, expires, permit, memory });
        Ok(())
    }

    fn refuse(&self, header: &Header, refusal: Refusal, permit: OwnedSemaphorePermit) {
        self.counters.errors.fetch_add(1, Ordering::Relaxed);
        // A send fails only when the connection is ending: nobody waits for this answer.
        let _ending = self.answers.send(outgoing(header, Err(refusal), permit));
    }

    /// Runs the service on a task of its own, until its deadline or until the peer gives it up. It outlives
    /// the connection: what was begun for a peer that then vanished is finished like anything else.
    fn start(&self, request: Request) {
        let (shared, peer) = (Arc::clone(&self.shared), self.peer);
        let (counters, answers) = (Arc::clone(&self.counters), self.answers.clone());
        let running = Arc::clone(&self.running);
        let id = request.header.id;
        // Locked over both steps, so that a task that ends at once finds its entry to remove.
        let mut tasks = self.running.lock();
        let task = self.shared.tasks.spawn(async move {
            let Request { header, method, body, payload, expires, permit, memory } = request;
            let call = AssertUnwindSafe(shared.service.call(peer, method, body, payload)).catch_unwind();
            let outcome = tokio::select! {
                () = shared.stop.cancelled() => return,
                outcome = timeout_at(expires, call) => outcome,
            };
            drop(memory);
            running.lock().remove(&id);
            let result = match outcome {
                Ok(Ok(result)) => check(result),
                Ok(Err(_panic)) => {
                    tracing::error!(peer = %peer.node, ?method, "the service of a request panicked");
                    Err(Refusal::new(Refusal::INTERNAL, "the service failed; see this node's log"))
                }
                Err(_late) => Err(Refusal::new(Refusal::LATE, "the deadline passed")),
            };
            if result.is_err() {
                counters.errors.fetch_add(1, Ordering::Relaxed);
            }
            let _ending = answers.send(outgoing(&header, result, permit));
        });
        tasks.insert(id, task.abort_handle());
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, count: usize) -> OwnedSemaphorePermit {
    let count = u32::try_from(count).expect("sizes were checked when the header was parsed");
    Arc::clone(semaphore).acquire_many_owned(count).await.expect("the semaphore is never closed")
}

/// Holds a service to the limits of a frame.
fn check(result: Result<Reply, Refusal>) -> Result<Reply, Refusal> {
    let reply = match result {
        Ok(reply) => reply,
        Err(refusal) if refusal.code == 0 || refusal.code >= Refusal::RESERVED_FROM => {
            tracing::error!(%refusal, "a service used a code that is not its own");
            return Err(Refusal::new(Refusal::INTERNAL, refusal.message));
        }
        Err(refusal) => return Err(refusal),
    };
    let payload_len = reply.payload.as_ref().map_or(0, SharedPayload::len);
    if reply.body.len() > BODY_SIZE_MAX || payload_len > PAYLOAD_SIZE_MAX {
        tracing::error!(body = reply.body.len(), payload = payload_len, "a service's answer is too large");
        return Err(Refusal::new(Refusal::INTERNAL, "the answer is larger than a frame may be"));
    }
    Ok(reply)
}

/// The frame that answers `request`.
pub(super) fn outgoing(
    request: &Header,
    result: Result<Reply, Refusal>,
    permit: OwnedSemaphorePermit,
) -> Outgoing {
    let (kind, status, body, payload) = match result {
        Ok(reply) => (Kind::Reply, 0, reply.body, reply.payload),
        Err(Refusal { code, mut message }) => {
            let cut = message.floor_char_boundary(REFUSAL_SIZE_MAX);
            message.truncate(cut);
            (Kind::Refusal, code, Bytes::from(message), None)
        }
    };
    let header = Header { kind, status, deadline_ms: 0, body_len: 0, payload_len: 0, ..*request };
    Outgoing { header, body, payload, expires: None, permit: Some(Arc::new(permit)) }
}
