//! Keys of a tenant as those see them who do not hold its key: body keys one at a time, for a stated use, and what
//! is derived for the catalog.
//!
//! A [`TenantKey`] is its own custodian where it may be in memory (simulation, recovery, the key service itself). A
//! running node asks its key service.

use std::{fmt, sync::Arc};

use holdfast_model::StripeId;
use zeroize::Zeroizing;

use crate::{BodyContext, CryptError, MetadataKey, OuterKey, TenantKey, tenant};

/// What a body key, or a key beside it, is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyUse {
    /// A client writes.
    Write,
    /// A client reads.
    Read,
    /// The node's own work, whatever clients may do.
    Background,
}

/// Why a custodian did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CustodyError {
    /// It does not open.
    #[error(transparent)]
    Crypt(#[from] CryptError),
    /// The key is not to be had now: locked, or whoever holds it does not answer. It may come back.
    #[error("{0}")]
    Unavailable(String),
}

/// Whoever holds a tenant's key.
pub trait TenantCustody: fmt::Debug + Send + Sync {
    /// Wraps the secret of a body: its key, or that under an outer key. Returns what [`crate::SealedBodyKey`] holds
    /// after the content's id.
    ///
    /// # Errors
    /// See [`CustodyError`].
    fn wrap_body(
        &self,
        wanted: BodyUse,
        context: &BodyContext,
        name: &str,
        secret: &[u8],
    ) -> Result<Vec<u8>, CustodyError>;

    /// Opens what [`TenantCustody::wrap_body`] made for the same body and name.
    ///
    /// # Errors
    /// See [`CustodyError`].
    fn unwrap_body(
        &self,
        wanted: BodyUse,
        context: &BodyContext,
        name: &str,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CustodyError>;

    /// The tenant's named key `id`.
    ///
    /// # Errors
    /// See [`CustodyError`].
    fn named_key(&self, wanted: BodyUse, id: &str) -> Result<OuterKey, CustodyError>;

    /// What seals its metadata.
    fn metadata(&self) -> Arc<TenantMetadata>;
}

impl TenantCustody for TenantKey {
    fn wrap_body(
        &self,
        _wanted: BodyUse,
        context: &BodyContext,
        name: &str,
        secret: &[u8],
    ) -> Result<Vec<u8>, CustodyError> {
        Ok(self.wrap_body_secret(context, name, secret))
    }

    fn unwrap_body(
        &self,
        _wanted: BodyUse,
        context: &BodyContext,
        name: &str,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        Ok(self.unwrap_body_secret(context, name, wrapped)?)
    }

    fn named_key(&self, _wanted: BodyUse, id: &str) -> Result<OuterKey, CustodyError> {
        Ok(self.named(id))
    }

    fn metadata(&self) -> Arc<TenantMetadata> {
        Arc::new(TenantKey::metadata(self))
    }
}

/// Keys derived from every version of a tenant's key that seal its metadata: the catalog's files and commands,
/// manifests, its part of the second copy. They open no object's content, and the tenant's key does not follow from
/// them.
#[derive(Debug, Clone)]
pub struct TenantMetadata {
    /// In rising order, never empty.
    versions: Vec<(u32, MetadataKey)>,
}

impl TenantMetadata {
    /// Takes keys as they were derived, in rising order of their versions.
    ///
    /// # Errors
    /// `Malformed` when there is none, or they are in another order.
    pub fn new(versions: Vec<(u32, MetadataKey)>) -> Result<Self, CryptError> {
        let rising = versions.is_sorted_by(|a, b| a.0 < b.0);
        if versions.is_empty() || !rising {
            return Err(CryptError::Malformed("metadata keys of a tenant"));
        }
        Ok(Self { versions })
    }

    /// All of them.
    #[must_use]
    pub fn versions(&self) -> &[(u32, MetadataKey)] {
        &self.versions
    }

    /// As [`TenantKey::metadata_key`].
    #[must_use]
    pub fn metadata_key(&self) -> &MetadataKey {
        &self.versions.first().expect("there is a version").1
    }

    /// As [`TenantKey::seal_manifest`].
    #[must_use]
    pub fn seal_manifest(&self, stripe: &StripeId, manifest: &[u8]) -> Vec<u8> {
        let (version, key) = self.versions.last().expect("there is a version");
        tenant::seal_manifest(*version, key, stripe, manifest, crate::random_array())
    }

    /// As [`TenantKey::open_manifest`].
    ///
    /// # Errors
    /// `Refused` or `Malformed`.
    pub fn open_manifest(&self, stripe: &StripeId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        tenant::open_manifest(stripe, sealed, |version| {
            self.versions.iter().find(|(known, _)| *known == version).map(|(_, key)| key.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRIPE: StripeId = StripeId::from_bytes([1; 16]);

    #[test]
    fn what_is_derived_seals_and_opens_as_the_tenants_key_does() {
        let key = TenantKey::generate();
        let newer = key.rotated().unwrap();
        let (before, derived) = (key.seal_manifest(&STRIPE, b"1"), TenantKey::metadata(&newer));
        assert_eq!(derived.open_manifest(&STRIPE, &before).unwrap().as_slice(), b"1");
        assert_eq!(
            newer.open_manifest(&STRIPE, &derived.seal_manifest(&STRIPE, b"2")).unwrap().as_slice(),
            b"2"
        );
        assert!(key.open_manifest(&STRIPE, &derived.seal_manifest(&STRIPE, b"2")).is_err());
        assert_eq!(derived.metadata_key().expose(), key.metadata_key().expose());
        let mut turned = derived.versions().to_vec();
        turned.reverse();
        assert!(TenantMetadata::new(turned).is_err() && TenantMetadata::new(Vec::new()).is_err());
    }
}
