//! One node's clock that was wrong for a moment.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    clocks::{self, Stepped},
    dev::DevCluster,
    s3::{Call, Moment},
    tree::noise,
};
use http::{Method, StatusCode};
use tokio::time::sleep;

use crate::support::{BUCKET, cluster, send};

const NODES: usize = 3;
/// How far ahead the clock was: days, in seconds.
const AHEAD_SECONDS: u64 = 3 * 86_400;
/// An object of several stripes.
const LARGE: u64 = 24 << 20;
/// How long it may take until what is on drives is told: nodes are asked every few seconds.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
/// How long its shards may stay after it is deleted: 30 s for readers, then sweeps.
const SWEPT_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_ahead_stops_no_writes_and_keeps_no_garbage() -> Result<()> {
    let cluster = cluster("clocks", u16::try_from(NODES)?, 4).await?;
    let process = cluster.process("n1").context("n1 runs")?;
    let mut stepped = Vec::new();
    clocks::step(process, i64::try_from(AHEAD_SECONDS)?, &mut stepped)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    // Whoever goes by the same clock is heard by that node, and what it does is dated days ahead.
    let call = Call::new(Method::PUT, BUCKET, "ahead").at(Moment::at(now + AHEAD_SECONDS));
    let answer = send(&cluster.s3(0)?, call, "dated by a wrong clock").await?;
    ensure!(answer.status == StatusCode::OK, "{} {}", answer.status, answer.text());
    stepped.into_iter().try_for_each(Stepped::back)?;

    for node in 0..NODES {
        for number in 0..5 {
            let call = Call::new(Method::PUT, BUCKET, &format!("after-{node}-{number}"));
            let answer = send(&cluster.s3(node)?, call, "dated by whatever").await?;
            ensure!(answer.status == StatusCode::OK, "n{}: {} {}", node + 1, answer.status, answer.text());
        }
    }

    let before = live(&cluster).await?;
    let client = cluster.s3(1)?;
    client.put(BUCKET, "large", noise(1, usize::try_from(LARGE)?)).await?;
    wait_until(&cluster, SHOWN_WITHIN, |live| live > before + LARGE).await.context("shards are on drives")?;
    client.delete(BUCKET, "large").await?;
    let took = wait_until(&cluster, SWEPT_WITHIN, |live| live < before + LARGE / 4).await.context("swept")?;
    println!("swept {:.0} s after the delete", took.as_secs_f64());
    Ok(())
}

/// Waits until what live records take is as it should be.
async fn wait_until(cluster: &DevCluster, limit: Duration, right: impl Fn(u64) -> bool) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let live = live(cluster).await?;
        if right(live) {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < limit, "{live} bytes are live after {limit:?}");
        sleep(Duration::from_millis(500)).await;
    }
}

/// What live records take on all drives, in bytes.
async fn live(cluster: &DevCluster) -> Result<u64> {
    let list = cluster.file().admin(0).await?.get("/api/v1/drives").await?;
    let drives = list["drives"].as_array().context("drives")?;
    Ok(drives.iter().filter_map(|row| row["drive"]["usage"]["live_bytes"].as_u64()).sum())
}
