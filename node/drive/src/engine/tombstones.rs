//! Tombstones: asked for by deletes, replacements and reclaiming; written in blocks, in order.

use std::collections::VecDeque;

use holdfast_format::{Place, Sequence, Tombstone, TombstoneBlock};
use holdfast_model::limits::SECTOR_SIZE;
use holdfast_ring::BlockDevice;
use tokio::sync::oneshot;

use super::{Engine, flush::What, log::Claim};
use crate::{errors::DeleteError, shared::add};

/// Blocks of tombstones written together at most.
const TOMBSTONE_BLOCKS_MAX: usize = 16;

/// Whoever waits for a delete.
pub(super) type DeleteReply = oneshot::Sender<Result<bool, DeleteError>>;

/// Who wants a tombstone.
#[derive(Debug)]
pub(super) enum Asker {
    /// Nobody waits for it: what it names was replaced.
    Nobody,
    /// A delete; the shard is busy until then.
    Caller(DeleteReply),
    /// Reclaiming, which gives a record up; the shard is busy until then.
    Reclaim,
}

/// Blocks of tombstones on their way.
#[derive(Debug)]
pub(super) struct TombstoneWrite {
    pub(super) segment: u32,
    pub(super) sequences: Vec<Sequence>,
    pub(super) entries: Vec<(Tombstone, Asker)>,
}

/// Tombstones that are asked for. One write of them is on its way at a time, so that they become durable
/// in order: whoever sees a delete acknowledged knows that all earlier ones hold too.
#[derive(Debug, Default)]
pub(super) struct TombstoneQueue {
    pub(super) waiting: VecDeque<(Tombstone, Asker)>,
    pub(super) in_flight: bool,
    /// There was no room for them; reclaiming will make some.
    pub(super) blocked: bool,
    pub(super) asked: u64,
    pub(super) durable: u64,
}

impl TombstoneQueue {
    pub(super) fn push(&mut self, tombstone: Tombstone, asker: Asker) {
        self.waiting.push_back((tombstone, asker));
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

impl<D: BlockDevice> Engine<D> {
    /// Writes the tombstones that wait, unless some are on their way.
    pub(super) fn emit_tombstones(&mut self) {
        if self.tombs.in_flight || self.tombs.waiting.is_empty() {
            return;
        }
        let count = self.tombs.waiting.len().min(TOMBSTONE_BLOCKS_MAX * TombstoneBlock::ENTRIES_MAX);
        let blocks = count.div_ceil(TombstoneBlock::ENTRIES_MAX);
        let sectors = u32::try_from(blocks).expect("at most 16");
        let Some(mut buffer) = self.meta_frame(blocks * SECTOR_SIZE) else { return };
        // The others follow from what was written already, and reclaiming needs them.
        let asked_for = self.tombs.waiting.iter().any(|(_, asker)| matches!(asker, Asker::Caller(_)));
        let claim = if asked_for { Claim::Tombstone } else { Claim::Move };
        if !self.make_room(sectors, 0, count, claim) {
            drop(buffer);
            self.refuse_tombstones();
            // Those that reclaiming needs are not kept waiting by callers who come again and again.
            if asked_for {
                self.emit_tombstones();
            }
            return;
        }
        let (segment, life, sector) = self.claim_room(sectors);
        self.tombs.blocked = false;
        let entries: Vec<(Tombstone, Asker)> = self.tombs.waiting.drain(..count).collect();
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
    pub(super) fn refuse_tombstones(&mut self) {
        self.tombs.blocked = true;
        let waiting = std::mem::take(&mut self.tombs.waiting);
        for (tombstone, asker) in waiting {
            match asker {
                Asker::Caller(reply) => {
                    self.tombs.asked -= 1;
                    drop(reply.send(Err(DeleteError::Full { drive: self.drive })));
                    self.release(tombstone.shard);
                }
                other => self.tombs.waiting.push_back((tombstone, other)),
            }
        }
    }

    pub(super) fn apply_tombstones(&mut self, write: TombstoneWrite) {
        self.tombs.in_flight = false;
        self.tombs.durable += write.entries.len() as u64;
        for sequence in write.sequences {
            self.settle(sequence, write.segment);
        }
        for (tombstone, asker) in write.entries {
            self.segments.add_tombstone(write.segment, tombstone.life);
            if matches!(asker, Asker::Nobody) {
                continue;
            }
            let removed = self.shared.index.write().remove(tombstone.shard);
            if let Some(old) = removed {
                self.segments.remove_live(old.location.segment, old.payload_len);
                self.reclaim.look_again();
            }
            self.release(tombstone.shard);
            match asker {
                Asker::Caller(reply) => {
                    add(&self.shared.counters.deletes_acknowledged, 1);
                    drop(reply.send(Ok(true)));
                }
                _ => self.reclaim.given_up_durably(),
            }
        }
    }
}
