//! The state as typed values, read whole: it is small, and a reader wants one moment of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
};

use holdfast_model::{
    ByteCount, ClusterId, DatabaseId, DriveId, Epoch, GroupId, Level, NodeId, PartitionId, TenantId,
    TenantLimits, UnixMillis,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{access_keys::KeyBounds, keys::KeysView, shred::ShredRecord};

/// Everything at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ControlView {
    /// Log entries below this index are applied.
    pub next_index: u64,
    /// `None` until the cluster is founded.
    pub cluster: Option<ClusterRecord>,
    /// All nodes that ever joined.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Voters each group should have.
    pub groups: BTreeMap<GroupId, BTreeSet<NodeId>>,
    /// All drives that ever were registered.
    pub drives: BTreeMap<DriveId, DriveRecord>,
    /// All tenants.
    pub tenants: BTreeMap<TenantId, TenantRecord>,
    /// Accounts of tenants, by number.
    pub accounts: BTreeMap<u64, AccountRecord>,
    /// Users, groups, roles and policies: by account, kind and name.
    #[serde(skip)]
    pub identities: BTreeMap<(u64, u8, String), IdentityRecord>,
    /// Access keys of tenants.
    pub access_keys: BTreeMap<String, AccessKeyRecord>,
    /// Operators by name.
    pub operators: BTreeMap<String, OperatorRecord>,
    /// Join tokens, used and expired ones among them, in the order in which they expire.
    #[serde(skip)]
    pub join_tokens: Vec<JoinTokenRecord>,
    /// Secrets of the cluster by name, sealed.
    #[serde(skip)]
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Roots and their splittings.
    pub keys: KeysView,
    /// Tenants that are being destroyed or were.
    pub shreds: BTreeMap<TenantId, ShredRecord>,
}

impl ControlView {
    /// Whether a tenant's key is destroyed.
    #[must_use]
    pub fn is_destroyed(&self, tenant: TenantId) -> bool {
        self.shreds.get(&tenant).is_some_and(|record| record.destroyed.is_some())
    }
}

/// The cluster itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct ClusterRecord {
    pub id: ClusterId,
    pub name: String,
    pub region: String,
    /// Level of tenants that name none.
    pub level: Level,
    pub catalog_groups: u32,
    pub epoch: Epoch,
    pub founded: UnixMillis,
    /// What every node can: see [`crate::FEATURE_LEVEL`].
    pub feature_level: u32,
}

/// Where a node's services listen, as others reach them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ServiceAddresses {
    pub s3: String,
    pub admin: String,
    pub metrics: String,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct NodeRecord {
    pub node: NodeId,
    pub name: String,
    pub peer: SocketAddr,
    pub services: ServiceAddresses,
    pub state: NodeState,
    pub joined: UnixMillis,
    /// What its program can.
    pub feature_level: u32,
}

/// A node's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Admitted; not yet a voter everywhere it should be.
    Joining,
    /// A full member.
    Active,
    /// To be removed once no group needs it; takes no new shards.
    Leaving,
    /// Left for good; its id is never used again.
    Removed,
}

/// A drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct DriveRecord {
    pub drive: DriveId,
    pub node: NodeId,
    pub path: String,
    pub capacity: ByteCount,
    pub state: DriveState,
    pub registered: UnixMillis,
    /// How far its label is known to have come: one that is behind is an old image of the drive. 0 when nobody
    /// said yet.
    pub label_counter: u64,
}

/// A drive's standing in the cluster; how it does is its node's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriveState {
    /// Takes shards.
    Active,
    /// Being emptied.
    Draining,
    /// Left for good.
    Removed,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct TenantRecord {
    pub tenant: TenantId,
    pub name: String,
    pub database_id: DatabaseId,
    #[serde(skip)]
    pub wrapped_key: Vec<u8>,
    /// `None`: the cluster's.
    pub level: Option<Level>,
    pub state: TenantState,
    pub created: UnixMillis,
    pub partitions: Vec<(PartitionId, GroupId)>,
    /// Partitions that were, or are to be, split off, each with the one it comes from.
    pub split_from: BTreeMap<PartitionId, PartitionId>,
    /// Over the whole cluster.
    pub limits: TenantLimits,
    /// The local part of where its journals are to be sent; `None` until it has got one.
    pub journal_address: Option<String>,
}

impl TenantRecord {
    /// Which database a partition of the tenant is: that of the first was drawn with the tenant, those of others
    /// follow from it and their numbers, which are never used again.
    #[must_use]
    pub fn database_of(&self, partition: PartitionId) -> DatabaseId {
        database_of(self.database_id, self.split_from.contains_key(&partition).then_some(partition))
    }
}

fn database_of(first: DatabaseId, split_off: Option<PartitionId>) -> DatabaseId {
    let Some(partition) = split_off else { return first };
    let mut hash = Sha256::new();
    hash.update(first.as_bytes());
    hash.update(partition.get().to_be_bytes());
    let mut id = [0; DatabaseId::SIZE];
    id.copy_from_slice(&hash.finalize()[..DatabaseId::SIZE]);
    DatabaseId::from_bytes(id)
}

/// A tenant's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// Served.
    Active,
    /// Kept, not served.
    Suspended,
    /// Being destroyed, for good.
    Shredding,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct AccountRecord {
    pub tenant: TenantId,
    pub canonical: [u8; 32],
    pub name: String,
    pub email: String,
    /// Owns what the tenant had before accounts were.
    pub first: bool,
    pub created: UnixMillis,
}

/// A user, group, role or policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct IdentityRecord {
    pub version: u64,
    pub body: Vec<u8>,
}

/// An access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct AccessKeyRecord {
    pub tenant: TenantId,
    #[serde(skip)]
    pub sealed_secret: Vec<u8>,
    pub created: UnixMillis,
    /// `None`: the tenant's first.
    pub account: Option<u64>,
    /// `None`: the account's root user.
    pub user: Option<String>,
    pub active: bool,
    pub bounds: KeyBounds,
}

/// An operator's account.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct OperatorRecord {
    pub name: String,
    #[serde(skip)]
    pub password_hash: String,
    pub role: String,
}

impl fmt::Debug for OperatorRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorRecord")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// A join token: never the token itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct JoinTokenRecord {
    pub hash: [u8; 32],
    pub expires: UnixMillis,
    pub used_by: Option<NodeId>,
    /// The node whose place the joiner takes.
    pub replaces: Option<NodeId>,
}
