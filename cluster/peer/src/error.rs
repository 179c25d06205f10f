//! Why a call to a peer, or a connection to it, failed.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use holdfast_model::NodeId;
use rustls::{CertificateError, Error as TlsError};

use crate::{Method, pki::PkiError, stream::LinkError};

/// Why a call got no answer, or a no.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// The client was never told where the node is, or was told to forget it.
    #[error("no address is known for {0}")]
    UnknownNode(NodeId),
    /// There is no connection; the client keeps trying in the background. Nothing was sent.
    #[error("{node} cannot be reached: {source}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What the last attempt met.
        source: ConnectError,
    },
    /// The connection broke before the answer: the peer may or may not have carried the request out.
    #[error("the connection to {node} broke before the answer: {reason}")]
    Broken {
        /// The node.
        node: NodeId,
        /// What ended it.
        reason: Arc<str>,
    },
    /// No answer in time: the peer may or may not have carried the request out. The link stays.
    #[error("{node} did not answer {method:?} within {timeout:?}")]
    Timeout {
        /// The node.
        node: NodeId,
        /// What was asked.
        method: Method,
        /// How long was waited.
        timeout: Duration,
    },
    /// The peer's service said no.
    #[error("{node} refused {method:?} with code {code}: {message}")]
    Refused {
        /// The node.
        node: NodeId,
        /// What was asked.
        method: Method,
        /// The service's code.
        code: u16,
        /// The service's text.
        message: String,
    },
    /// The peer has no memory for the payload, or this node none for the answer's. Try again later.
    #[error("{node} or this node has no buffer free for {method:?}")]
    Busy {
        /// The node.
        node: NodeId,
        /// What was asked.
        method: Method,
    },
    /// The peer knows no such method, or this node may not call it.
    #[error("{node} does not permit {method:?}: {message}")]
    NotPermitted {
        /// The node.
        node: NodeId,
        /// What was asked.
        method: Method,
        /// The peer's text.
        message: String,
    },
    /// The peer's service failed; the cause is in its log.
    #[error("{node} failed at {method:?}: {message}")]
    Failed {
        /// The node.
        node: NodeId,
        /// What was asked.
        method: Method,
        /// The peer's text.
        message: String,
    },
    /// The caller's own body or payload is above the limit. Nothing was sent.
    #[error(transparent)]
    TooLarge(crate::frame::FrameError),
}

/// Why a connection could not be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The network says no.
    #[error("{address}: {source}")]
    Network {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Who answers is not who should.
    #[error("{address}: {source}")]
    Identity {
        /// Where.
        address: SocketAddr,
        /// What is wrong with its certificate.
        source: PkiError,
    },
    /// The other side does not accept this node (its certificate, or none).
    #[error("{address} did not accept this node's certificate: {reason}")]
    Rejected {
        /// Where.
        address: SocketAddr,
        /// The TLS alert, or how it closed.
        reason: String,
    },
    /// The last connection ended as soon as it was made.
    #[error("{address}: the connection ended soon after it began: {reason}")]
    ShortLived {
        /// Where.
        address: SocketAddr,
        /// What ended it.
        reason: String,
    },
    /// Not a peer's listener, or another version of one.
    #[error("{address} does not speak this protocol: {reason}")]
    Protocol {
        /// Where.
        address: SocketAddr,
        /// What was met.
        reason: String,
    },
    /// No connection in time.
    #[error("{address} did not answer within {after:?}")]
    TimedOut {
        /// Where.
        address: SocketAddr,
        /// How long was waited.
        after: Duration,
    },
    /// The node was forgotten or the client closed.
    #[error("the link was closed on this side")]
    Closed,
}

impl ConnectError {
    /// Sorts what a TLS stream returned.
    pub(crate) fn from_io(address: SocketAddr, error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
        match tls {
            Some(TlsError::InvalidCertificate(CertificateError::Other(other))) => {
                let source = match other.0.downcast_ref::<PkiError>() {
                    Some(pki) => pki.clone(),
                    None => PkiError::Untrusted(other.to_string()),
                };
                Self::Identity { address, source }
            }
            Some(TlsError::InvalidCertificate(certificate)) => {
                Self::Identity { address, source: PkiError::Untrusted(explain(certificate)) }
            }
            Some(TlsError::AlertReceived(alert)) => {
                Self::Rejected { address, reason: format!("TLS alert {alert:?}") }
            }
            Some(other) => Self::Protocol { address, reason: other.to_string() },
            None => Self::Network { address, source: Arc::new(error) },
        }
    }

    /// Sorts what came instead of the first frame. TLS 1.3 tells a client that its certificate is not
    /// accepted only after the handshake.
    pub(crate) fn from_link(address: SocketAddr, error: LinkError) -> Self {
        match error {
            LinkError::Io(error) => Self::from_io(address, error),
            LinkError::Closed | LinkError::Cut => {
                Self::Rejected { address, reason: "it closed the connection".to_owned() }
            }
            LinkError::Silent(after) => Self::TimedOut { address, after },
            other => Self::Protocol { address, reason: other.to_string() },
        }
    }
}

fn explain(error: &CertificateError) -> String {
    match error {
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("{error}; is this node's clock behind?")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("{error}; it was not renewed, or this node's clock is ahead")
        }
        other => other.to_string(),
    }
}
