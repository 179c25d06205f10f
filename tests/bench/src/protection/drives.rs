//! Drives of a made-up cluster, all in this process, and what is measured on them.

use std::{
    fs::File,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_crypt::{BodyContext, BodySealer};
use holdfast_drive::{Drive, DriveOptions, FormatParams, ShardWrite, format};
use holdfast_erasure::Code;
use holdfast_model::{
    BucketId, ByteCount, ClusterId, DriveId, Generation, Level, NodeId, ShardId, ShardIndex, StripeId,
    TenantId, UnixMillis, VersionId,
    placement::{Candidate, Place, place},
};
use holdfast_peer::{
    PeerClient,
    pki::{Ca, NodeKey, PeerIdentity},
};
use holdfast_ring::BufferPool;
use holdfast_store::{
    Counters, DriveReport, DriveReportState, Findings, Health, NodeReport, ReadMemory, Relocation, Shards,
    StoredStripe, StripeDraft, StripeReader, StripeRebuilder, write_stripe,
};
use holdfast_stripe::{Layout, seal_and_encode};

use crate::timed;

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);
const TENANT: TenantId = TenantId::from_bytes([8; 16]);
const CAPACITY: ByteCount = ByteCount::mib(512);

/// Stripes worked on at once: as the rebuild does at its usual impact.
const PARALLEL: usize = 4;

/// Drives, and what reaches them.
pub struct Drives {
    drives: Vec<(Place, Drive)>,
    pool: BufferPool,
    peers: PeerClient,
    nodes: usize,
    key: BodySealer,
}

impl Drives {
    /// Makes drive files in `dir`.
    pub fn create(dir: &Path, nodes: usize, per_node: usize) -> Result<Self> {
        let pool = BufferPool::new(ByteCount::mib(256)).context("memory for payloads")?;
        let mut drives = Vec::new();
        for node in 1..=nodes {
            for slot in 0..per_node {
                let path = dir.join(format!("n{node}d{slot}"));
                File::create(&path)?.set_len(CAPACITY.get())?;
                let mut id = [9; 16];
                (id[0], id[1]) = (node as u8, slot as u8);
                let place = Place { node: NodeId::new(node as u64), drive: DriveId::from_bytes(id) };
                format(&path, &FormatParams { cluster: CLUSTER, drive: place.drive, node: place.node })?;
                let mut options = DriveOptions::new(pool.clone());
                // What is measured is the work, not the pace that a node keeps beside its clients.
                options.background_rate = ByteCount::mib(64 * 1024);
                drives.push((place, Drive::open(&path, CLUSTER, options)?.0));
            }
        }
        let ca = Ca::generate(CLUSTER, SystemTime::now())?;
        let key = NodeKey::generate()?;
        let certificate = ca.issue_peer(key.request(), NodeId::new(1), SystemTime::now())?;
        let identity = PeerIdentity::new(ca.certificate().clone(), certificate, key.private_key().clone())?;
        let context = BodyContext {
            cluster: CLUSTER,
            tenant: TENANT,
            bucket: BucketId::from_bytes([3; 16]),
            content: VersionId::from_bytes([4; 16]),
        };
        let peers = PeerClient::new(identity, pool.clone());
        Ok(Self { drives, pool, peers, nodes, key: BodySealer::begin(context) })
    }

    fn reach(&self, without: &[DriveId]) -> (Arc<Shards>, Arc<Health>) {
        let health = Arc::new(Health::default());
        health.set_members(self.nodes);
        let there = || self.drives.iter().filter(|(place, _)| !without.contains(&place.drive));
        for node in 1..=self.nodes as u64 {
            let of_node = there().filter(|(place, _)| place.node == NodeId::new(node));
            let drives = of_node.map(|(place, _)| report(place.drive)).collect();
            health.heard(node_report(NodeId::new(node), drives), Instant::now());
        }
        let drives = there().map(|(_, drive)| drive.clone()).collect();
        let shards = Shards::new(NodeId::new(1), drives, self.peers.clone(), Arc::clone(&health));
        (Arc::new(shards), health)
    }

    /// Writes full stripes of `+2d:1n`.
    pub async fn fill(&self, count: usize) -> Result<Vec<StoredStripe>> {
        let (shards, health) = self.reach(&[]);
        let counters = Counters::default();
        let mut stripes = Vec::new();
        for number in 0..count as u32 {
            let candidates: Vec<Candidate> = health.candidates();
            let seed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (geometry, places) = place(Level::PLUS_2D_1N, &candidates, self.nodes, 600_000, seed)?;
            let len = Layout::capacity(geometry.data);
            let layout = Layout::new(geometry.data, geometry.parity, len).context("a layout")?;
            let mut buffers = self.pool.acquire_many(geometry.shards(), layout.shard_len()).await;
            for (shard, buffer) in buffers.iter_mut().enumerate() {
                buffer.fill(shard as u8 ^ number as u8);
            }
            let code = Code::of(geometry.data, geometry.parity)?;
            let mut slices: Vec<&mut [u8]> = buffers.iter_mut().map(|buffer| &mut buffer[..]).collect();
            let sealer = self.key.stripe()?;
            let sealed_as = sealer.number();
            seal_and_encode(&layout, &code, sealer, true, &mut slices)?;
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
                shards: buffers,
            };
            write_stripe(&shards, &counters, draft).await?;
            stripes.push(StoredStripe {
                id,
                generation,
                number: sealed_as,
                last: true,
                len,
                data: geometry.data,
                parity: geometry.parity,
                places,
            });
        }
        Ok(stripes)
    }

    /// Reads all stripes with so many drives missing.
    pub async fn read_all(&self, stripes: &[StoredStripe], missing: usize) -> Result<Duration> {
        let without: Vec<DriveId> = self.drives.iter().take(missing).map(|(place, _)| place.drive).collect();
        let (shards, health) = self.reach(&without);
        let reader = StripeReader {
            shards,
            health,
            memory: ReadMemory::new(self.pool.clone()),
            counters: Arc::default(),
            findings: Findings::channel().0,
        };
        let work = stream::iter(stripes)
            .map(|stripe| {
                let reader = reader.clone();
                async move {
                    let pieces = reader.read(stripe, self.key.key(), 0..stripe.len).await?;
                    ensure!(pieces.iter().map(|piece| piece.len()).sum::<usize>() == stripe.len);
                    Ok(())
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<()>>();
        Ok(timed(work).await?.0)
    }

    /// The drive whose loss is made up for.
    fn lost(&self) -> DriveId {
        self.drives[0].0.drive
    }

    /// Where a lost shard goes: any drive that has none of the stripe.
    fn target(&self, stripe: &StoredStripe) -> Result<Place> {
        let free = |(place, _): &&(Place, Drive)| stripe.places.iter().all(|p| p.drive != place.drive);
        self.drives
            .iter()
            .find(free)
            .map(|(place, _)| *place)
            .context("a drive without a shard of the stripe")
    }

    fn hit<'s>(&self, stripes: &'s [StoredStripe]) -> Vec<(&'s StoredStripe, usize)> {
        let at = |stripe: &'s StoredStripe| {
            stripe.places.iter().position(|place| place.drive == self.lost()).map(|at| (stripe, at))
        };
        stripes.iter().filter_map(at).collect()
    }

    /// The least there is to do: read as many others as it takes, decode, write durably. Returns the bytes
    /// read and written.
    pub async fn bare_rebuild(&self, stripes: &[StoredStripe], round: u32) -> Result<(Duration, u64)> {
        let (shards, _) = self.reach(&[self.lost()]);
        let work = stream::iter(self.hit(stripes))
            .map(|(stripe, lost)| {
                let shards = Arc::clone(&shards);
                async move {
                    let code = Code::of(stripe.data, stripe.parity)?;
                    let others = (0..stripe.places.len()).filter(|i| *i != lost);
                    let reads = others.take(usize::from(stripe.data)).map(|i| {
                        let shards = Arc::clone(&shards);
                        async move {
                            let id = shard(stripe, i);
                            Ok::<_, anyhow::Error>((
                                i,
                                shards.get_whole(stripe.places[i], id, stripe.generation).await?.0,
                            ))
                        }
                    });
                    let read = futures::future::try_join_all(reads).await?;
                    let mut present: Vec<Option<&[u8]>> = vec![None; stripe.places.len()];
                    for (i, buffer) in &read {
                        present[*i] = Some(&buffer[..]);
                    }
                    let length = read[0].1.len();
                    let mut payload = self.pool.acquire(length).await;
                    code.rebuild(&present, &[lost], &mut [&mut payload[..]])?;
                    let write = ShardWrite {
                        id: shard(stripe, lost),
                        generation: Generation::new(10 + 2 * round),
                        tenant: TENANT,
                        data: stripe.data,
                        parity: stripe.parity,
                        manifest: Vec::new(),
                        payload,
                    };
                    shards.put(self.target(stripe)?, write).await?;
                    Ok((read.len() + 1) as u64 * length as u64)
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<u64>>();
        let (took, moved) = timed(work).await?;
        Ok((took, moved.iter().sum()))
    }

    /// The same as the node does it.
    pub async fn rebuild(&self, stripes: &[StoredStripe], round: u32) -> Result<Duration> {
        let (shards, health) = self.reach(&[self.lost()]);
        let rebuilder = StripeRebuilder { shards, health, memory: ReadMemory::new(self.pool.clone()) };
        let work = stream::iter(self.hit(stripes))
            .map(|(stripe, lost)| {
                let rebuilder = rebuilder.clone();
                async move {
                    let index = shard(stripe, lost).index;
                    let relocation = Relocation { index, readable: false, to: self.target(stripe)? };
                    let generation = Generation::new(11 + 2 * round);
                    rebuilder.relocate(TENANT, stripe, &[relocation], generation).await?;
                    Ok(())
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<()>>();
        Ok(timed(work).await?.0)
    }

    /// Closes the drives.
    pub async fn close(self) {
        for (_, drive) in &self.drives {
            drive.close().await;
        }
    }
}

fn shard(stripe: &StoredStripe, index: usize) -> ShardId {
    ShardId { stripe: stripe.id, index: ShardIndex::new(index as u8) }
}

fn report(id: DriveId) -> DriveReport {
    DriveReport {
        id,
        path: String::new(),
        state: DriveReportState::Live,
        capacity_bytes: CAPACITY.get(),
        used_bytes: 0,
        live_bytes: 0,
        free_bytes: CAPACITY.get(),
        shards: 0,
        errors: 0,
        serial: String::new(),
        reason: String::new(),
        locate_until: None,
    }
}

fn node_report(node: NodeId, drives: Vec<DriveReport>) -> NodeReport {
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
