//! Calls to other nodes. One [`PeerClient`] a node; clones share it.
//!
//! To each peer there are three connections: one for what is small and waited for (consensus, health),
//! two for shards. Requests share a connection and are told apart by id.
//!
//! Invariants:
//! - a call ends within its timeout, whatever the peer does;
//! - a call that times out leaves the link and all other calls alone;
//! - what is in flight to one peer is bounded; further calls wait their turn within their timeout.

mod connection;
mod link;

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use holdfast_model::NodeId;
use holdfast_ring::{Buffer, BufferPool};
use parking_lot::RwLock;
use tokio::{runtime::Handle, sync::watch, time::Instant};

pub(crate) use connection::handshake;
pub use connection::{Answer, CONNECT_TIMEOUT};
pub use link::{BACKOFF_MAX, BACKOFF_MIN};

use crate::{
    ConnectError, Method, PeerCounters, PeerError, Refusal, SharedPayload,
    client::{
        connection::{CallFailure, Connection},
        link::{Link, LinkState},
    },
    counters::Counters,
    frame::{BODY_SIZE_MAX, PAYLOAD_SIZE_MAX, check_size},
    method::Lane,
    pki::PeerIdentity,
};

/// Requests in flight over the urgent connection to one peer.
pub const URGENT_IN_FLIGHT_MAX: usize = 256;

/// Requests in flight over each bulk connection to one peer.
pub const BULK_IN_FLIGHT_MAX: usize = 64;

/// Connections to one peer: the first is urgent, the others bulk.
const LINKS: usize = 3;

/// Calls other nodes.
#[derive(Clone)]
pub struct PeerClient {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Arc<RwLock<PeerIdentity>>,
    pool: BufferPool,
    runtime: Handle,
    peers: RwLock<HashMap<NodeId, Peer>>,
}

/// One peer. Its links' tasks end when `address` is dropped.
struct Peer {
    address: watch::Sender<SocketAddr>,
    state: watch::Receiver<Vec<LinkState>>,
    counters: Arc<Counters>,
}

impl fmt::Debug for PeerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers: Vec<_> = self.inner.peers.read().keys().copied().collect();
        f.debug_struct("PeerClient").field("peers", &peers).finish_non_exhaustive()
    }
}

impl PeerClient {
    /// A client that knows no peers yet. Payloads of answers are read into buffers of `pool`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(identity: PeerIdentity, pool: BufferPool) -> Self {
        let identity = Arc::new(RwLock::new(identity));
        let peers = RwLock::default();
        Self { inner: Arc::new(Inner { identity, pool, runtime: Handle::current(), peers }) }
    }

    /// Shows another certificate from now on: for connections made later, those that are open keep theirs.
    pub fn set_identity(&self, identity: PeerIdentity) {
        *self.inner.identity.write() = identity;
    }

    /// Says where `node` listens, and starts to connect. Another address than before replaces the
    /// connections; the same one changes nothing.
    pub fn set_address(&self, node: NodeId, address: SocketAddr) {
        let mut peers = self.inner.peers.write();
        if let Some(peer) = peers.get(&node) {
            peer.address.send_if_modified(|old| std::mem::replace(old, address) != address);
            return;
        }
        let (sender, receiver) = watch::channel(address);
        let (state, watched) = watch::channel(vec![LinkState::Connecting; LINKS]);
        let state = Arc::new(state);
        let counters = Arc::<Counters>::default();
        for slot in 0..LINKS {
            let in_flight_max = if slot == 0 { URGENT_IN_FLIGHT_MAX } else { BULK_IN_FLIGHT_MAX };
            let link = Link {
                node,
                slot,
                in_flight_max,
                identity: Arc::clone(&self.inner.identity),
                pool: self.inner.pool.clone(),
                counters: Arc::clone(&counters),
                state: Arc::clone(&state),
                address: receiver.clone(),
            };
            self.inner.runtime.spawn(link.run());
        }
        peers.insert(node, Peer { address: sender, state: watched, counters });
    }

    /// Forgets `node`: closes its connections, fails what waits for it.
    pub fn remove(&self, node: NodeId) {
        self.inner.peers.write().remove(&node);
    }

    /// Where each known node listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<(NodeId, SocketAddr)> {
        let peers = self.inner.peers.read();
        let mut all: Vec<_> = peers.iter().map(|(node, peer)| (*node, *peer.address.borrow())).collect();
        all.sort_unstable();
        all
    }

    /// Whether a small request to `node` would find a connection now.
    #[must_use]
    pub fn is_connected(&self, node: NodeId) -> bool {
        let peers = self.inner.peers.read();
        peers.get(&node).is_some_and(|peer| matches!(peer.state.borrow()[0], LinkState::Up(_)))
    }

    /// Counters of each known node.
    #[must_use]
    pub fn counters(&self) -> Vec<(NodeId, PeerCounters)> {
        let peers = self.inner.peers.read();
        let mut all: Vec<_> = peers.iter().map(|(node, peer)| (*node, peer.counters.read())).collect();
        all.sort_unstable_by_key(|(node, _)| *node);
        all
    }

    /// Asks `node` and waits for its answer, at most `timeout`. Dropping the future gives the call up.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn call(
        &self,
        node: NodeId,
        method: Method,
        body: Bytes,
        payload: Option<SharedPayload>,
        timeout: Duration,
    ) -> Result<Answer, PeerError> {
        self.request(node, method, body, payload, None, timeout).await
    }

    /// As [`PeerClient::call`], with a buffer for the answer's payload: a caller that took all its
    /// buffers beforehand never waits for one while it holds others.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn call_into(
        &self,
        node: NodeId,
        method: Method,
        body: Bytes,
        buffer: Buffer,
        timeout: Duration,
    ) -> Result<Answer, PeerError> {
        self.request(node, method, body, None, Some(buffer), timeout).await
    }

    async fn request(
        &self,
        node: NodeId,
        method: Method,
        body: Bytes,
        payload: Option<SharedPayload>,
        buffer: Option<Buffer>,
        timeout: Duration,
    ) -> Result<Answer, PeerError> {
        check_size("body", body.len(), BODY_SIZE_MAX).map_err(PeerError::TooLarge)?;
        let payload_len = payload.as_ref().map_or(0, SharedPayload::len);
        check_size("payload", payload_len, PAYLOAD_SIZE_MAX).map_err(PeerError::TooLarge)?;
        let (mut state, counters) = {
            let peers = self.inner.peers.read();
            let peer = peers.get(&node).ok_or(PeerError::UnknownNode(node))?;
            (peer.state.clone(), Arc::clone(&peer.counters))
        };
        counters.requests.fetch_add(1, Ordering::Relaxed);
        let expires = Instant::now() + timeout;
        let attempt = async {
            let connection = choose(&mut state, method.lane())
                .await
                .map_err(|source| PeerError::Unreachable { node, source })?;
            connection
                .call(method, body, payload, expires, buffer)
                .await
                .map_err(|failure| failed(node, method, timeout, failure))
        };
        let result = tokio::time::timeout_at(expires, attempt).await.unwrap_or(Err(PeerError::Timeout {
            node,
            method,
            timeout,
        }));
        if result.is_err() {
            counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

/// The connection of `lane` with the most room; waits while none is up and one may come.
async fn choose(
    state: &mut watch::Receiver<Vec<LinkState>>,
    lane: Lane,
) -> Result<Arc<Connection>, ConnectError> {
    let slots = match lane {
        Lane::Urgent => 0..1,
        Lane::Bulk => 1..LINKS,
    };
    let decided = state
        .wait_for(|links| {
            let links = &links[slots.clone()];
            links.iter().any(|link| matches!(link, LinkState::Up(_)))
                || links.iter().all(|link| matches!(link, LinkState::Down(_)))
        })
        .await;
    // The sender lives in the links' tasks; each leaves `Down` behind when it ends.
    let links = decided.map_err(|_| ConnectError::Closed)?;
    let mut best: Option<&Arc<Connection>> = None;
    let mut reason = ConnectError::Closed;
    for link in &links[slots] {
        match link {
            LinkState::Up(connection) if best.is_none_or(|b| connection.room() > b.room()) => {
                best = Some(connection);
            }
            LinkState::Down(error) => reason = error.clone(),
            LinkState::Up(_) | LinkState::Connecting => {}
        }
    }
    best.cloned().ok_or(reason)
}

fn failed(node: NodeId, method: Method, timeout: Duration, failure: CallFailure) -> PeerError {
    match failure {
        CallFailure::Broken(reason) => PeerError::Broken { node, reason },
        CallFailure::NoBuffer => PeerError::Busy { node, method },
        CallFailure::Refused(Refusal { code, message }) => match code {
            Refusal::LATE => PeerError::Timeout { node, method, timeout },
            Refusal::BUSY => PeerError::Busy { node, method },
            Refusal::NOT_PERMITTED | Refusal::UNKNOWN_METHOD => {
                PeerError::NotPermitted { node, method, message }
            }
            Refusal::RESERVED_FROM.. => PeerError::Failed { node, method, message },
            code => PeerError::Refused { node, method, code, message },
        },
    }
}
