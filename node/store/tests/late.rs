//! Reads of a stripe one of whose drives is late, or for which memory is short, on disks in memory.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use futures::FutureExt;
use holdfast_crypt::{BodyContext, BodySealer};
use holdfast_drive::{Drive, DriveOptions};
use holdfast_erasure::Code;
use holdfast_fault::{Fault, FaultDisk, Manners};
use holdfast_format::{DriveLabel, Layout as DriveLayout, Sequence};
use holdfast_model::{
    BucketId, ByteCount, ClusterId, DriveId, Generation, Geometry, NodeId, StripeId, TenantId, UnixMillis,
    VersionId,
    limits::{CELL_SIZE_MAX, CELL_TAG_SIZE, CELLS_PER_SHARD_MAX, DATA_SHARDS_MAX},
    placement::Place,
};
use holdfast_peer::{
    PeerClient,
    pki::{Ca, NodeKey, PeerIdentity},
};
use holdfast_ring::BufferPool;
use holdfast_store::{
    Counters, DriveReport, DriveReportState, Findings, Found, Health, NodeReport, READ_MEMORY_MIN,
    READ_TIMEOUT, ReadMemory, Shards, StoredStripe, StripeDraft, StripeReader, write_stripe,
};
use holdfast_stripe::{Layout, seal_and_encode};

const CLUSTER: ClusterId = ClusterId::from_bytes([0xC1; 16]);
const NODE: NodeId = NodeId::new(1);
const GENERATION: Generation = Generation::new(1);
const GEOMETRY: Geometry = Geometry { data: 4, parity: 2, per_node_max: 6 };
const CONTENT: usize = 700_000;

/// The widest stripe there is, and the most content it can have.
const WIDEST: Geometry = Geometry { data: DATA_SHARDS_MAX as u8, parity: 4, per_node_max: 20 };
const WIDEST_CONTENT: usize = DATA_SHARDS_MAX * CELLS_PER_SHARD_MAX * (CELL_SIZE_MAX - CELL_TAG_SIZE);

/// One node with a drive for each shard of one stripe, and the stripe on them.
struct Node {
    pool: BufferPool,
    disks: Vec<FaultDisk>,
    reader: StripeReader,
    stripe: StoredStripe,
    key: BodySealer,
    content: Vec<u8>,
    _found: Found,
}

impl Node {
    async fn new() -> Self {
        Self::with(GEOMETRY, CONTENT, ByteCount::mib(32)).await
    }

    async fn with(geometry: Geometry, length: usize, memory: ByteCount) -> Self {
        let pool = BufferPool::new(memory).unwrap();
        let disks: Vec<FaultDisk> = (0..geometry.data + geometry.parity).map(disk).collect();
        let drives: Vec<Drive> = disks.iter().map(|disk| open(disk, &pool)).collect();
        let places: Vec<Place> = drives.iter().map(|drive| Place { drive: drive.id(), node: NODE }).collect();
        let health = Arc::new(Health::default());
        health.heard(report(&places, |_| DriveReportState::Live), Instant::now());
        let ca = Ca::generate(CLUSTER, SystemTime::now()).unwrap();
        let key = NodeKey::generate().unwrap();
        let certificate = ca.issue_peer(key.request(), NODE, SystemTime::now()).unwrap();
        let identity =
            PeerIdentity::new(ca.certificate().clone(), certificate, key.private_key().clone()).unwrap();
        let peers = PeerClient::new(identity, pool.clone());
        let shards = Arc::new(Shards::new(NODE, drives, peers, Arc::clone(&health)));
        let counters = Arc::new(Counters::default());
        let (findings, found) = Findings::channel();
        let memory = ReadMemory::new(pool.clone());
        let reader = StripeReader {
            shards: Arc::clone(&shards),
            health,
            memory,
            counters: Arc::clone(&counters),
            findings,
        };

        let key = BodySealer::begin(BodyContext {
            cluster: CLUSTER,
            tenant: TenantId::from_bytes([7; 16]),
            bucket: BucketId::from_bytes([8; 16]),
            content: VersionId::from_bytes([9; 16]),
        });
        let content: Vec<u8> =
            (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let layout = Layout::new(geometry.data, geometry.parity, length).unwrap();
        let mut buffers = pool.acquire_many(geometry.shards(), layout.shard_len()).await;
        let mut bytes: Vec<&mut [u8]> = buffers.iter_mut().map(|buffer| &mut buffer[..]).collect();
        bytes.iter_mut().for_each(|shard| shard.fill(0));
        for cell in layout.plan(0..length).iter().flat_map(|span| &span.cells) {
            let plain = &content[cell.content.clone()];
            bytes[cell.shard][cell.sealed.start..][..plain.len()].copy_from_slice(plain);
        }
        let code = Code::of(geometry.data, geometry.parity).unwrap();
        seal_and_encode(&layout, &code, key.stripe().unwrap(), true, &mut bytes).unwrap();
        let id = StripeId::from_bytes([5; 16]);
        let draft = StripeDraft {
            id,
            tenant: TenantId::from_bytes([7; 16]),
            generation: GENERATION,
            geometry,
            manifest: Vec::new(),
            places: places.clone(),
            shards: buffers,
        };
        write_stripe(&shards, &counters, draft).await.unwrap();
        let Geometry { data, parity, .. } = geometry;
        let stripe = StoredStripe {
            id,
            generation: GENERATION,
            number: 0,
            last: true,
            len: length,
            data,
            parity,
            places,
        };
        Self { pool, disks, reader, stripe, key, content, _found: found }
    }

    async fn assert_reads_back(&self) {
        let pieces = self.reader.read(&self.stripe, self.key.key(), 0..CONTENT).await.unwrap();
        assert_eq!(pieces.concat(), self.content);
    }

    fn counts(&self) -> (u64, u64, u64) {
        let counters = &self.reader.counters;
        let all = [&counters.hedged_reads, &counters.hedges_won, &counters.degraded_reads];
        let [hedged, won, degraded] = all.map(|counter| counter.load(Ordering::Relaxed));
        (hedged, won, degraded)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_hangs_holds_up_no_read() {
    let node = Node::new().await;
    node.assert_reads_back().await;
    let (hedged_before, ..) = node.counts();
    node.disks[1].arrange(Fault::Hangs(0));
    let began = Instant::now();
    node.assert_reads_back().await;
    let (hedged, won, degraded) = node.counts();
    // Its own answer never came, nor did the time run out that ends waiting for it.
    assert!(hedged > hedged_before && won >= 1 && degraded == 0, "{hedged} {won} {degraded}");
    assert!(began.elapsed() < READ_TIMEOUT);
    node.disks[1].heal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_shard_that_cannot_be_rebuilt_is_waited_for() {
    let node = Node::new().await;
    // Three of six are away: no other four are left to rebuild from.
    for disk in [3, 4, 5] {
        node.disks[disk].arrange(Fault::Vanishes(0));
    }
    node.disks[0].arrange(Fault::Slow(Duration::from_millis(600)));
    let spans = 0..100_000;
    let pieces = node.reader.read(&node.stripe, node.key.key(), spans.clone()).await.unwrap();
    assert_eq!(pieces.concat(), node.content[spans]);
    let (hedged, won, _) = node.counts();
    assert!(hedged >= 1 && won == 0, "{hedged} {won}");
    node.disks[0].heal();
}

#[tokio::test(flavor = "multi_thread")]
async fn drives_reported_as_slow_are_the_last_to_rebuild_from() {
    let node = Node::new().await;
    let places = node.stripe.places.clone();
    let slow = |drive: DriveId| drive == places[2].drive;
    let state = |drive| if slow(drive) { DriveReportState::Slow } else { DriveReportState::Live };
    node.reader.health.heard(report(&places, state), Instant::now());
    // Shard 0 cannot be read; shard 2 is not needed to rebuild it, and would never come.
    node.disks[0].arrange(Fault::ReadFails(0, 5));
    node.disks[2].arrange(Fault::Hangs(0));
    let range = 0..60_000;
    let pieces = node.reader.read(&node.stripe, node.key.key(), range.clone()).await.unwrap();
    assert_eq!(pieces.concat(), node.content[range]);
    let (_, _, degraded) = node.counts();
    assert_eq!(degraded, 1);
    node.disks[2].heal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_takes_back_the_widest_stripe_beside_all_content_that_memory_holds() {
    let node = Node::with(WIDEST, WIDEST_CONTENT, READ_MEMORY_MIN).await;
    let mut contents = Vec::new();
    for range in [0..WIDEST_CONTENT, 0..WIDEST_CONTENT / DATA_SHARDS_MAX, 0..1] {
        while let Some(reserved) = node.reader.reserve(&node.stripe, range.clone()).now_or_never() {
            let mut held = Vec::new();
            for length in node.reader.buffers_of(&node.stripe, range.clone()).unwrap() {
                held.push(node.pool.acquire(length).now_or_never().unwrap());
            }
            contents.push((reserved.unwrap(), held));
        }
    }
    // Two of its shards are to be rebuilt.
    node.disks[1].arrange(Fault::Vanishes(0));
    node.disks[7].arrange(Fault::Vanishes(0));
    let back = node.reader.read_back(&node.stripe, node.key.key());
    let back = tokio::time::timeout(Duration::from_secs(60), back).await.expect("it waits for nobody");
    assert_eq!(back.unwrap().concat(), node.content);
    assert_eq!(node.counts().2, 2, "{:?}", node.counts());
    drop(contents);
    assert_eq!(node.pool.available(), node.pool.budget());
}

fn disk(number: u8) -> FaultDisk {
    let disk = FaultDisk::new(ByteCount::mib(32));
    let label = DriveLabel {
        cluster: CLUSTER,
        drive: DriveId::from_bytes([0xD0 + number; 16]),
        node: NODE,
        layout: DriveLayout::for_capacity(disk.capacity()).unwrap(),
        formatted: UnixMillis::new(0),
        fenced: false,
        mount_epoch: 0,
        counter: 1,
        durable: Sequence::NONE,
    };
    for (copy, offset) in (0u16..).zip(label.layout.label_offsets()) {
        let mut sector = [0; 4096];
        label.encode(copy, &mut sector);
        disk.poke(offset, &sector);
    }
    disk
}

fn open(disk: &FaultDisk, pool: &BufferPool) -> Drive {
    let (device, options) = (disk.clone(), DriveOptions::new(pool.clone()));
    let path = Path::new("in memory");
    Drive::open_with(path, CLUSTER, options, move || Ok(device.connect(1, Manners::GOOD))).unwrap().0
}

fn report(places: &[Place], state: impl Fn(DriveId) -> DriveReportState) -> NodeReport {
    let drive = |place: &Place| DriveReport {
        id: place.drive,
        path: String::new(),
        state: state(place.drive),
        capacity_bytes: 1 << 25,
        used_bytes: 0,
        live_bytes: 0,
        free_bytes: 1 << 24,
        shards: 1,
        errors: 0,
        serial: String::new(),
        reason: String::new(),
        locate_until: None,
    };
    NodeReport {
        node: NODE,
        name: "n1".to_owned(),
        version: String::new(),
        uptime_seconds: 0,
        drives_open: true,
        drives: places.iter().map(drive).collect(),
        devices: Vec::new(),
        workers: Vec::new(),
        debts: Vec::new(),
        levels: Vec::new(),
    }
}
