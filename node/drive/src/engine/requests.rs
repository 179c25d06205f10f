//! Puts and deletes, as they come in: answered at once, started, or made to wait.
//!
//! A shard that is being changed is in `busy` with the requests that wait for it. A put without room waits
//! in `starved` while reclaiming may make some, and everything asked of its shard later waits behind it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use holdfast_format::{
    CATALOG_OWNER, CatalogRecordHeader, CatalogRecordKind, FooterRecord, Place, RecordHeader, Tombstone,
};
use holdfast_model::{ByteCount, Generation, ShardId};
use holdfast_ring::{BlockDevice, Buffer};

use super::{
    Engine,
    flush::{Origin, RecordWrite, What},
    log::Claim,
    tombstones::{Asker, DeleteReply},
};
use crate::{
    commit::Durable,
    errors::PutError,
    index::{Indexed, Location},
    shared::{PutRequest, Request},
};

/// How long a put waits for reclaiming to make room.
pub(super) const ROOM_WAIT: Duration = Duration::from_secs(2);

fn is_of_a_base(put: &PutRequest) -> bool {
    put.header.tenant == CATALOG_OWNER
        && CatalogRecordHeader::of(&put.payload).is_ok_and(|header| header.kind != CatalogRecordKind::Journal)
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
        if self.make_room(sectors, 1, 0, self.claim_of(&request)) {
            let PutRequest { header, payload, reply } = request;
            self.append_record(*header, payload, Origin::Put(reply));
        } else if self.reclaim.may_make_room() {
            self.starved.push_back((now + ROOM_WAIT, Request::Put(request)));
        } else {
            self.refuse_full(request);
        }
    }

    /// The answer to a put for which nothing needs to be written.
    pub(super) fn answer_at_once(
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

    /// A full drive still takes a newer generation of what it holds: that is how it is repaired in place. And it takes what
    /// a base of the catalog consists of: the base and the journal that it replaces go then, which may be what fills it.
    fn claim_of(&self, put: &PutRequest) -> Claim {
        let is_held = self.shared.index.read().get(put.header.shard).is_some();
        if is_held || is_of_a_base(put) { Claim::Repair } else { Claim::Put }
    }

    pub(super) fn refuse_full(&mut self, request: PutRequest) {
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
            let (expired, sectors, claim) = match request {
                Request::Put(put) => (now >= *until, put.header.sectors(), self.claim_of(put)),
                // It waited behind a put that is done.
                _ => (false, 0, Claim::Put),
            };
            let room = sectors == 0 || self.make_room(sectors, 1, 0, claim);
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
        self.tombs.push(tombstone, Asker::Caller(reply));
    }

    pub(super) fn tombstone_for(&self, dead: &Indexed) -> Tombstone {
        let life = self.segments.get(dead.location.segment).life;
        Tombstone { shard: dead.shard, generation: dead.generation, life, sector: dead.location.sector }
    }

    /// Writes a record that is being moved; `false` when there is no room.
    pub(super) fn append_moved(
        &mut self,
        header: RecordHeader,
        payload: Buffer,
        from: Location,
        claim: Claim,
    ) -> bool {
        let room = self.make_room(header.sectors(), 1, 0, claim);
        if room {
            self.append_record(header, payload, Origin::Move(from));
        }
        room
    }

    /// Gives a record its place and header and writes it. There is room in the open segment.
    pub(super) fn append_record(&mut self, mut header: RecordHeader, mut payload: Buffer, origin: Origin) {
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
}
