//! Clocks of nodes that are wrong.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    clocks::{self, Stepped},
    dev::DevCluster,
    s3::{Call, Moment, first},
    tree::noise,
};
use http::{Method, StatusCode};
use tokio::time::sleep;

use crate::support::{BUCKET, cluster, send};

const NODES: usize = 3;
/// How far ahead the clock was: days, in seconds.
const AHEAD_SECONDS: u64 = 3 * 86_400;
/// How long an object is to be kept: a day, in seconds.
const RETAINED_SECONDS: u64 = 86_400;
/// An object of several stripes.
const LARGE: u64 = 24 << 20;
/// How long it may take until what is on drives is told: nodes are asked every few seconds.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
/// How long its shards may stay after it is deleted: 30 s for readers, then sweeps.
const SWEPT_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn one_clock_that_is_wrong_decides_nothing_and_is_told_of() -> Result<()> {
    let cluster = cluster("wrong-clock", u16::try_from(NODES)?, 2).await?;
    let (one, other) = (cluster.s3(0)?, cluster.s3(1)?);
    let lockable = Call::new(Method::PUT, "locked", "").header("x-amz-bucket-object-lock-enabled", "true");
    other.expect(lockable, "").await?;
    let begun = seconds()?;
    let record = Call::new(Method::PUT, "locked", "record")
        .header("x-amz-object-lock-mode", "COMPLIANCE")
        .header("x-amz-object-lock-retain-until-date", iso(begun + RETAINED_SECONDS));
    let kept = other.expect(record, "kept for a day").await?;
    let version = kept.header("x-amz-version-id").context("a version")?.to_owned();

    let process = cluster.process("n1").context("n1 runs")?;
    let mut stepped = Vec::new();
    clocks::step(process, i64::try_from(AHEAD_SECONDS)?, &mut stepped)?;
    let told = i64::try_from(AHEAD_SECONDS * 1000)?;
    wait_for_clock(&cluster, |ahead| ahead.is_some_and(|ahead| (ahead - told).abs() < 60_000)).await?;
    // Whoever goes by the same clock is heard by that node.
    let ahead = || Ok::<_, anyhow::Error>(Moment::at(seconds()? + AHEAD_SECONDS));
    let delete = Call::new(Method::DELETE, "locked", "record").query("versionId", &version).at(ahead()?);
    let refused = send(&one, delete, "").await?;
    ensure!(refused.status == StatusCode::FORBIDDEN, "{} {}", refused.status, refused.text());
    let put = Call::new(Method::PUT, BUCKET, "dated").at(ahead()?);
    let answer = send(&one, put, "dated by what most have").await?;
    ensure!(answer.status == StatusCode::OK, "{} {}", answer.status, answer.text());
    let listing = other.expect(Call::new(Method::GET, BUCKET, "").query("list-type", 2), "").await?.text();
    let modified = first(&listing, "LastModified").context("a LastModified")?;
    // Both are of the form in which the alphabet's order is that of time.
    ensure!(modified < iso(seconds()? + 60), "{modified} is ahead");
    ensure!(other.get("locked", "record").await? == "kept for a day");

    stepped.into_iter().try_for_each(Stepped::back)?;
    wait_for_clock(&cluster, |ahead| ahead.is_none()).await
}

/// Waits until the other nodes tell of n1's clock what they should.
async fn wait_for_clock(cluster: &DevCluster, right: impl Fn(Option<i64>) -> bool) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut told = Vec::new();
        for node in 0..NODES {
            let status = cluster.file().admin(node).await?.get("/api/v1/cluster").await?;
            let nodes = status["nodes"].as_array().context("nodes")?;
            told.push(nodes.iter().map(|node| node["clock_ahead_ms"].as_i64()).collect::<Vec<_>>());
        }
        if told.iter().all(|of| right(of[0]) && of[1..].iter().all(Option::is_none)) {
            return Ok(());
        }
        ensure!(begun.elapsed() < SHOWN_WITHIN, "after {SHOWN_WITHIN:?} the nodes tell {told:?}");
        sleep(Duration::from_millis(500)).await;
    }
}

fn seconds() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// A time as documents have it, from the form in which signatures have it: 20260102T030405Z.
fn iso(seconds: u64) -> String {
    let at = Moment::at(seconds);
    let text = at.as_str();
    let (day, time) = (&text[..8], &text[9..]);
    format!("{}-{}-{}T{}:{}:{}Z", &day[..4], &day[4..6], &day[6..], &time[..2], &time[2..4], &time[4..6])
}

#[tokio::test(flavor = "multi_thread")]
async fn most_clocks_that_were_ahead_stop_no_writes_and_keep_no_garbage() -> Result<()> {
    let cluster = cluster("clocks", u16::try_from(NODES)?, 4).await?;
    let mut stepped = Vec::new();
    for node in ["n1", "n2"] {
        let process = cluster.process(node).context("it runs")?;
        clocks::step(process, i64::try_from(AHEAD_SECONDS)?, &mut stepped)?;
    }
    // Nobody says when it is noticed that most have another time; from then on what is done is dated days ahead.
    let begun = Instant::now();
    loop {
        let call = Call::new(Method::PUT, BUCKET, "ahead").at(Moment::at(seconds()? + AHEAD_SECONDS));
        let answer = send(&cluster.s3(0)?, call, "dated by wrong clocks").await?;
        ensure!(answer.status == StatusCode::OK, "{} {}", answer.status, answer.text());
        let list = Call::new(Method::GET, BUCKET, "").query("list-type", 2);
        let listing = cluster.s3(2)?.expect(list, "").await?.text();
        if first(&listing, "LastModified").context("a LastModified")? > iso(seconds()? + AHEAD_SECONDS / 2) {
            break;
        }
        ensure!(
            begun.elapsed() < SHOWN_WITHIN,
            "two of three clocks are ahead, and nothing is dated by them"
        );
        sleep(Duration::from_millis(500)).await;
    }
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
    let listed = async || cluster.file().admin(0).await?.get("/api/v1/drives").await;
    // A session begun while clocks were ahead is over when its node goes by the right time again, between two requests
    // perhaps. Then a new one is begun.
    let list = match listed().await {
        Ok(list) => list,
        Err(error) if format!("{error:#}").contains("session-required") => listed().await?,
        Err(error) => return Err(error),
    };
    let drives = list["drives"].as_array().context("drives")?;
    Ok(drives.iter().filter_map(|row| row["drive"]["usage"]["live_bytes"].as_u64()).sum())
}
