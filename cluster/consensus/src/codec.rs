//! Version 1 of everything that is stored in the log, in a checkpoint position, or sent to a peer.
//!
//! These are our own shapes, encoded by postcard, and not openraft's types: an openraft release may
//! change its structs, the disks and peers of earlier releases stay readable. A published shape is
//! never edited; a change is a new version beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use openraft::{CommittedLeaderId, EmptyNode};
use serde::{Deserialize, Serialize};

use crate::types::{Batch, Entry, EntryPayload, LogId, Membership, SnapshotMeta, StoredMembership, Vote};

/// Version byte that opens every encoded value.
pub(crate) const VERSION: u8 = 1;

/// Why bytes could not be read as a value of this crate.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CodecError {
    /// Written by a newer release.
    #[error("encoding version {0}, this release reads up to {VERSION}")]
    UnknownVersion(u8),
    /// Not a value of the expected shape.
    #[error("undecodable: {0}")]
    Malformed(String),
}

/// Encodes `value` behind the version byte.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION])
        .expect("values of this crate have no shape that postcard refuses, and a Vec grows")
}

/// Decodes what [`encode`] wrote.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|error| CodecError::Malformed(error.to_string()))
        }
        Some((&version, _)) => Err(CodecError::UnknownVersion(version)),
        None => Err(CodecError::Malformed("empty".to_owned())),
    }
}

/// Position of an entry: who led, in which term, at which index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogIdV1 {
    pub(crate) term: u64,
    pub(crate) leader: u64,
    pub(crate) index: u64,
}

impl From<LogId> for LogIdV1 {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogIdV1> for LogId {
    fn from(id: LogIdV1) -> Self {
        Self::new(CommittedLeaderId::new(id.term, id.leader), id.index)
    }
}

/// A vote given, or a leadership acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteV1 {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) committed: bool,
}

impl From<Vote> for VoteV1 {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<VoteV1> for Vote {
    fn from(vote: VoteV1) -> Self {
        let mut result = Self::new(vote.term, vote.node);
        result.committed = vote.committed;
        result
    }
}

/// Voters (two sets while a change is under way) and all nodes; a node in no set is a learner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipV1 {
    pub(crate) configs: Vec<BTreeSet<u64>>,
    pub(crate) nodes: BTreeSet<u64>,
}

impl From<&Membership> for MembershipV1 {
    fn from(membership: &Membership) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(node, _)| *node).collect(),
        }
    }
}

impl From<MembershipV1> for Membership {
    fn from(membership: MembershipV1) -> Self {
        let nodes: BTreeMap<u64, EmptyNode> =
            membership.nodes.into_iter().map(|node| (node, EmptyNode::new())).collect();
        Self::new(membership.configs, nodes)
    }
}

/// A membership and the entry that brought it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMembershipV1 {
    pub(crate) log_id: Option<LogIdV1>,
    pub(crate) membership: MembershipV1,
}

impl From<&StoredMembership> for StoredMembershipV1 {
    fn from(stored: &StoredMembership) -> Self {
        Self { log_id: stored.log_id().map(LogIdV1::from), membership: stored.membership().into() }
    }
}

impl From<StoredMembershipV1> for StoredMembership {
    fn from(stored: StoredMembershipV1) -> Self {
        Self::new(stored.log_id.map(LogId::from), stored.membership.into())
    }
}

/// What an entry carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum PayloadV1 {
    Blank,
    Commands(Arc<Vec<Bytes>>),
    Membership(MembershipV1),
}

/// One log entry, on disk and on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EntryV1 {
    pub(crate) log_id: LogIdV1,
    pub(crate) payload: PayloadV1,
}

impl From<&Entry> for EntryV1 {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => PayloadV1::Blank,
            EntryPayload::Normal(batch) => PayloadV1::Commands(Arc::clone(batch.commands())),
            EntryPayload::Membership(membership) => PayloadV1::Membership(membership.into()),
        };
        Self { log_id: entry.log_id.into(), payload }
    }
}

impl From<EntryV1> for Entry {
    fn from(entry: EntryV1) -> Self {
        let payload = match entry.payload {
            PayloadV1::Blank => EntryPayload::Blank,
            PayloadV1::Commands(commands) => EntryPayload::Normal(Batch::new(commands)),
            PayloadV1::Membership(membership) => EntryPayload::Membership(membership.into()),
        };
        Self { log_id: entry.log_id.into(), payload }
    }
}

/// How far a machine's durable state has come. Opaque to the machine, which stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PositionV1 {
    /// Identity of the log that was applied.
    pub(crate) log: [u8; 16],
    pub(crate) applied: Option<LogIdV1>,
    pub(crate) membership: StoredMembershipV1,
}

/// What a snapshot covers.
pub(crate) fn snapshot_meta(applied: Option<LogId>, membership: StoredMembership) -> SnapshotMeta {
    let snapshot_id = applied.map_or_else(String::new, |id| {
        format!("{}-{}-{}", id.leader_id.term, id.leader_id.node_id, id.index)
    });
    SnapshotMeta { last_log_id: applied, last_membership: membership, snapshot_id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_encoding() {
        let log_id = LogId::new(CommittedLeaderId::new(3, 2), 17);
        let commands = Arc::new(vec![Bytes::from_static(b"one"), Bytes::new()]);
        let membership = Membership::new(vec![[1, 2].into(), [2, 3].into()], BTreeSet::from([4]));
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Batch::new(commands)),
            EntryPayload::Membership(membership),
        ] {
            let entry = Entry { log_id, payload };
            let decoded: EntryV1 = decode(&encode(&EntryV1::from(&entry))).unwrap();
            assert_eq!(Entry::from(decoded), entry);
        }
    }

    #[test]
    fn the_first_shapes_stay_readable() {
        // Bytes written by version 1: entry (term 3, leader 2, index 300) with commands "ab", "".
        let golden = [1, 3, 2, 0xac, 0x02, 1, 2, 2, b'a', b'b', 0];
        let entry: EntryV1 = decode(&golden).unwrap();
        assert_eq!(entry.log_id, LogIdV1 { term: 3, leader: 2, index: 300 });
        assert_eq!(encode(&entry), golden);
        let golden_vote = [1, 9, 1, 1];
        let vote: VoteV1 = decode(&golden_vote).unwrap();
        assert_eq!(vote, VoteV1 { term: 9, node: 1, committed: true });
        assert_eq!(encode(&vote), golden_vote);
    }

    #[test]
    fn a_newer_version_is_named_and_not_guessed_at() {
        assert!(matches!(decode::<VoteV1>(&[2, 0, 0, 0]), Err(CodecError::UnknownVersion(2))));
        assert!(matches!(decode::<VoteV1>(&[]), Err(CodecError::Malformed(_))));
    }
}
