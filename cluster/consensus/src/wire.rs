//! Messages between the consensus parts of two nodes, version 1.
//!
//! One request, one answer; the transport knows neither. Shapes follow the rule of [`crate::codec`]: a
//! published shape is never edited.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{EntryV1, LogIdV1, StoredMembershipV1, VoteV1};

/// Largest encoded request or answer in bytes. A transport carries messages up to this size.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request: which group, and what of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequestV1 {
    pub(crate) group: u32,
    pub(crate) call: CallV1,
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum CallV1 {
    /// Raft AppendEntries; without entries a heartbeat.
    Append { vote: VoteV1, previous: Option<LogIdV1>, committed: Option<LogIdV1>, entries: Vec<EntryV1> },
    /// Raft RequestVote.
    Vote { vote: VoteV1, last: Option<LogIdV1> },
    /// Would a vote be given? Changes nothing.
    PreVote { vote: VoteV1, last: Option<LogIdV1> },
    /// One piece of a snapshot.
    Snapshot(SnapshotPieceV1),
    /// Commands for the leader, each on its own.
    Propose { within_millis: u64, commands: Vec<Bytes> },
    /// Up to where must a reader have applied?
    ReadIndex { within_millis: u64 },
    /// Add a learner and wait until it caught up.
    AddLearner { within_millis: u64, node: u64 },
    /// Make `voters` the voters.
    ChangeVoters { within_millis: u64, voters: BTreeSet<u64> },
    /// The sender, who leads, falls silent: the chosen node stands for election as soon as the lease is
    /// over, the others stand aside for a while.
    Campaign { chosen: u64 },
    /// Take a learner out.
    RemoveLearner { within_millis: u64, node: u64 },
    /// Make `voters` the voters; the others stay as learners.
    DemoteOthers { within_millis: u64, voters: BTreeSet<u64> },
    /// The sender leads these groups, each with this vote. Concerns no single group.
    Beats { leading: Vec<(u32, VoteV1)> },
}

/// Consecutive bytes of a snapshot file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotPieceV1 {
    pub(crate) vote: VoteV1,
    /// Random; one transfer.
    pub(crate) transfer: u64,
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
    /// With the last piece.
    pub(crate) end: Option<SnapshotEndV1>,
}

/// What the received file must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotEndV1 {
    pub(crate) last: Option<LogIdV1>,
    pub(crate) membership: StoredMembershipV1,
    /// Bytes of the file.
    pub(crate) length: u64,
    /// CRC-32C of the file.
    pub(crate) checksum: u32,
}

/// An answer, and which log stands behind it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ResponseV1 {
    /// First eight bytes of the answering node's log identity.
    pub(crate) log: u64,
    pub(crate) answer: AnswerV1,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum AnswerV1 {
    /// All entries taken.
    Appended,
    /// Entries up to here taken; send the rest later.
    AppendedPartly(Option<LogIdV1>),
    /// The previous entry is not the one named.
    Conflict,
    /// A higher vote than the sender's is known.
    HigherVote(VoteV1),
    Vote {
        vote: VoteV1,
        granted: bool,
        last: Option<LogIdV1>,
    },
    PreVote {
        granted: bool,
    },
    /// The piece is stored (or, with the last, the snapshot installed). The receiver's vote.
    Snapshot(VoteV1),
    /// Start this snapshot over.
    SnapshotRestart,
    Proposed(Vec<OutcomeV1>),
    ReadIndex(Option<u64>),
    /// The membership change is committed.
    Changed,
    Failed(FailureV1),
    /// For each group of the beats, in their order: whether the receiver follows that leader.
    Beats {
        heard: Vec<bool>,
    },
}

/// What became of one command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum OutcomeV1 {
    Done(Bytes),
    /// Certainly not in any log: safe to send again.
    NotTaken,
    /// Certainly not in any log, and the queue is full.
    Busy,
    /// May have been or still become committed.
    Unknown(String),
}

/// Why a request was not served.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum FailureV1 {
    /// The group is not (or not yet) on this node.
    NoSuchGroup,
    /// The group has stopped on this node, and why.
    Stopped(String),
    /// Ask this node, if known.
    NotLeader(Option<u64>),
    /// A quorum did not answer in time.
    NoQuorum,
    /// Another membership change is under way.
    ChangeInProgress,
    /// A voter that is neither voter nor learner yet.
    NotALearner(u64),
    /// Anything else, in words.
    Other(String),
}
