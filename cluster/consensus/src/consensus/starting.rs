//! Groups start and stop on this node; a log that failed is read back before.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use holdfast_model::GroupId;
use tokio::sync::Mutex;

use super::Consensus;
use crate::{
    apply::{Applier, Position},
    context::Context,
    elect,
    group::Group,
    handover::Until,
    heard::Heard,
    host::spawn,
    log::{Log, LogError, LogIdentity},
    machine::StateMachine,
    maintain::maintain,
    network::Links,
    propose::Proposer,
    read::{Reader, Resumed},
    types::Raft,
};

/// Why consensus, or a group, could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshot directory.
    #[error("the snapshot directory cannot be used")]
    Snapshots(#[source] io::Error),
    /// The machine of a group.
    #[error("the state machine of group {group} cannot be started")]
    Machine {
        /// The group.
        group: GroupId,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The group runs already.
    #[error("group {0} runs already")]
    AlreadyStarted(GroupId),
    /// This node has no such group.
    #[error("group {0} is not on this node")]
    NoSuchGroup(GroupId),
    /// The machine's durable state ends before what is left of the log: entries in between are gone.
    #[error(
        "group {group}: the machine holds entries up to {machine:?}, but the log starts after {purged}: the \
         machine's files are older than the log; remove the group from this node and add it again"
    )]
    MachineTooOld {
        /// The group.
        group: GroupId,
        /// Last entry the machine's durable state covers.
        machine: Option<u64>,
        /// Last entry cut from the log.
        purged: u64,
    },
    /// The machine has a past that this log knows nothing of: the log was lost and created anew. The node
    /// may have voted and acknowledged what it no longer remembers.
    #[error(
        "group {group}: the state machine was used with Raft log {expected}, this is {found}: the log was lost; \
         this node must join again under a new identity"
    )]
    LogLost {
        /// The group.
        group: GroupId,
        /// The log the machine's state came from.
        expected: LogIdentity,
        /// The log that is there now.
        found: LogIdentity,
    },
    /// openraft refused.
    #[error("group {group} cannot be started: {reason}")]
    Raft {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// The timing makes no sense.
    #[error("the timing is unusable: {0}")]
    Timing(String),
}

impl Consensus {
    /// Starts `group` on `machine`. What the log holds beyond the machine's last checkpoint and is known
    /// to be committed is applied before this returns. A log that failed is read back first, if no group runs.
    ///
    /// # Errors
    /// [`ConsensusError`]; other groups are not affected.
    pub async fn start_group(
        &self,
        group: GroupId,
        machine: Box<dyn StateMachine>,
    ) -> Result<(), ConsensusError> {
        let _starting = self.starting.lock().await;
        if self.groups.read().contains_key(&group) {
            return Err(ConsensusError::AlreadyStarted(group));
        }
        self.read_log_back().await?;
        let log = self.log().group(group)?;
        log.restore();
        let machine_error = |source| ConsensusError::Machine { group, source };
        let position = machine.position().map(|bytes| Position::decode(&bytes)).transpose();
        let position = position.map_err(machine_error)?;
        if let Some(expected) = position.as_ref().map(|position| position.log)
            && expected != self.log().identity()
        {
            return Err(ConsensusError::LogLost { group, expected, found: self.log().identity() });
        }
        let (snapshots, host) = (self.snapshots.clone(), &self.options.host);
        let applier =
            Applier::start(group, machine, position, log.clone(), snapshots, self.options.checkpoint, host)
                .map_err(machine_error)?;
        let applied = *applier.applied().borrow();
        if let Some(purged) = log.inspect(|index| index.purged).filter(|purged| applied < Some(purged.index))
        {
            return Err(ConsensusError::MachineTooOld { group, machine: applied, purged: purged.index });
        }
        let resumed = log.inspect(|index| {
            let own = index
                .vote
                .filter(|vote| vote.committed && vote.leader_id.node_id == self.options.node.get())?;
            let last = index.last_log_id().map(|id| id.index);
            Some(Resumed { term: own.leader_id.term, last })
        });
        let links = Links::new(group, Arc::clone(&self.options.transport), host.clone(), log.clone());
        let confirmer = links.confirmer();
        let raft =
            Raft::new(self.options.node.get(), Arc::clone(&self.config), links, log.clone(), applier.clone())
                .await
                .map_err(|error| ConsensusError::Raft { group, reason: error.to_string() })?;
        let transport = Arc::clone(&self.options.transport);
        let second_copy = self.options.second_copy.clone();
        let (own, pulse) = (self.options.node, self.pulse);
        let context = Context::new(group, own, raft, transport, second_copy, host.clone(), pulse);
        let proposer = Proposer::start(context.clone(), self.options.batch, Arc::clone(&self.proposals));
        let reader = Reader::start(context.clone(), confirmer, applier.applied(), resumed);
        let maintenance = spawn(maintain(
            context.clone(),
            log.clone(),
            applier.clone(),
            self.options.checkpoint,
            self.log().holding(),
        ));
        let heard = Heard::now(self.options.timing.lease);
        let (campaign, aside) = (Until::default(), Until::default());
        let (timing, standing) = (self.options.timing, (campaign.clone(), aside.clone()));
        let elections = spawn(elect::run(context.clone(), log.clone(), heard.clone(), standing, timing));
        let started = Group {
            context,
            log,
            applier,
            proposer,
            reader,
            snapshots: self.snapshots.clone(),
            incoming: Mutex::default(),
            changing: Mutex::default(),
            heard,
            campaign,
            aside,
            lease: self.options.timing.lease,
            tasks: vec![maintenance, elections],
        };
        self.groups.write().insert(group, Arc::new(started));
        Ok(())
    }

    /// Replaces a log that failed by what of it is on the disk. What was in memory is not known to be there, and a group
    /// that counted on it would break what this node promised to others.
    async fn read_log_back(&self) -> Result<(), ConsensusError> {
        let failed = self.log();
        let Some(poisoned) = failed.failure() else { return Ok(()) };
        if !self.groups.read().is_empty() {
            return Err(LogError::from(poisoned).into());
        }
        // It says what it said when it failed.
        drop(failed.close().await);
        let (disk, node, limits) = (Arc::clone(&self.disk), self.options.node, self.options.log);
        let (host, identity) = (self.options.host.clone(), failed.identity());
        let opening = move || Log::open(disk, node, limits, &host, Some(identity));
        let opened = self.options.host.blocking(opening).await;
        let log = Arc::new(opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
        tracing::warn!(%poisoned, "the Raft log has been read back from the disk");
        *self.log.write() = Arc::clone(&log);
        if log.holds_before(self.renewed.load(Ordering::Relaxed)) {
            log.renew().await.map_err(LogError::from)?;
        }
        Ok(())
    }

    /// Stops `group` on this node: checkpoints its machine and lets go of it.
    ///
    /// # Errors
    /// [`ConsensusError::NoSuchGroup`].
    pub async fn stop_group(&self, group: GroupId) -> Result<(), ConsensusError> {
        let _starting = self.starting.lock().await;
        let stopped = self.groups.write().remove(&group).ok_or(ConsensusError::NoSuchGroup(group))?;
        stopped.stop().await;
        Ok(())
    }

    /// Removes what the log holds of `group`, durably: the group has left this node, or its part of the
    /// log is damaged and the group is to be added again. Its machine's files are the caller's.
    ///
    /// The vote goes as well: only a node that is no voter of the group any more may forget it.
    ///
    /// # Errors
    /// [`ConsensusError::AlreadyStarted`] while the group runs, [`ConsensusError::Log`].
    pub async fn forget_group(&self, group: GroupId) -> Result<(), ConsensusError> {
        let _starting = self.starting.lock().await;
        if self.groups.read().contains_key(&group) {
            return Err(ConsensusError::AlreadyStarted(group));
        }
        Ok(self.log().forget(group).await.map_err(LogError::from)?)
    }
}
