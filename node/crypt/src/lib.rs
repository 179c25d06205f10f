//! Key hierarchy, AEAD envelopes and key wrapping. No other crate holds a cipher.
//!
//! ```text
//! cluster root key (random)
//!   wraps  tenant key (random, one a tenant)
//!            derives  metadata key  (HKDF, seals record manifests and commands of the catalog)
//!                       wraps  file key  (random, one a database file; seals its pages)
//!            wraps    object key    (random, one a body: an object's content or one part)
//!                       (inside: under an outer key, a customer's or a named one, where one was asked for)
//!                       seals  cells of that body, nonce = (stripe, cell) counted under a key used once
//! ```
//!
//! AES-256-GCM throughout (NIST SP 800-38D); HKDF-SHA-256 for derivation (RFC 5869). Bulk sealing runs on
//! `ring`; wrapping runs on `aes-gcm`, and each checks the other in tests (`docs/decisions/0001-crypto.md`).

#![forbid(unsafe_code)]

mod body;
mod derive;
mod envelope;
mod metadata;
mod outer;
mod secret;

pub use body::{BodyContext, BodyKey, CellAddress, SealedBodyKey};
pub use envelope::{OVERHEAD as ENVELOPE_OVERHEAD, open, seal};
pub use metadata::{CommandCipher, FileKey, PAGE_RESERVE, PageAddress, PageSealer};
pub use outer::{KEY_CHECK_SIZE, KeyCheck, Outer, OuterKey};
pub use secret::{MetadataKey, RootKey, TenantKey, random_array};

/// A refusal to open something. Says what was refused, never why in cryptographic detail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptError {
    /// Not made under this key and for this purpose, or changed since.
    #[error("{0} does not open: another key, another place, or changed bytes")]
    Refused(&'static str),
    /// Too short, or of a version this release does not know.
    #[error("{0} is not an envelope this release knows")]
    Malformed(&'static str),
    /// A counter under this key is used up.
    #[error("{0} is past its limit under one key")]
    Limit(&'static str),
}
