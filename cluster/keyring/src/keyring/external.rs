//! Tenants' keys that are sealed under a key of the tenant's own external service.
//!
//! Nothing here speaks to a service: who does hands in the key that it gave back ([`Keyring::offer_external`]) and
//! takes it out again when the service refuses ([`Keyring::drop_external`]). From then on the tenant's key is in no
//! memory but that of requests in progress.
//!
//! A key that is in memory stays there when only its wrapping changes: whether the service still allows it is the
//! business of whoever asks the service.

use std::sync::Arc;

use holdfast_crypt::{
    ExternalKek, ExternallySealed, Root, TenantKey, TenantMetadata, WrappedTenant, epoch_of,
};
use holdfast_model::TenantId;
use serde::{Deserialize, Serialize};

use super::{Keyring, KeyringError};

/// A key that a service gave back.
pub(super) struct Offered {
    /// What it was given back for.
    ciphertext: String,
    kek: ExternalKek,
}

/// How a tenant's key is sealed, as far as who asks the service must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalSealing {
    /// Which settings say how the service is reached.
    pub service: [u8; 16],
    /// The service's key, for people.
    pub description: String,
    /// What the service is to decrypt.
    pub ciphertext: String,
}

impl Keyring {
    fn open_wrapped(&self, tenant: TenantId, wrapped: &[u8]) -> Result<WrappedTenant, KeyringError> {
        let root = self.root(epoch_of(wrapped).unwrap_or_default())?;
        Ok(root.open_tenant(tenant, wrapped)?)
    }

    /// What a tenant's metadata is sealed under; remembered as long as the wrapped form stays the same. Needs the root
    /// alone, whoever else the tenant's key waits for.
    ///
    /// # Errors
    /// `Locked`, or `Crypt` when it was not wrapped by that root for this tenant.
    pub fn tenant_metadata(
        &self,
        tenant: TenantId,
        wrapped: &[u8],
    ) -> Result<Arc<TenantMetadata>, KeyringError> {
        if let Some((known, metadata)) = self.metadata.lock().get(&tenant)
            && known == wrapped
        {
            return Ok(Arc::clone(metadata));
        }
        let metadata = Arc::new(self.open_wrapped(tenant, wrapped)?.metadata());
        self.metadata.lock().insert(tenant, (wrapped.to_vec(), Arc::clone(&metadata)));
        Ok(metadata)
    }

    /// How a tenant's key is sealed; `None` when the root alone opens it.
    ///
    /// # Errors
    /// As [`Keyring::tenant_metadata`].
    pub fn external_sealing(
        &self,
        tenant: TenantId,
        wrapped: &[u8],
    ) -> Result<Option<ExternalSealing>, KeyringError> {
        Ok(match self.open_wrapped(tenant, wrapped)? {
            WrappedTenant::Plain(_) => None,
            WrappedTenant::External(ExternallySealed { service, description, ciphertext, .. }) => {
                Some(ExternalSealing { service, description, ciphertext })
            }
        })
    }

    /// Takes the key that a tenant's service gave back for `ciphertext`. It is kept until it is dropped; another
    /// takes its place.
    pub fn offer_external(&self, tenant: TenantId, ciphertext: &str, kek: ExternalKek) {
        let offered = Offered { ciphertext: ciphertext.to_owned(), kek };
        self.external.lock().insert(tenant, offered);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Whether the key that a service gave back for `ciphertext` is here.
    #[must_use]
    pub fn has_external(&self, tenant: TenantId, ciphertext: &str) -> bool {
        self.external.lock().get(&tenant).is_some_and(|offered| offered.ciphertext == ciphertext)
    }

    /// Forgets a tenant's external key and the key it opened. Returns whether there was one.
    pub fn drop_external(&self, tenant: TenantId) -> bool {
        // The order matters: what is opened meanwhile is forgotten as well.
        let had = self.external.lock().remove(&tenant).is_some();
        let opened = self.tenants.lock().remove(&tenant).is_some();
        if had || opened {
            self.changes.send_modify(|changes| *changes += 1);
        }
        had || opened
    }

    /// Seals a tenant's key under an external key and wraps that under the current root.
    ///
    /// # Errors
    /// `Locked`, or `Crypt` for texts that are too long.
    pub fn wrap_external(
        &self,
        tenant: TenantId,
        key: &TenantKey,
        kek: &ExternalKek,
        sealing: &ExternalSealing,
    ) -> Result<Vec<u8>, KeyringError> {
        let place = (self.cluster, tenant);
        let ExternalSealing { service, description, ciphertext } = sealing;
        let sealed = ExternallySealed::seal(place, key, kek, *service, description, ciphertext)?;
        Ok(self.current()?.wrap_external(tenant, &sealed))
    }

    /// Wraps `key` as `was` is wrapped: under the same external key, if under one. For one more version of a key.
    ///
    /// # Errors
    /// `Locked`, `WaitsForExternal`, `Crypt`.
    pub fn wrap_tenant_as(
        &self,
        tenant: TenantId,
        was: &[u8],
        key: &TenantKey,
    ) -> Result<Vec<u8>, KeyringError> {
        let WrappedTenant::External(sealed) = self.open_wrapped(tenant, was)? else {
            return self.wrap_tenant(tenant, key);
        };
        let kek = self.kek(tenant, &sealed).ok_or_else(|| waits(&sealed))?;
        let sealed = sealed.with_key((self.cluster, tenant), key, &kek)?;
        Ok(self.current()?.wrap_external(tenant, &sealed))
    }

    /// Wraps a tenant's key for a new root, in whichever form it is. Needs no external key.
    ///
    /// # Errors
    /// As [`Keyring::tenant_metadata`].
    pub fn rewrap_tenant(
        &self,
        tenant: TenantId,
        wrapped: &[u8],
        next: &Root,
    ) -> Result<Vec<u8>, KeyringError> {
        let root = self.root(epoch_of(wrapped).unwrap_or_default())?;
        Ok(root.rewrap_tenant(tenant, wrapped, next)?)
    }

    pub(super) fn open_external(
        &self,
        tenant: TenantId,
        wrapped: &[u8],
        sealed: &ExternallySealed,
    ) -> Result<Arc<TenantKey>, KeyringError> {
        // Held until it is remembered: nothing is once the external key was dropped.
        let external = self.external.lock();
        let mut tenants = self.tenants.lock();
        let offered = external.get(&tenant).filter(|offered| offered.ciphertext == sealed.ciphertext);
        let key = match offered {
            Some(offered) => Arc::new(sealed.open((self.cluster, tenant), &offered.kek)?),
            None => {
                let same = tenants.get(&tenant).filter(|(_, key)| key.ids() == sealed.metadata.ids());
                same.map(|(_, key)| Arc::clone(key)).ok_or_else(|| waits(sealed))?
            }
        };
        tenants.insert(tenant, (wrapped.to_vec(), Arc::clone(&key)));
        Ok(key)
    }

    fn kek(&self, tenant: TenantId, sealed: &ExternallySealed) -> Option<ExternalKek> {
        let external = self.external.lock();
        let offered = external.get(&tenant).filter(|offered| offered.ciphertext == sealed.ciphertext);
        offered.map(|offered| offered.kek.clone())
    }
}

fn waits(sealed: &ExternallySealed) -> KeyringError {
    KeyringError::WaitsForExternal { service: sealed.description.clone() }
}

#[cfg(test)]
mod tests {
    use holdfast_model::{ClusterId, RootEpoch};

    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
    const TENANT: TenantId = TenantId::from_bytes([2; 16]);
    const OTHER: TenantId = TenantId::from_bytes([3; 16]);

    fn unlocked(root: &Root) -> Keyring {
        let ring = Keyring::locked(CLUSTER);
        ring.add_root(root.clone());
        ring
    }

    fn sealing(ciphertext: &str) -> ExternalSealing {
        let description = "key k at s".to_owned();
        ExternalSealing { service: [7; 16], description, ciphertext: ciphertext.to_owned() }
    }

    fn waits_for_it<T>(result: Result<T, KeyringError>) -> bool {
        let is = |error: &KeyringError| matches!(error, KeyringError::WaitsForExternal { service } if service == "key k at s");
        result.as_ref().err().is_some_and(is)
    }

    #[test]
    fn a_key_opens_while_the_external_key_is_here_and_waits_for_it_otherwise() {
        let root = Root::generate(CLUSTER, RootEpoch::new(1));
        let (key, kek) = (TenantKey::generate(), ExternalKek::generate());
        let wrapped = unlocked(&root).wrap_external(TENANT, &key, &kek, &sealing("c1")).unwrap();
        let ring = unlocked(&root);
        assert!(waits_for_it(ring.tenant(TENANT, &wrapped)));
        assert_eq!(ring.tenant_metadata(TENANT, &wrapped).unwrap().ids(), key.ids());
        assert_eq!(ring.external_sealing(TENANT, &wrapped).unwrap(), Some(sealing("c1")));
        ring.offer_external(TENANT, "c2", kek.clone());
        assert!(waits_for_it(ring.tenant(TENANT, &wrapped)), "given back for something else");
        ring.offer_external(OTHER, "c1", kek.clone());
        assert!(waits_for_it(ring.tenant(TENANT, &wrapped)), "another tenant's");
        ring.offer_external(TENANT, "c1", ExternalKek::generate());
        assert!(matches!(ring.tenant(TENANT, &wrapped), Err(KeyringError::Crypt(_))), "a wrong one");
        let changes = ring.changes();
        ring.offer_external(TENANT, "c1", kek);
        assert_eq!(ring.tenant(TENANT, &wrapped).unwrap().to_bytes(), key.to_bytes());
        assert!(ring.remembers(TENANT) && ring.has_external(TENANT, "c1"));
        assert!(ring.drop_external(TENANT) && !ring.drop_external(TENANT));
        assert!(waits_for_it(ring.tenant(TENANT, &wrapped)));
        assert!(changes.has_changed().unwrap(), "who follows the keys hears of it");
    }

    #[test]
    fn a_key_in_memory_stays_when_only_its_wrapping_changes_and_goes_when_it_is_dropped() {
        let root = Root::generate(CLUSTER, RootEpoch::new(1));
        let ring = unlocked(&root);
        let (key, kek) = (TenantKey::generate(), ExternalKek::generate());
        let plain = ring.wrap_tenant(TENANT, &key).unwrap();
        ring.tenant(TENANT, &plain).unwrap();
        let external = ring.wrap_external(TENANT, &key, &kek, &sealing("c1")).unwrap();
        assert_eq!(ring.tenant(TENANT, &external).unwrap().to_bytes(), key.to_bytes());
        let next = ring.wrap_external(TENANT, &key.rotated().unwrap(), &kek, &sealing("c1")).unwrap();
        assert!(waits_for_it(ring.tenant(TENANT, &next)), "a version that was never here");
        ring.drop_external(TENANT);
        assert!(waits_for_it(ring.tenant(TENANT, &external)));
        assert!(ring.tenant(TENANT, &plain).is_ok(), "the root alone opens what was wrapped before");
    }

    #[test]
    fn one_more_version_is_sealed_under_the_same_external_key() {
        let root = Root::generate(CLUSTER, RootEpoch::new(1));
        let ring = unlocked(&root);
        let (key, kek) = (TenantKey::generate(), ExternalKek::generate());
        let was = ring.wrap_external(TENANT, &key, &kek, &sealing("c1")).unwrap();
        let next = key.rotated().unwrap();
        assert!(waits_for_it(ring.wrap_tenant_as(TENANT, &was, &next)));
        ring.offer_external(TENANT, "c1", kek);
        let now = ring.wrap_tenant_as(TENANT, &was, &next).unwrap();
        assert_eq!(ring.external_sealing(TENANT, &now).unwrap(), Some(sealing("c1")));
        assert_eq!(ring.tenant(TENANT, &now).unwrap().to_bytes(), next.to_bytes());
        let plain = ring.wrap_tenant(TENANT, &key).unwrap();
        let plain = ring.wrap_tenant_as(TENANT, &plain, &next).unwrap();
        assert_eq!(ring.external_sealing(TENANT, &plain).unwrap(), None);
    }

    #[test]
    fn a_root_takes_over_without_the_external_key() {
        let (old, new) =
            (Root::generate(CLUSTER, RootEpoch::new(1)), Root::generate(CLUSTER, RootEpoch::new(2)));
        let (key, kek) = (TenantKey::generate(), ExternalKek::generate());
        let ring = unlocked(&old);
        let was = ring.wrap_external(TENANT, &key, &kek, &sealing("c1")).unwrap();
        let now = ring.rewrap_tenant(TENANT, &was, &new).unwrap();
        let after = unlocked(&new);
        assert!(after.tenant(TENANT, &was).is_err(), "wrapped by the old root");
        assert!(waits_for_it(after.tenant(TENANT, &now)));
        after.offer_external(TENANT, "c1", kek);
        assert_eq!(after.tenant(TENANT, &now).unwrap().to_bytes(), key.to_bytes());
        after.retain_tenants(|_| false);
        assert!(!after.remembers(TENANT) && waits_for_it(after.tenant(TENANT, &now)));
    }
}
