//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Holdfast from the command line.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about = "Holdfast from the command line")]
pub struct Arguments {
    /// How to reach the cluster.
    #[command(flatten)]
    pub reach: Reach,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach the cluster.
#[derive(Debug, Args)]
pub struct Reach {
    /// Admin address of any node, https://HOST:PORT. Otherwise HOLDFAST_SERVER.
    #[arg(long, global = true)]
    pub server: Option<String>,
    /// The cluster's CA certificate as PEM. Otherwise HOLDFAST_CA.
    #[arg(long, global = true)]
    pub ca: Option<PathBuf>,
    /// Who logs in, when no session is kept.
    #[arg(long, global = true, default_value = "admin")]
    pub user: String,
    /// Read the password from the first line of this file. Otherwise HOLDFAST_PASSWORD, or the terminal.
    #[arg(long, global = true)]
    pub password_file: Option<PathBuf>,
    /// Print the node's answer as JSON instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Begin a session and keep it for later commands.
    Login,
    /// Forget the session that is kept.
    Logout,
    /// The cluster at a glance: level, capacity, nodes, debt.
    Status,
    /// Drives and devices; `inspect` looks at one without a node.
    Drive {
        /// What to do.
        #[command(subcommand)]
        command: DriveCommand,
    },
    /// Nodes.
    Node {
        /// What to do.
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Background work.
    Work {
        /// What to do.
        #[command(subcommand)]
        command: WorkCommand,
    },
    /// Protection levels; `table` needs no node.
    Level {
        /// What to do.
        #[command(subcommand)]
        command: LevelCommand,
    },
    /// Space set aside for rebuilding.
    Spare {
        /// What to do.
        #[command(subcommand)]
        command: SpareCommand,
    },
    /// Reading everything on the drives.
    Scrub {
        /// What to do.
        #[command(subcommand)]
        command: ScrubCommand,
    },
    /// Comparing what drives hold with the catalog.
    Audit {
        /// What to do.
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Tenants.
    Tenant {
        /// What to do.
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Access keys of a tenant.
    AccessKey {
        /// What to do.
        #[command(subcommand)]
        command: AccessKeyCommand,
    },
    /// Where events of a tenant's buckets may be sent.
    Webhook {
        /// What to do.
        #[command(subcommand)]
        command: WebhookCommand,
    },
    /// A tenant's key under a key of its own service.
    ExternalKey {
        /// What to do.
        #[command(subcommand)]
        command: ExternalKeyCommand,
    },
    /// Event notifications of the whole cluster.
    Event {
        /// What to do.
        #[command(subcommand)]
        command: EventCommand,
    },
}

/// About drives.
#[derive(Debug, Subcommand)]
pub enum DriveCommand {
    /// Print and verify everything on a drive that nobody has open. Reads only. Exit code 0: sound;
    /// 2: something is damaged or missing; 1: it cannot be read, or is no drive of Holdfast.
    Inspect {
        /// Block device or drive file.
        device: PathBuf,
        /// Print every record as well.
        #[arg(long)]
        records: bool,
    },
    /// All drives, and devices that wait or are not used.
    List,
    /// Approve of a device: it becomes a drive of the cluster.
    Adopt {
        /// Its node.
        node: String,
        /// Its serial number or path.
        device: String,
        /// Its serial number again: what is on it is erased.
        #[arg(long, value_name = "SERIAL")]
        erase: Option<String>,
    },
    /// Empty a drive onto the others; it leaves when it is empty.
    Drain {
        /// Its id.
        drive: String,
    },
    /// Keep a drive that is being emptied.
    Keep {
        /// Its id.
        drive: String,
    },
    /// Have the light of a drive or device blink.
    Locate {
        /// Its node.
        node: String,
        /// Its serial number, path, or drive id.
        device: String,
        /// For how long; 0 stops it.
        #[arg(long, default_value_t = 5)]
        minutes: u32,
    },
}

/// About nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// All nodes.
    List,
    /// Empty all drives of a node, so that it can be removed.
    Drain {
        /// Its name.
        node: String,
    },
    /// Keep the drives of a node that are being emptied.
    Keep {
        /// Its name.
        node: String,
    },
    /// Have a node leave the cluster.
    Remove {
        /// Its name.
        node: String,
        /// Although its drives hold shards, or nobody can tell.
        #[arg(long)]
        force: bool,
    },
}

/// About background work.
#[derive(Debug, Subcommand)]
pub enum WorkCommand {
    /// Debt, and what the workers of all nodes do.
    List,
    /// Have a kind of worker take up nothing new.
    Pause {
        /// `rebuild`, `smartfail`, `repair`, `scrub`, `level`, `rebalance`, `sweep` or `events`.
        kind: String,
    },
    /// Have it go on.
    Resume {
        /// As for `pause`.
        kind: String,
    },
    /// How much of the drives' and processors' time it may take.
    Impact {
        /// As for `pause`.
        kind: String,
        /// How much.
        impact: Impact,
    },
    /// In which hours of the day (UTC) it may run; equal ones are all day.
    Hours {
        /// As for `pause`.
        kind: String,
        /// First hour.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=23))]
        from: u8,
        /// Up to, not including.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=23))]
        until: u8,
    },
}

/// How much a worker may take.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub enum Impact {
    Low,
    Medium,
    High,
}

impl Impact {
    /// As the API has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// About levels.
#[derive(Debug, Subcommand)]
pub enum LevelCommand {
    /// Print what every level costs and survives on so many nodes.
    Table {
        /// Nodes of the cluster, 1 to 252.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=252))]
        nodes: u16,
        /// Drives of each node, 1 to 64.
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=64))]
        drives: u16,
    },
    /// Requested, actual and suggested levels: of the cluster, or of a tenant and its buckets.
    Show {
        /// The tenant.
        tenant: Option<String>,
    },
    /// Ask for a level: of the cluster, a tenant, or a bucket.
    Set {
        /// The level, `+2d:1n` or `3x`; `inherit` for that of the next wider scope.
        level: String,
        /// Of this tenant.
        #[arg(long)]
        tenant: Option<String>,
        /// Of this bucket of the tenant.
        #[arg(long, requires = "tenant")]
        bucket: Option<String>,
    },
}

/// About the space that is set aside.
#[derive(Debug, Subcommand)]
pub enum SpareCommand {
    /// How much is set aside, and how much is free.
    Show,
    /// Set aside the space of so many of the largest drives, 0 to 4.
    Set {
        /// Drives.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=4))]
        drives: u8,
    },
    /// Leave it to the cluster: one drive, where that is at most a fifth of all space.
    Usual,
}

/// About scrubbing.
#[derive(Debug, Subcommand)]
pub enum ScrubCommand {
    /// Have the drives of the node that answers scrubbed now.
    Start,
}

/// About audits.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Have the node that answers compare all drives with the catalog.
    Start,
    /// What its last audit found.
    Show,
}

/// About webhooks.
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Those of a tenant.
    List {
        /// The tenant.
        tenant: String,
    },
    /// Define one, in the place of one of that name.
    Set {
        /// The tenant.
        tenant: String,
        /// What buckets name it by.
        name: String,
        /// Where events are posted to, https:// or http://.
        url: String,
        /// Send the first line of this file along as `Authorization: Bearer`; for https:// only.
        #[arg(long, value_name = "FILE")]
        bearer_file: Option<PathBuf>,
        /// Certificates of the authorities that vouch for it, as PEM; needed for https://.
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
    },
    /// Forget one. What waits for it waits on, until it is defined again or too old.
    Remove {
        /// The tenant.
        tenant: String,
        /// Its name.
        name: String,
    },
}

/// About external keys.
#[derive(Debug, Subcommand)]
pub enum ExternalKeyCommand {
    /// How a tenant's stands with the node that answers.
    Show {
        /// The tenant.
        tenant: String,
    },
    /// Seal a tenant's key under a key of a service that speaks Vault's transit. In the place of any before, whose
    /// service, or this one, has to give the present key back.
    Set(Box<NewExternalKey>),
    /// Seal a tenant's key under a fresh key, encrypted by the newest version of the service's.
    Rotate {
        /// The tenant.
        tenant: String,
    },
    /// Leave a tenant's key to the cluster's root alone. Its service has to agree.
    Remove {
        /// The tenant.
        tenant: String,
    },
}

/// An external key to be.
#[derive(Debug, clap::Args)]
pub struct NewExternalKey {
    /// The tenant.
    pub tenant: String,
    /// Where the service is: https://HOST:PORT.
    pub url: String,
    /// Name of the key there.
    pub key: String,
    /// Certificates of the authorities that vouch for the service, as PEM.
    #[arg(long, value_name = "FILE")]
    pub ca_file: PathBuf,
    /// Show the token in the first line of this file.
    #[arg(long, value_name = "FILE", conflicts_with = "role_id")]
    pub token_file: Option<PathBuf>,
    /// Log in with this AppRole.
    #[arg(long, requires = "secret_id_file")]
    pub role_id: Option<String>,
    /// The role's secret id, in the first line of this file.
    #[arg(long, value_name = "FILE", requires = "role_id")]
    pub secret_id_file: Option<PathBuf>,
    /// Where the AppRole method is mounted [approle].
    #[arg(long)]
    pub approle_mount: Option<String>,
    /// Where the transit engine is mounted [transit].
    #[arg(long)]
    pub mount: Option<String>,
    /// Its namespace.
    #[arg(long)]
    pub namespace: Option<String>,
    /// How often each node asks whether the key is still allowed [60].
    #[arg(long)]
    pub check_seconds: Option<u32>,
    /// How long the service may be silent before the tenant's key is forgotten [3600].
    #[arg(long)]
    pub grace_seconds: Option<u32>,
}

/// About events.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Settings, and how many events wait on the node that answers.
    Show,
    /// Let events be sent to these networks although such addresses are refused by themselves; no others, or none.
    Networks {
        /// In CIDR notation: 127.0.0.0/8.
        networks: Vec<String>,
    },
}

/// About access keys.
#[derive(Debug, Subcommand)]
pub enum AccessKeyCommand {
    /// All of a tenant, with whom they are of and what bounds them.
    List {
        /// The tenant.
        tenant: String,
    },
    /// One more of the tenant's first account; its secret is shown this one time.
    Create {
        /// The tenant.
        tenant: String,
        /// What bounds it.
        #[command(flatten)]
        bounds: KeyBoundsArguments,
    },
    /// Set when a key ends and what it may be used for; what is left out is lifted.
    Bound {
        /// The tenant.
        tenant: String,
        /// The key.
        access_key: String,
        /// What bounds it.
        #[command(flatten)]
        bounds: KeyBoundsArguments,
    },
    /// Take a key away, and every session it began. Those of users are deleted by IAM.
    Delete {
        /// The tenant.
        tenant: String,
        /// The key.
        access_key: String,
    },
}

/// What bounds an access key.
#[derive(Debug, clap::Args)]
pub struct KeyBoundsArguments {
    /// It ends after so many days [never].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub days: Option<u32>,
    /// It may be used for what the policy document in this file allows, and nothing else [all].
    #[arg(long, value_name = "FILE")]
    pub policy_file: Option<PathBuf>,
}

/// About tenants.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// All tenants.
    List,
}
