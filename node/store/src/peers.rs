//! How other nodes are asked: over links, or in a simulation over a network that the seed decides.

use std::{fmt, time::Duration};

use bytes::Bytes;
use holdfast_model::NodeId;
use holdfast_peer::{Answer, Method, PeerClient, PeerError, SharedPayload};

/// Asks other nodes.
#[async_trait::async_trait]
pub trait Peers: fmt::Debug + Send + Sync + 'static {
    /// Asks `node` and waits for its answer, at most `timeout`. Dropping the future gives the call up.
    ///
    /// # Errors
    /// [`PeerError`].
    async fn call(
        &self,
        node: NodeId,
        method: Method,
        body: Bytes,
        payload: Option<SharedPayload>,
        timeout: Duration,
    ) -> Result<Answer, PeerError>;
}

#[async_trait::async_trait]
impl Peers for PeerClient {
    async fn call(
        &self,
        node: NodeId,
        method: Method,
        body: Bytes,
        payload: Option<SharedPayload>,
        timeout: Duration,
    ) -> Result<Answer, PeerError> {
        PeerClient::call(self, node, method, body, payload, timeout).await
    }
}
