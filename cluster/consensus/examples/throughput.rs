//! Commands a second through three replicas on this machine, and what they cost in flushes.
//!
//! `cargo run -p holdfast-consensus --example throughput [directory]`; the logs are real files below the
//! directory (default: the system's directory for temporary files), messages travel in memory.

#![allow(clippy::unwrap_used, reason = "a measurement that fails may say so with a backtrace")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use support::{Cluster, GROUP};

const RUN: Duration = Duration::from_secs(4);
const COMMAND_BYTES: usize = 256;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    if let Some(dir) = std::env::args().nth(1) {
        // Everything below uses `tempfile`.
        tempfile::env::override_temp_dir(std::path::Path::new(&dir))
            .map_err(|set| std::io::Error::other(format!("files go to {} already", set.display())))?;
    }
    println!("one flush alone: {:.2} ms", flush_millis()?);
    println!(
        "| in flight | in flight entries | commands/s | p50 ms | p99 ms | commands/entry | flushes/command |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for entries_in_flight in [1, 2, 4] {
        for callers in [1, 64, 512] {
            measure(callers, entries_in_flight).await;
        }
    }
    Ok(())
}

/// One 4 KiB write and flush in a preallocated file, on average.
fn flush_millis() -> std::io::Result<f64> {
    use std::os::unix::fs::FileExt;
    let mut file = tempfile::tempfile()?;
    std::io::Write::write_all(&mut file, &vec![0; 1 << 20])?;
    file.sync_all()?;
    let started = Instant::now();
    for at in 0..100 {
        file.write_all_at(&[1; 4096], at * 4096)?;
        file.sync_data()?;
    }
    Ok(started.elapsed().as_secs_f64() * 10.0)
}

async fn measure(callers: usize, entries_in_flight: usize) {
    static ENTRIES_IN_FLIGHT: AtomicU64 = AtomicU64::new(1);
    ENTRIES_IN_FLIGHT.store(entries_in_flight as u64, Ordering::Relaxed);
    let cluster = Cluster::start_tuned(3, |options| {
        options.batch.entries_in_flight = ENTRIES_IN_FLIGHT.load(Ordering::Relaxed) as usize;
    })
    .await;
    cluster.form(3).await;
    let leader = cluster.consensus(cluster.leader().await);
    let all = || (1..=3).map(|id| cluster.consensus(id).counters().flushes).sum::<u64>();
    let (before, counters) = (all(), leader.counters());
    let started = Instant::now();
    let tasks = (0..callers).map(|caller| {
        let leader = Arc::clone(&leader);
        tokio::spawn(async move {
            let command = Bytes::from(format!("put k{caller} {}", "x".repeat(COMMAND_BYTES)));
            let mut times = Vec::new();
            while started.elapsed() < RUN {
                let asked = Instant::now();
                leader.propose(GROUP, command.clone()).await.expect("nothing fails in this cluster");
                times.push(asked.elapsed());
            }
            times
        })
    });
    let mut times: Vec<Duration> =
        join_all(tasks).await.into_iter().flat_map(|ended| ended.expect("a caller panicked")).collect();
    let seconds = started.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let entries = leader.counters().proposals - counters.proposals;
    println!(
        "| {callers} | {entries_in_flight} | {:.0} | {:.1} | {:.1} | {:.1} | {:.3} |",
        times.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        times.len() as f64 / entries as f64,
        (all() - before) as f64 / times.len() as f64,
    );
    for id in 1..=3 {
        cluster.consensus(id).shutdown().await.expect("an orderly end");
    }
}
