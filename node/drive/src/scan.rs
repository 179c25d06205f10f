//! Reading a segment through, sector by sector: for segments without a footer.
//!
//! Finds every whole header of the segment's life, wherever it lies, so that one bad record does not hide
//! those after it. What that means (torn or damaged) is decided by the mount.

use std::{collections::HashSet, io};

use holdfast_format::{
    FooterRecord, FormatError, Layout, Place, RecordHeader, ResumeBlock, SEGMENT_HEADER_SECTORS,
    SegmentSequence, Sequence, Tombstone, TombstoneBlock,
};
use holdfast_model::{ClusterId, DriveId, limits::SECTOR_SIZE};
use holdfast_ring::BlockDevice;

use crate::{
    blocking::{Blocking, TRANSFER_SIZE_MAX},
    planted::{self, Bug},
    types::Finding,
};

/// Sectors read at a time.
const CHUNK_SECTORS: u32 = (TRANSFER_SIZE_MAX / SECTOR_SIZE) as u32;

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// What the last resume block settled, if there is one.
    pub(crate) settled: Option<Settled>,
    /// What lies after it, or everything, in order.
    pub(crate) items: Vec<Item>,
    /// The first sector after all that was found.
    pub(crate) end: u32,
    /// Sectors that look like structures that were damaged.
    pub(crate) suspects: Vec<Suspect>,
    /// The first sector that belongs to nothing that was found.
    pub(crate) first_gap: Option<u32>,
}

/// A sector that looks like a structure that was damaged. For reports; nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub(crate) sector: u32,
    pub(crate) error: FormatError,
}

/// What a resume block says about what lies before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) records: Vec<FooterRecord>,
    pub(crate) tombstones: Vec<Tombstone>,
    pub(crate) lost: u32,
    pub(crate) next: Sequence,
}

/// Something found in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) sequence: Sequence,
    /// What its header says had been flushed when it was written.
    pub(crate) durable: Sequence,
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

impl Owner {
    /// Something wrong at a sector of a segment.
    pub(crate) fn finding(&self, segment: u32, sector: u32, what: String) -> Finding {
        let offset = self.layout.offset(segment, sector);
        Finding { drive: self.drive, segment: Some(segment), offset, what }
    }
}

/// The highest life of the segment that any sector tells of: for a segment whose header is no more.
///
/// # Errors
/// When the device gives no answers at all.
pub(crate) fn newest_life<D: BlockDevice>(
    io: &mut Blocking<'_, D>,
    owner: &Owner,
    segment: u32,
) -> io::Result<Option<SegmentSequence>> {
    let mut window = Window { segment, layout: owner.layout, first: 0, bytes: Vec::new() };
    let mut newest = None;
    for at in SEGMENT_HEADER_SECTORS..owner.layout.segment_sectors() {
        let sector = window.sectors(io, at, 1)?.first_chunk().expect("one sector was asked for");
        let record = RecordHeader::parse(sector).map(|h| h.place);
        let place = record.or_else(|_| TombstoneBlock::parse(sector).map(|b| b.place));
        let place = place.or_else(|_| ResumeBlock::parse(sector).map(|b| b.place));
        if let Ok(place) = place
            && place
                == (Place {
                    cluster: owner.cluster,
                    drive: owner.drive,
                    segment,
                    sector: at,
                    life: place.life,
                })
        {
            newest = newest.max(Some(place.life));
        }
    }
    Ok(newest)
}

/// Everything of `life` in the segment, in order.
///
/// Sectors that cannot be read count as blank: what lay there shows as a missing sequence.
///
/// # Errors
/// When the device gives no answers at all.
pub(crate) fn scan<D: BlockDevice>(
    io: &mut Blocking<'_, D>,
    owner: &Owner,
    segment: u32,
    life: SegmentSequence,
) -> io::Result<Scanned> {
    let size = owner.layout.segment_sectors();
    let mut window = Window { segment, layout: owner.layout, first: 0, bytes: Vec::new() };
    let end = SEGMENT_HEADER_SECTORS;
    let mut scanned =
        Scanned { settled: None, items: Vec::new(), end, suspects: Vec::new(), first_gap: None };
    let mut at = SEGMENT_HEADER_SECTORS;
    while at < size {
        let here = Place { cluster: owner.cluster, drive: owner.drive, segment, sector: at, life };
        let sector = window.sectors(io, at, 1)?.first_chunk().expect("one sector was asked for");
        let mut sectors = 0;
        let mut suspect = holdfast_format::damage(sector);
        if let Some(header) = RecordHeader::parse(sector).ok().filter(|h| h.place == here) {
            if u64::from(at) + u64::from(header.sectors()) <= u64::from(size) {
                sectors = header.sectors();
                let payload = &window.sectors(io, at + 1, sectors - 1)?[..header.payload_len as usize];
                let damaged = header.blocks.verify(0, payload).is_err();
                scanned.items.push(record_item(&header, at, damaged));
            }
        } else if let Some(block) = TombstoneBlock::parse(sector).ok().filter(|b| b.place == here) {
            sectors = 1;
            let (sequence, durable) = (block.sequence, block.durable);
            scanned.items.push(Item { sequence, durable, content: Content::Tombstones(block.entries) });
        } else if let Some(block) =
            ResumeBlock::parse(sector).ok().filter(|b| b.place == here && b.sectors == size)
        {
            let table = window.sectors(io, at + 1, block.table_sectors())?;
            match block.parse_table(table) {
                Ok((records, tombstones)) => {
                    sectors = 1 + block.table_sectors();
                    if !planted::is(Bug::IgnoreResume) {
                        scanned.settle(&block, records, tombstones);
                    }
                }
                Err(error) => suspect = Some(error),
            }
        }
        if sectors == 0 {
            scanned.first_gap.get_or_insert(at);
            scanned.suspects.extend(suspect.map(|error| Suspect { sector: at, error }));
        }
        if sectors == 0 && planted::is(Bug::StopAtBadSector) {
            break;
        }
        at += sectors.max(1);
        if sectors > 0 {
            scanned.end = at;
        }
    }
    Ok(scanned)
}

impl Scanned {
    /// What was found so far is what `block` lists. A listed record that was not found is damaged; what was
    /// found and is not listed is void.
    fn settle(&mut self, block: &ResumeBlock, mut records: Vec<FooterRecord>, tombstones: Vec<Tombstone>) {
        let before = self.settled.take().map(|settled| settled.records).unwrap_or_default();
        let items = std::mem::take(&mut self.items);
        // Whatever is wrong before this block was settled by the mount that wrote it.
        self.suspects.clear();
        self.first_gap = None;
        let found = items.iter().filter_map(|item| match &item.content {
            Content::Record(record) => Some(record),
            Content::Tombstones(_) => None,
        });
        let sound: HashSet<(u32, Sequence)> =
            before.iter().chain(found).filter(|r| !r.damaged).map(|r| (r.sector, r.sequence)).collect();
        for record in &mut records {
            record.damaged |= !sound.contains(&(record.sector, record.sequence));
        }
        self.settled = Some(Settled { records, tombstones, lost: block.lost, next: block.next });
    }

    /// The highest sequence found.
    pub(crate) fn highest(&self) -> Sequence {
        self.items.iter().map(|item| item.sequence).max().unwrap_or_default().max(self.before_items())
    }

    /// The highest sequence that this segment proves to have been flushed.
    pub(crate) fn durable(&self) -> Sequence {
        self.items.iter().map(|item| item.durable).max().unwrap_or_default().max(self.before_items())
    }

    /// What the resume block settled, up to this sequence.
    fn before_items(&self) -> Sequence {
        self.settled.as_ref().map_or(Sequence::NONE, |s| Sequence::new(s.next.get().saturating_sub(1)))
    }
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
    Item { sequence: header.sequence, durable: header.durable, content: Content::Record(record) }
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
