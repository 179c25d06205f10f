//! The offline inspector: reads a device through and verifies every checksum, changing nothing.
//!
//! Its read path is its own: tokio-uring and buffered reads, nothing of the engine, of `holdfast-ring` or
//! of the mount. Only the layouts are shared. So a mistake in the engine's reading does not hide itself.
//!
//! Meant for a drive that nobody has open: on one in use, the newest records may look torn.

mod walk;

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
};

use holdfast_format::{DriveLabel, LABEL_COPIES};
use holdfast_model::{ByteCount, Generation, ShardId, TenantId, UnixMillis};

/// Why a device could not be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It could not be opened or read at all.
    #[error("cannot read {}", path.display())]
    Device {
        /// The device.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It holds no readable label.
    #[error("{} holds no drive of Holdfast: {what}", path.display())]
    NoLabel {
        /// The device.
        path: PathBuf,
        /// What the copies of the label said.
        what: String,
    },
}

/// A record, as the inspector found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedRecord {
    /// Segment it lies in.
    pub segment: u32,
    /// Sector of its header.
    pub sector: u32,
    /// The shard.
    pub shard: ShardId,
    /// Version of its place.
    pub generation: Generation,
    /// Whose shard.
    pub tenant: TenantId,
    /// Data and parity shards of its stripe.
    pub geometry: (u8, u8),
    /// Payload bytes.
    pub payload_len: u32,
    /// Bytes of sealed manifest.
    pub manifest_len: usize,
    /// When it was first written to this drive.
    pub written: UnixMillis,
    /// Every block matches its checksum.
    pub sound: bool,
}

impl fmt::Display for InspectedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            segment,
            sector,
            shard,
            generation,
            tenant,
            geometry: (k, m),
            payload_len,
            manifest_len,
            ..
        } = self;
        let sound = if self.sound { "sound" } else { "DAMAGED" };
        write!(
            f,
            "segment {segment} sector {sector}: shard {shard} {generation} tenant {tenant} {k}+{m}, \
             {payload_len} B, manifest {manifest_len} B, {sound}"
        )
    }
}

/// One segment that holds records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedSegment {
    /// Position on the drive.
    pub segment: u32,
    /// Its life.
    pub life: u64,
    /// It has a footer.
    pub sealed: bool,
    /// Records found.
    pub records: u64,
    /// Of those, named by a tombstone.
    pub dead: u64,
    /// Tombstones found.
    pub tombstones: u64,
    /// Bytes of payload found.
    pub payload: ByteCount,
}

/// A copy of a shard that no tombstone names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveShard {
    /// Whose it is.
    pub tenant: TenantId,
    /// Version of its place.
    pub generation: Generation,
    /// Every block matches its checksum.
    pub sound: bool,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Byte on the device.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// What a device holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The device.
    pub path: PathBuf,
    /// The current label.
    pub label: DriveLabel,
    /// Copies of the label that are good.
    pub good_labels: usize,
    /// Segments that hold records.
    pub segments: Vec<InspectedSegment>,
    /// Segments that were never used, or were freed.
    pub free_segments: u32,
    /// Shards with at least one copy that no tombstone names: the best copy of each.
    pub live: HashMap<ShardId, LiveShard>,
    /// What is wrong: the first thousand.
    pub problems: Vec<Problem>,
    /// How much is wrong in all.
    pub problem_count: u64,
}

impl Inspection {
    /// Whether everything on the device is as it should be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problem_count == 0
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DriveLabel { cluster, drive, node, layout, fenced, mount_epoch, counter, durable, .. } =
            &self.label;
        writeln!(f, "drive     {drive}{}", if *fenced { "  FENCED" } else { "" })?;
        writeln!(f, "device    {}", self.path.display())?;
        writeln!(f, "cluster   {cluster}, formatted by node {node}")?;
        writeln!(
            f,
            "capacity  {} in {} segments of {}",
            layout.capacity(),
            layout.segments(),
            layout.segment_size()
        )?;
        let labels = self.good_labels;
        writeln!(
            f,
            "labels    {labels} of {LABEL_COPIES} good, write {counter}, mount {mount_epoch}, durable to {}",
            durable.get()
        )?;
        let total = |get: fn(&InspectedSegment) -> u64| self.segments.iter().map(get).sum::<u64>();
        let payload = ByteCount::new(total(|s| s.payload.get()));
        let (records, dead) = (total(|s| s.records), total(|s| s.dead));
        writeln!(
            f,
            "records   {records}, {dead} of them dead, {payload} of payload; {} live shards",
            self.live.len()
        )?;
        writeln!(f, "segments  {} used, {} free", self.segments.len(), self.free_segments)?;
        for s in &self.segments {
            let sealed = if s.sealed { "sealed" } else { "open" };
            writeln!(
                f,
                "  {:>6}  life {}, {sealed}, {} records ({} dead), {} tombstones, {}",
                s.segment, s.life, s.records, s.dead, s.tombstones, s.payload
            )?;
        }
        for problem in &self.problems {
            writeln!(f, "PROBLEM at byte {}: {}", problem.offset, problem.what)?;
        }
        let shown = self.problems.len() as u64;
        if self.problem_count > shown {
            writeln!(f, "... and {} more", self.problem_count - shown)?;
        }
        write!(f, "{}", if self.is_sound() { "sound: every checksum matches" } else { "NOT SOUND" })
    }
}

/// Inspects the device at `path`. Blocking.
///
/// # Errors
/// [`InspectError`] when there is nothing to inspect; what is wrong with a drive is in the report.
pub fn inspect(path: &Path) -> Result<Inspection, InspectError> {
    inspect_each(path, |_| {})
}

/// As [`inspect`], and hands over every record as it is found.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_each(
    path: &Path,
    each: impl FnMut(&InspectedRecord) + Send,
) -> Result<Inspection, InspectError> {
    // Its own thread: tokio-uring brings a runtime, which cannot start inside another one.
    let panicked =
        || InspectError::Device { path: path.to_owned(), source: io::Error::other("the inspector panicked") };
    std::thread::scope(|scope| {
        let inspector = scope.spawn(|| tokio_uring::start(walk::Inspector::run(path, each)));
        inspector.join().unwrap_or_else(|_| Err(panicked()))
    })
}
