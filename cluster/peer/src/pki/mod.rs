//! The cluster's certificates: who may speak to whom, and how a client of a node knows it.
//!
//! ```text
//! cluster CA (P-256, 10 years, path length 0)
//!   ├── peer certificate     client + server, `holdfast://CLUSTER/node/NUMBER`, 90 days
//!   └── service certificate  server only, DNS names and IP addresses, 30 days
//! ```
//!
//! Invariants:
//! - private keys are made where they are used; only requests (public keys) travel;
//! - a peer certificate names exactly one node of one cluster and nothing else, so that a service
//!   certificate never passes as a peer's, nor a peer's as a service's for a name;
//! - nothing a request asks for but its public key reaches a certificate: names come from the issuer.
//!
//! Certificates begin a day before they are issued: a node whose clock is behind can still use them.

mod ca;
mod key;
mod name;
mod service;
mod verify;

use std::{sync::Arc, time::Duration};

use rustls::crypto::CryptoProvider;

pub use ca::Ca;
pub(crate) use key::sha256;
pub use key::{Certificate, Fingerprint, NodeKey, PrivateKey};
pub use name::PeerName;
pub use service::{ServiceCertificate, service_server_config};
pub use verify::PeerIdentity;
pub(crate) use verify::{PinnedCa, dial_config, peer_name_of, serve_config, valid_for};

/// How long a cluster's CA is valid.
pub const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long a peer certificate is valid.
pub const PEER_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long a service certificate is valid.
pub const SERVICE_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far before its issue a certificate begins, for clocks that are behind.
pub const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// Names and addresses of one service certificate.
pub const SERVICE_NAMES_MAX: usize = 100;

/// Largest certificate or certificate request read from outside, in bytes of DER.
pub const DER_SIZE_MAX: usize = 16 * 1024;

/// Why a certificate could not be made, read or believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// The bytes are not what they should be.
    #[error("{what} does not parse: {cause}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What the parser said.
        cause: String,
    },
    /// A certificate and a private key do not belong together.
    #[error("the private key does not belong to the {0} certificate")]
    KeyMismatch(&'static str),
    /// Not a cluster's CA.
    #[error("not the CA certificate of a Holdfast cluster: {0}")]
    NotACa(&'static str),
    /// A certificate that names no node, or more than that.
    #[error("not a peer certificate: {0}")]
    NotAPeer(String),
    /// A certificate for a node of another cluster.
    #[error("the certificate is for {found}; expected cluster {expected}")]
    OtherCluster {
        /// Who the certificate is for.
        found: PeerName,
        /// The cluster it should be for.
        expected: holdfast_model::ClusterId,
    },
    /// Another node answers at this address.
    #[error("the certificate is for {found}; expected {expected}: check the address of that node")]
    OtherNode {
        /// Who the certificate is for.
        found: PeerName,
        /// Who was dialled.
        expected: PeerName,
    },
    /// The chain does not hold.
    #[error("the certificate is not trusted: {0}")]
    Untrusted(String),
    /// No certificate of the chain has the fingerprint of the join token.
    #[error("the node's cluster is not the one of the join token (CA {expected} not in its chain)")]
    OtherFingerprint {
        /// What the token says.
        expected: Fingerprint,
    },
    /// A name that cannot stand in a certificate.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    BadName(String),
    /// No names, or too many.
    #[error("a service certificate takes 1 to {SERVICE_NAMES_MAX} names, got {0}")]
    NameCount(usize),
    /// The library could not sign or make a key.
    #[error("{what} failed: {cause}")]
    Crypto {
        /// What was being done.
        what: &'static str,
        /// What the library said.
        cause: String,
    },
}

/// The one TLS provider of the program: chosen here by name, never by what happens to be linked.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
