//! When writing is over: telling everyone who waits, and the label; and what else the label is told.

use std::time::Instant;

use holdfast_model::limits::SECTOR_SIZE;
use holdfast_ring::{BlockDevice, Operation};

use super::{
    Engine, IDLE_LABEL_AFTER, Job,
    flush::{Origin, What},
    tombstones::{Asker, TombstoneQueue},
};
use crate::{
    commit::FlushTicket,
    planted::{self, Bug},
    shared::Unavailable,
};

impl<D: BlockDevice> Engine<D> {
    /// Tells the callers of a write that it will not be acknowledged.
    pub(super) fn refuse_written(&mut self, what: What) {
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
                for (tombstone, asker) in write.entries {
                    self.release(tombstone.shard);
                    if let Asker::Caller(reply) = asker {
                        drop(reply.send(Err(why.delete(self.drive))));
                    }
                }
            }
            What::SegmentHeader | What::FreeMark(_) | What::Footer(_) | What::Label => {}
        }
    }

    /// Tells everyone who waits for a write that has not been submitted, or not been flushed.
    pub(super) fn refuse_writes(&mut self, why: &Unavailable) {
        for what in self.take_written() {
            self.refuse_written(what);
        }
        let outgoing = std::mem::take(&mut self.outgoing);
        for (operation, job) in std::mem::take(&mut self.ready).into_iter().chain(outgoing) {
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
        for (tombstone, asker) in std::mem::take(&mut self.tombs.waiting) {
            if let Asker::Caller(reply) = asker {
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
        // In an order that does not depend on chance.
        let mut busy: Vec<_> = std::mem::take(&mut self.busy).into_iter().collect();
        busy.sort_unstable_by_key(|(shard, _)| *shard);
        for request in busy.into_iter().flat_map(|(_, waiting)| waiting) {
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

    pub(super) fn write_label(&mut self, copy: usize) {
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
