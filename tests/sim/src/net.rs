//! Links between nodes: late, cut one way or both, and gone with a node that is off.

use std::{
    future::pending,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use holdfast_fault::Random;
use holdfast_model::NodeId;
use holdfast_peer::{Answer, Method, PeerError, SharedPayload};
use holdfast_ring::{Buffer, BufferPool};
use holdfast_store::Peers;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::world::{World, node_number};

/// How long a message takes at most, in milliseconds.
const LATENCY_MAX_MILLIS: u64 = 6;

/// After how long a node that is cut off is noticed: links of real ones have heartbeats.
const NOTICED_AFTER: Duration = Duration::from_secs(5);

/// All links of a run.
#[derive(Debug)]
pub struct Net {
    nodes: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: Random,
    /// Until when nothing passes from one node to another.
    cut_until: Vec<Option<Instant>>,
    /// Until when what one node says to another is late, and by how much.
    late_until: Vec<Option<(Instant, Duration)>>,
    /// In how many of the next shards that come to a node a bit turns.
    garbled: Vec<u64>,
}

impl Net {
    /// Links that all work.
    #[must_use]
    pub fn new(nodes: usize, seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            cut_until: vec![None; nodes * nodes],
            late_until: vec![None; nodes * nodes],
            garbled: vec![0; nodes],
        };
        Self { nodes, state: Mutex::new(state) }
    }

    /// Nothing passes from one node to another for so long.
    pub fn cut(&self, from: usize, to: usize, time: Duration) {
        let until = Instant::now() + time;
        let at = from * self.nodes + to;
        let mut state = self.state.lock();
        state.cut_until[at] = state.cut_until[at].max(Some(until));
    }

    /// What one node says to another within `time` arrives that much later.
    pub fn delay(&self, from: usize, to: usize, by: Duration, time: Duration) {
        self.state.lock().late_until[from * self.nodes + to] = Some((Instant::now() + time, by));
    }

    /// A bit turns in each of the next `count` shards that other nodes send to a node.
    pub fn garble(&self, node: usize, count: u64) {
        self.state.lock().garbled[node] = count;
    }

    /// Whether the shard that comes to a node now is hit.
    fn garbles(&self, node: usize) -> bool {
        let mut state = self.state.lock();
        let hit = state.garbled[node] > 0;
        state.garbled[node] -= u64::from(hit);
        hit
    }

    /// Everything passes, as it was sent.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.cut_until.fill(None);
        state.late_until.fill(None);
        state.garbled.fill(0);
    }

    /// Whether what one node says reaches the other.
    #[must_use]
    pub fn passes(&self, from: usize, to: usize) -> bool {
        let state = self.state.lock();
        state.cut_until[from * self.nodes + to].is_none_or(|until| Instant::now() >= until)
    }

    /// Whether two nodes hear each other.
    #[must_use]
    pub fn connects(&self, a: usize, b: usize) -> bool {
        a == b || self.passes(a, b) && self.passes(b, a)
    }

    /// How long the next message from one node to another takes.
    fn latency_between(&self, from: usize, to: usize) -> Duration {
        let late = self.state.lock().late_until[from * self.nodes + to];
        let late = late.filter(|(until, _)| Instant::now() < *until).map_or(Duration::ZERO, |(_, by)| by);
        self.latency() + late
    }

    /// How long the next message takes, when nothing delays it.
    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.state.lock().random.below(LATENCY_MAX_MILLIS + 1))
    }
}

/// How one node, in one of its lives, asks the others.
#[derive(Debug)]
pub struct SimPeers {
    /// The run.
    pub world: Weak<World>,
    /// Who asks.
    pub from: usize,
    /// In which life.
    pub life: u64,
    /// Memory for answers.
    pub pool: BufferPool,
}

#[async_trait::async_trait]
impl Peers for SimPeers {
    async fn call(
        &self,
        node: NodeId,
        method: Method,
        body: Bytes,
        payload: Option<SharedPayload>,
        limit: Duration,
    ) -> Result<Answer, PeerError> {
        let Some(world) = self.world.upgrade() else { return pending().await };
        let result = timeout(limit, self.ask(&world, node, method, body, payload)).await;
        if !world.is_on(self.from, self.life) {
            // Nobody is left who would go on.
            return pending().await;
        }
        result.unwrap_or(Err(PeerError::Timeout { node, method, timeout: limit }))
    }
}

impl SimPeers {
    async fn ask(
        &self,
        world: &Arc<World>,
        node: NodeId,
        method: Method,
        body: Bytes,
        payload: Option<SharedPayload>,
    ) -> Result<Answer, PeerError> {
        let to = node_number(node);
        let broken = |reason: &str| PeerError::Broken { node, reason: reason.into() };
        if !world.is_on(self.from, self.life) {
            return pending().await;
        }
        sleep(world.net.latency_between(self.from, to)).await;
        let Some(target) = world.node(to) else { return Err(broken("it is off")) };
        if !world.net.passes(self.from, to) {
            sleep(NOTICED_AFTER).await;
            return Err(broken("it is not reached"));
        }
        let payload = match payload {
            Some(bytes) => Some(copied(&target.pool, bytes.bytes()).await),
            None => None,
        };
        let payload = payload.map(|mut shard| {
            if method == Method::ShardPut && world.net.garbles(to) {
                shard[0] ^= 1;
            }
            shard
        });
        let service = target.service.clone();
        let answered = target.spawn(async move { service.call(method, body, payload).await });
        let reply = answered.await.map_err(|_| broken("it went off"))?;
        drop(target);
        sleep(world.net.latency_between(to, self.from)).await;
        if !world.net.passes(to, self.from) {
            sleep(NOTICED_AFTER).await;
            return Err(broken("its answer does not come"));
        }
        match reply {
            Ok(reply) => {
                let payload = match reply.payload {
                    Some(bytes) => Some(copied(&self.pool, bytes.bytes()).await),
                    None => None,
                };
                Ok(Answer { body: reply.body, payload })
            }
            Err(refusal) => {
                Err(PeerError::Refused { node, method, code: refusal.code, message: refusal.message })
            }
        }
    }
}

async fn copied(pool: &BufferPool, bytes: &[u8]) -> Buffer {
    let mut buffer = pool.acquire(bytes.len()).await;
    buffer.copy_from_slice(bytes);
    buffer
}
