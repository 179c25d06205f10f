//! Tests of the engine on a disk that misbehaves, against a reference model: a map from shard to bytes.
//!
//! One thread, a clock that the test moves, everything else from a seed. The rule that is checked after
//! every crash: what was acknowledged is there, byte for byte; what was not is there whole or not at all;
//! nothing is reported as damaged or lost.
//!
//! With the feature `simulation` the checks that find planted bugs are there outside tests too ([`CHECKS`]): the run that
//! plants bugs in the whole cluster holds those of drives against them.

#![allow(clippy::unwrap_used, reason = "tests, also where they are lent to the run that plants bugs")]
#![cfg_attr(not(test), allow(dead_code, unused_imports, reason = "most of it is called by tests alone"))]

mod crashes;
#[cfg(test)]
mod everywhere;
mod faults;
#[cfg(test)]
mod flips;
mod model;
mod planted;
mod random;
mod rot;
#[cfg(test)]
mod shrinking;

pub use planted::{CHECKS, Check};

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_fault::{FaultDevice, FaultDisk, Manners};
use holdfast_format::Layout;
use holdfast_model::{
    ByteCount, ClusterId, DriveId, Generation, NodeId, ShardId, TenantId, limits::SECTOR_SIZE,
};
use holdfast_ring::BufferPool;
use tokio::sync::oneshot;

use crate::{
    commit::Durable,
    engine::{Clock, Engine, META_POOL_SIZE},
    errors::{DeleteError, GetError, OpenError, PutError},
    handle::{new_header, verify},
    index::Indexed,
    mount::{Mounted, mount},
    probe::format_device,
    shared::{GetRequest, PutRequest, RawRead, Request, Shared, Urgency},
    types::{DriveCounters, DriveIdentity, DriveOptions, DriveState, FormatParams, MountReport, ShardWrite},
};

const CLUSTER: ClusterId = ClusterId::from_bytes([0xC1; 16]);
const DRIVE: DriveId = DriveId::from_bytes([0xD1; 16]);

/// A formatted disk of ten segments of 1 MiB.
fn formatted() -> FaultDisk {
    formatted_with(ByteCount::mib(12))
}

fn formatted_with(capacity: ByteCount) -> FaultDisk {
    let disk = FaultDisk::new(capacity);
    let params = FormatParams { cluster: CLUSTER, drive: DRIVE, node: NodeId::new(1) };
    let layout = Layout::with_segment_size(capacity, ByteCount::mib(1)).unwrap();
    format_device(&mut disk.connect(0, Manners::GOOD), &params, layout).unwrap();
    disk
}

/// Buffers that all runs of a thread share: making them anew costs more than a run.
#[derive(Clone)]
struct Pools {
    payload: BufferPool,
    meta: BufferPool,
}

impl Pools {
    fn new() -> Self {
        Self {
            payload: BufferPool::new(ByteCount::mib(16)).unwrap(),
            meta: BufferPool::new(META_POOL_SIZE).unwrap(),
        }
    }
}

/// An engine on a fault disk, stepped by hand.
struct Rig {
    disk: FaultDisk,
    pools: Pools,
    shared: Arc<Shared>,
    identity: DriveIdentity,
    report: MountReport,
    engine: Option<Engine<FaultDevice>>,
    clock: Arc<AtomicU64>,
}

impl Rig {
    fn mount(disk: &FaultDisk, pools: &Pools, seed: u64, manners: Manners) -> Result<Self, OpenError> {
        let mut device = disk.connect(seed, manners);
        let Mounted { label, state, report } = mount(&mut device, &pools.meta, "simulated", CLUSTER)?;
        let shared = Arc::new(Shared::new());
        let clock = Arc::new(AtomicU64::new(0));
        let manual = Clock::Manual(Instant::now(), Arc::clone(&clock));
        let options = DriveOptions::new(pools.payload.clone());
        let engine =
            Engine::new(device, label, state, pools.meta.clone(), Arc::clone(&shared), &options, manual);
        let identity = label.into();
        Ok(Self {
            disk: disk.clone(),
            pools: pools.clone(),
            shared,
            identity,
            report,
            engine: Some(engine),
            clock,
        })
    }

    /// One round of the engine, `micros` later. `false` when it is over.
    fn turn(&mut self, micros: u64) -> bool {
        self.clock.fetch_add(micros, Ordering::SeqCst);
        self.engine.as_mut().is_some_and(|engine| engine.turn(Some(Duration::ZERO)))
    }

    fn put(
        &self,
        id: ShardId,
        generation: u32,
        bytes: &[u8],
    ) -> oneshot::Receiver<Result<Durable, PutError>> {
        let mut payload = self.pools.payload.try_acquire(bytes.len()).expect("the pool is large enough");
        payload.copy_from_slice(bytes);
        let write = ShardWrite {
            id,
            generation: Generation::new(generation),
            tenant: TenantId::from_bytes([7; 16]),
            data: 4,
            parity: 3,
            manifest: vec![generation as u8; 20],
            payload,
        };
        let (header, payload) = new_header(&self.identity, write);
        let (reply, answer) = oneshot::channel();
        self.shared.send(Request::Put(PutRequest { header: Box::new(header), payload, reply }));
        answer
    }

    fn delete(&self, id: ShardId, generation: u32) -> oneshot::Receiver<Result<bool, DeleteError>> {
        let (reply, answer) = oneshot::channel();
        self.shared.send(Request::Delete { id, generation: Generation::new(generation), reply });
        answer
    }

    /// Asks for the whole shard.
    fn get(
        &self,
        id: ShardId,
        generation: u32,
        length: usize,
    ) -> oneshot::Receiver<Result<RawRead, GetError>> {
        self.get_with(Urgency::Now, id, generation, length)
    }

    fn get_with(
        &self,
        urgency: Urgency,
        id: ShardId,
        generation: u32,
        length: usize,
    ) -> oneshot::Receiver<Result<RawRead, GetError>> {
        let buffer = self.pools.payload.try_acquire(length).expect("the pool is large enough");
        let expires = Instant::now() + Duration::from_secs(3600);
        let (reply, answer) = oneshot::channel();
        let generation = Generation::new(generation);
        self.shared.send(Request::Get(GetRequest {
            id,
            generation,
            first_block: 0,
            urgency,
            buffer,
            expires,
            reply,
        }));
        answer
    }

    /// Turns until `answer` is there.
    fn wait<T>(&mut self, mut answer: oneshot::Receiver<T>) -> T {
        for _ in 0..100_000 {
            if let Ok(value) = answer.try_recv() {
                return value;
            }
            self.turn(100);
        }
        panic!("no answer after 10 simulated seconds: {:?}", self.engine);
    }

    fn read(&mut self, id: ShardId, generation: u32, length: usize) -> Result<Vec<u8>, String> {
        let answer = self.get(id, generation, length);
        let RawRead { entry, header, buffer, .. } = self.wait(answer).map_err(|e| e.to_string())?;
        let header = header.as_ref().unwrap_or(&buffer).headroom();
        verify(&self.identity, &entry, header, 0, &buffer)?;
        Ok(buffer[..].to_vec())
    }

    fn close(&mut self) {
        self.shared.send(Request::Close { reply: None });
        for _ in 0..100_000 {
            if !self.turn(1000) {
                self.engine = None;
                return;
            }
        }
        panic!("the engine does not close: {:?}", self.engine);
    }

    fn state(&self) -> DriveState {
        self.shared.gauges.lock().state
    }

    fn counters(&self) -> DriveCounters {
        self.shared.counters.read()
    }

    /// All live shards, as the index has them.
    fn index(&self) -> Vec<Indexed> {
        self.shared.index.read().list(None, usize::MAX)
    }

    /// What lies at an entry's place, verified, without going through the engine.
    fn peek(&self, entry: &Indexed) -> Result<Vec<u8>, String> {
        peek(&self.disk, &self.identity, entry)
    }
}

/// What lies at an entry's place, verified.
fn peek(disk: &FaultDisk, identity: &DriveIdentity, entry: &Indexed) -> Result<Vec<u8>, String> {
    let layout = Layout::with_segment_size(identity.capacity, identity.segment_size).unwrap();
    let offset = layout.offset(entry.location.segment, entry.location.sector);
    let length = SECTOR_SIZE + (entry.payload_len as usize).next_multiple_of(SECTOR_SIZE);
    let bytes = disk.peek(offset, length);
    let payload = &bytes[SECTOR_SIZE..SECTOR_SIZE + entry.payload_len as usize];
    verify(identity, entry, bytes.first_chunk().unwrap(), 0, payload)?;
    Ok(payload.to_vec())
}

/// The device gives everything back: nothing leaked.
fn assert_no_buffer_is_lost(pools: &Pools) {
    assert_eq!(pools.payload.available(), pools.payload.budget());
    assert_eq!(pools.meta.available(), pools.meta.budget());
}
