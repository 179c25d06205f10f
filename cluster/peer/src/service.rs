//! What a node answers to its peers: the seam between a link and the rest of the node.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use holdfast_model::NodeId;
use holdfast_ring::Buffer;

use crate::Method;

/// The node at the other end, as its certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerNode {
    /// Its id.
    pub node: NodeId,
}

/// Answers requests. Called on many tasks at once.
///
/// The future is dropped when the request's deadline passes, when the asking side gives the call up, and
/// when the server shuts down: what must not be left half done runs on a task of its own.
#[async_trait::async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers one request, which `peer`'s role permits.
    ///
    /// # Errors
    /// A [`Refusal`], which the asking side gets as [`PeerError::Refused`](crate::PeerError::Refused).
    async fn call(
        &self,
        peer: PeerNode,
        method: Method,
        body: Bytes,
        payload: Option<Buffer>,
    ) -> Result<Reply, Refusal>;
}

/// A service's answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Encoded by the service.
    pub body: Bytes,
    /// Shard bytes.
    pub payload: Option<SharedPayload>,
}

impl Reply {
    /// Nothing but "done".
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body.
    #[must_use]
    pub fn with_body(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), payload: None }
    }

    /// A payload.
    #[must_use]
    pub fn with_payload(payload: impl Into<SharedPayload>) -> Self {
        Self { body: Bytes::new(), payload: Some(payload.into()) }
    }
}

/// A service's no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The service's own code, below [`Refusal::RESERVED_FROM`] and not 0.
    pub code: u16,
    /// For the asking side; cut at [`REFUSAL_SIZE_MAX`](crate::frame::REFUSAL_SIZE_MAX).
    pub message: String,
}

impl Refusal {
    /// Codes from here on belong to the link itself.
    pub const RESERVED_FROM: u16 = 0xff00;
    /// The role may not call the method.
    pub(crate) const NOT_PERMITTED: u16 = 0xff01;
    /// This program does not know the method.
    pub(crate) const UNKNOWN_METHOD: u16 = 0xff02;
    /// No buffer for the payload came free in time.
    pub(crate) const BUSY: u16 = 0xff03;
    /// The deadline passed while the service worked.
    pub(crate) const LATE: u16 = 0xff04;
    /// The service failed: a program error, logged there.
    pub(crate) const INTERNAL: u16 = 0xff05;

    /// A refusal with a code of the service's own.
    #[must_use]
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

/// Bytes on their way out: a pool buffer, a part of one, or any other bytes. Never copied before TLS.
#[derive(Clone)]
pub struct SharedPayload(Bytes);

impl SharedPayload {
    /// Part of this payload, sharing the memory.
    ///
    /// # Panics
    /// When `range` is not inside it.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        Self(self.0.slice(range))
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SharedPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedPayload({} bytes)", self.0.len())
    }
}

impl From<Buffer> for SharedPayload {
    fn from(buffer: Buffer) -> Self {
        Self(Bytes::from_owner(buffer))
    }
}

impl From<Arc<Buffer>> for SharedPayload {
    fn from(buffer: Arc<Buffer>) -> Self {
        struct Owner(Arc<Buffer>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        Self(Bytes::from_owner(Owner(buffer)))
    }
}

impl From<Bytes> for SharedPayload {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}
