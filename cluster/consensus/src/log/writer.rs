//! The one writer of the log, on a thread of its own: gathers what all groups wait for, one write, one
//! flush, answers.
//!
//! Invariants:
//! - a batch is written only after the flush of the batch before it returned;
//! - nothing is answered before the flush that covers it;
//! - after the first failed write or flush nothing is written any more and everything is refused: what
//!   the device holds is unknown, and only who reads it back may say (DESIGN, promise 6);
//! - a segment is removed only when no group needs it, and what made it needless has been flushed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use holdfast_model::{GroupId, NodeId};
use openraft::storage::LogFlushed;
use tokio::{sync::oneshot, time::Instant};

use super::{
    LogPoisoned, Shared,
    disk::{Disk, Segment},
    index::{CACHE_BYTES_PER_GROUP, Place},
    record::{Kind, LogIdentity, Record, SEGMENT_HEADER_SIZE, SegmentHeader, record_size},
    recovery::{Head, Runs},
};
use crate::{
    host::Host,
    types::{LogId, TypeConfig},
};

/// Records that nobody waits for are written after at most this long.
pub(crate) const LAZY_DELAY: Duration = Duration::from_millis(200);

/// Bytes of records gathered into one write; one entry alone may exceed it.
pub(crate) const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Records of one group, and who waits for them.
pub(crate) struct Write {
    pub(crate) group: GroupId,
    pub(crate) records: Vec<(Record, Option<LogId>)>,
    pub(crate) done: Done,
}

/// Who is told, and whether to hurry.
pub(crate) enum Done {
    /// Nobody: rides with the next batch.
    Lazy,
    /// openraft, which appended entries.
    Appended(LogFlushed<TypeConfig>),
    /// A caller.
    Told(oneshot::Sender<Result<(), LogPoisoned>>),
}

/// What the thread is asked to do.
pub(crate) enum Request {
    Write(Write),
    /// Begins a new segment and has groups give up the entries in those before it; answers its number.
    Renew(oneshot::Sender<Result<u64, LogPoisoned>>),
    /// Writes what is pending and ends.
    Stop(oneshot::Sender<Result<(), LogPoisoned>>),
}

struct Active {
    number: u64,
    segment: Arc<dyn Segment>,
    offset: u64,
    size: u64,
}

/// The way to the writer.
#[derive(Clone)]
pub(crate) enum Requests {
    /// On its thread.
    Thread(mpsc::Sender<Request>),
    /// A task of a simulation.
    #[cfg(test)]
    Task(tokio::sync::mpsc::UnboundedSender<Request>),
}

impl Requests {
    /// Passes `request` on; an error when the writer has ended.
    pub(super) fn send(&self, request: Request) -> Result<(), Closed> {
        match self {
            Self::Thread(requests) => requests.send(request).map_err(|_| Closed),
            #[cfg(test)]
            Self::Task(requests) => requests.send(request).map_err(|_| Closed),
        }
    }
}

/// The writer has ended.
pub(super) struct Closed;

/// What the writer is to do next.
pub(crate) enum Next {
    /// Take the next request; with a time, no longer than until then.
    Wait(Option<Instant>),
    /// Take a request if there is one.
    Look,
    /// Finish the batch.
    Commit,
}

/// How far the next batch is.
#[derive(Clone, Copy)]
enum Gathering {
    Nothing,
    /// Only what nobody waits for.
    Lazy {
        until: Instant,
    },
    /// Somebody waits.
    Urgent,
}

/// State of the writer. It neither waits nor knows a thread: [`Writer::next`] says what is to be waited for.
pub(crate) struct Writer {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) identity: LogIdentity,
    pub(crate) node: NodeId,
    pub(crate) segment_bytes: u64,
    pub(crate) segments_max: usize,
    pub(crate) next_segment: u64,
    pub(crate) next_batch: u64,
    pub(crate) heads: BTreeMap<GroupId, Head>,
    pub(crate) runs: BTreeMap<GroupId, Runs>,
    active: Option<Active>,
    /// Segments below this one are to go, however few there are.
    renewed: u64,
    pending: Vec<Write>,
    pending_bytes: usize,
    gathering: Gathering,
    /// Who waits for a new segment.
    renewing: Option<oneshot::Sender<Result<u64, LogPoisoned>>>,
    /// Who waits for the end.
    stop: Option<oneshot::Sender<Result<(), LogPoisoned>>>,
    buffer: Vec<u8>,
}

impl Writer {
    #[expect(clippy::too_many_arguments, reason = "one call, right after recovery")]
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        shared: Arc<Shared>,
        identity: LogIdentity,
        node: NodeId,
        (segment_bytes, segments_max): (u64, usize),
        (next_segment, next_batch): (u64, u64),
        heads: BTreeMap<GroupId, Head>,
        runs: BTreeMap<GroupId, Runs>,
    ) -> Self {
        Self {
            disk,
            shared,
            identity,
            node,
            segment_bytes,
            segments_max,
            next_segment,
            next_batch,
            heads,
            runs,
            active: None,
            renewed: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            gathering: Gathering::Nothing,
            renewing: None,
            stop: None,
            buffer: Vec::new(),
        }
    }

    /// Opens the first segment of this run, so that opening the log fails early and not on first use.
    pub(crate) fn start(&mut self) -> std::io::Result<()> {
        self.rotate(0)?;
        self.reclaim();
        Ok(())
    }

    /// Starts serving requests, on a thread where there are threads.
    pub(super) fn serve(self, host: &Host) -> std::io::Result<(Requests, Option<thread::JoinHandle<()>>)> {
        match host {
            Host::Machine => {
                let (requests, inbox) = mpsc::channel();
                let thread = thread::Builder::new().name("raft-log".to_owned());
                Ok((Requests::Thread(requests), Some(thread.spawn(move || self.run(&inbox))?)))
            }
            #[cfg(test)]
            Host::Simulated(host) => Ok((Requests::Task(host.serve_log(self)), None)),
        }
    }

    /// Serves requests until told to stop.
    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let request = match self.next() {
                Next::Wait(None) => match requests.recv() {
                    Ok(request) => Some(request),
                    Err(_) => return,
                },
                Next::Wait(Some(until)) => {
                    match requests.recv_timeout(until.saturating_duration_since(Instant::now())) {
                        Ok(request) => Some(request),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                Next::Look => requests.try_recv().ok(),
                Next::Commit => None,
            };
            match request {
                Some(request) => self.take(request),
                None if self.finish_batch() => {}
                None => return,
            }
        }
    }

    /// What to do now. When no request comes of it, the batch is to be finished.
    pub(crate) fn next(&self) -> Next {
        match self.gathering {
            _ if self.stop.is_some() || self.renewing.is_some() => Next::Commit,
            _ if self.pending_bytes >= BATCH_BYTES_MAX => Next::Commit,
            Gathering::Urgent => Next::Look,
            Gathering::Lazy { until } => Next::Wait(Some(until)),
            Gathering::Nothing => Next::Wait(None),
        }
    }

    /// Takes a request into the batch.
    pub(crate) fn take(&mut self, request: Request) {
        match request {
            Request::Write(write) => {
                self.gathering = match (self.gathering, &write.done) {
                    (Gathering::Nothing, Done::Lazy) => {
                        Gathering::Lazy { until: Instant::now() + LAZY_DELAY }
                    }
                    (earlier, Done::Lazy) => earlier,
                    (_, Done::Appended(_) | Done::Told(_)) => Gathering::Urgent,
                };
                self.enqueue(write);
            }
            Request::Renew(done) => self.renewing = Some(done),
            Request::Stop(done) => self.stop = Some(done),
        }
    }

    /// Writes and flushes the batch and answers whoever waits for it. False when it was the last.
    pub(crate) fn finish_batch(&mut self) -> bool {
        let result = self.commit();
        self.answer(&result);
        self.gathering = Gathering::Nothing;
        if let Some(done) = self.renewing.take() {
            // A caller that stopped waiting needs no answer.
            let _ = done.send(result.clone().and_then(|()| self.renew()));
        }
        match self.stop.take() {
            // The caller may be gone; the log is closed either way.
            Some(done) => {
                let _ = done.send(result);
                false
            }
            None => true,
        }
    }

    fn enqueue(&mut self, write: Write) {
        // Of several commit hints of a group in one batch only the newest says anything.
        if is_commit_hint(&write) {
            let group = write.group;
            self.pending.retain(|earlier| earlier.group != group || !is_commit_hint(earlier));
        }
        self.pending_bytes +=
            write.records.iter().map(|(record, _)| record_size(record.payload.len())).sum::<usize>();
        self.pending.push(write);
    }

    /// Writes and flushes everything pending as one batch.
    fn commit(&mut self) -> Result<(), LogPoisoned> {
        self.shared.check()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        self.try_commit().map_err(|error| self.shared.poison(&error))
    }

    fn try_commit(&mut self) -> std::io::Result<()> {
        let bytes: usize = self
            .pending
            .iter()
            .flat_map(|write| &write.records)
            .map(|(record, _)| record_size(record.payload.len()))
            .sum();
        let fits = self.active.as_ref().is_some_and(|active| active.offset + bytes as u64 <= active.size);
        if !fits {
            self.rotate(bytes as u64)?;
        }
        let pending = std::mem::take(&mut self.pending);
        let records: Vec<(GroupId, &Record)> = pending
            .iter()
            .flat_map(|write| write.records.iter().map(|(record, _)| (write.group, record)))
            .collect();
        let written = self.write(&records);
        drop(records);
        let (segment, mut offset) = match written {
            Ok(place) => place,
            Err(error) => {
                // Back in the list, so that whoever waits is told.
                self.pending = pending;
                return Err(error);
            }
        };
        for write in &pending {
            offset = self.note(write, segment, offset);
        }
        self.pending = pending;
        self.reclaim();
        Ok(())
    }

    /// One batch: one write, one flush. Returns where it starts.
    fn write(&mut self, records: &[(GroupId, &Record)]) -> std::io::Result<(u64, u64)> {
        let active = self.active.as_mut().expect("a segment is opened before the first batch");
        self.buffer.clear();
        for (at, (group, record)) in records.iter().enumerate() {
            let last = at + 1 == records.len();
            record.encode(&self.identity, *group, self.next_batch, last, &mut self.buffer);
        }
        let start = active.offset;
        active.segment.write_at(start, &self.buffer)?;
        active.segment.flush()?;
        active.offset += self.buffer.len() as u64;
        self.next_batch += 1;
        self.shared.counters.flushed(self.buffer.len() as u64);
        Ok((active.number, start))
    }

    /// Takes in what one flushed write means; returns the offset after it.
    fn note(&mut self, write: &Write, segment: u64, mut offset: u64) -> u64 {
        let head = self.heads.entry(write.group).or_default();
        let runs = self.runs.entry(write.group).or_default();
        let group = self.shared.existing(write.group);
        let mut index = group.as_ref().map(|group| group.lock());
        for (record, log_id) in &write.records {
            match record.kind {
                Kind::Entry => {
                    runs.push(segment, record.index);
                    self.shared.counters.entry();
                    if let (Some(index), Some(log_id)) = (index.as_mut(), log_id) {
                        index.set_place(*log_id, Place { segment, offset });
                    }
                }
                Kind::Vote => head.vote = Some(record.payload.clone()),
                Kind::Truncate => runs.truncate(record.index),
                Kind::Purge => {
                    runs.purge(record.index);
                    head.purged = Some((record.index, record.payload.clone()));
                }
                Kind::Committed => head.committed = Some((record.index, record.payload.clone())),
                Kind::Forget => {
                    *head = Head::default();
                    *runs = Runs::default();
                }
            }
            offset += record_size(record.payload.len()) as u64;
        }
        if let Some(index) = index.as_mut() {
            index.evict(CACHE_BYTES_PER_GROUP);
        }
        offset
    }

    fn renew(&mut self) -> Result<u64, LogPoisoned> {
        self.rotate(0).map_err(|error| self.shared.poison(&error))?;
        self.renewed = self.active.as_ref().map_or(0, |active| active.number);
        self.reclaim();
        Ok(self.renewed)
    }

    /// Opens the next segment, large enough for `bytes`, and repeats every group's state at its head.
    fn rotate(&mut self, bytes: u64) -> std::io::Result<()> {
        let number = self.next_segment;
        let mut head: Vec<(GroupId, Record)> = Vec::new();
        for (&group, state) in &self.heads {
            let record = |kind, index, payload: &Vec<u8>| Record { kind, index, payload: payload.clone() };
            let vote = state.vote.as_ref().map(|payload| record(Kind::Vote, 0, payload));
            let purged = state.purged.as_ref().map(|(index, payload)| record(Kind::Purge, *index, payload));
            let committed =
                state.committed.as_ref().map(|(index, payload)| record(Kind::Committed, *index, payload));
            head.extend([vote, purged, committed].into_iter().flatten().map(|record| (group, record)));
        }
        let head_bytes: usize = head.iter().map(|(_, record)| record_size(record.payload.len())).sum();
        let size = self.segment_bytes.max(SEGMENT_HEADER_SIZE as u64 + head_bytes as u64 + bytes);
        let header =
            SegmentHeader { log: self.identity, node: self.node, number, first_batch: self.next_batch };
        let segment = self.disk.create(number, size, &header.encode())?;
        self.next_segment = number + 1;
        self.shared.segments.write().insert(number, Arc::clone(&segment));
        self.active = Some(Active { number, segment, offset: SEGMENT_HEADER_SIZE as u64, size });
        if !head.is_empty() {
            let records: Vec<(GroupId, &Record)> =
                head.iter().map(|(group, record)| (*group, record)).collect();
            self.write(&records)?;
        }
        Ok(())
    }

    /// Removes segments that no group needs any more, and names the groups that hold up the rest.
    fn reclaim(&mut self) {
        let Some(active) = self.active.as_ref().map(|active| active.number) else { return };
        let needed = self.runs.values().filter_map(|runs| runs.0.front()).map(|run| run.segment).min();
        let oldest_needed = needed.unwrap_or(active).min(active);
        loop {
            let oldest = self.shared.segments.read().first_key_value().map(|(number, _)| *number);
            match oldest {
                Some(number) if number < oldest_needed => {
                    if let Err(error) = self.disk.remove(number) {
                        // Costs space, loses nothing; tried again after the next batch.
                        tracing::warn!(segment = number, %error, "cannot remove a log segment that nobody needs");
                        break;
                    }
                    self.shared.segments.write().remove(&number);
                }
                _ => break,
            }
        }
        let kept = self.shared.segments.read().len();
        let mut holding: BTreeMap<GroupId, u64> = BTreeMap::new();
        // When there are too many, everything but the newer half has to go.
        let many = (kept > self.segments_max).then(|| active.saturating_sub(self.segments_max as u64 / 2));
        let before = self.renewed.checked_sub(1).filter(|limit| oldest_needed <= *limit);
        if let Some(limit) = many.max(before) {
            for (&group, runs) in &self.runs {
                let last = runs.0.iter().take_while(|run| run.segment <= limit).map(|run| run.last).max();
                holding.extend(last.map(|last| (group, last)));
            }
        }
        self.shared.holding.send_if_modified(|current| {
            let changed = *current != holding;
            *current = holding;
            changed
        });
    }

    fn answer(&mut self, result: &Result<(), LogPoisoned>) {
        self.pending_bytes = 0;
        for write in self.pending.drain(..) {
            match write.done {
                Done::Lazy => {}
                Done::Appended(callback) => {
                    callback.log_io_completed(result.clone().map_err(std::io::Error::other));
                }
                // A caller that stopped waiting needs no answer.
                Done::Told(told) => drop(told.send(result.clone())),
            }
        }
    }
}

fn is_commit_hint(write: &Write) -> bool {
    write.records.iter().all(|(record, _)| record.kind == Kind::Committed)
}
