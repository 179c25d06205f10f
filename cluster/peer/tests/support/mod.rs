//! A small cluster on loopback for the tests of links: a CA, identities, pools, a service that can echo,
//! store, wait and refuse.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod raw;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use holdfast_model::{ByteCount, ClusterId, NodeId};
use holdfast_peer::{
    Method, PeerClient, PeerNode, PeerServer, Refusal, Reply, Service,
    pki::{Ca, NodeKey, PeerIdentity},
};
use holdfast_ring::{Buffer, BufferPool};
use parking_lot::Mutex;
use tokio::sync::Barrier;

pub const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);
pub const SERVER: NodeId = NodeId::new(1);
pub const CLIENT: NodeId = NodeId::new(2);
pub const TIMEOUT: Duration = Duration::from_secs(20);

pub fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub fn ca() -> Ca {
    Ca::generate(CLUSTER, SystemTime::now()).unwrap()
}

pub fn identity(ca: &Ca, node: NodeId) -> PeerIdentity {
    identity_at(ca, node, SystemTime::now())
}

pub fn identity_at(ca: &Ca, node: NodeId, now: SystemTime) -> PeerIdentity {
    let key = NodeKey::generate().unwrap();
    let certificate = ca.issue_peer(key.request(), node, now).unwrap();
    PeerIdentity::new(ca.certificate().clone(), certificate, key.private_key().clone()).unwrap()
}

pub fn pool() -> BufferPool {
    BufferPool::new(ByteCount::mib(64)).unwrap()
}

/// What the server does with a request is said by the body.
#[derive(Default)]
pub struct TestService {
    pub shards: Mutex<HashMap<Bytes, Arc<Buffer>>>,
    pub meeting: Mutex<Option<Arc<Barrier>>>,
    pub calls: AtomicUsize,
    pub in_progress: AtomicUsize,
    pub most_in_progress: AtomicUsize,
}

#[async_trait::async_trait]
impl Service for TestService {
    async fn call(
        &self,
        peer: PeerNode,
        method: Method,
        body: Bytes,
        payload: Option<Buffer>,
    ) -> Result<Reply, Refusal> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.in_progress.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_progress.fetch_max(now, Ordering::SeqCst);
        let _guard = Leave(&self.in_progress);
        match method {
            Method::ShardPut => {
                if body != "discard" {
                    let payload = payload.ok_or_else(|| Refusal::new(2, "no payload"))?;
                    self.shards.lock().insert(body, Arc::new(payload));
                }
                Ok(Reply::empty())
            }
            Method::ShardGet => match self.shards.lock().get(&body) {
                Some(shard) => Ok(Reply::with_payload(Arc::clone(shard))),
                None => Err(Refusal::new(7, "no such shard")),
            },
            Method::NodeStatus => Ok(Reply::with_body(peer.node.to_string())),
            Method::Raft => Ok(Reply::with_body(body)),
            Method::Control => {
                match body.as_ref() {
                    b"panic" => panic!("asked to"),
                    b"hang" => std::future::pending().await,
                    b"reserved" => return Err(Refusal::new(0xffff, "not its own")),
                    b"large" => return Ok(Reply::with_body(vec![0; 17 * 1024 * 1024])),
                    meet if meet.starts_with(b"meet") => {
                        let meeting = self.meeting.lock().clone().unwrap();
                        meeting.wait().await;
                    }
                    millis => {
                        let millis = std::str::from_utf8(millis).unwrap().parse().unwrap();
                        tokio::time::sleep(Duration::from_millis(millis)).await;
                    }
                }
                Ok(Reply::with_body(body))
            }
            other => Err(Refusal::new(9, format!("{other:?}"))),
        }
    }
}

struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One server and one client that knows it.
pub struct Pair {
    pub ca: Ca,
    pub service: Arc<TestService>,
    pub server: PeerServer,
    pub client: PeerClient,
    pub pool: BufferPool,
}

pub async fn pair() -> Pair {
    pair_with(pool()).await
}

pub async fn pair_with(server_pool: BufferPool) -> Pair {
    let ca = ca();
    let service = Arc::new(TestService::default());
    let server =
        PeerServer::bind(any_port(), &identity(&ca, SERVER), service.clone(), server_pool).await.unwrap();
    let pool = pool();
    let client = PeerClient::new(identity(&ca, CLIENT), pool.clone());
    client.set_address(SERVER, server.local_addr());
    // All links up: tests can tell whether one was lost.
    while client.counters()[0].1.connections < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Pair { ca, service, server, client, pool }
}

/// Bytes that differ from position to position and from seed to seed.
pub fn fill(buffer: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in buffer {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[3];
    }
}
