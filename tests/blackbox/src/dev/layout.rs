//! What a cluster of processes has on disk: one directory a node, with configuration, state, drives, log.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, phc},
};
use holdfast_model::{
    ByteCount, Level,
    config::{Bootstrap, DriveSelection, Join, Listen, NodeConfig},
};
use nix::fcntl::{FallocateFlags, fallocate};

use super::{DevSpec, ports};
use crate::cluster_file::{NodeEntry, Operator, relative};

/// Memory of a password hash in KiB and its passes: what the nodes themselves use, so that a login takes
/// as long for a known name as for an unknown one.
const PASSWORD_MEMORY_KIB: u32 = 64 * 1024;
const PASSWORD_PASSES: u32 = 3;

/// Domain for virtual-host style S3 in clusters of processes: `BUCKET.s3.localhost`.
pub const S3_DOMAIN: &str = "s3.localhost";
const SERVICE_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "s3.localhost", "*.s3.localhost"];

/// One node's files and addresses.
#[derive(Debug, Clone)]
pub struct NodeLayout {
    /// `n1`
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its sockets.
    pub listen: Listen,
    /// Where its peers reach it, when that is not where it listens.
    pub advertise: Option<SocketAddr>,
    /// Where mail will come in.
    pub smtp: SocketAddr,
}

impl NodeLayout {
    /// Chooses addresses for node `number` (from 1) and makes its directories and drives.
    ///
    /// # Errors
    /// When there is no port or no space.
    pub fn create(spec: &DevSpec, number: u16) -> Result<Self> {
        let name = format!("n{number}");
        let dir = spec.dir.join(&name);
        let port =
            |first: u16| if spec.known_ports { ports::prefer(first + number - 1) } else { ports::any() };
        let listen = Listen { s3: port(9443)?, admin: port(8443)?, metrics: port(9100)?, peer: port(7443)? };
        let advertise = spec.advertise.get(usize::from(number) - 1).copied();
        let layout = Self { smtp: port(2525)?, name, dir, listen, advertise };
        fs::create_dir_all(layout.state_dir()).with_context(|| format!("making {}", layout.dir.display()))?;
        fs::create_dir_all(layout.dir.join("drives"))?;
        for drive in layout.drives(spec.drives) {
            make_drive(&drive, spec.drive_size, spec.reserved)?;
        }
        Ok(layout)
    }

    /// Where the node keeps what it must not forget.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Its drives.
    #[must_use]
    pub fn drives(&self, count: u16) -> Vec<PathBuf> {
        (1..=count).map(|drive| self.dir.join("drives").join(format!("d{drive}"))).collect()
    }

    /// What it prints.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// Its configuration document.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    /// Writes the configuration document.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(
        &self,
        spec: &DevSpec,
        bootstrap: Option<Bootstrap>,
        join: Option<Join>,
    ) -> Result<()> {
        let config = NodeConfig {
            name: self.name.clone(),
            state_dir: self.state_dir(),
            drives: if spec.watched {
                DriveSelection::Directory(self.dir.join("drives"))
            } else {
                DriveSelection::Paths(self.drives(spec.drives))
            },
            listen: self.listen.clone(),
            advertise_peer: self.advertise.unwrap_or(self.listen.peer),
            service_names: service_names(),
            s3_domains: vec![S3_DOMAIN.to_owned()],
            s3: spec.s3.clone(),
            buffer_memory: spec.buffer_memory,
            bootstrap,
            join,
            unlock: spec.unlock.clone(),
            feature_level_max: spec.feature_level_max,
            tpm_device: holdfast_model::config::default_tpm_device(),
            network: None,
        };
        let path = self.config_file();
        fs::write(&path, serde_json::to_string_pretty(&config)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Its entry in `cluster.json`.
    #[must_use]
    pub fn entry(&self) -> NodeEntry {
        NodeEntry {
            name: self.name.clone(),
            s3: format!("https://{}", self.listen.s3),
            admin: format!("https://{}", self.listen.admin),
            metrics: format!("https://{}/metrics", self.listen.metrics),
            smtp: self.smtp.to_string(),
            log: relative(&self.log()),
        }
    }
}

/// Names by which this machine reaches a node, for its certificate.
#[must_use]
pub fn service_names() -> Vec<String> {
    SERVICE_NAMES.map(str::to_owned).into()
}

/// The `bootstrap` section of a first node.
///
/// # Errors
/// When the password cannot be hashed.
pub fn bootstrap(cluster_name: &str, level: Option<Level>, operator: &Operator) -> Result<Bootstrap> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)?;
    let params = Params::new(PASSWORD_MEMORY_KIB, PASSWORD_PASSES, 1, None)
        .map_err(|error| anyhow::anyhow!("argon2 parameters: {error}"))?;
    let hash: phc::PasswordHash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_with_salt(operator.password.as_bytes(), &salt)
        .map_err(|error| anyhow::anyhow!("hashing the operator's password: {error}"))?;
    let mut bootstrap = serde_json::json!({
        "cluster_name": cluster_name,
        "operator": operator.user,
        "operator_password_hash": hash.to_string(),
    });
    if let Some(level) = level {
        bootstrap["level"] = serde_json::to_value(level)?;
    }
    // Through its own document form, so that what is left out takes the product's defaults.
    Ok(serde_json::from_value(bootstrap)?)
}

/// An operator with a fresh password.
///
/// # Errors
/// When the system gives no randomness.
pub fn operator() -> Result<Operator> {
    let mut secret = [0; 12];
    getrandom::fill(&mut secret)?;
    Ok(Operator { user: "admin".into(), password: hex::encode(secret) })
}

fn make_drive(path: &Path, size: ByteCount, reserved: bool) -> Result<()> {
    let file = File::options().create(true).truncate(true).read(true).write(true).open(path)?;
    if !reserved {
        return file.set_len(size.get()).with_context(|| format!("sizing drive {}", path.display()));
    }
    let length = i64::try_from(size.get())?;
    fallocate(&file, FallocateFlags::empty(), 0, length)
        .with_context(|| format!("reserving {size} for drive {}: is the disk full?", path.display()))
}
