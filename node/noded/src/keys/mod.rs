//! The root key on this node: unlocked from shares, split anew when members come and go.
//!
//! ```text
//! unlock   own share, peers' shares, an operator's word ─> keyring
//! shred    destroys tenants
//! steward  the leader of the control group deals shares when the members or the threshold change
//! front    what a locked node answers to clients and operators
//! ```
//!
//! A locked node takes part in what needs no key: the control group, and serving shards. What it needs to ask its peers (who they are, where) is in its replica of the control state, which is readable
//! without keys.

#[cfg(test)]
mod crash_tests;
mod front;
mod holder;
mod roll;
mod shred;
mod steward;
mod unlock;

use std::{collections::BTreeMap, sync::Arc};

use holdfast_model::{NodeId, RootEpoch, SplitId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use front::Front;
pub use holder::Holder;
pub use roll::{Retirement, RollError, roll_root, rotate_tenant};
pub use shred::{Shredder, waits_for};
pub use steward::KeySteward;
pub use unlock::{Unlocker, passphrase_of};

/// What a node says of its shares, as it travels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyWord {
    /// Whether it waits for shares or for its passphrase.
    pub locked: bool,
    /// What protects its shares on disk.
    pub protection: String,
    /// Splittings it holds a share of; `None` while its shares are sealed.
    pub splits: Option<Vec<SplitId>>,
    /// Roots it has in memory.
    pub epochs: Vec<RootEpoch>,
}

/// The latest word of every node.
#[derive(Debug, Clone, Default)]
pub struct KeyWatch(Arc<Mutex<BTreeMap<NodeId, KeyWord>>>);

impl KeyWatch {
    /// A node has spoken.
    pub fn heard(&self, node: NodeId, word: KeyWord) {
        self.0.lock().insert(node, word);
    }

    /// A node left.
    pub fn forget(&self, node: NodeId) {
        self.0.lock().remove(&node);
    }

    /// What a node said last.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Option<KeyWord> {
        self.0.lock().get(&node).cloned()
    }
}
