//! Commands that destroy a tenant: its row, and with it the only wrapped form of its key, goes; what stays is the
//! record of that.
//!
//! ```text
//! begin ─> destroy ─> every member confirms ─> finish
//! ```
//!
//! Repeated, each changes nothing: whoever leads goes on where the record says that things stand.

use std::collections::BTreeMap;

use holdfast_model::{GroupId, KeyId, NodeId, PartitionId, RootEpoch, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

/// Records that are kept, certificates included.
pub const SHREDS_MAX: usize = 4096;

/// Longest reason and longest certificate, in bytes.
pub const SHRED_TEXT_SIZE_MAX: usize = 256 * 1024;

/// A step of destroying a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShredCommand {
    /// Decides it, for good. Of a suspended tenant only; its access keys and identities go with this.
    Begin(ShredOrder),
    /// Removes the tenant and its wrapped key. Its partitions are gone from their groups by then.
    Destroy {
        /// Whose.
        tenant: TenantId,
        /// Entries of catalog groups up to which logs, journals and bases may hold its partitions.
        through: BTreeMap<GroupId, u64>,
        /// The proposer's clock.
        at: UnixMillis,
    },
    /// A node holds nothing of it any more.
    Confirm {
        /// Whose.
        tenant: TenantId,
        /// Which node.
        node: NodeId,
        /// Its clock.
        at: UnixMillis,
    },
    /// All is done; the certificate says so.
    Finish {
        /// Whose.
        tenant: TenantId,
        /// The certificate.
        certificate: String,
        /// The proposer's clock.
        at: UnixMillis,
    },
    /// As [`ShredCommand::Begin`], of a tenant whose key is sealed under a key of an external service. Needs
    /// [`crate::FEATURE_LEVEL_EXTERNAL_KEYS`].
    BeginExternal {
        /// The decision.
        order: ShredOrder,
        /// The service's key, for people.
        external: String,
    },
}

/// The decision to destroy a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShredOrder {
    /// Whose.
    pub tenant: TenantId,
    /// Its wrapped key, as it was when its versions were read.
    pub was: Vec<u8>,
    /// Public names of all versions of its key.
    pub keys: Vec<(u32, KeyId)>,
    /// Names of the cluster's secrets that are this tenant's.
    pub secrets: Vec<String>,
    /// The operator who asked.
    pub by: String,
    /// Why, when retentions or legal holds are passed over.
    pub overridden: Option<String>,
    /// The proposer's clock.
    pub at: UnixMillis,
}

/// A tenant that is being destroyed, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ShredRecord {
    pub name: String,
    pub keys: Vec<(u32, KeyId)>,
    pub by: String,
    pub overridden: Option<String>,
    /// The external service's key that sealed the tenant's, for people. Left out when there was none, so that the
    /// record is what it was before there could be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    pub begun: UnixMillis,
    pub partitions: Vec<(PartitionId, GroupId)>,
    pub destroyed: Option<Destroyed>,
    /// Nodes that hold nothing of it any more, and since when.
    pub confirmed: BTreeMap<NodeId, UnixMillis>,
    pub finished: Option<Finished>,
}

/// How a key was destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Destroyed {
    /// The last root that wrapped it: nothing opens it once this one is let go.
    pub epoch: RootEpoch,
    pub root: KeyId,
    pub at: UnixMillis,
    /// Entries of each group that may hold something of it; of the control group, wrapped forms of its key.
    pub through: BTreeMap<GroupId, u64>,
}

/// The end of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Finished {
    pub at: UnixMillis,
    pub certificate: String,
}
