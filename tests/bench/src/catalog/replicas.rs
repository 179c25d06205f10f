//! Three replicas of a catalog group, logs and files on this machine, messages in memory.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_catalog::CatalogMachine;
use holdfast_consensus::{Consensus, ConsensusOptions, Role, Transport, TransportError};
use holdfast_model::{GroupId, NodeId};
use parking_lot::Mutex;

use crate::{Keys, beginning, millis_at, put, sealed};

const GROUP: GroupId = GroupId::new(1);
const WIDTHS: [u64; 3] = [1, 64, 512];

/// All nodes, for messages.
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<HashMap<NodeId, Weak<Consensus>>>>);

struct Endpoint {
    from: NodeId,
    wires: Wires,
}

#[async_trait::async_trait]
impl Transport for Endpoint {
    async fn send(&self, to: NodeId, request: Bytes, timeout: Duration) -> Result<Bytes, TransportError> {
        let target = self.wires.0.lock().get(&to).and_then(Weak::upgrade);
        let target = target.ok_or_else(|| TransportError::NotSent(to, "not up".to_owned()))?;
        let answer = tokio::time::timeout(timeout, target.handle(self.from, request)).await;
        let answer = answer.map_err(|_| TransportError::Timeout(to, timeout))?;
        answer.map_err(|text| TransportError::Refused(to, text))
    }
}

/// Prints commands a second and flushes a command at each width.
///
/// # Errors
/// When the group cannot be formed or a command fails.
pub async fn measure(dir: &Path, run: Duration) -> Result<()> {
    println!("## three replicas, sealed puts of small objects");
    println!("| in flight | commands/s | p50 ms | p99 ms | commands/entry | flushes/command, all nodes |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for width in WIDTHS {
        row(&dir.join(format!("replicas-{width}")), width, run).await?;
    }
    Ok(())
}

async fn row(dir: &Path, width: u64, run: Duration) -> Result<()> {
    let (keys, wires) = (Arc::new(Keys::new()), Wires::default());
    let mut nodes = Vec::new();
    for id in (1..=3).map(NodeId::new) {
        let home = dir.join(id.to_string());
        std::fs::create_dir_all(home.join("raft"))?;
        let transport = Endpoint { from: id, wires: wires.clone() };
        let consensus =
            Consensus::open(ConsensusOptions::new(id, home.join("raft"), Arc::new(transport))).await?;
        let machine = CatalogMachine::open(&home.join("catalog"), Arc::clone(&keys) as _)?;
        consensus.start_group(GROUP, Box::new(machine)).await?;
        wires.0.lock().insert(id, Arc::downgrade(&consensus));
        nodes.push(consensus);
    }
    nodes[0].initialize(GROUP, (1..=3).map(NodeId::new).collect::<BTreeSet<_>>()).await?;
    let leader = leader_of(&nodes).await?;
    for command in beginning(&keys) {
        leader.propose(GROUP, command).await?;
    }
    let flushes = || nodes.iter().map(|node| node.counters().flushes).sum::<u64>();
    let (before, proposals, next) = (flushes(), leader.counters().proposals, Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let callers: Vec<_> = (0..width)
        .map(|_| {
            let (leader, keys, next) = (Arc::clone(&leader), Arc::clone(&keys), Arc::clone(&next));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < run {
                    let command = sealed(&keys, put(next.fetch_add(1, Ordering::Relaxed)));
                    let asked = Instant::now();
                    leader.propose(GROUP, command).await?;
                    times.push(asked.elapsed());
                }
                anyhow::Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await??);
    }
    let (seconds, commands) = (begun.elapsed().as_secs_f64(), times.len() as f64);
    let entries = leader.counters().proposals - proposals;
    println!(
        "| {width} | {:.0} | {:.1} | {:.1} | {:.1} | {:.3} |",
        commands / seconds,
        millis_at(&mut times, 0.5),
        millis_at(&mut times, 0.99),
        commands / entries as f64,
        (flushes() - before) as f64 / commands,
    );
    for node in nodes {
        node.shutdown().await?;
    }
    Ok(())
}

async fn leader_of(nodes: &[Arc<Consensus>]) -> Result<Arc<Consensus>> {
    let find = async {
        loop {
            let leads =
                |node: &&Arc<Consensus>| node.status(GROUP).is_some_and(|status| status.role == Role::Leader);
            if let Some(leader) = nodes.iter().find(leads) {
                return Arc::clone(leader);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), find).await.context("no leader in 30 seconds")
}
