//! What the service says of itself: no secret is in it.

use holdfast_model::{KeyId, RootEpoch, SplitId};
use serde::{Deserialize, Serialize};

use super::{Purpose, RootName};

/// What keeps shares closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Closed {
    /// A passphrase that has not been entered.
    Passphrase,
    /// A TPM that did not open them.
    Tpm {
        /// What it said.
        why: String,
        /// Whether it is another one than theirs.
        is_other: bool,
    },
}

/// What the service says of how it is shut in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Its process; 0 where it is none of its own.
    pub pid: u32,
    /// Why its memory is not locked; `None` when it is.
    pub memory_unlocked: Option<String>,
    /// Why it has no user of its own; `None` when it has.
    pub shares_user: Option<String>,
    /// Why it has no network namespace of its own; `None` when it has.
    pub shares_network: Option<String>,
}

/// What is known of the keys, no secret in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyState {
    /// Rises with each answer: of two, the one with the higher number is the newer.
    pub number: u64,
    /// Roots that are here, in rising order.
    pub roots: Vec<RootName>,
    /// The root that wraps.
    pub current: Option<RootName>,
    /// Public name of the cluster key, and the key that signs certificates.
    pub cluster_key: Option<(KeyId, Vec<u8>)>,
    /// Shares that are open: splitting and epoch of each.
    pub shares: Option<Vec<(SplitId, RootEpoch)>>,
    /// What protects them.
    pub protection: String,
    /// What keeps them closed.
    pub closed: Option<Closed>,
    /// Uses of tenants' keys since the service started, and how many of them were refused.
    pub uses: Vec<(Purpose, u64, u64)>,
    /// How it is shut in.
    pub confinement: Confinement,
}
