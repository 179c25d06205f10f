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

use std::{collections::HashSet, time::Instant};

use holdfast_format::{
    DriveLabel, Footer, FooterRecord, SEGMENT_HEADER_SECTORS, SegmentSequence, Sequence, Tombstone,
};
use holdfast_model::ClusterId;
use holdfast_ring::{BlockDevice, BufferPool};

use crate::{
    blocking::Blocking,
    errors::OpenError,
    index::{Index, Indexed, Location},
    labels::{self, Labels},
    planted::{self, Bug},
    scan::{Content, Owner, Scanned, Suspect},
    segments::{Phase, Segments},
    settle::Rewrite,
    survey::{Found, SegmentContent, Survey, survey},
    types::{DamagedRecord, Finding, MountReport, TornRecord},
};

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
        findings: Vec::new(),
        took: began.elapsed(),
    };
    for (copy, what) in bad_labels {
        let offset = label.layout.label_offsets()[copy];
        report.findings.push(Finding { drive: label.drive, segment: None, offset, what });
    }
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
    let (index, untombed) = build_index(&owner, &footers, &mut segments, &mut report);
    let resumed = resumed_at.zip(footers.into_iter().last()).map(|(next, footer)| Resumed { next, footer });
    if let Some(Resumed { footer, .. }) = &resumed {
        segments.get_mut(footer.segment).phase = Phase::Open;
    }
    report.shards = index.len() as u64;
    report.took = began.elapsed();
    let state = State { index, segments, next_sequence: highest.next(), next_life, untombed, resumed };
    Ok(Mounted { label, state, report })
}

/// Tells torn from damaged in scanned segments; gives every used segment its footer.
fn judge(owner: &Owner, survey: &Survey, durable: Sequence, report: &mut MountReport) -> Vec<Footer> {
    let mut footers = Vec::with_capacity(survey.used.len());
    for (i, found) in survey.used.iter().enumerate() {
        let scanned = match &found.content {
            SegmentContent::Sealed(footer) => {
                report.lost += u64::from(footer.lost);
                if footer.lost > 0 {
                    let last = owner.layout.segment_sectors() - 1;
                    report.findings.push(owner.finding(found.segment, last, earlier(footer.lost)));
                }
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
        let lost = if planted::is(Bug::ForgetLost) { 0 } else { lost };
        let lost = lost + settled.as_ref().map_or(0, |settled| u64::from(settled.lost));
        report.lost += lost;
        report.findings.extend(where_from(owner, found, scanned, lost));
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

/// What a scanned segment shows of damage. A torn tail looks like damaged headers too: those are named only
/// where something acknowledged is missing.
fn where_from(owner: &Owner, found: &Found, scanned: &Scanned, lost: u64) -> Vec<Finding> {
    let settled = scanned.settled.as_ref().map_or(0, |settled| settled.lost);
    let named = |suspect: &&Suspect| lost > 0 || suspect.error.structure() == "resume block";
    let mut findings: Vec<Finding> = scanned
        .suspects
        .iter()
        .filter(named)
        .map(|suspect| owner.finding(found.segment, suspect.sector, suspect.error.to_string()))
        .collect();
    if settled > 0 {
        findings.push(owner.finding(found.segment, 0, earlier(settled)));
    }
    let lost = lost.saturating_sub(u64::from(settled));
    if lost > 0 && findings.is_empty() {
        let what = format!("{lost} acknowledged records from here on are not there any more");
        let sector = scanned.first_gap.unwrap_or(SEGMENT_HEADER_SECTORS);
        findings.push(owner.finding(found.segment, sector, what));
    }
    findings
}

fn earlier(lost: u32) -> String {
    format!("{lost} acknowledged records were found to be lost by an earlier mount")
}

/// The index, and the dead copies that no tombstone names yet.
fn build_index(
    owner: &Owner,
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
            let (id, generation, sector) = (record.shard, record.generation, record.sector);
            let (drive, offset) = (owner.drive, owner.layout.offset(*segment, sector));
            let segment = *segment;
            report.damaged.push(DamagedRecord { drive, id, generation, segment, sector, offset });
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
