//! What a drive does on a device that fails, is late, or is there twice.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::Duration;

use holdfast_drive::*;
use holdfast_fault::{Fault, FaultDisk, Manners};
use holdfast_model::{
    ByteCount, ClusterId, DriveId, Generation, NodeId, ShardId, ShardIndex, StripeId, TenantId,
};
use holdfast_ring::BufferPool;

const DEADLINE: Duration = Duration::from_secs(30);
const CLUSTER: ClusterId = ClusterId::from_bytes([0xC1; 16]);
const G1: Generation = Generation::new(1);

fn shard(n: u32) -> ShardId {
    let mut stripe = [0; 16];
    stripe[..4].copy_from_slice(&n.to_be_bytes());
    ShardId { stripe: StripeId::from_bytes(stripe), index: ShardIndex::new(2) }
}

fn bytes(n: u32, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(n).to_le_bytes()[3]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_bad_reads_make_a_drive_failing_and_it_still_serves() {
    let disk = FaultDisk::new(ByteCount::mib(64));
    let pool = BufferPool::new(ByteCount::mib(16)).unwrap();
    let drive = open_on(&disk, &pool).await;
    for n in 0..2 {
        drive.put(write_from(&pool, shard(n), &bytes(n, 5000)).await).await.unwrap();
    }
    disk.arrange(Fault::ReadFails(0, 5));
    for round in 0..10 {
        assert_eq!(drive.status().state, DriveState::Live, "after {round} bad reads");
        let failed = drive.get(shard(1), G1, 0..1, DEADLINE).await;
        assert!(matches!(failed, Err(GetError::Device { .. })), "{failed:?}");
    }
    disk.heal();
    assert_eq!(drive.status().state, DriveState::Failing);
    assert_eq!(&drive.get(shard(1), G1, 0..5000, DEADLINE).await.unwrap()[..], &bytes(1, 5000)[..]);
    drive.put(write_from(&pool, shard(2), b"still").await).await.unwrap();
    drive.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_lags_behind_its_neighbours_is_slow_until_it_keeps_up() {
    let pool = BufferPool::new(ByteCount::mib(16)).unwrap();
    let disks = [0, 1, 2].map(|_| FaultDisk::new(ByteCount::mib(64)));
    let mut drives = Vec::new();
    for (n, disk) in (1..).zip(&disks) {
        drives.push(open_as(disk, &pool, n).await);
        drives.last().unwrap().put(write_from(&pool, shard(1), &bytes(1, 5000)).await).await.unwrap();
    }
    let mut comparison = Comparison::default();
    disks[1].arrange(Fault::Slow(Duration::from_millis(20)));
    // Far fewer are needed each time.
    let mut round = async || {
        for drive in &drives {
            let reads = (0..10).map(|_| drive.get(shard(1), G1, 0..5000, DEADLINE));
            for read in reads {
                read.await.unwrap();
            }
        }
        let counters: Vec<_> = drives.iter().map(|drive| (drive.id(), drive.status().counters)).collect();
        let lagging = comparison.round(&counters);
        drives.iter().for_each(|drive| drive.set_lagging(lagging.contains(&drive.id())));
        drives.iter().map(|drive| drive.status().state).collect::<Vec<_>>()
    };
    for _ in 0..20 {
        if round().await[1] == DriveState::Slow {
            break;
        }
    }
    assert_eq!(round().await, [DriveState::Live, DriveState::Slow, DriveState::Live]);
    disks[1].heal();
    for _ in 0..100 {
        if round().await[1] == DriveState::Live {
            break;
        }
    }
    assert_eq!(round().await[1], DriveState::Live);
    for drive in drives {
        drive.close().await;
    }
}

/// A late device costs its reader no more than the deadline, so that a hedge can be sent elsewhere; its
/// buffer comes back only when the device is done with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_ends_at_its_deadline_and_its_buffer_comes_back_with_the_device() {
    let disk = FaultDisk::new(ByteCount::mib(64));
    let pool = BufferPool::new(ByteCount::mib(16)).unwrap();
    let drive = open_on(&disk, &pool).await;
    drive.put(write_from(&pool, shard(1), &bytes(1, 5000)).await).await.unwrap();
    disk.arrange(Fault::Slow(Duration::from_secs(2)));
    let late = drive.get(shard(1), G1, 0..5000, Duration::from_millis(50)).await;
    assert!(matches!(late, Err(GetError::Deadline { .. })), "{late:?}");
    assert!(pool.available() < pool.budget(), "the device still has the buffer");
    assert_eq!(drive.status().counters.timeouts, 1);
    disk.heal();
    assert_eq!(&drive.get(shard(1), G1, 0..5000, DEADLINE).await.unwrap()[..], &bytes(1, 5000)[..]);
    drive.close().await;
    assert_eq!(pool.available(), pool.budget());
}

/// Two devices that say they are the same drive: the one that was away is behind and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_clone_is_behind_in_its_mount_epoch() {
    let disk = FaultDisk::new(ByteCount::mib(64));
    let pool = BufferPool::new(ByteCount::mib(16)).unwrap();
    let drive = open_on(&disk, &pool).await;
    drive.put(write_from(&pool, shard(1), b"both have this").await).await.unwrap();
    drive.close().await;
    let clone = disk.copy();
    for n in 2..5 {
        let drive = open_on(&disk, &pool).await;
        drive.put(write_from(&pool, shard(n), b"the clone lacks this").await).await.unwrap();
        drive.close().await;
    }
    let (drive, stale) = (open_on(&disk, &pool).await, open_on(&clone, &pool).await);
    assert_eq!(drive.id(), stale.id(), "the same identity twice");
    assert!(stale.identity().mount_epoch < drive.identity().mount_epoch);
    assert_eq!((drive.list(None, 10).len(), stale.list(None, 10).len()), (4, 1));
    drive.close().await;
    stale.close().await;
}

/// Opens the drive on a disk in memory; makes it one when it is blank.
async fn open_on(disk: &FaultDisk, pool: &BufferPool) -> Drive {
    open_as(disk, pool, 0xD1).await
}

async fn open_as(disk: &FaultDisk, pool: &BufferPool, id: u8) -> Drive {
    if disk.used().is_empty() {
        let label = holdfast_format::DriveLabel {
            cluster: CLUSTER,
            drive: DriveId::from_bytes([id; 16]),
            node: NodeId::new(1),
            layout: holdfast_format::Layout::for_capacity(disk.capacity()).unwrap(),
            formatted: holdfast_model::UnixMillis::new(0),
            fenced: false,
            mount_epoch: 0,
            counter: 1,
            durable: holdfast_format::Sequence::NONE,
        };
        for (copy, offset) in (0u16..).zip(label.layout.label_offsets()) {
            let mut sector = [0; 4096];
            label.encode(copy, &mut sector);
            disk.poke(offset, &sector);
        }
    }
    let (device, options) = (disk.clone(), DriveOptions::new(pool.clone()));
    let path = std::path::Path::new("in memory");
    Drive::open_with(path, CLUSTER, options, move || Ok(device.connect(1, Manners::GOOD))).unwrap().0
}

async fn write_from(pool: &BufferPool, id: ShardId, content: &[u8]) -> ShardWrite {
    let mut payload = pool.acquire(content.len()).await;
    payload.copy_from_slice(content);
    let tenant = TenantId::from_bytes([7; 16]);
    ShardWrite { id, generation: G1, tenant, data: 4, parity: 2, manifest: Vec::new(), payload }
}
