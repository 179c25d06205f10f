//! Answers the admin API about tenants' standing: suspended, limited, destroyed.

use holdfast_admin_api::{
    AdminError, Quota, ShredOrder, ShredState, ShredStatus, TenancyBackend, TenantQuota,
};
use holdfast_catalog::Quota as CatalogQuota;
use holdfast_control::{
    Command, ControlView, ShredCommand, ShredOrder as ShredDecision, ShredRecord, TenantState,
};
use holdfast_keyservice::KeyError;
use holdfast_model::{TenantId, TenantLimits};
use holdfast_object::api::{ObjectError, ObjectGateway as _};

use crate::{
    admin::{Admin, internal, unavailable},
    control::now,
    keys::waits_for,
    protection::tenant,
    tenants::secrets_of,
};

fn failed(error: ObjectError) -> AdminError {
    unavailable(&anyhow::Error::new(error))
}

fn status(view: &ControlView, tenant: TenantId, record: &ShredRecord) -> ShredStatus {
    let name_of = |node| view.nodes.get(node).map(|node| node.name.clone());
    ShredStatus {
        tenant,
        name: record.name.clone(),
        state: if record.finished.is_some() { ShredState::Done } else { ShredState::Pending },
        waits_for: waits_for(view, record),
        keys: record.keys.iter().map(|(_, id)| *id).collect(),
        by: record.by.clone(),
        override_retention: record.overridden.clone(),
        begun_unix_ms: record.begun,
        destroyed_unix_ms: record.destroyed.as_ref().map(|destroyed| destroyed.at),
        confirmed_by: record.confirmed.keys().filter_map(name_of).collect(),
        finished_unix_ms: record.finished.as_ref().map(|finished| finished.at),
    }
}

impl Admin {
    /// Legal holds and retentions in compliance mode forbid it, unless a reason is given.
    async fn check_retention(
        &self,
        id: TenantId,
        reason: Option<&str>,
    ) -> Result<Option<String>, AdminError> {
        let locked = self.objects.locked(id).await.map_err(failed)?;
        if locked.holds == 0 && locked.compliance == 0 {
            return Ok(None);
        }
        let what = format!(
            "{} versions of objects are under legal hold and {} under a retention in compliance mode",
            locked.holds, locked.compliance
        );
        match reason {
            Some(reason) => {
                tracing::warn!(target: "audit", tenant = %id, what, reason, "retentions are passed over");
                Ok(Some(format!("{what}: {reason}")))
            }
            None => Err(AdminError::Conflict {
                what: format!("{what}. To destroy the tenant all the same, say why in override_retention."),
            }),
        }
    }
}

#[async_trait::async_trait]
impl TenancyBackend for Admin {
    async fn suspend(&self, name: &str, suspended: bool) -> Result<(), AdminError> {
        let view = self.view().await?;
        let record = tenant(&view, name)?;
        if record.state == TenantState::Shredding {
            return Err(AdminError::Conflict { what: format!("Tenant {name} is being destroyed.") });
        }
        let state = if suspended { TenantState::Suspended } else { TenantState::Active };
        self.decide(&Command::SetTenantState { tenant: record.tenant, state }).await
    }

    async fn quota(&self, name: &str) -> Result<TenantQuota, AdminError> {
        let view = self.view().await?;
        let id = tenant(&view, name)?.tenant;
        let handle = self.objects.open(id);
        let usage = handle.usage().await.map_err(failed)?;
        let quota = self.objects.quota(id).await.map_err(failed)?;
        Ok(TenantQuota {
            bytes_max: quota.bytes,
            objects_max: quota.objects,
            used_bytes: usage.bytes + usage.old_bytes + usage.upload_bytes,
            used_objects: usage.objects + usage.old_versions,
        })
    }

    async fn set_quota(&self, name: &str, quota: Quota) -> Result<(), AdminError> {
        let view = self.view().await?;
        let handle = self.objects.open(tenant(&view, name)?.tenant);
        let quota = CatalogQuota { bytes: quota.bytes, objects: quota.objects };
        handle.set_quota(quota).await.map_err(failed)
    }

    async fn limits(&self, name: &str) -> Result<TenantLimits, AdminError> {
        let view = self.view().await?;
        Ok(tenant(&view, name)?.limits)
    }

    async fn set_limits(&self, name: &str, limits: TenantLimits) -> Result<(), AdminError> {
        let view = self.view().await?;
        let tenant = tenant(&view, name)?.tenant;
        self.decide(&Command::SetTenantLimits { tenant, limits }).await
    }

    async fn shred(&self, order: ShredOrder) -> Result<ShredStatus, AdminError> {
        // As of now, not as of the last that came here: what was just suspended is seen.
        self.control.barrier().await.map_err(|error| unavailable(&error))?;
        let view = self.view().await?;
        let record = tenant(&view, &order.tenant)?;
        let id = record.tenant;
        if record.state == TenantState::Active {
            let what = format!(
                "Tenant {} is served. Suspend it first, so that nothing is written meanwhile.",
                order.tenant
            );
            return Err(AdminError::Conflict { what });
        }
        if !view.shreds.contains_key(&id) {
            let overridden = self.check_retention(id, order.override_retention.as_deref()).await?;
            let failed = |error: KeyError| internal("opening the tenant's key", error.into());
            // Neither needs the external service: a tenant whose service is gone can be destroyed.
            let external = self.keyring.external_sealing(id, &record.wrapped_key).map_err(failed)?;
            let names = self.keyring.tenant_key_names(id, &record.wrapped_key).map_err(failed)?;
            let decision = ShredDecision {
                tenant: id,
                was: record.wrapped_key.clone(),
                keys: names,
                secrets: secrets_of(&view, id),
                by: order.by.clone(),
                overridden,
                at: now(),
            };
            let command = match external {
                Some(sealing) => {
                    ShredCommand::BeginExternal { order: decision, external: sealing.description }
                }
                None => ShredCommand::Begin(decision),
            };
            self.decide(&Command::Shred(command)).await?;
            tracing::warn!(target: "audit", tenant = %id, name = order.tenant, by = order.by, "a tenant is to be destroyed");
            self.control.barrier().await.map_err(|error| unavailable(&error))?;
        }
        let view = self.view().await?;
        let record = view.shreds.get(&id).ok_or_else(|| AdminError::Conflict {
            what: format!("Tenant {} changed meanwhile; try again.", order.tenant),
        })?;
        Ok(status(&view, id, record))
    }

    async fn shreds(&self) -> Result<Vec<ShredStatus>, AdminError> {
        let view = self.view().await?;
        let mut shreds: Vec<ShredStatus> =
            view.shreds.iter().map(|(tenant, record)| status(&view, *tenant, record)).collect();
        shreds.sort_by_key(|shred| std::cmp::Reverse(shred.begun_unix_ms));
        Ok(shreds)
    }

    async fn certificate(&self, tenant: TenantId) -> Result<String, AdminError> {
        let view = self.view().await?;
        let finished = view.shreds.get(&tenant).and_then(|record| record.finished.clone());
        let none = || AdminError::NotFound { what: format!("a certificate of tenant {tenant}") };
        finished.map(|finished| finished.certificate).ok_or_else(none)
    }
}
