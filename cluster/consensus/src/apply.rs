//! A group's state machine on its own thread, and openraft's view of it.
//!
//! Invariants:
//! - the machine is called by one thread only, in log order;
//! - `applied` is published after the machine returned, so whoever waited for an index reads its effect;
//! - the log may purge only what a checkpoint or an installed snapshot made durable;
//! - after the first error the machine is not called again: the group stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use holdfast_model::{GroupId, NodeId};
use openraft::{
    AnyError, CommittedLeaderId, EmptyNode, OptionalSend, RaftSnapshotBuilder, StorageIOError,
    storage::RaftStateMachine,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::{
    codec::{self, PositionV1, snapshot_meta},
    host::Host,
    log::{LogIdentity, store::GroupLog},
    machine::{Applied, StateMachine},
    snapshot::{SnapshotDirectory, SnapshotFile, SnapshotSource},
    types::{
        Answers, Entry, EntryPayload, LogId, Membership, Snapshot, SnapshotMeta, StorageError,
        StoredMembership, TypeConfig,
    },
};

/// When a group's machine is asked to checkpoint, and what the log keeps behind a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointLimits {
    /// Entries applied since the last checkpoint.
    pub entries: u64,
    /// Bytes of commands applied since the last checkpoint.
    pub bytes: u64,
    /// Entries kept in the log, so that a follower that was away shortly needs no snapshot.
    pub keep_entries: u64,
    /// Bytes of entries kept in the log at most. When the log runs full less is kept.
    pub keep_bytes: u64,
}

impl Default for CheckpointLimits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self { entries: 4096, bytes: 16 * MIB, keep_entries: 4096, keep_bytes: 16 * MIB }
    }
}

type Answer<T> = oneshot::Sender<io::Result<T>>;

enum Job {
    Apply(Vec<Entry>, Answer<Vec<Answers>>),
    Checkpoint(Answer<SnapshotMeta>),
    Snapshot(SnapshotFile, Answer<(SnapshotMeta, Arc<SnapshotFile>)>),
    Install(SnapshotMeta, Arc<SnapshotFile>, Answer<()>),
    Stop(Answer<()>),
}

/// What the thread reports.
#[derive(Debug, Clone, Default)]
struct Progress {
    applied: Option<LogId>,
    membership: StoredMembership,
    checkpoint: Option<SnapshotMeta>,
}

struct Shared {
    group: GroupId,
    progress: Mutex<Progress>,
    applied: watch::Sender<Option<u64>>,
    checkpoint_due: Notify,
    snapshots: SnapshotDirectory,
}

/// Handle on a group's apply thread. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Applier {
    jobs: mpsc::UnboundedSender<Job>,
    shared: Arc<Shared>,
}

struct Worker {
    machine: Box<dyn StateMachine>,
    shared: Arc<Shared>,
    log: GroupLog,
    limits: CheckpointLimits,
    applied: Option<LogId>,
    membership: StoredMembership,
    entries_since: u64,
    bytes_since: u64,
    failed: Option<String>,
}

impl Applier {
    /// Starts the thread of `group` on `machine`, whose durable state is at `position`.
    pub(crate) fn start(
        group: GroupId,
        machine: Box<dyn StateMachine>,
        position: Option<Position>,
        log: GroupLog,
        snapshots: SnapshotDirectory,
        limits: CheckpointLimits,
        host: &Host,
    ) -> io::Result<Self> {
        let (applied, membership) =
            position.map(|position| (position.applied, position.membership)).unwrap_or_default();
        let checkpoint = applied.map(|_| snapshot_meta(applied, membership.clone()));
        if let Some(position) = applied {
            log.cover(position).map_err(io::Error::other)?;
        }
        let shared = Arc::new(Shared {
            group,
            progress: Mutex::new(Progress { applied, membership: membership.clone(), checkpoint }),
            applied: watch::Sender::new(applied.map(|id| id.index)),
            checkpoint_due: Notify::new(),
            snapshots,
        });
        let mut worker = Worker {
            machine,
            shared: Arc::clone(&shared),
            log,
            limits,
            applied,
            membership,
            entries_since: 0,
            bytes_since: 0,
            failed: None,
        };
        let (jobs, inbox) = mpsc::unbounded_channel();
        host.serve(format!("apply-{group}"), inbox, move |job| worker.serve(job))?;
        Ok(Self { jobs, shared })
    }

    /// Index up to which the machine has applied.
    pub(crate) fn applied(&self) -> watch::Receiver<Option<u64>> {
        self.shared.applied.subscribe()
    }

    /// Returns when the machine should checkpoint.
    pub(crate) async fn checkpoint_due(&self) {
        self.shared.checkpoint_due.notified().await;
    }

    /// What the last checkpoint covers.
    pub(crate) fn checkpoint(&self) -> Option<SnapshotMeta> {
        self.shared.progress.lock().checkpoint.clone()
    }

    /// A file with the machine's present state.
    pub(crate) async fn snapshot(&self) -> io::Result<(SnapshotMeta, Arc<SnapshotFile>)> {
        let file = self.shared.snapshots.fresh(self.shared.group);
        self.ask(|answer| Job::Snapshot(file, answer)).await
    }

    /// Checkpoints and ends the thread. Idempotent.
    pub(crate) async fn stop(&self) -> io::Result<()> {
        match self.ask(Job::Stop).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    async fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> io::Result<T> {
        let (answer, result) = oneshot::channel();
        let gone = || {
            let text = format!("the apply thread of {} has ended", self.shared.group);
            io::Error::new(io::ErrorKind::BrokenPipe, text)
        };
        self.jobs.send(job(answer)).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

/// How far a machine's durable state has come, and by which log.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub(crate) log: LogIdentity,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl Position {
    fn of(log: LogIdentity, meta: &SnapshotMeta) -> Self {
        Self { log, applied: meta.last_log_id, membership: meta.last_membership.clone() }
    }

    /// As of a state that was put together outside of any log. Term 0 is before every leader's.
    pub(crate) fn restored(
        log: LogIdentity,
        index: u64,
        voters: BTreeSet<NodeId>,
        learners: &BTreeSet<NodeId>,
    ) -> Self {
        let id = LogId::new(CommittedLeaderId::new(0, 0), index);
        let nodes: BTreeMap<u64, EmptyNode> =
            voters.union(learners).map(|node| (node.get(), EmptyNode::new())).collect();
        let voters = voters.into_iter().map(NodeId::get).collect();
        let membership = StoredMembership::new(Some(id), Membership::new(vec![voters], nodes));
        Self { log, applied: Some(id), membership }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(&PositionV1 {
            log: self.log.0,
            applied: self.applied.map(Into::into),
            membership: (&self.membership).into(),
        })
    }

    /// Reads what a machine stored.
    pub(crate) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let position: PositionV1 = codec::decode(bytes).map_err(|error| {
            let text = format!("the position stored by the machine does not read back: {error}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        Ok(Self {
            log: LogIdentity(position.log),
            applied: position.applied.map(LogId::from),
            membership: position.membership.into(),
        })
    }
}

impl Worker {
    /// Does one job. False after the last.
    fn serve(&mut self, job: Job) -> bool {
        // Whoever asked may have stopped waiting; the work is done all the same.
        match job {
            Job::Apply(entries, answer) => drop(answer.send(self.guard(|worker| worker.apply(&entries)))),
            Job::Checkpoint(answer) => drop(answer.send(self.guard(Self::checkpoint))),
            // A snapshot that cannot be written (a full disk, say) leaves the machine as it was.
            Job::Snapshot(file, answer) => drop(answer.send(self.snapshot(file))),
            Job::Install(meta, file, answer) => {
                drop(answer.send(self.guard(|worker| worker.install(&meta, &file))));
            }
            Job::Stop(answer) => {
                let result = self.guard(|worker| worker.checkpoint().map(|_| ()));
                drop(answer.send(result));
                return false;
            }
        }
        true
    }

    /// Refuses after the first error.
    fn guard<T>(&mut self, work: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        if let Some(cause) = &self.failed {
            return Err(io::Error::other(format!("{} stopped earlier: {cause}", self.shared.group)));
        }
        work(self).inspect_err(|error| {
            tracing::error!(group = %self.shared.group, %error, "the state machine failed: the group stops");
            self.failed = Some(error.to_string());
            self.log.abandon();
        })
    }

    fn apply(&mut self, entries: &[Entry]) -> io::Result<Vec<Answers>> {
        let applied: Vec<Applied<'_>> = entries
            .iter()
            .map(|entry| {
                let commands = match &entry.payload {
                    EntryPayload::Normal(batch) => batch.commands().as_slice(),
                    EntryPayload::Blank | EntryPayload::Membership(_) => &[],
                };
                Applied { index: entry.log_id.index, commands }
            })
            .collect();
        let answers = self.machine.apply(&applied)?;
        let complete = answers.len() == applied.len()
            && answers.iter().zip(&applied).all(|(answers, applied)| answers.len() == applied.commands.len());
        if !complete {
            let text = "the state machine did not answer every command exactly once";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        for entry in entries {
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
        }
        if let Some(last) = entries.last() {
            self.applied = Some(last.log_id);
        }
        let commands = applied.iter().flat_map(|applied| applied.commands);
        self.bytes_since += commands.map(|command| command.len() as u64).sum::<u64>();
        self.entries_since += entries.len() as u64;
        self.publish();
        if self.entries_since >= self.limits.entries || self.bytes_since >= self.limits.bytes {
            self.shared.checkpoint_due.notify_one();
        }
        Ok(answers.into_iter().map(Answers).collect())
    }

    fn publish(&self) {
        let mut progress = self.shared.progress.lock();
        progress.applied = self.applied;
        progress.membership = self.membership.clone();
        drop(progress);
        self.shared.applied.send_replace(self.applied.map(|id| id.index));
    }

    fn checkpoint(&mut self) -> io::Result<SnapshotMeta> {
        let meta = self.meta();
        let unchanged = self.shared.progress.lock().checkpoint.as_ref() == Some(&meta);
        if meta.last_log_id.is_some() && !unchanged {
            self.machine.checkpoint(&self.position(&meta))?;
            self.covered(meta.clone())?;
        }
        Ok(meta)
    }

    fn position(&self, meta: &SnapshotMeta) -> Vec<u8> {
        Position::of(self.log.identity(), meta).encode()
    }

    fn meta(&self) -> SnapshotMeta {
        snapshot_meta(self.applied, self.membership.clone())
    }

    /// Notes that the machine's files hold everything up to `meta`.
    fn covered(&mut self, meta: SnapshotMeta) -> io::Result<()> {
        (self.entries_since, self.bytes_since) = (0, 0);
        let Some(position) = meta.last_log_id else { return Ok(()) };
        self.shared.progress.lock().checkpoint = Some(meta);
        self.log.cover(position).map_err(io::Error::other)
    }

    fn snapshot(&mut self, file: SnapshotFile) -> io::Result<(SnapshotMeta, Arc<SnapshotFile>)> {
        self.machine.snapshot(file.path())?;
        Ok((self.meta(), Arc::new(file)))
    }

    fn install(&mut self, meta: &SnapshotMeta, file: &SnapshotFile) -> io::Result<()> {
        self.machine.install(file.path(), &self.position(meta))?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.covered(meta.clone())?;
        self.publish();
        Ok(())
    }
}

fn machine_error(error: &io::Error) -> StorageError {
    StorageIOError::write_state_machine(AnyError::new(error)).into()
}

impl RaftSnapshotBuilder<TypeConfig> for Applier {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let meta = self.ask(Job::Checkpoint).await.map_err(|error| machine_error(&error))?;
        Ok(Snapshot { meta, snapshot: Box::new(SnapshotSource::Machine(self.clone())) })
    }
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let progress = self.shared.progress.lock();
        Ok((progress.applied, progress.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answers>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.ask(|answer| Job::Apply(entries, answer)).await.map_err(|error| machine_error(&error))
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotSource>, StorageError> {
        Ok(Box::new(SnapshotSource::Empty))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotSource>,
    ) -> Result<(), StorageError> {
        let (meta, file) = snapshot.materialize(meta).await.map_err(|error| machine_error(&error))?;
        self.ask(|answer| Job::Install(meta, file, answer)).await.map_err(|error| machine_error(&error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let source = || Box::new(SnapshotSource::Machine(self.clone()));
        Ok(self.checkpoint().map(|meta| Snapshot { meta, snapshot: source() }))
    }
}
