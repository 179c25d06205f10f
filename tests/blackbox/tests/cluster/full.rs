//! A cluster that is full refuses what it cannot keep and does everything else.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    s3::{Call, Client},
    tree::noise,
};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use crate::support::{BUCKET, assert_refused, cluster, send};

const OBJECT_SIZE: usize = 8_000_000;
const WRITERS: usize = 4;

/// More than six drives of 512 MiB hold.
const OBJECTS_MAX: usize = 500;

/// Far longer than any of it takes; swept space comes back after half a minute.
const PATIENCE: Duration = Duration::from_secs(240);

fn key(writer: usize, number: usize) -> String {
    format!("filling/{writer}/{number:04}")
}

fn body(writer: usize, number: usize) -> Vec<u8> {
    noise((writer * OBJECTS_MAX + number) as u64, OBJECT_SIZE)
}

/// Writes until refused for good. Returns which objects were acknowledged.
async fn fill(client: Client, writer: usize) -> Result<Vec<(usize, usize)>> {
    let mut acknowledged = Vec::new();
    for number in 0..OBJECTS_MAX {
        let call = Call::new(Method::PUT, BUCKET, &key(writer, number));
        let answer = send(&client, call, body(writer, number)).await?;
        match answer.status {
            StatusCode::OK => acknowledged.push((writer, number)),
            // Drives that filled up since they last said how much room they have: "again" is the right answer then.
            StatusCode::SERVICE_UNAVAILABLE => {
                ensure!(answer.text().contains("is full"), "{}", answer.text());
                sleep(Duration::from_millis(500)).await;
            }
            _ => {
                assert_refused(&answer, 507, "InsufficientStorage");
                return Ok(acknowledged);
            }
        }
    }
    anyhow::bail!("writer {writer} was never refused")
}

/// Writes one object again and again until the answer is this one.
async fn until_answered(client: &Client, status: StatusCode) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = send(client, Call::new(Method::PUT, BUCKET, "once"), noise(1, OBJECT_SIZE)).await?;
        if answer.status == status {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{status} was not answered: {}", answer.text());
        sleep(Duration::from_millis(500)).await;
    }
}

async fn intact(client: &Client, kept: &[(usize, usize)]) -> Result<()> {
    for &(writer, number) in kept {
        let found = client.get(BUCKET, &key(writer, number)).await?;
        ensure!(found == body(writer, number), "{}: other bytes", key(writer, number));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cluster_refuses_writes_and_does_everything_else() -> Result<()> {
    let mut cluster = cluster("full", 3, 2).await?;
    let client = cluster.s3(0)?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = cluster.s3(writer % 3)?;
        writers.spawn(fill(client, writer));
    }
    let mut kept = Vec::new();
    while let Some(ended) = writers.join_next().await {
        kept.extend(ended??);
    }
    kept.sort_unstable();
    println!("{} objects of {OBJECT_SIZE} bytes, then refused", kept.len());
    ensure!(kept.len() > 50, "full after {} objects", kept.len());

    // Clients stopped before the space for one drive was gone; it is theirs when nothing is set aside.
    let admin = cluster.file().admin(0).await?;
    let capacity = admin.cluster().await?["capacity"].take();
    let bytes = |field: &str| capacity[field].as_u64().context("bytes");
    println!("{} bytes set aside, {} free", bytes("reserved_bytes")?, bytes("free_bytes")?);
    ensure!(capacity["spare_drives"] == 1 && bytes("reserved_bytes")? > 400 << 20, "{capacity}");
    // Nodes guess what others write between two reports: a little more may have been taken.
    ensure!(bytes("free_bytes")? > bytes("reserved_bytes")? / 4 * 3, "{capacity}");
    admin.post("/api/v1/cluster/spare", &json!({ "drives": 0 })).await?;
    until_answered(&client, StatusCode::OK).await?;
    admin.post("/api/v1/cluster/spare", &json!({ "drives": null })).await?;
    until_answered(&client, StatusCode::INSUFFICIENT_STORAGE).await?;

    // What was acknowledged is there, and the cluster takes orders.
    intact(&cluster.s3(1)?, &kept).await?;
    admin.create_tenant("late").await?;
    client.create_bucket("late").await?;
    ensure!(!client.list_all(BUCKET, "filling/0/").await?.is_empty(), "nothing is listed");

    // Deletes are never refused, and space comes back.
    let (gone, left): (Vec<_>, Vec<_>) = kept.iter().copied().enumerate().partition(|(at, _)| at % 3 != 0);
    for (_, (writer, number)) in gone {
        client.delete(BUCKET, &key(writer, number)).await?;
    }
    let left: Vec<(usize, usize)> = left.into_iter().map(|(_, object)| object).collect();
    let begun = Instant::now();
    loop {
        let call = Call::new(Method::PUT, BUCKET, "after");
        let answer = send(&client, call, noise(9, OBJECT_SIZE)).await?;
        if answer.status == StatusCode::OK {
            break;
        }
        assert_refused(&answer, 507, "InsufficientStorage");
        ensure!(begun.elapsed() < PATIENCE, "no space came back");
        sleep(Duration::from_millis(500)).await;
    }
    println!("accepted again after {:?}", begun.elapsed());

    // A drive that is lost now is made good.
    cluster.kill("n2")?;
    fs::remove_file(cluster.dir().join("n2/drives/d1"))?;
    cluster.start("n2").await?;
    let begun = Instant::now();
    let mut owed = false;
    loop {
        let work = admin.work().await?;
        owed |= work.debt_stripes > 0;
        ensure!(work.unreadable_stripes == 0, "{work:?}");
        if owed && work.complete && work.debt_stripes == 0 {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "the debt is not settled: {work:?}");
        sleep(Duration::from_millis(300)).await;
    }
    println!("the lost drive was made good after {:?}", begun.elapsed());
    intact(&cluster.s3(2)?, &left).await?;
    ensure!(client.get(BUCKET, "after").await? == noise(9, OBJECT_SIZE), "after: other bytes");
    Ok(())
}
