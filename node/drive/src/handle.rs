//! [`Drive`]: the handle that callers hold. Computes and verifies checksums in the caller's task, so that
//! the engine thread only moves bytes.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use holdfast_format::{
    BLOCK_SIZE, BlockChecksums, DriveLabel, Layout, Place, RecordHeader, SegmentSequence, Sequence,
};
use holdfast_model::{ByteCount, ClusterId, DriveId, Generation, ShardId, limits::SECTOR_SIZE};
use holdfast_ring::{BlockDevice, Buffer, BufferPool, RingDevice, RingOptions};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::{
    commit::Durable,
    engine::{Clock, Engine, META_POOL_SIZE},
    errors::{DeleteError, GetError, OpenError, PutError},
    index::{Indexed, Location},
    mount::{self, Mounted},
    planted::{self, Bug},
    probe::unix_now,
    shared::{GetRequest, PutRequest, REQUESTS_MAX, RawRead, Request, Shared, Unavailable, Urgency, add},
    types::{
        DriveIdentity, DriveOptions, DriveState, DriveStatus, MountReport, ScrubFinding, Scrubbed, ShardInfo,
        ShardWrite,
    },
};

/// How long a scrub waits for one record: it waits for everything else.
const SCRUB_DEADLINE: Duration = Duration::from_secs(300);

/// Reads of a scrub that lie ready for the device, which takes one at a time: when it has the time, it waits for no
/// thread of ours.
const SCRUBBED_AHEAD: usize = 4;

/// Reads that failed or did not match, since the drive was opened, from which on it counts as failing. One
/// may be chance and is repaired; ten are a drive that goes.
const FAILING_AFTER: u64 = 10;

/// What was read of a shard.
struct Verified {
    payload: Buffer,
    header: RecordHeader,
    /// How long the device worked for it.
    took: Duration,
}

/// A drive that is open. Clones are handles to the same drive; the last one to go closes it.
#[derive(Debug, Clone)]
pub struct Drive {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    identity: DriveIdentity,
    /// Bytes in segments.
    offered: ByteCount,
    /// Largest payload of a record, in bytes.
    payload_max: usize,
    path: PathBuf,
    options: DriveOptions,
    shared: Arc<Shared>,
    admission: Semaphore,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The thread ends by itself: it flushes and lets go of the device.
        self.shared.send(Request::Close { reply: None });
    }
}

impl Drive {
    /// Opens the drive at `path`, which must belong to cluster `expect`. Blocking: reads labels, footers and
    /// unsealed segments, then starts the drive's thread.
    ///
    /// # Errors
    /// [`OpenError`]. A drive that is fenced opens, for reading.
    pub fn open(
        path: &Path,
        expect: ClusterId,
        options: DriveOptions,
    ) -> Result<(Self, MountReport), OpenError> {
        let ring = RingOptions {
            depth: options.queue_depth,
            read_only: false,
            register: options.register_memory.then(|| options.pool.clone()),
        };
        let device_path = path.to_owned();
        Self::open_with(path, expect, options, move || {
            RingDevice::open(&device_path, &ring).map_err(OpenError::Device)
        })
    }

    /// Opens a drive on the device that `make` makes, on the drive's own thread: for simulations and fuzzing.
    /// `path` is for messages.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with<D: BlockDevice>(
        path: &Path,
        expect: ClusterId,
        options: DriveOptions,
        make: impl FnOnce() -> Result<D, OpenError> + Send + 'static,
    ) -> Result<(Self, MountReport), OpenError> {
        let shared = Arc::new(Shared::new());
        let (ready, mounted) = std::sync::mpsc::channel();
        let name = path.display().to_string();
        let start = |source| OpenError::Start { path: name.clone(), source };
        let thread = {
            let (shared, options, name) = (Arc::clone(&shared), options.clone(), name.clone());
            std::thread::Builder::new().name(thread_name(path)).spawn(move || {
                let mounted = make().and_then(|mut device| {
                    let meta = BufferPool::new(META_POOL_SIZE)
                        .map_err(|e| OpenError::Start { path: name.clone(), source: io::Error::other(e) })?;
                    let mounted = mount::mount(&mut device, &meta, &name, expect)?;
                    Ok((device, meta, mounted))
                });
                let (device, meta, mounted) = match mounted {
                    Ok(mounted) => mounted,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let Mounted { label, state, report } = mounted;
                let engine =
                    Engine::new(device, label, state, meta, Arc::clone(&shared), &options, Clock::System);
                // Whatever ends this thread, nobody waits for it for ever.
                let _ending = Ending(shared);
                if ready.send(Ok((label, report))).is_ok() {
                    engine.run();
                }
            })
        }
        .map_err(start)?;
        let answer =
            mounted.recv().map_err(|_| start(io::Error::other("its thread ended while mounting")))?;
        let (label, report) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // The device is closed when the thread is over, so that the caller may open it again.
                drop(thread.join());
                return Err(error);
            }
        };
        Ok((Self::new(path, &label, options, shared, Some(thread)), report))
    }

    /// Opens a drive without a thread: whoever holds the [`DriveSteps`] has its engine take them. For simulations,
    /// which decide when a drive gets on. `meta` is the engine's own memory, of [`META_POOL_SIZE`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_stepped<D: BlockDevice>(
        path: &Path,
        expect: ClusterId,
        options: DriveOptions,
        mut device: D,
        meta: BufferPool,
    ) -> Result<(Self, MountReport, DriveSteps<D>), OpenError> {
        let Mounted { label, state, report } =
            mount::mount(&mut device, &meta, &path.display().to_string(), expect)?;
        let shared = Arc::new(Shared::new());
        let engine = Engine::new(device, label, state, meta, Arc::clone(&shared), &options, Clock::Runtime);
        let steps = DriveSteps { engine, _ending: Ending(Arc::clone(&shared)) };
        Ok((Self::new(path, &label, options, shared, None), report, steps))
    }

    fn new(
        path: &Path,
        label: &DriveLabel,
        options: DriveOptions,
        shared: Arc<Shared>,
        thread: Option<JoinHandle<()>>,
    ) -> Self {
        let inner = Inner {
            offered: ByteCount::new(u64::from(label.layout.segments()) * label.layout.segment_size().get()),
            payload_max: label.layout.payload_max(),
            identity: (*label).into(),
            path: path.to_owned(),
            options,
            shared,
            admission: Semaphore::new(REQUESTS_MAX),
            thread: Mutex::new(thread),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The drive's id.
    #[must_use]
    pub fn id(&self) -> DriveId {
        self.inner.identity.drive
    }

    /// Who the drive is, as of its mount.
    #[must_use]
    pub fn identity(&self) -> &DriveIdentity {
        &self.inner.identity
    }

    /// Writes a shard. When it returns, the shard has passed a device flush: the [`Durable`] is the proof.
    ///
    /// Writing the same shard and generation again is the same as writing it once. A higher generation
    /// replaces a lower one. Cancelled, the write may still happen.
    ///
    /// # Errors
    /// [`PutError`]; then nothing was acknowledged, and the shard is on the drive whole or not at all.
    pub async fn put(&self, shard: ShardWrite) -> Result<Durable, PutError> {
        let closed = PutError::Closed { drive: self.id() };
        if self.inner.shared.draining.load(Ordering::SeqCst) {
            return Err(PutError::Draining { drive: self.id() });
        }
        let _admitted = self.inner.admission.acquire().await.map_err(|_| closed.clone())?;
        let (id, length, most) = (shard.id, shard.payload.len(), self.inner.payload_max);
        if length > most {
            return Err(PutError::TooLarge { drive: self.id(), id, length, most });
        }
        let (header, payload) = new_header(&self.inner.identity, shard);
        header.check().map_err(|source| PutError::Invalid { id, source })?;
        let (reply, answer) = oneshot::channel();
        if !self.inner.shared.send(Request::Put(PutRequest { header: Box::new(header), payload, reply })) {
            return Err(self.unavailable().put(self.id()));
        }
        answer.await.unwrap_or(Err(closed))
    }

    /// Reads bytes `range` of a shard's payload; the buffer returned holds exactly those.
    ///
    /// What comes back has been verified: the record's header names this shard, generation and place, and
    /// every 64 KiB block touched has its checksum.
    ///
    /// # Errors
    /// [`GetError`]. After [`GetError::Deadline`] the device may still be working; its buffer is not reused
    /// before it is done.
    pub async fn get(
        &self,
        id: ShardId,
        generation: Generation,
        range: Range<u32>,
        deadline: Duration,
    ) -> Result<Buffer, GetError> {
        self.get_by(id, generation, range, deadline, Urgency::Now).await.map(|found| found.payload)
    }

    /// A whole shard, verified, with the sealed manifest of its record: what a copy elsewhere, or another
    /// shard of the same stripe, is made from. Behind reads that somebody waits for.
    ///
    /// # Errors
    /// As for [`Drive::get`].
    pub async fn get_whole(
        &self,
        id: ShardId,
        generation: Generation,
        deadline: Duration,
    ) -> Result<(Buffer, Vec<u8>), GetError> {
        let entry = self.inner.shared.index.read().get(id);
        let length = expect_generation(self.id(), id, generation, entry)?.payload_len;
        let found = self.get_by(id, generation, 0..length, deadline, Urgency::Behind).await?;
        Ok((found.payload, found.header.manifest))
    }

    async fn get_by(
        &self,
        id: ShardId,
        generation: Generation,
        range: Range<u32>,
        deadline: Duration,
        urgency: Urgency,
    ) -> Result<Verified, GetError> {
        let expires = tokio::time::Instant::now().into_std() + deadline;
        let get = self.get_unhurried(id, generation, range, expires, urgency);
        match tokio::time::timeout(deadline, get).await {
            Ok(Err(GetError::Deadline { drive, .. })) => Err(GetError::Deadline { drive, id, deadline }),
            Ok(result) => result,
            Err(_) => {
                add(&self.inner.shared.counters.timeouts, 1);
                Err(GetError::Deadline { drive: self.id(), id, deadline })
            }
        }
    }

    async fn get_unhurried(
        &self,
        id: ShardId,
        generation: Generation,
        range: Range<u32>,
        expires: Instant,
        urgency: Urgency,
    ) -> Result<Verified, GetError> {
        let drive = self.id();
        let closed = GetError::Closed { drive };
        let _admitted = self.inner.admission.acquire().await.map_err(|_| closed.clone())?;
        let entry = self.inner.shared.index.read().get(id);
        let entry = expect_generation(drive, id, generation, entry)?;
        let Range { start, end } = range;
        if start >= end || end > entry.payload_len {
            return Err(GetError::OutOfRange { drive, id, payload_len: entry.payload_len, start, end });
        }
        let first_block = start / BLOCK_SIZE as u32;
        let from = first_block * BLOCK_SIZE as u32;
        let to = end.next_multiple_of(BLOCK_SIZE as u32).min(entry.payload_len);
        let buffer = self.inner.options.pool.acquire((to - from) as usize).await;
        let (reply, answer) = oneshot::channel();
        let request = GetRequest { id, generation, first_block, urgency, buffer, expires, reply };
        if !self.inner.shared.send(Request::Get(request)) {
            return Err(self.unavailable().get(drive).unwrap_or(closed));
        }
        let RawRead { entry, header, mut buffer, took } = answer.await.unwrap_or(Err(closed))?;
        let header = header.as_ref().unwrap_or(&buffer).headroom();
        let header = verify(&self.inner.identity, &entry, header, first_block, &buffer).map_err(|what| {
            add(&self.inner.shared.counters.checksum_errors, 1);
            damaged(&self.inner.identity, &entry, what)
        })?;
        let (skip, length) = ((start - from) as usize, (end - start) as usize);
        if skip > 0 {
            buffer.copy_within(skip..skip + length, 0);
        }
        buffer.set_len(length);
        Ok(Verified { payload: buffer, header, took })
    }

    /// Reads and verifies up to `records` shards, the first one after `after`, in the background: beside
    /// little else, and no faster than `DriveOptions::background_rate`. Call it again with what it returns
    /// as `next`; that may be kept across restarts.
    pub async fn scrub(&self, after: Option<ShardId>, records: usize) -> Scrubbed {
        let mut scrubbed = Scrubbed {
            next: after,
            finished: false,
            records: 0,
            bytes: 0,
            worked: Duration::ZERO,
            findings: Vec::new(),
        };
        let shards = self.list(after, records);
        scrubbed.finished = shards.len() < records;
        let read = |shard: ShardInfo| async move {
            let whole = 0..shard.payload_len;
            let found = self.get_by(shard.id, shard.generation, whole, SCRUB_DEADLINE, Urgency::Background);
            (shard, found.await)
        };
        let mut reads = stream::iter(shards).map(read).buffered(SCRUBBED_AHEAD);
        while let Some((ShardInfo { id, generation, tenant, payload_len, .. }, found)) = reads.next().await {
            match found {
                Ok(found) => {
                    scrubbed.bytes += u64::from(payload_len);
                    scrubbed.worked += found.took;
                }
                // Deleted or replaced since it was listed.
                Err(GetError::NotFound { .. } | GetError::OtherGeneration { .. }) => {}
                Err(GetError::Gone { .. } | GetError::Closed { .. }) => {
                    scrubbed.finished = false;
                    break;
                }
                Err(error) => scrubbed.findings.push(ScrubFinding { id, generation, tenant, error }),
            }
            scrubbed.records += 1;
            scrubbed.next = Some(id);
        }
        scrubbed
    }

    /// Deletes a shard, of `generation` or an older one. When it returns, that has passed a device flush.
    /// `false` when there was nothing to delete.
    ///
    /// # Errors
    /// [`DeleteError`]; the shard may or may not be deleted then.
    pub async fn delete(&self, id: ShardId, generation: Generation) -> Result<bool, DeleteError> {
        let closed = DeleteError::Closed { drive: self.id() };
        let _admitted = self.inner.admission.acquire().await.map_err(|_| closed.clone())?;
        let (reply, answer) = oneshot::channel();
        if !self.inner.shared.send(Request::Delete { id, generation, reply }) {
            return Err(self.unavailable().delete(self.id()));
        }
        answer.await.unwrap_or(Err(closed))
    }

    /// Whether the drive has a live record of the shard, of any generation. Says nothing about its bytes.
    #[must_use]
    pub fn holds(&self, id: ShardId) -> bool {
        self.inner.shared.index.read().get(id).is_some()
    }

    /// Up to `limit` live shards in ascending order, the first one after `after`.
    #[must_use]
    pub fn list(&self, after: Option<ShardId>, limit: usize) -> Vec<ShardInfo> {
        let entries = self.inner.shared.index.read().list(after, limit);
        let info = |e: Indexed| ShardInfo {
            id: e.shard,
            generation: e.generation,
            tenant: e.tenant,
            payload_len: e.payload_len,
            written: e.written,
        };
        entries.into_iter().map(info).collect()
    }

    /// Begins or ends emptying: a draining drive refuses puts, and does everything else. Not kept on the
    /// drive: whoever wants it says so again after a restart.
    pub fn set_draining(&self, draining: bool) {
        self.inner.shared.draining.store(draining, Ordering::SeqCst);
    }

    /// Notes whether the drive lags behind the others of its node ([`crate::Comparison`]): it is slow then.
    pub fn set_lagging(&self, lagging: bool) {
        if self.inner.shared.lagging.swap(lagging, Ordering::SeqCst) != lagging {
            tracing::warn!(drive = %self.id(), lagging, "compared with the other drives of this node");
        }
    }

    /// State and figures.
    #[must_use]
    pub fn status(&self) -> DriveStatus {
        let gauges = self.inner.shared.gauges.lock().clone();
        let (shards, memory) = {
            let index = self.inner.shared.index.read();
            (index.len() as u64, index.memory() as u64)
        };
        let counters = self.inner.shared.counters.read();
        let bad_reads = counters.read_errors + counters.checksum_errors;
        let lagging = self.inner.shared.lagging.load(Ordering::SeqCst);
        let state = match gauges.state {
            DriveState::Live | DriveState::Slow if self.inner.shared.draining.load(Ordering::SeqCst) => {
                DriveState::Draining
            }
            DriveState::Live | DriveState::Slow if bad_reads >= FAILING_AFTER => DriveState::Failing,
            DriveState::Live if lagging => DriveState::Slow,
            state => state,
        };
        let reason = match state {
            DriveState::Failing => format!(
                "{} reads failed and {} records did not match their checksums since it was opened; {FAILING_AFTER} \
                 together are too many",
                counters.read_errors, counters.checksum_errors
            ),
            DriveState::Slow if lagging => {
                "it takes several times as long as the other drives of its node".to_owned()
            }
            DriveState::Slow => "an operation took longer than a second just now".to_owned(),
            DriveState::Draining => "it is being emptied".to_owned(),
            _ => gauges.reason,
        };
        DriveStatus {
            id: self.id(),
            path: self.inner.path.clone(),
            state,
            reason,
            mount_epoch: self.inner.identity.mount_epoch,
            label_counter: gauges.label_counter,
            capacity: self.inner.offered,
            used: ByteCount::new(gauges.used),
            live: ByteCount::new(gauges.live),
            free: ByteCount::new(gauges.free),
            shards,
            index_memory: ByteCount::new(memory),
            counters,
        }
    }

    /// Finishes what is under way, flushes, and ends the drive's thread. Requests
    /// after this are refused. Closing twice is closing once.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.inner.shared.send(Request::Close { reply: Some(reply) }) {
            // An error means that the thread is over already.
            drop(answer.await);
        }
        let thread = self.inner.thread.lock().take();
        if let Some(thread) = thread {
            // It has answered and is letting go of the device; a panic in it was printed there.
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
    }

    fn unavailable(&self) -> Unavailable {
        let gauges = self.inner.shared.gauges.lock();
        match gauges.state {
            DriveState::Fenced => Unavailable::Fenced(gauges.reason.clone()),
            DriveState::Gone => Unavailable::Gone(gauges.reason.clone()),
            _ => Unavailable::Closed,
        }
    }
}

/// The engine of a drive that has no thread, one step after the other.
#[derive(Debug)]
pub struct DriveSteps<D> {
    engine: Engine<D>,
    _ending: Ending,
}

impl<D: BlockDevice> DriveSteps<D> {
    /// One round: requests, completions, new operations. `false` when the drive is closed and nothing is left to do.
    pub fn step(&mut self) -> bool {
        self.engine.turn(None)
    }

    /// Operations that are at the device.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.engine.in_flight()
    }
}

/// Refuses all requests when the thread of a drive is over, by a panic too.
#[derive(Debug)]
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        // Whoever waits for one of these is told by its being dropped.
        drop(self.0.close());
        let mut gauges = self.0.gauges.lock();
        if matches!(gauges.state, DriveState::Live | DriveState::Slow) {
            gauges.state = DriveState::Gone;
            "its thread ended unexpectedly".clone_into(&mut gauges.reason);
        }
    }
}

/// The kernel shows 15 bytes of a thread's name.
fn thread_name(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    format!("drive {name}")
}

/// The header of a new record, but for what the engine decides.
pub(crate) fn new_header(identity: &DriveIdentity, shard: ShardWrite) -> (RecordHeader, Buffer) {
    let ShardWrite { id, generation, tenant, data, parity, manifest, payload } = shard;
    let nowhere = Place {
        cluster: identity.cluster,
        drive: identity.drive,
        segment: 0,
        sector: 0,
        life: SegmentSequence::NONE,
    };
    let header = RecordHeader {
        place: nowhere,
        sequence: Sequence::NONE,
        durable: Sequence::NONE,
        shard: id,
        generation,
        tenant,
        data,
        parity,
        moved: false,
        written: unix_now(),
        payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        blocks: BlockChecksums::of(&payload),
        manifest,
    };
    (header, payload)
}

pub(crate) fn expect_generation(
    drive: DriveId,
    id: ShardId,
    given: Generation,
    entry: Option<Indexed>,
) -> Result<Indexed, GetError> {
    match entry {
        None => Err(GetError::NotFound { drive, id }),
        Some(entry) if entry.generation != given => {
            Err(GetError::OtherGeneration { drive, id, given, stored: entry.generation })
        }
        Some(entry) => Ok(entry),
    }
}

/// A record that is not what was written, and where it lies.
pub(crate) fn damaged(identity: &DriveIdentity, entry: &Indexed, what: String) -> GetError {
    let Location { segment, sector } = entry.location;
    let layout = Layout::with_segment_size(identity.capacity, identity.segment_size);
    let offset = layout.map_or(0, |layout| layout.offset(segment, sector));
    GetError::Damaged { drive: identity.drive, id: entry.shard, segment, sector, offset, what }
}

/// Checks that `header` is the one the index means and that `blocks`, from block `first_block` on, match it.
pub(crate) fn verify(
    identity: &DriveIdentity,
    entry: &Indexed,
    header: &[u8; SECTOR_SIZE],
    first_block: u32,
    blocks: &[u8],
) -> Result<RecordHeader, String> {
    let header = verify_header(identity, entry, header)?;
    verify_blocks(&header, first_block, blocks)?;
    Ok(header)
}

/// Reads a header and checks that it is the one the index means.
pub(crate) fn verify_header(
    identity: &DriveIdentity,
    entry: &Indexed,
    header: &[u8; SECTOR_SIZE],
) -> Result<RecordHeader, String> {
    let header = RecordHeader::parse(header).map_err(|e| e.to_string())?;
    if !planted::is(Bug::IgnoreIdentity) {
        verify_identity(identity, entry, &header)?;
    }
    Ok(header)
}

/// Checks the blocks of a record, the first of them of that number.
pub(crate) fn verify_blocks(header: &RecordHeader, first_block: u32, blocks: &[u8]) -> Result<(), String> {
    match header.blocks.verify(first_block as usize, blocks) {
        Err(_) if planted::is(Bug::IgnoreChecksum) => Ok(()),
        verified => verified.map_err(|block| format!("the checksum of block {block} does not match")),
    }
}

/// Checks that `header` is the one the index means.
fn verify_identity(identity: &DriveIdentity, entry: &Indexed, header: &RecordHeader) -> Result<(), String> {
    let place = header.place;
    if (place.cluster, place.drive) != (identity.cluster, identity.drive) {
        return Err(format!(
            "the record says it belongs to drive {} of cluster {}",
            place.drive, place.cluster
        ));
    }
    if (place.segment, place.sector) != (entry.location.segment, entry.location.sector) {
        return Err(format!("the record says it lies in segment {}, sector {}", place.segment, place.sector));
    }
    if (header.shard, header.generation, header.payload_len)
        != (entry.shard, entry.generation, entry.payload_len)
    {
        return Err(format!(
            "the record is shard {} {} of {} B",
            header.shard, header.generation, header.payload_len
        ));
    }
    Ok(())
}
