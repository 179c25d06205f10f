//! Keys in memory: the roots this node has unlocked, the cluster key and the tenants' keys.
//!
//! A keyring begins locked. A root comes in when it has been made, or put together from shares; the
//! control state then says what it wraps ([`Keyring::learn`]). While one root takes the other's place both
//! are here, and everything wrapped names the epoch it was wrapped in.

mod external;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use holdfast_crypt::{
    CertificateSigner, ClusterKey, CryptError, Root, TenantKey, TenantMetadata, WrappedTenant, epoch_of,
};
use holdfast_model::{ClusterId, KeyId, RootEpoch, TenantId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub use external::ExternalSealing;

/// Why something was not opened or sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The root is not here: this node is locked, or has not heard of that epoch yet.
    #[error("the root key of epoch {} is not unlocked on this node", epoch.get())]
    Locked {
        /// Which.
        epoch: RootEpoch,
    },
    /// The control state has not come yet, or holds no cluster key.
    #[error("the cluster key is not known yet on this node")]
    NoClusterKey,
    /// The tenant's key is sealed under a key of its external key service, which is not here.
    #[error("it waits for the tenant's external key service ({service})")]
    WaitsForExternal {
        /// The service's key, for people.
        service: String,
    },
    /// Something wrapped does not open.
    #[error(transparent)]
    Crypt(#[from] CryptError),
}

/// The keys of a running node.
pub struct Keyring {
    cluster: ClusterId,
    state: RwLock<State>,
    tenants: Mutex<HashMap<TenantId, (Vec<u8>, Arc<TenantKey>)>>,
    /// The parts of them that need no external service, as wrapped.
    metadata: Mutex<HashMap<TenantId, (Vec<u8>, Arc<TenantMetadata>)>>,
    /// Keys that tenants' external services gave back.
    external: Mutex<HashMap<TenantId, external::Offered>>,
    /// Holds the number of changes of the roots that are here.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    roots: BTreeMap<RootEpoch, Arc<Root>>,
    /// What the control state names as current; before it is known, the newest that is here.
    current: Option<RootEpoch>,
    /// Its wrapped form, so that a new one is noticed.
    cluster_key: Option<(Vec<u8>, ClusterKey)>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let epochs: Vec<RootEpoch> = self.state.read().roots.keys().copied().collect();
        f.debug_struct("Keyring").field("epochs", &epochs).finish_non_exhaustive()
    }
}

impl Keyring {
    /// A keyring of `cluster` with nothing in it.
    #[must_use]
    pub fn locked(cluster: ClusterId) -> Self {
        let (changes, _) = watch::channel(0);
        Self {
            cluster,
            state: RwLock::default(),
            tenants: Mutex::default(),
            metadata: Mutex::default(),
            external: Mutex::default(),
            changes,
        }
    }

    /// The cluster whose keys these are.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Puts an unlocked root in, in the place of one of its epoch that never came into force.
    pub fn add_root(&self, root: Root) {
        self.state.write().roots.insert(root.epoch(), Arc::new(root));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Forgets every root of an epoch that `keep` does not hold.
    pub fn retain_roots(&self, keep: impl Fn(RootEpoch) -> bool) {
        let before = {
            let mut state = self.state.write();
            let before = state.roots.len();
            state.roots.retain(|epoch, _| keep(*epoch));
            before - state.roots.len()
        };
        if before > 0 {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Changes with every root that comes or goes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Epochs of the roots that are here.
    #[must_use]
    pub fn epochs(&self) -> Vec<RootEpoch> {
        self.state.read().roots.keys().copied().collect()
    }

    /// Whether the root of an epoch is here, by its name.
    #[must_use]
    pub fn has(&self, epoch: RootEpoch, root: KeyId) -> bool {
        self.state.read().roots.get(&epoch).is_some_and(|known| known.id() == root)
    }

    /// Whether no root is here.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.state.read().roots.is_empty()
    }

    /// The root of an epoch.
    ///
    /// # Errors
    /// `Locked`.
    pub fn root(&self, epoch: RootEpoch) -> Result<Arc<Root>, KeyringError> {
        self.state.read().roots.get(&epoch).cloned().ok_or(KeyringError::Locked { epoch })
    }

    /// The root that wraps.
    ///
    /// # Errors
    /// `Locked`.
    pub fn current(&self) -> Result<Arc<Root>, KeyringError> {
        let state = self.state.read();
        let epoch = state.current.or_else(|| state.roots.keys().next_back().copied()).unwrap_or_default();
        state.roots.get(&epoch).cloned().ok_or(KeyringError::Locked { epoch })
    }

    /// Takes note of what the control state says: the current epoch and the wrapped cluster key.
    ///
    /// # Errors
    /// `Locked` when the root of that epoch is not here (yet); `Crypt`.
    pub fn learn(&self, current: RootEpoch, wrapped: &[u8]) -> Result<(), KeyringError> {
        let root = {
            let mut state = self.state.write();
            state.current = Some(current);
            if state.cluster_key.as_ref().is_some_and(|(known, _)| known == wrapped) {
                return Ok(());
            }
            let epoch = epoch_of(wrapped).unwrap_or_default();
            state.roots.get(&epoch).cloned().ok_or(KeyringError::Locked { epoch })?
        };
        let key = root.unwrap_cluster_key(wrapped)?;
        self.state.write().cluster_key = Some((wrapped.to_vec(), key));
        Ok(())
    }

    /// Wraps a tenant's key under the current root.
    ///
    /// # Errors
    /// `Locked`.
    pub fn wrap_tenant(&self, tenant: TenantId, key: &TenantKey) -> Result<Vec<u8>, KeyringError> {
        Ok(self.current()?.wrap_tenant(tenant, key))
    }

    /// Opens a tenant's key; remembers it as long as the wrapped form stays the same.
    ///
    /// # Errors
    /// `Locked`; `WaitsForExternal`; `Crypt` when it was not wrapped by that root for this tenant.
    pub fn tenant(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Arc<TenantKey>, KeyringError> {
        if let Some((known, key)) = self.tenants.lock().get(&tenant)
            && known == wrapped
        {
            return Ok(Arc::clone(key));
        }
        let root = self.root(epoch_of(wrapped).unwrap_or_default())?;
        let key = match root.open_tenant(tenant, wrapped)? {
            WrappedTenant::Plain(key) => Arc::new(key),
            WrappedTenant::External(sealed) => return self.open_external(tenant, wrapped, &sealed),
        };
        self.tenants.lock().insert(tenant, (wrapped.to_vec(), Arc::clone(&key)));
        Ok(key)
    }

    /// Forgets the keys of every tenant that `keep` does not hold.
    pub fn retain_tenants(&self, keep: impl Fn(TenantId) -> bool) {
        self.tenants.lock().retain(|tenant, _| keep(*tenant));
        self.metadata.lock().retain(|tenant, _| keep(*tenant));
        self.external.lock().retain(|tenant, _| keep(*tenant));
    }

    /// The public name of the cluster key, for comparing; `None` until it is known.
    #[must_use]
    pub fn cluster_key_id(&self) -> Option<KeyId> {
        self.state.read().cluster_key.as_ref().map(|(_, key)| key.id())
    }

    /// The cluster key, to be wrapped anew.
    ///
    /// # Errors
    /// `NoClusterKey`.
    pub fn cluster_key(&self) -> Result<ClusterKey, KeyringError> {
        let state = self.state.read();
        state.cluster_key.as_ref().map(|(_, key)| key.clone()).ok_or(KeyringError::NoClusterKey)
    }

    /// What signs certificates.
    ///
    /// # Errors
    /// `NoClusterKey`.
    pub fn certificate_signer(&self) -> Result<CertificateSigner, KeyringError> {
        Ok(self.cluster_key()?.certificate_signer())
    }

    /// Whether a tenant's key is in memory.
    #[must_use]
    pub fn remembers(&self, tenant: TenantId) -> bool {
        self.tenants.lock().contains_key(&tenant)
            || self.metadata.lock().contains_key(&tenant)
            || self.external.lock().contains_key(&tenant)
    }

    /// Seals a secret of the cluster's own (an access key's secret) under its name.
    ///
    /// # Errors
    /// `NoClusterKey`.
    pub fn seal_secret(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, KeyringError> {
        Ok(self.cluster_key()?.seal_secret(self.cluster, name, secret))
    }

    /// Opens what [`Keyring::seal_secret`] made under the same name.
    ///
    /// # Errors
    /// `NoClusterKey` or `Crypt`.
    pub fn open_secret(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyringError> {
        Ok(self.cluster_key()?.open_secret(self.cluster, name, sealed)?.to_vec())
    }

    /// Seals under the root itself what must open before the control state is there.
    ///
    /// # Errors
    /// `Locked`.
    pub fn seal_record(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, KeyringError> {
        Ok(self.current()?.seal_record(name, plain))
    }

    /// Opens what [`Keyring::seal_record`] made under the same name.
    ///
    /// # Errors
    /// `Locked` or `Crypt`.
    pub fn open_record(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let root = self.root(epoch_of(sealed).unwrap_or_default())?;
        Ok(root.open_record(name, sealed)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
    const TENANT: TenantId = TenantId::from_bytes([2; 16]);

    fn root(epoch: u32) -> Root {
        Root::generate(CLUSTER, RootEpoch::new(epoch))
    }

    #[test]
    fn a_locked_keyring_says_which_root_it_needs() {
        let ring = Keyring::locked(CLUSTER);
        let wrapped = root(3).wrap_tenant(TENANT, &TenantKey::generate());
        let locked = KeyringError::Locked { epoch: RootEpoch::new(3) };
        assert_eq!(ring.tenant(TENANT, &wrapped).unwrap_err(), locked);
        assert!(ring.is_locked() && ring.current().is_err());
        assert_eq!(ring.seal_secret("x", b"y"), Err(KeyringError::NoClusterKey));
    }

    #[test]
    fn two_roots_are_in_force_until_one_is_let_go() {
        let ring = Keyring::locked(CLUSTER);
        let (old, new) = (root(1), root(2));
        let (cluster_key, key) = (ClusterKey::generate(), TenantKey::generate());
        ring.add_root(old.clone());
        ring.learn(RootEpoch::new(1), &old.wrap_cluster_key(&cluster_key)).unwrap();
        let sealed = ring.seal_secret("ca", b"key").unwrap();
        let (before, record) =
            (ring.wrap_tenant(TENANT, &key).unwrap(), ring.seal_record("r", b"x").unwrap());
        let again = new.wrap_cluster_key(&cluster_key);
        assert!(matches!(ring.learn(RootEpoch::new(2), &again), Err(KeyringError::Locked { .. })));
        ring.add_root(new.clone());
        ring.learn(RootEpoch::new(2), &again).unwrap();
        assert_eq!(ring.open_secret("ca", &sealed).unwrap(), b"key");
        assert_eq!(ring.tenant(TENANT, &before).unwrap().to_bytes(), key.to_bytes());
        assert_eq!(ring.open_record("r", &record).unwrap(), b"x");
        let after = ring.wrap_tenant(TENANT, &key).unwrap();
        assert_eq!(epoch_of(&after), Some(RootEpoch::new(2)));
        ring.retain_roots(|epoch| epoch.get() == 2);
        ring.retain_tenants(|_| false);
        assert!(ring.tenant(TENANT, &before).is_err() && ring.open_record("r", &record).is_err());
        assert!(ring.tenant(TENANT, &after).is_ok());
        assert!(ring.tenant(TenantId::from_bytes([3; 16]), &after).is_err());
    }
}
