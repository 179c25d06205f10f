//! What protection costs: encoding and decoding against the bare crate, reads with drives missing against whole
//! ones, and a rebuild against the least that it has to do. Everything within one run, on this machine.
//!
//! Drives are files in one directory, opened as a node opens them; all of them belong to this process.

#![forbid(unsafe_code)]

mod code;
mod drives;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;

use drives::Drives;

/// Stripes of the reads and of the rebuild.
const STRIPES: usize = 96;

/// Rounds of each measurement; the median is shown.
const ROUNDS: usize = 5;

#[derive(Debug, Parser)]
#[command(name = "holdfast-bench-protection", about = "What protection costs on this machine")]
struct Arguments {
    /// Directory for drive files; a part of it is made and removed
    #[arg(long)]
    dir: PathBuf,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    code::measure()?;
    std::fs::create_dir_all(&arguments.dir)?;
    let scratch = tempfile::tempdir_in(&arguments.dir)
        .with_context(|| format!("a directory for drives in {}", arguments.dir.display()))?;
    let drives = Drives::create(scratch.path(), 3, 4)?;
    let stripes = drives.fill(STRIPES).await?;
    let bytes = stripes.iter().map(|stripe| stripe.len as u64).sum::<u64>();

    let (mut healthy, mut degraded) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        healthy.push(drives.read_all(&stripes, 0).await?);
        degraded.push(drives.read_all(&stripes, 2).await?);
    }
    let (healthy, degraded) = (median(healthy), median(degraded));
    println!(
        "read, all drives            {:>7.0} MB/s\nread, two drives missing    {:>7.0} MB/s  {:>4.0} % of it (wanted 60 %)",
        rate(bytes, healthy),
        rate(bytes, degraded),
        100.0 * healthy.as_secs_f64() / degraded.as_secs_f64()
    );

    let (mut bare, mut rebuild, mut moved) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        let (took, bytes) = drives.bare_rebuild(&stripes, round as u32).await?;
        bare.push(took);
        moved = bytes;
        rebuild.push(drives.rebuild(&stripes, round as u32).await?);
    }
    let (bare, rebuild) = (median(bare), median(rebuild));
    println!(
        "read, decode and write a lost drive's shards   {:>6.0} MB/s\nrebuild of the same: that, read back, compared {:>6.0} MB/s  {:>4.0} % of it (wanted 80 %)",
        rate(moved, bare),
        rate(moved, rebuild),
        100.0 * bare.as_secs_f64() / rebuild.as_secs_f64()
    );
    drives.close().await;
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64() / 1e6
}

/// How long `work` takes.
pub(crate) async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<(Duration, T)> {
    let begun = Instant::now();
    let value = work.await?;
    Ok((begun.elapsed(), value))
}
