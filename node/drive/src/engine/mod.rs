//! The engine: one thread, one device. Takes requests, keeps operations in flight, reaps completions.
//!
//! A state machine around [`Engine::turn`]: requests and completions in, operations and answers out. The
//! thread calls it in a loop; tests call it step by step on a device that misbehaves.
//!
//! - `requests`: puts and deletes; `log`: room for them; `flush`: writing and group commit; `tombstones`.
//! - `fence` and `close`: the end of writing.
//! - `read`: reads for callers.
//! - `reclaim`: frees segments by moving what is alive in them.
//!
//! Invariants:
//! - what a flush covers had completed, whole, when the flush was submitted; it alone is acknowledged;
//! - a segment's header has completed before a flush covers any of its records;
//! - changes to one shard happen one after another (`busy`);
//! - tombstones become durable in the order in which they were asked for.

mod close;
mod fence;
mod flush;
mod log;
mod pace;
mod read;
mod reclaim;
mod requests;
mod salvage;
mod tombstones;
mod transfer;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_format::{DriveLabel, Layout, SegmentSequence, Sequence};
use holdfast_model::{ByteCount, DriveId, ShardId, limits::SECTOR_SIZE};
use holdfast_ring::{BlockDevice, Buffer, BufferPool, Completion, Kind, Operation};

use self::{
    close::{CLOSE_GRACE, Closing, Stage},
    flush::{What, Write},
    log::OpenSegment,
    pace::Pace,
    read::{ReadPart, Reads},
    reclaim::Reclaim,
    requests::ROOM_WAIT,
    tombstones::{Asker, TombstoneQueue},
};
use crate::{
    commit::{CleanFlush, FlushTicket},
    mount::State,
    planted::{self, Bug},
    segments::{Phase, Segments},
    shared::{Request, Shared, Unavailable, add},
    types::{DriveOptions, DriveState},
};

/// Memory for headers, footers, tombstones and records being moved: separate from the callers' pool, so
/// that a full pool never keeps a drive from deleting, sealing or reclaiming.
pub const META_POOL_SIZE: ByteCount = ByteCount::mib(8);

/// An operation in flight for this long makes the drive slow.
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// A drive stays slow this long after the last slow operation.
const SLOW_FOR: Duration = Duration::from_secs(10);

/// A write or flush in flight for this long will not come back: the drive is fenced.
const HUNG_AFTER: Duration = Duration::from_secs(30);

/// Bytes of writes at the device from which on records wait for others to complete. A device writes one thing
/// after the other, and a flush waits its turn among them: with everything at the device at once, the flush
/// that a record waits for would come after all that was submitted behind it.
const RECORD_BYTES_IN_FLIGHT_MAX: usize = 4 << 20;

/// After this long without writes the label records what is durable, so that a later mount can tell
/// torn from damaged to the last record.
const IDLE_LABEL_AFTER: Duration = Duration::from_millis(100);

/// Segments that puts leave free: for repairs, for tombstones and for reclaiming.
pub(crate) const PUT_RESERVE: usize = 3;

/// What an operation in flight is for.
#[derive(Debug)]
enum Job {
    Write(Write),
    Read(ReadPart),
    Flush(FlushTicket<What>),
    /// Flush after a fence; its outcome changes nothing.
    LastFlush,
}

/// An operation in flight.
#[derive(Debug)]
struct InFlight {
    job: Job,
    since: Instant,
    /// Bytes it writes.
    write_bytes: usize,
}

/// The engine of one drive.
#[derive(Debug)]
pub(crate) struct Engine<D> {
    device: D,
    label: DriveLabel,
    drive: DriveId,
    layout: Layout,
    shared: Arc<Shared>,
    meta: BufferPool,
    /// Of reclaiming, and of reads in the background.
    move_pace: Pace,
    read_pace: Pace,

    segments: Segments,
    open: Option<OpenSegment>,
    sealing: Vec<OpenSegment>,
    next_sequence: Sequence,
    next_life: SegmentSequence,
    /// Sequences given out and not yet flushed.
    undurable: BTreeSet<Sequence>,

    jobs: Vec<Option<InFlight>>,
    vacant: Vec<usize>,
    /// Jobs in the order they were submitted, for finding old ones.
    by_age: VecDeque<(usize, Instant)>,
    /// Reads that have been in flight for [`HUNG_AFTER`]: not among those by age any more.
    hung_reads: Vec<(usize, Instant)>,
    /// Operations the device had no room for yet.
    ready: VecDeque<(Operation, Job)>,
    /// Records that go to the device when it has written others.
    outgoing: VecDeque<(Operation, Job)>,
    /// Bytes of writes at the device.
    bytes_in_flight: usize,
    /// Writes not yet complete, wherever they are.
    writes_in_flight: usize,
    headers_in_flight: usize,
    /// Completed and not yet covered by a flush.
    written: Vec<What>,
    written_bytes: usize,
    written_since: Option<Instant>,
    flush_in_flight: bool,
    /// The last clean flush, the proof for what the index holds. None once a flush failed.
    proof: Option<CleanFlush>,

    /// Shards being changed, and the requests that wait for that.
    busy: HashMap<ShardId, VecDeque<Request>>,
    /// Requests that waited for a shard that is no longer busy.
    released: VecDeque<Request>,
    tombs: TombstoneQueue,
    /// Puts for which there is no room yet, and until when they wait for reclaiming to make some; and
    /// whatever was asked of their shards later.
    starved: VecDeque<(Instant, Request)>,
    reads: Reads,
    reclaim: Reclaim,

    unavailable: Option<Unavailable>,
    slow_until: Option<Instant>,
    closing: Option<Closing>,
    idle_since: Instant,
    /// Counter of the newest label that is known to be flushed.
    label_flushed: u64,
    label_pending: usize,
    /// Reused each turn.
    requests: Vec<Request>,
    completions: Vec<Completion>,
    clock: Clock,
}

/// Where the engine reads the time from.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// The monotonic clock of the system.
    System,
    /// The clock of the asynchronous runtime that the engine is stepped in, which a simulation stops.
    Runtime,
    /// Microseconds after a start, moved on by a test.
    #[cfg(any(test, feature = "simulation"))]
    Manual(Instant, Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    fn now(&self) -> Instant {
        match self {
            Self::System => Instant::now(),
            Self::Runtime => tokio::time::Instant::now().into_std(),
            #[cfg(any(test, feature = "simulation"))]
            Self::Manual(start, micros) => {
                *start + Duration::from_micros(micros.load(std::sync::atomic::Ordering::SeqCst))
            }
        }
    }
}

impl<D: BlockDevice> Engine<D> {
    /// An engine for a mounted drive.
    pub(crate) fn new(
        device: D,
        label: DriveLabel,
        state: State,
        meta: BufferPool,
        shared: Arc<Shared>,
        options: &DriveOptions,
        clock: Clock,
    ) -> Self {
        shared.set_waker(device.waker());
        let now = clock.now();
        let mut tombs = TombstoneQueue::default();
        for tombstone in state.untombed {
            tombs.push(tombstone, Asker::Nobody);
        }
        *shared.index.write() = state.index;
        let fenced =
            label.fenced.then(|| Unavailable::Fenced("it was fenced before it was opened".to_owned()));
        // The mount flushed everything it found.
        let proof =
            FlushTicket::<()>::new(label.drive, Vec::new()).finish(Ok(0)).ok().map(|(proof, _)| proof);
        let mut engine = Self {
            drive: label.drive,
            label_flushed: label.counter,
            layout: label.layout,
            meta,
            move_pace: Pace::new(options.background_rate.get()),
            read_pace: Pace::new(options.background_rate.get()),
            device,
            label,
            shared,
            segments: state.segments,
            open: state.resumed.map(OpenSegment::resume),
            sealing: Vec::new(),
            next_sequence: state.next_sequence,
            next_life: state.next_life,
            undurable: BTreeSet::new(),
            jobs: Vec::new(),
            vacant: Vec::new(),
            by_age: VecDeque::new(),
            hung_reads: Vec::new(),
            ready: VecDeque::new(),
            outgoing: VecDeque::new(),
            bytes_in_flight: 0,
            writes_in_flight: 0,
            headers_in_flight: 0,
            written: Vec::new(),
            written_bytes: 0,
            written_since: None,
            flush_in_flight: false,
            proof: proof.filter(|_| fenced.is_none()),
            busy: HashMap::new(),
            released: VecDeque::new(),
            tombs,
            starved: VecDeque::new(),
            reads: Reads::default(),
            reclaim: Reclaim::default(),
            unavailable: fenced,
            slow_until: None,
            closing: None,
            idle_since: now,
            label_pending: 0,
            requests: Vec::new(),
            completions: Vec::new(),
            clock,
        };
        engine.reclaim.look_again();
        engine.publish(now);
        engine
    }

    /// Runs until the drive is closed.
    pub(crate) fn run(mut self) {
        while self.turn(None) {}
    }

    /// One round: requests, completions, new operations, then a wait of at most `limit`. `false` when the
    /// drive is closed and nothing is left to do.
    pub(crate) fn turn(&mut self, limit: Option<Duration>) -> bool {
        let now = self.clock.now();
        // Those that waited came before those in the queue.
        if !planted::is(Bug::OvertakeWaiting) {
            self.dispatch_released(now);
        }
        let mut requests = std::mem::take(&mut self.requests);
        self.shared.take(&mut requests);
        for request in requests.drain(..) {
            self.dispatch(request, now);
        }
        self.requests = requests;
        if planted::is(Bug::OvertakeWaiting) {
            self.dispatch_released(now);
        }
        self.watch(now);
        self.pump(now);
        self.publish(now);
        if self.finish_closing(now) {
            return false;
        }
        let wait = self.wait_limit(now, limit);
        let wait = if self.shared.may_sleep() { wait } else { Some(Duration::ZERO) };
        let mut completions = std::mem::take(&mut self.completions);
        if let Err(error) = self.device.wait(wait, &mut completions) {
            self.fail(Unavailable::Gone(format!("its ring failed: {error}")));
        }
        let now = self.clock.now();
        for completion in completions.drain(..) {
            self.complete(completion, now);
        }
        self.completions = completions;
        true
    }

    /// Operations that are at the device.
    pub(crate) fn in_flight(&self) -> usize {
        self.device.in_flight()
    }

    fn dispatch_released(&mut self, now: Instant) {
        while let Some(request) = self.released.pop_front() {
            self.dispatch(request, now);
        }
    }

    fn dispatch(&mut self, request: Request, now: Instant) {
        if !self.starved.is_empty() && self.is_behind_starved(&request) {
            return self.starved.push_back((now + ROOM_WAIT, request));
        }
        self.dispatch_now(request, now);
    }

    fn dispatch_now(&mut self, request: Request, now: Instant) {
        match request {
            Request::Put(put) => self.put(put, now),
            Request::Get(get) => self.get(get, now),
            Request::Delete { id, generation, reply } => self.delete(id, generation, reply),
            Request::Close { reply } => {
                let closing = self.closing.get_or_insert_with(|| Closing {
                    replies: Vec::new(),
                    until: now + CLOSE_GRACE,
                    stage: Stage::Draining,
                });
                closing.replies.extend(reply);
            }
        }
    }

    /// Starts whatever can be started.
    fn pump(&mut self, now: Instant) {
        if self.unavailable.is_none() {
            self.emit_tombstones();
            self.seal_what_is_durable();
            self.step_reclaim(now);
            self.feed_starved(now);
            self.record_idle(now);
        }
        self.start_waiting_reads(now);
        self.submit_ready(now);
        self.start_reads_behind(now);
        self.start_background_read(now);
        if self.unavailable.is_none() {
            self.maybe_flush(now);
        }
    }

    fn submit_ready(&mut self, now: Instant) {
        while let Some((operation, job)) = self.ready.pop_front() {
            if !self.submit(operation, job, now) {
                return;
            }
        }
        while self.bytes_in_flight < RECORD_BYTES_IN_FLIGHT_MAX
            && let Some((operation, job)) = self.outgoing.pop_front()
        {
            if !self.submit(operation, job, now) {
                return;
            }
        }
    }

    /// Queues an operation behind those that wait for the device.
    fn enqueue(&mut self, operation: Operation, job: Job) {
        self.ready.push_back((operation, job));
    }

    /// Submits an operation; `false` when the device is full and it went back to the front of the queue.
    fn submit(&mut self, operation: Operation, job: Job, now: Instant) -> bool {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        let length = operation.length();
        let kind = operation.kind();
        let write_bytes = if kind == Kind::Write { length } else { 0 };
        match self.device.submit(operation.with_token(slot as u64)) {
            Ok(()) => {
                match kind {
                    Kind::Read => add(&self.shared.counters.reads, 1),
                    Kind::Write => {
                        add(&self.shared.counters.writes, 1);
                        add(&self.shared.counters.write_bytes, length as u64);
                    }
                    Kind::Flush => {}
                }
                self.bytes_in_flight += write_bytes;
                self.jobs[slot] = Some(InFlight { job, since: now, write_bytes });
                self.by_age.push_back((slot, now));
                true
            }
            Err(operation) => {
                self.vacant.push(slot);
                self.ready.push_front((operation, job));
                false
            }
        }
    }

    fn complete(&mut self, completion: Completion, now: Instant) {
        let Completion { token, outcome, buffer, .. } = completion;
        let slot = usize::try_from(token).expect("tokens are slots");
        let Some(InFlight { job, since, write_bytes }) = self.jobs.get_mut(slot).and_then(Option::take)
        else {
            return;
        };
        self.vacant.push(slot);
        self.bytes_in_flight -= write_bytes;
        let took = now.saturating_duration_since(since);
        if took >= SLOW_AFTER {
            self.slow_until = Some(now + SLOW_FOR);
        }
        let counters = &self.shared.counters;
        match job {
            Job::Write(write) => {
                counters.write_latency.record(took);
                if let Some(buffer) = buffer {
                    self.write_done(write, outcome, buffer, now);
                }
            }
            Job::Read(part) => {
                counters.read_latency.record(took);
                if let Some(buffer) = buffer {
                    self.read_done(part, outcome, buffer, now);
                }
            }
            Job::Flush(ticket) => {
                counters.flush_latency.record(took);
                self.flush_done(ticket, outcome);
            }
            Job::LastFlush => {}
        }
    }

    /// Looks for operations that take too long.
    fn watch(&mut self, now: Instant) {
        let in_flight = |jobs: &[Option<InFlight>], slot: usize, since: Instant| {
            jobs[slot].as_ref().is_some_and(|job| job.since == since)
        };
        self.hung_reads.retain(|(slot, since)| in_flight(&self.jobs, *slot, *since));
        while let Some((slot, since)) = self.by_age.front().copied() {
            let Some(job) = self.jobs[slot].as_ref().filter(|job| job.since == since) else {
                self.by_age.pop_front();
                continue;
            };
            let age = now.saturating_duration_since(since);
            if age >= SLOW_AFTER {
                self.slow_until = Some(now + SLOW_FOR);
            }
            if age < HUNG_AFTER {
                break;
            }
            if !matches!(job.job, Job::Read(_)) {
                if self.unavailable.is_none() {
                    self.fail(Unavailable::Fenced(format!("a write has not come back for {age:?}")));
                }
                break;
            }
            // Who asked for it has given up; a write that was sent after it has to be looked at as well.
            self.by_age.pop_front();
            self.hung_reads.push((slot, since));
        }
        if !self.hung_reads.is_empty() {
            self.slow_until = Some(now + SLOW_FOR);
        }
    }

    fn wait_limit(&self, now: Instant, limit: Option<Duration>) -> Option<Duration> {
        let mut wait = limit;
        let mut at_most = |d: Duration| wait = Some(wait.map_or(d, |w| w.min(d)));
        if !self.by_age.is_empty() {
            at_most(SLOW_AFTER);
        }
        if self.slow_until.is_some() {
            at_most(SLOW_FOR);
        }
        if let Some(pause) = self.reclaim.pause(now) {
            at_most(pause);
        }
        if let Some(until) = self.reads.due() {
            at_most(until.saturating_duration_since(now).max(Duration::from_millis(1)));
        }
        if let Some((until, _)) = self.starved.front() {
            at_most(until.saturating_duration_since(now));
        }
        if self.wants_idle_label() {
            at_most(
                (self.idle_since + IDLE_LABEL_AFTER).saturating_duration_since(now)
                    + Duration::from_millis(1),
            );
        }
        if let Some(pause) = self.flush_pause(now) {
            at_most(pause);
        }
        if !self.released.is_empty() || self.closing.is_some() && self.device.in_flight() == 0 {
            at_most(Duration::ZERO);
        }
        wait
    }

    /// Everything up to this is flushed.
    fn durable(&self) -> Sequence {
        match self.undurable.first() {
            Some(first) => Sequence::new(first.get() - 1),
            None => Sequence::new(self.next_sequence.get() - 1),
        }
    }

    /// A frame of `length` bytes for the engine's own structures.
    fn meta_frame(&self, length: usize) -> Option<Buffer> {
        self.meta.try_acquire(length - SECTOR_SIZE)
    }

    /// How many bytes of new shards fit before the reserve.
    fn free_bytes(&self) -> u64 {
        if self.unavailable.is_some() {
            return 0;
        }
        let usable = u64::from(self.layout.segment_sectors()) * 63 / 64;
        let Some(segments) = self.segments.free_count().checked_sub(PUT_RESERVE) else {
            // What is left of the open segment is reclaiming's: a put would wait for it.
            return 0;
        };
        let open = self.open.as_ref().map_or(0, |open| u64::from(open.room(self.layout.segment_sectors())));
        (segments as u64 * usable + open) * SECTOR_SIZE as u64
    }

    fn publish(&mut self, now: Instant) {
        if self.slow_until.is_some_and(|until| until <= now) {
            self.slow_until = None;
        }
        let (state, reason) = match &self.unavailable {
            Some(Unavailable::Fenced(why)) => (DriveState::Fenced, why.clone()),
            Some(Unavailable::Gone(why)) => (DriveState::Gone, why.clone()),
            Some(Unavailable::Closed) => (DriveState::Closed, String::new()),
            None if self.slow_until.is_some() => (DriveState::Slow, String::new()),
            None => (DriveState::Live, String::new()),
        };
        let sector = SECTOR_SIZE as u64;
        let size = self.layout.segment_size().get();
        let open =
            self.open.as_ref().map_or(0, |open| u64::from(open.room(self.layout.segment_sectors())) * sector);
        let free_segments = self.segments.free_count() as u64;
        let mut gauges = self.shared.gauges.lock();
        gauges.state = state;
        gauges.reason = reason;
        gauges.used = (u64::from(self.layout.segments()) - free_segments) * size - open;
        gauges.live = self.segments.live_sectors() * sector;
        gauges.free = self.free_bytes();
        gauges.label_counter = self.label_flushed;
    }

    /// The drive takes no writes from now on, or nothing at all. Everyone who waits is told.
    fn fail(&mut self, why: Unavailable) {
        if matches!(self.unavailable, Some(Unavailable::Gone(_) | Unavailable::Closed)) {
            return;
        }
        let was_fenced = matches!(self.unavailable, Some(Unavailable::Fenced(_)));
        if was_fenced && matches!(why, Unavailable::Fenced(_)) {
            return;
        }
        match &why {
            Unavailable::Closed => tracing::info!(drive = %self.drive, "drive closed"),
            _ => tracing::error!(drive = %self.drive, ?why, "drive fails"),
        }
        self.unavailable = Some(why.clone());
        self.proof = None;
        self.refuse_writes(&why);
        match why {
            Unavailable::Fenced(_) => self.write_fence(),
            Unavailable::Gone(_) | Unavailable::Closed => self.refuse_reads(&why),
        }
        let now = self.clock.now();
        self.publish(now);
    }

    fn refuse(&mut self, request: Request, why: &Unavailable) {
        // Whoever asked may have gone; then the answer is dropped.
        match request {
            Request::Put(put) => drop(put.reply.send(Err(why.put(self.drive)))),
            Request::Delete { reply, .. } => drop(reply.send(Err(why.delete(self.drive)))),
            Request::Get(get) => {
                if let Some(error) = why.get(self.drive) {
                    drop(get.reply.send(Err(error)));
                }
            }
            Request::Close { reply } => {
                let _ = reply.map(|reply| reply.send(()));
            }
        }
    }

    /// Whether a failed operation means that the device is no longer there.
    fn is_gone(error: &io::Error) -> bool {
        matches!(
            error.raw_os_error(),
            Some(libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM | libc::ENOSPC | libc::ESHUTDOWN)
        ) || error.kind() == io::ErrorKind::UnexpectedEof
    }

    fn phase(&mut self, segment: u32, phase: Phase) {
        self.segments.get_mut(segment).phase = phase;
    }
}
