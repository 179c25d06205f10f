//! Throughput of one drive on a file: large and small records, with flushes per record and CPU per operation.
//!
//! `cargo run -p holdfast-drive --example throughput -- DIRECTORY [MIB]` makes a file of MIB (4096) there,
//! writes it once so that its extents exist, formats it, measures, and removes it. With `fio` installed, the
//! same file is measured with it before, at the same block size and depth.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers")]

use std::{
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use holdfast_drive::*;
use holdfast_model::{
    ByteCount, ClusterId, DriveId, Generation, NodeId, ShardId, ShardIndex, StripeId, TenantId,
};
use holdfast_ring::BufferPool;

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

fn shard(n: u64) -> ShardId {
    let mut stripe = [0; 16];
    stripe[..8].copy_from_slice(&n.to_be_bytes());
    ShardId { stripe: StripeId::from_bytes(stripe), index: ShardIndex::new(0) }
}

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

struct Measured {
    name: &'static str,
    operations: u64,
    bytes: u64,
    took: Duration,
    cpu: f64,
    flushes: u64,
}

impl Measured {
    fn print(&self) {
        let seconds = self.took.as_secs_f64();
        println!(
            "{:<28} {:>9.0} ops/s {:>8.0} MB/s {:>7.1} us CPU/op  {:>6.1} records/flush",
            self.name,
            self.operations as f64 / seconds,
            self.bytes as f64 / seconds / 1e6,
            self.cpu * 1e6 / self.operations as f64,
            self.operations as f64 / self.flushes.max(1) as f64,
        );
    }
}

async fn puts(
    drive: &Drive,
    pool: &BufferPool,
    name: &'static str,
    first: u64,
    count: u64,
    size: usize,
    depth: u64,
) {
    let (cpu, began, before) = (cpu_seconds(), Instant::now(), drive.status().counters);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..depth {
        let (drive, pool) = (drive.clone(), pool.clone());
        tasks.spawn(async move {
            for n in (task..count).step_by(depth as usize) {
                let payload = pool.acquire(size).await;
                let write = ShardWrite {
                    id: shard(first + n),
                    generation: Generation::new(1),
                    tenant: TenantId::from_bytes([1; 16]),
                    data: 4,
                    parity: 2,
                    manifest: Vec::new(),
                    payload,
                };
                drive.put(write).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let flushes = drive.status().counters.flushes - before.flushes;
    let (took, cpu) = (began.elapsed(), cpu_seconds() - cpu);
    Measured { name, operations: count, bytes: count * size as u64, took, cpu, flushes }.print();
    let c = drive.status().counters;
    let mean = |l: Latency, b: Latency| (l.total_micros - b.total_micros) / (l.count - b.count).max(1);
    println!(
        "    write mean {} us, flush mean {} us (max {})",
        mean(c.write_latency, before.write_latency),
        mean(c.flush_latency, before.flush_latency),
        c.flush_latency.max_micros
    );
}

async fn gets(drive: &Drive, name: &'static str, first: u64, count: u64, size: usize, depth: u64) {
    let (cpu, began) = (cpu_seconds(), Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..depth {
        let drive = drive.clone();
        tasks.spawn(async move {
            for n in (task..count).step_by(depth as usize) {
                // Spread over the drive.
                let n = first + n.wrapping_mul(0x9E37_79B9) % count;
                drive
                    .get(shard(n), Generation::new(1), 0..size as u32, Duration::from_secs(60))
                    .await
                    .unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let (took, cpu) = (began.elapsed(), cpu_seconds() - cpu);
    Measured { name, operations: count, bytes: count * size as u64, took, cpu, flushes: count }.print();
}

fn fio(path: &Path, name: &str, arguments: &[&str]) {
    let file = format!("--filename={}", path.display());
    let common =
        ["--name=x", "--ioengine=io_uring", "--direct=1", "--group_reporting", "--minimal", "--iomem=mmap"];
    let Ok(output) = Command::new("fio").arg(file).args(common).args(arguments).output() else {
        return println!("fio {name}: not installed");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let fields: Vec<&str> = text.trim().split(';').collect();
    if fields.len() < 60 {
        return println!("fio {name}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    let number = |i: usize| fields[i].parse::<f64>().unwrap_or(0.0);
    let (read, write) = ((number(6), number(7)), (number(47), number(48)));
    let (kib, iops) = if read.1 > 0.0 { read } else { write };
    println!("fio {name:<24} {iops:>9.0} ops/s {:>8.0} MB/s", kib * 1024.0 / 1e6);
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| ".".to_owned());
    let mib: u64 = arguments.next().map_or(4096, |m| m.parse().unwrap());
    let file = tempfile::NamedTempFile::new_in(directory).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..mib {
        file.as_file().write_all(&zeros).unwrap();
    }
    file.as_file().sync_all().unwrap();
    let path = file.path().to_owned();
    let size = format!("--size={}M", mib / 2);
    fio(&path, "write 512k qd8", &["--rw=write", "--bs=512k", "--iodepth=8", &size]);
    fio(&path, "randread 512k qd8", &["--rw=randread", "--bs=512k", "--iodepth=8", &size]);
    fio(
        &path,
        "write 8k qd128, sync/128",
        &["--rw=write", "--bs=8k", "--iodepth=128", "--fdatasync=128", "--size=256M"],
    );
    fio(
        &path,
        "write 4k qd128, sync/128",
        &["--rw=write", "--bs=4k", "--iodepth=128", "--fdatasync=128", "--size=256M"],
    );
    fio(&path, "randread 4k qd128", &["--rw=randread", "--bs=4k", "--iodepth=128", "--size=256M"]);
    // fio leaves its pattern: blank both ends again.
    use std::os::unix::fs::FileExt;
    file.as_file().write_all_at(&zeros, 0).unwrap();
    file.as_file().write_all_at(&zeros, (mib - 1) << 20).unwrap();
    file.as_file().sync_all().unwrap();
    let params = FormatParams { cluster: CLUSTER, drive: DriveId::from_bytes([9; 16]), node: NodeId::new(1) };
    format(&path, &params).unwrap();
    let pool = BufferPool::new(ByteCount::mib(128)).unwrap();
    let register_memory = std::env::var_os("REGISTER").is_some();
    let options = DriveOptions { register_memory, ..DriveOptions::new(pool.clone()) };
    let (drive, _) = Drive::open(&path, CLUSTER, options.clone()).unwrap();
    let large = mib; // half of the file in records of 512 KiB
    puts(&drive, &pool, "put 512 KiB, 8 in flight", 0, large, 512 * 1024, 8).await;
    puts(&drive, &pool, "put 512 KiB, 16 in flight", large, large / 4, 512 * 1024, 16).await;
    gets(&drive, "get 512 KiB, 8 in flight", 0, large, 512 * 1024, 8).await;
    puts(&drive, &pool, "put 4 KiB, 128 in flight", 1 << 32, 40_000, 4096, 128).await;
    puts(&drive, &pool, "put 4 KiB, 32 in flight", 2 << 32, 20_000, 4096, 32).await;
    puts(&drive, &pool, "put 4 KiB, 1 in flight", 3 << 32, 1000, 4096, 1).await;
    gets(&drive, "get 4 KiB, 128 in flight", 1 << 32, 40_000, 4096, 128).await;
    gets(&drive, "get 4 KiB, 1 in flight", 1 << 32, 2000, 4096, 1).await;
    let status = drive.status();
    println!("index: {} for {} shards", status.index_memory, status.shards);
    drive.close().await;
    let began = Instant::now();
    let (drive, report) = Drive::open(&path, CLUSTER, options).unwrap();
    println!("mount: {:?} ({:?} with threads), {} shards", report.took, began.elapsed(), report.shards);
    drive.close().await;
}
