//! `cargo xtask dev`: a cluster of ordinary processes, and faults on it.

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use holdfast_blackbox::{
    cluster_file::{ClusterFile, ProcessesFile},
    dev::{DRIVE_SIZE, DevCluster, DevSpec},
    paths,
};
use holdfast_model::{
    ByteCount, Level,
    config::{NewBuckets, S3Settings, Unlock},
};

use crate::{
    binaries, follow,
    run::{duration, say},
};

const MIB_A_GIB: u64 = 1024;

/// Recovery shares that are made for a new cluster, and how many of them are needed.
const RECOVERY_SHARES: u8 = 5;
const RECOVERY_THRESHOLD: u8 = 3;

/// Arguments of `dev`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Dev {
    /// Nodes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    nodes: u16,
    /// Drives on each node
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    drives: u16,
    /// Size of each drive: 512M, 2G
    #[arg(long, default_value_t = DRIVE_SIZE, value_parser = size)]
    drive_size: ByteCount,
    /// Default protection level, +2d:1n for example
    #[arg(long)]
    level: Option<Level>,
    /// Length of a day in seconds for lifecycle rules, to see them at work
    #[arg(long, default_value_t = S3Settings::default().day_seconds, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    day_seconds: u64,
    /// New buckets have access control lists and no block of public access, as older suites and tools expect
    #[arg(long)]
    open_lists: bool,
    /// Leave it running and return
    #[arg(long)]
    detach: bool,
    #[arg(long, hide = true, global = true)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    fault: Option<Fault>,
}

/// Something done to one node of a running cluster.
#[derive(Debug, Subcommand)]
enum Fault {
    /// Kill a node's process with SIGKILL
    Kill { node: String },
    /// Start a node that was killed, and wait until it serves
    Start { node: String },
    /// Kill, then start
    Restart { node: String },
    /// Add one more node to the running cluster
    Add {
        /// Its drives
        #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
        drives: u16,
        /// Size of each drive: 512M, 2G
        #[arg(long, default_value_t = DRIVE_SIZE, value_parser = size)]
        drive_size: ByteCount,
    },
    /// Have a node leave the cluster, and stop it
    Remove {
        node: String,
        /// Although its drives hold shards, or it does not answer
        #[arg(long)]
        force: bool,
    },
}

impl Dev {
    /// Starts the cluster, or does one thing to the running one.
    ///
    /// # Errors
    /// When one runs already, a build fails, or the cluster does not form.
    pub async fn run(self) -> Result<()> {
        let dir = self.dir.clone().unwrap_or_else(paths::cluster_dir);
        if let Some(fault) = &self.fault {
            return fault.run(&dir, self.dir.is_none()).await;
        }
        refuse_second(&dir)?;
        let new_buckets = if self.open_lists { NewBuckets::Lists } else { NewBuckets::Closed };
        let spec = DevSpec {
            known_ports: self.dir.is_none(),
            dir,
            noded: binaries::noded()?,
            nodes: self.nodes,
            drives: self.drives,
            drive_size: self.drive_size,
            reserved: true,
            watched: true,
            buffer_memory: ByteCount::mib(256),
            level: self.level,
            cluster_name: "dev".into(),
            advertise: Vec::new(),
            s3: S3Settings { day_seconds: self.day_seconds, new_buckets },
            unlock: Unlock::default(),
            feature_level_max: None,
        };
        let begun = Instant::now();
        let mut cluster = DevCluster::create(&spec, &say).await?.released()?;
        say(&format!("formed in {}", duration(begun.elapsed())));
        introduce(cluster.file(), &spec.dir);
        print_recovery_shares(cluster.file()).await?;
        if self.detach {
            return Ok(());
        }
        let followed = follow::until_interrupted(cluster.file()).await;
        say("stopping");
        for name in cluster.stop()? {
            say(&format!("{name} did not stop by itself within ten seconds and was killed"));
        }
        followed
    }
}

impl Fault {
    async fn run(&self, dir: &std::path::Path, known_ports: bool) -> Result<()> {
        let mut cluster = DevCluster::open(dir)?;
        match self {
            Self::Kill { node } => cluster.kill(node)?,
            Self::Start { node } => cluster.start(node).await?,
            Self::Restart { node } => {
                cluster.kill(node)?;
                cluster.start(node).await?;
            }
            Self::Add { drives, drive_size } => {
                let name = cluster.add_node(*drives, *drive_size, known_ports).await?;
                say(&format!("{name} serves; it becomes a full member by itself"));
            }
            Self::Remove { node, force } => {
                cluster.remove_node(node, *force).await?;
                say(&format!("{node} has left"));
            }
        }
        Ok(())
    }
}

/// Refuses to start a cluster where one runs.
///
/// # Errors
/// When one runs.
pub fn refuse_second(dir: &std::path::Path) -> Result<()> {
    if ProcessesFile::load(dir)?.is_some_and(|processes| processes.anything_runs()) {
        bail!(
            "a cluster runs already ({}): stop it with `cargo xtask down`",
            dir.join("cluster.json").display()
        );
    }
    Ok(())
}

/// Says how to reach a cluster.
pub fn introduce(cluster: &ClusterFile, dir: &std::path::Path) {
    println!();
    for node in &cluster.nodes {
        println!("  {}  S3 {}  console {}  metrics {}", node.name, node.s3, node.admin, node.metrics);
    }
    println!("\n  operator   {} / {}", cluster.operator.user, cluster.operator.password);
    for tenant in &cluster.tenants {
        println!("  tenant     {} (region {})", tenant.name, tenant.region);
        println!("  access key {}\n  secret key {}", tenant.access_key, tenant.secret_key);
        for account in &tenant.accounts {
            println!("  account    {}", account.name);
            println!("  access key {}\n  secret key {}", account.access_key, account.secret_key);
        }
    }
    println!("  CA         {}", cluster.ca.display());
    println!("  all of it  {}", dir.join("cluster.json").display());
    if let (Some(node), Some(tenant)) = (cluster.nodes.first(), cluster.tenants.first()) {
        println!(
            "\n  AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={} AWS_CA_BUNDLE={} \\\n    aws --endpoint-url {} s3 mb s3://first\n",
            tenant.access_key,
            tenant.secret_key,
            cluster.ca.display(),
            node.s3
        );
    }
}

/// Has recovery shares of the root key made, and prints them this one time.
///
/// # Errors
/// When the cluster does not make them.
pub async fn print_recovery_shares(cluster: &ClusterFile) -> Result<()> {
    let wanted = serde_json::json!({ "threshold": RECOVERY_THRESHOLD, "shares": RECOVERY_SHARES });
    let issued = cluster.admin(0).await?.post("/api/v1/keys/recovery-shares", &wanted).await?;
    println!(
        "  recovery   {RECOVERY_THRESHOLD} of these {RECOVERY_SHARES} shares give the root key; they are not shown again"
    );
    for share in issued["shares"].as_array().into_iter().flatten().filter_map(|share| share.as_str()) {
        println!("             {share}");
    }
    println!();
    Ok(())
}

/// `512M`, `2G`, or bytes.
fn size(text: &str) -> Result<ByteCount, String> {
    let bad = || format!("{text:?} is not a size; write 512M or 2G");
    let (number, unit) = match text.to_ascii_uppercase() {
        upper if upper.ends_with("GIB") => (text[..text.len() - 3].trim().to_owned(), MIB_A_GIB),
        upper if upper.ends_with("MIB") => (text[..text.len() - 3].trim().to_owned(), 1),
        upper if upper.ends_with('G') => (text[..text.len() - 1].to_owned(), MIB_A_GIB),
        upper if upper.ends_with('M') => (text[..text.len() - 1].to_owned(), 1),
        _ => return text.parse().map(ByteCount::new).map_err(|_| bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    if !(number.is_finite() && number > 0.0) {
        return Err(bad());
    }
    Ok(ByteCount::mib((number * unit as f64) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_people_write_them() {
        assert_eq!(size("512M"), Ok(ByteCount::mib(512)));
        assert_eq!(size("2g"), Ok(ByteCount::mib(2048)));
        assert_eq!(size(&DRIVE_SIZE.to_string()), Ok(DRIVE_SIZE), "the default as clap shows it");
        assert_eq!(size("4096"), Ok(ByteCount::new(4096)));
        assert!(size("2T").is_err() && size("-1G").is_err() && size("G").is_err());
    }
}
