//! Who this node is: cluster, node id, peer certificate and key. Written once, when the node bootstraps
//! or is admitted.
//!
//! ```text
//! state_dir/
//!   identity.json      written last: a node with it belongs to a cluster
//!   identity/          ca.der; peer.pair and service.pair: certificate and key in one file, so that they
//!                      change together
//!   ca.pem             the cluster's CA for clients
//!   keys/shares        see holdfast-keyring
//!   log/ catalog/ control/ snapshots/
//! ```
//!
//! Invariant: everything `identity.json` speaks of is durable before it appears.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use holdfast_model::{ClusterId, NodeId};
use holdfast_peer::pki::{Certificate, PrivateKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Peer certificate and private key (PKCS#8), DER each, as a postcard pair.
const PEER_FILE: &str = "peer.pair";

/// What `identity.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node in it.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Catalog groups of the cluster, fixed at its bootstrap.
    pub catalog_groups: u32,
}

/// Identity and the certificate material that proves it.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Who this is.
    pub identity: Identity,
    /// The cluster's CA certificate.
    pub ca: Certificate,
    /// This node's peer certificate.
    pub certificate: Certificate,
    /// Its private key.
    pub key: PrivateKey,
}

impl Credentials {
    /// Reads what [`Credentials::store`] wrote; `None` on a node that belongs to no cluster yet.
    ///
    /// # Errors
    /// When files are there but cannot be read.
    pub fn load(state_dir: &Path) -> Result<Option<Self>> {
        let path = state_dir.join("identity.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let identity =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        let dir = state_dir.join("identity");
        let read = |name: &str| {
            fs::read(dir.join(name)).with_context(|| format!("reading {name} in {}", dir.display()))
        };
        let pair = Zeroizing::new(read(PEER_FILE)?);
        let (certificate, key): (Vec<u8>, Vec<u8>) = postcard::from_bytes(&pair)
            .with_context(|| format!("{PEER_FILE} in {} is damaged", dir.display()))?;
        Ok(Some(Self {
            identity,
            ca: Certificate::from_der(read("ca.der")?),
            certificate: Certificate::from_der(certificate),
            key: PrivateKey::from_der(key),
        }))
    }

    /// Writes everything durably, `identity.json` last.
    ///
    /// # Errors
    /// I/O.
    pub fn store(&self, state_dir: &Path) -> Result<()> {
        let dir = state_dir.join("identity");
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        write_durably(&dir.join("ca.der"), self.ca.der(), 0o644)?;
        let pair = Zeroizing::new(postcard::to_stdvec(&(self.certificate.der(), self.key.der()))?);
        write_durably(&dir.join(PEER_FILE), &pair, 0o600)?;
        write_durably(&state_dir.join("ca.pem"), self.ca.pem().as_bytes(), 0o644)?;
        write_durably(&state_dir.join("identity.json"), &serde_json::to_vec_pretty(&self.identity)?, 0o644)
    }
}

/// Writes beside, flushes, renames, flushes the directory.
///
/// # Errors
/// I/O, with the path.
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_and_an_unfinished_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Credentials::load(dir.path()).unwrap().is_none());
        let identity = Identity {
            cluster: ClusterId::from_bytes([1; 16]),
            node: NodeId::new(3),
            name: "n3".to_owned(),
            catalog_groups: 8,
        };
        let made = Credentials {
            identity,
            ca: Certificate::from_der(vec![1]),
            certificate: Certificate::from_der(vec![2]),
            key: PrivateKey::from_der(vec![3]),
        };
        made.store(dir.path()).unwrap();
        let read = Credentials::load(dir.path()).unwrap().unwrap();
        assert_eq!((read.identity, read.ca.der(), read.key.der()), (made.identity, &[1][..], &[3][..]));
        fs::remove_file(dir.path().join("identity.json")).unwrap();
        assert!(Credentials::load(dir.path()).unwrap().is_none());
        fs::write(dir.path().join("identity.json"), "{").unwrap();
        assert!(Credentials::load(dir.path()).is_err());
    }
}
