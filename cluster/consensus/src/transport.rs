//! How Raft messages travel: given by the node's peer links, or by a test's in-process network.

use std::time::Duration;

use bytes::Bytes;
use holdfast_model::NodeId;

/// Why a message got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// There was no connection and none could be made: the peer has certainly not seen the message.
    #[error("node {0} cannot be reached, nothing was sent: {1}")]
    NotSent(NodeId, String),
    /// No connection, or it broke before the answer.
    #[error("node {0} cannot be reached: {1}")]
    Unreachable(NodeId, String),
    /// The peer did not answer in time.
    #[error("node {0} did not answer within {1:?}")]
    Timeout(NodeId, Duration),
    /// The peer answered with an error instead of processing the message.
    #[error("node {0} refused: {1}")]
    Refused(NodeId, String),
}

/// Sends one encoded consensus request to a peer and returns its encoded answer.
///
/// Messages are up to [`crate::MESSAGE_BYTES_MAX`] long. They may be lost, late and reordered. A transport does
/// not send one again by itself: it may carry commands, which would be applied twice. Raft's own are
/// harmless when doubled.
#[async_trait::async_trait]
pub trait Transport: Send + Sync + 'static {
    /// # Errors
    /// [`TransportError`], after at most `timeout`.
    async fn send(&self, to: NodeId, request: Bytes, timeout: Duration) -> Result<Bytes, TransportError>;
}
