//! The root key of one epoch and what it wraps.
//!
//! Everything wrapped by a root names its epoch first, so that two roots can be in force while one takes
//! the other's place:
//!
//! | offset | size | field                                                            |
//! |-------:|-----:|------------------------------------------------------------------|
//! |      0 |    4 | epoch of the root, big-endian                                    |
//! |      4 |    n | envelope; associated data: cluster (16), epoch (4), name (rest)  |

use std::fmt;

use holdfast_model::{ClusterId, KeyId, RootEpoch, TenantId};
use zeroize::Zeroizing;

use crate::{
    CryptError, envelope,
    external::{ExternallySealed, WrappedTenant},
    labels,
    secret::{ClusterKey, RootKey},
    shamir::{self, Share},
    tenant::TenantKey,
};

const EPOCH_SIZE: usize = 4;

/// A root key in its place: one cluster, one epoch.
#[derive(Clone)]
pub struct Root {
    cluster: ClusterId,
    epoch: RootEpoch,
    key: RootKey,
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// The epoch of the root that wrapped something.
#[must_use]
pub fn epoch_of(wrapped: &[u8]) -> Option<RootEpoch> {
    wrapped.first_chunk().map(|bytes| RootEpoch::new(u32::from_be_bytes(*bytes)))
}

impl Root {
    /// A fresh root.
    #[must_use]
    pub fn generate(cluster: ClusterId, epoch: RootEpoch) -> Self {
        Self { cluster, epoch, key: RootKey::generate() }
    }

    /// A root from its bytes.
    #[must_use]
    pub fn new(cluster: ClusterId, epoch: RootEpoch, key: RootKey) -> Self {
        Self { cluster, epoch, key }
    }

    /// Puts a root together from shares, if they are of the root named `id`.
    ///
    /// # Errors
    /// `Malformed` for a set that is none; `Refused` when it gives another key: a wrong share, one of
    /// another splitting, or too few.
    pub fn combine(
        cluster: ClusterId,
        epoch: RootEpoch,
        id: KeyId,
        shares: &[Share],
    ) -> Result<Self, CryptError> {
        let key = RootKey::from_bytes(*shamir::combine(shares)?);
        if key.id() == id {
            Ok(Self { cluster, epoch, key })
        } else {
            Err(CryptError::Refused("set of shares"))
        }
    }

    /// Splits this root anew.
    ///
    /// # Errors
    /// See [`shamir::split`].
    pub fn split(&self, threshold: u8, count: u8) -> Result<Vec<Share>, CryptError> {
        shamir::split(self.key.expose(), threshold, count)
    }

    /// Its version.
    #[must_use]
    pub fn epoch(&self) -> RootEpoch {
        self.epoch
    }

    /// Its public name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.key.id()
    }

    /// Wraps a tenant's key.
    #[must_use]
    pub fn wrap_tenant(&self, tenant: TenantId, key: &TenantKey) -> Vec<u8> {
        self.seal(labels::TENANT_KEY, tenant.as_bytes(), &key.to_bytes())
    }

    /// Opens what [`Root::wrap_tenant`] made for the same tenant.
    ///
    /// # Errors
    /// `Refused` or `Malformed`.
    pub fn unwrap_tenant(&self, tenant: TenantId, wrapped: &[u8]) -> Result<TenantKey, CryptError> {
        TenantKey::from_bytes(&self.open(labels::TENANT_KEY, tenant.as_bytes(), wrapped)?)
    }

    /// Wraps a tenant's key that is sealed under its external key.
    #[must_use]
    pub fn wrap_external(&self, tenant: TenantId, sealed: &ExternallySealed) -> Vec<u8> {
        self.seal(labels::TENANT_KEY, tenant.as_bytes(), &sealed.encode())
    }

    /// Opens what [`Root::wrap_tenant`] or [`Root::wrap_external`] made for the same tenant.
    ///
    /// # Errors
    /// `Refused` or `Malformed`.
    pub fn open_tenant(&self, tenant: TenantId, wrapped: &[u8]) -> Result<WrappedTenant, CryptError> {
        WrappedTenant::parse(&self.open(labels::TENANT_KEY, tenant.as_bytes(), wrapped)?)
    }

    /// Wraps a tenant's key, in whichever form it is, for `next`. Needs no external key.
    ///
    /// # Errors
    /// `Refused` or `Malformed`.
    pub fn rewrap_tenant(
        &self,
        tenant: TenantId,
        wrapped: &[u8],
        next: &Self,
    ) -> Result<Vec<u8>, CryptError> {
        let plain = self.open(labels::TENANT_KEY, tenant.as_bytes(), wrapped)?;
        WrappedTenant::parse(&plain)?;
        Ok(next.seal(labels::TENANT_KEY, tenant.as_bytes(), &plain))
    }

    /// Wraps the cluster key.
    #[must_use]
    pub fn wrap_cluster_key(&self, key: &ClusterKey) -> Vec<u8> {
        self.seal(labels::CLUSTER_KEY, b"", key.expose())
    }

    /// Opens what [`Root::wrap_cluster_key`] made.
    ///
    /// # Errors
    /// `Refused` or `Malformed`.
    pub fn unwrap_cluster_key(&self, wrapped: &[u8]) -> Result<ClusterKey, CryptError> {
        let bytes = self.open(labels::CLUSTER_KEY, b"", wrapped)?;
        let bytes: &[u8; 32] =
            bytes.as_slice().try_into().map_err(|_| CryptError::Malformed(labels::CLUSTER_KEY))?;
        Ok(ClusterKey::from_bytes(*bytes))
    }

    /// Seals what must open before the control state is there: its second copy, the CA's key at founding.
    #[must_use]
    pub fn seal_record(&self, name: &str, plain: &[u8]) -> Vec<u8> {
        self.seal(labels::ROOT_RECORD, name.as_bytes(), plain)
    }

    /// Opens what [`Root::seal_record`] made under the same name.
    ///
    /// # Errors
    /// `Refused` or `Malformed`.
    pub fn open_record(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        self.open(labels::ROOT_RECORD, name.as_bytes(), sealed)
    }

    fn seal(&self, purpose: &'static str, name: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut wrapped = self.epoch.get().to_be_bytes().to_vec();
        wrapped.extend(envelope::seal(self.key.expose(), purpose, &self.context(name), plain));
        wrapped
    }

    fn open(
        &self,
        purpose: &'static str,
        name: &[u8],
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        if epoch_of(wrapped) != Some(self.epoch) {
            return Err(CryptError::Refused(purpose));
        }
        envelope::open(self.key.expose(), purpose, &self.context(name), &wrapped[EPOCH_SIZE..])
    }

    fn context(&self, name: &[u8]) -> Vec<u8> {
        [self.cluster.as_bytes().as_slice(), &self.epoch.get().to_be_bytes(), name].concat()
    }
}

impl ClusterKey {
    /// Seals a secret of the cluster (the CA's key, an access key's secret) under its name.
    #[must_use]
    pub fn seal_secret(&self, cluster: ClusterId, name: &str, secret: &[u8]) -> Vec<u8> {
        envelope::seal(self.expose(), labels::CLUSTER_SECRET, &named(cluster, name), secret)
    }

    /// Opens what [`ClusterKey::seal_secret`] made under the same name.
    ///
    /// # Errors
    /// `Refused` or `Malformed`.
    pub fn open_secret(
        &self,
        cluster: ClusterId,
        name: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        envelope::open(self.expose(), labels::CLUSTER_SECRET, &named(cluster, name), sealed)
    }
}

fn named(cluster: ClusterId, name: &str) -> Vec<u8> {
    [cluster.as_bytes().as_slice(), name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
    const TENANT: TenantId = TenantId::from_bytes([2; 16]);

    #[test]
    fn a_wrapped_key_opens_under_its_root_epoch_cluster_and_tenant_only() {
        let bytes = RootKey::generate();
        let root = |cluster, epoch| Root::new(cluster, RootEpoch::new(epoch), bytes.clone());
        let key = TenantKey::generate();
        let wrapped = root(CLUSTER, 3).wrap_tenant(TENANT, &key);
        assert_eq!(epoch_of(&wrapped), Some(RootEpoch::new(3)));
        assert_eq!(root(CLUSTER, 3).unwrap_tenant(TENANT, &wrapped).unwrap().to_bytes(), key.to_bytes());
        assert!(root(CLUSTER, 4).unwrap_tenant(TENANT, &wrapped).is_err());
        assert!(root(ClusterId::from_bytes([9; 16]), 3).unwrap_tenant(TENANT, &wrapped).is_err());
        assert!(root(CLUSTER, 3).unwrap_tenant(TenantId::from_bytes([3; 16]), &wrapped).is_err());
        assert!(root(CLUSTER, 3).unwrap_cluster_key(&wrapped).is_err(), "another purpose");
        let mut moved = wrapped.clone();
        moved[3] = 4;
        assert!(root(CLUSTER, 4).unwrap_tenant(TENANT, &moved).is_err(), "the epoch is bound");
        assert!(root(CLUSTER, 3).unwrap_tenant(TENANT, &wrapped[..3]).is_err());
        let other = Root::generate(CLUSTER, RootEpoch::new(3));
        assert!(other.unwrap_tenant(TENANT, &wrapped).is_err());
    }

    #[test]
    fn a_root_is_put_together_from_its_own_shares_only() {
        let root = Root::generate(CLUSTER, RootEpoch::new(1));
        let (one, two) = (root.split(2, 3).unwrap(), root.split(2, 3).unwrap());
        let combine = |shares: &[Share]| Root::combine(CLUSTER, RootEpoch::new(1), root.id(), shares);
        let sealed = root.seal_record("x", b"plain");
        assert_eq!(combine(&one[1..]).unwrap().open_record("x", &sealed).unwrap().as_slice(), b"plain");
        assert!(combine(&[one[0].clone(), two[1].clone()]).is_err(), "two splittings");
        assert!(combine(&one[..1]).is_err(), "too few");
        assert!(root.open_record("y", &sealed).is_err());
    }

    #[test]
    fn secrets_open_under_their_name() {
        let key = ClusterKey::generate();
        let sealed = key.seal_secret(CLUSTER, "ca", b"key");
        assert_eq!(key.open_secret(CLUSTER, "ca", &sealed).unwrap().as_slice(), b"key");
        assert!(key.open_secret(CLUSTER, "session", &sealed).is_err());
        assert!(ClusterKey::generate().open_secret(CLUSTER, "ca", &sealed).is_err());
    }
}
