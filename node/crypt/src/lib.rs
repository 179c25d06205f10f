//! Key hierarchy, AEAD envelopes and key wrapping. No other crate holds a cipher.
//!
//! ```text
//! root key of an epoch (random; split over the nodes)
//!   wraps  cluster key (random; seals the cluster's own secrets)
//!   wraps  tenant key (random, one a tenant, in versions)
//!            derives  metadata key  (HKDF, seals record manifests and commands of the catalog)
//!                       wraps  file key  (random, one a database file; seals its pages)
//!            wraps    body key      (random, one a body: an object's content or one part)
//!                       (inside: under an outer key, a customer's or a named one, where one was asked for)
//!                       seals  cells of that body, nonce = (stripe, cell) counted under a key used once
//! ```
//!
//! AES-256-GCM throughout (NIST SP 800-38D); HKDF-SHA-256 for derivation (RFC 5869). Bulk sealing runs on
//! `ring`; wrapping runs on `aes-gcm`, and each checks the other in tests (`docs/decisions/0001-crypto.md`).
//! Every label, layout and limit stands in one table in `docs/keys.md`; golden vectors and a second
//! implementation in Python hold them fast.

#![forbid(unsafe_code)]

mod body;
mod custody;
mod derive;
mod device;
mod envelope;
mod external;
mod labels;
mod metadata;
mod outer;
mod passphrase;
mod root;
mod secret;
mod shamir;
mod sign;
mod tenant;
mod tpm;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod wycheproof_tests;

pub use body::{BodyContext, BodyKey, BodySealer, CellAddress, SealedBodyKey, StripeSealer};
pub use custody::{BodyUse, CustodyError, TenantCustody};
pub use device::DeviceKey;
pub use envelope::{OVERHEAD as ENVELOPE_OVERHEAD, open, seal};
pub use external::{
    EXTERNAL_CIPHERTEXT_SIZE_MAX, EXTERNAL_DESCRIPTION_SIZE_MAX, ExternallySealed, WrappedTenant,
    external_context,
};
pub use metadata::{CommandCipher, FileKey, PAGE_RESERVE, PageAddress, PageSealer};
pub use outer::{KEY_CHECK_SIZE, KeyCheck, Outer, OuterKey};
pub use passphrase::PassphraseKey;
pub use root::{Root, epoch_of};
pub use secret::{ClusterKey, ExternalKek, MetadataKey, RootKey, random_array};
pub use shamir::{SECRET_SIZE, Share, combine, split};
pub use sign::{CertificateSigner, PUBLIC_KEY_SIZE, SIGNATURE_SIZE, verify_signature};
pub use tenant::{TENANT_KEY_VERSIONS_MAX, TenantKey, TenantMetadata};
pub use tpm::{TPM_FIELD_SIZE, TpmOffer, TpmSession, tpm_hash};

/// A refusal to open something. Says what was refused, never why in cryptographic detail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptError {
    /// Not made under this key and for this purpose, or changed since.
    #[error("{0} does not open: another key, another place, or changed bytes")]
    Refused(&'static str),
    /// Too short, or of a version this release does not know.
    #[error("{0} is not an envelope this release knows")]
    Malformed(&'static str),
    /// A counter under this key is used up, or a number is out of range.
    #[error("{0} is past its limit")]
    Limit(&'static str),
}
