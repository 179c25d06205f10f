//! Commands about identities: accounts of a tenant, and the users, groups, roles and policies in them.
//!
//! What an identity's body means is the gateway's business. A change names the version of every row it was
//! decided on; one of them written meanwhile refuses the whole change, and the gateway decides again.

use holdfast_model::{TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

/// Accounts of one tenant at most.
pub const ACCOUNTS_MAX: i64 = 1000;
/// Users, groups, roles and policies of one account at most (AWS: 5,000 users).
pub const IDENTITIES_MAX: i64 = 10_000;
/// Largest body of an identity in bytes: ten policies of 10,240 bytes, tags and keys fit.
pub const IDENTITY_SIZE_MAX: usize = 256 * 1024;
/// Rows and keys that one change touches at most.
pub const CHANGE_ROWS_MAX: usize = 64;
/// An account's number has twelve decimal digits.
pub const ACCOUNT_NUMBER_LIMIT: u64 = 1_000_000_000_000;

/// An account to be. With `access_key` its root user gets one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NewAccount {
    pub tenant: TenantId,
    pub account: u64,
    pub canonical: [u8; 32],
    pub name: String,
    pub email: String,
    /// The account that owns what the tenant has from before; there is one of these in a tenant.
    pub first: bool,
    /// The key and its sealed secret.
    pub access_key: Option<(String, Vec<u8>)>,
    pub at: UnixMillis,
}

/// A change of identities of one account: done whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityChange {
    /// Whose.
    pub tenant: TenantId,
    /// Its account.
    pub account: u64,
    /// Rows.
    pub rows: Vec<IdentityWrite>,
    /// Access keys.
    pub keys: Vec<KeyWrite>,
    /// The proposer's clock.
    pub at: UnixMillis,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityWrite {
    /// Kind of identity.
    pub kind: u8,
    /// Its name, as it is compared.
    pub name: String,
    /// The version it must have; `None`: it must not exist.
    pub expected: Option<u64>,
    /// What becomes of it.
    pub then: Then,
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Then {
    /// It stays: the change only relied on it.
    Keep,
    /// It is written, under a fresh random version.
    Put {
        /// The version.
        version: u64,
        /// The body.
        body: Vec<u8>,
    },
    /// It goes.
    Delete,
}

/// One access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyWrite {
    /// A new key.
    Create {
        /// The key.
        access_key: String,
        /// Name of its user as compared; `None`: the root user.
        user: Option<String>,
        /// Its secret, sealed.
        sealed_secret: Vec<u8>,
    },
    /// Switches it on or off.
    SetActive {
        /// The key.
        access_key: String,
        /// Whether it works.
        active: bool,
    },
    /// The key goes.
    Delete {
        /// The key.
        access_key: String,
    },
}
