//! Commands about keys: splittings and epochs of the root, versions of tenants' keys.
//!
//! Every change names what it replaces, and is refused when that is not in force any more: two leaders that
//! change at once cannot undo each other, and nothing is left wrapped by a root that is gone.

use std::collections::BTreeMap;

use holdfast_model::{KeyId, NodeId, RootEpoch, SplitId, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

/// Holders of a splitting at most: a share's number is one byte and not zero.
pub const HOLDERS_MAX: usize = 255;

/// Recovery sets that are remembered.
pub const RECOVERY_SETS_MAX: usize = 16;

/// How a root is split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splitting {
    /// Which splitting.
    pub split: SplitId,
    /// How many shares give the root.
    pub threshold: u8,
    /// Who was dealt a share, and which.
    pub holders: BTreeMap<NodeId, u8>,
}

/// A change of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyCommand {
    /// The first root and the cluster key. Once: what is there already stays.
    Found {
        /// Version of the root.
        epoch: RootEpoch,
        /// Its public name.
        root: KeyId,
        /// How it is split.
        splitting: Splitting,
        /// Wrapped by it.
        cluster_key: Vec<u8>,
        /// The proposer's clock.
        at: UnixMillis,
    },
    /// The root is split anew, after every member that answers has its share.
    Split {
        /// Of which root: the current one.
        epoch: RootEpoch,
        /// What it replaces.
        replaces: SplitId,
        /// How it is split.
        splitting: Splitting,
    },
    /// How many shares are wanted; `None`: a majority of the members.
    SetThreshold(Option<u8>),
    /// Recovery shares were given out.
    NoteRecovery(RecoveryRecord),
    /// A new root takes the place of the current one: everything that it wrapped, wrapped anew.
    Roll {
        /// Version of the new root: one more than the current one.
        epoch: RootEpoch,
        /// Its public name.
        root: KeyId,
        /// How it is split.
        splitting: Splitting,
        /// The cluster key, wrapped by the new root.
        cluster_key: Vec<u8>,
        /// Every tenant's key as it was wrapped, and wrapped by the new root.
        tenants: BTreeMap<TenantId, Rewrapped>,
        /// The proposer's clock.
        at: UnixMillis,
    },
    /// The roots before `epoch` are needed no more.
    Retire {
        /// The current one.
        epoch: RootEpoch,
    },
    /// A tenant's key in another wrapping: with one more version, for example.
    SetTenantKey {
        /// Whose.
        tenant: TenantId,
        /// The wrapping.
        key: Rewrapped,
    },
}

/// A wrapped key and what it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrapped {
    /// As it was.
    pub was: Vec<u8>,
    /// As it is to be.
    pub now: Vec<u8>,
}

/// A root in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct RootRecord {
    pub epoch: RootEpoch,
    pub root: KeyId,
    pub splitting: Splitting,
    pub since: UnixMillis,
}

/// Recovery shares that were given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RecoveryRecord {
    pub at: UnixMillis,
    pub set: [u8; 4],
    pub epoch: RootEpoch,
    pub threshold: u8,
    pub count: u8,
}

/// The keys of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KeysView {
    /// Roots in force, the current one last. Empty until the cluster is founded.
    pub roots: Vec<RootRecord>,
    /// The cluster key, wrapped by a root.
    #[serde(skip)]
    pub cluster_key: Vec<u8>,
    /// How many shares are wanted; `None`: a majority.
    pub threshold: Option<u8>,
    /// Recovery shares given out, the newest last.
    pub recovery: Vec<RecoveryRecord>,
}

impl KeysView {
    /// The root that wraps.
    #[must_use]
    pub fn current(&self) -> Option<&RootRecord> {
        self.roots.last()
    }

    /// The splittings of all roots in force.
    #[must_use]
    pub fn splits(&self) -> Vec<SplitId> {
        self.roots.iter().map(|root| root.splitting.split).collect()
    }

    /// Shares that give the root of a cluster of `members`.
    #[must_use]
    pub fn threshold_for(&self, members: usize) -> u8 {
        let members = members.clamp(1, HOLDERS_MAX);
        let wanted = self.threshold.map_or(members / 2 + 1, usize::from);
        u8::try_from(wanted.clamp(1, members)).unwrap_or(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_unless_asked_otherwise_and_never_more_than_there_are() {
        let view = |threshold| KeysView { threshold, ..KeysView::default() };
        let majority: Vec<u8> = (1..=6).map(|members| view(None).threshold_for(members)).collect();
        assert_eq!(majority, [1, 2, 2, 3, 3, 4]);
        assert_eq!((view(Some(3)).threshold_for(5), view(Some(3)).threshold_for(2)), (3, 2));
        assert_eq!((view(Some(0)).threshold_for(5), view(None).threshold_for(0)), (1, 1));
    }
}
