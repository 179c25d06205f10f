//! Key services of tenants' own: what such a service has to do ([`ExternalKeyService`]), and one adapter, for what speaks
//! the transit protocol of HashiCorp Vault ([`VaultTransit`]).
//!
//! ```text
//! wrap     a fresh key ─> the service encrypts it ─> ciphertext, which the cluster keeps
//! unwrap   ciphertext ─> the service decrypts it, or refuses ─> the key, kept in memory as long as it is allowed
//! ```
//!
//! The service never sees anything of a tenant but this one random key. Whether it *refuses* or merely *does not answer*
//! is the distinction that callers live by: the first is the tenant's word and is obeyed at once, the second is
//! waited out for a while.
//!
//! Left out on purpose: what becomes of keys, when services are asked, and how long one may be silent is the node's.

#![forbid(unsafe_code)]

mod http_client;
mod settings;
mod vault;

use async_trait::async_trait;
use holdfast_crypt::ExternalKek;

pub use http_client::{ANSWER_SIZE_MAX, REQUEST_TIMEOUT};
pub use settings::{SettingsError, VaultAuth, VaultSettings};
pub use vault::{ATTEMPTS_MAX, VaultTransit};

/// Why a key service did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// It answered that it will not: the key is gone or disabled, the credentials are not good (any more).
    #[error("the external key service refuses: {0}")]
    Refused(String),
    /// It did not answer, or answered that it cannot now: no connection, no time, sealed, too many requests.
    #[error("the external key service does not answer: {0}")]
    Unreachable(String),
    /// It answered something that its protocol does not know.
    #[error("the external key service answers something else than the protocol says: {0}")]
    Protocol(String),
}

impl ServiceError {
    /// Whether the service itself said no.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// A key service of a tenant's own.
///
/// A key that was wrapped is given back by `unwrap` with the same context and the same ciphertext for as long as whoever
/// owns the service allows it, on every node alike. `context` is 32 bytes, not secret, and authenticated: what was
/// wrapped under one context is refused under another.
///
/// Implementations end in bounded time, keep no key, never log credentials, keys or answers, and tell a refusal
/// ([`ServiceError::Refused`]) from everything else: when in doubt, it is not a refusal, for that would take a
/// tenant's data away from it.
#[async_trait]
pub trait ExternalKeyService: Send + Sync + std::fmt::Debug + 'static {
    /// Which key of which service it is, for people and for certificates. Names no secret.
    fn describe(&self) -> String;

    /// Has the service encrypt a key; the answer is text of at most
    /// [`EXTERNAL_CIPHERTEXT_SIZE_MAX`](holdfast_crypt::EXTERNAL_CIPHERTEXT_SIZE_MAX) bytes.
    ///
    /// # Errors
    /// See [`ServiceError`].
    async fn wrap(&self, kek: &ExternalKek, context: &[u8; 32]) -> Result<String, ServiceError>;

    /// Has the service decrypt a key.
    ///
    /// # Errors
    /// See [`ServiceError`].
    async fn unwrap(&self, ciphertext: &str, context: &[u8; 32]) -> Result<ExternalKek, ServiceError>;

    /// Whether the service answers and is able to serve. Proves nothing about the key or the credentials.
    ///
    /// # Errors
    /// See [`ServiceError`].
    async fn health(&self) -> Result<(), ServiceError>;
}
