//! Small drives, and commands that change little.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    dev::{DevCluster, DevSpec},
    s3::{Call, Client},
};
use holdfast_model::ByteCount;
use http::{Method, StatusCode};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{BUCKET, send};

const DRIVE_SIZE: ByteCount = ByteCount::mib(64);
const WRITERS: usize = 8;
const KEYS_A_WRITER: usize = 16;
/// Each is a record of 8 KiB on as many drives as the level asks for: together more than all drives hold.
const WRITES_A_WRITER: usize = 2_500;
/// Within the catalog: no shard is written for it.
const OBJECT_SIZE: usize = 300;
/// Bases are written, and what they replace is deleted and reclaimed, within this.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_long_journal_of_small_commands_does_not_fill_the_drives() -> Result<()> {
    let mut spec = DevSpec::for_test("small-drives", 3, 2)?;
    spec.drive_size = DRIVE_SIZE;
    let cluster = DevCluster::create(&spec, &|_| {}).await?;
    cluster.s3(0)?.create_bucket(BUCKET).await?;
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(overwrite(cluster.s3(writer % 3)?, writer));
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    println!("{} writes in {:?}", WRITERS * WRITES_A_WRITER, begun.elapsed());

    let begun = Instant::now();
    loop {
        let (live, capacity) = usage(&cluster).await?;
        if live < capacity / 4 {
            println!("{live} of {capacity} bytes are live after {:?}", begun.elapsed());
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "{live} of {capacity} bytes stay live");
        sleep(Duration::from_secs(1)).await;
    }
    for writer in 0..WRITERS {
        for key in 0..KEYS_A_WRITER {
            let found = cluster.s3(2)?.get(BUCKET, &name(writer, key)).await?;
            ensure!(found == body(writer, last_of(key)), "{}: other bytes", name(writer, key));
        }
    }
    Ok(())
}

/// Writes objects again and again; every write is to be accepted.
async fn overwrite(client: Client, writer: usize) -> Result<()> {
    for number in 0..WRITES_A_WRITER {
        let key = name(writer, number % KEYS_A_WRITER);
        let answer = send(&client, Call::new(Method::PUT, BUCKET, &key), body(writer, number)).await?;
        ensure!(
            answer.status == StatusCode::OK,
            "write {number} of {key}: {} {}",
            answer.status,
            answer.text()
        );
    }
    Ok(())
}

fn name(writer: usize, key: usize) -> String {
    format!("small/{writer}/{key}")
}

fn body(writer: usize, number: usize) -> Vec<u8> {
    holdfast_blackbox::tree::noise((writer * WRITES_A_WRITER + number) as u64, OBJECT_SIZE)
}

/// Number of the last write of a key.
fn last_of(key: usize) -> usize {
    (0..WRITES_A_WRITER).rev().find(|number| number % KEYS_A_WRITER == key).unwrap_or(key)
}

/// Bytes in live records, and those of all drives.
async fn usage(cluster: &DevCluster) -> Result<(u64, u64)> {
    let list = cluster.file().admin(0).await?.get("/api/v1/drives").await?;
    let drives = list["drives"].as_array().context("drives")?;
    let mut live = 0;
    let mut capacity = 0;
    for row in drives {
        let drive = &row["drive"];
        live += drive["usage"]["live_bytes"].as_u64().context("live bytes")?;
        capacity += drive["capacity_bytes"].as_u64().context("a capacity")?;
    }
    Ok((live, capacity))
}
