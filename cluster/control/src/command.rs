//! Commands and their answers: one version byte, then postcard. What a command needs is in it; whoever
//! proposes it chooses ids and the time.

use std::{collections::BTreeSet, net::SocketAddr};

use bytes::Bytes;
use holdfast_model::{
    ByteCount, ClusterId, DatabaseId, DriveId, GroupId, Level, NodeId, PartitionId, TenantId, TenantLimits,
    UnixMillis,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    access_keys::AccessKeyCommand,
    features::FeatureCommand,
    identity::{IdentityChange, NewAccount},
    keys::KeyCommand,
    shred::ShredCommand,
    view::{DriveState, ServiceAddresses, TenantState},
};

/// Version of the encoding. Any change of it, a new variant included, is a new version. Version 2 added
/// [`Command::RetireNode`] and [`Command::CreateReplacementToken`] behind what version 1 had, version 3
/// [`Command::Keys`], [`Command::CreateAccount`], [`Command::ChangeIdentities`] and what comes behind it.
pub const COMMAND_VERSION: u8 = 3;

/// The oldest version whose bytes are still read.
const COMMAND_VERSION_MIN: u8 = 1;

/// Catalog groups of one cluster at most.
pub const CATALOG_GROUPS_MAX: u32 = 1024;

/// Longest name of a node, tenant, operator, secret or access key, in bytes.
pub const NAME_SIZE_MAX: usize = 255;

/// Join tokens kept at most, used and expired ones among them; those that expire first go first.
pub const JOIN_TOKENS_MAX: usize = 1024;

/// The role that may change things. There is always an operator who has it.
pub const ROLE_OPERATOR: &str = "operator";

/// A change of the control state. Repeated right after, each gives the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Founds the cluster; the proposer is node 1. Once.
    InitCluster {
        /// Fresh id of the cluster.
        cluster: ClusterId,
        /// Its name.
        name: String,
        /// Region that S3 signatures name.
        region: String,
        /// Default level.
        level: Level,
        /// Catalog groups, fixed: 1 to [`CATALOG_GROUPS_MAX`].
        catalog_groups: u32,
        /// The first node, registered with this.
        first: RegisterNode,
    },
    /// Admits a node, if its token allows.
    RegisterNode(RegisterNode),
    /// The node is a full member from here on: it votes in every group it should.
    ActivateNode(NodeId),
    /// The node moved.
    UpdateNode {
        /// Which.
        node: NodeId,
        /// Where peers reach it.
        peer: SocketAddr,
        /// Where clients reach it.
        services: ServiceAddresses,
    },
    /// The node left for good. Its number is never used again.
    RemoveNode(NodeId),
    /// A node says which drives it has. A drive that was removed for good stays so.
    RegisterDrives {
        /// The node.
        node: NodeId,
        /// Its drives.
        drives: Vec<DriveEntry>,
        /// The proposer's clock.
        at: UnixMillis,
    },
    /// Changes a drive's standing. Removed is for good.
    SetDriveState {
        /// Which.
        drive: DriveId,
        /// To what.
        state: DriveState,
    },
    /// Which nodes should vote in a group.
    SetGroupVoters {
        /// The group.
        group: GroupId,
        /// Its voters.
        voters: BTreeSet<NodeId>,
    },
    /// Creates a tenant with its first access key and one partition.
    CreateTenant(NewTenant),
    /// Changes a tenant's standing.
    SetTenantState {
        /// Which.
        tenant: TenantId,
        /// To what.
        state: TenantState,
    },
    /// Changes the level of a tenant, or of all that name none.
    SetLevel {
        /// `None`: the cluster's default.
        tenant: Option<TenantId>,
        /// `None` with a tenant: the cluster's.
        level: Option<Level>,
    },
    /// Adds an access key.
    CreateAccessKey {
        /// Whose.
        tenant: TenantId,
        /// The key.
        access_key: String,
        /// Its secret, sealed.
        sealed_secret: Vec<u8>,
        /// The proposer's clock.
        at: UnixMillis,
    },
    /// Removes an access key.
    DeleteAccessKey {
        /// The key.
        access_key: String,
    },
    /// Adds or changes an operator.
    SetOperator {
        /// Name.
        name: String,
        /// argon2id PHC string.
        password_hash: String,
        /// Role.
        role: String,
    },
    /// Allows one node to join until `expires`.
    CreateJoinToken {
        /// SHA-256 of the token's secret.
        hash: [u8; 32],
        /// End of its life.
        expires: UnixMillis,
    },
    /// Keeps a sealed secret of the cluster.
    PutSecret {
        /// Name.
        name: String,
        /// Sealed bytes.
        sealed: Vec<u8>,
    },
    /// Takes back a join token that was not used.
    RevokeJoinToken {
        /// SHA-256 of the token's secret.
        hash: [u8; 32],
    },
    /// Removes an operator, unless it is the last one who may change things.
    DeleteOperator {
        /// Name.
        name: String,
    },
    /// The node is to leave: it keeps serving until no group needs it, and is removed then.
    RetireNode(NodeId),
    /// As [`Command::CreateJoinToken`], for the node that takes the place of `node`: with its admission
    /// `node` is removed, and its name is free.
    CreateReplacementToken {
        /// SHA-256 of the token's secret.
        hash: [u8; 32],
        /// End of its life.
        expires: UnixMillis,
        /// Who is replaced.
        node: NodeId,
    },
    /// A change of keys.
    Keys(KeyCommand),
    /// Adds an account to a tenant.
    CreateAccount(NewAccount),
    /// Changes users, groups, roles, policies and their keys.
    ChangeIdentities(IdentityChange),
    /// Destroys a tenant.
    Shred(ShredCommand),
    /// A tenant gets one more partition, in the same group: half of what `partition` holds. Refused when the tenant
    /// got one since the proposer looked.
    SplitPartition {
        /// The one to be split.
        partition: PartitionId,
        /// Partitions of the tenant as the proposer saw them.
        of: u32,
    },
    /// Changes feature levels.
    Features(FeatureCommand),
    /// How far the labels of drives have come, each with its counter. One that is known to be further stays so.
    NoteLabels(Vec<(DriveId, u64)>),
    /// Sets what a tenant's clients may ask of the cluster; limits that are left out are lifted.
    SetTenantLimits {
        /// Which.
        tenant: TenantId,
        /// All of them.
        limits: TenantLimits,
    },
    /// Forgets a sealed secret. Needs [`crate::FEATURE_LEVEL_EVENTS`].
    RemoveSecret {
        /// Its name.
        name: String,
    },
    /// Bounds access keys and reserves addresses of journals.
    AccessKeys(AccessKeyCommand),
}

/// A node that asks to be registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterNode {
    /// Random, chosen by the asker: the same request gets the same node.
    pub request: [u8; 16],
    /// Name, unique among nodes that are not removed.
    pub name: String,
    /// Where peers reach it.
    pub peer: SocketAddr,
    /// Where clients reach it.
    pub services: ServiceAddresses,
    /// SHA-256 of its token's secret; unused for the first node.
    pub token_hash: [u8; 32],
    /// The proposer's clock.
    pub at: UnixMillis,
}

/// A drive a node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DriveEntry {
    pub drive: DriveId,
    pub path: String,
    pub capacity: ByteCount,
}

/// A tenant to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NewTenant {
    pub tenant: TenantId,
    pub name: String,
    pub database_id: DatabaseId,
    pub wrapped_key: Vec<u8>,
    pub level: Option<Level>,
    pub access_key: String,
    pub sealed_secret: Vec<u8>,
    pub at: UnixMillis,
}

/// A command was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Done; nothing more to say.
    Done,
    /// The node's id.
    Registered(NodeId),
    /// The tenant's partition and the group that is to host it.
    TenantCreated(PartitionId, GroupId),
    /// The entry was applied before a restart; nobody waits for its answer.
    Replayed,
    /// The partition to be, and the group that is to host it.
    PartitionAdded(PartitionId, GroupId),
}

/// A command was not done, and changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// Founded twice.
    #[error("the cluster exists already, as {0}")]
    ClusterExists(ClusterId),
    /// Nothing can be done before that.
    #[error("the cluster is not founded yet")]
    NoCluster,
    /// Unknown token.
    #[error("the join token is not known here; create a new one")]
    TokenUnknown,
    /// Too late.
    #[error("the join token has expired; create a new one")]
    TokenExpired,
    /// Used by another node.
    #[error("the join token was used by {0}; create a new one")]
    TokenUsed(NodeId),
    /// A name in use.
    #[error("{what} {name:?} exists already")]
    NameTaken {
        /// Of what.
        what: String,
        /// The name.
        name: String,
    },
    /// Not there.
    #[error("no such {what}: {name}")]
    NotFound {
        /// What.
        what: String,
        /// Which.
        name: String,
    },
    /// Too many nodes.
    #[error("the cluster has as many nodes as a cluster may have")]
    TooManyNodes,
    /// What was removed does not come back; it needs a new identity.
    #[error("{what} {name} was removed for good; format or join it anew")]
    Removed {
        /// What.
        what: String,
        /// Which.
        name: String,
    },
    /// The last one stays.
    #[error("{name} is the last {what}")]
    Last {
        /// What.
        what: String,
        /// Which.
        name: String,
    },
    /// The command contradicts itself: a mistake of the program that proposed it.
    #[error("invalid command: {0}")]
    Invalid(String),
    /// What the command replaces is not in force any more.
    #[error("the {what} has changed meanwhile; try again")]
    Stale {
        /// What.
        what: String,
    },
    /// What the change was decided on was written meanwhile; decide again.
    #[error("{0:?} was changed meanwhile")]
    Changed(String),
    /// More than is kept.
    #[error("more than the {limit} that are kept")]
    TooLarge {
        /// How much is.
        limit: u64,
    },
    /// Not every node can do it yet, or a node's program is older than what is in use.
    #[error("feature level {needs} is needed, {has} is there: update the nodes that are behind")]
    FeatureLevel {
        /// The level that is needed.
        needs: u32,
        /// The level that is there.
        has: u32,
    },
}

/// What a command came to.
pub type Outcome = Result<Response, Refusal>;

/// The bytes are not of this release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer release.
    #[error(
        "control command or answer of version {0}, this release knows {COMMAND_VERSION}; update this node"
    )]
    UnknownVersion(u8),
    /// Not well-formed.
    #[error("malformed control command or answer: {0}")]
    Malformed(String),
}

impl Command {
    /// The encoded form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads the encoded form.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes)
    }
}

/// The encoded form of an outcome.
#[must_use]
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    encode(outcome)
}

/// Reads an encoded outcome.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_outcome(bytes: &[u8]) -> Result<Outcome, DecodeError> {
    decode(bytes)
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    postcard::to_extend(value, vec![COMMAND_VERSION])
        .expect("writing to a vector fails only on types that postcard cannot express, and these it can")
        .into()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        // Every version only added variants, so the newest shape reads them all.
        Some((COMMAND_VERSION_MIN..=COMMAND_VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(DecodeError::Malformed(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(DecodeError::Malformed(error.to_string())),
        },
        Some((version, _)) => Err(DecodeError::UnknownVersion(*version)),
        None => Err(DecodeError::Malformed("no bytes".into())),
    }
}
