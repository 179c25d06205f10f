//! The log of this node: all groups in one sequence of segments, one flush for whatever waits.
//!
//! [`Log::open`] recovers; [`Log::group`] gives each group its part, which openraft uses through
//! [`store`]. Reads come from memory or from the segments; all writes go through one thread.

pub(crate) mod disk;
pub(crate) mod index;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod store;
pub(crate) mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod cuts;
#[cfg(test)]
pub(crate) mod liar;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use holdfast_model::{GroupId, NodeId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use crate::host::Host;
pub use record::LogIdentity;
use {
    disk::{Disk, Segment},
    index::GroupIndex,
    recovery::Damage,
    writer::{Request, Requests, Writer},
};

/// Why the log of a node cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system refused.
    #[error("{doing} failed")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Something that was flushed does not read back, and it cannot be told whose it was.
    #[error(
        "the Raft log is damaged in segment {segment:016x} at byte {offset}: {what}; keep the files, and let \
         this node join again under a new identity"
    )]
    Damaged {
        /// Number of the segment.
        segment: u64,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// Entries, vote or purge of one group do not read back. Other groups are not affected.
    #[error(
        "the Raft log of group {group} is damaged in segment {segment:016x} at byte {offset}: {what}; the group \
         must be removed from this node and added again"
    )]
    GroupDamaged {
        /// The group.
        group: GroupId,
        /// Number of the segment.
        segment: u64,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// The log was written by another node.
    #[error(
        "this Raft log belongs to node {found}, not to {expected}: the state of another node was mounted"
    )]
    OtherNode {
        /// The node that opened the log.
        expected: NodeId,
        /// The node that wrote it.
        found: NodeId,
    },
    /// Written by a newer release.
    #[error(
        "log segment {segment:016x} has layout version {version}; start the release that wrote it, or a newer one"
    )]
    UnknownVersion {
        /// Number of the segment.
        segment: u64,
        /// The version found.
        version: u16,
    },
    /// The log that this node wrote is not there any more.
    #[error("the Raft log {expected} of this node is gone; it must join again under a new identity")]
    Gone {
        /// The log that was there.
        expected: LogIdentity,
    },
    /// See [`LogPoisoned`].
    #[error(transparent)]
    Poisoned(#[from] LogPoisoned),
}

/// A write or flush of the log failed. Final until the log is read back: what the device holds is unknown.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the Raft log failed and accepts nothing until it is read back: {cause}")]
pub struct LogPoisoned {
    /// The first error.
    pub cause: Arc<str>,
}

/// Figures of the log since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    flushes: AtomicU64,
    bytes: AtomicU64,
    entries: AtomicU64,
}

impl Counters {
    fn flushed(&self, bytes: u64) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// Flushes, bytes and entries so far.
    pub(crate) fn read(&self) -> (u64, u64, u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (get(&self.flushes), get(&self.bytes), get(&self.entries))
    }
}

type GroupCell = Arc<Mutex<GroupIndex>>;

/// What the writing thread, the readers and the groups share.
pub(crate) struct Shared {
    poison: OnceLock<LogPoisoned>,
    groups: RwLock<HashMap<GroupId, GroupCell>>,
    damage: RwLock<HashMap<GroupId, Damage>>,
    segments: RwLock<BTreeMap<u64, Arc<dyn Segment>>>,
    /// Groups that keep old segments alive, and up to which index they must purge.
    holding: watch::Sender<BTreeMap<GroupId, u64>>,
    counters: Counters,
    identity: LogIdentity,
    host: Host,
}

impl Shared {
    fn existing(&self, group: GroupId) -> Option<GroupCell> {
        self.groups.read().get(&group).cloned()
    }

    fn poison(&self, error: &io::Error) -> LogPoisoned {
        let poisoned = LogPoisoned { cause: error.to_string().into() };
        tracing::error!(%error, "the Raft log failed: every group of this node stops");
        self.poison.get_or_init(|| poisoned).clone()
    }

    fn check(&self) -> Result<(), LogPoisoned> {
        self.poison.get().map_or(Ok(()), |poisoned| Err(poisoned.clone()))
    }
}

/// Sizes of the log.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// Size of one segment in bytes.
    pub segment_bytes: u64,
    /// Segments kept at most, as far as groups can be made to checkpoint.
    pub segments_max: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { segment_bytes: 16 * 1024 * 1024, segments_max: 16 }
    }
}

/// The log of this node.
pub(crate) struct Log {
    shared: Arc<Shared>,
    requests: Requests,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    fresh: bool,
}

impl Log {
    /// Recovers the log of `node` from `disk`, or starts one, and starts the writing thread. With `expected` it is that
    /// log or none.
    ///
    /// # Errors
    /// [`LogError`], except damage of single groups: see [`Log::group`].
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        node: NodeId,
        limits: LogLimits,
        host: &Host,
        expected: Option<LogIdentity>,
    ) -> Result<Self, LogError> {
        let recovered = recovery::recover(disk.as_ref(), node)?;
        if let Some(expected) = expected.filter(|_| recovered.identity != expected) {
            return Err(LogError::Gone { expected });
        }
        if recovered.torn_bytes > 0 {
            tracing::info!(
                bytes = recovered.torn_bytes,
                "dropped the unfinished write at the end of the Raft log"
            );
        }
        let fresh = recovered.identity.is_none();
        let identity = match recovered.identity {
            Some(identity) => identity,
            None => new_identity(host)?,
        };
        let (mut cells, mut heads, mut runs, mut damage) =
            (HashMap::new(), BTreeMap::new(), BTreeMap::new(), HashMap::new());
        for (id, group) in recovered.groups {
            if let Some(found) = group.damage {
                tracing::error!(group = %id, ?found, "the Raft log of a group is damaged");
                damage.insert(id, found);
            }
            cells.insert(id, Arc::new(Mutex::new(group.index)));
            heads.insert(id, group.head);
            runs.insert(id, group.runs);
        }
        let shared = Arc::new(Shared {
            poison: OnceLock::new(),
            groups: RwLock::new(cells),
            damage: RwLock::new(damage),
            segments: RwLock::new(recovered.segments),
            holding: watch::Sender::new(BTreeMap::new()),
            counters: Counters::default(),
            identity,
            host: host.clone(),
        });
        let mut writer = Writer::new(
            disk,
            Arc::clone(&shared),
            identity,
            node,
            (limits.segment_bytes, limits.segments_max),
            (recovered.next_segment, recovered.next_batch),
            heads,
            runs,
        );
        writer.start().map_err(|source| LogError::Io { doing: "starting a log segment", source })?;
        let (requests, thread) =
            writer.serve(host).map_err(|source| LogError::Io { doing: "starting the log thread", source })?;
        Ok(Self { shared, requests, thread: Mutex::new(thread), fresh })
    }

    /// True when there was no log and this call's [`Log::open`] created one.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(crate) fn identity(&self) -> LogIdentity {
        self.shared.identity
    }

    /// Why nothing is accepted any more, if so.
    pub(crate) fn failure(&self) -> Option<LogPoisoned> {
        self.shared.check().err()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Groups that must checkpoint and purge up to an index, so that old segments can go.
    pub(crate) fn holding(&self) -> watch::Receiver<BTreeMap<GroupId, u64>> {
        self.shared.holding.subscribe()
    }

    /// The part of `group`.
    ///
    /// # Errors
    /// [`LogError::GroupDamaged`] when records of this group do not read back.
    pub(crate) fn group(&self, group: GroupId) -> Result<store::GroupLog, LogError> {
        if let Some(Damage { segment, offset, what }) = self.shared.damage.read().get(&group) {
            let (segment, offset, what) = (*segment, *offset, what.clone());
            return Err(LogError::GroupDamaged { group, segment, offset, what });
        }
        Ok(self.part(group))
    }

    fn part(&self, group: GroupId) -> store::GroupLog {
        let index = Arc::clone(self.shared.groups.write().entry(group).or_default());
        store::GroupLog::new(group, Arc::clone(&self.shared), self.requests.clone(), index)
    }

    /// Forgets everything about `group`, damage included, durably.
    ///
    /// # Errors
    /// [`LogPoisoned`].
    pub(crate) async fn forget(&self, group: GroupId) -> Result<(), LogPoisoned> {
        self.part(group).forget().await?;
        self.shared.damage.write().remove(&group);
        Ok(())
    }

    /// Begins a new segment and has all groups give up what is in those before it; its number.
    ///
    /// # Errors
    /// [`LogPoisoned`].
    pub(crate) async fn renew(&self) -> Result<u64, LogPoisoned> {
        let (told, answer) = oneshot::channel();
        let closed = || LogPoisoned { cause: "the log is closed".into() };
        self.requests.send(Request::Renew(told)).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Whether a segment below this number is left.
    pub(crate) fn holds_before(&self, segment: u64) -> bool {
        self.shared.segments.read().first_key_value().is_some_and(|(oldest, _)| *oldest < segment)
    }

    /// Writes what is pending and ends the writing thread.
    ///
    /// # Errors
    /// [`LogPoisoned`] when the log failed, now or earlier.
    pub(crate) async fn close(&self) -> Result<(), LogPoisoned> {
        let (told, answer) = oneshot::channel();
        let result = match self.requests.send(Request::Stop(told)) {
            Ok(()) => answer.await.unwrap_or_else(|_| self.shared.check()),
            Err(_) => self.shared.check(),
        };
        if let Some(thread) = self.thread.lock().take() {
            // The thread answered already; it only has to return.
            let _ = thread.join();
        }
        result
    }
}

fn new_identity(host: &Host) -> Result<LogIdentity, LogError> {
    let mut bytes = [0; 16];
    host.fill(&mut bytes).map_err(|source| LogError::Io { doing: "choosing the log's identity", source })?;
    Ok(LogIdentity(bytes))
}
