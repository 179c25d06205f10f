//! Read barriers: after one, this node's machine has applied all that was committed before it was asked.
//!
//! Callers that come while a round is under way share the next one. A round costs the leader one
//! exchange with a quorum ([`crate::confirm`]), and a follower one exchange with the leader besides.
//!
//! openraft lets a leader that was restarted lead on without an election (its issue 1511). Such a leader
//! does not know what it had committed last, and no first entry of a new term tells it: its readers wait
//! for everything its log held when it started.

use std::time::Duration;

use futures::FutureExt;
use holdfast_model::GroupId;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use crate::{
    confirm::Confirmer,
    context::{Context, Leader, millis_left},
    host::spawn,
    wire::{AnswerV1, CallV1},
};

/// Callers waiting for a round at most, per group.
const READERS_MAX: usize = 65_536;

/// How long one leader is asked before it is looked up again: it may have fallen silent meanwhile.
const ATTEMPT_MAX: Duration = Duration::from_millis(1500);

/// Why a read cannot be served.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// This node has no part in the group, or has not started it.
    #[error("group {0} is not on this node")]
    NoSuchGroup(GroupId),
    /// No leader could confirm, with a quorum, that it still leads.
    #[error("group {group} could not confirm its leader within {waited:?}")]
    NoQuorum {
        /// The group.
        group: GroupId,
        /// How long it was tried.
        waited: Duration,
    },
    /// This node's machine did not come up to the leader in time.
    #[error("group {group}: this node has not applied entry {index} yet")]
    Behind {
        /// The group.
        group: GroupId,
        /// What had to be applied.
        index: u64,
    },
    /// Too many readers wait.
    #[error("group {0} has too many readers waiting")]
    Busy(GroupId),
    /// The group has stopped on this node.
    #[error("group {group} has stopped on this node: {reason}")]
    Stopped {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
}

struct Ask {
    deadline: Instant,
    /// A follower asks: to be answered by a leader only.
    forwarded: bool,
    reply: oneshot::Sender<Result<Option<u64>, ReadError>>,
}

/// A term in which this node led before it was started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resumed {
    pub(crate) term: u64,
    /// Last entry of the log at the start. Some of it may not be committed yet.
    pub(crate) last: Option<u64>,
}

/// Serves read barriers of one group.
#[derive(Clone)]
pub(crate) struct Reader {
    group: GroupId,
    asks: mpsc::Sender<Ask>,
    applied: watch::Receiver<Option<u64>>,
}

impl Reader {
    /// Starts serving the group of `context`. Ends when the last handle is dropped.
    pub(crate) fn start(
        context: Context,
        confirmer: Confirmer,
        applied: watch::Receiver<Option<u64>>,
        resumed: Option<Resumed>,
    ) -> Self {
        let (asks, inbox) = mpsc::channel(READERS_MAX);
        let reader = Self { group: context.group, asks, applied: applied.clone() };
        let asking = Asking { context, confirmer, applied, resumed };
        spawn(asking.rounds(inbox));
        reader
    }

    /// Returns once this node has applied everything committed before the call.
    pub(crate) async fn barrier(&self, deadline: Instant) -> Result<(), ReadError> {
        let group = self.group;
        let Some(index) = self.index(deadline, false).await? else { return Ok(()) };
        let mut applied = self.applied.clone();
        match timeout_at(deadline, applied.wait_for(|applied| *applied >= Some(index))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopped { group, reason: "its machine has ended".to_owned() }),
            Err(_) => Err(ReadError::Behind { group, index }),
        }
    }

    /// The index a reader must have applied; `None` when nothing was ever committed.
    pub(crate) async fn index(&self, deadline: Instant, forwarded: bool) -> Result<Option<u64>, ReadError> {
        let group = self.group;
        let started = Instant::now();
        let (reply, answer) = oneshot::channel();
        self.asks.try_send(Ask { deadline, forwarded, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadError::Busy(group),
            mpsc::error::TrySendError::Closed(_) => stopping(group),
        })?;
        match timeout_at(deadline, answer).await {
            Ok(result) => result.unwrap_or_else(|_| Err(stopping(group))),
            Err(_) => Err(ReadError::NoQuorum { group, waited: started.elapsed() }),
        }
    }
}

fn stopping(group: GroupId) -> ReadError {
    ReadError::Stopped { group, reason: "it is shutting down".to_owned() }
}

/// What rounds are asked with.
struct Asking {
    context: Context,
    confirmer: Confirmer,
    applied: watch::Receiver<Option<u64>>,
    resumed: Option<Resumed>,
}

impl Asking {
    async fn rounds(self, mut inbox: mpsc::Receiver<Ask>) {
        let mut asks = Vec::new();
        while inbox.recv_many(&mut asks, READERS_MAX).await > 0 {
            let result = self.round(&mut asks).await;
            for ask in asks.drain(..) {
                // A caller that stopped waiting needs no answer.
                let _ = ask.reply.send(result.clone());
            }
        }
    }

    /// What this node, as the leader, has readers wait for. A quorum is asked past Raft first, and by Raft when that
    /// does not tell.
    async fn as_leader(&self, attempt: Instant) -> Option<Option<u64>> {
        let context = &self.context;
        let resumed = self.resumed.filter(|resumed| resumed.term == context.term());
        let applied = || *self.applied.borrow();
        let index = match self.confirmer.read_index(context, applied, attempt).await {
            Some(index) => Some(index),
            None => match timeout_at(attempt, context.raft.get_read_log_id()).await {
                Ok(Ok((index, _))) => index.map(|id| id.index),
                _ => return None,
            },
        };
        Some(index.max(resumed.and_then(|resumed| resumed.last)))
    }

    /// Finds the read index for `asks`. Answers itself those that this node cannot serve.
    async fn round(&self, asks: &mut Vec<Ask>) -> Result<Option<u64>, ReadError> {
        let context = &self.context;
        let group = context.group;
        let started = Instant::now();
        loop {
            let no_quorum = ReadError::NoQuorum { group, waited: started.elapsed() };
            let now = Instant::now();
            for ask in asks.extract_if(.., |ask| ask.deadline <= now || ask.reply.is_closed()) {
                let _ = ask.reply.send(Err(no_quorum.clone()));
            }
            let Some(deadline) = asks.iter().map(|ask| ask.deadline).max() else { return Err(no_quorum) };
            if let Some(reason) = context.failure() {
                return Err(ReadError::Stopped { group, reason });
            }
            let leader = context.leader();
            if leader != Leader::Here {
                // The follower that asked looks for the leader itself.
                for ask in asks.extract_if(.., |ask| ask.forwarded) {
                    let _ = ask.reply.send(Err(no_quorum.clone()));
                }
            }
            let attempt = deadline.min(now + ATTEMPT_MAX);
            match leader {
                Leader::Here => {
                    if let Some(index) = self.as_leader(attempt).await {
                        return Ok(index);
                    }
                }
                Leader::At(node) if !asks.is_empty() => {
                    let call = CallV1::ReadIndex { within_millis: millis_left(attempt) };
                    if let Ok(AnswerV1::ReadIndex(index)) = context.call(node, call, attempt).boxed().await {
                        return Ok(index);
                    }
                }
                Leader::At(_) | Leader::Unknown => {}
            }
            context.leader_news(deadline).await;
        }
    }
}
