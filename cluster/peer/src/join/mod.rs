//! How a node without a certificate gets one.
//!
//! An operator makes a token on a member: a secret, and the fingerprint of the cluster's CA. The joiner
//! makes a key, dials members, believes only who shows a chain to that CA, and sends the secret, a
//! certificate request and its addresses. The authority (the control group's leader) checks the secret
//! (known, not used, not expired), gives the node an id, signs, and hands over what a member needs.
//!
//! The same token with the same certificate request is the same admission: when the answer was lost, the
//! joiner asks again, and the authority should answer as before instead of calling the token used.

mod client;
mod token;

use std::{fmt, net::SocketAddr, time::Duration};

use holdfast_model::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

pub use client::{Applicant, AttemptError, JoinError, join};
pub use token::{JoinToken, TokenError};

use crate::{
    Refusal,
    pki::{Certificate, sha256},
};

/// How long a member may take to decide on an admission.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_secs(30);

/// Codes a [`JoinAuthority`] refuses with.
pub mod code {
    /// The request makes no sense. Final.
    pub const BAD_REQUEST: u16 = 1;
    /// The token is unknown, used or expired. Final.
    pub const TOKEN: u16 = 2;
    /// Another node has this name or address. Final.
    pub const NAME_TAKEN: u16 = 3;
    /// No leader, or not yet started: asking again may help.
    pub const NOT_READY: u16 = 4;
}

/// What a joiner sends.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's secret.
    pub secret: [u8; 32],
    /// The node's name.
    pub name: String,
    /// Certificate request (RFC 2986, DER) for [`Ca::issue_peer`](crate::pki::Ca::issue_peer).
    pub certificate_request: Vec<u8>,
    /// Where peers reach the node.
    pub advertise_peer: SocketAddr,
    /// Where its services listen.
    pub services: ServiceAddresses,
}

impl JoinRequest {
    /// SHA-256 of the secret: compare this with what was stored, never the secret itself.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        sha256(&[&self.secret])
    }
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("name", &self.name)
            .field("advertise_peer", &self.advertise_peer)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

/// Where a node's services listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddresses {
    /// S3.
    pub s3: SocketAddr,
    /// Admin API and web console.
    pub admin: SocketAddr,
    /// Metrics.
    pub metrics: SocketAddr,
}

/// What a joiner gets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGrant {
    /// The cluster.
    pub cluster: ClusterId,
    /// The new node's id.
    pub node: NodeId,
    /// The cluster's CA.
    pub ca: Certificate,
    /// The new node's peer certificate.
    pub certificate: Certificate,
    /// All members and where to reach them.
    pub members: Vec<(NodeId, SocketAddr)>,
    /// What else the authority hands over (the root key among it). Secret: travels inside TLS only.
    pub extras: Vec<u8>,
}

impl fmt::Debug for JoinGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinGrant")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

/// Decides on admissions.
#[async_trait::async_trait]
pub trait JoinAuthority: Send + Sync + 'static {
    /// Admits a node, or says why not. Asked again with the same secret and certificate request, it
    /// answers as before. The future is dropped after [`ADMISSION_TIMEOUT`].
    ///
    /// # Errors
    /// A [`Refusal`] with a code of [`code`].
    async fn admit(&self, request: JoinRequest) -> Result<JoinGrant, Refusal>;
}
