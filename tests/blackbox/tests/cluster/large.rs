//! Large objects: whatever their size, they pass through a node in a bounded amount of its memory.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_blackbox::{
    dev::{DevCluster, DevSpec},
    s3::{Call, Client},
    tree::noise,
};
use holdfast_model::ByteCount;
use http::Method;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    multipart::{begin, complete, completion, part},
    support::BUCKET,
};

const NODES: u16 = 3;

/// Bytes of one part.
const PART: usize = 8 << 20;

/// The most parts of an upload, and the least bytes of each but the last.
const PARTS_MAX: usize = 10_000;
const SMALLEST_PART: usize = 5 << 20;

/// Parts on their way at once.
const AT_ONCE: usize = 4;

/// What one copy may add to the memory of a node that is in use already.
const GROWTH_MAX: ByteCount = ByteCount::mib(64);

/// Nothing here takes longer, unless it stands still.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_is_copied_in_bounded_memory() -> Result<()> {
    copied("large", 40).await
}

/// The acceptance figure: 5 GiB, the largest object that one request copies.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes 15 GiB to the machine's disk, minutes; by hand: -- --ignored"]
async fn five_gib_are_copied_in_bounded_memory() -> Result<()> {
    copied("large-5gib", (5 << 30) / PART).await
}

/// The most parts that an upload may have, each as small as it may be: 52 GB.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes 60 GB to the machine's disk, minutes; by hand: -- --ignored"]
async fn ten_thousand_parts_make_one_object() -> Result<()> {
    // As wide as stripes get: 16 shards of content, 2 of parity.
    let mut spec = DevSpec::for_test("ten-thousand", 1, 18)?;
    (spec.drive_size, spec.reserved) = (ByteCount::mib(4500), false);
    let cluster = DevCluster::create(&spec, &|_| {}).await?;
    let nodes = [cluster.s3(0)?];
    nodes[0].create_bucket(BUCKET).await?;
    let begun = Instant::now();
    upload(&nodes, "k", PARTS_MAX, SMALLEST_PART).await?;
    println!("{PARTS_MAX} parts of 5 MiB in {:.1} s, completion included", begun.elapsed().as_secs_f64());
    let head = nodes[0].expect(Call::new(Method::HEAD, BUCKET, "k"), Bytes::new()).await?;
    ensure!(head.header("content-length") == Some(&(PARTS_MAX * SMALLEST_PART).to_string()), "{head:?}");
    ensure!(head.header("etag").is_some_and(|etag| etag.ends_with("-10000\"")), "{head:?}");
    let last = PARTS_MAX as u64 - 1;
    for number in [0, 4_999, last] {
        let call = Call::new(Method::GET, BUCKET, "k").query("partNumber", number + 1);
        let answer = nodes[0].expect(call, Bytes::new()).await?;
        ensure!(answer.body == noise(number, SMALLEST_PART), "other bytes in part {number}");
    }
    let begun = Instant::now();
    nodes[0].delete(BUCKET, "k").await?;
    println!("deleted in {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

async fn copied(name: &str, parts: usize) -> Result<()> {
    let size = parts * PART;
    let mut spec = DevSpec::for_test(name, NODES, 2)?;
    // Twice, with parity, and the room that is set aside.
    spec.drive_size = ByteCount::mib(size.div_ceil(1 << 20) as u64 * 4 / u64::from(NODES * 2) + 512);
    let cluster = DevCluster::create(&spec, &|_| {}).await?;
    let nodes = (0..usize::from(NODES)).map(|node| cluster.s3(node)).collect::<Result<Vec<_>>>()?;
    nodes[0].create_bucket(BUCKET).await?;
    upload(&nodes, "source", parts, PART).await?;
    // What is allocated once and kept is not the copy's.
    verify(&nodes, "source", parts.min(64)).await?;

    let watched = Memory::watch(&cluster)?;
    let patient = nodes[0].patient(PATIENCE);
    let call =
        Call::new(Method::PUT, BUCKET, "copy").header("x-amz-copy-source", format!("/{BUCKET}/source"));
    let answer = patient.expect(call, Bytes::new()).await?;
    ensure!(answer.text().contains("<CopyObjectResult"), "{}", answer.text());
    for (node, growth) in watched.end().await? {
        println!("copy of {} MiB: {node} grew by {growth}", size >> 20);
        assert!(growth < GROWTH_MAX, "{node} grew by {growth}, {GROWTH_MAX} are allowed");
    }
    verify(&nodes, "copy", parts).await
}

async fn upload(nodes: &[Client], key: &str, parts: usize, size: usize) -> Result<()> {
    let upload = &begin(&nodes[0], key).await?;
    let done: Vec<(u32, String)> = stream::iter(0..parts)
        .map(|number| async move {
            let (part_number, client) = (u32::try_from(number)? + 1, &nodes[number % nodes.len()]);
            let etag = part(client, key, upload, part_number, noise(number as u64, size)).await?;
            anyhow::Ok((part_number, etag))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    nodes[0].patient(PATIENCE).expect(complete(key, upload), completion(&done)).await.map(drop)
}

/// Reads the first parts of an object back, through all nodes.
async fn verify(nodes: &[Client], key: &str, parts: usize) -> Result<()> {
    stream::iter(0..parts)
        .map(|number| async move {
            let (from, client) = (number * PART, &nodes[(number + 1) % nodes.len()]);
            let range = format!("bytes={from}-{}", from + PART - 1);
            let answer = client
                .expect(Call::new(Method::GET, BUCKET, key).header("range", range), Bytes::new())
                .await?;
            ensure!(answer.body == noise(number as u64, PART), "{key}: other bytes in part {number}");
            Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Watches how much memory the processes of all nodes hold.
struct Memory {
    watching: Arc<AtomicBool>,
    tasks: JoinSet<Result<(String, ByteCount)>>,
}

impl Memory {
    fn watch(cluster: &DevCluster) -> Result<Self> {
        let watching = Arc::new(AtomicBool::new(true));
        let mut tasks = JoinSet::new();
        for number in 1..=NODES {
            let (name, watching) = (format!("n{number}"), Arc::clone(&watching));
            let pid = cluster.process(&name).with_context(|| format!("{name} does not run"))?.pid;
            let before = resident(pid)?;
            tasks.spawn(async move {
                let mut most = before;
                while watching.load(Ordering::Relaxed) {
                    most = most.max(resident(pid)?);
                    sleep(Duration::from_millis(50)).await;
                }
                Ok((name, ByteCount::new(most.get() - before.get())))
            });
        }
        Ok(Self { watching, tasks })
    }

    /// By how much each grew at most.
    async fn end(self) -> Result<Vec<(String, ByteCount)>> {
        self.watching.store(false, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().collect()
    }
}

/// Resident memory of a process (`VmRSS` of proc_pid_status(5)).
fn resident(pid: i32) -> Result<ByteCount> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(ByteCount::kib(kib))
}
