//! Keys of tenants, and the external keys that some are sealed under.

use std::sync::Arc;

use holdfast_crypt::{ExternalKek, TenantMetadata};
use holdfast_keyring::ExternalSealing;
use holdfast_model::{KeyId, TenantId};

use super::{Client, RemoteTenant, odd, remote::open_tenant};
use crate::protocol::{Hidden, KeyError, Purpose, Reply, Request, Standing};

impl Client {
    /// Tells the service how tenants stand. Keys of others are forgotten.
    ///
    /// # Errors
    /// `Away`.
    pub fn set_standings(&self, standings: Vec<(TenantId, Standing)>) -> Result<(), KeyError> {
        let lives = |tenant: TenantId| {
            standings.iter().any(|(known, standing)| *known == tenant && *standing != Standing::Destroyed)
        };
        self.tenants.lock().retain(|tenant, _| lives(*tenant));
        self.change(Request::Standings(standings))
    }

    /// Makes a tenant's key, wrapped under the current root.
    ///
    /// # Errors
    /// `Locked`, `Refused`, `Away`.
    pub fn make_tenant_key(&self, tenant: TenantId) -> Result<Vec<u8>, KeyError> {
        self.sealed(Request::MakeTenantKey(tenant))
    }

    /// Adds a version to a tenant's key: its new wrapped form, and the version.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Refused`, `Away`.
    pub fn rotate_tenant_key(&self, tenant: TenantId, wrapped: &[u8]) -> Result<(Vec<u8>, u32), KeyError> {
        match self.ask(Request::RotateTenantKey { tenant, wrapped: wrapped.to_vec() })? {
            Reply::Rotated { wrapped, version } => Ok((wrapped, version)),
            other => Err(odd(&other)),
        }
    }

    /// A tenant, by its wrapped key: remembered as long as that stays the same, also while the service is away.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Refused`, `Away`.
    pub fn tenant(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Arc<RemoteTenant>, KeyError> {
        if let Some(known) = self.tenants.lock().get(&tenant)
            && known.wrapped == wrapped
        {
            return Ok(Arc::clone(known));
        }
        let derived = open_tenant(&self.line, tenant, wrapped, Purpose::Catalog)?;
        let metadata = derived.metadata.ok_or_else(|| KeyError::Misused("it derived nothing".to_owned()))?;
        let metadata = Arc::new(TenantMetadata::from_bytes(metadata.expose())?);
        let sealing = derived.sealing;
        let line = Arc::clone(&self.line);
        let opened = Arc::new(RemoteTenant { line, tenant, wrapped: wrapped.to_vec(), metadata, sealing });
        self.tenants.lock().insert(tenant, Arc::clone(&opened));
        Ok(opened)
    }

    /// What a tenant's metadata is sealed under. Needs no external key.
    ///
    /// # Errors
    /// As [`Client::tenant`].
    pub fn tenant_metadata(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Arc<TenantMetadata>, KeyError> {
        Ok(Arc::clone(&self.tenant(tenant, wrapped)?.metadata))
    }

    /// How a tenant's key is sealed; `None` when the root alone opens it.
    ///
    /// # Errors
    /// As [`Client::tenant`].
    pub fn external_sealing(
        &self,
        tenant: TenantId,
        wrapped: &[u8],
    ) -> Result<Option<ExternalSealing>, KeyError> {
        Ok(self.tenant(tenant, wrapped)?.sealing.clone())
    }

    /// Whether a tenant's key opens now. One that the root alone opens does once it was opened.
    ///
    /// # Errors
    /// `WaitsForExternal`, and as [`Client::tenant`].
    pub fn check_open(&self, tenant: TenantId, wrapped: &[u8]) -> Result<(), KeyError> {
        if self.tenant(tenant, wrapped)?.sealing.is_some() {
            self.ask(Request::CheckTenant { tenant, wrapped: wrapped.to_vec() })?;
        }
        Ok(())
    }

    /// Hands in the key that a tenant's external service gave back for `ciphertext`. It is kept until it is dropped, or
    /// the key service ends.
    pub fn offer_external(&self, tenant: TenantId, ciphertext: &str, kek: &ExternalKek) {
        let kek = Hidden::of(kek.expose());
        let request = Request::OfferExternal { tenant, ciphertext: ciphertext.to_owned(), kek };
        if let Err(error) = self.ask(request) {
            tracing::warn!(%tenant, %error, "a tenant's external key is not taken");
        }
        self.known.changed();
    }

    /// Whether the key that a service gave back for `ciphertext` is here.
    #[must_use]
    pub fn has_external(&self, tenant: TenantId, ciphertext: &str) -> bool {
        let request = Request::HasExternal { tenant, ciphertext: ciphertext.to_owned() };
        matches!(self.ask(request), Ok(Reply::Is(true)))
    }

    /// Forgets a tenant's external key and the key it opened. Returns whether there was one. A key service that does not
    /// answer has forgotten both, or is ended.
    pub fn drop_external(&self, tenant: TenantId) -> bool {
        let had = matches!(self.ask(Request::DropExternal(tenant)), Ok(Reply::Is(true)));
        if had {
            self.known.changed();
        }
        had
    }

    /// Seals a tenant's key under an external key; its new wrapped form.
    ///
    /// # Errors
    /// `Locked`, `WaitsForExternal`, `Crypt`, `Refused`, `Away`.
    pub fn seal_external(
        &self,
        tenant: TenantId,
        wrapped: &[u8],
        kek: &ExternalKek,
        sealing: &ExternalSealing,
    ) -> Result<Vec<u8>, KeyError> {
        let (wrapped, kek, sealing) = (wrapped.to_vec(), Hidden::of(kek.expose()), sealing.clone());
        self.sealed(Request::SealExternal { tenant, wrapped, kek, sealing })
    }

    /// Wraps a tenant's key under the root alone; its new wrapped form.
    ///
    /// # Errors
    /// As [`Client::seal_external`].
    pub fn unseal_external(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sealed(Request::UnsealExternal { tenant, wrapped: wrapped.to_vec() })
    }

    /// Public names of all versions of a tenant's key.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Refused`, `Away`.
    pub fn tenant_key_names(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Vec<(u32, KeyId)>, KeyError> {
        Ok(open_tenant(&self.line, tenant, wrapped, Purpose::Names)?.names)
    }

    /// Whether a tenant's key, or what is derived from it, is in the memory of this node.
    ///
    /// # Errors
    /// `Away`.
    pub fn remembers(&self, tenant: TenantId) -> Result<bool, KeyError> {
        let here = self.tenants.lock().contains_key(&tenant);
        match self.ask(Request::Remembers(tenant))? {
            Reply::Is(there) => Ok(here || there),
            other => Err(odd(&other)),
        }
    }
}
