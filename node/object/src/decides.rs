//! The log that decides, as objects see it: consensus, or in a simulation a log that the seed is in charge of.

use std::fmt;

use bytes::Bytes;
use holdfast_consensus::{Consensus, ProposeError, ReadError, Role};
use holdfast_model::{GroupId, NodeId};

/// Decides commands of groups.
#[async_trait::async_trait]
pub trait Decides: fmt::Debug + Send + Sync + 'static {
    /// Has a command decided, and applied on this node's replica; returns the machine's answer.
    ///
    /// # Errors
    /// [`ProposeError`].
    async fn propose(&self, group: GroupId, command: Bytes) -> Result<Bytes, ProposeError>;

    /// Waits until this node's replica has applied all that was decided before now.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn read_barrier(&self, group: GroupId) -> Result<(), ReadError>;

    /// The group's leader, if one was heard of lately.
    fn leader(&self, group: GroupId) -> Option<NodeId>;

    /// Whether that is this node.
    fn leads(&self, group: GroupId) -> bool;
}

#[async_trait::async_trait]
impl Decides for Consensus {
    async fn propose(&self, group: GroupId, command: Bytes) -> Result<Bytes, ProposeError> {
        Consensus::propose(self, group, command).await
    }

    async fn read_barrier(&self, group: GroupId) -> Result<(), ReadError> {
        Consensus::read_barrier(self, group).await
    }

    fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.status(group)?.leader
    }

    fn leads(&self, group: GroupId) -> bool {
        self.status(group).is_some_and(|status| status.role == Role::Leader)
    }
}
