//! The loss of one drive of a filled cluster of processes: what clients feel of the rebuild at low impact, and what
//! the rebuild does at high impact against the least that has to be done on this machine. All in one run.
//!
//! 1. Objects of 8 MiB fill the cluster, and small ones for the clients of the measurement.
//! 2. Clients read and write at a fixed pace while nothing else happens: the quiet figures.
//! 3. A drive is pulled; clients feel that by itself. From the moment its debt shrinks, the same clients are measured
//!    beside the rebuild at low impact; then they stop, and the rest is rebuilt at high impact against the clock.
//! 4. Debt is 0 and an audit that asks the drives agrees; everything reads back.
//! 5. The same number of bytes is read, decoded and written without anything around it.

#![forbid(unsafe_code)]

mod bare;
mod fill;
mod foreground;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use holdfast_blackbox::{
    admin::{Admin, Work},
    dev::{DevCluster, DevSpec},
    paths,
};
use holdfast_model::{
    ByteCount,
    config::{S3Settings, Unlock},
};
use serde_json::json;
use tokio::time::sleep;

use foreground::Foreground;

const NODES: u16 = 3;
const DRIVES: u16 = 4;

/// What `+2d:1n` stores for each byte on three nodes.
const STORED_PER_BYTE: f64 = 1.5;

/// Room beyond what is stored: the lost drive, the space set aside, the eighth of each drive that is not counted on,
/// the objects of the measurement.
const HEADROOM: f64 = 1.6;

/// Bytes of one shard of a full stripe.
const SHARD: ByteCount = ByteCount::kib(512);

const POLL: Duration = Duration::from_millis(250);

/// How long clients are measured, quiet and beside the rebuild.
const MEASURED: Duration = Duration::from_secs(60);

/// How long they are measured with the drive gone and nothing else. Below its grace.
const MEASURED_IN_GRACE: Duration = Duration::from_secs(20);

/// Nothing of it takes longer, unless it stands still.
const PATIENCE: Duration = Duration::from_secs(1200);

#[derive(Debug, Parser)]
#[command(name = "holdfast-bench-rebuild", about = "The loss of a drive of a filled cluster")]
struct Arguments {
    /// Directory for the cluster; emptied first, removed at the end
    #[arg(long)]
    dir: PathBuf,
    /// Bytes of objects, in units of 10^9
    #[arg(long, default_value_t = 20)]
    gigabytes: u32,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let bytes = u64::from(arguments.gigabytes) * 1_000_000_000;
    let mut cluster = DevCluster::create(&spec(&arguments, bytes), &|what| println!("  {what}")).await?;
    let clients = (0..usize::from(NODES)).map(|node| cluster.s3(node)).collect::<Result<Vec<_>>>()?;
    let admin = cluster.file().admin(0).await?;

    let begun = Instant::now();
    let filled = fill::fill(&clients, bytes).await?;
    println!("filled with {filled} objects of 8 MiB: {:.0} MB/s", rate(bytes, begun.elapsed()));

    let load = Foreground::new(clients.clone());
    load.prepare().await?;
    admin.set_worker("rebuild", &json!({ "impact": "low" })).await?;
    let quiet = load.run(async { sleep(MEASURED).await }).await?;
    println!("clients, quiet:           {quiet}");
    println!("the slowest of them:      {}", quiet.slowest());

    let from = cluster.dir().join("n2/drives/d1");
    fs::rename(&from, cluster.dir().join("n2/drives/.pulled")).context("pulling a drive")?;
    let lost = until(&admin, "debt to appear", |work| work.debt_stripes > 0).await?.debt_stripes;
    let degraded = load.run(async { sleep(MEASURED_IN_GRACE).await }).await?;
    println!("clients, a drive gone:    {degraded}");
    // It grows while leaders count, and shrinks when the grace is over.
    let mut most = lost;
    until(&admin, "the rebuild to begin", |work| {
        let shrinks = work.debt_stripes < most;
        most = most.max(work.debt_stripes);
        shrinks
    })
    .await?;
    let (begun, before) = (Instant::now(), admin.work().await?.debt_stripes);
    // Most of it is left for the clock.
    let quarter = until(&admin, "a quarter of it to be rebuilt", |work| {
        work.debt_stripes <= before / 4 * 3 || begun.elapsed() >= MEASURED
    });
    let mut after = Ok(Work::default());
    let beside = load.run(async { after = quarter.await }).await?;
    let (took, after) = (begun.elapsed(), after?.debt_stripes);
    println!("clients, beside rebuild:  {beside}");
    println!("the slowest of them:      {}", beside.slowest());
    let slow = beside.p99().as_secs_f64() / quiet.p99().as_secs_f64();
    println!("p99 is {slow:.2} of the quiet one (wanted: below 2)");
    println!("rebuild at low impact:    {:.0} MB/s", rate(shards(before - after), took));

    admin.set_worker("rebuild", &json!({ "impact": "high" })).await?;
    // Nodes say once a second what is left: the rate is that between the first and the last of their words.
    let mut words = Vec::new();
    until(&admin, "the rebuild to end", |work| {
        if words.last().is_none_or(|(_, left)| *left != work.debt_stripes) {
            words.push((Instant::now(), work.debt_stripes));
        }
        work.debt_stripes == 0
    })
    .await?;
    let rebuilt = between(&words)?;
    println!("rebuild at high impact:   {rebuilt:.0} MB/s; {} shards of {most}", words[0].1);

    let audit = admin.audit().await?;
    ensure!(audit["debt_stripes"] == 0 && audit["lost_count"] == 0, "the audit does not agree: {audit}");
    println!("audit:                    {audit}");
    let begun = Instant::now();
    fill::verify(&clients, filled).await?;
    println!("everything read back:     {:.0} MB/s, all the same", rate(bytes, begun.elapsed()));

    let drives = cluster.dir().join("n1/drives");
    let bare = bare::measure(&drives, words[0].1)?;
    println!(
        "bare copy plus decode:    {bare:.0} MB/s; the rebuild is {:.0} % (wanted 80 %)",
        100.0 * rebuilt / bare
    );
    cluster.stop()?;
    drop(cluster);
    fs::remove_dir_all(&arguments.dir).context("removing the cluster")
}

fn spec(arguments: &Arguments, bytes: u64) -> DevSpec {
    let stored = bytes as f64 * STORED_PER_BYTE * HEADROOM / f64::from(NODES * DRIVES);
    DevSpec {
        dir: arguments.dir.clone(),
        noded: paths::noded(),
        nodes: NODES,
        drives: DRIVES,
        drive_size: ByteCount::mib((stored as u64 >> 20).max(512)),
        reserved: true,
        watched: true,
        buffer_memory: ByteCount::mib(256),
        level: None,
        cluster_name: "bench".into(),
        advertise: Vec::new(),
        s3: S3Settings::default(),
        unlock: Unlock::default(),
        feature_level_max: None,
        known_ports: false,
    }
}

/// Waits until the workers of all nodes say so.
async fn until(admin: &Admin, what: &str, mut reached: impl FnMut(&Work) -> bool) -> Result<Work> {
    let begun = Instant::now();
    loop {
        let work = admin.work().await?;
        if work.complete && reached(&work) {
            return Ok(work);
        }
        ensure!(begun.elapsed() < PATIENCE, "gave up waiting for {what}: {work:?}");
        sleep(POLL).await;
    }
}

/// MB/s from the second word, the first at this pace, to the last before there was nothing left.
fn between(words: &[(Instant, u64)]) -> Result<f64> {
    let [_, (begun, at_first), .., (ended, at_last), _] = words else {
        bail!("it ended before its rate could be seen: use more gigabytes");
    };
    Ok(rate(shards(at_first - at_last), *ended - *begun))
}

/// Bytes of so many full shards.
fn shards(count: u64) -> u64 {
    count * SHARD.get()
}

/// MB/s.
fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64() / 1e6
}
