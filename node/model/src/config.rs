//! The node's configuration document: the same for the image and for processes under `cargo xtask dev`.
//!
//! JSON. Unknown fields are refused, so that a misspelt setting is an error and not a silence. On the
//! appliance the first boot's document comes from the seed (QEMU `fw_cfg` entry `opt/org.holdfast/config`)
//! and is then kept in the state directory; `bootstrap` and `join` are used once and ignored by a node
//! that already belongs to a cluster.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{ByteCount, Level};

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Name shown to people, unique in the cluster: `n1`.
    pub name: String,
    /// Directory for identity, keys, Raft log and catalog. On the appliance: the STATE partition.
    pub state_dir: PathBuf,
    /// Which drives this node stores shards on.
    pub drives: DriveSelection,
    /// Where this node listens.
    pub listen: Listen,
    /// The address at which peers reach this node's `listen.peer`.
    pub advertise_peer: SocketAddr,
    /// Further DNS names and IP addresses for this node's TLS certificate, `127.0.0.1` for example.
    #[serde(default)]
    pub service_names: Vec<String>,
    /// Domains for virtual-host style S3: `bucket.DOMAIN`.
    #[serde(default)]
    pub s3_domains: Vec<String>,
    /// What of S3 is a matter of this installation.
    #[serde(default)]
    pub s3: S3Settings,
    /// Memory for payload buffers.
    #[serde(default = "default_buffer_memory")]
    pub buffer_memory: ByteCount,
    /// What keeps this node's share of the root key from whoever holds its disk.
    #[serde(default, skip_serializing_if = "Unlock::is_default")]
    pub unlock: Unlock,
    /// Holds new features back on this node, and so in the cluster, until a release has proven itself: see
    /// `docs/cluster.md`. Absent: what its program can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_level_max: Option<u32>,
    /// This machine's TPM, for [`Unlock::Tpm`].
    #[serde(default = "default_tpm_device", skip_serializing_if = "is_default_tpm_device")]
    pub tpm_device: PathBuf,
    /// Found a cluster with this node as its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// Join a cluster that exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
    /// Network of the appliance. Absent for an ordinary process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// Settings of the S3 gateway. The same on every node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Settings {
    /// Length of a day in seconds, as lifecycle rules count. Only tests shorten it.
    pub day_seconds: u64,
    /// What new buckets are like when their maker does not say.
    #[serde(skip_serializing_if = "NewBuckets::is_default")]
    pub new_buckets: NewBuckets,
}

/// What a new bucket allows until its owner says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewBuckets {
    /// Access control lists are off, and nothing can be made public: as AWS has it since April 2023.
    #[default]
    Closed,
    /// Access control lists count and public access is not blocked: as it was before, and as tools and test
    /// suites of that time expect. Nothing is public by itself.
    Lists,
}

impl NewBuckets {
    // Written only when it says something, so that releases before it read the document.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Seconds of a day.
const DAY_SECONDS: u64 = 24 * 3600;

impl Default for S3Settings {
    fn default() -> Self {
        Self { day_seconds: DAY_SECONDS, new_buckets: NewBuckets::default() }
    }
}

/// What protects a node's share of the root key on its state disk. Chosen when the node founds or joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlock {
    /// The mode of its file, 0600. Whoever holds the disk holds the share; in a cluster of one node that is
    /// the whole root.
    #[default]
    File,
    /// A passphrase, by argon2id.
    Passphrase {
        /// Where it is read when the node starts. When nothing is there, an operator enters it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<PathBuf>,
    },
    /// The machine's TPM 2.0. A copy of the disk does not give the share; the whole machine does.
    Tpm,
    /// The TPM when there is one as the node founds or joins; otherwise as [`Unlock::File`].
    TpmIfPresent,
}

impl Unlock {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which drives a node uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriveSelection {
    /// Block devices or preallocated files, by path. Whoever names a blank one here has approved of it.
    Paths(Vec<PathBuf>),
    /// Every file in a directory, which may come and go while the node runs: drives for processes.
    Directory(PathBuf),
    /// Appliance: every whole block device that is not the system disk. Blank ones are taken when the node
    /// first starts, and wait for approval from then on.
    AllBlank,
}

/// Listening sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// S3 over TLS.
    pub s3: SocketAddr,
    /// Admin API and web console over TLS.
    pub admin: SocketAddr,
    /// Prometheus exposition over TLS.
    pub metrics: SocketAddr,
    /// Peer links, mutual TLS.
    pub peer: SocketAddr,
}

/// How a first node founds its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// Name of the cluster.
    pub cluster_name: String,
    /// First operator's name.
    pub operator: String,
    /// First operator's password as an argon2id PHC string.
    pub operator_password_hash: String,
    /// Catalog groups, fixed for the life of the cluster.
    #[serde(default = "default_catalog_groups")]
    pub catalog_groups: u32,
    /// Default protection level.
    #[serde(default = "default_level")]
    pub level: Level,
}

/// How a node joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// Peer addresses of nodes to ask, in order.
    pub peers: Vec<SocketAddr>,
    /// Single-use token from an operator; holds the fingerprint of the cluster's CA.
    pub token: String,
}

/// Static network of the appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// One entry an interface.
    pub interfaces: Vec<Interface>,
}

/// One interface, found by its MAC address (names change with slots and kernels).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// `52:54:00:00:00:01`
    pub mac: String,
    /// Address with prefix length: `10.77.0.1/24`.
    pub address: String,
    /// Default gateway, when this interface leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

/// Where Linux has the TPM, with a resource manager that keeps its users apart.
const TPM_DEVICE: &str = "/dev/tpmrm0";

/// The device of the machine's TPM.
#[must_use]
pub fn default_tpm_device() -> PathBuf {
    TPM_DEVICE.into()
}

fn is_default_tpm_device(path: &std::path::Path) -> bool {
    path == std::path::Path::new(TPM_DEVICE)
}

fn default_buffer_memory() -> ByteCount {
    ByteCount::mib(256)
}

fn default_catalog_groups() -> u32 {
    8
}

fn default_level() -> Level {
    Level::PLUS_2D_1N
}
