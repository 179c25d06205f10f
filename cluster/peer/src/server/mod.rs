//! The listening end: takes connections, finds out who is there, and serves each by its role.
//!
//! Invariants:
//! - who has a certificate of this cluster is a node; who has none may ask to join; everyone else is
//!   refused by TLS before a frame is read;
//! - connections, handshakes, requests and the memory of bodies are bounded;
//! - a revoked node has no connection and gets none.

mod admission;
mod session;
mod strangers;

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use holdfast_model::NodeId;
use holdfast_ring::BufferPool;
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use tokio::{
    io::BufReader,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ALPN_JOIN, ALPN_PEER, PeerCounters, PeerNode, READ_BUFFER_SIZE, Service, WRITE_BUFFER_SIZE,
    counters::Counters,
    join::JoinAuthority,
    pki::{PeerIdentity, PkiError, peer_name_of, serve_config, valid_for},
    server::strangers::Strangers,
    stream::LinkError,
};

/// Connections of nodes at once.
pub const CONNECTIONS_MAX: usize = 1024;

/// Connections of one node at once: those it uses, and those of its previous life that are not yet
/// noticed to be dead.
pub const CONNECTIONS_PER_NODE_MAX: usize = 16;

/// Connections that have not yet said who they are, at once. One more sends the oldest away.
pub const STRANGERS_MAX: usize = 64;

/// Admissions at once.
const ADMISSIONS_MAX: usize = 4;

/// How long TLS may take. Emulated guests need seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after the system refused a connection (out of descriptors, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections the kernel may hold for us.
const BACKLOG: u32 = 256;

const _: () = assert!(STRANGERS_MAX + ADMISSIONS_MAX < CONNECTIONS_MAX);

type Stream = TlsStream<BufReader<TcpStream>>;

/// Why the listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be used.
    #[error("cannot listen for peers on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The identity does not make a TLS configuration.
    #[error(transparent)]
    Identity(#[from] PkiError),
}

/// A running listener for peers. Stops when dropped; [`PeerServer::shutdown`] also waits.
pub struct PeerServer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    service: Arc<dyn Service>,
    pool: BufferPool,
    tls: RwLock<Arc<ServerConfig>>,
    authority: RwLock<Option<Arc<dyn JoinAuthority>>>,
    nodes: Mutex<Nodes>,
    connections: Arc<Semaphore>,
    strangers: Arc<Strangers>,
    admissions: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Nodes {
    revoked: HashSet<NodeId>,
    known: HashMap<NodeId, KnownNode>,
}

struct KnownNode {
    counters: Arc<Counters>,
    /// Cancelled when the node is revoked.
    welcome: CancellationToken,
    connections: Arc<Semaphore>,
}

impl fmt::Debug for PeerServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl PeerServer {
    /// Listens on `address` and serves nodes with `service`. Payloads are read into buffers of `pool`.
    ///
    /// Give it another pool than the one outgoing shards are made in: two nodes that are full of what
    /// they want to send could otherwise not take what the other sends, until deadlines pass.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(
        address: SocketAddr,
        identity: &PeerIdentity,
        service: Arc<dyn Service>,
        pool: BufferPool,
    ) -> Result<Self, BindError> {
        let tls = serve_config(identity)?;
        let wrong = |source| BindError::Listen { address, source };
        let listener = listen(address).map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        let shared = Arc::new(Shared {
            service,
            pool,
            tls: RwLock::new(tls),
            authority: RwLock::new(None),
            nodes: Mutex::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            strangers: Strangers::new(STRANGERS_MAX),
            admissions: Arc::new(Semaphore::new(ADMISSIONS_MAX)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let accepting = Arc::clone(&shared);
        shared.tasks.spawn(async move {
            tokio::select! {
                () = accepting.stop.cancelled() => {}
                () = accept(&accepting, listener) => {}
            }
        });
        Ok(Self { shared, address })
    }

    /// Where it listens: the port, when 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Shows another certificate to connections made from now on.
    ///
    /// # Errors
    /// `Crypto` when TLS does not take it; the one in use stays.
    pub fn set_identity(&self, identity: &PeerIdentity) -> Result<(), PkiError> {
        let next = serve_config(identity)?;
        *self.shared.tls.write() = next;
        Ok(())
    }

    /// Says who decides on admissions. Without one, joiners are told to come back later.
    pub fn set_join_authority(&self, authority: Arc<dyn JoinAuthority>) {
        *self.shared.authority.write() = Some(authority);
    }

    /// Serves `node` no more: closes its connections, takes no new ones. For a node that was removed;
    /// ids are not used again, so this is never taken back.
    pub fn revoke(&self, node: NodeId) {
        let mut nodes = self.shared.nodes.lock();
        nodes.revoked.insert(node);
        if let Some(known) = nodes.known.remove(&node) {
            known.welcome.cancel();
        }
    }

    /// Counters of each node that was ever connected.
    #[must_use]
    pub fn counters(&self) -> Vec<(NodeId, PeerCounters)> {
        let nodes = self.shared.nodes.lock();
        let mut all: Vec<_> =
            nodes.known.iter().map(|(node, known)| (*node, known.counters.read())).collect();
        all.sort_unstable_by_key(|(node, _)| *node);
        all
    }

    /// Closes the listener and all connections, drops the requests in progress, waits for their tasks.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted node must not wait for the old connections' ports.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(shared: &Arc<Shared>, listener: TcpListener) {
    loop {
        let connections = Arc::clone(&shared.connections);
        let connection = connections.acquire_owned().await.expect("the semaphore is never closed");
        let (tcp, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a peer's connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let serving = Arc::clone(shared);
        shared.tasks.spawn(async move {
            let stop = serving.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = welcome(serving, tcp, from) => {}
            }
            drop(connection);
        });
    }
}

/// Finds out who is there, and serves them.
async fn welcome(shared: Arc<Shared>, tcp: TcpStream, from: SocketAddr) {
    let stranger = shared.strangers.enter();
    let acceptor = TlsAcceptor::from(Arc::clone(&*shared.tls.read()));
    let _slower_without = tcp.set_nodelay(true);
    let stream = BufReader::with_capacity(READ_BUFFER_SIZE, tcp);
    let accepted = tokio::select! {
        accepted = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => accepted,
        () = stranger.sent_away() => {
            return tracing::warn!(%from, "too many connections without a name; the oldest was closed");
        }
    };
    let mut stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return tracing::warn!(%from, %error, "a connection to the peer port was refused by TLS");
        }
        Err(_) => {
            return tracing::debug!(%from, "a connection to the peer port did not finish its handshake");
        }
    };
    stream.get_mut().1.set_buffer_limit(Some(WRITE_BUFFER_SIZE));
    match role_of(&stream) {
        Some(Caller::Node(peer, expires_in)) => {
            drop(stranger);
            serve_node(&shared, stream, peer, expires_in, from).await;
        }
        Some(Caller::Joiner) => admission::serve(&shared, stream, from, stranger).await,
        None => tracing::warn!(%from, "a connection to the peer port speaks no protocol of ours"),
    }
}

/// Who a connection turned out to be.
enum Caller {
    /// A node, and how long its certificate is still valid.
    Node(PeerNode, Duration),
    /// Someone without a certificate.
    Joiner,
}

/// Certificate and protocol must agree: a node speaks as a node, who has no certificate may only join.
fn role_of(stream: &Stream) -> Option<Caller> {
    let session = stream.get_ref().1;
    match (session.peer_certificates(), session.alpn_protocol()) {
        (Some([leaf, ..]), Some(ALPN_PEER)) => {
            // The verifier has checked it; a name that does not parse now would be a program error.
            let node = peer_name_of(leaf).ok()?.node;
            Some(Caller::Node(PeerNode { node }, valid_for(leaf)))
        }
        (None, Some(ALPN_JOIN)) => Some(Caller::Joiner),
        _ => None,
    }
}

async fn serve_node(
    shared: &Arc<Shared>,
    stream: Stream,
    peer: PeerNode,
    expires_in: Duration,
    from: SocketAddr,
) {
    let (counters, welcome, connections) = {
        let mut nodes = shared.nodes.lock();
        if nodes.revoked.contains(&peer.node) {
            tracing::warn!(%from, peer = %peer.node, "a revoked node knocked");
            return;
        }
        let known = nodes.known.entry(peer.node).or_insert_with(|| KnownNode {
            counters: Arc::default(),
            welcome: CancellationToken::new(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_PER_NODE_MAX)),
        });
        (Arc::clone(&known.counters), known.welcome.clone(), Arc::clone(&known.connections))
    };
    let Ok(_one_of_few) = connections.try_acquire_owned() else {
        tracing::warn!(%from, peer = %peer.node, "a node has too many connections");
        return;
    };
    let _connected = counters.connected();
    tracing::debug!(%from, peer = %peer.node, "peer connected");
    let reason = tokio::select! {
        () = welcome.cancelled() => LinkError::Ended("the node was revoked"),
        () = tokio::time::sleep(expires_in) => LinkError::Ended("the node's certificate expired"),
        ended = session::serve(shared, stream, peer, &counters) => ended,
    };
    tracing::debug!(%from, peer = %peer.node, %reason, "peer disconnected");
}
