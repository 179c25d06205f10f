//! What openraft is instantiated with: the commands of one entry, their answers, node and log ids.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use openraft::EmptyNode;
use serde::{Deserialize, Serialize};

use crate::{host::Runtime, snapshot::SnapshotSource};

openraft::declare_raft_types!(
    /// The instantiation of openraft that every group uses.
    pub(crate) TypeConfig:
        D = Batch,
        R = Answers,
        NodeId = u64,
        Node = EmptyNode,
        SnapshotData = SnapshotSource,
        AsyncRuntime = Runtime,
);

pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type EntryPayload = openraft::EntryPayload<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, EmptyNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, EmptyNode>;
pub(crate) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type Raft = openraft::Raft<TypeConfig>;

/// The commands that share one log entry. Cloning shares them.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Batch {
    commands: Arc<Vec<Bytes>>,
    #[serde(skip)]
    appended: Option<AppendedMark>,
}

impl Batch {
    pub(crate) fn new(commands: Arc<Vec<Bytes>>) -> Self {
        Self { commands, appended: None }
    }

    /// A batch that reports whether the log of this node ever took it.
    pub(crate) fn marked(commands: Vec<Bytes>) -> (Self, AppendedMark) {
        let mark = AppendedMark::default();
        (Self { commands: Arc::new(commands), appended: Some(mark.clone()) }, mark)
    }

    pub(crate) fn commands(&self) -> &Arc<Vec<Bytes>> {
        &self.commands
    }

    /// Called by the log store when the batch is handed to it, before anything is written.
    pub(crate) fn mark_appended(&self) {
        if let Some(mark) = &self.appended {
            mark.0.store(true, Ordering::Release);
        }
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.commands == other.commands
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} commands)", self.commands.len())
    }
}

/// Tells a proposal that was refused (safe to send again) from one that reached a log and may still
/// be committed by a later leader. openraft reports both as "forward to leader".
#[derive(Clone, Default, Debug)]
pub(crate) struct AppendedMark(Arc<AtomicBool>);

impl AppendedMark {
    pub(crate) fn was_appended(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// One encoded answer per command of the entry.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Answers(pub(crate) Vec<Bytes>);

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answers({})", self.0.len())
    }
}
