//! The largest target: a whole drive whose structures are what the input says.
//!
//! The input is the sectors at fixed places of a small drive: labels, headers, the records and resume block
//! of the first segments, the ends of segments. The rest of the drive is sound. It is mounted, everything
//! on it is read, something is written, deleted and scrubbed: whatever was done to it, that ends in answers.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use holdfast_drive::{Drive, DriveOptions, MountReport, OpenError, ShardWrite};
use holdfast_fault::{Cut, FaultDisk, Manners};
use holdfast_format::{DriveLabel, LABEL_COPIES, Layout, Sequence};
use holdfast_model::{
    ByteCount, ClusterId, DriveId, Generation, NodeId, ShardId, ShardIndex, StripeId, TenantId, UnixMillis,
    limits::SECTOR_SIZE,
};
use holdfast_ring::BufferPool;

const CLUSTER: ClusterId = ClusterId::from_bytes([0xC1; 16]);
const DRIVE: DriveId = DriveId::from_bytes([0xD1; 16]);
const CAPACITY: ByteCount = ByteCount::mib(10);
const SEGMENT_SIZE: ByteCount = ByteCount::mib(1);
const GENERATION: Generation = Generation::new(1);

/// How long a read may take: the drive is in memory.
const DEADLINE: Duration = Duration::from_secs(20);

/// An input that keeps the drive busy longer than this has made it loop.
const LOOP_LIMIT: Duration = Duration::from_secs(60);

fn pool() -> &'static BufferPool {
    static POOL: OnceLock<BufferPool> = OnceLock::new();
    POOL.get_or_init(|| BufferPool::new(ByteCount::mib(16)).expect("memory for buffers"))
}

fn open(disk: &FaultDisk) -> Result<(Drive, MountReport), OpenError> {
    let device = disk.clone();
    let options = DriveOptions::new(pool().clone());
    let path = std::path::Path::new("fuzzed");
    Drive::open_with(path, CLUSTER, options, move || Ok(device.connect(1, Manners::GOOD)))
}

fn shard(n: u32) -> ShardId {
    let mut stripe = [0; 16];
    stripe[..4].copy_from_slice(&n.to_be_bytes());
    ShardId { stripe: StripeId::from_bytes(stripe), index: ShardIndex::new(0) }
}

async fn put(drive: &Drive, n: u32, length: usize) -> String {
    let mut payload = pool().acquire(length).await;
    payload.fill(n as u8);
    let tenant = TenantId::from_bytes([7; 16]);
    let (id, generation, manifest) = (shard(n), GENERATION, vec![n as u8; 9]);
    let write = ShardWrite { id, generation, tenant, data: 1, parity: 2, manifest, payload };
    drive.put(write).await.map_or_else(|error| error.to_string(), |_| "put".to_owned())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime of this thread").block_on(future)
}

fn layout() -> Layout {
    Layout::with_segment_size(CAPACITY, SEGMENT_SIZE).expect("ten segments fit")
}

/// A sound drive: one segment sealed, one open with a resume block, records and tombstones.
fn base() -> &'static FaultDisk {
    static BASE: OnceLock<FaultDisk> = OnceLock::new();
    BASE.get_or_init(|| {
        let disk = FaultDisk::new(CAPACITY);
        let label = DriveLabel {
            cluster: CLUSTER,
            drive: DRIVE,
            node: NodeId::new(1),
            layout: layout(),
            formatted: UnixMillis::new(1_750_000_000_000),
            fenced: false,
            mount_epoch: 0,
            counter: 1,
            durable: Sequence::NONE,
        };
        for (copy, offset) in (0u16..).zip(label.layout.label_offsets()) {
            let mut sector = [0; SECTOR_SIZE];
            label.encode(copy, &mut sector);
            disk.poke(offset, &sector);
        }
        block_on(async {
            let (drive, _) = open(&disk).expect("a fresh drive mounts");
            for n in 0..9 {
                put(&drive, n, 130_000).await;
            }
            drive.close().await;
            let (drive, _) = open(&disk).expect("it mounts again");
            for n in 20..24 {
                put(&drive, n, 3000).await;
            }
            drive.delete(shard(21), GENERATION).await.expect("it is there");
            drive.delete(shard(1), GENERATION).await.expect("it is there");
            drive.close().await;
        });
        disk.cut_power(Cut::All);
        disk
    })
}

/// Where the sectors of an input go.
fn places() -> Vec<u64> {
    let layout = layout();
    let last = layout.segment_sectors() - 1;
    let mut places: Vec<u64> = layout.label_offsets()[..LABEL_COPIES].to_vec();
    let mut add = |segment, sectors: std::ops::RangeInclusive<u32>| {
        places.extend(sectors.map(|sector| layout.offset(segment, sector)));
    };
    add(0, 0..=3);
    add(0, last - 1..=last);
    // The records before and behind the resume block of the second segment are small.
    add(1, 0..=2);
    add(1, 66..=80);
    add(1, last - 1..=last);
    add(2, 0..=1);
    places
}

/// The input that changes nothing: what a corpus begins with.
#[must_use]
pub fn seed() -> Vec<u8> {
    places().into_iter().flat_map(|offset| base().peek(offset, SECTOR_SIZE)).collect()
}

/// Runs a drive on what the input makes of it.
pub(crate) fn drive(bytes: &[u8]) -> String {
    let disk = base().copy();
    for (offset, sector) in places().into_iter().zip(bytes.chunks_exact(SECTOR_SIZE)) {
        disk.poke(offset, sector);
    }
    let began = Instant::now();
    let answer = block_on(async {
        let (drive, report) = match open(&disk) {
            Ok(opened) => opened,
            Err(error) => return error.to_string().split(" of ").next().unwrap_or_default().to_owned(),
        };
        let (mut good, mut bad) = (0usize, 0usize);
        for info in drive.list(None, 100) {
            match drive.get(info.id, info.generation, 0..info.payload_len, DEADLINE).await {
                Ok(_) => good += 1,
                Err(_) => bad += 1,
            }
        }
        let written = put(&drive, 1000, 5000).await;
        let deleted = drive.delete(shard(2), GENERATION).await;
        let scrubbed = drive.scrub(None, 100).await.findings.len();
        drive.close().await;
        let reason = drive.status().reason;
        assert!(!reason.contains("unexpectedly"), "the drive's thread panicked");
        let written = written.split(' ').next().unwrap_or_default().to_owned();
        // Numbers by magnitude: not every count of anything is news.
        let about = |n: usize| n.checked_ilog2().map_or(0, |log| log + 1);
        let name = |what: &str| -> String {
            let name = what.split(" begins with").next().unwrap_or_default();
            name.chars().filter(|c| !c.is_ascii_digit()).collect()
        };
        let mut findings: Vec<String> = report.findings.iter().map(|finding| name(&finding.what)).collect();
        findings.sort();
        findings.dedup();
        format!(
            "{} good {} bad {written} {:?} {} damaged {} lost {} torn {} scanned {findings:?}",
            about(good),
            about(bad),
            deleted.is_ok(),
            about(scrubbed.max(report.damaged.len())),
            about(report.lost as usize),
            about(report.torn.len()),
            report.segments_scanned
        )
    });
    assert!(began.elapsed() < LOOP_LIMIT, "it took {:?}", began.elapsed());
    // What a mount wrote down must mount again.
    if let Ok((drive, _)) = open(&disk) {
        block_on(drive.close());
    }
    answer
}
