//! Carries out what the deck deals, and undoes it: what is the same whatever the nodes run on.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    cluster_file::ClusterFile,
    s3::{Call, Client},
    tree::noise,
};
use holdfast_fault::Random;
use http::{Method, StatusCode};
use tokio::time::{sleep, timeout};

use crate::deck::{Event, Kind};

/// The bucket that drives are filled through.
pub const FILLER_BUCKET: &str = "filler";

/// Size of one object that fills, in bytes.
const FILLER_SIZE: usize = 8 << 20;

/// Objects being written at once while filling.
const FILLERS: usize = 4;

/// How long filling may take.
const FILL_LIMIT: Duration = Duration::from_secs(90);

/// How long one object that fills may take.
const FILLER_LIMIT: Duration = Duration::from_secs(30);

/// How far clocks step, in seconds: beyond what signatures allow, beyond certificates and sweeps.
const STEPS: [i64; 4] = [20 * 60, 3 * 86_400, -20 * 60, -3 * 86_400];

/// Between two nodes that change to the other version: clients meet both.
pub const MIXED: Duration = Duration::from_secs(3);

/// How late what is said on slow links comes at most, in milliseconds.
const LATE_MAX_MILLIS: u64 = 120;

/// What a cluster is to be.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Where it goes.
    pub dir: PathBuf,
    /// Nodes.
    pub nodes: usize,
    /// Drives on each.
    pub drives: u16,
    /// Size of each drive in MiB.
    pub drive_mib: u64,
    /// Decides what faults leave to chance.
    pub seed: u64,
    /// Another version of the node program.
    pub other: Option<PathBuf>,
}

/// A hand on one cluster.
pub trait Hand {
    /// How many times as long as processes take its nodes may take for anything.
    const PATIENCE: u32;

    /// Whether the state directories of its stopped nodes can be read from outside.
    const STATE_IS_READABLE: bool;

    /// What it can do.
    fn kinds() -> &'static [Kind];

    /// How clients reach the cluster.
    fn file(&self) -> &ClusterFile;

    /// Waits until every node is up and votes.
    ///
    /// # Errors
    /// When that takes too long.
    async fn wait_whole(&self) -> Result<()>;

    /// Does it, waits as long as it lasts, undoes it. Returns a word on what came of it.
    ///
    /// # Errors
    /// When the cluster does not do what it must: a node that does not come back, a full cluster that does
    /// not read or delete.
    async fn carry_out(&mut self, event: &Event) -> Result<String>;

    /// Everything that lasts is ended: whatever stands still goes on, nothing is held, every node runs.
    ///
    /// # Errors
    /// When a node does not come back.
    async fn heal(&mut self) -> Result<()>;

    /// What happened on the way that is nobody's promise, and yet is to be told.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Stops every node, gently. Afterwards what each drive holds is where [`drive_file`] says.
    ///
    /// # Errors
    /// When one does not stop.
    async fn stop_all(&mut self) -> Result<()>;
}

/// The name of a node, from 0.
#[must_use]
pub fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

/// How late things come on slow links.
#[must_use]
pub fn late(event: &Event) -> Duration {
    Duration::from_millis(1 + Random::new(event.seed).below(LATE_MAX_MILLIS))
}

/// How far a clock steps, in seconds.
#[must_use]
pub fn clock_step(event: &Event) -> i64 {
    STEPS[Random::new(event.seed).below(STEPS.len() as u64) as usize]
}

/// All nodes, the event's first.
pub fn in_turn(event: &Event, nodes: usize) -> impl Iterator<Item = usize> + use<> {
    let first = event.node;
    (0..nodes).map(move |number| (first + number) % nodes)
}

/// The file of a drive: node from 0, drive from 1.
#[must_use]
pub fn drive_file(dir: &Path, node: usize, drive: u16) -> PathBuf {
    dir.join(name(node)).join("drives").join(format!("d{drive}"))
}

/// Writes until it is refused for want of room; then reading and deleting must still work. All may take `patience` times as
/// long as processes take.
pub async fn fill(client: &Client, patience: u32) -> Result<String> {
    let begun = Instant::now();
    let limit = FILL_LIMIT * patience;
    let mut written = 0;
    let mut refused = None;
    while refused.is_none() && begun.elapsed() < limit {
        let writes = (0..FILLERS).map(|n| {
            let client = client.clone();
            tokio::spawn(async move { fill_one(&client, written + n, FILLER_LIMIT * patience).await })
        });
        for write in writes.collect::<Vec<_>>() {
            match write.await? {
                Ok(None) => written += 1,
                Ok(Some(answer)) => refused = Some(answer),
                // Other faults are not at work now, but the clients are: a busy node may be late.
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }
    let outcome = match &refused {
        Some(answer) => format!("{written} x {} MiB, then {answer}", FILLER_SIZE >> 20),
        None => format!("{written} x {} MiB in {limit:?} and never full", FILLER_SIZE >> 20),
    };
    let left = patiently(limit, || client.list_all(FILLER_BUCKET, "")).await.context("listing while full")?;
    if let Some((key, size)) = left.first() {
        let body = patiently(limit, || client.get(FILLER_BUCKET, key)).await.context("reading while full")?;
        ensure!(body.len() as u64 == *size, "{key} read while full: {} of {size} bytes", body.len());
    }
    for (key, _) in left {
        patiently(limit, || client.delete(FILLER_BUCKET, &key)).await.context("deleting while full")?;
    }
    Ok(outcome)
}

/// Asks again for as long as `limit` when something fails: a busy node may be late, or end a connection that was idle.
async fn patiently<T>(limit: Duration, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(_) if begun.elapsed() < limit => sleep(Duration::from_millis(200)).await,
            outcome => return outcome,
        }
    }
}

/// `None` when it was accepted, or what it was refused with.
async fn fill_one(client: &Client, number: usize, limit: Duration) -> Result<Option<String>> {
    let call = Call::new(Method::PUT, FILLER_BUCKET, &format!("filler-{number}"));
    let body = noise(number as u64, FILLER_SIZE);
    let answer = timeout(limit, client.send(call, body)).await??;
    match answer.status {
        status if status.is_success() => Ok(None),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => {
            Ok(Some(answer.status.to_string()))
        }
        status => anyhow::bail!("{status}"),
    }
}
