//! What goes into a drive and what comes out: requests, options, reports, errors.

use std::{io, path::PathBuf, time::Duration};

use holdfast_format::{FormatError, LayoutError};
use holdfast_model::{ByteCount, ClusterId, DriveId, Generation, NodeId, ShardId, TenantId, UnixMillis};
use holdfast_ring::{Buffer, BufferPool, DeviceError};

/// A shard to be written.
#[derive(Debug)]
pub struct ShardWrite {
    /// The shard.
    pub id: ShardId,
    /// Version of the shard's place. A higher one replaces a lower one; a lower one is refused.
    pub generation: Generation,
    /// Whose shard.
    pub tenant: TenantId,
    /// Data shards of the stripe (k).
    pub data: u8,
    /// Parity shards of the stripe (m).
    pub parity: u8,
    /// Sealed core of the object's manifest, at most `RECORD_MANIFEST_SIZE_MAX` bytes.
    pub manifest: Vec<u8>,
    /// The payload; its length is the payload's length.
    pub payload: Buffer,
}

/// A shard on a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardInfo {
    /// The shard.
    pub id: ShardId,
    /// Version of its place.
    pub generation: Generation,
    /// Whose shard.
    pub tenant: TenantId,
    /// Payload bytes.
    pub payload_len: u32,
    /// When it was first written to this drive, to the second.
    pub written: UnixMillis,
}

/// How to run a drive.
#[derive(Debug, Clone)]
pub struct DriveOptions {
    /// Buffers for what is read for callers.
    pub pool: BufferPool,
    /// Operations in flight on the device at most.
    pub queue_depth: usize,
    /// Pin and register the pool's memory with the kernel: less CPU for small operations, but the whole
    /// budget is resident from the start, for each drive's ring.
    pub register_memory: bool,
    /// Bytes a second that reclaiming may move while there is room; without limit when room is short.
    pub background_rate: ByteCount,
}

impl DriveOptions {
    /// The usual options.
    #[must_use]
    pub fn new(pool: BufferPool) -> Self {
        Self { pool, queue_depth: 128, register_memory: false, background_rate: ByteCount::mib(64) }
    }
}

/// What a drive is formatted as.
#[derive(Debug, Clone, Copy)]
pub struct FormatParams {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// A fresh random id.
    pub drive: DriveId,
    /// The node that formats it.
    pub node: NodeId,
}

/// Who a drive says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriveIdentity {
    /// The cluster it was formatted for.
    pub cluster: ClusterId,
    /// The drive.
    pub drive: DriveId,
    /// The node that formatted it.
    pub node: NodeId,
    /// Bytes it uses.
    pub capacity: ByteCount,
    /// Size of its segments.
    pub segment_size: ByteCount,
    /// When it was formatted.
    pub formatted: UnixMillis,
    /// Mounts so far. A clone that was away is behind.
    pub mount_epoch: u64,
    /// Closed for good after a failed write or flush.
    pub fenced: bool,
}

/// What is on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Nothing: both ends are zero.
    Blank,
    /// A drive of Holdfast; of which cluster, the identity says.
    Ours(DriveIdentity),
    /// Something else, which is left alone.
    Foreign {
        /// What it looks like.
        what: String,
    },
    /// Labels of Holdfast, none of them readable.
    Damaged {
        /// Why.
        what: String,
    },
}

/// Why a device could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It could not be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It could not be read.
    #[error("cannot read {} to see what it holds", path.display())]
    Read {
        /// The device.
        path: PathBuf,
        /// The device's answer.
        source: io::Error,
    },
}

/// Why a device was not formatted.
#[derive(Debug, thiserror::Error)]
pub enum FormatDriveError {
    /// It could not be looked at.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// It is not blank, and nothing that is not blank is ever formatted.
    #[error("{} is not blank: it holds {what}. Wipe it first if it is to be used here", path.display())]
    NotBlank {
        /// The device.
        path: PathBuf,
        /// What it holds.
        what: String,
    },
    /// It is too small.
    #[error("{} cannot be laid out", path.display())]
    Layout {
        /// The device.
        path: PathBuf,
        /// Why.
        source: LayoutError,
    },
    /// It could not be written.
    #[error("cannot write to {}", path.display())]
    Write {
        /// The device.
        path: PathBuf,
        /// The device's answer.
        source: io::Error,
    },
}

/// Why a drive was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device could not be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// There is no label.
    #[error("{path} holds no drive of Holdfast: {what}")]
    NoLabel {
        /// The device.
        path: String,
        /// What was found.
        what: String,
    },
    /// It belongs to another cluster.
    #[error("{path} belongs to cluster {found}, not to {expected}")]
    OtherCluster {
        /// The device.
        path: String,
        /// Its cluster.
        found: ClusterId,
        /// Ours.
        expected: ClusterId,
    },
    /// The device is smaller than it was when it was formatted.
    #[error("{path} has {found}, but was formatted with {expected}")]
    Shrunk {
        /// The device.
        path: String,
        /// Its size now.
        found: ByteCount,
        /// Its size then.
        expected: ByteCount,
    },
    /// Reading or writing failed during the mount.
    #[error("mount of {path}: {step} failed")]
    Mount {
        /// The device.
        path: String,
        /// What was being done.
        step: &'static str,
        /// The device's answer.
        source: io::Error,
    },
    /// The thread or its memory could not be had.
    #[error("cannot start the engine of {path}")]
    Start {
        /// The device.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// What a mount found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountReport {
    /// Number of this mount.
    pub mount_epoch: u64,
    /// Closed for good: it serves reads only.
    pub fenced: bool,
    /// Live shards.
    pub shards: u64,
    /// Acknowledged records whose payload is damaged. They stay listed and their reads fail as damaged.
    pub damaged: Vec<DamagedRecord>,
    /// Acknowledged records whose header cannot be read any more, so that nobody can say which they were.
    /// Comparing the catalog with [`crate::Drive::list`] tells.
    pub lost: u64,
    /// Records that had not been acknowledged and were cut off by a crash: dropped, as they must be.
    pub torn: Vec<TornRecord>,
    /// Segments without a footer, read through.
    pub segments_scanned: u32,
    /// Structures that were damaged and have a good copy or can be derived: labels, headers, footers.
    pub repaired: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl MountReport {
    /// Whether nothing that had been acknowledged is missing or damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.lost == 0
    }
}

/// An acknowledged record that is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRecord {
    /// The shard.
    pub id: ShardId,
    /// Version of its place.
    pub generation: Generation,
    /// Segment it lies in.
    pub segment: u32,
    /// Sector of its header.
    pub sector: u32,
}

/// A record that was being written when the power went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornRecord {
    /// The shard.
    pub id: ShardId,
    /// Version of its place.
    pub generation: Generation,
}

/// What a stretch of scrubbing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubbed {
    /// The last shard that was looked at: where to go on.
    pub next: Option<ShardId>,
    /// That was the last shard of the drive.
    pub finished: bool,
    /// Shards looked at.
    pub records: u64,
    /// Payload bytes verified.
    pub bytes: u64,
    /// Shards that are not as they should be.
    pub findings: Vec<ScrubFinding>,
}

/// A shard that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubFinding {
    /// The shard.
    pub id: ShardId,
    /// Version of its place.
    pub generation: Generation,
    /// What is wrong with it.
    pub error: GetError,
}

/// Whether a drive can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveState {
    /// Reads and writes.
    Live,
    /// Works, far slower than it should.
    Slow,
    /// A write or flush failed: reads only, for good.
    Fenced,
    /// It answers no more.
    Gone,
    /// Closed on request.
    Closed,
}

/// Durations of one kind of operation, from submission to completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// Operations.
    pub count: u64,
    /// All of them together, in microseconds.
    pub total_micros: u64,
    /// The longest, in microseconds.
    pub max_micros: u64,
}

/// Figures of a drive since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriveCounters {
    /// Reads sent to the device.
    pub reads: u64,
    /// Bytes they brought.
    pub read_bytes: u64,
    /// Writes sent to the device.
    pub writes: u64,
    /// Bytes they carried, headers and padding included.
    pub write_bytes: u64,
    /// Flushes that came back clean.
    pub flushes: u64,
    /// Records acknowledged.
    pub records_acknowledged: u64,
    /// Deletes acknowledged.
    pub deletes_acknowledged: u64,
    /// Records moved by reclaiming.
    pub records_moved: u64,
    /// Segments reclaimed.
    pub segments_reclaimed: u64,
    /// Reads the device failed.
    pub read_errors: u64,
    /// Writes the device failed or cut short without end.
    pub write_errors: u64,
    /// Flushes the device failed.
    pub flush_errors: u64,
    /// Records that came back with a wrong checksum or another identity.
    pub checksum_errors: u64,
    /// Operations that were not done by their deadline.
    pub timeouts: u64,
    /// Short transfers and momentary refusals that were taken up again.
    pub retries: u64,
    /// Durations of reads.
    pub read_latency: Latency,
    /// Durations of writes.
    pub write_latency: Latency,
    /// Durations of flushes.
    pub flush_latency: Latency,
}

impl DriveCounters {
    /// Operations that failed, of any kind.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.read_errors + self.write_errors + self.flush_errors + self.checksum_errors + self.timeouts
    }
}

/// A drive, as its engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveStatus {
    /// The drive.
    pub id: DriveId,
    /// Where it was opened.
    pub path: PathBuf,
    /// Whether it can be used.
    pub state: DriveState,
    /// Why it is fenced or gone; empty otherwise.
    pub reason: String,
    /// Number of this mount.
    pub mount_epoch: u64,
    /// Bytes it offers for segments.
    pub capacity: ByteCount,
    /// Bytes in segments that hold records, live or not yet reclaimed.
    pub used: ByteCount,
    /// Bytes in live records, headers and padding included.
    pub live: ByteCount,
    /// Bytes new shards may take now, the reserve taken off.
    pub free: ByteCount,
    /// Live shards.
    pub shards: u64,
    /// Bytes of memory the index takes.
    pub index_memory: ByteCount,
    /// Figures since it was opened.
    pub counters: DriveCounters,
}

/// Why a shard was not written. Nothing of it will be found later, or it will be found whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// No room but the reserve. Deleting helps.
    #[error("drive {drive} is full: {free} left for new shards")]
    Full {
        /// The drive.
        drive: DriveId,
        /// Room left.
        free: ByteCount,
    },
    /// The drive holds a newer generation.
    #[error("shard {id}: {given} is older than {stored} on drive {drive}")]
    Stale {
        /// The drive.
        drive: DriveId,
        /// The shard.
        id: ShardId,
        /// What was to be written.
        given: Generation,
        /// What is there.
        stored: Generation,
    },
    /// The same generation is there with another length: two writers disagree.
    #[error("shard {id} {generation} is on drive {drive} already, with another content")]
    Conflict {
        /// The drive.
        drive: DriveId,
        /// The shard.
        id: ShardId,
        /// The generation.
        generation: Generation,
    },
    /// Not a shard that can be.
    #[error("shard {id} cannot be written")]
    Invalid {
        /// The shard.
        id: ShardId,
        /// Why.
        source: FormatError,
    },
    /// A write or flush failed: the drive takes nothing any more.
    #[error("drive {drive} is fenced: {why}")]
    Fenced {
        /// The drive.
        drive: DriveId,
        /// What failed.
        why: String,
    },
    /// The drive answers no more.
    #[error("drive {drive} is gone: {why}")]
    Gone {
        /// The drive.
        drive: DriveId,
        /// How that showed.
        why: String,
    },
    /// The drive was closed.
    #[error("drive {drive} is closed")]
    Closed {
        /// The drive.
        drive: DriveId,
    },
}

/// Why a shard was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GetError {
    /// It is not there.
    #[error("shard {id} is not on drive {drive}")]
    NotFound {
        /// The drive.
        drive: DriveId,
        /// The shard.
        id: ShardId,
    },
    /// Another generation is there.
    #[error("shard {id}: {given} was asked for, {stored} is on drive {drive}")]
    OtherGeneration {
        /// The drive.
        drive: DriveId,
        /// The shard.
        id: ShardId,
        /// What was asked for.
        given: Generation,
        /// What is there.
        stored: Generation,
    },
    /// The range is not inside the payload.
    #[error("shard {id} on drive {drive} has {payload_len} B; bytes {start}..{end} were asked for")]
    OutOfRange {
        /// The drive.
        drive: DriveId,
        /// The shard.
        id: ShardId,
        /// Bytes it has.
        payload_len: u32,
        /// First byte asked for.
        start: u32,
        /// One past the last.
        end: u32,
    },
    /// What the device gave is not what was written.
    #[error("shard {id} on drive {drive}, segment {segment}, sector {sector}, is damaged: {what}")]
    Damaged {
        /// The drive.
        drive: DriveId,
        /// The shard.
        id: ShardId,
        /// Segment it lies in.
        segment: u32,
        /// Sector of its header.
        sector: u32,
        /// What was wrong.
        what: String,
    },
    /// The device failed the read.
    #[error("shard {id}: drive {drive} failed the read: {what}")]
    Device {
        /// The drive.
        drive: DriveId,
        /// The shard.
        id: ShardId,
        /// Its answer.
        what: String,
    },
    /// Not done in time. The device may still be at it.
    #[error("shard {id}: drive {drive} did not answer within {deadline:?}")]
    Deadline {
        /// The drive.
        drive: DriveId,
        /// The shard.
        id: ShardId,
        /// The time it had.
        deadline: Duration,
    },
    /// The drive answers no more.
    #[error("drive {drive} is gone: {why}")]
    Gone {
        /// The drive.
        drive: DriveId,
        /// How that showed.
        why: String,
    },
    /// The drive was closed.
    #[error("drive {drive} is closed")]
    Closed {
        /// The drive.
        drive: DriveId,
    },
}

/// Why a shard was not deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// Even the reserve is used up; reclaiming will make room.
    #[error("drive {drive} has no room for a tombstone now; try again")]
    Full {
        /// The drive.
        drive: DriveId,
    },
    /// A write or flush failed: the drive takes nothing any more.
    #[error("drive {drive} is fenced: {why}")]
    Fenced {
        /// The drive.
        drive: DriveId,
        /// What failed.
        why: String,
    },
    /// The drive answers no more.
    #[error("drive {drive} is gone: {why}")]
    Gone {
        /// The drive.
        drive: DriveId,
        /// How that showed.
        why: String,
    },
    /// The drive was closed.
    #[error("drive {drive} is closed")]
    Closed {
        /// The drive.
        drive: DriveId,
    },
}
