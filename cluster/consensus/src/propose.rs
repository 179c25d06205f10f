//! Proposals: many commands share one log entry, on the leader or on their way to it.
//!
//! openraft 0.9 flushes once per entry and waits for it. So commands that arrive while entries are in
//! flight gather in a queue and become the next entry together: the more callers, the fewer flushes
//! each of them costs (docs/decisions/0005-consensus.md).
//!
//! Invariants:
//! - a command is sent again only when it is certain that no log took it;
//! - every accepted command is answered, at the latest at its deadline;
//! - commands and bytes accepted and not yet answered are bounded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use holdfast_model::GroupId;
use openraft::error::{ClientWriteError, RaftError};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    context::{Context, Leader, millis_left},
    host::spawn,
    network::CallError,
    options::{BatchLimits, COMMAND_BYTES_MAX},
    transport::TransportError,
    types::Batch,
    wire::{AnswerV1, CallV1, FailureV1, MESSAGE_BYTES_MAX, OutcomeV1},
};

/// Bytes of answers sent back for one forwarded batch. Machines answer in few bytes; this bounds a mistake.
const ANSWERS_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;

/// Why a command has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Too many commands wait. Not proposed; try again later.
    #[error("group {0} has too many commands waiting")]
    Busy(GroupId),
    /// Never acceptable.
    #[error("a command of {size} bytes is over the limit of {COMMAND_BYTES_MAX}")]
    TooLarge {
        /// Of the command, in bytes.
        size: usize,
    },
    /// This node has no part in the group, or has not started it.
    #[error("group {0} is not on this node")]
    NoSuchGroup(GroupId),
    /// No leader took the command before its deadline. Not proposed; safe to send again.
    #[error("group {group} had no reachable leader for {waited:?}")]
    NoLeader {
        /// The group.
        group: GroupId,
        /// How long it was tried.
        waited: Duration,
    },
    /// The command may have been committed, may still be, or may be lost. Find out, or send it again only
    /// when that is harmless.
    #[error("group {group}: the outcome of the command is unknown: {reason}")]
    Unknown {
        /// The group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
    /// The group has stopped on this node. Not proposed.
    #[error("group {group} has stopped on this node: {reason}")]
    Stopped {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
}

/// Figures of all proposers of a node.
#[derive(Debug, Default)]
pub(crate) struct ProposalCounters {
    pub(crate) entries: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) forwards: AtomicU64,
}

struct Proposal {
    command: Bytes,
    deadline: Instant,
    /// Came from a follower: not to be forwarded again.
    forwarded: bool,
    /// Set while the command is on its way to a log, so that a caller whose time is up knows what to say.
    sent: Arc<AtomicBool>,
    reply: oneshot::Sender<Result<Bytes, ProposeError>>,
    _reserved: Reservation,
}

/// Bytes counted against the queue limit until dropped.
struct Reservation {
    bytes: usize,
    queued: Arc<AtomicUsize>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Accepts commands of one group.
#[derive(Clone)]
pub(crate) struct Proposer {
    group: GroupId,
    queue: mpsc::Sender<Proposal>,
    slots: Arc<Semaphore>,
    queued: Arc<AtomicUsize>,
    limits: BatchLimits,
}

impl Proposer {
    /// Starts gathering for the group of `context`. Ends when the last handle is dropped.
    pub(crate) fn start(context: Context, limits: BatchLimits, counters: Arc<ProposalCounters>) -> Self {
        let (queue, inbox) = mpsc::channel(limits.commands_queued);
        let slots = Arc::new(Semaphore::new(limits.commands_queued));
        let proposer = Self { group: context.group, queue, slots, queued: Arc::default(), limits };
        spawn(gather(context, inbox, limits, counters));
        proposer
    }

    /// Proposes `command` and waits for its answer until `deadline`.
    pub(crate) async fn propose(
        &self,
        command: Bytes,
        deadline: Instant,
        forwarded: bool,
    ) -> Result<Bytes, ProposeError> {
        let group = self.group;
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { size: command.len() });
        }
        // Held until the answer: bounds commands in the queue and in flight together.
        let _slot = self.slots.try_acquire().map_err(|_| ProposeError::Busy(group))?;
        let reserved = self.reserve(command.len())?;
        let started = Instant::now();
        let (reply, answer) = oneshot::channel();
        let sent = Arc::new(AtomicBool::new(false));
        let proposal =
            Proposal { command, deadline, forwarded, sent: Arc::clone(&sent), reply, _reserved: reserved };
        self.queue.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Busy(group),
            mpsc::error::TrySendError::Closed(_) => {
                ProposeError::Stopped { group, reason: "it is shutting down".to_owned() }
            }
        })?;
        let on_its_way = || sent.load(Ordering::Acquire);
        match timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if on_its_way() => {
                Err(ProposeError::Unknown { group, reason: "the group is shutting down".to_owned() })
            }
            Ok(Err(_)) => Err(ProposeError::Stopped { group, reason: "it is shutting down".to_owned() }),
            Err(_) if on_its_way() => {
                let reason = format!("no answer within {:?}", started.elapsed());
                Err(ProposeError::Unknown { group, reason })
            }
            Err(_) => Err(ProposeError::NoLeader { group, waited: started.elapsed() }),
        }
    }

    fn reserve(&self, bytes: usize) -> Result<Reservation, ProposeError> {
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        let reservation = Reservation { bytes, queued: Arc::clone(&self.queued) };
        if before > 0 && before + bytes > self.limits.bytes_queued {
            return Err(ProposeError::Busy(self.group));
        }
        Ok(reservation)
    }

    /// Serves commands that a follower forwarded.
    pub(crate) async fn serve(&self, commands: Vec<Bytes>, deadline: Instant) -> Vec<OutcomeV1> {
        let proposals = commands.into_iter().map(|command| self.propose(command, deadline, true));
        let outcome = |result| match result {
            Ok(answer) => OutcomeV1::Done(answer),
            Err(ProposeError::Busy(_)) => OutcomeV1::Busy,
            Err(ProposeError::Unknown { reason, .. }) => OutcomeV1::Unknown(reason),
            Err(_) => OutcomeV1::NotTaken,
        };
        let mut bytes = 0;
        let fits = |outcome: OutcomeV1| match outcome {
            OutcomeV1::Done(answer) if bytes + answer.len() > ANSWERS_BYTES_MAX => OutcomeV1::Unknown(
                "applied, but the answers of its batch are too large for a message".to_owned(),
            ),
            OutcomeV1::Done(answer) => {
                bytes += answer.len();
                OutcomeV1::Done(answer)
            }
            other => other,
        };
        join_all(proposals).await.into_iter().map(outcome).map(fits).collect()
    }
}

/// Turns queued commands into batches, a bounded number of them at a time.
async fn gather(
    context: Context,
    mut inbox: mpsc::Receiver<Proposal>,
    limits: BatchLimits,
    counters: Arc<ProposalCounters>,
) {
    let in_flight = Arc::new(Semaphore::new(limits.entries_in_flight));
    let mut carried = None;
    loop {
        // The slot first: while it is awaited the next batch grows.
        let Ok(slot) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let first = match carried.take() {
            Some(proposal) => proposal,
            None => match inbox.recv().await {
                Some(proposal) => proposal,
                None => return,
            },
        };
        // Callers that are ready to run get to add theirs.
        tokio::task::yield_now().await;
        let mut bytes = first.command.len();
        let mut batch = vec![first];
        while batch.len() < limits.commands_per_entry
            && let Ok(next) = inbox.try_recv()
        {
            bytes += next.command.len();
            if bytes > limits.bytes_per_entry {
                carried = Some(next);
                break;
            }
            batch.push(next);
        }
        let (context, counters) = (context.clone(), Arc::clone(&counters));
        spawn(async move {
            deliver(&context, batch, &counters).await;
            drop(slot);
        });
    }
}

/// Brings a batch to the leader, wherever that is, until every command is answered or out of time.
async fn deliver(context: &Context, mut batch: Vec<Proposal>, counters: &ProposalCounters) {
    loop {
        let (now, group) = (Instant::now(), context.group);
        let expired = batch.extract_if(.., |proposal| proposal.deadline <= now || proposal.reply.is_closed());
        answer_all(expired.collect(), |_| Err(ProposeError::NoLeader { group, waited: Duration::ZERO }));
        let Some(deadline) = batch.iter().map(|proposal| proposal.deadline).max() else { return };
        if let Some(reason) = context.failure() {
            return answer_all(batch, |_| Err(ProposeError::Stopped { group, reason: reason.clone() }));
        }
        let leader = context.leader();
        if leader != Leader::Here {
            // The follower that forwarded these looks for the leader itself.
            let (forwarded, own) = batch.into_iter().partition(|proposal| proposal.forwarded);
            answer_all(forwarded, |_| Err(ProposeError::NoLeader { group, waited: Duration::ZERO }));
            batch = own;
            if batch.is_empty() {
                return;
            }
        }
        mark_sent(&batch, true);
        let left = match leader {
            Leader::Here => propose_here(context, batch, deadline, counters).await,
            Leader::At(node) => forward(context, node, batch, deadline, counters).await,
            Leader::Unknown => batch,
        };
        if left.is_empty() {
            return;
        }
        batch = left;
        mark_sent(&batch, false);
        context.leader_news(deadline).await;
    }
}

/// Proposes on this node. Returns the batch when it is certain that the log did not take it.
async fn propose_here(
    context: &Context,
    batch: Vec<Proposal>,
    deadline: Instant,
    counters: &ProposalCounters,
) -> Vec<Proposal> {
    let group = context.group;
    let commands = batch.iter().map(|proposal| proposal.command.clone()).collect();
    let (data, mark) = Batch::marked(commands);
    let unknown = |reason: String| move |_| Err(ProposeError::Unknown { group, reason: reason.clone() });
    match timeout_at(deadline, context.raft.client_write(data)).await {
        Ok(Ok(written)) => {
            counters.entries.fetch_add(1, Ordering::Relaxed);
            counters.commands.fetch_add(batch.len() as u64, Ordering::Relaxed);
            let answers = written.data.0;
            assert_eq!(answers.len(), batch.len(), "the apply thread checks that every command is answered");
            let Some(copy) = context.second_copy.clone() else {
                answer_all(batch, |at| Ok(answers[at].clone()));
                return Vec::new();
            };
            // On the side: meanwhile the next batch is on its way through the log.
            spawn(async move {
                match timeout_at(deadline, copy.holds(group, written.log_id.index)).await {
                    Ok(()) => answer_all(batch, |at| Ok(answers[at].clone())),
                    Err(_) => {
                        let reason = "committed, but its second copy was not durable before the deadline";
                        answer_all(batch, |_| {
                            Err(ProposeError::Unknown { group, reason: reason.to_owned() })
                        });
                    }
                }
            });
        }
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) if !mark.was_appended() => {
            return batch;
        }
        Ok(Err(RaftError::Fatal(error))) if !mark.was_appended() => {
            answer_all(batch, |_| Err(ProposeError::Stopped { group, reason: error.to_string() }));
        }
        Ok(Err(error)) => answer_all(batch, unknown(error.to_string())),
        Err(_) => answer_all(batch, unknown("not committed before the deadline".to_owned())),
    }
    Vec::new()
}

/// Sends the batch to the leader. Returns what it certainly did not take.
async fn forward(
    context: &Context,
    leader: holdfast_model::NodeId,
    batch: Vec<Proposal>,
    deadline: Instant,
    counters: &ProposalCounters,
) -> Vec<Proposal> {
    let group = context.group;
    let commands = batch.iter().map(|proposal| proposal.command.clone()).collect();
    counters.forwards.fetch_add(1, Ordering::Relaxed);
    let answer = context
        .call(leader, CallV1::Propose { within_millis: millis_left(deadline), commands }, deadline)
        .await;
    match answer {
        Ok(AnswerV1::Proposed(outcomes)) if outcomes.len() == batch.len() => {
            let mut left = Vec::new();
            for (proposal, outcome) in batch.into_iter().zip(outcomes) {
                let result = match outcome {
                    OutcomeV1::Done(answer) => Ok(answer),
                    OutcomeV1::Busy => Err(ProposeError::Busy(group)),
                    OutcomeV1::Unknown(reason) => Err(ProposeError::Unknown { group, reason }),
                    OutcomeV1::NotTaken => {
                        left.push(proposal);
                        continue;
                    }
                };
                // A caller that stopped waiting needs no answer.
                let _ = proposal.reply.send(result);
            }
            return left;
        }
        Err(
            CallError::Failed(_, FailureV1::NotLeader(_) | FailureV1::NoSuchGroup)
            | CallError::Transport(TransportError::NotSent(..) | TransportError::Refused(..)),
        ) => return batch,
        Ok(other) => {
            let reason = format!("the leader answered something else: {other:?}");
            answer_all(batch, |_| Err(ProposeError::Unknown { group, reason: reason.clone() }));
        }
        Err(error) => {
            let reason = error.to_string();
            answer_all(batch, |_| Err(ProposeError::Unknown { group, reason: reason.clone() }));
        }
    }
    Vec::new()
}

fn mark_sent(batch: &[Proposal], sent: bool) {
    for proposal in batch {
        proposal.sent.store(sent, Ordering::Release);
    }
}

fn answer_all(batch: Vec<Proposal>, answer: impl Fn(usize) -> Result<Bytes, ProposeError>) {
    for (at, proposal) in batch.into_iter().enumerate() {
        // A caller that stopped waiting needs no answer.
        let _ = proposal.reply.send(answer(at));
    }
}
