//! What goes into a drive and what comes out: requests, options, reports.

use std::{fmt, path::PathBuf, time::Duration};

use holdfast_model::{ByteCount, ClusterId, DriveId, Generation, NodeId, ShardId, TenantId, UnixMillis};
use holdfast_ring::{Buffer, BufferPool};

use crate::errors::GetError;

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
    /// Bytes a second that a scrub may read, and that reclaiming may move while there is room; without limit when
    /// room is short.
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
    /// Counts writes of the label: an image taken earlier has a lower one.
    pub label_counter: u64,
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
    /// Structures that are not as they were written. What has a good copy or can be derived (labels, headers,
    /// footers, resume blocks) is repaired; what was lost with a record's header, `lost` counts.
    pub findings: Vec<Finding>,
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

/// A structure that is not as it was written, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The drive.
    pub drive: DriveId,
    /// Segment it lies in; `None` for labels.
    pub segment: Option<u32>,
    /// First byte of the structure, from the start of the device.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "drive {}, ", self.drive)?;
        match self.segment {
            Some(segment) => write!(f, "segment {segment}, ")?,
            None => f.write_str("labels, ")?,
        }
        write!(f, "byte {}: {}", self.offset, self.what)
    }
}

/// An acknowledged record that is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRecord {
    /// The drive.
    pub drive: DriveId,
    /// The shard.
    pub id: ShardId,
    /// Version of its place.
    pub generation: Generation,
    /// Segment it lies in.
    pub segment: u32,
    /// Sector of its header.
    pub sector: u32,
    /// First byte of its header, from the start of the device.
    pub offset: u64,
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
    /// How long the device worked for it. Not what was waited for: a quiet device, the pace, a processor.
    pub worked: Duration,
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
    /// Whose it is.
    pub tenant: TenantId,
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
    /// Works, but reads fail or bring back what was not written, again and again: its shards belong elsewhere.
    Failing,
    /// Takes no new shards, on request: it is being emptied. Reads, deletes and reclaims.
    Draining,
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
    /// Why it is anything but live; empty when it is.
    pub reason: String,
    /// Number of this mount.
    pub mount_epoch: u64,
    /// The highest counter of its label that is known to have been flushed: a label with a lower one, found on
    /// this drive later, is an old image of it.
    pub label_counter: u64,
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
