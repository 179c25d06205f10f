//! Many at once: memory is bounded, and nobody waits for ever.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{future::try_join_all, stream};
use holdfast_blackbox::{
    dev::{DevCluster, DevSpec},
    http_client::Answer,
    metrics::Samples,
    s3::{Call, Client, first},
    tree::noise,
};
use holdfast_model::ByteCount;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::time::sleep;

use crate::support::{BUCKET, cluster};

const SIZE: usize = 24 << 20;
const READERS: usize = 36;

/// Together they want ten times the memory that the nodes have for reading, and every node reads from
/// the others.
#[tokio::test(flavor = "multi_thread")]
async fn more_large_reads_than_memory_holds_all_finish() -> Result<()> {
    let cluster = cluster("load", 3, 4).await?;
    let nodes = [cluster.s3(0)?, cluster.s3(1)?, cluster.s3(2)?];
    let body = noise(1, SIZE);
    nodes[0].put(BUCKET, "large", body.clone()).await?;
    let reads = (0..READERS).map(|reader| nodes[reader % nodes.len()].get(BUCKET, "large"));
    for found in try_join_all(reads).await? {
        assert!(found == body, "other bytes");
    }
    Ok(())
}

/// Bytes of what is copied: their stripes are of all lengths, and so are the buffers they are read into.
const SOURCES: [usize; 6] = [250_000, 900_000, 3 << 20, 5_000_000, 12 << 20, SIZE];
const COPIERS: usize = 12;

/// Times that a node dies under them.
const DEATHS: usize = 4;

/// Copies hold what they read while they write. When drives fail under them what they have written has to be taken back,
/// by reading it, while what they copy has to be rebuilt as well: all that in memory for some twenty shards.
#[tokio::test(flavor = "multi_thread")]
async fn copies_go_on_when_drives_fail_under_them() -> Result<()> {
    let mut spec = DevSpec::for_test("copies", 3, 4)?;
    // What is written over goes half a minute later.
    (spec.drive_size, spec.reserved) = (ByteCount::mib(4096), false);
    let mut cluster = DevCluster::create(&spec, &|_| {}).await?;
    cluster.s3(0)?.create_bucket(BUCKET).await?;
    let nodes = [cluster.s3(0)?, cluster.s3(1)?];
    for (source, size) in SOURCES.iter().enumerate() {
        nodes[0].put(BUCKET, &format!("source-{source}"), noise(source as u64, *size)).await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let copiers = (0..COPIERS).map(|copier| {
        let (client, stop) = (nodes[copier % nodes.len()].clone(), Arc::clone(&stop));
        tokio::spawn(async move { copy_until(&client, copier, &stop).await })
    });
    let copiers: Vec<_> = copiers.collect();
    for _ in 0..DEATHS {
        sleep(Duration::from_secs(2)).await;
        cluster.kill("n3")?;
        sleep(Duration::from_secs(2)).await;
        cluster.start("n3").await?;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut copied, mut refused) = (0, 0);
    for copier in copiers {
        let (done, not) = copier.await??;
        copied += done;
        refused += not;
    }
    println!("{copied} copies, {refused} refused");
    assert!(copied > refused, "{copied} copies, {refused} refused");
    cluster.wait_whole(0).await
}

/// Copies one source after the other and reads what it made. How many were made, and how many refused.
async fn copy_until(client: &Client, copier: usize, stop: &AtomicBool) -> Result<(usize, usize)> {
    let (mut copied, mut refused) = (0, 0);
    for round in copier.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (source, key) = (round % SOURCES.len(), format!("copy-{copier}"));
        let call = Call::new(Method::PUT, BUCKET, &key)
            .header("x-amz-copy-source", format!("/{BUCKET}/source-{source}"));
        let answer = client.send(call, Bytes::new()).await?;
        if !answer.text().contains("<CopyObjectResult") {
            is_refusal(&answer)?;
            refused += 1;
            continue;
        }
        copied += 1;
        let answer = client.send(Call::new(Method::GET, BUCKET, &key), Bytes::new()).await?;
        if !answer.status.is_success() {
            is_refusal(&answer)?;
            continue;
        }
        let wanted = noise(source as u64, SOURCES[source]);
        ensure!(answer.body == wanted, "{key}: other bytes than source {source}");
    }
    Ok((copied, refused))
}

/// What may be while another node leads what the dead one led. A copy that takes long has its status before it is done.
fn is_refusal(answer: &Answer) -> Result<()> {
    let code = first(&answer.text(), "Code");
    ensure!(code.as_deref() == Some("ServiceUnavailable"), "{}: {}", answer.status, answer.text());
    Ok(())
}

const PIECE: usize = 1 << 20;
const PIECES: usize = 300;
const WRITERS: usize = 4;
const RESIDENT: &str = "holdfast_process_resident_memory_bytes";
/// Buffers (64 MiB in tests) and everything else a node needs under load; far below the bytes that pass.
const RESIDENT_MAX: f64 = 320e6;

/// 1.2 GB pass through one node; if it kept bodies, it would show.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_stream_through_bounded_memory() -> Result<()> {
    let cluster = cluster("memory", 1, 6).await?;
    let client = cluster.s3(0)?;
    let (metrics, trust) = (cluster.file().node_at(0)?.metrics.clone(), cluster.file().trust()?);
    let writing = Arc::new(AtomicBool::new(true));
    let watch = {
        let writing = Arc::clone(&writing);
        tokio::spawn(async move {
            let mut highest = 0.0_f64;
            while writing.load(Ordering::Relaxed) {
                let samples = Samples::fetch(&metrics, trust.clone()).await?;
                highest = highest.max(samples.sum(RESIDENT).context(RESIDENT)?);
                sleep(Duration::from_millis(100)).await;
            }
            anyhow::Ok(highest)
        })
    };
    try_join_all((0..WRITERS).map(|writer| put_streaming(&client, writer))).await?;
    writing.store(false, Ordering::Relaxed);
    let highest = watch.await??;
    println!(
        "{:.0} MB resident at most while {} MB passed",
        highest / 1e6,
        WRITERS * PIECES * PIECE / 1_000_000
    );
    assert!(highest > 0.0 && highest < RESIDENT_MAX, "{highest} bytes resident");

    let piece = noise(3, PIECE);
    let tail = Call::new(Method::GET, BUCKET, "streamed-3").header("range", format!("bytes=-{PIECE}"));
    assert!(client.expect(tail, Bytes::new()).await?.body == piece, "the last piece as it was sent");
    Ok(())
}

async fn put_streaming(client: &Client, writer: usize) -> Result<()> {
    let piece = Bytes::from(noise(writer as u64, PIECE));
    let pieces = stream::iter((0..PIECES).map(move |_| Ok::<_, io::Error>(Frame::data(piece.clone()))));
    let call = Call::new(Method::PUT, BUCKET, &format!("streamed-{writer}"))
        .header("content-length", PIECES * PIECE);
    let answer = client.https().send(client.request(call, BodyExt::boxed(StreamBody::new(pieces)))?).await?;
    anyhow::ensure!(answer.status.is_success(), "{} {}", answer.status, answer.text());
    Ok(())
}
