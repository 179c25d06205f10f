//! Mounting: from what the device holds to the index, and to a drive that takes records again.
//!
//! Labels -> segment headers -> footers of sealed segments -> scan of segments without one -> tombstones
//! -> index. Then the newest scanned segment gets a resume block, behind which it is filled further, the
//! others are sealed, and the label's mount epoch is raised.
//!
//! Torn or damaged: sequences count without gaps along the log, and every header says up to which
//! sequence everything had been flushed when it was written. The highest such number anywhere is what is
//! known to have been acknowledged.
//! - At or below it, a record that is missing or does not match is damage, and is reported.
//! - Above it, a record was either acknowledged by the last flush before the crash or not at all: when it
//!   is whole it counts, when it is not it was torn, is dropped and named in the report.
//!
//! Invariants: a fenced drive is not written to; nothing is served before what was found is flushed.

use std::{collections::HashSet, io, time::Instant};

use holdfast_format::{
    DriveLabel, Footer, FooterRecord, FooterTrailer, FormatError, Place, ResumeBlock, SEGMENT_HEADER_SECTORS,
    SegmentHeader, SegmentSequence, SegmentState, Sequence, Tombstone,
};
use holdfast_model::{ClusterId, limits::SECTOR_SIZE};
use holdfast_ring::{BlockDevice, BufferPool};

use crate::{
    blocking::{Blocking, TRANSFER_SIZE_MAX},
    index::{Index, Indexed, Location},
    labels::{self, Labels},
    planted::{self, Bug},
    probe::unix_now,
    scan::{Content, Owner, Scanned, newest_life, scan},
    segments::{Phase, Segments},
    types::{DamagedRecord, MountReport, OpenError, TornRecord},
};

/// A segment is filled further when at least one part in so many is left of it.
const RESUME_ROOM: u32 = 16;

/// What the engine starts from.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) next_sequence: Sequence,
    pub(crate) next_life: SegmentSequence,
    /// Dead copies that have no tombstone yet: a crash came between.
    pub(crate) untombed: Vec<Tombstone>,
    /// The segment that is filled further.
    pub(crate) resumed: Option<Resumed>,
}

/// A segment that is filled further, from sector `next` on.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) next: u32,
    /// What is in it so far.
    pub(crate) footer: Footer,
}

/// A mounted drive.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) label: DriveLabel,
    pub(crate) state: State,
    pub(crate) report: MountReport,
}

/// One used segment, as found.
struct Found {
    segment: u32,
    life: SegmentSequence,
    first: Sequence,
    header_bad: bool,
    content: SegmentContent,
}

enum SegmentContent {
    Sealed(Footer),
    Scanned(Scanned),
}

/// Mounts the drive on `device`, with buffers of `pool`. `path` is for messages.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn mount<D: BlockDevice>(
    device: &mut D,
    pool: &BufferPool,
    path: &str,
    expect: ClusterId,
) -> Result<Mounted, OpenError> {
    let began = Instant::now();
    let failed = |step| move |source| OpenError::Mount { path: path.to_owned(), step, source };
    let capacity = device.capacity();
    let mut io = Blocking::new(device, pool);
    let no_label = |what: &str| OpenError::NoLabel { path: path.to_owned(), what: what.to_owned() };
    let (mut label, bad_labels) = match labels::read(&mut io).map_err(failed("reading labels"))? {
        Labels::Good { label, bad } => (label, bad),
        Labels::Blank => return Err(no_label("it is blank")),
        Labels::Foreign => return Err(no_label("something else is on it")),
        Labels::Damaged { what } => return Err(no_label(&what)),
    };
    if label.cluster != expect {
        return Err(OpenError::OtherCluster {
            path: path.to_owned(),
            found: label.cluster,
            expected: expect,
        });
    }
    if label.layout.capacity() > capacity {
        let expected = label.layout.capacity();
        return Err(OpenError::Shrunk { path: path.to_owned(), found: capacity, expected });
    }
    let mut report = MountReport {
        mount_epoch: label.mount_epoch,
        fenced: label.fenced,
        shards: 0,
        damaged: Vec::new(),
        lost: 0,
        torn: Vec::new(),
        segments_scanned: 0,
        repaired: bad_labels.iter().map(|copy| format!("label copy {copy}")).collect(),
        took: began.elapsed(),
    };
    let owner = Owner { cluster: label.cluster, drive: label.drive, layout: label.layout };
    let mut survey = survey(&mut io, &owner, &mut report).map_err(failed("reading segments"))?;
    survey.used.sort_by_key(|found| found.life);
    let durable = survey
        .used
        .iter()
        .fold(label.durable.max(survey.durable), |durable, found| durable.max(found.durable()));
    let highest = survey.used.iter().map(Found::highest).max().unwrap_or_default().max(durable);
    // Headers of free segments that must be written again take a life each.
    let next_life = SegmentSequence::new(survey.next_life.get() + survey.bad_free.len() as u64);
    let next_life = match SegmentSequence::first_of_mount(label.mount_epoch + 1) {
        _ if planted::is(Bug::RepeatLife) => next_life,
        first => next_life.max(first),
    };
    let footers = judge(&owner, &survey, durable, &mut report);

    let mut resumed_at = None;
    if !label.fenced {
        let rewrite = Rewrite { owner: &owner, label: &label, durable, next: highest.next() };
        resumed_at = rewrite.run(&mut io, &survey, &footers).map_err(failed("settling segments"))?;
        label.mount_epoch += 1;
        label.counter += 1;
        label.durable = highest;
        labels::write(&mut io, &label).map_err(failed("writing labels"))?;
        report.mount_epoch = label.mount_epoch;
    }
    let mut segments = Segments::new(&label.layout);
    for segment in &survey.free {
        segments.found(*segment, Phase::Free, SegmentSequence::NONE);
    }
    for (found, footer) in survey.used.iter().zip(&footers) {
        segments.found(found.segment, Phase::Sealed, found.life);
        let s = segments.get_mut(found.segment);
        s.records = u32::try_from(footer.records.len()).expect("at most one record a sector");
        s.tombstones = u32::try_from(footer.tombstones.len()).expect("they fit the segment");
    }
    let (index, untombed) = build_index(&footers, &mut segments, &mut report);
    let resumed = resumed_at.zip(footers.into_iter().last()).map(|(next, footer)| Resumed { next, footer });
    if let Some(Resumed { footer, .. }) = &resumed {
        segments.get_mut(footer.segment).phase = Phase::Open;
    }
    report.shards = index.len() as u64;
    report.took = began.elapsed();
    let state = State { index, segments, next_sequence: highest.next(), next_life, untombed, resumed };
    Ok(Mounted { label, state, report })
}

impl Found {
    /// The highest sequence that this segment proves to have been flushed.
    fn durable(&self) -> Sequence {
        match &self.content {
            SegmentContent::Sealed(footer) => footer.last,
            SegmentContent::Scanned(scanned) => scanned.durable(),
        }
    }

    /// The highest sequence in this segment.
    fn highest(&self) -> Sequence {
        match &self.content {
            SegmentContent::Sealed(footer) => footer.last,
            SegmentContent::Scanned(scanned) => scanned.highest(),
        }
    }
}

/// All segments of the drive.
struct Survey {
    used: Vec<Found>,
    free: Vec<u32>,
    /// Free segments whose header must be written again.
    bad_free: Vec<u32>,
    next_life: SegmentSequence,
    durable: Sequence,
}

/// The header of a segment, from its two copies.
enum HeaderFound {
    Blank,
    Good { header: SegmentHeader, one_bad: bool },
    Bad,
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
    match good.iter().max_by_key(|h| (h.life, h.state)) {
        Some(&header) => {
            HeaderFound::Good { header, one_bad: good.len() < copies.len() || good[0] != good[1] }
        }
        None if copies.iter().all(|c| matches!(c, Err(FormatError::Blank { .. }))) => HeaderFound::Blank,
        None => HeaderFound::Bad,
    }
}

fn survey<D: BlockDevice>(
    io: &mut Blocking<'_, D>,
    owner: &Owner,
    report: &mut MountReport,
) -> io::Result<Survey> {
    let layout = owner.layout;
    let header_size = SEGMENT_HEADER_SECTORS as usize * SECTOR_SIZE;
    let ranges: Vec<_> = (0..layout.segments()).map(|s| (layout.offset(s, 0), header_size)).collect();
    let mut headers: Vec<HeaderFound> = ranges.iter().map(|_| HeaderFound::Bad).collect();
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
    for (segment, found) in (0u32..).zip(headers) {
        let header = match found {
            HeaderFound::Blank => {
                survey.free.push(segment);
                continue;
            }
            HeaderFound::Good { header, one_bad } => {
                survey.next_life = survey.next_life.max(header.life.next());
                survey.durable = survey.durable.max(header.durable);
                if one_bad {
                    report.repaired.push(format!("one copy of the header of segment {segment}"));
                }
                if header.state == SegmentState::Free {
                    survey.free.push(segment);
                    survey.bad_free.extend(one_bad.then_some(segment));
                    continue;
                }
                Some((header, one_bad))
            }
            HeaderFound::Bad => {
                report.repaired.push(format!("the header of segment {segment}"));
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
        let trailer = result.ok().and_then(|buffer| FooterTrailer::parse(buffer.headroom()).ok());
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
            if trailer.is_some() {
                report.repaired.push(format!("the footer of segment {segment}"));
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

/// Tells torn from damaged in scanned segments; gives every used segment its footer.
fn judge(owner: &Owner, survey: &Survey, durable: Sequence, report: &mut MountReport) -> Vec<Footer> {
    let mut footers = Vec::with_capacity(survey.used.len());
    for (i, found) in survey.used.iter().enumerate() {
        let scanned = match &found.content {
            SegmentContent::Sealed(footer) => {
                report.lost += u64::from(footer.lost);
                footers.push(footer.clone());
                continue;
            }
            SegmentContent::Scanned(scanned) => scanned,
        };
        let (items, settled) = (&scanned.items, scanned.settled.clone());
        let first = settled.as_ref().map_or(found.first, |settled| settled.next);
        // The sequences this segment should have: up to where the next life begins. When that life is no
        // more, the end is not known, and only gaps between what was found count.
        let next = survey.used.get(i + 1);
        let end = match next {
            Some(next) if next.life == found.life.next() && !matches!(next.first, Sequence::NONE) => {
                next.first
            }
            None => durable.next(),
            Some(_) => found.highest().next(),
        };
        let acknowledged = first.get()..end.get().min(durable.next().get());
        let present = items.iter().filter(|item| acknowledged.contains(&item.sequence.get())).count() as u64;
        let lost = acknowledged.end.saturating_sub(acknowledged.start).saturating_sub(present);
        let lost = lost + settled.as_ref().map_or(0, |settled| u64::from(settled.lost));
        report.lost += lost;
        let (records, tombstones) = settled.map(|s| (s.records, s.tombstones)).unwrap_or_default();
        let mut footer = Footer {
            cluster: owner.cluster,
            drive: owner.drive,
            segment: found.segment,
            sectors: owner.layout.segment_sectors(),
            life: found.life,
            first: found.first,
            // Of an empty segment: what came before it. Its first sequence will be given to another record.
            last: found.highest().max(Sequence::new(found.first.get().saturating_sub(1))),
            lost: u32::try_from(lost).unwrap_or(u32::MAX),
            records,
            tombstones,
        };
        for item in items {
            match &item.content {
                Content::Record(record)
                    if record.damaged && item.sequence > durable && !planted::is(Bug::AcceptTorn) =>
                {
                    report.torn.push(TornRecord { id: record.shard, generation: record.generation });
                }
                Content::Record(record) => footer.records.push(*record),
                Content::Tombstones(entries) => footer.tombstones.extend(entries),
            }
        }
        footers.push(footer);
    }
    footers
}

/// Writing what the mount found out: footers, a resume block, headers that were damaged. All of it flushed.
struct Rewrite<'a> {
    owner: &'a Owner,
    label: &'a DriveLabel,
    durable: Sequence,
    /// The next sequence that will be given out.
    next: Sequence,
}

impl Rewrite<'_> {
    /// Returns where the newest segment is filled further, if it is.
    fn run<D: BlockDevice>(
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

/// The index, and the dead copies that no tombstone names yet.
fn build_index(
    footers: &[Footer],
    segments: &mut Segments,
    report: &mut MountReport,
) -> (Index, Vec<Tombstone>) {
    let mut dead: HashSet<(SegmentSequence, u32)> = HashSet::new();
    for footer in footers {
        for tombstone in &footer.tombstones {
            dead.insert((tombstone.life, tombstone.sector));
            segments.add_tombstone(footer.segment, tombstone.life);
        }
    }
    let mut copies: Vec<(&FooterRecord, u32, SegmentSequence)> = footers
        .iter()
        .flat_map(|footer| footer.records.iter().map(|record| (record, footer.segment, footer.life)))
        .filter(|(record, _, life)| !dead.contains(&(*life, record.sector)))
        .collect();
    // Of one shard, the best copy comes last: the newest generation, undamaged, the latest.
    copies.sort_unstable_by_key(|(record, _, _)| {
        (record.shard, record.generation, !record.damaged, record.sequence)
    });
    let mut untombed = Vec::new();
    let mut live = Vec::new();
    for (i, (record, segment, life)) in copies.iter().enumerate() {
        if copies.get(i + 1).is_some_and(|(next, _, _)| next.shard == record.shard) {
            let (shard, generation, sector) = (record.shard, record.generation, record.sector);
            untombed.push(Tombstone { shard, generation, life: *life, sector });
            continue;
        }
        if record.damaged {
            let (id, generation) = (record.shard, record.generation);
            report.damaged.push(DamagedRecord { id, generation, segment: *segment, sector: record.sector });
        }
        segments.add_live(*segment, record.payload_len);
        live.push(Indexed {
            shard: record.shard,
            generation: record.generation,
            tenant: record.tenant,
            payload_len: record.payload_len,
            written: record.written,
            location: Location { segment: *segment, sector: record.sector },
        });
    }
    (Index::load(live), untombed)
}
