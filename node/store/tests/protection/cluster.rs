//! All drives of a made-up cluster in one process.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use holdfast_crypt::{BodyContext, BodyKey, BodySealer};
use holdfast_drive::{Drive, DriveOptions, FormatParams, OpenError, format_simulated};
use holdfast_erasure::Code;
use holdfast_fault::{FaultDisk, Manners};
use holdfast_model::{
    BucketId, ByteCount, ClusterId, DriveId, Generation, Level, NodeId, StripeId, TenantId, UnixMillis,
    VersionId,
    placement::{Candidate, Place, place},
};
use holdfast_peer::{
    PeerClient,
    pki::{Ca, NodeKey, PeerIdentity},
};
use holdfast_ring::BufferPool;
use holdfast_store::{
    Counters, DriveReport, DriveReportState, Findings, Found, Health, NodeReport, ReadMemory, Shards,
    StoredStripe, StripeDraft, StripeReader, write_stripe,
};
use holdfast_stripe::{Layout, seal_and_encode};

pub const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);
pub const TENANT: TenantId = TenantId::from_bytes([8; 16]);

/// Drives and what is on them.
pub struct Cluster {
    pub drives: Vec<(Place, Drive, FaultDisk)>,
    pub pool: BufferPool,
    pub key: BodySealer,
    nodes: usize,
    peers: PeerClient,
}

/// A stripe and what was written to it.
pub struct Stored {
    pub stripe: StoredStripe,
    pub content: Vec<u8>,
}

/// The cluster with some of its drives there.
pub struct View {
    pub reader: StripeReader,
    pub shards: Arc<Shards>,
    pub health: Arc<Health>,
    pub counters: Arc<Counters>,
    pub found: Found,
}

impl Cluster {
    /// `nodes` nodes of `per_node` drives of so many bytes. Needs a runtime.
    pub fn new(nodes: usize, per_node: usize, capacity: ByteCount) -> Self {
        let pool = BufferPool::new(ByteCount::mib(256)).unwrap();
        let ca = Ca::generate(CLUSTER, SystemTime::now()).unwrap();
        let key = NodeKey::generate().unwrap();
        let certificate = ca.issue_peer(key.request(), NodeId::new(1), SystemTime::now()).unwrap();
        let identity =
            PeerIdentity::new(ca.certificate().clone(), certificate, key.private_key().clone()).unwrap();
        let mut drives = Vec::new();
        for node in 0..nodes {
            for slot in 0..per_node {
                let place = Place { node: NodeId::new(node as u64 + 1), drive: drive_id(node, slot) };
                let disk = FaultDisk::new(capacity);
                let params = FormatParams { cluster: CLUSTER, drive: place.drive, node: place.node };
                format_simulated(&mut disk.connect(0, Manners::GOOD), &params, ByteCount::mib(4)).unwrap();
                drives.push((place, open(&disk, &pool), disk));
            }
        }
        let context = BodyContext {
            cluster: CLUSTER,
            tenant: TENANT,
            bucket: BucketId::from_bytes([3; 16]),
            content: VersionId::from_bytes([4; 16]),
        };
        let peers = PeerClient::new(identity, pool.clone());
        Self { drives, pool, key: BodySealer::begin(context), nodes, peers }
    }

    pub fn candidates(&self) -> Vec<Candidate> {
        let candidate = |(place, drive, _): &(Place, Drive, FaultDisk)| Candidate {
            drive: place.drive,
            node: place.node,
            free_bytes: drive.status().free.get(),
        };
        self.drives.iter().map(candidate).collect()
    }

    /// The cluster as it is without the drives that `gone` names.
    pub fn without(&self, gone: impl Fn(Place) -> bool) -> View {
        let health = Arc::new(Health::default());
        health.set_members(self.nodes);
        for node in 1..=self.nodes as u64 {
            let node = NodeId::new(node);
            let there = self.drives.iter().filter(|(place, _, _)| place.node == node && !gone(*place));
            let drives: Vec<DriveReport> =
                there.map(|(place, drive, _)| report(place.drive, drive)).collect();
            if !drives.is_empty() {
                health.heard(node_report(node, drives), Instant::now());
            }
        }
        let there = self.drives.iter().filter(|(place, _, _)| !gone(*place));
        let drives = there.map(|(_, drive, _)| drive.clone()).collect();
        // Drives of other nodes that are not there cannot be reached: no peer has an address.
        let shards = Arc::new(Shards::new(NodeId::new(1), drives, self.peers.clone(), Arc::clone(&health)));
        let counters = Arc::new(Counters::default());
        let (findings, found) = Findings::channel();
        let reader = StripeReader {
            shards: Arc::clone(&shards),
            health: Arc::clone(&health),
            memory: ReadMemory::new(self.pool.clone()),
            counters: Arc::clone(&counters),
            findings,
        };
        View { reader, shards, health, counters, found }
    }

    /// Writes `len` bytes as one stripe of `level`.
    pub async fn write(&self, view: &View, level: Level, len: usize, number: u32) -> Stored {
        let seed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (geometry, places) = place(level, &self.candidates(), self.nodes, 600_000, seed).unwrap();
        let content: Vec<u8> = (0..len).map(|i| (i * 131 + i / 251 + number as usize) as u8).collect();
        let layout = Layout::new(geometry.data, geometry.parity, len).unwrap();
        let mut shards = self.pool.acquire_many(geometry.shards(), layout.shard_len()).await;
        shards.iter_mut().for_each(|shard| shard.fill(0));
        let mut position = 0;
        while position < len {
            let (shard, offset, room) = layout.slot(position);
            shards[shard][offset..offset + room].copy_from_slice(&content[position..position + room]);
            position += room;
        }
        let code = Code::of(geometry.data, geometry.parity).unwrap();
        let mut slices: Vec<&mut [u8]> = shards.iter_mut().map(|shard| &mut shard[..]).collect();
        let sealer = self.key.stripe().unwrap();
        let sealed_as = sealer.number();
        seal_and_encode(&layout, &code, sealer, true, &mut slices).unwrap();
        let mut random = [0; 10];
        random[..4].copy_from_slice(&number.to_be_bytes());
        let id = StripeId::new(UnixMillis::new(1), random);
        let generation = Generation::new(1);
        let draft = StripeDraft {
            id,
            tenant: TENANT,
            generation,
            geometry,
            manifest: Vec::new(),
            places: places.clone(),
            shards,
        };
        write_stripe(&view.shards, &view.counters, draft).await.unwrap();
        let stripe = StoredStripe {
            id,
            generation,
            number: sealed_as,
            last: true,
            len,
            data: geometry.data,
            parity: geometry.parity,
            places,
        };
        Stored { stripe, content }
    }
}

impl View {
    /// What a read of all of a stripe gives.
    pub async fn read(&self, key: &BodyKey, stored: &Stored) -> Option<Vec<u8>> {
        let range = 0..stored.content.len();
        self.reader.read(&stored.stripe, key, range).await.ok().map(|pieces| pieces.concat())
    }
}

pub fn open(disk: &FaultDisk, pool: &BufferPool) -> Drive {
    let disk = disk.clone();
    let mut options = DriveOptions::new(pool.clone());
    options.background_rate = ByteCount::mib(1024);
    let make = move || Ok::<_, OpenError>(disk.connect(0, Manners::GOOD));
    Drive::open_with(Path::new("memory"), CLUSTER, options, make).unwrap().0
}

pub fn drive_id(node: usize, slot: usize) -> DriveId {
    let mut id = [9; 16];
    (id[0], id[1]) = (node as u8, slot as u8);
    DriveId::from_bytes(id)
}

pub fn report(id: DriveId, drive: &Drive) -> DriveReport {
    let status = drive.status();
    DriveReport {
        id,
        path: String::new(),
        state: DriveReportState::Live,
        capacity_bytes: status.capacity.get(),
        used_bytes: status.used.get(),
        live_bytes: status.live.get(),
        free_bytes: status.free.get(),
        shards: status.shards,
        errors: status.counters.errors(),
        serial: String::new(),
        reason: String::new(),
        locate_until: None,
    }
}

pub fn node_report(node: NodeId, drives: Vec<DriveReport>) -> NodeReport {
    NodeReport {
        node,
        name: node.to_string(),
        version: String::new(),
        uptime_seconds: 0,
        drives_open: true,
        drives,
        devices: Vec::new(),
        workers: Vec::new(),
        debts: Vec::new(),
        levels: Vec::new(),
    }
}

/// The value below which a part of all values lies.
pub fn percentile(mut times: Vec<Duration>, part: f64) -> Duration {
    times.sort();
    times[((times.len() - 1) as f64 * part) as usize]
}
