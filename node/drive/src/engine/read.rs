//! The read side: for callers, and for reclaiming.
//!
//! A caller's read brings the record's header along, in the same operation when the range begins with the
//! first block, otherwise in one of its own. Verifying is the caller's.
//!
//! Invariant: a segment something is read from is pinned, so that it is not used again meanwhile.

use std::{
    collections::{HashMap, VecDeque},
    io,
    time::{Duration, Instant},
};

use holdfast_format::BLOCK_SIZE;
use holdfast_model::limits::SECTOR_SIZE;
use holdfast_ring::{BlockDevice, Buffer, Operation};

use super::{
    Engine, Job,
    transfer::{Progress, progress},
};
use crate::{
    errors::GetError,
    handle::expect_generation,
    index::Indexed,
    shared::{GetRequest, RawRead, Unavailable, Urgency, add},
};

/// Operations beside which a read that may wait starts.
const BESIDE_MAX: usize = 2;

/// How long a read may wait for a quiet device that is to restore what was lost: clients that never rest do not keep
/// a rebuild from its end.
const BEHIND_MAX: Duration = Duration::from_millis(200);

/// The same for a read in the background: a drive that is never quiet is scrubbed too, though slowly.
const BACKGROUND_MAX: Duration = Duration::from_millis(100);

/// A read in flight: bytes `start + done..start + length` of its buffer's frame are still to come.
#[derive(Debug)]
pub(super) struct ReadPart {
    purpose: Purpose,
    segment: u32,
    /// Where byte `start` of the frame comes from.
    offset: u64,
    start: usize,
    length: usize,
    done: usize,
    retries: u32,
}

/// What a read is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A caller's read: its number, and whether this part is the header alone.
    Caller { read: u64, header_only: bool },
    /// A piece of a footer, for reclaiming.
    Footer,
    /// A record of a segment whose records are all to be moved or none.
    Prove(Indexed),
    /// A record to be moved, and the checksum of what it was read as before, if that was damaged.
    MoveSource { entry: Indexed, before: Option<u32> },
    /// A record that was moved, to be compared: the new place and the old one.
    MoveCheck { new: Indexed, from: Indexed },
}

/// Callers' reads.
#[derive(Debug, Default)]
pub(super) struct Reads {
    next: u64,
    active: HashMap<u64, CallerRead>,
    /// For want of a buffer for the header.
    waiting: VecDeque<GetRequest>,
    /// Reads behind those of clients, and until when the first of them waits for these.
    behind: VecDeque<(Instant, GetRequest)>,
    /// Reads in the background, one at a time: until when each waits for a quiet device, when the pace lets the first
    /// start, and the number of the last one that did.
    background: VecDeque<(Instant, GetRequest)>,
    background_from: Option<Instant>,
    background_last: Option<u64>,
}

impl Reads {
    pub(super) fn is_empty(&self) -> bool {
        let Self { active, waiting, behind, background, .. } = self;
        active.is_empty() && waiting.is_empty() && behind.is_empty() && background.is_empty()
    }

    /// When a read that waits may start whatever else there is, or may be looked at again.
    pub(super) fn due(&self) -> Option<Instant> {
        let behind = self.behind.front().map(|(until, _)| *until);
        // While one is under way its end is waited for, whatever the time.
        let background = self.background.front().filter(|_| !self.reads_in_background());
        let background = background.map(|(until, _)| self.background_from.unwrap_or(*until));
        behind.into_iter().chain(background).min()
    }

    fn reads_in_background(&self) -> bool {
        self.background_last.is_some_and(|read| self.active.contains_key(&read))
    }
}

#[derive(Debug)]
struct CallerRead {
    request: PendingGet,
    entry: Indexed,
    begun: Instant,
    parts_left: u32,
    header: Option<Buffer>,
    buffer: Option<Buffer>,
    failed: Option<GetError>,
}

type PendingGet = tokio::sync::oneshot::Sender<Result<RawRead, GetError>>;

impl<D: BlockDevice> Engine<D> {
    pub(super) fn get(&mut self, request: GetRequest, now: Instant) {
        match request.urgency {
            Urgency::Now => self.get_now(request, now),
            Urgency::Behind => self.reads.behind.push_back((now + BEHIND_MAX, request)),
            Urgency::Background => self.reads.background.push_back((now + BACKGROUND_MAX, request)),
        }
    }

    fn get_now(&mut self, request: GetRequest, now: Instant) {
        if let Some(error) = self.unavailable.as_ref().and_then(|why| why.get(self.drive)) {
            return drop(request.reply.send(Err(error)));
        }
        if now >= request.expires {
            add(&self.shared.counters.timeouts, 1);
            let error = GetError::Deadline { drive: self.drive, id: request.id, deadline: Duration::ZERO };
            return drop(request.reply.send(Err(error)));
        }
        let entry = self.shared.index.read().get(request.id);
        let entry = match expect_generation(self.drive, request.id, request.generation, entry) {
            Ok(entry) => entry,
            Err(error) => return drop(request.reply.send(Err(error))),
        };
        let header = if request.first_block == 0 {
            None
        } else {
            match self.meta_frame(SECTOR_SIZE) {
                Some(header) => Some(header),
                None => return self.reads.waiting.push_back(request),
            }
        };
        self.start_get(request, entry, header, now);
    }

    fn start_get(&mut self, request: GetRequest, entry: Indexed, header: Option<Buffer>, now: Instant) {
        let GetRequest { first_block, mut buffer, reply, .. } = request;
        // The same shard and generation has the same length, so the blocks fit the buffer asked for.
        let from = first_block as usize * BLOCK_SIZE;
        let length = buffer.len().min((entry.payload_len as usize).saturating_sub(from));
        buffer.set_len(length);
        let read = self.reads.next;
        self.reads.next += 1;
        let segment = entry.location.segment;
        let base = self.layout.offset(segment, entry.location.sector);
        let blocks = buffer.framed_len() - SECTOR_SIZE;
        let parts_left = if header.is_some() { 2 } else { 1 };
        let state = CallerRead {
            request: reply,
            entry,
            begun: now,
            parts_left,
            header: None,
            buffer: None,
            failed: None,
        };
        self.reads.active.insert(read, state);
        if let Some(header) = header {
            let purpose = Purpose::Caller { read, header_only: true };
            self.read(purpose, segment, base, header, 0, SECTOR_SIZE);
            let purpose = Purpose::Caller { read, header_only: false };
            self.read(purpose, segment, base + (SECTOR_SIZE + from) as u64, buffer, SECTOR_SIZE, blocks);
        } else {
            let purpose = Purpose::Caller { read, header_only: false };
            self.read(purpose, segment, base, buffer, 0, SECTOR_SIZE + blocks);
        }
    }

    /// Reads `length` bytes at `offset` into the frame of `buffer` from `start` on.
    pub(super) fn read(
        &mut self,
        purpose: Purpose,
        segment: u32,
        offset: u64,
        buffer: Buffer,
        start: usize,
        length: usize,
    ) {
        self.segments.get_mut(segment).pins += 1;
        self.resume_read(ReadPart { purpose, segment, offset, start, length, done: 0, retries: 0 }, buffer);
    }

    fn resume_read(&mut self, part: ReadPart, buffer: Buffer) {
        let (offset, start) = (part.offset + part.done as u64, part.start + part.done);
        let operation = Operation::read(0, offset, buffer, start, part.length - part.done);
        self.enqueue(operation, Job::Read(part));
    }

    pub(super) fn read_done(
        &mut self,
        mut part: ReadPart,
        outcome: io::Result<usize>,
        buffer: Buffer,
        now: Instant,
    ) {
        let result = match progress(outcome, part.done, part.length, &mut part.retries) {
            Progress::Again(done) => {
                add(&self.shared.counters.retries, 1);
                part.done = done;
                return self.resume_read(part, buffer);
            }
            Progress::Done => {
                add(&self.shared.counters.read_bytes, part.length as u64);
                Ok(buffer)
            }
            Progress::Failed(error) => {
                add(&self.shared.counters.read_errors, 1);
                if Self::is_gone(&error) {
                    self.fail(Unavailable::Gone(format!("read at {} failed: {error}", part.offset)));
                }
                Err(error)
            }
        };
        self.segments.get_mut(part.segment).pins -= 1;
        match part.purpose {
            Purpose::Caller { read, header_only } => self.caller_part_done(read, header_only, result, now),
            Purpose::Footer => self.footer_read(part.segment, result),
            Purpose::Prove(entry) => self.proved(&entry, result),
            Purpose::MoveSource { entry, before } => self.move_source_read(entry, before, result),
            Purpose::MoveCheck { new, from } => self.move_checked(&new, &from, result),
        }
        self.start_waiting_reads(now);
    }

    fn caller_part_done(&mut self, read: u64, header_only: bool, result: io::Result<Buffer>, now: Instant) {
        let drive = self.drive;
        // Not there any more when the drive was given up meanwhile.
        let Some(state) = self.reads.active.get_mut(&read) else { return };
        state.parts_left -= 1;
        match result {
            Ok(buffer) if header_only => state.header = Some(buffer),
            Ok(buffer) => state.buffer = Some(buffer),
            Err(error) => {
                state.failed =
                    Some(GetError::Device { drive, id: state.entry.shard, what: error.to_string() });
            }
        }
        if state.parts_left > 0 {
            return;
        }
        let Some(state) = self.reads.active.remove(&read) else { return };
        let CallerRead { request, entry, begun, header, buffer, failed, .. } = state;
        let took = now.saturating_duration_since(begun);
        let answer = match (failed, buffer) {
            (Some(error), _) => Err(error),
            (None, Some(buffer)) => Ok(RawRead { entry, header, buffer, took }),
            (None, None) => Err(GetError::Closed { drive }),
        };
        // The caller may have gone; then the buffers go back to their pools.
        drop(request.send(answer));
    }

    pub(super) fn start_waiting_reads(&mut self, now: Instant) {
        while let Some(request) = self.reads.waiting.pop_front() {
            let before = self.reads.waiting.len();
            self.get_now(request, now);
            if self.reads.waiting.len() > before {
                // Back at the end of the queue: still no buffer. Keep the order.
                self.reads.waiting.rotate_right(1);
                break;
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.device.in_flight() <= BESIDE_MAX && self.ready.is_empty() && self.outgoing.is_empty()
    }

    /// Starts reads behind those of clients as long as the device has little else to do, and those that waited long.
    pub(super) fn start_reads_behind(&mut self, now: Instant) {
        while let Some((until, request)) = self.reads.behind.pop_front() {
            if now < until && !self.is_quiet() {
                return self.reads.behind.push_front((until, request));
            }
            self.get_now(request, now);
            self.submit_ready(now);
        }
    }

    /// Starts a read in the background when the device has little else to do, or after a while whatever it has to do,
    /// and when its pace allows it.
    pub(super) fn start_background_read(&mut self, now: Instant) {
        if self.reads.background_from.is_some_and(|from| now < from) {
            return;
        }
        self.reads.background_from = None;
        while let Some((until, request)) = self.reads.background.front()
            && !self.reads.reads_in_background()
            && (now >= *until || self.is_quiet())
        {
            if let Err(pause) = self.read_pace.take(request.buffer.framed_len() as u64, now) {
                self.reads.background_from = Some(now + pause);
                return;
            }
            if let Some((_, request)) = self.reads.background.pop_front() {
                self.reads.background_last = Some(self.reads.next);
                self.get_now(request, now);
                self.submit_ready(now);
            }
        }
    }

    /// Tells all callers that nothing will be read any more. Buffers in flight stay with the device.
    pub(super) fn refuse_reads(&mut self, why: &Unavailable) {
        let Some(error) = why.get(self.drive) else { return };
        // In the order in which they came.
        let mut active: Vec<_> = self.reads.active.drain().collect();
        active.sort_unstable_by_key(|(number, _)| *number);
        for (_, read) in active {
            drop(read.request.send(Err(error.clone())));
        }
        let Reads { waiting, behind, background, .. } = &mut self.reads;
        let later = behind.drain(..).chain(background.drain(..)).map(|(_, request)| request);
        for request in waiting.drain(..).chain(later) {
            drop(request.reply.send(Err(error.clone())));
        }
    }
}
