//! What is answered.

use holdfast_keyring::{ExternalSealing, HeldShare};
use holdfast_model::{KeyId, TenantId};
use serde::{Deserialize, Serialize};

use super::{Hidden, KeyState, RootName};

/// Keys that a tenant's key gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derived {
    /// Public names of all versions.
    pub names: Vec<(u32, KeyId)>,
    /// Metadata keys of all versions, as [`holdfast_crypt::TenantMetadata`] is stored; `None` where only names were
    /// asked for.
    pub metadata: Option<Hidden>,
    /// How it is sealed, when not the root alone opens it.
    pub sealing: Option<ExternalSealing>,
}

/// What a new root wraps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rolled {
    /// Its public name.
    pub root: KeyId,
    /// The cluster key.
    pub cluster_key: Vec<u8>,
    /// Tenants' keys.
    pub tenants: Vec<(TenantId, Vec<u8>)>,
}

/// Operators' shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Of which root.
    pub root: RootName,
    /// Tag of the set.
    pub set: [u8; 4],
    /// The shares as text.
    pub shares: Vec<Hidden>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// How things stand now: to what changes them.
    State(Box<KeyState>),
    /// Shares that are here of the splitting nearest to its end and those needed, and how things stand now.
    Gathered {
        /// Shares that are there, and how many are needed.
        progress: Option<(u8, u8)>,
        /// How things stand.
        state: Box<KeyState>,
    },
    /// A set of shares was begun, and how things stand now.
    Anew(bool, Box<KeyState>),
    /// Shares for members.
    Shares(Vec<HeldShare>),
    /// A root was rolled, and how things stand now.
    Rolled(Rolled, Box<KeyState>),
    /// Wrapped or sealed.
    Sealed(Vec<u8>),
    /// The root that wrapped, and what it wrapped.
    SealedBy(RootName, Vec<u8>),
    /// A tenant's key with one more version.
    Rotated {
        /// Wrapped.
        wrapped: Vec<u8>,
        /// The version.
        version: u32,
    },
    /// What a tenant's key gives.
    Derived(Derived),
    /// Opened.
    Opened(Hidden),
    /// Secrets in the order asked, those that open.
    Secrets(Vec<Option<Hidden>>),
    /// Yes or no.
    Is(bool),
    /// A certificate.
    Certificate(String),
    /// Operators' shares.
    Issued(Issued),
}
