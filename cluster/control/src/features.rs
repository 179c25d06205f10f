//! Feature levels: what is new in a release is used only once every node can.
//!
//! Each node tells the control group the level of its program. When all nodes that are members have told a higher one
//! than is in force, the leader of the control group raises it; it never falls. What needs a level is refused below it.
//! A node whose program is below the level in force is not let in: its replicas could not apply what others decide.

use holdfast_model::NodeId;
use serde::{Deserialize, Serialize};

/// What every release can.
pub const FEATURE_LEVEL_BASE: u32 = 1;

/// Partitions of the catalog can be split: version 4 of its commands.
pub const FEATURE_LEVEL_SPLITS: u32 = 2;

/// Events of buckets are queued and told: version 5 of the catalog's commands; and secrets can be removed.
pub const FEATURE_LEVEL_EVENTS: u32 = 3;

/// A tenant's key can be sealed under a key of an external service, and the record of its destruction says so.
pub const FEATURE_LEVEL_EXTERNAL_KEYS: u32 = 4;

/// Access keys can end and be bounded by a policy, and tenants have addresses for their journals.
pub const FEATURE_LEVEL_ACCESS_KEYS: u32 = 5;

/// What this release can.
pub const FEATURE_LEVEL: u32 = FEATURE_LEVEL_ACCESS_KEYS;

/// A change of feature levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeatureCommand {
    /// What a node's program can. Refused below the level in force.
    Report {
        /// The node.
        node: NodeId,
        /// The level.
        level: u32,
    },
    /// Puts a level in force. Refused while a node is below it. Lower than what is in force: no change.
    Raise {
        /// The level.
        level: u32,
    },
}
