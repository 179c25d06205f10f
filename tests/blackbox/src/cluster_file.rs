//! `cluster.json`: how tools and tests find a running cluster. Beside it, `processes.json`: how `down` does.
//!
//! Paths in it are relative to the workspace root, so that the file reads the same on every machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{paths, process::Identity};

/// Name of the contract file in a cluster's directory.
pub const CLUSTER_FILE: &str = "cluster.json";
/// Name of the list of processes in a cluster's directory.
pub const PROCESSES_FILE: &str = "processes.json";

/// What the nodes run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Virtual machines.
    Qemu,
    /// Processes on loopback.
    Dev,
}

/// The whole contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// What the nodes run on.
    pub kind: Kind,
    /// The cluster's CA certificate, PEM.
    pub ca: PathBuf,
    /// The nodes in order.
    pub nodes: Vec<NodeEntry>,
    /// Tenants with their keys.
    pub tenants: Vec<TenantEntry>,
    /// The first operator.
    pub operator: Operator,
}

/// One node as seen from this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// `n1`
    pub name: String,
    /// `https://127.0.0.1:9443`
    pub s3: String,
    /// `https://127.0.0.1:8443`
    pub admin: String,
    /// `https://127.0.0.1:9100/metrics`
    pub metrics: String,
    /// `127.0.0.1:2525`
    pub smtp: String,
    /// What the node printed.
    pub log: PathBuf,
}

/// A tenant and the access key made with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TenantEntry {
    pub name: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    /// Canonical id of the account that the key is of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Number of that account.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub number: String,
    /// Its e-mail address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub email: String,
    /// Further accounts of the tenant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<AccountEntry>,
}

/// An account of a tenant and the access key made with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct AccountEntry {
    pub name: String,
    /// Canonical id: 64 hex digits.
    pub id: String,
    /// 12 digits, as in ARNs.
    pub number: String,
    pub email: String,
    pub access_key: String,
    pub secret_key: String,
}

/// The first operator's login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Operator {
    pub user: String,
    pub password: String,
}

/// What runs: for `down`, `dev kill` and their like. Not part of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessesFile {
    /// What the nodes run on.
    pub kind: Kind,
    /// The test that owns the cluster: while it runs, nobody else stops what it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Identity>,
    /// Node processes by name (`dev`); a node that was killed has none.
    #[serde(default)]
    pub nodes: Vec<NodeProcess>,
    /// The virtual machines' supervisor (`up`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<Supervisor>,
}

/// One node process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProcess {
    /// `n1`
    pub name: String,
    /// Its process, when it runs.
    pub process: Option<Identity>,
}

/// The supervisor of the virtual machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervisor {
    /// Its process.
    pub process: Identity,
    /// Its control socket.
    pub socket: PathBuf,
}

impl ClusterFile {
    /// Reads the contract of the cluster in `dir`.
    ///
    /// # Errors
    /// When there is none, or it does not parse.
    pub fn load(dir: &Path) -> Result<Self> {
        load(&dir.join(CLUSTER_FILE))
    }

    /// Writes it into `dir`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        save(&dir.join(CLUSTER_FILE), self)
    }

    /// The node of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&NodeEntry> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| {
            let names: Vec<_> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            format!("no node {name:?}; there are {}", names.join(", "))
        })
    }

    /// The CA certificate's path on this machine.
    #[must_use]
    pub fn ca_path(&self) -> PathBuf {
        paths::workspace().join(&self.ca)
    }
}

impl ProcessesFile {
    /// Reads the list of the cluster in `dir`; `None` when nothing was started there.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(PROCESSES_FILE);
        if path.exists() { load(&path).map(Some) } else { Ok(None) }
    }

    /// Writes it into `dir`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        save(&dir.join(PROCESSES_FILE), self)
    }

    /// Whether anything in it still runs.
    #[must_use]
    pub fn anything_runs(&self) -> bool {
        self.supervisor.as_ref().is_some_and(|supervisor| supervisor.process.is_running())
            || self.nodes.iter().filter_map(|node| node.process).any(Identity::is_running)
    }
}

/// `path` as the contract writes it: relative to the workspace when it lies inside.
#[must_use]
pub fn relative(path: &Path) -> PathBuf {
    path.strip_prefix(paths::workspace()).unwrap_or(path).to_path_buf()
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))
}

fn save<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    // Written beside and renamed: a reader sees the old file or the new one.
    let beside = path.with_extension("json.new");
    fs::write(&beside, text).with_context(|| format!("writing {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("renaming to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_of_the_design_document_parses() {
        let text = r#"{ "kind": "qemu", "ca": "target/cluster/ca.pem",
          "nodes": [ { "name": "n1", "s3": "https://127.0.0.1:9443", "admin": "https://127.0.0.1:8443",
            "metrics": "https://127.0.0.1:9100/metrics", "smtp": "127.0.0.1:2525",
            "log": "target/cluster/n1/console.log" } ],
          "tenants": [ { "name": "demo", "region": "us-east-1", "access_key": "a", "secret_key": "s" } ],
          "operator": { "user": "admin", "password": "p" } }"#;
        let file: ClusterFile = serde_json::from_str(text).unwrap();
        assert_eq!(file.kind, Kind::Qemu);
        assert_eq!(file.node("n1").unwrap().smtp, "127.0.0.1:2525");
        let again: ClusterFile = serde_json::from_str(&serde_json::to_string(&file).unwrap()).unwrap();
        assert_eq!(again, file);
    }
}
