//! The last half of a mount: writing down what it found out, so that the next one starts from there.

use std::io;

use holdfast_format::{
    DriveLabel, Footer, Place, ResumeBlock, SEGMENT_HEADER_SECTORS, SegmentHeader, SegmentSequence,
    SegmentState, Sequence,
};
use holdfast_model::limits::SECTOR_SIZE;
use holdfast_ring::BlockDevice;

use crate::{
    blocking::{Blocking, TRANSFER_SIZE_MAX},
    probe::unix_now,
    scan::{Owner, Scanned},
    survey::{SegmentContent, Survey},
};

/// A segment is filled further when at least one part in so many is left of it.
const RESUME_ROOM: u32 = 16;

/// Writing what the mount found out: footers, a resume block, headers that were damaged. All of it flushed.
pub(crate) struct Rewrite<'a> {
    pub(crate) owner: &'a Owner,
    pub(crate) label: &'a DriveLabel,
    pub(crate) durable: Sequence,
    /// The next sequence that will be given out.
    pub(crate) next: Sequence,
}

impl Rewrite<'_> {
    /// Returns where the newest segment is filled further, if it is.
    pub(crate) fn run<D: BlockDevice>(
        &self,
        io: &mut Blocking<'_, D>,
        survey: &Survey,
        footers: &[Footer],
    ) -> io::Result<Option<u32>> {
        let size = self.owner.layout.segment_sectors();
        let mut next_life = survey.next_life;
        for segment in &survey.bad_free {
            self.header(io, *segment, SegmentState::Free, next_life, Sequence::NONE)?;
            next_life = next_life.next();
        }
        let mut resumed = None;
        // One after the other, oldest first: a footer says that everything before it is flushed.
        for (i, (found, footer)) in survey.used.iter().zip(footers).enumerate() {
            if found.header_bad {
                self.header(io, found.segment, SegmentState::Used, found.life, found.first)?;
            }
            let SegmentContent::Scanned(scanned) = &found.content else { continue };
            if i + 1 == survey.used.len()
                && let Some(sector) = self.resume(io, scanned, footer)?
            {
                resumed = Some(sector);
            } else {
                let bytes = footer.encode();
                let sectors = u32::try_from(bytes.len() / SECTOR_SIZE).expect("a footer fits its segment");
                self.write(io, found.segment, size - sectors, &bytes)?;
            }
            io.flush()?;
        }
        // Also makes durable what was found whole, but had perhaps not been flushed before the crash.
        io.flush()?;
        Ok(resumed)
    }

    /// Settles what is in the newest segment; returns the sector to go on from, or `None` when it is full.
    fn resume<D: BlockDevice>(
        &self,
        io: &mut Blocking<'_, D>,
        scanned: &Scanned,
        footer: &Footer,
    ) -> io::Result<Option<u32>> {
        let size = self.owner.layout.segment_sectors();
        let (records, tombstones) = (footer.records.len(), footer.tombstones.len());
        // As large as a footer with the same entries: both are a sector and a table.
        let sectors = Footer::sectors_for(records, tombstones);
        if scanned.end + sectors + size / RESUME_ROOM + Footer::sectors_for(records + 1, tombstones) > size {
            return Ok(None);
        }
        if scanned.items.is_empty()
            && scanned.settled.as_ref().is_some_and(|settled| settled.next == self.next)
        {
            return Ok(Some(scanned.end));
        }
        let Footer { cluster, drive, segment, life, lost, .. } = *footer;
        let place = Place { cluster, drive, segment, sector: scanned.end, life };
        let bytes = ResumeBlock::encode(place, size, lost, self.next, &footer.records, &footer.tombstones);
        self.write(io, segment, scanned.end, &bytes)?;
        Ok(Some(scanned.end + sectors))
    }

    fn write<D: BlockDevice>(
        &self,
        io: &mut Blocking<'_, D>,
        segment: u32,
        mut sector: u32,
        bytes: &[u8],
    ) -> io::Result<()> {
        for chunk in bytes.chunks(TRANSFER_SIZE_MAX) {
            let mut buffer = io.frame(chunk.len())?;
            buffer.framed_mut().copy_from_slice(chunk);
            io.write(self.owner.layout.offset(segment, sector), buffer)?;
            sector += u32::try_from(chunk.len() / SECTOR_SIZE).expect("a transfer is few sectors");
        }
        Ok(())
    }

    fn header<D: BlockDevice>(
        &self,
        io: &mut Blocking<'_, D>,
        segment: u32,
        state: SegmentState,
        life: SegmentSequence,
        first: Sequence,
    ) -> io::Result<()> {
        let header = SegmentHeader {
            cluster: self.owner.cluster,
            drive: self.owner.drive,
            segment,
            sectors: self.owner.layout.segment_sectors(),
            state,
            life,
            first,
            durable: self.durable,
            mount_epoch: self.label.mount_epoch,
            written: unix_now(),
        };
        let mut buffer = io.frame(SEGMENT_HEADER_SECTORS as usize * SECTOR_SIZE)?;
        for sector in buffer.framed_mut().chunks_exact_mut(SECTOR_SIZE) {
            header.encode(sector.try_into().expect("one sector"));
        }
        io.write(self.owner.layout.offset(segment, 0), buffer).map(drop)
    }
}
