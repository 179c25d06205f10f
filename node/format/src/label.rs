//! The drive label.

use holdfast_model::{ByteCount, ClusterId, DriveId, NodeId, UnixMillis};

use crate::{
    FormatError, Layout, MOUNT_EPOCH_MAX, Sector, Sequence,
    bytes::{Extent, Kind},
};

/// Copies of the label: two at each end of the drive.
pub const LABEL_COPIES: usize = 4;

const KIND: Kind = Kind { what: "drive label", magic: *b"HFDRIVE\0", version: 1, extent: Extent::Small };

const FLAG_FENCED: u32 = 1;

/// Drive label, version 1: one sector, in four copies that differ in `copy` only. Little-endian.
///
/// | offset | size | field            | meaning                                                      |
/// |-------:|-----:|------------------|--------------------------------------------------------------|
/// |      0 |    8 | magic            | `HFDRIVE` and a zero byte                                    |
/// |      8 |    2 | version          | 1                                                            |
/// |     10 |    2 | copy             | which copy this is, 0 to 3                                   |
/// |     12 |    4 | flags            | bit 0: fenced, for good; the others zero, verified           |
/// |     16 |   16 | cluster          | the cluster it was formatted for                             |
/// |     32 |   16 | drive            | random, chosen when formatted                                |
/// |     48 |    8 | node             | the node that formatted it                                   |
/// |     56 |    8 | capacity         | bytes used, whole sectors                                    |
/// |     64 |    8 | segment size     | bytes                                                        |
/// |     72 |    8 | formatted        | Unix milliseconds, for display                               |
/// |     80 |    8 | mount epoch      | counts mounts; a clone that was away is behind               |
/// |     88 |    8 | counter          | counts label writes; the highest copy is the current one     |
/// |     96 |    8 | durable sequence | everything up to this had been flushed when it was written   |
/// |    104 |  404 | reserved         | zero, verified                                               |
/// |    508 |    4 | checksum         | CRC-32C of bytes 0..508                                      |
/// |    512 | 3584 | reserved         | zero, verified                                               |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriveLabel {
    /// The cluster it was formatted for.
    pub cluster: ClusterId,
    /// The drive.
    pub drive: DriveId,
    /// The node that formatted it.
    pub node: NodeId,
    /// The geometry.
    pub layout: Layout,
    /// When it was formatted.
    pub formatted: UnixMillis,
    /// A write or a flush failed on this drive once: it takes nothing any more.
    pub fenced: bool,
    /// Mounts so far.
    pub mount_epoch: u64,
    /// Label writes so far.
    pub counter: u64,
    /// Everything up to this had been flushed when the label was written.
    pub durable: Sequence,
}

impl DriveLabel {
    /// Reads a label; the number is which copy it says it is.
    ///
    /// # Errors
    /// [`FormatError::Blank`] and [`FormatError::Foreign`] when there is no label,
    /// [`FormatError::UnknownVersion`] from a newer release, otherwise damage.
    pub fn parse(sector: &Sector) -> Result<(Self, u16), FormatError> {
        let mut r = KIND.open(sector)?;
        let copy = r.u16();
        let flags = r.u32();
        let cluster = ClusterId::from_bytes(r.array());
        let drive = DriveId::from_bytes(r.array());
        let node = NodeId::new(r.u64());
        let capacity = ByteCount::new(r.u64());
        let segment_size = ByteCount::new(r.u64());
        let formatted = UnixMillis::new(r.u64());
        let (mount_epoch, counter, durable) = (r.u64(), r.u64(), r.sequence()?);
        r.reserved_until(KIND.extent.checksum_offset())?;
        if usize::from(copy) >= LABEL_COPIES {
            return Err(r.impossible("copy"));
        }
        if mount_epoch > MOUNT_EPOCH_MAX || counter > Sequence::MAX.get() {
            return Err(r.impossible("count of mounts or label writes"));
        }
        if flags & !FLAG_FENCED != 0 {
            return Err(r.impossible("flags"));
        }
        let layout =
            Layout::with_segment_size(capacity, segment_size).map_err(|_| r.impossible("geometry"))?;
        if layout.capacity() != capacity {
            return Err(r.impossible("capacity"));
        }
        let fenced = flags & FLAG_FENCED != 0;
        Ok((Self { cluster, drive, node, layout, formatted, fenced, mount_epoch, counter, durable }, copy))
    }

    /// Writes copy number `copy`.
    pub fn encode(&self, copy: u16, sector: &mut Sector) {
        let mut w = KIND.start(sector);
        w.u16(copy);
        w.u32(if self.fenced { FLAG_FENCED } else { 0 });
        w.bytes(self.cluster.as_bytes());
        w.bytes(self.drive.as_bytes());
        w.u64(self.node.get());
        w.u64(self.layout.capacity().get());
        w.u64(self.layout.segment_size().get());
        w.u64(self.formatted.get());
        w.u64(self.mount_epoch);
        w.u64(self.counter);
        w.u64(self.durable.get());
        KIND.seal(sector);
    }
}
