//! One node's clock that was wrong for a moment.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    clocks::{self, Stepped},
    dev::DevCluster,
    metrics::Samples,
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
const LARGE: usize = 24 << 20;
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

    let before = used(&cluster).await?;
    let client = cluster.s3(1)?;
    client.put(BUCKET, "large", noise(1, LARGE)).await?;
    ensure!(used(&cluster).await? > before + LARGE as f64, "shards are on drives");
    client.delete(BUCKET, "large").await?;
    let begun = Instant::now();
    while used(&cluster).await? > before + LARGE as f64 / 4.0 {
        ensure!(begun.elapsed() < SWEPT_WITHIN, "still there after {SWEPT_WITHIN:?}");
        sleep(Duration::from_millis(500)).await;
    }
    println!("swept {:.0} s after the delete", begun.elapsed().as_secs_f64());
    Ok(())
}

/// What all drives hold, in bytes.
async fn used(cluster: &DevCluster) -> Result<f64> {
    let mut sum = 0.0;
    for node in 0..NODES {
        let file = cluster.file();
        let samples = Samples::fetch(&file.node_at(node)?.metrics, file.trust()?).await?;
        sum += samples.sum("holdfast_drive_used_bytes").context("holdfast_drive_used_bytes")?;
    }
    Ok(sum)
}
