//! Keys of a tenant as those see them who do not hold its key: body keys one at a time, for a stated use, and what
//! is derived for the catalog.
//!
//! A [`TenantKey`] is its own custodian where it may be in memory (simulation, recovery, the key service itself). A
//! running node asks its key service.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use crate::{BodyContext, CryptError, OuterKey, TenantKey, TenantMetadata};

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
