//! The seam to the node program: what the admin API asks, and the typed answers it shows.
//!
//! The answers are also the JSON of the API: a field added here appears in `openapi.json` and in the console's
//! types. Quantities carry their unit in the field's name.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use holdfast_model::{ByteCount, ClusterId, DriveId, Epoch, GroupId, Level, NodeId, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AccessKeyBackend, AdminError, DeviceStatus, DriveBackend, EventBackend, ExternalKeyBackend, KeyAdmin,
    PartitionBackend, ProtectionBackend, TenancyBackend, WorkStatus,
};

/// What the admin API needs of a node. Every method may be called at any time and by many requests at once.
#[async_trait]
pub trait AdminBackend:
    DriveBackend
    + ProtectionBackend
    + TenancyBackend
    + PartitionBackend
    + EventBackend
    + ExternalKeyBackend
    + AccessKeyBackend
    + Send
    + Sync
    + 'static
{
    /// The cluster as this node knows it. Answers without a quorum: it is asked most when there is none.
    async fn cluster(&self) -> Result<ClusterStatus, AdminError>;

    /// The record of an operator, or `None` when there is no such user.
    ///
    /// Asked for every authenticated request: answered from the local replica of the control group, so that
    /// operators can look at a cluster that has lost its quorum.
    async fn operator(&self, user: &str) -> Result<Option<OperatorRecord>, AdminError>;

    /// A fresh single-use token with which one node may join.
    async fn create_join_token(&self, valid_for: Duration) -> Result<JoinTokenInfo, AdminError>;

    /// Has a node leave the cluster. Answers once that is decided; the cluster's status shows it `leaving`
    /// until no group needs it. Refused while its drives hold shards, unless `force`.
    async fn remove_node(&self, name: &str, force: bool) -> Result<(), AdminError>;

    /// All tenants, by name.
    async fn tenants(&self) -> Result<Vec<TenantStatus>, AdminError>;

    /// A new tenant with its first access key. `level` of `None` is the cluster's default.
    async fn create_tenant(&self, name: &str, level: Option<Level>) -> Result<CreatedTenant, AdminError>;

    /// A named key for a tenant's encryption; done already when it has one of that name.
    async fn create_encryption_key(&self, tenant: &str, id: &str) -> Result<(), AdminError>;

    /// Accounts of a tenant: the first one first, then by name.
    async fn accounts(&self, tenant: &str) -> Result<Vec<AccountStatus>, AdminError>;

    /// A new account in a tenant, with an access key of its root user.
    async fn create_account(
        &self,
        tenant: &str,
        name: &str,
        email: &str,
    ) -> Result<CreatedAccount, AdminError>;

    /// Debt and background work of the whole cluster.
    async fn work(&self) -> Result<WorkStatus, AdminError>;

    /// Has this node's drives scrubbed now.
    async fn scrub_now(&self) -> Result<(), AdminError>;

    /// Has a drive emptied, after which it leaves for good; or, with `draining` false, keeps it after all.
    async fn drain_drive(&self, drive: DriveId, draining: bool) -> Result<(), AdminError>;

    /// Keys of the cluster.
    fn keys(&self) -> &dyn KeyAdmin;

    /// The key that signs sessions: the same on every node of the cluster, and nowhere else.
    fn session_key(&self) -> [u8; 32];

    /// The cluster's CA certificate as PEM.
    fn ca_pem(&self) -> String;

    /// This node's name.
    fn node_name(&self) -> String;

    /// Whether this node serves.
    async fn ready(&self) -> Readiness;
}

/// Whether a load balancer should send clients here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Drives are mounted, the catalog answers, peers are linked.
    Ready,
    /// Starting, stopping or cut off.
    NotReady,
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks, changes nothing.
    Viewer,
    /// Runs the cluster: nodes, tenants, keys. Never reads content.
    Operator,
}

/// An operator's account.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorRecord {
    /// Login name.
    pub user: String,
    /// PHC string, argon2id.
    pub password_hash: String,
    /// What the account may do.
    pub role: Role,
}

impl fmt::Debug for OperatorRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorRecord")
            .field("user", &self.user)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Text that is shown once and never printed: keys and tokens.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The cluster at one moment, as one node knows it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ClusterStatus {
    /// Chosen at bootstrap, 32 hex digits.
    #[schema(value_type = String)]
    pub id: ClusterId,
    /// Name given at bootstrap.
    pub name: String,
    /// Version of the membership.
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// Protection of new data.
    pub level: LevelStatus,
    /// All drives of all nodes together.
    pub capacity: Capacity,
    /// Every member, by number.
    pub nodes: Vec<NodeStatus>,
    /// Every Raft group, by number; group 0 is the control group.
    pub groups: Vec<GroupStatus>,
    /// Tenants.
    pub tenants: u64,
}

/// Requested, actual and suggested protection, side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct LevelStatus {
    /// What was asked for.
    #[schema(value_type = String, example = "+2d:1n")]
    pub requested: Level,
    /// What new stripes get on the nodes that are up; null when the promise cannot be kept and writes are
    /// refused.
    #[schema(value_type = Option<String>, example = "+2d:1n", required = true)]
    pub actual: Option<Level>,
    /// What suits a cluster of this size.
    #[schema(value_type = String, example = "+2d:1n")]
    pub suggested: Level,
    /// How new stripes are cut; null when none can be written.
    #[schema(required = true)]
    pub stripe: Option<StripeShape>,
}

/// Shards of one stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct StripeShape {
    /// Shards that hold content.
    pub data: u8,
    /// Shards that may be lost.
    pub parity: u8,
}

/// Bytes on drives, before protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Capacity {
    /// All drives that are members.
    #[schema(value_type = u64)]
    pub raw_bytes: ByteCount,
    /// Taken by records.
    #[schema(value_type = u64)]
    pub used_bytes: ByteCount,
    /// Free for new records.
    #[schema(value_type = u64)]
    pub free_bytes: ByteCount,
    /// Set aside for rebuilding: clients' writes are refused before less is free.
    #[schema(value_type = u64)]
    pub reserved_bytes: ByteCount,
    /// Drives whose space that is.
    pub spare_drives: u8,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct NodeStatus {
    /// Its number.
    #[schema(value_type = u64)]
    pub id: NodeId,
    /// Its name: `n1`.
    pub name: String,
    /// Whether it takes part.
    pub state: NodeState,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Where clients and operators reach it, as far as it told.
    #[schema(required = true)]
    pub services: Option<ServiceUrls>,
    /// Release it runs; null when it does not answer.
    #[schema(required = true)]
    pub version: Option<String>,
    /// Time since its program started; null when it does not answer.
    #[schema(required = true)]
    pub uptime_seconds: Option<u64>,
    /// By how many milliseconds its clock is ahead of what most nodes' clocks show, negative when it is behind; null
    /// when that is no more than ten seconds, or it does not answer. Such a clock is not gone by.
    #[schema(required = true)]
    pub clock_ahead_ms: Option<i64>,
    /// Its drives.
    pub drives: Vec<DriveStatus>,
    /// Devices in it that are no drives of the cluster, or not yet.
    pub devices: Vec<DeviceStatus>,
}

/// Whether a node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum NodeState {
    /// Answers its peers.
    Up,
    /// A member that does not answer.
    Down {
        /// When it was last heard, if this node ever heard it.
        #[schema(value_type = Option<u64>, required = true)]
        last_heard_unix_ms: Option<UnixMillis>,
    },
    /// Admitted, and not yet a member of its groups.
    Joining,
    /// To be removed as soon as no group needs it.
    Leaving,
}

/// Base URLs of one node's services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ServiceUrls {
    /// S3 gateway.
    pub s3: String,
    /// This API and the console.
    pub admin: String,
    /// Prometheus exposition.
    pub metrics: String,
}

/// One drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DriveStatus {
    /// Chosen when the drive was formatted, 32 hex digits.
    #[schema(value_type = String)]
    pub id: DriveId,
    /// Printed on the device; empty when it tells none.
    pub serial: String,
    /// Where its node finds it.
    pub path: String,
    /// What it is good for.
    pub state: DriveState,
    /// Bytes it offers.
    #[schema(value_type = u64)]
    pub capacity_bytes: ByteCount,
    /// What is on it; null when its node does not answer.
    #[schema(required = true)]
    pub usage: Option<DriveUsage>,
    /// Why it is not healthy; null when it is.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// Its light blinks until then; null when it does not.
    #[schema(value_type = Option<u64>, required = true)]
    pub locate_until_unix_ms: Option<UnixMillis>,
}

/// What is on a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct DriveUsage {
    /// Taken by records.
    #[schema(value_type = u64)]
    pub used_bytes: ByteCount,
    /// In live records: what is left once dead ones are reclaimed.
    #[schema(value_type = u64)]
    pub live_bytes: ByteCount,
    /// Free for new records.
    #[schema(value_type = u64)]
    pub free_bytes: ByteCount,
    /// Live shards.
    pub shards: u64,
    /// Failures of all kinds since its node started.
    pub errors: u64,
}

/// What a drive is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum DriveState {
    /// Reads and writes.
    Healthy,
    /// Its index is being rebuilt; it does not serve yet.
    Mounting,
    /// Serves, but later than its peers.
    Slow,
    /// Serves, but its reads fail again and again: empty it and replace it.
    Failing,
    /// A write or flush failed: reads at most, never written again.
    Fenced {
        /// The failure.
        reason: String,
    },
    /// Is being emptied onto the others.
    Draining,
    /// Empty, and no member any more: it may be pulled.
    Removed,
    /// A member that its node does not find.
    Missing,
    /// Its node does not answer.
    Unknown,
}

/// One Raft group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct GroupStatus {
    /// Its number; 0 is the control group.
    #[schema(value_type = u32)]
    pub id: GroupId,
    /// The node that leads it, when there is one.
    #[schema(value_type = Option<u64>, required = true)]
    pub leader: Option<NodeId>,
    /// Current term.
    pub term: u64,
    /// Voting members.
    #[schema(value_type = Vec<u64>)]
    pub voters: Vec<NodeId>,
    /// Highest log index applied, here.
    pub applied_index: u64,
    /// Last log index after which the state here was compared with the others' and was that of a majority; 0 when none was yet.
    pub compared_index: u64,
    /// Replicas have different states, and no majority agrees on one.
    pub states_differ: bool,
    /// Replicas that do not run.
    pub ailing: Vec<AilingReplica>,
}

/// A replica of a group that does not run on its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AilingReplica {
    /// The node.
    #[schema(value_type = u64)]
    pub node: NodeId,
    /// What was found.
    pub what: String,
    /// Whether it is being taken out and filled from the others, by itself.
    pub heals: bool,
}

/// Whether a tenant is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TenantStanding {
    /// Served.
    Active,
    /// Its clients are refused; its data is kept, and background work on it goes on.
    Suspended,
    /// Being destroyed, for good.
    Shredding,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TenantStatus {
    /// 32 hex digits.
    #[schema(value_type = String)]
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Whether it is served.
    pub state: TenantStanding,
    /// Region its clients sign for.
    pub region: String,
    /// Its protection level; null when it follows the cluster's.
    #[schema(value_type = Option<String>, required = true)]
    pub level: Option<Level>,
    /// Ids of its access keys; the secrets are shown only when they are made.
    pub access_keys: Vec<String>,
    /// The local part of the address its journals are to be sent to, reserved for it alone; null until it has got one.
    #[schema(required = true)]
    pub journal_address: Option<String>,
}

/// A tenant just made, with the only showing of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CreatedTenant {
    /// 32 hex digits.
    #[schema(value_type = String)]
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Region its clients sign for.
    pub region: String,
    /// Id of its first access key.
    pub access_key: String,
    /// The secret of that key.
    pub secret_key: Secret,
}

/// An account of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AccountStatus {
    /// 12 digits, as in ARNs.
    pub number: String,
    /// Canonical id, 64 hex digits, as in access control lists.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its e-mail address.
    pub email: String,
    /// Users, groups, roles and policies in it.
    pub identities: u64,
}

/// An account just made, with the only showing of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CreatedAccount {
    /// 12 digits, as in ARNs.
    pub number: String,
    /// Canonical id, 64 hex digits, as in access control lists.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its e-mail address.
    pub email: String,
    /// Id of its root user's access key.
    pub access_key: String,
    /// The secret of that key.
    pub secret_key: Secret,
}

/// An access key just made, with the only showing of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AccessKeyPair {
    /// Id of the key.
    pub access_key: String,
    /// Its secret.
    pub secret_key: Secret,
}

/// A join token just made, with its only showing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JoinTokenInfo {
    /// Goes into `join.token` of the new node's configuration. Single use.
    pub token: Secret,
    /// When it stops working.
    #[schema(value_type = u64)]
    pub expires_unix_ms: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let pair = AccessKeyPair { access_key: "HF1".into(), secret_key: Secret::new("hunter2".into()) };
        let record =
            OperatorRecord { user: "a".into(), password_hash: "$argon2id$x".into(), role: Role::Viewer };
        let printed = format!("{pair:?} {record:?}");
        assert!(!printed.contains("hunter2") && !printed.contains("argon2id"), "{printed}");
        assert!(serde_json::to_string(&pair).unwrap().contains("hunter2"), "and yet the answer carries it");
    }

    #[test]
    fn states_are_tagged() {
        let down = NodeState::Down { last_heard_unix_ms: Some(UnixMillis::new(5)) };
        assert_eq!(serde_json::to_string(&down).unwrap(), r#"{"kind":"down","last_heard_unix_ms":5}"#);
        assert_eq!(serde_json::to_string(&DriveState::Healthy).unwrap(), r#"{"kind":"healthy"}"#);
    }
}
