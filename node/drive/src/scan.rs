//! Reading a segment through, sector by sector: for segments without a footer.
//!
//! Finds every whole header of the segment's life, wherever it lies, so that one bad record does not hide
//! those after it. What that means (torn or damaged) is decided by the mount.

use std::io;

use holdfast_format::{
    FooterRecord, Layout, Place, RecordHeader, SEGMENT_HEADER_SECTORS, SegmentSequence, Sequence, Tombstone,
    TombstoneBlock,
};
use holdfast_model::{ClusterId, DriveId, limits::SECTOR_SIZE};
use holdfast_ring::BlockDevice;

use crate::blocking::{Blocking, TRANSFER_SIZE_MAX};

/// Sectors read at a time.
const CHUNK_SECTORS: u32 = (TRANSFER_SIZE_MAX / SECTOR_SIZE) as u32;

/// Something found in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) sequence: Sequence,
    /// What its header says had been flushed when it was written.
    pub(crate) durable: Sequence,
    pub(crate) life: SegmentSequence,
    pub(crate) content: Content,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A record. `damaged`: its header is whole, its payload is not.
    Record(FooterRecord),
    /// A block of tombstones.
    Tombstones(Vec<Tombstone>),
}

/// Who the segment belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) cluster: ClusterId,
    pub(crate) drive: DriveId,
    pub(crate) layout: Layout,
}

/// Everything of `life` in the segment, in order. Without `life`, of the highest one found.
///
/// Sectors that cannot be read count as blank: what lay there shows as a missing sequence.
///
/// # Errors
/// When the device gives no answers at all.
pub(crate) fn scan<D: BlockDevice>(
    io: &mut Blocking<'_, D>,
    owner: &Owner,
    segment: u32,
    life: Option<SegmentSequence>,
) -> io::Result<Vec<Item>> {
    let end = owner.layout.segment_sectors();
    let mut window = Window { segment, layout: owner.layout, first: 0, bytes: Vec::new() };
    let mut items: Vec<Item> = Vec::new();
    let mut at = SEGMENT_HEADER_SECTORS;
    while at < end {
        let sector = window.sectors(io, at, 1)?.first_chunk().expect("one sector was asked for");
        let ours = |place: Place| {
            let expected =
                Place { cluster: owner.cluster, drive: owner.drive, segment, sector: at, life: place.life };
            place == expected && life.is_none_or(|life| life == place.life)
        };
        if let Ok(header) = RecordHeader::parse(sector)
            && ours(header.place)
            && u64::from(at) + u64::from(header.sectors()) <= u64::from(end)
        {
            let payload = &window.sectors(io, at + 1, header.sectors() - 1)?[..header.payload_len as usize];
            let damaged = header.blocks.verify(0, payload).is_err();
            items.push(record_item(&header, at, damaged));
            at += header.sectors();
            continue;
        }
        if let Ok(block) = TombstoneBlock::parse(sector)
            && ours(block.place)
        {
            let (sequence, durable, life) = (block.sequence, block.durable, block.place.life);
            items.push(Item { sequence, durable, life, content: Content::Tombstones(block.entries) });
        }
        at += 1;
    }
    let newest = items.iter().map(|item| item.life).max();
    items.retain(|item| Some(item.life) == newest);
    Ok(items)
}

fn record_item(header: &RecordHeader, sector: u32, damaged: bool) -> Item {
    let record = FooterRecord {
        shard: header.shard,
        generation: header.generation,
        tenant: header.tenant,
        sequence: header.sequence,
        written: header.written,
        payload_len: header.payload_len,
        sector,
        damaged,
    };
    let (sequence, durable, life) = (header.sequence, header.durable, header.place.life);
    Item { sequence, durable, life, content: Content::Record(record) }
}

/// A stretch of the segment in memory.
struct Window {
    segment: u32,
    layout: Layout,
    first: u32,
    bytes: Vec<u8>,
}

impl Window {
    fn sectors<D: BlockDevice>(
        &mut self,
        io: &mut Blocking<'_, D>,
        at: u32,
        count: u32,
    ) -> io::Result<&[u8]> {
        let held = u32::try_from(self.bytes.len() / SECTOR_SIZE).expect("a few chunks");
        if at < self.first || at > self.first + held {
            self.first = at;
            self.bytes.clear();
        }
        // What lies before `at` is done with.
        let done = (at - self.first) as usize * SECTOR_SIZE;
        if done >= TRANSFER_SIZE_MAX {
            self.bytes.drain(..done);
            self.first = at;
        }
        while self.first + u32::try_from(self.bytes.len() / SECTOR_SIZE).expect("a few chunks") < at + count {
            self.extend(io)?;
        }
        let start = (at - self.first) as usize * SECTOR_SIZE;
        Ok(&self.bytes[start..start + count as usize * SECTOR_SIZE])
    }

    fn extend<D: BlockDevice>(&mut self, io: &mut Blocking<'_, D>) -> io::Result<()> {
        let next = self.first + u32::try_from(self.bytes.len() / SECTOR_SIZE).expect("a few chunks");
        let count = CHUNK_SECTORS.min(self.layout.segment_sectors() - next);
        match io.read(self.layout.offset(self.segment, next), count as usize * SECTOR_SIZE) {
            Ok(buffer) => self.bytes.extend_from_slice(buffer.framed()),
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Err(error),
            Err(_) => {
                // Find the sectors that can be read.
                for sector in next..next + count {
                    match io.read(self.layout.offset(self.segment, sector), SECTOR_SIZE) {
                        Ok(buffer) => self.bytes.extend_from_slice(buffer.framed()),
                        Err(_) => self.bytes.resize(self.bytes.len() + SECTOR_SIZE, 0),
                    }
                }
            }
        }
        Ok(())
    }
}
