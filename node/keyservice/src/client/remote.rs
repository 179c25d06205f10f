//! A tenant whose key stays in the service: what the object layer wraps and opens content keys with.

use std::{fmt, sync::Arc};

use holdfast_crypt::{
    BodyContext, BodyUse, CryptError, CustodyError, OuterKey, TenantCustody, TenantMetadata,
};
use holdfast_keyring::ExternalSealing;
use holdfast_model::TenantId;
use zeroize::Zeroizing;

use super::{Line, odd};
use crate::protocol::{BodyPlace, Derived, Hidden, KeyError, Purpose, Reply, Request};

pub(super) fn open_tenant(
    line: &Line,
    tenant: TenantId,
    wrapped: &[u8],
    purpose: Purpose,
) -> Result<Derived, KeyError> {
    match line.ask(Request::OpenTenant { tenant, wrapped: wrapped.to_vec(), purpose })? {
        Reply::Derived(derived) => Ok(derived),
        other => Err(odd(&other)),
    }
}

/// A tenant whose key the service holds.
pub struct RemoteTenant {
    pub(super) line: Arc<Line>,
    pub(super) tenant: TenantId,
    pub(super) wrapped: Vec<u8>,
    pub(super) metadata: Arc<TenantMetadata>,
    pub(super) sealing: Option<ExternalSealing>,
}

impl fmt::Debug for RemoteTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteTenant").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl RemoteTenant {
    /// Asks, and has a service that was started since open the tenant's key first.
    fn ask(&self, request: impl Fn() -> Request) -> Result<Reply, CustodyError> {
        let answer = match self.line.ask(request()) {
            Err(KeyError::NotOpened) => open_tenant(&self.line, self.tenant, &self.wrapped, Purpose::Catalog)
                .and_then(|_| self.line.ask(request())),
            answer => answer,
        };
        answer.map_err(|error| match error {
            KeyError::Crypt(_) => CustodyError::Crypt(CryptError::Refused("body key")),
            // Clients are told no service's name.
            KeyError::WaitsForExternal { .. } => {
                CustodyError::Unavailable("it waits for the tenant's external key service".to_owned())
            }
            other => CustodyError::Unavailable(other.to_string()),
        })
    }

    fn place(&self, context: &BodyContext, name: &str) -> BodyPlace {
        BodyPlace {
            tenant: context.tenant,
            bucket: context.bucket,
            content: context.content,
            name: name.to_owned(),
        }
    }
}

impl TenantCustody for RemoteTenant {
    fn wrap_body(
        &self,
        wanted: BodyUse,
        context: &BodyContext,
        name: &str,
        secret: &[u8],
    ) -> Result<Vec<u8>, CustodyError> {
        let request = || Request::WrapBody {
            purpose: wanted.into(),
            place: self.place(context, name),
            secret: Hidden::of(secret),
        };
        match self.ask(request)? {
            Reply::Sealed(bytes) => Ok(bytes),
            other => Err(CustodyError::Unavailable(odd(&other).to_string())),
        }
    }

    fn unwrap_body(
        &self,
        wanted: BodyUse,
        context: &BodyContext,
        name: &str,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        let request = || Request::UnwrapBody {
            purpose: wanted.into(),
            place: self.place(context, name),
            wrapped: wrapped.to_vec(),
        };
        match self.ask(request)? {
            Reply::Opened(secret) => Ok(secret.into_inner()),
            other => Err(CustodyError::Unavailable(odd(&other).to_string())),
        }
    }

    fn named_key(&self, wanted: BodyUse, id: &str) -> Result<OuterKey, CustodyError> {
        let request = || Request::NamedKey { purpose: wanted.into(), tenant: self.tenant, id: id.to_owned() };
        let odd = |reply: &Reply| CustodyError::Unavailable(odd(reply).to_string());
        match self.ask(request)? {
            Reply::Opened(key) => {
                let key: [u8; 32] =
                    key.expose().try_into().map_err(|_| CryptError::Malformed("named key"))?;
                Ok(OuterKey::from_bytes(key))
            }
            other => Err(odd(&other)),
        }
    }

    fn metadata(&self) -> Arc<TenantMetadata> {
        Arc::clone(&self.metadata)
    }
}
