//! Reclaiming: making free segments of mostly dead ones.
//!
//! One segment at a time: read its footer, copy what is alive to the end of the log, flush, read the copy
//! back, switch the index, give the old copy a tombstone; write again the tombstones that are still
//! needed; then mark the segment free. A segment with nothing alive skips straight to the end.
//!
//! A damaged record is not moved: it stays, and its segment with it, until whoever owns it repairs or deletes it. What was
//! moved out of such a segment took room and made none. So the last room of the drive is used only for segments of which
//! every record has been read before; else, with damage in all of them, there would be none left for the tombstones of
//! what is damaged, and no way out.
//!
//! When the drive is full and no other segment can be had, damage keeps a segment no longer: as the last resort
//! ([`salvage`](super::salvage)) a record is moved with its damage, and one without a header is given up. What the device
//! refuses to read stays in any case.
//!
//! Invariants:
//! - a record's old copy is dead only once the new one is flushed and was read back;
//! - a segment is marked free only when nothing in it is alive and its needed tombstones are durable
//!   elsewhere;
//! - while there is room, moving keeps to its rate; when room is short it does not wait.

use std::{
    collections::{HashMap, VecDeque},
    io,
    time::{Duration, Instant},
};

use holdfast_format::{Footer, FooterRecord, FooterTrailer, RecordHeader, Tombstone};
use holdfast_model::{ShardId, limits::SECTOR_SIZE};
use holdfast_ring::{BlockDevice, Buffer};

use super::{
    Engine, PUT_RESERVE,
    log::{Claim, REPAIR_RESERVE},
    read::Purpose,
    salvage,
    tombstones::Asker,
};
use crate::{
    blocking::TRANSFER_SIZE_MAX,
    handle::verify,
    index::{Indexed, Location},
    planted::{self, Bug},
    segments::Phase,
    shared::add,
    types::DriveIdentity,
};

/// Records being moved at the same time.
const MOVES_MAX: usize = 4;

/// After a look at the segments that found nothing to do, the next one is at the earliest after this.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// After a move that found no room, or a segment that could not be emptied.
const STUCK_PAUSE: Duration = Duration::from_millis(200);

/// What is being done.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    ReadingFooter {
        segment: u32,
        bytes: Vec<u8>,
        total: usize,
    },
    /// Reads every record once, before any is moved.
    Proving {
        segment: u32,
        queue: VecDeque<FooterRecord>,
        left: VecDeque<FooterRecord>,
        tombstones: Vec<Tombstone>,
        reading: usize,
        damaged: bool,
    },
    Moving {
        segment: u32,
        queue: VecDeque<FooterRecord>,
        tombstones: Vec<Tombstone>,
        claim: Claim,
        stuck: Option<Stuck>,
    },
    /// Until the tombstone of that number is durable.
    Tombstones {
        segment: u32,
        until: u64,
    },
    Freeing {
        segment: u32,
    },
}

/// Why a segment cannot be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stuck {
    /// A record cannot be read, or its copy could not.
    Damage,
    /// There is no room to move to, as far as an attempt may take it.
    Room,
}

/// The state of reclaiming.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    stage: Stage,
    pub(super) moves_in_flight: usize,
    /// Damage does not keep the segment that is being reclaimed.
    pub(super) last_resort: bool,
    /// Records that are moved with their damage: the checksum of the payload as it was read.
    pub(super) damaged: HashMap<ShardId, u32>,
    /// Moved, flushed, and waiting for a buffer to be read back into.
    unchecked: VecDeque<(Indexed, Indexed)>,
    /// Something died, was sealed or was refused since the last look.
    look: bool,
    not_before: Option<Instant>,
    /// When its pace lets it go on.
    waits_for_allowance: Option<Duration>,
}

impl Reclaim {
    /// Something changed that may make a segment worth reclaiming.
    pub(super) fn look_again(&mut self) {
        self.look = true;
    }

    /// Whether a segment is being reclaimed, or may soon be.
    pub(super) fn may_make_room(&self) -> bool {
        self.look || !matches!(self.stage, Stage::Idle)
    }

    /// The drive takes no writes any more.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    /// When to be woken, with nothing else happening.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let until = self.not_before.filter(|_| self.look).map(|until| until.saturating_duration_since(now));
        let least = Duration::from_millis(1);
        [until, self.waits_for_allowance].into_iter().flatten().min().map(|pause| pause.max(least))
    }

    /// A record that was given up has its tombstone.
    pub(super) fn given_up_durably(&mut self) {
        self.moves_in_flight = self.moves_in_flight.saturating_sub(1);
    }

    fn segment(&self) -> Option<u32> {
        match &self.stage {
            Stage::Idle => None,
            Stage::ReadingFooter { segment, .. }
            | Stage::Proving { segment, .. }
            | Stage::Moving { segment, .. }
            | Stage::Tombstones { segment, .. }
            | Stage::Freeing { segment } => Some(*segment),
        }
    }

    fn stuck(&mut self, because: Stuck) {
        if let Stage::Moving { stuck, .. } = &mut self.stage
            && *stuck != Some(Stuck::Damage)
        {
            *stuck = Some(because);
        }
    }

    /// What is being moved may take.
    fn claim(&self) -> Claim {
        match self.stage {
            Stage::Moving { claim, .. } => claim,
            _ => Claim::Attempt,
        }
    }
}

impl<D: BlockDevice> Engine<D> {
    pub(super) fn step_reclaim(&mut self, now: Instant) {
        self.check_moved();
        if self.closing.is_some() {
            return;
        }
        match &self.reclaim.stage {
            Stage::Idle => self.choose_segment(now),
            Stage::ReadingFooter { .. } | Stage::Freeing { .. } => {}
            Stage::Proving { .. } => self.prove_records(),
            Stage::Moving { .. } => self.move_records(now),
            Stage::Tombstones { segment, until } => {
                let (segment, until) = (*segment, *until);
                if self.tombs.is_durable(until) || planted::is(Bug::FreeBeforeTombstones) {
                    self.free(segment, now);
                }
            }
        }
    }

    fn is_short_of_room(&self) -> bool {
        self.segments.free_count() <= PUT_RESERVE + 1
    }

    /// The segment to be reclaimed next, if one is worth it.
    fn next_segment(&self, last_resort: bool) -> Option<u32> {
        let (segment, keep) = self.segments.emptiest(last_resort)?;
        let total = self.layout.segment_sectors();
        let scarce = self.segments.free_count() * 4 < self.layout.segments() as usize;
        let worth = if self.is_short_of_room() {
            keep < total / 16 * 15
        } else if scarce {
            keep < total / 2
        } else {
            self.segments.get(segment).live_records == 0
        };
        worth.then_some(segment)
    }

    fn choose_segment(&mut self, now: Instant) {
        if !self.reclaim.look || self.reclaim.not_before.is_some_and(|until| now < until) {
            return;
        }
        self.reclaim.look = false;
        self.reclaim.not_before = Some(now + LOOK_PAUSE);
        let is_full = self.segments.free_count() <= PUT_RESERVE;
        let usual = self.next_segment(false);
        let last = || self.next_segment(true).filter(|_| is_full && !planted::is(Bug::DamagePins));
        let Some(segment) = usual.or_else(last) else { return };
        self.reclaim.last_resort = usual.is_none();
        // There may be more like this one.
        self.reclaim.look = true;
        let s = self.segments.get(segment);
        if s.live_records == 0 && s.needed_tombstones() == 0 {
            return self.free(segment, now);
        }
        let sectors = Footer::sectors_for(s.records as usize, s.tombstones as usize);
        let total = sectors as usize * SECTOR_SIZE;
        self.reclaim.stage = Stage::ReadingFooter { segment, bytes: Vec::with_capacity(total), total };
        self.read_more_footer();
    }

    fn read_more_footer(&mut self) {
        let Stage::ReadingFooter { segment, bytes, total } = &self.reclaim.stage else { return };
        let (segment, left) = (*segment, *total - bytes.len());
        let length = left.min(TRANSFER_SIZE_MAX);
        let Some(buffer) = self.meta_frame(length) else {
            return self.give_up(segment);
        };
        let sector =
            self.layout.segment_sectors() - u32::try_from(left / SECTOR_SIZE).expect("it fits the segment");
        let offset = self.layout.offset(segment, sector);
        self.read(Purpose::Footer, segment, offset, buffer, 0, length);
    }

    pub(super) fn footer_read(&mut self, segment: u32, result: io::Result<Buffer>) {
        let Stage::ReadingFooter { bytes, total, .. } = &mut self.reclaim.stage else { return };
        let Ok(buffer) = result else {
            return self.distrust(segment, "its footer cannot be read");
        };
        bytes.extend_from_slice(buffer.framed());
        if bytes.len() < *total {
            return self.read_more_footer();
        }
        let life = self.segments.get(segment).life;
        let footer = bytes.split_last_chunk().and_then(|(table, trailer)| {
            let trailer =
                FooterTrailer::parse(trailer).ok().filter(|t| (t.segment, t.life) == (segment, life))?;
            Footer::parse(&trailer, table).ok()
        });
        let Some(footer) = footer else {
            return self.distrust(segment, "its footer is damaged");
        };
        let queue: VecDeque<_> =
            footer.records.into_iter().filter(|r| self.live_at(segment, r).is_some()).collect();
        let tombstones = footer.tombstones;
        self.reclaim.stage = if planted::is(Bug::MoveInHope) {
            Stage::Moving { segment, queue, tombstones, claim: Claim::Move, stuck: None }
        } else if self.segments.free_count() <= REPAIR_RESERVE {
            let left = queue.clone();
            Stage::Proving { segment, queue, left, tombstones, reading: 0, damaged: false }
        } else {
            Stage::Moving { segment, queue, tombstones, claim: Claim::Attempt, stuck: None }
        };
    }

    fn prove_records(&mut self) {
        while let Stage::Proving { segment, left, reading, damaged: false, .. } = &mut self.reclaim.stage {
            if *reading == MOVES_MAX {
                return;
            }
            let segment = *segment;
            let Some(record) = left.pop_front() else { break };
            let Some(entry) = self.live_at(segment, &record) else { continue };
            let length = SECTOR_SIZE + (entry.payload_len as usize).next_multiple_of(SECTOR_SIZE);
            let Some(buffer) = self.meta.try_acquire(entry.payload_len as usize) else {
                if let Stage::Proving { left, .. } = &mut self.reclaim.stage {
                    left.push_front(record);
                }
                return;
            };
            if let Stage::Proving { reading, .. } = &mut self.reclaim.stage {
                *reading += 1;
            }
            let offset = self.layout.offset(segment, record.sector);
            self.read(Purpose::Prove(entry), segment, offset, buffer, 0, length);
        }
        let Stage::Proving { segment, queue, tombstones, reading: 0, damaged, .. } = &mut self.reclaim.stage
        else {
            return;
        };
        let (segment, queue, tombstones) = (*segment, std::mem::take(queue), std::mem::take(tombstones));
        if *damaged {
            return self.give_up(segment);
        }
        self.reclaim.stage = Stage::Moving { segment, queue, tombstones, claim: Claim::Move, stuck: None };
    }

    /// A record was read to see whether it can be moved.
    pub(super) fn proved(&mut self, entry: &Indexed, result: io::Result<Buffer>) {
        let identity = DriveIdentity::from(self.label);
        let last_resort = self.reclaim.last_resort;
        let verified = result.map_err(|e| e.to_string()).and_then(|buffer| {
            let verified = verify(&identity, entry, buffer.headroom(), 0, &buffer).map(drop);
            verified.or_else(|what| if last_resort { Ok(()) } else { Err(what) })
        });
        let Stage::Proving { segment, reading, damaged, .. } = &mut self.reclaim.stage else { return };
        *reading -= 1;
        if let Err(what) = verified {
            *damaged = true;
            add(&self.shared.counters.checksum_errors, 1);
            tracing::warn!(drive = %self.drive, shard = %entry.shard, segment, what, "record cannot be moved");
        }
    }

    fn live_at(&self, segment: u32, record: &FooterRecord) -> Option<Indexed> {
        let here = Location { segment, sector: record.sector };
        self.shared.index.read().get(record.shard).filter(|entry| entry.location == here)
    }

    fn move_records(&mut self, now: Instant) {
        self.reclaim.waits_for_allowance = None;
        let unlimited = self.is_short_of_room();
        let mut deferred = Vec::new();
        while self.reclaim.moves_in_flight < MOVES_MAX {
            let Stage::Moving { segment, queue, stuck: None, .. } = &mut self.reclaim.stage else { break };
            let segment = *segment;
            let Some(record) = queue.pop_front() else { break };
            let Some(entry) = self.live_at(segment, &record) else { continue };
            if self.busy.contains_key(&entry.shard) {
                deferred.push(record);
                continue;
            }
            let length = SECTOR_SIZE + (entry.payload_len as usize).next_multiple_of(SECTOR_SIZE);
            let paced = if unlimited { Ok(()) } else { self.move_pace.take(length as u64, now) };
            let buffer = paced.map(|()| self.meta.try_acquire(entry.payload_len as usize));
            let Ok(Some(buffer)) = buffer else {
                deferred.push(record);
                self.reclaim.waits_for_allowance = buffer.err();
                break;
            };
            self.reclaim.moves_in_flight += 1;
            self.busy.insert(entry.shard, VecDeque::new());
            let offset = self.layout.offset(segment, record.sector);
            self.read(Purpose::MoveSource { entry, before: None }, segment, offset, buffer, 0, length);
        }
        let Stage::Moving { segment, queue, tombstones, stuck, .. } = &mut self.reclaim.stage else { return };
        for record in deferred.into_iter().rev() {
            queue.push_front(record);
        }
        if self.reclaim.moves_in_flight > 0 || !queue.is_empty() && stuck.is_none() {
            return;
        }
        let (segment, stuck, tombstones) = (*segment, *stuck, std::mem::take(tombstones));
        if stuck == Some(Stuck::Room) {
            return self.put_off(now);
        }
        if stuck.is_some() || self.segments.get(segment).live_records > 0 {
            return self.give_up(segment);
        }
        for tombstone in tombstones {
            let needed = self.segments.by_life(tombstone.life).is_some_and(|target| target != segment);
            if needed && !planted::is(Bug::DropTombstones) {
                self.tombs.push(tombstone, Asker::Nobody);
            }
        }
        self.reclaim.stage = Stage::Tombstones { segment, until: self.tombs.asked() };
    }

    pub(super) fn move_source_read(
        &mut self,
        entry: Indexed,
        before: Option<u32>,
        result: io::Result<Buffer>,
    ) {
        if self.unavailable.is_some() {
            return;
        }
        let what = match result {
            Err(error) => error.to_string(),
            Ok(buffer) => {
                let identity = DriveIdentity::from(self.label);
                match verify(&identity, &entry, buffer.headroom(), 0, &buffer) {
                    Ok(header) => return self.move_to_end(&entry, header, buffer),
                    Err(_) if self.reclaim.last_resort => return self.salvage(entry, before, buffer),
                    Err(what) => what,
                }
            }
        };
        self.not_moved(&entry, &what);
    }

    /// Writes a record to the end of the log.
    pub(super) fn move_to_end(&mut self, entry: &Indexed, mut header: RecordHeader, payload: Buffer) {
        header.moved = true;
        if !self.append_moved(header, payload, entry.location, self.reclaim.claim()) {
            self.reclaim.damaged.remove(&entry.shard);
            self.move_failed(entry, Stuck::Room);
        }
    }

    /// It stays where it is, and its segment with it, until its owner repairs or deletes it.
    pub(super) fn not_moved(&mut self, entry: &Indexed, what: &str) {
        add(&self.shared.counters.checksum_errors, 1);
        tracing::warn!(drive = %self.drive, shard = %entry.shard, what, "record cannot be moved");
        self.move_failed(entry, Stuck::Damage);
    }

    fn move_failed(&mut self, entry: &Indexed, because: Stuck) {
        self.reclaim.moves_in_flight -= 1;
        self.reclaim.stuck(because);
        self.release(entry.shard);
    }

    /// A moved record is flushed: it is read back before it counts.
    pub(super) fn moved_durably(&mut self, new: Indexed, from: Location) {
        self.reclaim.unchecked.push_back((new, Indexed { location: from, ..new }));
        self.check_moved();
    }

    fn check_moved(&mut self) {
        while let Some((new, from)) = self.reclaim.unchecked.front().copied() {
            let length = SECTOR_SIZE + (new.payload_len as usize).next_multiple_of(SECTOR_SIZE);
            let Some(buffer) = self.meta.try_acquire(new.payload_len as usize) else { return };
            self.reclaim.unchecked.pop_front();
            let offset = self.layout.offset(new.location.segment, new.location.sector);
            self.read(Purpose::MoveCheck { new, from }, new.location.segment, offset, buffer, 0, length);
        }
    }

    pub(super) fn move_checked(&mut self, new: &Indexed, from: &Indexed, result: io::Result<Buffer>) {
        if self.unavailable.is_some() {
            return;
        }
        let identity = DriveIdentity::from(self.label);
        let as_read = self.reclaim.damaged.remove(&new.shard);
        let checked = result.map_err(|e| e.to_string()).and_then(|buffer| match as_read {
            Some(payload) => salvage::verify_as_read(&identity, new, payload, &buffer),
            None => verify(&identity, new, buffer.headroom(), 0, &buffer).map(drop),
        });
        match checked {
            Ok(()) => {
                self.switch(new);
                add(&self.shared.counters.records_moved, 1);
                self.reclaim.moves_in_flight -= 1;
                self.release(new.shard);
            }
            Err(what) => {
                add(&self.shared.counters.checksum_errors, 1);
                tracing::warn!(drive = %self.drive, shard = %new.shard, what, "moved record does not read back");
                self.discard(new);
                self.move_failed(from, Stuck::Damage);
            }
        }
    }

    fn free(&mut self, segment: u32, now: Instant) {
        let s = self.segments.get(segment);
        if s.phase != Phase::Sealed || s.live_records > 0 {
            return self.give_up(segment);
        }
        if self.mark_free(segment) {
            self.reclaim.stage = Stage::Freeing { segment };
        } else {
            self.reclaim.stage = Stage::Idle;
            self.reclaim.look = true;
            self.reclaim.not_before = Some(now + LOOK_PAUSE);
        }
    }

    /// The free mark is durable.
    pub(super) fn reclaimed(&mut self, segment: u32) {
        add(&self.shared.counters.segments_reclaimed, 1);
        if self.reclaim.segment() == Some(segment) {
            self.reclaim.stage = Stage::Idle;
            self.reclaim.look = true;
            self.reclaim.not_before = None;
        }
    }

    /// Looks at all segments anew in a while: this one may be the best again, and is proved then.
    fn put_off(&mut self, now: Instant) {
        self.reclaim.stage = Stage::Idle;
        self.reclaim.look = true;
        self.reclaim.not_before = Some(now + STUCK_PAUSE);
    }

    /// Leaves the segment as it is until something else in it dies.
    fn give_up(&mut self, segment: u32) {
        let now = self.clock.now();
        self.segments.get_mut(segment).set_stuck(self.reclaim.last_resort);
        self.reclaim.stage = Stage::Idle;
        self.reclaim.look = true;
        self.reclaim.not_before = Some(now + STUCK_PAUSE);
    }

    /// Leaves the segment alone until the next mount, which will read it through.
    fn distrust(&mut self, segment: u32, why: &'static str) {
        add(&self.shared.counters.checksum_errors, 1);
        tracing::warn!(drive = %self.drive, segment, why, "segment cannot be reclaimed");
        self.phase(segment, Phase::Suspect);
        self.reclaim.stage = Stage::Idle;
        self.reclaim.look = true;
    }
}
