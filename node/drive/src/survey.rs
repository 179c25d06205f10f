//! The first half of a mount: what each segment of the drive is, without judging it yet.
//!
//! Reads all segment headers, then the footers of used segments; scans those that have no good footer.

use std::io;

use holdfast_format::{
    Footer, FooterTrailer, FormatError, SEGMENT_HEADER_SECTORS, SegmentHeader, SegmentSequence, SegmentState,
    Sequence,
};
use holdfast_model::limits::SECTOR_SIZE;
use holdfast_ring::BlockDevice;

use crate::{
    blocking::{Blocking, TRANSFER_SIZE_MAX},
    scan::{Owner, Scanned, newest_life, scan},
    types::MountReport,
};

/// One used segment, as found.
pub(crate) struct Found {
    pub(crate) segment: u32,
    pub(crate) life: SegmentSequence,
    pub(crate) first: Sequence,
    pub(crate) header_bad: bool,
    pub(crate) content: SegmentContent,
}

pub(crate) enum SegmentContent {
    Sealed(Footer),
    Scanned(Scanned),
}

impl Found {
    /// The highest sequence that this segment proves to have been flushed.
    pub(crate) fn durable(&self) -> Sequence {
        match &self.content {
            SegmentContent::Sealed(footer) => footer.last,
            SegmentContent::Scanned(scanned) => scanned.durable(),
        }
    }

    /// The highest sequence in this segment.
    pub(crate) fn highest(&self) -> Sequence {
        match &self.content {
            SegmentContent::Sealed(footer) => footer.last,
            SegmentContent::Scanned(scanned) => scanned.highest(),
        }
    }
}

/// All segments of the drive.
pub(crate) struct Survey {
    pub(crate) used: Vec<Found>,
    pub(crate) free: Vec<u32>,
    /// Free segments whose header must be written again.
    pub(crate) bad_free: Vec<u32>,
    pub(crate) next_life: SegmentSequence,
    pub(crate) durable: Sequence,
}

/// The header of a segment, from its two copies.
pub(crate) enum HeaderFound {
    Blank,
    /// With what is wrong with copies of it.
    Good {
        header: SegmentHeader,
        bad: Vec<(u32, String)>,
    },
    Bad(Vec<(u32, String)>),
}

fn header_of(owner: &Owner, segment: u32, frame: &[u8]) -> HeaderFound {
    let copies: Vec<Result<SegmentHeader, FormatError>> = frame
        .chunks_exact(SECTOR_SIZE)
        .map(|s| SegmentHeader::parse(s.try_into().expect("one sector")))
        .collect();
    let ours = |h: &SegmentHeader| {
        (h.cluster, h.drive, h.segment, h.sectors)
            == (owner.cluster, owner.drive, segment, owner.layout.segment_sectors())
    };
    let good: Vec<SegmentHeader> =
        copies.iter().filter_map(|c| c.as_ref().ok()).filter(|h| ours(h)).copied().collect();
    let newest = good.iter().max_by_key(|h| (h.life, h.state)).copied();
    let bad = (0u32..).zip(&copies).filter_map(|(copy, found)| match found {
        Ok(h) if Some(*h) == newest => None,
        Ok(h) if ours(h) => Some((copy, "segment header: an older copy".to_owned())),
        Ok(h) => Some((copy, format!("segment header of segment {} of drive {}", h.segment, h.drive))),
        Err(error) => Some((copy, error.to_string())),
    });
    match newest {
        Some(header) => HeaderFound::Good { header, bad: bad.collect() },
        None if copies.iter().all(|c| matches!(c, Err(FormatError::Blank { .. }))) => HeaderFound::Blank,
        None => HeaderFound::Bad(bad.collect()),
    }
}

pub(crate) fn survey<D: BlockDevice>(
    io: &mut Blocking<'_, D>,
    owner: &Owner,
    report: &mut MountReport,
) -> io::Result<Survey> {
    let layout = owner.layout;
    let header_size = SEGMENT_HEADER_SECTORS as usize * SECTOR_SIZE;
    let ranges: Vec<_> = (0..layout.segments()).map(|s| (layout.offset(s, 0), header_size)).collect();
    let unread = || HeaderFound::Bad(vec![(0, "segment header: the device did not read it".to_owned())]);
    let mut headers: Vec<HeaderFound> = ranges.iter().map(|_| unread()).collect();
    io.read_many(&ranges, |number, result| {
        if let Ok(buffer) = result {
            let segment = u32::try_from(number).expect("a segment number");
            headers[number] = header_of(owner, segment, buffer.framed());
        }
    })?;
    let mut survey = Survey {
        used: Vec::new(),
        free: Vec::new(),
        bad_free: Vec::new(),
        next_life: SegmentSequence::NONE.next(),
        durable: Sequence::NONE,
    };
    let mut candidates = Vec::new();
    let mut find = |segment, sector, what| report.findings.push(owner.finding(segment, sector, what));
    for (segment, found) in (0u32..).zip(headers) {
        let header = match found {
            HeaderFound::Blank => {
                survey.free.push(segment);
                continue;
            }
            HeaderFound::Good { header, bad } => {
                survey.next_life = survey.next_life.max(header.life.next());
                survey.durable = survey.durable.max(header.durable);
                let one_bad = !bad.is_empty();
                bad.into_iter().for_each(|(copy, what)| find(segment, copy, what));
                if header.state == SegmentState::Free {
                    survey.free.push(segment);
                    survey.bad_free.extend(one_bad.then_some(segment));
                    continue;
                }
                Some((header, one_bad))
            }
            HeaderFound::Bad(bad) => {
                bad.into_iter().for_each(|(copy, what)| find(segment, copy, what));
                None
            }
        };
        candidates.push((segment, header));
    }
    let ranges: Vec<_> = candidates
        .iter()
        .map(|(s, _)| (layout.offset(*s, layout.segment_sectors() - 1), SECTOR_SIZE))
        .collect();
    let mut trailers: Vec<Option<FooterTrailer>> = vec![None; candidates.len()];
    io.read_many(&ranges, |number, result| {
        let (segment, header) = &candidates[number];
        let read = result.ok();
        if let Some(error) = read.as_ref().and_then(|buffer| holdfast_format::damage(buffer.headroom())) {
            find(*segment, layout.segment_sectors() - 1, error.to_string());
        }
        let trailer = read.and_then(|buffer| FooterTrailer::parse(buffer.headroom()).ok());
        trailers[number] = trailer.filter(|t| {
            (t.cluster, t.drive, t.segment, t.sectors)
                == (owner.cluster, owner.drive, *segment, layout.segment_sectors())
                && header.is_none_or(|(h, _)| h.life == t.life)
        });
    })?;
    for ((segment, header), trailer) in candidates.into_iter().zip(trailers) {
        let footer = match trailer {
            Some(trailer) => read_footer(io, owner, segment, &trailer)?,
            None => None,
        };
        let (known_life, header_bad) =
            (header.map(|(h, _)| h.life), header.is_none_or(|(_, one_bad)| one_bad));
        let (life, first, content) = if let Some(footer) = footer {
            (footer.life, footer.first, SegmentContent::Sealed(footer))
        } else {
            report.segments_scanned += 1;
            if let Some(trailer) = trailer {
                let sector = layout.segment_sectors() - 1 - trailer.table_sectors();
                let what = "segment footer is damaged: its table does not match".to_owned();
                report.findings.push(owner.finding(segment, sector, what));
            }
            let life = match known_life {
                Some(life) => Some(life),
                None => newest_life(io, owner, segment)?,
            };
            let Some(life) = life else {
                // No header, no footer, no record: a segment whose opening did not survive.
                survey.free.push(segment);
                survey.bad_free.push(segment);
                continue;
            };
            let scanned = scan(io, owner, segment, life)?;
            let lowest = scanned.items.iter().map(|item| item.sequence).min().unwrap_or_default();
            (life, header.map_or(lowest, |(h, _)| h.first), SegmentContent::Scanned(scanned))
        };
        survey.next_life = survey.next_life.max(life.next());
        survey.used.push(Found { segment, life, first, header_bad, content });
    }
    Ok(survey)
}

/// The footer, or `None` when its table is damaged.
fn read_footer<D: BlockDevice>(
    io: &mut Blocking<'_, D>,
    owner: &Owner,
    segment: u32,
    trailer: &FooterTrailer,
) -> io::Result<Option<Footer>> {
    let table_sectors = trailer.table_sectors();
    let mut table = Vec::with_capacity(table_sectors as usize * SECTOR_SIZE);
    let mut sector = owner.layout.segment_sectors() - 1 - table_sectors;
    while table.len() < table_sectors as usize * SECTOR_SIZE {
        let left = table_sectors as usize * SECTOR_SIZE - table.len();
        let length = left.min(TRANSFER_SIZE_MAX);
        match io.read(owner.layout.offset(segment, sector), length) {
            Ok(buffer) => table.extend_from_slice(buffer.framed()),
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Err(error),
            Err(_) => return Ok(None),
        }
        sector += u32::try_from(length / SECTOR_SIZE).expect("a transfer is few sectors");
    }
    Ok(Footer::parse(trailer, &table).ok())
}
