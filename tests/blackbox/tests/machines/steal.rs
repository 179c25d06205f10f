//! What a thief of system disks has: a share only with the TPM that it is sealed to, the root only with as many of
//! both as the threshold.
//!
//! The disks are those of the cluster itself, which is off by now: a stolen disk and its copy are the same bytes.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use holdfast_blackbox::{admin, cluster_file::ClusterFile};
use serde_json::Value;
use tokio::time::sleep;

use crate::{Machines, NODES, REJOIN_LIMIT, read_all};

/// A node that is to stay locked is watched for so long: some rounds of asking its peers.
const STAYS_LOCKED: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(300);

/// Boots stolen machines, alone on a network of their own.
///
/// # Errors
/// When a lock opens that is to stay closed, or the other way round.
pub async fn stolen_machines_open_with_their_tpms_and_as_many_as_the_threshold(
    machines: &Machines,
    cluster: &ClusterFile,
    written: &BTreeMap<String, Vec<u8>>,
) -> Result<()> {
    for node in NODES {
        machines.xtask(&["vm", node, "kill"])?;
    }

    // Disks of the threshold, in machines with other TPMs.
    for node in &NODES[..2] {
        fs::rename(tpm(machines, node), kept(machines, node))?;
        machines.xtask(&["vm", node, "start"])?;
    }
    for (number, node) in NODES[..2].iter().enumerate() {
        let lock = locked_as(cluster, number, "is another one than the one it was sealed to").await?;
        println!("{node} with another TPM: {}", lock["detail"]);
    }
    stay_locked(cluster, &[0, 1]).await?;
    let refused = cluster.s3(0)?.get(crate::BUCKET, "before/0").await;
    ensure!(format!("{refused:?}").contains("503"), "a locked node serves an object: {refused:?}");

    // Disk and TPM of one node of two.
    for node in &NODES[..2] {
        machines.xtask(&["vm", node, "kill"])?;
        fs::remove_dir_all(tpm(machines, node))?;
        fs::rename(kept(machines, node), tpm(machines, node))?;
    }
    machines.xtask(&["vm", NODES[0], "start"])?;
    let lock = locked_as(cluster, 0, "Has 1 of 2 shares").await?;
    println!("{} alone: {}", NODES[0], lock["detail"]);
    stay_locked(cluster, &[0]).await?;

    // Disks and TPMs of the threshold.
    machines.xtask(&["vm", NODES[1], "start"])?;
    for node in &cluster.nodes[..2] {
        cluster.wait_ready(node, REJOIN_LIMIT, &mut || Ok(())).await?;
    }
    read_all(&cluster.s3(1)?, written).await?;
    println!("{} and {} together: open", NODES[0], NODES[1]);
    Ok(())
}

fn tpm(machines: &Machines, node: &str) -> PathBuf {
    machines.dir.join(node).join("tpm")
}

fn kept(machines: &Machines, node: &str) -> PathBuf {
    machines.dir.join(node).join("tpm-kept")
}

async fn lock(cluster: &ClusterFile, node: usize) -> Result<Value> {
    admin::open_get(&cluster.nodes[node].admin, cluster.trust()?, "/api/v1/lock").await
}

/// Waits until a node says that it is locked, and why.
async fn locked_as(cluster: &ClusterFile, node: usize, why: &str) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let last = match lock(cluster, node).await {
            Ok(lock) => {
                ensure!(lock["state"] == "locked", "it opened: {lock}");
                if lock["detail"].as_str().is_some_and(|detail| detail.contains(why)) {
                    return Ok(lock);
                }
                lock.to_string()
            }
            Err(error) => format!("{error:#}"),
        };
        if begun.elapsed() > REJOIN_LIMIT {
            bail!("{} does not say {why:?}: {last}", NODES[node]);
        }
        sleep(POLL).await;
    }
}

async fn stay_locked(cluster: &ClusterFile, nodes: &[usize]) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < STAYS_LOCKED {
        for &node in nodes {
            let lock = lock(cluster, node).await.context("a locked node answers")?;
            ensure!(lock["state"] == "locked", "it opened: {lock}");
        }
        sleep(POLL).await;
    }
    Ok(())
}
