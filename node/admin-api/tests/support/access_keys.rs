//! Access keys of the made-up cluster.

use async_trait::async_trait;
use holdfast_admin_api::{
    AccessKeyBackend, AccessKeyBounds, AccessKeyPair, AccessKeyStatus, AdminError, Secret,
};

use super::Example;

fn none(what: &str, name: &str) -> AdminError {
    AdminError::NotFound { what: format!("{what} \"{name}\"") }
}

#[async_trait]
impl AccessKeyBackend for Example {
    async fn access_keys(&self, tenant: &str) -> Result<Vec<AccessKeyStatus>, AdminError> {
        let tenants = self.tenants.lock();
        let known =
            tenants.iter().find(|known| known.name == tenant).ok_or_else(|| none("tenant", tenant))?;
        let bounds = self.bounds.lock();
        let status = |key: &String| {
            let bounds = bounds.get(key).cloned().unwrap_or_default();
            AccessKeyStatus {
                access_key: key.clone(),
                account: "000000000007".into(),
                user: None,
                created_unix_ms: 7,
                active: true,
                expired: false,
                expires_unix_ms: bounds.expires_unix_ms,
                policy: bounds.policy,
            }
        };
        Ok(known.access_keys.iter().map(status).collect())
    }

    async fn create_access_key(
        &self,
        tenant: &str,
        bounds: AccessKeyBounds,
    ) -> Result<AccessKeyPair, AdminError> {
        let mut tenants = self.tenants.lock();
        let known =
            tenants.iter_mut().find(|known| known.name == tenant).ok_or_else(|| none("tenant", tenant))?;
        let access_key = format!("HFEXTRA{:09}", known.access_keys.len());
        known.access_keys.push(access_key.clone());
        self.bounds.lock().insert(access_key.clone(), bounds);
        Ok(AccessKeyPair { access_key, secret_key: Secret::new("another-secret-shown-once".into()) })
    }

    async fn set_access_key_bounds(
        &self,
        tenant: &str,
        access_key: &str,
        bounds: AccessKeyBounds,
    ) -> Result<(), AdminError> {
        let keys = self.access_keys(tenant).await?;
        if keys.iter().all(|key| key.access_key != access_key) {
            return Err(none("access key", access_key));
        }
        self.bounds.lock().insert(access_key.to_owned(), bounds);
        Ok(())
    }

    async fn delete_access_key(&self, tenant: &str, access_key: &str) -> Result<(), AdminError> {
        let mut tenants = self.tenants.lock();
        let known =
            tenants.iter_mut().find(|known| known.name == tenant).ok_or_else(|| none("tenant", tenant))?;
        let before = known.access_keys.len();
        known.access_keys.retain(|key| key != access_key);
        if known.access_keys.len() == before { Err(none("access key", access_key)) } else { Ok(()) }
    }
}
