//! What must hold when the faults are over, of the cluster that runs.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{cluster_file::ClusterFile, metrics::Samples};
use tokio::time::sleep;

use crate::workload::{BUCKET, Shared};

/// How long debt may take to be settled: a lost drive is given up after half a minute, then rebuilt.
const DEBT_LIMIT: Duration = Duration::from_secs(240);

/// How long scrubbing every node and repairing what it finds may take. Five nodes that share two cores with their clients
/// take a few seconds.
const SCRUB_LIMIT: Duration = Duration::from_secs(300);

/// Scrubs until one must find nothing more to repair: the first finds what has turned, the next that it was
/// repaired; many findings at once are left for another.
const SCRUBS_MAX: u32 = 6;

/// Waits until no stripe has fewer shards than its level asks for.
///
/// # Errors
/// When that takes too long, or a stripe cannot be read at all.
pub async fn debt_is_settled(cluster: &ClusterFile, patience: u32) -> Result<Duration> {
    let begun = Instant::now();
    let mut last = String::new();
    let limit = DEBT_LIMIT * patience;
    while begun.elapsed() < limit {
        // A node that just started may refuse for a moment.
        match async { cluster.admin(0).await?.work().await }.await {
            Ok(work) if work.complete && work.debt_stripes == 0 && work.unreadable_stripes == 0 => {
                return Ok(begun.elapsed());
            }
            Ok(work) => last = format!("{work:?}"),
            Err(error) => last = format!("{error:#}"),
        }
        sleep(Duration::from_millis(300)).await;
    }
    anyhow::bail!("debt is not settled after {limit:?}: {last}")
}

/// Scrubs every node until nothing more is repaired. How many shards were, on the way.
///
/// # Errors
/// When scrubbing takes too long, or there is something to repair again and again.
pub async fn scrubbed_clean(cluster: &ClusterFile, nodes: usize, patience: u32) -> Result<u64> {
    let before = repaired(cluster, nodes).await?;
    let mut last = before;
    for _ in 0..SCRUBS_MAX {
        let begun = Instant::now();
        for node in 0..nodes {
            cluster.admin(node).await?.scrub().await?;
        }
        // A scrub that was asked for begins within a moment; then none may be at work, repairs included.
        sleep(Duration::from_secs(2)).await;
        while working(cluster).await? {
            let limit = SCRUB_LIMIT * patience;
            ensure!(begun.elapsed() < limit, "scrub and repair are not done after {limit:?}");
            sleep(Duration::from_millis(300)).await;
        }
        let now = repaired(cluster, nodes).await?;
        if now == last {
            return Ok(now - before);
        }
        last = now;
    }
    anyhow::bail!("{} shards were repaired in {SCRUBS_MAX} scrubs, and no end of it", last - before)
}

/// Whether a worker of any node scrubs or repairs.
async fn working(cluster: &ClusterFile) -> Result<bool> {
    let work = cluster.admin(0).await?.work_document().await?;
    let workers = work["workers"].as_array().context("workers")?;
    let at_it = |worker: &serde_json::Value| {
        worker["working"] == true && matches!(worker["kind"].as_str(), Some("scrub" | "repair"))
    };
    Ok(workers.iter().any(at_it))
}

/// Sum of a metric over all nodes.
async fn sum(cluster: &ClusterFile, nodes: usize, metric: &str) -> Result<f64> {
    let mut sum = 0.0;
    for node in 0..nodes {
        let samples = Samples::fetch(&cluster.node_at(node)?.metrics, cluster.trust()?).await?;
        sum += samples.sum(metric).unwrap_or(0.0);
    }
    Ok(sum)
}

async fn repaired(cluster: &ClusterFile, nodes: usize) -> Result<u64> {
    Ok(sum(cluster, nodes, "holdfast_shards_repaired_total").await? as u64)
}

/// Reads every key through every node; what is found becomes part of the history. Each listing names the keys
/// that are there. Returns how many these are.
///
/// # Errors
/// When something cannot be read now that nothing is broken.
pub async fn everything_is_read(
    cluster: &ClusterFile,
    shared: &Shared,
    nodes: usize,
    keys: u64,
) -> Result<usize> {
    let mut objects = 0;
    for node in 0..nodes {
        let client = cluster.s3(node)?;
        let mut there = BTreeSet::new();
        for key in (0..keys).map(|key| format!("key-{key:03}")) {
            ensure!(shared.read(&client, &key, None).await, "{key} cannot be read through n{}", node + 1);
            if client.get(BUCKET, &key).await.is_ok() {
                there.insert(key);
            }
        }
        let listed: BTreeSet<String> =
            client.list_all(BUCKET, "key-").await?.into_iter().map(|(key, _)| key).collect();
        ensure!(listed == there, "n{} lists {listed:?}; there are {there:?}", node + 1);
        objects = there.len();
    }
    Ok(objects)
}
