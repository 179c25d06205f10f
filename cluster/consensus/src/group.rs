//! One group on this node: its Raft instance, its machine, and the answers to what peers ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_model::{GroupId, NodeId};
use openraft::{
    ChangeMembers, EmptyNode,
    error::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError},
    raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use crate::{
    apply::Applier,
    context::{Context, Leader, millis_left},
    elect::would_vote,
    handover::Until,
    heard::Heard,
    host::Task,
    incoming::Incoming,
    log::store::GroupLog,
    network::CallError,
    options::LEARNER_LAG_ENTRIES,
    propose::Proposer,
    read::Reader,
    snapshot::SnapshotDirectory,
    status::{GroupStatus, Role},
    types::{Entry, LogId, Vote},
    wire::{AnswerV1, CallV1, FailureV1},
};

/// Bytes of entries a node takes from a leader beyond what its machine has applied. A machine that
/// falls further behind slows the leader's sending down.
const UNAPPLIED_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// How long an append waits for the machine before it is answered without taking entries.
const UNAPPLIED_WAIT: Duration = Duration::from_millis(100);

/// Why a membership change was not made, or is not known to have been made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MembershipError {
    /// This node has no part in the group, or has not started it.
    #[error("group {0} is not on this node")]
    NoSuchGroup(GroupId),
    /// Not done, or not known to be done, in time. Repeating the call is harmless.
    #[error("group {group}: the membership change was not completed within {waited:?}")]
    Timeout {
        /// The group.
        group: GroupId,
        /// How long it was tried.
        waited: Duration,
    },
    /// Another change is under way. Try again when it is done.
    #[error("group {0}: another membership change is under way")]
    InProgress(GroupId),
    /// A new voter has to be added as a learner first.
    #[error("group {group}: node {node} must be added as a learner before it can vote")]
    NotALearner {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// The set of voters is empty, or lacks this node where it must be in it.
    #[error("group {group}: {reason}")]
    Invalid {
        /// The group.
        group: GroupId,
        /// What is wrong.
        reason: String,
    },
    /// The group has stopped on this node.
    #[error("group {group} has stopped on this node: {reason}")]
    Stopped {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
}

/// A change of who is in the group.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    AddLearner(NodeId),
    RemoveLearner(NodeId),
    Voters(BTreeSet<NodeId>),
    /// As `Voters`, but who loses its vote stays as a learner.
    DemoteOthers(BTreeSet<NodeId>),
}

impl Change {
    fn to_call(&self, deadline: Instant) -> CallV1 {
        let within_millis = millis_left(deadline);
        match self {
            Self::AddLearner(node) => CallV1::AddLearner { within_millis, node: node.get() },
            Self::RemoveLearner(node) => CallV1::RemoveLearner { within_millis, node: node.get() },
            Self::DemoteOthers(voters) => {
                CallV1::DemoteOthers { within_millis, voters: voters.iter().map(|node| node.get()).collect() }
            }
            Self::Voters(voters) => {
                CallV1::ChangeVoters { within_millis, voters: voters.iter().map(|node| node.get()).collect() }
            }
        }
    }
}

/// One group on this node.
pub(crate) struct Group {
    pub(crate) context: Context,
    pub(crate) log: GroupLog,
    pub(crate) applier: Applier,
    pub(crate) proposer: Proposer,
    pub(crate) reader: Reader,
    pub(crate) snapshots: SnapshotDirectory,
    pub(crate) incoming: Mutex<Option<Incoming>>,
    /// Held while this node, as the leader, changes the membership.
    pub(crate) changing: Mutex<()>,
    pub(crate) heard: Heard,
    /// The leader asked this node to take over.
    pub(crate) campaign: Until,
    /// Another node was chosen to lead; this one does not stand for election.
    pub(crate) aside: Until,
    pub(crate) lease: Duration,
    pub(crate) tasks: Vec<Task<()>>,
}

impl Group {
    pub(crate) fn status(&self) -> GroupStatus {
        let committed = self.log.inspect(|index| index.committed.map(|id| id.index));
        let applied = *self.applier.applied().borrow();
        let checkpoint = self.applier.checkpoint().and_then(|meta| meta.last_log_id).map(|id| id.index);
        let metrics = self.context.raft.metrics();
        let metrics = metrics.borrow();
        let mut status = GroupStatus::new(self.context.group, &metrics, committed, applied, checkpoint);
        let voters = metrics.membership_config.membership().get_joint_config();
        let beats = self.context.answered.quorum_ago(voters, self.context.node.get());
        let beats = beats.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
        if status.role == Role::Leader {
            let ago = [status.quorum_answered_millis_ago, beats].into_iter().flatten().min();
            status.quorum_answered_millis_ago = ago;
        }
        // openraft names the leader of the last term until there is another; who is silent leads no more.
        if status.role != Role::Leader && self.heard.ago() > self.lease * 2 {
            status.leader = None;
        }
        status
    }

    /// Makes this node and `voters` the first members. Harmless when the group has members already.
    pub(crate) async fn initialize(&self, voters: &BTreeSet<NodeId>) -> Result<(), MembershipError> {
        let group = self.context.group;
        let members: BTreeMap<u64, EmptyNode> =
            voters.iter().map(|node| (node.get(), EmptyNode::new())).collect();
        match self.context.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                Err(MembershipError::Invalid { group, reason: error.to_string() })
            }
            Err(RaftError::Fatal(error)) => {
                Err(MembershipError::Stopped { group, reason: error.to_string() })
            }
        }
    }

    /// Has the leader, wherever it is, make `change`, and waits until it is done.
    pub(crate) async fn change(&self, change: Change, deadline: Instant) -> Result<(), MembershipError> {
        let group = self.context.group;
        let started = Instant::now();
        while Instant::now() < deadline {
            if let Some(reason) = self.context.failure() {
                return Err(MembershipError::Stopped { group, reason });
            }
            let failure = match self.context.leader() {
                Leader::Here => self.change_here(&change, deadline).await.err(),
                Leader::At(node) => match self.context.call(node, change.to_call(deadline), deadline).await {
                    Ok(AnswerV1::Changed) => None,
                    Ok(other) => Some(FailureV1::Other(format!("{other:?}"))),
                    Err(CallError::Failed(_, failure)) => Some(failure),
                    Err(error) => Some(FailureV1::Other(error.to_string())),
                },
                Leader::Unknown => Some(FailureV1::NotLeader(None)),
            };
            match failure {
                None => return Ok(()),
                Some(FailureV1::ChangeInProgress) => return Err(MembershipError::InProgress(group)),
                Some(FailureV1::NotALearner(node)) => {
                    return Err(MembershipError::NotALearner { group, node: NodeId::new(node) });
                }
                // Both changes are idempotent, so whatever happened, asking again is right.
                Some(failure) => {
                    tracing::debug!(%group, ?failure, ?change, "membership change: trying again")
                }
            }
            self.context.leader_news(deadline).await;
        }
        Err(MembershipError::Timeout { group, waited: started.elapsed() })
    }

    async fn change_here(&self, change: &Change, deadline: Instant) -> Result<(), FailureV1> {
        let raft = &self.context.raft;
        // openraft refuses a second one as well, but not always: see `configs_with_me`.
        let Ok(alone) = self.changing.try_lock() else { return Err(FailureV1::ChangeInProgress) };
        let configs = self.configs_with_me().await?;
        let result = match change {
            Change::AddLearner(node) => {
                timeout_at(deadline, raft.add_learner(node.get(), EmptyNode::new(), false)).await
            }
            Change::RemoveLearner(node) => {
                let known = {
                    let metrics = raft.metrics();
                    let metrics = metrics.borrow();
                    let membership = metrics.membership_config.membership();
                    if membership.voter_ids().any(|voter| voter == node.get()) {
                        return Err(FailureV1::Other(format!("node {node} votes; it is no learner")));
                    }
                    membership.get_node(&node.get()).is_some()
                };
                if !known {
                    return Ok(());
                }
                let removal = ChangeMembers::RemoveNodes(BTreeSet::from([node.get()]));
                timeout_at(deadline, raft.change_membership(removal, true)).await
            }
            Change::Voters(voters) | Change::DemoteOthers(voters) => {
                let keep = matches!(change, Change::DemoteOthers(_));
                let voters: BTreeSet<u64> = voters.iter().map(|node| node.get()).collect();
                if configs[..] == [voters.clone()] {
                    return Ok(());
                }
                match unfinished(&configs, &voters) {
                    Some(before) => match timeout_at(deadline, raft.change_membership(before, keep)).await {
                        Ok(Ok(_)) => {
                            self.configs_with_me().await?;
                            timeout_at(deadline, raft.change_membership(voters, keep)).await
                        }
                        other => other,
                    },
                    None => timeout_at(deadline, raft.change_membership(voters, keep)).await,
                }
            }
        };
        drop(alone);
        match result {
            Ok(Ok(written)) => match change {
                Change::AddLearner(node) => self.catches_up(*node, written.log_id, deadline).await,
                _ => Ok(()),
            },
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(error)))) => {
                Err(FailureV1::NotLeader(error.leader_id))
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error)))) => {
                Err(match error {
                    ChangeMembershipError::InProgress(_) => FailureV1::ChangeInProgress,
                    ChangeMembershipError::LearnerNotFound(error) => FailureV1::NotALearner(error.node_id),
                    ChangeMembershipError::EmptyMembership(error) => FailureV1::Other(error.to_string()),
                })
            }
            Ok(Err(RaftError::Fatal(error))) => Err(FailureV1::Stopped(error.to_string())),
            Err(_) => Err(FailureV1::Other("not completed in time".to_owned())),
        }
    }

    /// The sets of voters as they are now: one, or two while a change is under way.
    ///
    /// A leader that was taken out of the group leads on until its next tick, and openraft asserts that it
    /// does not change the membership any more. Asked while no change of this node is under way.
    async fn configs_with_me(&self) -> Result<Vec<BTreeSet<u64>>, FailureV1> {
        let me = self.context.node.get();
        let configs = self
            .context
            .raft
            .with_raft_state(move |state| {
                let effective = state.membership_state.effective().membership();
                effective.get_node(&me).map(|_| effective.get_joint_config().clone())
            })
            .await
            .map_err(|error| FailureV1::Stopped(error.to_string()))?;
        configs.ok_or(FailureV1::NotLeader(None))
    }

    /// Waits until `node`, a learner since entry `added`, has nearly all entries.
    async fn catches_up(&self, node: NodeId, added: LogId, deadline: Instant) -> Result<(), FailureV1> {
        let (me, node) = (self.context.node.get(), node.get());
        let left = deadline.saturating_duration_since(Instant::now());
        let near = |matched: Option<LogId>, last: Option<u64>| {
            let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
            next(matched.map(|id| id.index)) + LEARNER_LAG_ENTRIES >= next(last)
        };
        let wait = self.context.raft.wait(Some(left));
        let looked = wait.metrics(
            |metrics| {
                let known = *metrics.membership_config.log_id() >= Some(added);
                let matched = metrics.replication.as_ref().and_then(|all| all.get(&node).copied());
                let caught_up = known && matched.is_some_and(|matched| near(matched, metrics.last_log_index));
                node == me || metrics.current_leader != Some(me) || caught_up
            },
            "a learner that has caught up",
        );
        match looked.await {
            Ok(metrics) if metrics.current_leader == Some(me) => Ok(()),
            Ok(metrics) => Err(FailureV1::NotLeader(metrics.current_leader)),
            Err(_) => Err(FailureV1::Other("not completed in time".to_owned())),
        }
    }

    /// Answers a peer.
    pub(crate) async fn handle(&self, from: NodeId, call: CallV1) -> AnswerV1 {
        let result = match call {
            CallV1::Append { vote, previous, committed, entries } => {
                let request = AppendEntriesRequest {
                    vote: vote.into(),
                    prev_log_id: previous.map(LogId::from),
                    entries: entries.into_iter().map(Entry::from).collect(),
                    leader_commit: committed.map(LogId::from),
                };
                self.append(request).await
            }
            CallV1::Vote { vote, last } => self.vote(vote.into(), last.map(LogId::from)).await,
            CallV1::PreVote { vote, last } => {
                let standing = (vote.node, last.map(LogId::from));
                // Who stands aside was asked to: it votes as soon as it may.
                let patience = if self.aside.holds() { self.lease } else { self.heard.patience() };
                let times = (self.lease, patience);
                let granted = would_vote(&self.context, &self.log, &self.heard, times, standing);
                Ok(AnswerV1::PreVote { granted })
            }
            CallV1::Campaign { chosen } => {
                let mine = chosen == self.context.node.get();
                let standing = if mine { &self.campaign } else { &self.aside };
                standing.set(Instant::now() + self.lease * 2);
                Ok(AnswerV1::Changed)
            }
            CallV1::Beats { .. } => Err(FailureV1::Other("beats concern no single group".to_owned())),
            CallV1::Snapshot(piece) => self.take_snapshot_piece(from, piece).await,
            CallV1::Propose { within_millis, commands } => match self.context.leader() {
                Leader::Here => {
                    Ok(AnswerV1::Proposed(self.proposer.serve(commands, deadline(within_millis)).await))
                }
                elsewhere => Err(not_leader(elsewhere)),
            },
            CallV1::ReadIndex { within_millis } => match self.context.leader() {
                Leader::Here => {
                    let index = self.reader.index(deadline(within_millis), true).await;
                    index.map(AnswerV1::ReadIndex).map_err(|_| FailureV1::NoQuorum)
                }
                elsewhere => Err(not_leader(elsewhere)),
            },
            CallV1::AddLearner { within_millis, node } => {
                self.serve_change(Change::AddLearner(NodeId::new(node)), within_millis).await
            }
            CallV1::RemoveLearner { within_millis, node } => {
                self.serve_change(Change::RemoveLearner(NodeId::new(node)), within_millis).await
            }
            CallV1::DemoteOthers { within_millis, voters } => {
                let voters = voters.into_iter().map(NodeId::new).collect();
                self.serve_change(Change::DemoteOthers(voters), within_millis).await
            }
            CallV1::ChangeVoters { within_millis, voters } => {
                let voters = voters.into_iter().map(NodeId::new).collect();
                self.serve_change(Change::Voters(voters), within_millis).await
            }
        };
        result.unwrap_or_else(AnswerV1::Failed)
    }

    async fn serve_change(&self, change: Change, within_millis: u64) -> Result<AnswerV1, FailureV1> {
        match self.context.leader() {
            Leader::Here => {
                self.change_here(&change, deadline(within_millis)).await.map(|()| AnswerV1::Changed)
            }
            elsewhere => Err(not_leader(elsewhere)),
        }
    }

    async fn append(
        &self,
        mut request: AppendEntriesRequest<crate::types::TypeConfig>,
    ) -> Result<AnswerV1, FailureV1> {
        let previous = request.prev_log_id;
        let stuffed = !request.entries.is_empty() && !self.machine_keeps_up().await;
        if stuffed {
            // Still a heartbeat, so that this node does not take the leader for dead.
            request.entries.clear();
        }
        let leader = request.vote;
        let answer = self.context.raft.append_entries(request).await;
        let answer = answer.map_err(|error| FailureV1::Stopped(error.to_string()))?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.heard.note(leader);
        }
        match answer {
            AppendEntriesResponse::Success if stuffed => {
                Ok(AnswerV1::AppendedPartly(previous.map(Into::into)))
            }
            AppendEntriesResponse::Success => Ok(AnswerV1::Appended),
            AppendEntriesResponse::PartialSuccess(upto) => Ok(AnswerV1::AppendedPartly(upto.map(Into::into))),
            AppendEntriesResponse::Conflict => Ok(AnswerV1::Conflict),
            AppendEntriesResponse::HigherVote(vote) => Ok(AnswerV1::HigherVote(vote.into())),
        }
    }

    /// Waits a little for a machine that is far behind the log; false when it stays so.
    async fn machine_keeps_up(&self) -> bool {
        let mut applied = self.applier.applied();
        let behind = |applied: &Option<u64>| {
            self.log.inspect(|index| {
                // What is not committed cannot be applied yet: only the rest is the machine's debt. The
                // commit hint may trail the machine, after a restart for example.
                let uncommitted = index.bytes_after(index.committed.map(|id| id.index));
                index.bytes_after(*applied).saturating_sub(uncommitted) > UNAPPLIED_BYTES_MAX
            })
        };
        let wait = applied.wait_for(|applied| !behind(applied));
        timeout_at(Instant::now() + UNAPPLIED_WAIT, wait).await.is_ok()
    }

    async fn vote(&self, vote: Vote, last: Option<LogId>) -> Result<AnswerV1, FailureV1> {
        let answer = self.context.raft.vote(VoteRequest::new(vote, last)).await;
        let answer = answer.map_err(|error| FailureV1::Stopped(error.to_string()))?;
        if answer.vote_granted {
            self.heard.back(vote.leader_id.node_id);
        }
        Ok(AnswerV1::Vote {
            vote: answer.vote.into(),
            granted: answer.vote_granted,
            last: answer.last_log_id.map(Into::into),
        })
    }

    /// Stops serving, checkpoints the machine, ends its thread.
    pub(crate) async fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Err(error) = self.context.raft.shutdown().await {
            tracing::warn!(group = %self.context.group, %error, "the Raft task did not end cleanly");
        }
        if let Err(error) = self.applier.stop().await {
            tracing::error!(group = %self.context.group, %error, "the last checkpoint failed");
        }
    }
}

/// The voters of a change that was begun by a leader that did not end it, when they are not those wanted now: that
/// change ends first. openraft would go from both sets to the second and the wanted one at once, which takes leaders
/// of the first out of the group, and then ask the same leader for the next step.
fn unfinished(configs: &[BTreeSet<u64>], wanted: &BTreeSet<u64>) -> Option<BTreeSet<u64>> {
    match configs {
        [_, .., last] if !configs.contains(wanted) => Some(last.clone()),
        _ => None,
    }
}

/// The moment by which a peer wants its answer. A peer's clock plays no part in it.
fn deadline(within_millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(within_millis.min(WITHIN_MILLIS_MAX))
}

/// Longest a peer may have this node work on one request, in milliseconds.
const WITHIN_MILLIS_MAX: u64 = 3_600_000;

fn not_leader(leader: Leader) -> FailureV1 {
    FailureV1::NotLeader(match leader {
        Leader::At(node) => Some(node.get()),
        Leader::Here | Leader::Unknown => None,
    })
}

/// Shared by everything that holds a group.
pub(crate) type GroupHandle = Arc<Group>;
