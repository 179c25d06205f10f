//! The write side: the log, group commit, sealing, fencing.
//!
//! Records and tombstone blocks are given a sequence and a place in the open segment, and written at once,
//! several in flight. A flush is submitted when none is on its way and something has completed; it covers
//! what had completed by then. When it comes back clean, its writes are applied to the index and
//! acknowledged; whatever completed meanwhile waits for the next.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use holdfast_format::{
    Footer, FooterRecord, Place, RecordHeader, SEGMENT_HEADER_SECTORS, SegmentHeader, SegmentSequence,
    SegmentState, Sequence, Tombstone, TombstoneBlock,
};
use holdfast_model::{ByteCount, Generation, ShardId, limits::SECTOR_SIZE};
use holdfast_ring::{BlockDevice, Buffer, Operation};
use tokio::sync::oneshot;

use super::{Engine, IDLE_LABEL_AFTER, Job, PUT_RESERVE, Progress, progress};
use crate::{
    blocking::TRANSFER_SIZE_MAX,
    commit::{Durable, FlushTicket},
    index::{Indexed, Location},
    mount::Resumed,
    planted::{self, Bug},
    probe::unix_now,
    segments::Phase,
    shared::{PutRequest, Request, Unavailable, add},
    types::{DeleteError, PutError},
};

/// Segments that tombstones leave free: for reclaiming.
const TOMBSTONE_RESERVE: usize = 1;

/// How long a flush waits for writes still in flight, so that they share it.
const FLUSH_DELAY: Duration = Duration::from_micros(300);

/// Completed bytes for which a flush no longer waits.
const FLUSH_BATCH_MIN: usize = 32;

/// How long a put waits for reclaiming to make room.
pub(super) const ROOM_WAIT: Duration = Duration::from_secs(2);

/// Blocks of tombstones written together at most.
const TOMBSTONE_BLOCKS_MAX: usize = 16;

type PutReply = oneshot::Sender<Result<Durable, PutError>>;
type DeleteReply = oneshot::Sender<Result<bool, DeleteError>>;

/// Who asks for room in the log: what it leaves free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Put,
    Tombstone,
    Move,
}

impl Claim {
    fn reserve(self) -> usize {
        match self {
            Self::Put => PUT_RESERVE,
            Self::Tombstone => TOMBSTONE_RESERVE,
            Self::Move => 0,
        }
    }
}

/// A write in flight: bytes `done..end` of its buffer's frame are still to go.
#[derive(Debug)]
pub(super) struct Write {
    what: What,
    /// Where byte 0 of the frame goes.
    offset: u64,
    done: usize,
    retries: u32,
}

/// What was written.
#[derive(Debug)]
pub(super) enum What {
    Record(Box<RecordWrite>),
    Tombstones(TombstoneWrite),
    SegmentHeader,
    FreeMark(u32),
    Footer(u32),
    Label,
}

/// A record on its way.
#[derive(Debug)]
pub(super) struct RecordWrite {
    record: FooterRecord,
    segment: u32,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Put(PutReply),
    /// Moved by reclaiming, from there.
    Move(Location),
}

/// Blocks of tombstones on their way.
#[derive(Debug)]
pub(super) struct TombstoneWrite {
    segment: u32,
    sequences: Vec<Sequence>,
    entries: Vec<(Tombstone, Option<DeleteReply>)>,
}

/// Tombstones that are asked for. One write of them is on its way at a time, so that they become durable
/// in order: whoever sees a delete acknowledged knows that all earlier ones hold too.
#[derive(Debug, Default)]
pub(super) struct TombstoneQueue {
    waiting: VecDeque<(Tombstone, Option<DeleteReply>)>,
    in_flight: bool,
    /// There was no room for them; reclaiming will make some.
    blocked: bool,
    asked: u64,
    durable: u64,
}

impl TombstoneQueue {
    pub(super) fn push(&mut self, tombstone: Tombstone, reply: Option<DeleteReply>) {
        self.waiting.push_back((tombstone, reply));
        self.asked += 1;
    }

    /// Nothing on its way and nothing that could go. What has no room is found again by the next mount.
    pub(super) fn is_idle(&self) -> bool {
        !self.in_flight && (self.blocked || self.waiting.is_empty())
    }

    /// Number of the last tombstone asked for.
    pub(super) fn asked(&self) -> u64 {
        self.asked
    }

    /// Whether the tombstone of that number, and all before it, are durable.
    pub(super) fn is_durable(&self, number: u64) -> bool {
        self.durable >= number
    }
}

/// A segment whose records are still in memory: the open one, or one to be sealed.
#[derive(Debug)]
pub(super) struct OpenSegment {
    segment: u32,
    life: SegmentSequence,
    first: Sequence,
    last: Sequence,
    /// Next sector to be written.
    next: u32,
    records: Vec<FooterRecord>,
    tombstones: Vec<Tombstone>,
    /// Acknowledged records that earlier mounts could not read any more.
    lost: u32,
    /// Pieces of the footer still to be written; counts only once the footer was started.
    footer_left: Option<usize>,
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
    pub(super) fn put(&mut self, request: PutRequest, now: Instant) {
        let (id, generation) = (request.header.shard, request.header.generation);
        if let Some(waiting) = self.busy.get_mut(&id) {
            return waiting.push_back(Request::Put(request));
        }
        if let Some(answer) = self.answer_at_once(id, generation, request.header.payload_len) {
            return drop(request.reply.send(answer));
        }
        let sectors = request.header.sectors();
        if self.make_room(sectors, 1, 0, Claim::Put) {
            let PutRequest { header, payload, reply } = request;
            self.append_record(*header, payload, Origin::Put(reply));
        } else if self.reclaim.may_make_room() {
            self.starved.push_back((now + ROOM_WAIT, Request::Put(request)));
        } else {
            self.refuse_full(request);
        }
    }

    /// The answer to a put for which nothing needs to be written.
    fn answer_at_once(
        &self,
        id: ShardId,
        generation: Generation,
        payload_len: u32,
    ) -> Option<Result<Durable, PutError>> {
        let drive = self.drive;
        if let Some(why) = &self.unavailable {
            return Some(Err(why.put(drive)));
        }
        let stored = self.shared.index.read().get(id)?;
        if stored.generation > generation {
            let (given, stored) = (generation, stored.generation);
            return Some(Err(PutError::Stale { drive, id, given, stored }));
        }
        if stored.generation < generation {
            return None;
        }
        Some(match &self.proof {
            _ if stored.payload_len != payload_len => Err(PutError::Conflict { drive, id, generation }),
            Some(proof) => Ok(proof.mint(id, generation)),
            None => Err(PutError::Closed { drive }),
        })
    }

    fn refuse_full(&mut self, request: PutRequest) {
        let free = ByteCount::new(self.free_bytes());
        drop(request.reply.send(Err(PutError::Full { drive: self.drive, free })));
        self.reclaim.look_again();
    }

    /// Whether a put of the same shard waits for room, so that this request must wait behind it.
    pub(super) fn is_behind_starved(&self, request: &Request) -> bool {
        let shard = |request: &Request| match request {
            Request::Put(put) => Some(put.header.shard),
            Request::Delete { id, .. } => Some(*id),
            Request::Get(_) | Request::Close { .. } => None,
        };
        shard(request).is_some_and(|id| self.starved.iter().any(|(_, r)| shard(r) == Some(id)))
    }

    /// Takes up puts that wait for room, in order; refuses those that cannot hope for any.
    pub(super) fn feed_starved(&mut self, now: Instant) {
        while let Some((until, request)) = self.starved.front() {
            let (expired, sectors) = match request {
                Request::Put(put) => (now >= *until, put.header.sectors()),
                // It waited behind a put that is done.
                _ => (false, 0),
            };
            let room = sectors == 0 || self.make_room(sectors, 1, 0, Claim::Put);
            let hopeless = expired || self.closing.is_some() || !self.reclaim.may_make_room();
            if !room && !hopeless {
                return;
            }
            match self.starved.pop_front() {
                Some((_, Request::Put(put))) if !room => self.refuse_full(put),
                Some((_, request)) => self.dispatch_now(request, now),
                None => return,
            }
        }
    }

    pub(super) fn delete(&mut self, id: ShardId, generation: Generation, reply: DeleteReply) {
        if let Some(waiting) = self.busy.get_mut(&id) {
            return waiting.push_back(Request::Delete { id, generation, reply });
        }
        if let Some(why) = &self.unavailable {
            return drop(reply.send(Err(why.delete(self.drive))));
        }
        let stored = self.shared.index.read().get(id);
        let Some(stored) = stored.filter(|stored| stored.generation <= generation) else {
            return drop(reply.send(Ok(false)));
        };
        self.busy.insert(id, VecDeque::new());
        let tombstone = self.tombstone_for(&stored);
        self.tombs.push(tombstone, Some(reply));
    }

    fn tombstone_for(&self, dead: &Indexed) -> Tombstone {
        let life = self.segments.get(dead.location.segment).life;
        Tombstone { shard: dead.shard, generation: dead.generation, life, sector: dead.location.sector }
    }

    /// Writes a record that is being moved; `false` when there is no room.
    pub(super) fn append_moved(&mut self, header: RecordHeader, payload: Buffer, from: Location) -> bool {
        let room = self.make_room(header.sectors(), 1, 0, Claim::Move);
        if room {
            self.append_record(header, payload, Origin::Move(from));
        }
        room
    }

    /// Gives a record its place and header and writes it. There is room in the open segment.
    fn append_record(&mut self, mut header: RecordHeader, mut payload: Buffer, origin: Origin) {
        let (segment, life, sector) = self.claim_room(header.sectors());
        let sequence = self.take_sequence(segment);
        header.place = Place { cluster: self.label.cluster, drive: self.drive, segment, sector, life };
        header.sequence = sequence;
        header.durable = self.durable();
        // Whatever was behind the payload in the buffer must not reach the disk.
        payload.set_len(header.payload_len as usize);
        header.encode(payload.headroom_mut());
        let record = FooterRecord {
            shard: header.shard,
            generation: header.generation,
            tenant: header.tenant,
            sequence,
            written: header.written,
            payload_len: header.payload_len,
            sector,
            damaged: false,
        };
        if let Some(open) = &mut self.open {
            open.records.push(record);
        }
        self.busy.entry(record.shard).or_default();
        let offset = self.layout.offset(segment, sector);
        self.write(What::Record(Box::new(RecordWrite { record, segment, origin })), offset, payload);
    }

    fn take_sequence(&mut self, segment: u32) -> Sequence {
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
    fn make_room(&mut self, sectors: u32, records: usize, tombstones: usize, claim: Claim) -> bool {
        let (free, reserve) = (self.segments.free_count(), claim.reserve());
        let size = self.layout.segment_sectors();
        let fits = |open: &OpenSegment| open.fits(sectors, records, tombstones, size);
        free >= reserve && self.open.as_ref().is_some_and(fits)
            || free > reserve && self.open_segment(claim).is_some()
    }

    /// Takes the next sectors of the open segment, for which [`Self::make_room`] said yes.
    fn claim_room(&mut self, sectors: u32) -> (u32, SegmentSequence, u32) {
        let open = self.open.as_mut().expect("room was made in an open segment");
        let sector = open.next;
        open.next += sectors;
        (open.segment, open.life, sector)
    }

    fn open_segment(&mut self, claim: Claim) -> Option<()> {
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

    fn write_segment_header(
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

    fn write_footer(&mut self, i: usize) -> bool {
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

    /// Writes the tombstones that wait, unless some are on their way.
    pub(super) fn emit_tombstones(&mut self) {
        if self.tombs.in_flight || self.tombs.waiting.is_empty() {
            return;
        }
        let count = self.tombs.waiting.len().min(TOMBSTONE_BLOCKS_MAX * TombstoneBlock::ENTRIES_MAX);
        let blocks = count.div_ceil(TombstoneBlock::ENTRIES_MAX);
        let sectors = u32::try_from(blocks).expect("at most 16");
        let Some(mut buffer) = self.meta_frame(blocks * SECTOR_SIZE) else { return };
        // Those that nobody waits for follow from what was written already, and reclaiming needs them.
        let asked_for = self.tombs.waiting.iter().any(|(_, reply)| reply.is_some());
        let claim = if asked_for { Claim::Tombstone } else { Claim::Move };
        if !self.make_room(sectors, 0, count, claim) {
            return self.refuse_tombstones();
        }
        let (segment, life, sector) = self.claim_room(sectors);
        self.tombs.blocked = false;
        let entries: Vec<(Tombstone, Option<DeleteReply>)> = self.tombs.waiting.drain(..count).collect();
        let mut sequences = Vec::with_capacity(blocks);
        for (i, chunk) in entries.chunks(TombstoneBlock::ENTRIES_MAX).enumerate() {
            let sequence = self.take_sequence(segment);
            sequences.push(sequence);
            let at = sector + u32::try_from(i).expect("at most 16");
            let place = Place { cluster: self.label.cluster, drive: self.drive, segment, sector: at, life };
            let tombstones = chunk.iter().map(|(tombstone, _)| *tombstone).collect();
            let block = TombstoneBlock { place, sequence, durable: self.durable(), entries: tombstones };
            let bytes = &mut buffer.framed_mut()[i * SECTOR_SIZE..][..SECTOR_SIZE];
            block.encode(bytes.try_into().expect("one sector"));
        }
        if let Some(open) = &mut self.open {
            open.tombstones.extend(entries.iter().map(|(tombstone, _)| *tombstone));
        }
        self.tombs.in_flight = true;
        let what = What::Tombstones(TombstoneWrite { segment, sequences, entries });
        self.write(what, self.layout.offset(segment, sector), buffer);
    }

    /// No room even in the reserve: callers are told, the rest waits for reclaiming.
    fn refuse_tombstones(&mut self) {
        self.tombs.blocked = true;
        let waiting = std::mem::take(&mut self.tombs.waiting);
        for (tombstone, reply) in waiting {
            match reply {
                Some(reply) => {
                    self.tombs.asked -= 1;
                    drop(reply.send(Err(DeleteError::Full { drive: self.drive })));
                    self.release(tombstone.shard);
                }
                None => self.tombs.waiting.push_back((tombstone, None)),
            }
        }
    }

    /// Submits a write of the whole frame of `buffer`.
    fn write(&mut self, what: What, offset: u64, buffer: Buffer) {
        self.writes_in_flight += 1;
        self.resume_write(Write { what, offset, done: 0, retries: 0 }, buffer);
    }

    fn resume_write(&mut self, write: Write, buffer: Buffer) {
        let length = buffer.framed_len();
        let operation =
            Operation::write(0, write.offset + write.done as u64, buffer, write.done, length - write.done);
        self.enqueue(operation, Job::Write(write));
    }

    pub(super) fn write_done(
        &mut self,
        mut write: Write,
        outcome: io::Result<usize>,
        buffer: Buffer,
        now: Instant,
    ) {
        let length = buffer.framed_len();
        let outcome = if planted::is(Bug::IgnoreShortWrite) { outcome.map(|_| length) } else { outcome };
        match progress(outcome, write.done, length, &mut write.retries) {
            Progress::Done => {
                self.writes_in_flight -= 1;
                drop(buffer);
                self.write_complete(write.what, now);
            }
            Progress::Again(done) => {
                add(&self.shared.counters.retries, 1);
                // The rest goes out before any flush may cover this write: it is not complete until then.
                write.done = done;
                self.resume_write(write, buffer);
            }
            Progress::Failed(error) => {
                self.writes_in_flight -= 1;
                if matches!(write.what, What::SegmentHeader) {
                    self.headers_in_flight -= 1;
                }
                add(&self.shared.counters.write_errors, 1);
                let why = format!("write of {length} B at {} failed: {error}", write.offset);
                self.fail(if Self::is_gone(&error) {
                    Unavailable::Gone(why)
                } else {
                    Unavailable::Fenced(why)
                });
                // The fence is known by now; this write's callers are told as well.
                self.refuse_written(write.what);
            }
        }
    }

    fn write_complete(&mut self, what: What, now: Instant) {
        if self.unavailable.is_some() {
            return self.refuse_written(what);
        }
        match what {
            What::SegmentHeader => self.headers_in_flight -= 1,
            What::Label => self.label_pending = self.label_pending.saturating_sub(1),
            What::Footer(segment) => {
                let Some(i) = self.sealing.iter().position(|open| open.segment == segment) else { return };
                let left = self.sealing[i].footer_left.map_or(0, |left| left - 1);
                self.sealing[i].footer_left = Some(left);
                if left == 0 {
                    self.sealing.remove(i);
                    self.phase(segment, Phase::Sealed);
                    self.reclaim.look_again();
                }
            }
            What::Record(_) | What::Tombstones(_) | What::FreeMark(_) => {
                if planted::is(Bug::AckBeforeFlush) {
                    return self.apply(what);
                }
                self.written.push(what);
                self.written_since.get_or_insert(now);
            }
        }
    }

    /// Flushes what has completed, when no flush is on its way. Waits a little for writes still in flight.
    pub(super) fn maybe_flush(&mut self, now: Instant) {
        if self.flush_in_flight || self.written.is_empty() || self.headers_in_flight > 0 {
            return;
        }
        let waited =
            self.written_since.is_some_and(|since| now.saturating_duration_since(since) >= FLUSH_DELAY);
        if self.writes_in_flight > 0 && self.written.len() < FLUSH_BATCH_MIN && !waited {
            return;
        }
        let covers = std::mem::take(&mut self.written);
        self.written_since = None;
        if planted::is(Bug::SkipFlush) {
            return covers.into_iter().for_each(|what| self.apply(what));
        }
        let ticket = FlushTicket::new(self.drive, covers);
        // Ahead of what waits for the device: those who wait for the flush came first.
        self.ready.push_front((Operation::flush(0), Job::Flush(ticket)));
        self.flush_in_flight = true;
        self.submit_ready(now);
    }

    /// How long until a flush no longer waits for writes in flight.
    pub(super) fn flush_pause(&self, now: Instant) -> Option<Duration> {
        let since = self.written_since.filter(|_| !self.flush_in_flight)?;
        Some((since + FLUSH_DELAY).saturating_duration_since(now).max(Duration::from_micros(20)))
    }

    pub(super) fn flush_done(&mut self, ticket: FlushTicket<What>, outcome: io::Result<usize>) {
        self.flush_in_flight = false;
        match ticket.finish(outcome) {
            Ok((proof, mut covers)) if self.unavailable.is_none() => {
                if planted::is(Bug::FlushCoversLater) {
                    covers.append(&mut self.written);
                }
                add(&self.shared.counters.flushes, 1);
                self.proof = Some(proof);
                for what in covers {
                    self.apply(what);
                }
            }
            Ok((_, covers)) => covers.into_iter().for_each(|what| self.refuse_written(what)),
            Err((_, covers)) if planted::is(Bug::RetryFlush) => self.written.extend(covers),
            Err((error, covers)) => {
                add(&self.shared.counters.flush_errors, 1);
                let why = format!("flush failed: {error}");
                self.fail(if Self::is_gone(&error) {
                    Unavailable::Gone(why)
                } else {
                    Unavailable::Fenced(why)
                });
                covers.into_iter().for_each(|what| self.refuse_written(what));
            }
        }
    }

    /// A write has passed a clean flush: it counts from now on.
    fn apply(&mut self, what: What) {
        match what {
            What::Record(write) => self.apply_record(*write),
            What::Tombstones(write) => self.apply_tombstones(write),
            What::FreeMark(segment) => {
                self.segments.freed(segment);
                self.reclaimed(segment);
            }
            What::SegmentHeader | What::Footer(_) | What::Label => {}
        }
    }

    fn apply_record(&mut self, write: RecordWrite) {
        let RecordWrite { record, segment, origin } = write;
        self.settle(record.sequence, segment);
        let new = Indexed {
            shard: record.shard,
            generation: record.generation,
            tenant: record.tenant,
            payload_len: record.payload_len,
            written: record.written,
            location: Location { segment, sector: record.sector },
        };
        match origin {
            Origin::Put(reply) => {
                self.switch(&new);
                add(&self.shared.counters.records_acknowledged, 1);
                self.release(new.shard);
                if let Some(proof) = &self.proof {
                    // The caller may have gone; the shard is there all the same.
                    drop(reply.send(Ok(proof.mint(new.shard, new.generation))));
                }
            }
            // Not before it has been read back.
            Origin::Move(from) => self.moved_durably(new, from),
        }
    }

    /// The index points to `new`; what it replaces gets a tombstone.
    pub(super) fn switch(&mut self, new: &Indexed) {
        self.segments.add_live(new.location.segment, new.payload_len);
        let old = self.shared.index.write().insert(new);
        if let Some(old) = old {
            self.segments.remove_live(old.location.segment, old.payload_len);
            self.reclaim.look_again();
            let tombstone = self.tombstone_for(&old);
            if !planted::is(Bug::ForgetOldCopy) {
                self.tombs.push(tombstone, None);
            }
        }
    }

    /// A durable copy that nobody needs: it gets a tombstone.
    pub(super) fn discard(&mut self, copy: &Indexed) {
        let tombstone = self.tombstone_for(copy);
        self.tombs.push(tombstone, None);
    }

    fn apply_tombstones(&mut self, write: TombstoneWrite) {
        self.tombs.in_flight = false;
        self.tombs.durable += write.entries.len() as u64;
        for sequence in write.sequences {
            self.settle(sequence, write.segment);
        }
        for (tombstone, reply) in write.entries {
            self.segments.add_tombstone(write.segment, tombstone.life);
            let Some(reply) = reply else { continue };
            let removed = self.shared.index.write().remove(tombstone.shard);
            if let Some(old) = removed {
                self.segments.remove_live(old.location.segment, old.payload_len);
                self.reclaim.look_again();
            }
            add(&self.shared.counters.deletes_acknowledged, 1);
            self.release(tombstone.shard);
            drop(reply.send(Ok(true)));
        }
    }

    fn settle(&mut self, sequence: Sequence, segment: u32) {
        self.undurable.remove(&sequence);
        self.segments.get_mut(segment).unflushed -= 1;
        self.idle_since = self.clock.now();
    }

    /// The shard is no longer being changed: requests that waited for it are taken up again.
    pub(super) fn release(&mut self, shard: ShardId) {
        if let Some(waiting) = self.busy.remove(&shard) {
            self.released.extend(waiting);
        }
    }

    /// Tells the callers of a write that it will not be acknowledged.
    fn refuse_written(&mut self, what: What) {
        let why = self.unavailable.clone().unwrap_or(Unavailable::Closed);
        match what {
            What::Record(write) => {
                self.release(write.record.shard);
                if let Origin::Put(reply) = write.origin {
                    drop(reply.send(Err(why.put(self.drive))));
                }
            }
            What::Tombstones(write) => {
                self.tombs.in_flight = false;
                for (tombstone, reply) in write.entries {
                    self.release(tombstone.shard);
                    if let Some(reply) = reply {
                        drop(reply.send(Err(why.delete(self.drive))));
                    }
                }
            }
            What::SegmentHeader | What::FreeMark(_) | What::Footer(_) | What::Label => {}
        }
    }

    /// Tells everyone who waits for a write that has not been submitted, or not been flushed.
    pub(super) fn refuse_writes(&mut self, why: &Unavailable) {
        for what in std::mem::take(&mut self.written) {
            self.refuse_written(what);
        }
        self.written_since = None;
        for (operation, job) in std::mem::take(&mut self.ready) {
            match job {
                Job::Write(write) => {
                    self.writes_in_flight -= 1;
                    self.refuse_written(write.what);
                }
                Job::Flush(ticket) => {
                    self.flush_in_flight = false;
                    ticket.give_back().into_iter().for_each(|what| self.refuse_written(what));
                }
                job => self.ready.push_back((operation, job)),
            }
        }
        for (tombstone, reply) in std::mem::take(&mut self.tombs.waiting) {
            if let Some(reply) = reply {
                self.release(tombstone.shard);
                drop(reply.send(Err(why.delete(self.drive))));
            }
        }
        self.tombs = TombstoneQueue::default();
        // Writes in flight answer their callers when they come back; a hung one would keep them waiting.
        let mut stuck = Vec::new();
        for slot in self.jobs.iter_mut().flatten() {
            match &mut slot.job {
                Job::Write(write) => stuck.push(std::mem::replace(&mut write.what, What::Label)),
                Job::Flush(ticket) => {
                    stuck.extend(
                        std::mem::replace(ticket, FlushTicket::new(self.drive, Vec::new())).give_back(),
                    );
                }
                Job::Read(_) | Job::LastFlush => {}
            }
        }
        for what in stuck {
            self.refuse_written(what);
        }
        self.reclaim.stop();
        for (_, request) in std::mem::take(&mut self.starved) {
            self.refuse(request, why);
        }
        let busy = std::mem::take(&mut self.busy);
        for request in busy.into_values().flatten() {
            self.refuse(request, why);
        }
    }

    /// Writes the fence into every copy of the label, as far as the device still lets us.
    pub(super) fn write_fence(&mut self) {
        if planted::is(Bug::ForgetFence) {
            return;
        }
        self.label.fenced = true;
        self.label.counter += 1;
        for copy in 0..holdfast_format::LABEL_COPIES {
            self.write_label(copy);
        }
        self.enqueue(Operation::flush(0), Job::LastFlush);
    }

    fn write_label(&mut self, copy: usize) {
        let Some(mut buffer) = self.meta_frame(SECTOR_SIZE) else { return };
        self.label.encode(u16::try_from(copy).expect("four copies"), buffer.headroom_mut());
        self.label_pending += 1;
        self.write(What::Label, self.layout.label_offsets()[copy], buffer);
    }

    /// Whether the label should record that more is durable than it says.
    pub(super) fn wants_idle_label(&self) -> bool {
        self.unavailable.is_none()
            && self.undurable.is_empty()
            && self.label_pending == 0
            && self.label.durable < self.durable()
    }

    pub(super) fn record_idle(&mut self, now: Instant) {
        if self.wants_idle_label() && now.saturating_duration_since(self.idle_since) >= IDLE_LABEL_AFTER {
            self.record_label();
        }
    }

    /// Writes one copy of the label, another one each time, so that the others stay whole.
    pub(super) fn record_label(&mut self) {
        if self.undurable.is_empty() && self.label.durable < self.durable() {
            self.label.durable = self.durable();
            self.label.counter += 1;
            let copy = usize::try_from(self.label.counter % 4).expect("below four");
            self.write_label(copy);
        }
    }
}
