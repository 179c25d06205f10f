//! Writing and group commit.
//!
//! Writes are submitted at once, several in flight. A flush is submitted when none is on its way and
//! something has completed; it covers what had completed by then. When it comes back clean, its writes are
//! applied to the index and acknowledged; whatever completed meanwhile waits for the next.

use std::{
    io,
    time::{Duration, Instant},
};

use holdfast_format::{FooterRecord, Sequence};
use holdfast_model::ShardId;
use holdfast_ring::{BlockDevice, Buffer, Operation};
use tokio::sync::oneshot;

use super::{
    Engine, Job,
    tombstones::{Asker, TombstoneWrite},
    transfer::{Progress, progress},
};
use crate::{
    commit::{Durable, FlushTicket},
    errors::PutError,
    index::{Indexed, Location},
    planted::{self, Bug},
    segments::Phase,
    shared::{Unavailable, add},
};

/// How long a flush waits for writes still in flight, so that they share it.
const FLUSH_DELAY: Duration = Duration::from_micros(300);

/// Completed writes for which a flush no longer waits.
const FLUSH_BATCH_MIN: usize = 32;

/// Bytes of completed writes for which a flush no longer waits: what took long to write is not kept waiting
/// for company.
const FLUSH_BYTES_MIN: usize = 1 << 20;

/// Whoever waits for a put.
pub(super) type PutReply = oneshot::Sender<Result<Durable, PutError>>;

/// A write in flight: bytes `done..end` of its buffer's frame are still to go.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) what: What,
    /// Where byte 0 of the frame goes.
    pub(super) offset: u64,
    pub(super) done: usize,
    pub(super) retries: u32,
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
    pub(super) record: FooterRecord,
    pub(super) segment: u32,
    pub(super) origin: Origin,
}

#[derive(Debug)]
pub(super) enum Origin {
    Put(PutReply),
    /// Moved by reclaiming, from there.
    Move(Location),
}

impl<D: BlockDevice> Engine<D> {
    /// Submits a write of the whole frame of `buffer`.
    pub(super) fn write(&mut self, what: What, offset: u64, buffer: Buffer) {
        self.writes_in_flight += 1;
        self.resume_write(Write { what, offset, done: 0, retries: 0 }, buffer);
    }

    pub(super) fn resume_write(&mut self, write: Write, buffer: Buffer) {
        let length = buffer.framed_len();
        let operation =
            Operation::write(0, write.offset + write.done as u64, buffer, write.done, length - write.done);
        match write.what {
            What::Record(_) => self.outgoing.push_back((operation, Job::Write(write))),
            _ => self.enqueue(operation, Job::Write(write)),
        }
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
                self.write_complete(write.what, length, now);
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

    fn write_complete(&mut self, what: What, length: usize, now: Instant) {
        if self.unavailable.is_some() {
            return self.refuse_written(what);
        }
        match what {
            What::SegmentHeader => self.headers_in_flight -= 1,
            What::Label => {
                // It is evidence only once it is flushed.
                self.label_pending = self.label_pending.saturating_sub(1);
                self.written.push(What::Label);
                self.written_since.get_or_insert(now);
            }
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
                self.written_bytes += length;
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
        let enough = self.written.len() >= FLUSH_BATCH_MIN || self.written_bytes >= FLUSH_BYTES_MIN;
        if self.writes_in_flight > 0 && !enough && !waited {
            return;
        }
        let covers = self.take_written();
        if planted::is(Bug::SkipFlush) {
            return covers.into_iter().for_each(|what| self.apply(what));
        }
        let ticket = FlushTicket::new(self.drive, covers);
        // Ahead of what waits for the device: those who wait for the flush came first.
        self.ready.push_front((Operation::flush(0), Job::Flush(ticket)));
        self.flush_in_flight = true;
        self.submit_ready(now);
    }

    /// What has completed and is not covered by a flush, to be covered or refused.
    pub(super) fn take_written(&mut self) -> Vec<What> {
        (self.written_bytes, self.written_since) = (0, None);
        std::mem::take(&mut self.written)
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
                    covers.extend(self.take_written());
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
    pub(super) fn apply(&mut self, what: What) {
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

    pub(super) fn apply_record(&mut self, write: RecordWrite) {
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
                self.tombs.push(tombstone, Asker::Nobody);
            }
        }
    }

    /// A durable copy that nobody needs: it gets a tombstone.
    pub(super) fn discard(&mut self, copy: &Indexed) {
        let tombstone = self.tombstone_for(copy);
        self.tombs.push(tombstone, Asker::Nobody);
    }

    pub(super) fn settle(&mut self, sequence: Sequence, segment: u32) {
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
}
