//! Running the engine: as many tasks as are to be in flight, each with one request after another.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;
use holdfast_drive::{Drive, DriveOptions, FormatParams, Latency, ShardWrite, format};
use holdfast_model::{
    ByteCount, ClusterId, DriveId, Generation, NodeId, ShardId, ShardIndex, StripeId, TenantId,
};
use holdfast_ring::BufferPool;
use nix::sys::resource::{UsageWho, getrusage};
use tokio::task::JoinSet;

use crate::table::{Measured, Row};

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const GENERATION: Generation = Generation::new(1);
const BUFFERS: ByteCount = ByteCount::mib(64);
static OPENED: AtomicU64 = AtomicU64::new(1);
/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(120);

/// A fresh drive on the file.
pub struct Engine {
    drive: Drive,
    pool: BufferPool,
    written: AtomicU64,
}

impl Engine {
    /// Formats the blank file at `path` and opens it.
    ///
    /// # Errors
    /// When it is not blank, or cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        // Another id each time: what an earlier drive left on the file is not this one's.
        let mut id = [9; 16];
        id[..8].copy_from_slice(&OPENED.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let drive = DriveId::from_bytes(id);
        format(path, &FormatParams { cluster: CLUSTER, drive, node: NodeId::new(1) })?;
        let pool = BufferPool::new(BUFFERS)?;
        let (drive, _) = Drive::open(path, CLUSTER, DriveOptions::new(pool.clone()))?;
        Ok(Self { drive, pool, written: AtomicU64::new(0) })
    }

    /// Measures one row. Reads are of what the row before wrote.
    ///
    /// # Errors
    /// The first request that fails.
    pub async fn run(&self, row: &Row, operations: u64) -> Result<Measured> {
        if row.write {
            self.written.store(operations, Ordering::Relaxed);
        }
        let written = self.written.load(Ordering::Relaxed).max(1);
        let (before, cpu, began) = (self.drive.status().counters, cpu_time()?, Instant::now());
        let mut tasks = JoinSet::new();
        for task in 0..row.depth {
            let (drive, pool, row) = (self.drive.clone(), self.pool.clone(), *row);
            tasks.spawn(async move {
                for n in (task as u64..operations).step_by(row.depth) {
                    if row.write {
                        let payload = pool.acquire(row.size).await;
                        let (tenant, manifest) = (TenantId::from_bytes([1; 16]), Vec::new());
                        let (id, generation, data, parity) = (shard(n), GENERATION, 4, 2);
                        drive
                            .put(ShardWrite { id, generation, tenant, data, parity, manifest, payload })
                            .await?;
                    } else {
                        // Spread over the drive.
                        let id = shard(n.wrapping_mul(0x9E37_79B9) % written);
                        drive.get(id, GENERATION, 0..row.size as u32, DEADLINE).await?;
                    }
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        let (took, cpu) = (began.elapsed(), cpu_time()?.saturating_sub(cpu));
        let after = self.drive.status().counters;
        let flushes = after.flushes - before.flushes;
        let moved = if row.write {
            mean_micros(before.write_latency, after.write_latency)
        } else {
            mean_micros(before.read_latency, after.read_latency)
        };
        let flush_micros = mean_micros(before.flush_latency, after.flush_latency);
        Ok(Measured { operations, took, cpu, flushes, write_micros: moved, flush_micros })
    }

    /// Closes the drive.
    pub async fn close(self) {
        self.drive.close().await;
    }
}

fn mean_micros(before: Latency, after: Latency) -> f64 {
    let (total, count) = (after.total_micros - before.total_micros, after.count - before.count);
    total as f64 / count.max(1) as f64
}

fn shard(n: u64) -> ShardId {
    let mut stripe = [0; 16];
    stripe[..8].copy_from_slice(&n.to_be_bytes());
    ShardId { stripe: StripeId::from_bytes(stripe), index: ShardIndex::new(0) }
}

/// User and system time of this process, the drive's thread and the callers' tasks together.
fn cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = [usage.user_time(), usage.system_time()].map(|t| t.tv_sec() * 1_000_000 + t.tv_usec());
    Ok(Duration::from_micros(u64::try_from(micros.iter().sum::<i64>())?))
}
