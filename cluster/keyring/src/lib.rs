//! The cluster root key on this node, and what it wraps: tenant keys and the cluster's own secrets.
//!
//! The root key lives in the node's state directory (`keys/root.key`, mode 0600), never on a data drive;
//! a joining node receives it inside the TLS session of its admission. Data drives and the control
//! group's database hold only what is wrapped under it. Splitting the root over the nodes, sealing
//! shares to TPMs and a key service of its own user are described in `docs/keys.md` as not yet there.
//!
//! Invariants: a root key file is whole or absent (written beside, flushed, renamed); a damaged one is
//! refused, never replaced.

#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_crypt::{CryptError, RootKey, TenantKey, open, seal};
use holdfast_model::{ClusterId, TenantId};
use parking_lot::Mutex;

const TENANT_PURPOSE: &str = "tenant key";
const SECRET_PURPOSE: &str = "cluster secret";
const MAGIC: &[u8; 8] = b"HFROOT\x00\x01";
const FILE_SIZE: usize = MAGIC.len() + 16 + 32 + 4;

/// Why the keyring could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The key file cannot be read or written.
    #[error("root key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The key file is not what this program wrote.
    #[error(
        "root key file {0} is damaged or foreign; restore it from another node's state, do not delete it"
    )]
    Damaged(PathBuf),
    /// The key file belongs to another cluster.
    #[error("root key file {path} belongs to cluster {found}, this node is in {expected}")]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// Cluster named in the file.
        found: ClusterId,
        /// Cluster of the node.
        expected: ClusterId,
    },
    /// Something wrapped does not open.
    #[error(transparent)]
    Crypt(#[from] CryptError),
}

/// An unlocked root key and the tenant keys opened with it so far.
pub struct Keyring {
    cluster: ClusterId,
    root: RootKey,
    tenants: Mutex<HashMap<TenantId, (Vec<u8>, Arc<TenantKey>)>>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Keyring {
    /// A keyring over a root key that was generated or received.
    #[must_use]
    pub fn new(cluster: ClusterId, root: RootKey) -> Self {
        Self { cluster, root, tenants: Mutex::default() }
    }

    /// Reads the root key of `cluster` from `state_dir`.
    ///
    /// # Errors
    /// [`KeyringError`]; a missing file is `Io` with `NotFound`.
    pub fn load(state_dir: &Path, cluster: ClusterId) -> Result<Self, KeyringError> {
        let path = key_path(state_dir);
        let bytes = fs::read(&path).map_err(|source| KeyringError::Io { path: path.clone(), source })?;
        let whole = bytes.len() == FILE_SIZE
            && bytes.starts_with(MAGIC)
            && crc32c::crc32c(&bytes[..FILE_SIZE - 4]).to_le_bytes() == bytes[FILE_SIZE - 4..];
        if !whole {
            return Err(KeyringError::Damaged(path));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[8..24]);
        let found = ClusterId::from_bytes(id);
        if found != cluster {
            return Err(KeyringError::OtherCluster { path, found, expected: cluster });
        }
        let mut root = [0; 32];
        root.copy_from_slice(&bytes[24..56]);
        Ok(Self::new(cluster, RootKey::from_bytes(root)))
    }

    /// Writes the root key into `state_dir`, whole or not at all.
    ///
    /// # Errors
    /// `Io`.
    pub fn store(&self, state_dir: &Path) -> Result<(), KeyringError> {
        let path = key_path(state_dir);
        self.store_at(&path).map_err(|source| KeyringError::Io { path, source })
    }

    fn store_at(&self, path: &Path) -> io::Result<()> {
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(dir)?;
        let mut bytes = Vec::with_capacity(FILE_SIZE);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.cluster.as_bytes());
        bytes.extend_from_slice(self.root.expose());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let beside = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(dir)?.sync_all()
    }

    /// The root key, to hand to a node that was admitted.
    #[must_use]
    pub fn root(&self) -> &RootKey {
        &self.root
    }

    /// Wraps a tenant's key.
    #[must_use]
    pub fn wrap_tenant(&self, tenant: TenantId, key: &TenantKey) -> Vec<u8> {
        seal(self.root.expose(), TENANT_PURPOSE, &self.context(tenant.as_bytes()), key.expose())
    }

    /// Opens a tenant's key; remembers it as long as the wrapped form stays the same.
    ///
    /// # Errors
    /// `Crypt` when it was not wrapped under this root for this tenant.
    pub fn tenant(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Arc<TenantKey>, KeyringError> {
        if let Some((known, key)) = self.tenants.lock().get(&tenant)
            && known == wrapped
        {
            return Ok(Arc::clone(key));
        }
        let bytes = open(self.root.expose(), TENANT_PURPOSE, &self.context(tenant.as_bytes()), wrapped)?;
        let bytes: [u8; 32] =
            bytes.as_slice().try_into().map_err(|_| CryptError::Malformed(TENANT_PURPOSE))?;
        let key = Arc::new(TenantKey::from_bytes(bytes));
        self.tenants.lock().insert(tenant, (wrapped.to_vec(), Arc::clone(&key)));
        Ok(key)
    }

    /// Seals a secret of the cluster's own (CA key, an access key's secret) under its name.
    #[must_use]
    pub fn seal_secret(&self, name: &str, secret: &[u8]) -> Vec<u8> {
        seal(self.root.expose(), SECRET_PURPOSE, &self.context(name.as_bytes()), secret)
    }

    /// Opens what [`Keyring::seal_secret`] made under the same name.
    ///
    /// # Errors
    /// `Crypt`.
    pub fn open_secret(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyringError> {
        Ok(open(self.root.expose(), SECRET_PURPOSE, &self.context(name.as_bytes()), sealed)?.to_vec())
    }

    fn context(&self, what: &[u8]) -> Vec<u8> {
        [self.cluster.as_bytes().as_slice(), what].concat()
    }
}

fn key_path(state_dir: &Path) -> PathBuf {
    state_dir.join("keys").join("root.key")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

    #[test]
    fn a_stored_root_opens_what_it_wrapped() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::new(CLUSTER, RootKey::generate());
        let tenant = TenantId::from_bytes([2; 16]);
        let key = TenantKey::generate();
        let wrapped = ring.wrap_tenant(tenant, &key);
        ring.store(dir.path()).unwrap();
        let again = Keyring::load(dir.path(), CLUSTER).unwrap();
        assert_eq!(again.tenant(tenant, &wrapped).unwrap().expose(), key.expose());
        assert!(again.tenant(TenantId::from_bytes([3; 16]), &wrapped).is_err());
        let sealed = ring.seal_secret("ca", b"key");
        assert_eq!(again.open_secret("ca", &sealed).unwrap(), b"key");
        assert!(again.open_secret("other", &sealed).is_err());
    }

    #[test]
    fn damage_and_foreign_files_are_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        Keyring::new(CLUSTER, RootKey::generate()).store(dir.path()).unwrap();
        assert!(matches!(
            Keyring::load(dir.path(), ClusterId::from_bytes([9; 16])),
            Err(KeyringError::OtherCluster { .. })
        ));
        let path = key_path(dir.path());
        let whole = fs::read(&path).unwrap();
        for i in 0..whole.len() {
            let mut changed = whole.clone();
            changed[i] ^= 0x10;
            fs::write(&path, &changed).unwrap();
            assert!(matches!(Keyring::load(dir.path(), CLUSTER), Err(KeyringError::Damaged(_))), "byte {i}");
        }
        assert!(path.exists());
    }
}
