//! One node's part in all its groups.

mod starting;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use holdfast_model::{GroupId, NodeId};
use parking_lot::RwLock;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    apply::Position,
    beat::{self, Pulse},
    codec,
    group::{Change, GroupHandle, MembershipError},
    host::spawn,
    log::{
        Log, LogError, LogIdentity, LogPoisoned,
        disk::{Directory, Disk},
    },
    options::ConsensusOptions,
    propose::{ProposalCounters, ProposeError},
    read::ReadError,
    snapshot::SnapshotDirectory,
    status::{GroupStatus, LogCounters},
    transport::Transport,
    wire::{AnswerV1, CallV1, FailureV1, RequestV1, ResponseV1},
};

pub use self::starting::ConsensusError;

/// How long a proposal or a read barrier is tried when the caller names no time.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);

/// How long a membership change is tried: a new node may have to receive the whole state.
pub const MEMBERSHIP_DEADLINE: Duration = Duration::from_secs(600);

/// A moment from which on the log is to hold nothing of before. Means nothing to another run of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRenewal(u64);

/// One node's part in all its groups.
pub struct Consensus {
    options: ConsensusOptions,
    config: Arc<openraft::Config>,
    disk: Arc<dyn Disk>,
    /// Another one after it failed and was read back.
    log: RwLock<Arc<Log>>,
    /// The newest segment that a renewal began.
    renewed: AtomicU64,
    snapshots: SnapshotDirectory,
    proposals: Arc<ProposalCounters>,
    groups: RwLock<BTreeMap<GroupId, GroupHandle>>,
    pulse: Pulse,
    /// Serializes starting and stopping.
    starting: Mutex<()>,
}

impl fmt::Debug for Consensus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consensus").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Consensus {
    /// Opens or recovers the log of all groups.
    ///
    /// # Errors
    /// [`ConsensusError::Log`] when it cannot be read or is damaged, [`ConsensusError::Snapshots`],
    /// [`ConsensusError::Timing`].
    pub async fn open(options: ConsensusOptions) -> Result<Arc<Self>, ConsensusError> {
        let path = options.dir.join("log");
        let opening = tokio::task::spawn_blocking(move || Directory::open(path));
        let directory = opening.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let directory =
            directory.map_err(|source| LogError::Io { doing: "opening the log directory", source })?;
        Self::open_on(options, Arc::new(directory)).await
    }

    /// As [`Consensus::open`], with the log on `disk`.
    pub(crate) async fn open_on(
        options: ConsensusOptions,
        disk: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, ConsensusError> {
        let config = options.raft_config().map_err(ConsensusError::Timing)?;
        let (dir, node, limits) = (options.dir.join("snapshots"), options.node, options.log);
        let (host, same_disk) = (options.host.clone(), Arc::clone(&disk));
        let opened = options.host.blocking(move || {
            let log = Log::open(same_disk, node, limits, &host, None)?;
            let snapshots = SnapshotDirectory::open(dir).map_err(ConsensusError::Snapshots)?;
            Ok::<_, ConsensusError>((log, snapshots))
        });
        let (log, snapshots) =
            opened.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        let timing = options.timing;
        let consensus = Arc::new(Self {
            options,
            config: Arc::new(config),
            disk,
            log: RwLock::new(Arc::new(log)),
            renewed: AtomicU64::new(0),
            snapshots,
            proposals: Arc::default(),
            groups: RwLock::default(),
            pulse: Pulse::starting_now(timing.heartbeat / 2),
            starting: Mutex::default(),
        });
        spawn(beat::run(Arc::downgrade(&consensus), timing));
        Ok(consensus)
    }

    /// True when this node had no log and [`Consensus::open`] created one. A node that was a member
    /// before has lost its log then, and must not take part under its old identity.
    #[must_use]
    pub fn log_is_fresh(&self) -> bool {
        self.log().is_fresh()
    }

    /// Names the log: another one after it was lost and created anew.
    #[must_use]
    pub fn log_identity(&self) -> LogIdentity {
        self.log().identity()
    }

    /// The position at which a machine whose state was restored from elsewhere, up to entry `index`, takes
    /// part in a group with these `voters` and `learners`. To be passed to [`crate::StateMachine::install`] while
    /// this node's log is new: nothing of the group's former log may exist on any node any more.
    #[must_use]
    pub fn restored_position(
        &self,
        index: u64,
        voters: BTreeSet<NodeId>,
        learners: &BTreeSet<NodeId>,
    ) -> Vec<u8> {
        Position::restored(self.log().identity(), index, voters, learners).encode()
    }

    /// Makes `voters` (this node among them) the first members of `group`. On one node only, once in the
    /// life of the group; repeating it is harmless.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn initialize(&self, group: GroupId, voters: BTreeSet<NodeId>) -> Result<(), MembershipError> {
        self.group(group).ok_or(MembershipError::NoSuchGroup(group))?.initialize(&voters).await
    }

    /// Adds `node` to `group` without a vote, and returns when it has caught up. Asks the leader when
    /// that is another node.
    ///
    /// # Errors
    /// [`MembershipError`]; repeating the call is harmless.
    pub async fn add_learner(&self, group: GroupId, node: NodeId) -> Result<(), MembershipError> {
        self.change(group, Change::AddLearner(node)).await
    }

    /// Takes `node`, a learner, out of `group`. Asks the leader when that is another node.
    ///
    /// # Errors
    /// [`MembershipError`]; a node that is not in the group at all is none. Repeating the call is harmless.
    pub async fn remove_learner(&self, group: GroupId, node: NodeId) -> Result<(), MembershipError> {
        self.change(group, Change::RemoveLearner(node)).await
    }

    /// Makes `voters` the voters of `group`. New ones must be learners; the others leave the group.
    ///
    /// # Errors
    /// [`MembershipError`]; repeating the call is harmless.
    pub async fn change_voters(
        &self,
        group: GroupId,
        voters: BTreeSet<NodeId>,
    ) -> Result<(), MembershipError> {
        if voters.is_empty() {
            return Err(MembershipError::Invalid { group, reason: "a group needs a voter".to_owned() });
        }
        self.change(group, Change::Voters(voters)).await
    }

    /// As [`Consensus::change_voters`], but who loses its vote stays as a learner and is kept up to date.
    ///
    /// # Errors
    /// As there.
    pub async fn demote_others(
        &self,
        group: GroupId,
        voters: BTreeSet<NodeId>,
    ) -> Result<(), MembershipError> {
        if voters.is_empty() {
            return Err(MembershipError::Invalid { group, reason: "a group needs a voter".to_owned() });
        }
        self.change(group, Change::DemoteOthers(voters)).await
    }

    /// Has `to`, a voter, lead `group` instead of this node, which must lead it now. For about a lease
    /// ([`crate::options::Timing`]) the group serves nothing; commands wait. For spreading leaders.
    ///
    /// # Errors
    /// [`MembershipError`]; this node may lead on then.
    pub async fn hand_over(&self, group: GroupId, to: NodeId) -> Result<(), MembershipError> {
        self.group(group).ok_or(MembershipError::NoSuchGroup(group))?.hand_over(to).await
    }

    async fn change(&self, group: GroupId, change: Change) -> Result<(), MembershipError> {
        let deadline = Instant::now() + MEMBERSHIP_DEADLINE;
        self.group(group).ok_or(MembershipError::NoSuchGroup(group))?.change(change, deadline).await
    }

    /// Has `command` committed and applied; returns the machine's answer. Linearizable.
    ///
    /// # Errors
    /// [`ProposeError`]. After all but [`ProposeError::Unknown`] it is certain that the command was not
    /// and will not be applied.
    pub async fn propose(&self, group: GroupId, command: Bytes) -> Result<Bytes, ProposeError> {
        self.propose_within(group, command, DEADLINE_DEFAULT).await
    }

    /// As [`Consensus::propose`], trying for at most `time`.
    ///
    /// # Errors
    /// As for [`Consensus::propose`].
    pub async fn propose_within(
        &self,
        group: GroupId,
        command: Bytes,
        time: Duration,
    ) -> Result<Bytes, ProposeError> {
        let found = self.group(group).ok_or(ProposeError::NoSuchGroup(group))?;
        found.proposer.propose(command, Instant::now() + time, false).await
    }

    /// After it returns, this node's machine has applied everything committed before the call.
    ///
    /// # Errors
    /// [`ReadError`]: then nothing may be concluded from this node's state.
    pub async fn read_barrier(&self, group: GroupId) -> Result<(), ReadError> {
        let found = self.group(group).ok_or(ReadError::NoSuchGroup(group))?;
        found.reader.barrier(Instant::now() + DEADLINE_DEFAULT).await
    }

    /// Answers a request that `from` sent through its [`crate::Transport`].
    ///
    /// # Errors
    /// A text for the peer, when the request cannot be read; it was not processed then.
    pub async fn handle(&self, from: NodeId, request: Bytes) -> Result<Bytes, String> {
        let request: RequestV1 = codec::decode(&request).map_err(|error| error.to_string())?;
        let answer = match request.call {
            CallV1::Beats { leading } => beat::take(&leading, |group| self.group(group)),
            call => match self.group(GroupId::new(request.group)) {
                Some(group) => group.handle(from, call).await,
                None => AnswerV1::Failed(FailureV1::NoSuchGroup),
            },
        };
        Ok(codec::encode(&ResponseV1 { log: self.log().identity().short(), answer }).into())
    }

    /// Has everything that the log of this node holds now leave the disk: a new segment is begun, and all groups
    /// checkpoint and purge what is in those before it. Ask [`Consensus::has_renewed`] whether that is done.
    ///
    /// # Errors
    /// [`LogPoisoned`] when the log has failed.
    pub async fn renew_log(&self) -> Result<LogRenewal, LogPoisoned> {
        let segment = self.log().renew().await?;
        self.renewed.fetch_max(segment, Ordering::Relaxed);
        Ok(LogRenewal(segment))
    }

    /// Whether nothing is left of what the log held before a renewal of this run.
    #[must_use]
    pub fn has_renewed(&self, renewal: LogRenewal) -> bool {
        !self.log().holds_before(renewal.0)
    }

    /// What of `group`'s log does not read back, found at the start or since; `None` when nothing.
    #[must_use]
    pub fn damage(&self, group: GroupId) -> Option<LogError> {
        self.log().group(group).err()
    }

    /// The groups that run on this node.
    #[must_use]
    pub fn groups(&self) -> BTreeSet<GroupId> {
        self.groups.read().keys().copied().collect()
    }

    /// What `group` looks like from here; `None` when it does not run on this node.
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<GroupStatus> {
        self.group(group).map(|group| group.status())
    }

    /// Why the log accepts nothing, after a write or a flush failed. All groups are to be stopped then; the first that is
    /// started again has the log read back from the disk.
    #[must_use]
    pub fn log_failure(&self) -> Option<LogPoisoned> {
        self.log().failure()
    }

    /// Figures of proposals since [`Consensus::open`], and of the log since it was read.
    #[must_use]
    pub fn counters(&self) -> LogCounters {
        let (flushes, bytes, entries) = self.log().counters().read();
        LogCounters {
            flushes,
            bytes,
            entries,
            proposals: self.proposals.entries.load(Ordering::Relaxed),
            commands: self.proposals.commands.load(Ordering::Relaxed),
            forwards: self.proposals.forwards.load(Ordering::Relaxed),
        }
    }

    /// Stops all groups, checkpoints their machines, closes the log. Idempotent.
    ///
    /// # Errors
    /// [`LogPoisoned`] when the log had failed.
    pub async fn shutdown(&self) -> Result<(), LogPoisoned> {
        let _starting = self.starting.lock().await;
        let groups: Vec<GroupHandle> = std::mem::take(&mut *self.groups.write()).into_values().collect();
        futures::future::join_all(groups.iter().map(|group| group.stop())).await;
        self.log().close().await
    }

    /// All groups that run here.
    pub(crate) fn handles(&self) -> Vec<GroupHandle> {
        self.groups.read().values().cloned().collect()
    }

    /// How messages reach other nodes.
    pub(crate) fn transport(&self) -> &dyn Transport {
        self.options.transport.as_ref()
    }

    /// What the log holds of `group`.
    #[cfg(test)]
    pub(crate) fn part_of_log(&self, group: GroupId) -> Result<crate::log::store::GroupLog, LogError> {
        self.log().group(group)
    }

    /// The log as it was read last.
    fn log(&self) -> Arc<Log> {
        Arc::clone(&self.log.read())
    }

    fn group(&self, group: GroupId) -> Option<GroupHandle> {
        self.groups.read().get(&group).cloned()
    }
}
