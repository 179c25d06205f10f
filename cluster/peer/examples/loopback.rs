//! How fast shards pass a link on this machine: `cargo run -p holdfast-peer --example loopback`.
//!
//! Two nodes in one process, over loopback: both ends' TLS and socket copies share the cores, so a node
//! that only sends or only receives has about twice the figure. Shards are thrown away on arrival.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use holdfast_model::{ByteCount, ClusterId, NodeId, limits::SHARD_SIZE_MAX};
use holdfast_peer::{
    Method, PeerClient, PeerNode, PeerServer, Refusal, Reply, Service,
    pki::{Ca, NodeKey, PeerIdentity},
};
use holdfast_ring::{Buffer, BufferPool};

const SERVER: NodeId = NodeId::new(1);
const TIMEOUT: Duration = Duration::from_secs(30);

struct Store {
    shard: Arc<Buffer>,
}

#[async_trait::async_trait]
impl Service for Store {
    async fn call(&self, _: PeerNode, method: Method, _: Bytes, _: Option<Buffer>) -> Result<Reply, Refusal> {
        Ok(match method {
            Method::ShardGet => Reply::with_payload(Arc::clone(&self.shard)),
            _ => Reply::empty(),
        })
    }
}

fn identity(ca: &Ca, node: NodeId) -> Result<PeerIdentity, Box<dyn std::error::Error>> {
    let key = NodeKey::generate()?;
    let certificate = ca.issue_peer(key.request(), node, SystemTime::now())?;
    Ok(PeerIdentity::new(ca.certificate().clone(), certificate, key.private_key().clone())?)
}

/// CPU seconds of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ca = Ca::generate(ClusterId::from_bytes([1; 16]), SystemTime::now())?;
    let (ours, theirs) = (BufferPool::new(ByteCount::mib(64))?, BufferPool::new(ByteCount::mib(64))?);
    let shard = Arc::new(theirs.acquire(SHARD_SIZE_MAX).await);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server =
        PeerServer::bind(address, &identity(&ca, SERVER)?, Arc::new(Store { shard }), theirs).await?;
    let client = PeerClient::new(identity(&ca, NodeId::new(2))?, ours.clone());
    client.set_address(SERVER, server.local_addr());

    println!(
        "{:<10} {:>9} {:>8} {:>9} {:>8} {:>12}",
        "method", "size", "callers", "calls/s", "GB/s", "CPU us/call"
    );
    for (method, size) in [
        (Method::ShardPut, SHARD_SIZE_MAX),
        (Method::ShardGet, SHARD_SIZE_MAX),
        (Method::ShardPut, 64 * 1024),
        (Method::Raft, 0),
    ] {
        for callers in [1, 16] {
            run(&client, &ours, method, size, callers).await?;
        }
    }
    server.shutdown().await;
    Ok(())
}

async fn run(
    client: &PeerClient,
    pool: &BufferPool,
    method: Method,
    size: usize,
    callers: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let calls = (512_usize << 20).checked_div(size).unwrap_or(30_000);
    let source = Arc::new(pool.acquire(size).await);
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let mut results = stream::iter(0..calls)
        .map(|_| {
            let payload = (method == Method::ShardPut).then(|| Arc::clone(&source).into());
            client.call(SERVER, method, Bytes::from_static(b"shard"), payload, TIMEOUT)
        })
        .buffer_unordered(callers);
    while let Some(result) = results.next().await {
        result?;
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let gigabytes = (calls * size) as f64 / 1e9;
    let name = format!("{method:?}");
    let rate = calls as f64 / seconds;
    println!(
        "{name:<10} {:>9} {callers:>8} {rate:>9.0} {:>8.2} {:>12.1}",
        ByteCount::new(size as u64).to_string(),
        gigabytes / seconds,
        cpu * 1e6 / calls as f64,
    );
    Ok(())
}
