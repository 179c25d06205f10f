//! The log: the segment that takes records, room in it, sealing it, opening the next.
//!
//! Invariants:
//! - what is placed leaves room for a footer that lists it;
//! - a footer is written only when everything up to the segment's last sequence is flushed;
//! - the last room of the drive belongs to reclaiming.

use holdfast_format::{
    Footer, FooterRecord, SEGMENT_HEADER_SECTORS, SegmentHeader, SegmentSequence, SegmentState, Sequence,
    Tombstone,
};
use holdfast_model::limits::SECTOR_SIZE;
use holdfast_ring::{BlockDevice, Buffer};

use super::{Engine, PUT_RESERVE, flush::What};
use crate::{
    blocking::TRANSFER_SIZE_MAX,
    mount::Resumed,
    planted::{self, Bug},
    probe::unix_now,
    segments::Phase,
};

/// Segments that repairs leave free, and moves out of segments that may not become free by them: for tombstones and for
/// reclaiming.
pub(super) const REPAIR_RESERVE: usize = 2;

/// Segments that tombstones leave free: for reclaiming.
const TOMBSTONE_RESERVE: usize = 1;

const _: () = assert!(PUT_RESERVE > REPAIR_RESERVE && REPAIR_RESERVE > TOMBSTONE_RESERVE);

/// Who asks for room in the log: what it leaves free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// A shard that the drive does not hold.
    Put,
    /// A newer generation of one that it holds: what it replaces is dead space soon.
    Repair,
    Tombstone,
    /// A move from a segment that may turn out not to become free.
    Attempt,
    /// What makes a segment free for certain.
    Move,
}

impl Claim {
    fn reserve(self) -> usize {
        match self {
            Self::Put => PUT_RESERVE,
            Self::Repair | Self::Attempt => REPAIR_RESERVE,
            Self::Tombstone => TOMBSTONE_RESERVE,
            Self::Move => 0,
        }
    }
}

/// A segment whose records are still in memory: the open one, or one to be sealed.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) segment: u32,
    pub(super) life: SegmentSequence,
    pub(super) first: Sequence,
    pub(super) last: Sequence,
    /// Next sector to be written.
    pub(super) next: u32,
    pub(super) records: Vec<FooterRecord>,
    pub(super) tombstones: Vec<Tombstone>,
    /// Acknowledged records that earlier mounts could not read any more.
    pub(super) lost: u32,
    /// Pieces of the footer still to be written; counts only once the footer was started.
    pub(super) footer_left: Option<usize>,
}

impl OpenSegment {
    /// A segment that is filled further after a mount.
    pub(super) fn resume(resumed: Resumed) -> Self {
        let Resumed { next, footer } = resumed;
        let Footer { segment, life, first, last, lost, records, tombstones, .. } = footer;
        Self { segment, life, first, last, next, records, tombstones, lost, footer_left: None }
    }

    /// Whether so much more fits, with a footer that lists it.
    fn fits(&self, sectors: u32, records: usize, tombstones: usize, segment_sectors: u32) -> bool {
        let footer = Footer::sectors_for(self.records.len() + records, self.tombstones.len() + tombstones);
        self.next + sectors + footer <= segment_sectors
    }

    /// Sectors left for records.
    pub(super) fn room(&self, segment_sectors: u32) -> u32 {
        segment_sectors
            .saturating_sub(self.next + Footer::sectors_for(self.records.len() + 1, self.tombstones.len()))
    }
}

impl<D: BlockDevice> Engine<D> {
    pub(super) fn take_sequence(&mut self, segment: u32) -> Sequence {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.next();
        self.undurable.insert(sequence);
        self.segments.get_mut(segment).unflushed += 1;
        if let Some(open) = &mut self.open {
            open.last = sequence;
        }
        sequence
    }

    /// Whether so much fits the open segment; opens another one when it is full.
    ///
    /// What is left of the open segment belongs to reclaiming as soon as fewer segments are free than the
    /// claim must leave: reclaiming that runs out of room halfway could never make any again.
    pub(super) fn make_room(
        &mut self,
        sectors: u32,
        records: usize,
        tombstones: usize,
        claim: Claim,
    ) -> bool {
        let (free, reserve) = (self.segments.free_count(), claim.reserve());
        let size = self.layout.segment_sectors();
        let fits = |open: &OpenSegment| open.fits(sectors, records, tombstones, size);
        free >= reserve && self.open.as_ref().is_some_and(fits)
            || free > reserve && self.open_segment(claim).is_some()
    }

    /// Takes the next sectors of the open segment, for which [`Self::make_room`] said yes.
    pub(super) fn claim_room(&mut self, sectors: u32) -> (u32, SegmentSequence, u32) {
        let open = self.open.as_mut().expect("room was made in an open segment");
        let sector = open.next;
        open.next += sectors;
        (open.segment, open.life, sector)
    }

    pub(super) fn open_segment(&mut self, claim: Claim) -> Option<()> {
        let buffer = self.meta_frame(SEGMENT_HEADER_SECTORS as usize * SECTOR_SIZE)?;
        let life = self.next_life;
        let segment = self.segments.open(claim.reserve(), life)?;
        self.next_life = life.next();
        self.seal_open();
        let first = self.next_sequence;
        self.write_segment_header(segment, SegmentState::Used, life, first, buffer);
        self.open = Some(OpenSegment {
            segment,
            life,
            first,
            last: Sequence::new(first.get() - 1),
            next: SEGMENT_HEADER_SECTORS,
            records: Vec::new(),
            tombstones: Vec::new(),
            lost: 0,
            footer_left: None,
        });
        Some(())
    }

    pub(super) fn write_segment_header(
        &mut self,
        segment: u32,
        state: SegmentState,
        life: SegmentSequence,
        first: Sequence,
        mut buffer: Buffer,
    ) {
        let header = SegmentHeader {
            cluster: self.label.cluster,
            drive: self.drive,
            segment,
            sectors: self.layout.segment_sectors(),
            state,
            life,
            first,
            durable: self.durable(),
            mount_epoch: self.label.mount_epoch,
            written: unix_now(),
        };
        for sector in buffer.framed_mut().chunks_exact_mut(SECTOR_SIZE) {
            header.encode(sector.try_into().expect("one sector"));
        }
        let what = match state {
            SegmentState::Used => What::SegmentHeader,
            SegmentState::Free => What::FreeMark(segment),
        };
        if matches!(what, What::SegmentHeader) {
            self.headers_in_flight += 1;
        }
        self.write(what, self.layout.offset(segment, 0), buffer);
    }

    /// Marks a segment as free on the device. `false` when there is no memory for it now.
    pub(super) fn mark_free(&mut self, segment: u32) -> bool {
        let Some(buffer) = self.meta_frame(SEGMENT_HEADER_SECTORS as usize * SECTOR_SIZE) else {
            return false;
        };
        let life = self.segments.get(segment).life;
        self.phase(segment, Phase::Freeing);
        self.write_segment_header(segment, SegmentState::Free, life, Sequence::NONE, buffer);
        true
    }

    /// The open segment takes no more records.
    pub(super) fn seal_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.phase(open.segment, Phase::Sealing);
            self.sealing.push(open);
        }
    }

    /// Writes the footers of segments whose records, and all before them, are durable.
    pub(super) fn seal_what_is_durable(&mut self) {
        let durable = self.durable();
        for i in 0..self.sealing.len() {
            let open = &self.sealing[i];
            let ready = open.footer_left.is_none()
                && self.segments.get(open.segment).unflushed == 0
                && (open.last <= durable || open.records.is_empty() && open.tombstones.is_empty());
            let ready = ready || planted::is(Bug::FooterBeforeDurable) && open.footer_left.is_none();
            if ready && !self.write_footer(i) {
                break;
            }
        }
    }

    pub(super) fn write_footer(&mut self, i: usize) -> bool {
        let open = &mut self.sealing[i];
        let footer = Footer {
            cluster: self.label.cluster,
            drive: self.drive,
            segment: open.segment,
            sectors: self.layout.segment_sectors(),
            life: open.life,
            first: open.first,
            last: open.last,
            lost: open.lost,
            records: std::mem::take(&mut open.records),
            tombstones: std::mem::take(&mut open.tombstones),
        };
        let bytes = footer.encode();
        let buffers: Option<Vec<Buffer>> = bytes
            .chunks(TRANSFER_SIZE_MAX)
            .map(|chunk| self.meta.try_acquire(chunk.len() - SECTOR_SIZE))
            .collect();
        let open = &mut self.sealing[i];
        let Some(buffers) = buffers else {
            (open.records, open.tombstones) = (footer.records, footer.tombstones);
            return false;
        };
        open.footer_left = Some(buffers.len());
        let segment = open.segment;
        let s = self.segments.get_mut(segment);
        s.records = u32::try_from(footer.records.len()).expect("at most one record a sector");
        s.tombstones = u32::try_from(footer.tombstones.len()).expect("they fit the segment");
        let mut sector =
            self.layout.segment_sectors() - u32::try_from(bytes.len() / SECTOR_SIZE).expect("it fits");
        for (chunk, mut buffer) in bytes.chunks(TRANSFER_SIZE_MAX).zip(buffers) {
            buffer.framed_mut().copy_from_slice(chunk);
            self.write(What::Footer(segment), self.layout.offset(segment, sector), buffer);
            sector += u32::try_from(chunk.len() / SECTOR_SIZE).expect("a transfer is few sectors");
        }
        true
    }
}
