//! Answers the admin API about events, and reads from the control state what there is to know of them.
//!
//! A target is a secret of the cluster, sealed as every other: its address may say where a client's systems are, and
//! what is sent along opens them.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_admin_api::{AdminError, EventBackend, EventStatus, WebhookSpec, WebhookStatus};
use holdfast_control::{Command, ControlView, FEATURE_LEVEL_EVENTS};
use holdfast_events::Target;
use holdfast_keyservice::Client;
use holdfast_model::TenantId;
use holdfast_object::events::{EVENT_NETWORKS_MAX, EventSettings, Network, WEBHOOKS_MAX, Webhook};

use crate::{
    admin::{Admin, internal},
    protection::tenant,
};

/// Under which name the cluster's settings of events are kept.
const SETTINGS: &str = "event settings";

/// Name of the secret that is a tenant's target.
fn secret_name(tenant: TenantId, name: &str) -> String {
    format!("webhook {tenant}/{name}")
}

/// Names of a tenant's secrets that are its targets.
pub fn secrets(view: &ControlView, tenant: TenantId) -> Vec<String> {
    sealed(view, tenant).map(|(name, _)| secret_name(tenant, name)).collect()
}

fn sealed(view: &ControlView, tenant: TenantId) -> impl Iterator<Item = (&str, &Vec<u8>)> {
    let prefix = secret_name(tenant, "");
    let secrets = view.secrets.range(prefix.clone()..);
    secrets.map_while(move |(name, sealed)| name.strip_prefix(&prefix).map(|name| (name, sealed)))
}

/// Targets of a tenant by name. One that does not open is told of and left out: its events wait.
pub fn webhooks(view: &ControlView, keyring: &Client, tenant: TenantId) -> BTreeMap<String, Arc<Webhook>> {
    let opened = sealed(view, tenant).filter_map(|(name, sealed)| {
        let opened = keyring.open_secret(&secret_name(tenant, name), sealed).map_err(anyhow::Error::from);
        match opened.and_then(|text| Ok(serde_json::from_slice(&text)?)) {
            Ok(webhook) => Some((name.to_owned(), Arc::new(webhook))),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(%tenant, name, error, "a target of events is not readable");
                None
            }
        }
    });
    opened.collect()
}

/// What the cluster lets events do.
pub fn settings(view: &ControlView, keyring: &Client) -> EventSettings {
    let Some(sealed) = view.secrets.get(SETTINGS) else { return EventSettings::default() };
    let opened = keyring.open_secret(SETTINGS, sealed).map_err(anyhow::Error::from);
    opened.and_then(|text| Ok(serde_json::from_slice(&text)?)).unwrap_or_else(|error| {
        tracing::error!(
            error = format!("{error:#}"),
            "settings of events are not readable; they are as usual"
        );
        EventSettings::default()
    })
}

/// Whether every node's program knows of events.
pub fn are_known(view: &ControlView) -> bool {
    view.cluster.as_ref().is_some_and(|cluster| cluster.feature_level >= FEATURE_LEVEL_EVENTS)
}

impl Admin {
    async fn keep(&self, name: String, value: &impl serde::Serialize) -> Result<(), AdminError> {
        let encode = || anyhow::Ok(self.keyring.seal_secret(&name, &serde_json::to_vec(value)?)?);
        let sealed = encode().map_err(|error| internal("sealing what events need", error))?;
        self.decide(&Command::PutSecret { name, sealed }).await
    }
}

#[async_trait::async_trait]
impl EventBackend for Admin {
    async fn webhooks(&self, name: &str) -> Result<Vec<WebhookStatus>, AdminError> {
        let view = self.view().await?;
        let found = webhooks(&view, &self.keyring, tenant(&view, name)?.tenant);
        let shown = |(name, webhook): (String, Arc<Webhook>)| WebhookStatus {
            arn: format!("arn:holdfast:sqs::{name}:webhook"),
            url: webhook.url.clone(),
            has_secret: webhook.bearer.is_some(),
            name,
        };
        Ok(found.into_iter().map(shown).collect())
    }

    async fn set_webhook(&self, name: &str, spec: WebhookSpec) -> Result<(), AdminError> {
        let view = self.view().await?;
        if !are_known(&view) {
            let what = "Some node's program does not know of events yet: update all nodes first.".to_owned();
            return Err(AdminError::Conflict { what });
        }
        let tenant = tenant(&view, name)?.tenant;
        let WebhookSpec { name, url, bearer, ca_pem } = spec;
        let webhook = Webhook { url, bearer, ca_pem };
        Target::parse(&webhook).map_err(|error| AdminError::Invalid { what: error.to_string() })?;
        let others = sealed(&view, tenant).filter(|(known, _)| *known != name).count();
        if others >= WEBHOOKS_MAX {
            let what = format!("A tenant has at most {WEBHOOKS_MAX} webhooks.");
            return Err(AdminError::Conflict { what });
        }
        self.keep(secret_name(tenant, &name), &webhook).await
    }

    async fn remove_webhook(&self, name: &str, webhook: &str) -> Result<(), AdminError> {
        let view = self.view().await?;
        let tenant = tenant(&view, name)?.tenant;
        let name = secret_name(tenant, webhook);
        if !view.secrets.contains_key(&name) {
            return Err(AdminError::NotFound { what: format!("webhook {webhook:?}") });
        }
        self.decide(&Command::RemoveSecret { name }).await
    }

    async fn events(&self) -> Result<EventStatus, AdminError> {
        let view = self.view().await?;
        let known = self.objects.workers().events();
        Ok(EventStatus {
            enabled: are_known(&view),
            networks: settings(&view, &self.keyring).networks.iter().map(ToString::to_string).collect(),
            queued: known.values().map(|events| events.queued).sum(),
            oldest_unix_ms: known.values().filter_map(|events| events.oldest).min().map(|at| at.get()),
            dropped: known.values().map(|events| events.dropped).sum(),
        })
    }

    async fn set_event_networks(&self, networks: Vec<String>) -> Result<(), AdminError> {
        if networks.len() > EVENT_NETWORKS_MAX {
            let what = format!("At most {EVENT_NETWORKS_MAX} networks are kept.");
            return Err(AdminError::Invalid { what });
        }
        let parsed: Result<Vec<Network>, _> = networks.iter().map(|network| network.parse()).collect();
        let networks = parsed.map_err(|error| AdminError::Invalid { what: error.to_string() })?;
        self.keep(SETTINGS.to_owned(), &EventSettings { networks }).await
    }
}
