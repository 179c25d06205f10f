//! Why something was not done: one variant for each thing a caller may do differently.

use std::{io, path::PathBuf, time::Duration};

use holdfast_format::{FormatError, LayoutError};
use holdfast_model::{ByteCount, ClusterId, DriveId, Generation, ShardId};
use holdfast_ring::DeviceError;

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
    /// The drive is being emptied.
    #[error("drive {drive} is being emptied and takes no new shards")]
    Draining {
        /// The drive.
        drive: DriveId,
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
    /// More than a record of this drive holds.
    #[error("shard {id} has {length} B; a record on drive {drive} holds {most} B at most")]
    TooLarge {
        /// The drive.
        drive: DriveId,
        /// The shard.
        id: ShardId,
        /// Bytes it has.
        length: usize,
        /// Bytes a record may have here.
        most: usize,
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
    #[error("shard {id} on drive {drive}, segment {segment}, byte {offset}, is damaged: {what}")]
    Damaged {
        /// The drive.
        drive: DriveId,
        /// The shard.
        id: ShardId,
        /// Segment it lies in.
        segment: u32,
        /// Sector of its header in the segment.
        sector: u32,
        /// First byte of its header, from the start of the device.
        offset: u64,
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
