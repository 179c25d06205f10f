//! Running a client program with a clean environment.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cluster_file::{ClusterFile, NodeEntry},
    paths,
};

/// Last lines of a failed program's output that are quoted.
const QUOTED_LINES: usize = 20;

/// What every client needs to know.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Access {
    /// `https://127.0.0.1:9443`
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
    /// PEM file.
    pub ca: PathBuf,
    /// Home directory of the program: empty.
    pub home: PathBuf,
}

impl Access {
    /// The first tenant's access through one node.
    ///
    /// # Errors
    /// When the cluster has no tenant.
    pub fn of(cluster: &ClusterFile, node: &NodeEntry, home: &Path) -> Result<Self> {
        let tenant = cluster.tenants.first().context("the cluster has no tenant")?;
        Ok(Self {
            endpoint: node.s3.clone(),
            access_key: tenant.access_key.clone(),
            secret_key: tenant.secret_key.clone(),
            region: tenant.region.clone(),
            ca: cluster.ca_path(),
            home: home.to_path_buf(),
        })
    }

    /// `127.0.0.1:9443`
    #[must_use]
    pub fn authority(&self) -> &str {
        self.endpoint.trim_start_matches("https://")
    }
}

/// A program with an environment of its own.
pub(super) fn program(path: impl AsRef<OsStr>, access: &Access) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("HOME", &access.home).env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
    command.current_dir(paths::workspace());
    command
}

/// The variables that all of Amazon's own clients read.
pub(super) fn aws_environment(command: &mut Command, access: &Access) {
    command
        .env("AWS_ACCESS_KEY_ID", &access.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &access.secret_key)
        .env("AWS_DEFAULT_REGION", &access.region)
        .env("AWS_CA_BUNDLE", &access.ca)
        .env("AWS_ENDPOINT_URL", &access.endpoint)
        .env("AWS_EC2_METADATA_DISABLED", "true");
}

/// Runs it; returns what it printed on standard output.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} cannot be started: cargo xtask setup"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let all = text + &String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = all.lines().collect();
        let tail = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n");
        bail!("{name} {}: {}\n{tail}", arguments(command), output.status);
    }
    Ok(text)
}

fn arguments(command: &Command) -> String {
    command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
