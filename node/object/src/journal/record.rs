//! Catalog records on drives: their ids, and writing one to several drives.
//!
//! A record's id says what it is, so that a node tells from its index alone what may go:
//!
//! | bits | meaning                          |
//! |-----:|----------------------------------|
//! |   48 | when its writing began, Unix ms  |
//! |    4 | kind                             |
//! |   12 | group                            |
//! |   40 | log index of its last entry      |
//! |    8 | low bits of the writing node     |
//! |   16 | part                             |

use std::{collections::BTreeSet, sync::Arc};

use holdfast_crypt::random_array;
use holdfast_drive::ShardWrite;
use holdfast_format::{CatalogRecordHeader, CatalogRecordKind};
use holdfast_model::{
    Generation, GroupId, NodeId, ShardId, ShardIndex, StripeId, UnixMillis,
    limits::{PARITY_SHARDS_MAX, SECTOR_SIZE, SHARD_SIZE_MAX},
    placement::{Candidate, Place},
};
use holdfast_ring::BufferPool;
use holdfast_store::{Health, ShardError, Shards};

use super::CATALOG_OWNER;

/// Bytes of sealed content in one record at most.
pub(super) const BODY_SIZE_MAX: usize = SHARD_SIZE_MAX - CatalogRecordHeader::SIZE;

/// Parts that one journal record or base may have.
pub(super) const PARTS_MAX: u32 = 1 << 16;

const GROUPS_MAX: u32 = 1 << 12;
const INDEX_MAX: u64 = 1 << 40;

/// Generation of all catalog records: they are never moved, only written anew.
pub(super) const GENERATION: Generation = Generation::new(1);

/// What a record's id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordName {
    pub kind: CatalogRecordKind,
    pub group: GroupId,
    pub last: u64,
    pub begun: UnixMillis,
    /// The low eight bits of the node's id.
    pub node: u8,
    pub part: u32,
}

impl RecordName {
    pub(super) fn of(header: &CatalogRecordHeader) -> Self {
        Self {
            kind: header.kind,
            group: header.group,
            last: header.last,
            begun: header.begun,
            node: header.node.get().to_le_bytes()[0],
            part: header.part,
        }
    }

    pub(super) fn id(&self) -> StripeId {
        assert!(self.group.get() < GROUPS_MAX && self.last < INDEX_MAX && self.part < PARTS_MAX, "{self:?}");
        let mut rest = [0; 10];
        let kind_and_group = self.kind.number() << 12 | (self.group.get() as u16);
        rest[..2].copy_from_slice(&kind_and_group.to_be_bytes());
        rest[2..7].copy_from_slice(&self.last.to_be_bytes()[3..]);
        rest[7] = self.node;
        rest[8..].copy_from_slice(&(self.part as u16).to_be_bytes());
        StripeId::new(self.begun, rest)
    }

    /// What the id of a catalog record says; `None` for a kind that a newer release writes.
    pub(super) fn parse(id: StripeId) -> Option<Self> {
        let rest: &[u8; 10] = id.as_bytes()[6..].try_into().expect("an id has 16 bytes");
        let kind_and_group = u16::from_be_bytes([rest[0], rest[1]]);
        let mut last = [0; 8];
        last[3..].copy_from_slice(&rest[2..7]);
        Some(Self {
            kind: CatalogRecordKind::of(kind_and_group >> 12)?,
            group: GroupId::new(u32::from(kind_and_group & 0xFFF)),
            last: u64::from_be_bytes(last),
            begun: id.created(),
            node: rest[7],
            part: u32::from(u16::from_be_bytes([rest[8], rest[9]])),
        })
    }
}

/// Where the copies of a record should go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Spread {
    /// This many drives, on as many nodes as there are.
    Copies(usize),
    /// One drive of this node.
    Own,
    /// One drive of every node that answers, and this many drives at least.
    EveryNode(usize),
}

/// A copy of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied {
    pub place: Place,
    pub id: ShardId,
}

/// Writes records.
#[derive(Debug, Clone)]
pub(super) struct RecordWriter {
    pub node: NodeId,
    pub shards: Arc<Shards>,
    pub health: Arc<Health>,
    pub pool: BufferPool,
}

impl RecordWriter {
    /// Writes a record as often as `spread` asks. Returns where it is durable: fewer places when fewer
    /// drives take it, none when no drive does.
    pub(super) async fn write(
        &self,
        header: &CatalogRecordHeader,
        body: &[u8],
        spread: Spread,
    ) -> Vec<Copied> {
        let stripe = RecordName::of(header).id();
        let candidates = self.ordered(header.kind, room_of(body.len()));
        let (wanted, mut queue) = match spread {
            Spread::Copies(copies) => (copies, candidates),
            Spread::Own => (1, own_first(candidates, self.node)),
            Spread::EveryNode(copies) => {
                let nodes: BTreeSet<NodeId> = candidates.iter().map(|candidate| candidate.node).collect();
                (copies.max(nodes.len()), candidates)
            }
        };
        queue.reverse();
        let parity = wanted.saturating_sub(1).min(PARITY_SHARDS_MAX);
        let mut durable = Vec::new();
        while durable.len() < wanted && !queue.is_empty() {
            let missing = wanted - durable.len();
            let round: Vec<Place> = (0..missing)
                .filter_map(|_| queue.pop())
                .map(|candidate| Place { node: candidate.node, drive: candidate.drive })
                .collect();
            let writes = round.iter().enumerate().map(|(at, place)| {
                let index = u8::try_from((durable.len() + at).min(parity)).unwrap_or(u8::MAX);
                let id = ShardId { stripe, index: ShardIndex::new(index) };
                self.write_one(Copied { place: *place, id }, parity, header, body)
            });
            let outcomes = futures::future::join_all(writes).await;
            for outcome in outcomes {
                match outcome {
                    Ok(copied) => durable.push(copied),
                    Err(error) => tracing::debug!(%stripe, %error, "catalog record not written there"),
                }
            }
        }
        durable
    }

    async fn write_one(
        &self,
        copied: Copied,
        parity: usize,
        header: &CatalogRecordHeader,
        body: &[u8],
    ) -> Result<Copied, ShardError> {
        let mut payload = self.pool.acquire(CatalogRecordHeader::SIZE + body.len()).await;
        payload[..CatalogRecordHeader::SIZE].copy_from_slice(&header.encode());
        payload[CatalogRecordHeader::SIZE..].copy_from_slice(body);
        let write = ShardWrite {
            id: copied.id,
            generation: GENERATION,
            tenant: CATALOG_OWNER,
            data: 1,
            parity: u8::try_from(parity).unwrap_or(u8::MAX),
            manifest: Vec::new(),
            payload,
        };
        self.shards.put(copied.place, write).await.map(|()| copied)
    }

    /// Deletes copies, as far as that can be done now.
    pub(super) async fn take_back(&self, copies: &[Copied]) {
        let deletes = copies.iter().map(|copied| self.shards.delete(copied.place, copied.id, GENERATION));
        for error in futures::future::join_all(deletes).await.into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "catalog record not taken back: it stays until the next base");
        }
    }

    /// How many drives may take a record.
    pub(super) fn takers(&self) -> usize {
        self.health.candidates().len()
    }

    /// Drives, nodes taking turns, in an order of chance; those with little room come last of their turn, and those without
    /// at the very end: a part of a base may be written where drives keep room for nothing else.
    fn ordered(&self, kind: CatalogRecordKind, room: u64) -> Vec<Candidate> {
        let mut candidates: Vec<(u64, Candidate)> = self
            .health
            .candidates()
            .into_iter()
            .map(|candidate| (u64::from_le_bytes(random_array()), candidate))
            .collect();
        candidates.sort_by_key(|(chance, _)| *chance);
        let (with, without): (Vec<_>, Vec<_>) = candidates
            .into_iter()
            .map(|(_, candidate)| candidate)
            .partition(|candidate| candidate.free_bytes >= room);
        let mut ordered = roomy_first(with);
        if kind != CatalogRecordKind::Journal {
            ordered.extend(in_turns(without));
        }
        ordered
    }
}

/// Bytes that a record with so many bytes of content takes on a drive.
pub(super) fn room_of(body: usize) -> u64 {
    room_on_drive(CatalogRecordHeader::SIZE + body)
}

/// Bytes that a payload takes on a drive: whole sectors, and one for its header.
pub(super) fn room_on_drive(payload: usize) -> u64 {
    (payload.next_multiple_of(SECTOR_SIZE) + SECTOR_SIZE) as u64
}

/// A drive with less room than this may be full by now: others write there as well, and told when it was last asked.
const ROOMY: u64 = 16 * 1024 * 1024;

/// In turns, and in each turn those drives first that surely have room. A record on a drive that is full waits there for
/// reclaiming, and the answer to a client waits for the record.
fn roomy_first(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by_key(|candidate| candidate.free_bytes < ROOMY);
    in_turns(candidates)
}

fn own_first(mut candidates: Vec<Candidate>, node: NodeId) -> Vec<Candidate> {
    candidates.sort_by_key(|candidate| candidate.node != node);
    candidates
}

/// The first drive of each node, then the second of each, and so on.
fn in_turns(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut turns: Vec<(usize, Candidate)> = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let turn = turns.iter().filter(|(_, other)| other.node == candidate.node).count();
        turns.push((turn, candidate));
    }
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use holdfast_model::DriveId;

    use super::*;

    #[test]
    fn an_id_says_what_its_record_is() {
        let name = RecordName {
            kind: CatalogRecordKind::BasePiece,
            group: GroupId::new(8),
            last: 0x12_3456_789A,
            begun: UnixMillis::new(1_750_000_000_123),
            node: 3,
            part: 65_535,
        };
        assert_eq!(RecordName::parse(name.id()), Some(name));
    }

    #[test]
    fn nodes_take_turns_so_that_copies_are_far_apart() {
        let candidate = |node: u64, drive: u8| Candidate {
            drive: DriveId::from_bytes([drive; 16]),
            node: NodeId::new(node),
            free_bytes: 1,
        };
        let order = in_turns(vec![
            candidate(1, 1),
            candidate(1, 2),
            candidate(2, 3),
            candidate(3, 4),
            candidate(2, 5),
        ]);
        let nodes: Vec<u64> = order.iter().map(|candidate| candidate.node.get()).collect();
        assert_eq!(nodes, [1, 2, 3, 1, 2]);
    }

    #[test]
    fn drives_that_are_nearly_full_are_asked_last_of_their_turn() {
        let candidate = |node: u64, drive: u8, free_bytes: u64| Candidate {
            drive: DriveId::from_bytes([drive; 16]),
            node: NodeId::new(node),
            free_bytes,
        };
        let order = roomy_first(vec![
            candidate(1, 1, ROOMY - 1),
            candidate(2, 2, ROOMY - 1),
            candidate(2, 3, ROOMY),
            candidate(3, 4, ROOMY),
        ]);
        let drives: Vec<_> = order.iter().map(|candidate| candidate.drive).collect();
        // Copies on different nodes come before room.
        assert_eq!(drives, [3, 4, 1, 2].map(|drive| DriveId::from_bytes([drive; 16])));
    }
}
