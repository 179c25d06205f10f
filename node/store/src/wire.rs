//! What nodes ask each other about shards. Bodies are postcard; payload bytes travel beside them.

use holdfast_model::{DriveId, Generation, Level, NodeId, PartitionId, ShardId, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::{reader::StoredStripe, rebuilder::Relocation};

/// Body of `ShardPut`; the payload is the shard.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PutShard {
    pub drive: DriveId,
    pub id: ShardId,
    pub generation: Generation,
    pub tenant: TenantId,
    pub data: u8,
    pub parity: u8,
    pub manifest: Vec<u8>,
}

/// Body of `ShardGet`; the reply's payload is the range.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GetShard {
    pub drive: DriveId,
    pub id: ShardId,
    pub generation: Generation,
    pub start: u32,
    pub end: u32,
}

/// Body of `ShardGetWhole`; the reply's payload is the shard, its body the record's sealed manifest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GetWholeShard {
    pub drive: DriveId,
    pub id: ShardId,
    pub generation: Generation,
}

/// Body of `ShardList`: shards after the given one, in order. The reply's body is a list of [`Listed`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListShards {
    pub drive: DriveId,
    pub after: Option<ShardId>,
    pub limit: u32,
}

/// A shard that a drive holds, and the generation of its record.
pub(crate) type Listed = (ShardId, Generation);

/// Body of `ShardDelete`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeleteShard {
    pub drive: DriveId,
    pub id: ShardId,
    pub generation: Generation,
}

/// Body of `ShardRelocate`: what [`StripeRebuilder::relocate`](crate::StripeRebuilder::relocate) takes. The reply's body is
/// a [`Moved`](crate::Moved); a refusal's message a [`RebuildFailed`](crate::RebuildFailed) as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RelocateShards {
    pub tenant: TenantId,
    pub stripe: StoredStripe,
    pub relocations: Vec<Relocation>,
    pub generation: Generation,
}

/// Answer to `NodeStatus`: what a node says about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeReport {
    /// Who answers.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its program's version.
    pub version: String,
    /// Seconds since its program started.
    pub uptime_seconds: u64,
    /// Whether it has opened its drives; until then none is listed.
    pub drives_open: bool,
    /// Its drives.
    pub drives: Vec<DriveReport>,
    /// Devices that are not drives of the cluster, or not yet.
    pub devices: Vec<DeviceReport>,
    /// What its background workers are at.
    pub workers: Vec<WorkerReport>,
    /// Debt of the partitions whose groups it leads.
    pub debts: Vec<DebtReport>,
    /// Levels in the partitions whose groups it leads.
    pub levels: Vec<LevelReport>,
}

/// One worker of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its kind.
    pub kind: String,
    /// At work now.
    pub working: bool,
    /// Kept from taking up anything.
    pub held: bool,
    /// Dealt with in this run.
    pub done: u64,
    /// Left.
    pub left: u64,
    /// To be tried again.
    pub failed: u64,
    /// Read and written.
    pub bytes: u64,
    /// A second.
    pub bytes_per_second: u64,
    /// Length of this run.
    pub elapsed_seconds: u64,
    /// Until its end at this rate.
    pub remaining_seconds: Option<u64>,
    /// What holds it up.
    pub trouble: Option<String>,
}

/// Debt of one partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DebtReport {
    /// The partition.
    pub partition: PartitionId,
    /// Whose.
    pub tenant: TenantId,
    /// Stripes by shards that cannot be read.
    pub by_lost: Vec<(u8, u64)>,
    /// Stripes that cannot be read at all.
    pub unreadable: u64,
    /// Shards on drives to be emptied.
    pub draining: u64,
}

/// Levels in one partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LevelReport {
    /// The partition.
    pub partition: PartitionId,
    /// What was asked for, when they were looked at, in buckets without a level of their own.
    pub requested: Level,
    /// Stripes in it.
    pub stripes: u64,
    /// Stripes that are to be cut anew.
    pub pending: u64,
    /// Buckets with a level of their own, or of which something is pending; some of them when they are many.
    pub buckets: Vec<BucketLevelReport>,
}

/// The level of one bucket's stripes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BucketLevelReport {
    /// The bucket's name.
    pub bucket: String,
    /// What is asked for.
    pub requested: Level,
    /// It is the bucket's own, and not the tenant's.
    pub own: bool,
    /// What its weakest stripe has; `None` when losing one node loses it.
    pub actual: Option<Level>,
    /// Stripes it has.
    pub stripes: u64,
    /// Stripes that are to be cut anew.
    pub pending: u64,
}

/// One drive, as its node sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DriveReport {
    /// The drive.
    pub id: DriveId,
    /// Device path on its node.
    pub path: String,
    /// Whether it can be used.
    pub state: DriveReportState,
    /// Size in bytes.
    pub capacity_bytes: u64,
    /// Bytes in use, headers and not yet reclaimed space included.
    pub used_bytes: u64,
    /// Bytes in live records.
    pub live_bytes: u64,
    /// Bytes that new shards may take.
    pub free_bytes: u64,
    /// Shards held.
    pub shards: u64,
    /// Failed operations since the drive was opened.
    pub errors: u64,
    /// Printed on the device; empty when it tells none.
    pub serial: String,
    /// Why it is anything but live; empty when it is.
    pub reason: String,
    /// Its light blinks until then.
    pub locate_until: Option<UnixMillis>,
}

/// A device that is not a drive of the cluster, or not yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Printed on it, or its place.
    pub serial: String,
    /// Device path on its node.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What it is.
    pub standing: DeviceStanding,
    /// Why it is not used, and what to do; empty while it waits for approval.
    pub reason: String,
    /// The drive that its label names.
    pub drive: Option<DriveId>,
    /// Its light blinks until then.
    pub locate_until: Option<UnixMillis>,
}

/// What a device is that is not a drive of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceStanding {
    /// Blank: an operator may have it adopted.
    Waiting,
    /// Being made a drive.
    Adopting,
    /// A drive of another cluster.
    Foreign,
    /// A copy of a drive that is open.
    Duplicate,
    /// An old image of a drive.
    Stale,
    /// A drive that has left the cluster for good.
    Left,
    /// Something else is on it.
    Unknown,
    /// A drive whose labels are damaged.
    Damaged,
    /// It cannot be read or opened.
    Unreadable,
}

impl DeviceStanding {
    /// Whether it is adopted without a word about what is on it.
    #[must_use]
    pub fn is_blank(self) -> bool {
        self == Self::Waiting
    }

    /// Whether it can be erased and adopted.
    #[must_use]
    pub fn is_erasable(self) -> bool {
        !matches!(self, Self::Waiting | Self::Adopting | Self::Unreadable)
    }
}

/// Whether a drive can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriveReportState {
    /// Reads and writes.
    Live,
    /// Works, far slower than it should.
    Slow,
    /// A write or flush failed: closed for good.
    Fenced,
    /// No longer there.
    Gone,
    /// Works, but reads fail again and again.
    Failing,
    /// Being emptied.
    Draining,
}

impl DriveReportState {
    /// Whether new shards may go there.
    #[must_use]
    pub fn writable(self) -> bool {
        matches!(self, Self::Live | Self::Slow | Self::Failing)
    }

    /// Whether the shards there can be read.
    #[must_use]
    pub fn readable(self) -> bool {
        self.writable() || self == Self::Draining
    }
}
