//! Answers the admin API about external keys.
//!
//! A tenant's key is sealed under a fresh external key, tried once around, and put in force by one command that names
//! what it replaces. Settings are kept before that under a name of their own; cut off in between, they are settings
//! that nobody uses, and go with the next change.

use holdfast_admin_api::{
    AdminError, ExternalKeyBackend, ExternalKeySpec, ExternalKeyState, ExternalKeyStatus,
};
use holdfast_control::{Command, ControlView, KeyCommand, Rewrapped, TenantRecord, TenantState};
use holdfast_crypt::{ExternalKek, external_context, random_array};
use holdfast_external_keys::{ExternalKeyService, ServiceError, VaultAuth, VaultSettings, VaultTransit};
use holdfast_keyring::ExternalSealing;
use holdfast_keyservice::KeyError;

use super::{
    CHECK_SECONDS, CHECK_SECONDS_RANGE, GRACE_SECONDS, GRACE_SECONDS_MAX, Kept, are_known, kept, secret_name,
    secrets, standing::State,
};
use crate::{
    admin::{Admin, RETRY_AFTER, internal, unavailable},
    events,
    protection::tenant,
};

/// Where Vault mounts things unless told otherwise.
const MOUNT: &str = "transit";
const APPROLE_MOUNT: &str = "approle";

fn asked(error: ServiceError) -> AdminError {
    match error {
        ServiceError::Refused(_) | ServiceError::Protocol(_) => {
            AdminError::Conflict { what: format!("Nothing was changed: {error}.") }
        }
        ServiceError::Unreachable(_) => AdminError::Unavailable {
            what: format!("Nothing was changed: {error}."),
            retry_after: RETRY_AFTER,
        },
    }
}

fn keyring(error: KeyError) -> AdminError {
    match error {
        KeyError::WaitsForExternal { .. } => AdminError::Unavailable {
            what: format!("The tenant's key is not here: {error}."),
            retry_after: RETRY_AFTER,
        },
        error => internal("a tenant's key", error.into()),
    }
}

fn settings(spec: ExternalKeySpec) -> Result<Kept, AdminError> {
    let invalid = |what: &str| AdminError::Invalid { what: what.to_owned() };
    let auth = match (spec.token, spec.role_id, spec.secret_id) {
        (Some(token), None, None) => VaultAuth::Token(token),
        (None, Some(role_id), Some(secret_id)) => VaultAuth::AppRole {
            mount: spec.approle_mount.unwrap_or_else(|| APPROLE_MOUNT.to_owned()),
            role_id,
            secret_id,
        },
        _ => return Err(invalid("Give either a token, or a role_id and its secret_id.")),
    };
    let kept = Kept {
        vault: VaultSettings {
            url: spec.url,
            ca_pem: spec.ca_pem,
            namespace: spec.namespace,
            mount: spec.mount.unwrap_or_else(|| MOUNT.to_owned()),
            key: spec.key,
            auth,
        },
        check_seconds: spec.check_seconds.unwrap_or(CHECK_SECONDS),
        grace_seconds: spec.grace_seconds.unwrap_or(GRACE_SECONDS),
    };
    kept.vault.check().map_err(|error| AdminError::Invalid { what: error.to_string() })?;
    if !CHECK_SECONDS_RANGE.contains(&kept.check_seconds) || kept.grace_seconds > GRACE_SECONDS_MAX {
        let (from, to) = (CHECK_SECONDS_RANGE.start(), CHECK_SECONDS_RANGE.end());
        return Err(invalid(&format!(
            "check_seconds is {from} to {to}, grace_seconds 0 to {GRACE_SECONDS_MAX}."
        )));
    }
    Ok(kept)
}

impl Admin {
    /// As of now, not as of the last that came here: two changes in a row see each other.
    async fn view_now(&self) -> Result<ControlView, AdminError> {
        self.control.barrier().await.map_err(|error| unavailable(&error))?;
        self.view().await
    }

    fn alive<'v>(&self, view: &'v ControlView, name: &str) -> Result<&'v TenantRecord, AdminError> {
        let record = tenant(view, name)?;
        if record.state == TenantState::Shredding {
            return Err(AdminError::Conflict { what: format!("Tenant {name} is being destroyed.") });
        }
        Ok(record)
    }

    fn sealing(&self, record: &TenantRecord) -> Result<Option<ExternalSealing>, AdminError> {
        self.keyring.external_sealing(record.tenant, &record.wrapped_key).map_err(keyring)
    }

    fn service(&self, view: &ControlView, kept: &Kept) -> Result<VaultTransit, AdminError> {
        kept.service(events::settings(view, &self.keyring).networks)
    }

    fn present(
        &self,
        view: &ControlView,
        record: &TenantRecord,
        sealing: &ExternalSealing,
    ) -> Result<Kept, AdminError> {
        kept(view, &self.keyring, record.tenant, sealing.service)
            .map_err(|error| internal("settings of the external key", error))
    }

    /// Has the tenant's key open, with the word of one of `services` that it may be had now, when it has an external
    /// key.
    async fn agreed(
        &self,
        record: &TenantRecord,
        sealing: Option<&ExternalSealing>,
        services: &[&VaultTransit],
    ) -> Result<(), AdminError> {
        let tenant = record.tenant;
        if let Some(sealing) = sealing {
            let context = external_context(self.keyring.cluster(), tenant);
            let mut outcome = Err(ServiceError::Protocol("no service to ask".to_owned()));
            for service in services {
                outcome = service.unwrap(&sealing.ciphertext, &context).await;
                if outcome.is_ok() {
                    break;
                }
            }
            let kek = outcome.map_err(asked)?;
            if !self.keyring.has_external(tenant, &sealing.ciphertext) {
                self.keyring.offer_external(tenant, &sealing.ciphertext, &kek);
            }
        }
        self.keyring.check_open(tenant, &record.wrapped_key).map_err(keyring)
    }

    /// Seals a tenant's key under a fresh external key of `service` and puts that in force.
    async fn seal_under(
        &self,
        view: &ControlView,
        record: &TenantRecord,
        (kept, service): (&Kept, &VaultTransit),
    ) -> Result<(), AdminError> {
        let tenant = record.tenant;
        let context = external_context(self.keyring.cluster(), tenant);
        service.health().await.map_err(asked)?;
        let kek = ExternalKek::generate();
        let ciphertext = service.wrap(&kek, &context).await.map_err(asked)?;
        let back = service.unwrap(&ciphertext, &context).await.map_err(asked)?;
        if back.id() != kek.id() {
            return Err(asked(ServiceError::Protocol(
                "it gives back another key than it was given".to_owned(),
            )));
        }
        let sealing =
            ExternalSealing { service: random_array(), description: service.describe(), ciphertext };
        let now = self.keyring.seal_external(tenant, &record.wrapped_key, &kek, &sealing).map_err(keyring)?;
        let name = secret_name(tenant, sealing.service);
        let encode = || anyhow::Ok(zeroize::Zeroizing::new(serde_json::to_vec(kept)?));
        let text = encode().map_err(|error| internal("encoding settings", error))?;
        let sealed = self.keyring.seal_secret(&name, &text).map_err(keyring)?;
        self.decide(&Command::PutSecret { name: name.clone(), sealed }).await?;
        let key = Rewrapped { was: record.wrapped_key.clone(), now };
        let decided = self.decide(&Command::Keys(KeyCommand::SetTenantKey { tenant, key })).await;
        match &decided {
            Ok(()) => {
                self.keyring.offer_external(tenant, &sealing.ciphertext, &kek);
                self.forget_settings(view, record, Some(&name)).await;
            }
            // Of one that may be in force all the same the settings stay.
            Err(AdminError::Unavailable { .. }) => {}
            Err(_) => self.forget(name).await,
        }
        decided
    }

    /// Settings that no wrapped key names any more.
    async fn forget_settings(&self, view: &ControlView, record: &TenantRecord, but: Option<&str>) {
        for name in secrets(view, record.tenant).into_iter().filter(|name| Some(name.as_str()) != but) {
            self.forget(name).await;
        }
    }

    async fn forget(&self, name: String) {
        if let Err(error) = self.decide(&Command::RemoveSecret { name }).await {
            tracing::warn!(%error, "settings of an external key that is not used stay until the next change");
        }
    }
}

#[async_trait::async_trait]
impl ExternalKeyBackend for Admin {
    async fn external_key(&self, name: &str) -> Result<ExternalKeyStatus, AdminError> {
        let view = self.view().await?;
        let record = tenant(&view, name)?;
        let Some(sealing) = self.sealing(record)? else {
            return Ok(ExternalKeyStatus::none());
        };
        let kept = self.present(&view, record, &sealing).ok();
        let shown = self.external_keys.of(record.tenant);
        let state = match shown.as_ref().map(|shown| &shown.state) {
            None | Some(State::New) => ExternalKeyState::Asking,
            Some(State::Allowed) => ExternalKeyState::Allowed,
            Some(State::Silent) => ExternalKeyState::Silent,
            Some(State::Refused) => ExternalKeyState::Refused,
        };
        Ok(ExternalKeyStatus {
            service: Some(sealing.description),
            state: Some(state),
            key_here: self.keyring.check_open(record.tenant, &record.wrapped_key).is_ok(),
            detail: shown.as_ref().and_then(|shown| shown.why.clone()),
            asked_unix_ms: shown.as_ref().and_then(|shown| shown.asked).map(|at| at.get()),
            check_seconds: kept.as_ref().map(|kept| kept.check_seconds),
            grace_seconds: kept.as_ref().map(|kept| kept.grace_seconds),
        })
    }

    async fn set_external_key(&self, name: &str, spec: ExternalKeySpec) -> Result<(), AdminError> {
        let view = self.view_now().await?;
        if !are_known(&view) {
            let what = "Some node's program does not know of external keys yet: update all nodes first.";
            return Err(AdminError::Conflict { what: what.to_owned() });
        }
        let record = self.alive(&view, name)?;
        let kept = settings(spec)?;
        let service = self.service(&view, &kept)?;
        let sealing = self.sealing(record)?;
        let present = match &sealing {
            Some(sealing) => {
                let present = self.present(&view, record, sealing).ok();
                present.map(|present| self.service(&view, &present)).transpose()?
            }
            None => None,
        };
        // New credentials for the same key may be why this is asked for.
        let services: Vec<&VaultTransit> = [&service].into_iter().chain(&present).collect();
        self.agreed(record, sealing.as_ref(), &services).await?;
        self.seal_under(&view, record, (&kept, &service)).await?;
        tracing::warn!(target: "audit", tenant = %record.tenant, name, service = service.describe(), "a tenant's key is sealed under an external key");
        Ok(())
    }

    async fn rotate_external_key(&self, name: &str) -> Result<(), AdminError> {
        let view = self.view_now().await?;
        let record = self.alive(&view, name)?;
        let sealing = self.sealing(record)?.ok_or_else(|| none(name))?;
        let kept = self.present(&view, record, &sealing)?;
        let service = self.service(&view, &kept)?;
        self.agreed(record, Some(&sealing), &[&service]).await?;
        self.seal_under(&view, record, (&kept, &service)).await?;
        tracing::warn!(target: "audit", tenant = %record.tenant, name, service = service.describe(), "a tenant's external key is exchanged");
        Ok(())
    }

    async fn remove_external_key(&self, name: &str) -> Result<(), AdminError> {
        let view = self.view_now().await?;
        let record = self.alive(&view, name)?;
        let sealing = self.sealing(record)?.ok_or_else(|| none(name))?;
        let service = self.service(&view, &self.present(&view, record, &sealing)?)?;
        self.agreed(record, Some(&sealing), &[&service]).await?;
        let now = self.keyring.unseal_external(record.tenant, &record.wrapped_key).map_err(keyring)?;
        let key = Rewrapped { was: record.wrapped_key.clone(), now };
        self.decide(&Command::Keys(KeyCommand::SetTenantKey { tenant: record.tenant, key })).await?;
        self.forget_settings(&view, record, None).await;
        tracing::warn!(target: "audit", tenant = %record.tenant, name, service = sealing.description, "a tenant's key is sealed under an external key no more");
        Ok(())
    }
}

fn none(name: &str) -> AdminError {
    AdminError::NotFound { what: format!("an external key of tenant {name:?}") }
}
