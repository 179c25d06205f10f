//! Drives that lie and drives that are gone.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use holdfast_blackbox::{dev::DevCluster, s3::Client, tree::noise};
use holdfast_drive::inspect::{inspect, inspect_each};
use holdfast_model::TenantId;
use tokio::time::sleep;

use crate::support::{BUCKET, cluster};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const BLOCK: usize = 4096;
/// Left alone: labels and superblocks have tests of their own beside the drive's code.
const START: u64 = 4 << 20;

/// Owner of records of the catalog's second copy.
const CATALOG: TenantId = TenantId::from_bytes([0; TenantId::SIZE]);

/// How long a scrub of a node with little on it may take.
const SCRUB_LIMIT: Duration = Duration::from_secs(60);

fn objects() -> Vec<(String, Vec<u8>)> {
    [20_000, 200_000, 2_000_000, 9_000_000]
        .into_iter()
        .enumerate()
        .flat_map(|(seed, size)| {
            (0..6).map(move |turn| (format!("{size}/{turn}"), noise((seed * 10 + turn) as u64, size)))
        })
        .collect()
}

async fn all_intact(client: &Client, objects: &[(String, Vec<u8>)]) -> Result<()> {
    for (key, body) in objects {
        ensure!(client.get(BUCKET, key).await? == *body, "{key}: other bytes");
    }
    Ok(())
}

fn stop(cluster: &mut DevCluster) -> Result<()> {
    for name in NODES {
        cluster.kill(name)?;
    }
    Ok(())
}

async fn start(cluster: &mut DevCluster) -> Result<()> {
    for name in NODES {
        cluster.launch(name)?;
    }
    for name in NODES {
        cluster.wait_ready(name).await?;
    }
    cluster.wait_whole(0).await
}

/// Changes one byte in every written block of 4 KiB; returns how many.
fn rot(drive: &Path) -> Result<usize> {
    let file = File::options().read(true).write(true).open(drive)?;
    let length = file.metadata()?.len();
    let mut block = [0; BLOCK];
    let mut changed = 0;
    let mut offset = START;
    while offset + (START + BLOCK as u64) <= length {
        file.read_exact_at(&mut block, offset)?;
        if block.iter().any(|&byte| byte != 0) {
            block[(changed * 37) % BLOCK] ^= 0x40;
            file.write_all_at(&block, offset)?;
            changed += 1;
        }
        offset += BLOCK as u64;
    }
    file.sync_all()?;
    Ok(changed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_drive_and_a_lost_drive_cost_no_byte() -> Result<()> {
    let mut cluster = cluster("rot", 3, 4).await?;
    let client = cluster.s3(0)?;
    let objects = objects();
    for (key, body) in &objects {
        client.put(BUCKET, key, body.clone()).await?;
    }

    stop(&mut cluster)?;
    let changed = rot(&cluster.dir().join("n1/drives/d2"))?;
    println!("{changed} blocks changed");
    // Placement is drawn: about 2,000 blocks lie there, sometimes far fewer.
    ensure!(changed >= 256, "too little was written to the drive to prove anything");
    start(&mut cluster).await?;
    for node in 0..NODES.len() {
        all_intact(&cluster.s3(node)?, &objects).await?;
    }

    // The level survives two drives: now another one is gone for good.
    stop(&mut cluster)?;
    fs::remove_file(cluster.dir().join("n3/drives/d1"))?;
    start(&mut cluster).await?;
    for node in 0..NODES.len() {
        all_intact(&cluster.s3(node)?, &objects).await?;
    }
    cluster.s3(2)?.put(BUCKET, "after", "still accepts").await?;
    Ok(())
}

/// Nobody can read them, and whoever needs what they held has it elsewhere: they must not keep room on their drive.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_records_of_the_second_copy_go_when_a_scrub_finds_them() -> Result<()> {
    let mut cluster = cluster("rot-catalog", 3, 2).await?;
    let client = cluster.s3(0)?;
    for number in 0..150 {
        client.put(BUCKET, &format!("small/{number}"), noise(number, 3000)).await?;
    }
    stop(&mut cluster)?;
    let drive = cluster.dir().join("n1/drives/d1");
    let mut records = Vec::new();
    let label = inspect_each(&drive, |record| {
        records.extend((record.tenant == CATALOG).then_some((record.segment, record.sector)));
    })?
    .label;
    ensure!(records.len() > 10, "{} records of the catalog", records.len());
    let file = File::options().read(true).write(true).open(&drive)?;
    for (segment, sector) in &records {
        let mut byte = [0];
        let offset = label.layout.offset(*segment, *sector) + BLOCK as u64 + 100;
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[byte[0] ^ 4], offset)?;
    }
    file.sync_all()?;

    start(&mut cluster).await?;
    cluster.file().admin(0).await?.scrub().await?;
    let begun = Instant::now();
    let log = cluster.dir().join("n1/console.log");
    while !fs::read_to_string(&log)?.contains("do not read back deleted") {
        ensure!(begun.elapsed() < SCRUB_LIMIT, "nothing was deleted: {}", cluster.log_tail("n1"));
        sleep(Duration::from_millis(200)).await;
    }
    sleep(Duration::from_secs(1)).await;
    stop(&mut cluster)?;
    let damaged = inspect(&drive)?.live.values().filter(|shard| !shard.sound).count();
    assert_eq!(damaged, 0, "of {} damaged records", records.len());
    start(&mut cluster).await?;
    assert!(cluster.s3(1)?.get(BUCKET, "small/7").await? == noise(7, 3000));
    Ok(())
}
