//! Access keys that end and that may do less than whom they are of, and addresses of journals.

use holdfast_model::{TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

/// Largest policy of an access key in bytes, before it is sealed.
pub const KEY_POLICY_SIZE_MAX: usize = 2048;

/// Largest sealed policy of an access key in bytes.
pub const SEALED_POLICY_SIZE_MAX: usize = KEY_POLICY_SIZE_MAX + 256;

/// Characters of a journal address: 130 bits in the alphabet of base32.
pub const JOURNAL_ADDRESS_SIZE: usize = 26;

/// The alphabet of journal addresses: that of base32 (RFC 4648, section 6), in lower case since mail systems may
/// change the case of a local part.
pub const JOURNAL_ADDRESS_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What a key is bounded by, beside what whoever it is of may do. Nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyBounds {
    /// From then on it lets nobody in.
    pub expires: Option<UnixMillis>,
    /// A policy document, sealed: what it does not allow the key may not be used for. It allows nothing by itself.
    /// Whoever proposes it has read it; [`SEALED_POLICY_SIZE_MAX`] bytes at most.
    pub policy: Option<Vec<u8>>,
}

/// A change of access keys. Each needs [`crate::FEATURE_LEVEL_ACCESS_KEYS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessKeyCommand {
    /// Adds a key of the root user of a tenant's first account, bounded from the beginning.
    Create {
        /// Whose.
        tenant: TenantId,
        /// The key.
        access_key: String,
        /// Its secret, sealed.
        sealed_secret: Vec<u8>,
        /// Its bounds.
        bounds: KeyBounds,
        /// The proposer's clock.
        at: UnixMillis,
    },
    /// Replaces the bounds of a key of a tenant, whoever of the tenant it is of.
    SetBounds {
        /// Whose.
        tenant: TenantId,
        /// The key.
        access_key: String,
        /// All of them: those that are left out are lifted.
        bounds: KeyBounds,
    },
    /// Gives a tenant that has none an address for its journals.
    ReserveJournal {
        /// Whose.
        tenant: TenantId,
        /// [`JOURNAL_ADDRESS_SIZE`] characters of [`JOURNAL_ADDRESS_ALPHABET`], drawn by chance.
        address: String,
    },
}
